"""MaxSim, BM25 and their fusion, on real pages with a text layer, and without some of the text layers.

From the repository's root::

    python -m benchmarks.hybrid --pdfs FOLDER [--fetch]    # -> results/hybrid.md; some minutes

Pages, questions and halves are those of `training.evaluate` (420 pages of 21 manuals from Debian's packages, none of
which ColTiny was trained on; one page counts as relevant). The weight is chosen on the half "dev" and reported on the
half "test". A document without its text layer stands for a scan among born-digital ones.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import machine
from colpali_integrations import ColPali
from colpali_integrations.stores import Entry, Hit, MultiVectorStore
from training.evaluate import Page, Query, fetch, load

WEIGHTS = (0.1, 0.2, 0.3, 0.5)


def gain(hits: Sequence[Hit], page: int) -> float:
    """nDCG@5 with one relevant page."""
    ranks = [rank for rank, hit in enumerate(hits[:5]) if hit.id == str(page)]
    return 1 / math.log2(ranks[0] + 2) if ranks else 0.0


def measure(
    store: MultiVectorStore, vectors: list[Any], queries: list[Query], pages: list[Page]
) -> Callable[..., dict[str, float]]:
    texts = [query.text for query in queries]
    halves = np.array([pages[query.page].half for query in queries])

    def run(**options: Any) -> dict[str, float]:
        if "hybrid" in options:
            options["texts"] = texts
        found = store.search_batch(vectors, 5, **options)
        gains = np.array([gain(hits, query.page) for hits, query in zip(found, queries, strict=True)])
        return {half: float(gains[halves == half].mean()) for half in ("dev", "test")}

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pdfs", type=Path, default=Path("training/work/pdfs"))
    parser.add_argument("--images", type=Path, default=Path("training/work/evaluation/pages"))
    parser.add_argument("--fetch", action="store_true", help="download the documents' packages first (Debian, Ubuntu)")
    options = parser.parse_args()
    if options.fetch:
        fetch(options.pdfs)
    pages, queries = load(options.pdfs, options.images)
    model = ColPali.from_pretrained("coltiny")
    vectors = list(model.embed_queries([query.text for query in queries]))
    store = MultiVectorStore.open(model=model)
    encoded = list(model.embed_images([page.image for page in pages]))
    documents = sorted({page.package for page in pages})
    rows = []
    for kept, step in (("all", 0), ("of three in four", 4), ("of every second", 2)):
        bare = {name for number, name in enumerate(documents) if step and number % step == 0}
        for number, page in enumerate(pages):
            text = "" if page.package in bare else page.text
            store.add([(Entry(id=str(number), text=text), encoded[number])])
        run = measure(store, vectors, queries, pages)
        weighed = {weight: run(hybrid=weight) for weight in WEIGHTS}
        chosen = max(WEIGHTS, key=lambda weight: weighed[weight]["dev"])
        ways = {
            "MaxSim": run(),
            "BM25 first, MaxSim last (weight 1)": run(hybrid=1.0),
            "reciprocal ranks": run(hybrid="rrf"),
            **{f"weight {weight}{' (chosen)' if weight == chosen else ''}": weighed[weight] for weight in WEIGHTS},
        }
        rows += [(kept, name, f"{found['dev']:.3f}", f"{found['test']:.3f}") for name, found in ways.items()]
    text = [
        "# Hybrid search: MaxSim and BM25",
        "`python -m benchmarks.hybrid`",
        machine.describe(),
        f"{len(pages)} pages of {len(documents)} manuals, {len(queries)} queries, ColTiny; nDCG@5 with one relevant "
        'page. The weight is chosen on the documents of "dev"; differences of .01 are within chance.',
        machine.table(("text layers", "search", "dev", "test"), rows),
    ]
    machine.write("hybrid.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
