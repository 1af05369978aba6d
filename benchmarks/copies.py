"""Exact scores for the candidates of small copies: recall, time and bytes of a folder's first stages of all vectors.

From the repository's root::

    python -m benchmarks.copies [--rounds 3]

1,000 generated pages of 400 x 128 (`benchmarks.stores_data`). A store keeps the vectors in float16 files beside small
copies, which are scanned; the candidates get exact scores. So the ten best are those of float16 wherever they are among
the candidates, and a search reads few of the float16 files.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np

from benchmarks import machine
from benchmarks.codes import GENERATED, TOP, WORK, generated
from colpali_integrations import MultiVectorStore, max_sim
from colpali_integrations.models import find_model
from colpali_integrations.stores import Entry

STAGES = ("exact", "ward", "int8", "int4", "int2", "binary")
OVERSAMPLING = (2, 5, 10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data, model = generated(), find_model("Qdrant/colpali-v1.3-fp16")
    pages = data.pages(data.rows)
    ids = [f"page {number}" for number in range(len(pages))]
    halves = [page.astype(np.float16).astype(np.float32) for page in pages]
    truth = [dict(zip(ids, max_sim(query, halves).tolist(), strict=True)) for query in data.queries]
    lowest = [sorted(scores.values())[-TOP] for scores in truth]
    del halves
    WORK.mkdir(parents=True, exist_ok=True)
    rows = []
    with tempfile.TemporaryDirectory(dir=WORK) as place:
        for stage in STAGES:
            folder = Path(place) / stage
            with MultiVectorStore.open(folder, model=model, first_stage=stage) as store:  # type: ignore[arg-type]
                store.add((Entry(id=id_), page) for id_, page in zip(ids, pages, strict=True))
                store.optimize()
                scanned = sum(one.stat().st_size for one in folder.glob("*.block") if not one.name.startswith("full-0"))
                for several in (None,) if stage == "exact" else OVERSAMPLING:
                    mode: Literal["exact", "two_stage"] = "exact" if several is None else "two_stage"
                    shares, times = [], []
                    for _ in range(options.rounds):
                        for number, query in enumerate(data.queries):
                            started = time.perf_counter()
                            hits = store.search(query, TOP, mode=mode, oversampling=several or 1)
                            times.append(time.perf_counter() - started)
                            shares.append(np.mean([truth[number][hit.id] >= lowest[number] for hit in hits]))
                    candidates = "all" if several is None else str(several * TOP)
                    size = f"{scanned / len(data.rows):.1f}"
                    rows.append((stage, candidates, size, f"{np.mean(shares):.3f}", f"{median(times) * 1e3:.1f}"))
                    print(*rows[-1], flush=True)
            shutil.rmtree(folder)
    head = ("first stage", "candidates", "its bytes per vector", "recall@10", "ms per search")
    machine.write(
        "copies.md",
        "# Exact scores for the candidates of small copies\n\nMade by `python -m benchmarks.copies`.\n\n"
        f"{machine.table(head, rows)}\n\n{GENERATED.pages:,} generated pages of {GENERATED.vectors} x 128 in "
        f"a folder, {len(data.queries)} queries, {options.rounds} rounds; recall of the ten best of float16, which "
        f"takes 256 bytes per vector beside.\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
