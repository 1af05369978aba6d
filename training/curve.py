"""What more training buys: retrieval on real pages by the checkpoints that a run left.

``python -m training.curve --run training/work/runs/one [--every 4]``

Each checkpoint is exported and asked the questions of the half "dev" of evaluation.json, over the pages of that half.
The table goes to benchmarks/results/coltiny_curve.md. Needs the documents (``training.evaluate --fetch``).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks import machine
from training.evaluate import Encoder, bm25, load, maxsim, ranks, summary


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--every", type=int, default=4, help="take every n-th checkpoint, and the run's end")
    parser.add_argument("--name", default="coltiny_curve", help="of the table in benchmarks/results")
    parser.add_argument("--pdfs", type=Path, default=Path("training/work/pdfs"))
    parser.add_argument("--work", type=Path, default=Path("training/work/evaluation"))
    options = parser.parse_args()
    every_page, every_query = load(options.pdfs, options.work / "pages")
    kept = [index for index, page in enumerate(every_page) if page.half == "dev"]
    place = {index: position for position, index in enumerate(kept)}
    pages = [every_page[index] for index in kept]
    queries = [query for query in every_query if query.page in place]
    relevant = np.array([place[query.page] for query in queries])
    kind = np.array([query.kind for query in queries])
    checkpoints = sorted(options.run.glob("at-*.pt"))[options.every - 1 :: options.every]
    rows = []
    last = options.run / "final.pt"  # a run that was stopped has none yet
    for path in [*checkpoints, *([last] if last.exists() else [])]:
        state = torch.load(path, map_location="cpu", weights_only=False)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "training.export", "--weights", str(path), "--out", folder]
            subprocess.run(command, check=True, capture_output=True)
            encoder = Encoder(Path(folder), Path(folder) / "raw")
            raw = [encoder.raw(page.image) for page in pages]
            scores, vectors = maxsim(encoder, encoder.config, raw, [query.text for query in queries])
        found = [summary(ranks(scores, relevant)[kind == name]) for name in ("keywords", "question")]
        rows.append((f"{state['seconds'] / 60:.0f}", state["step"], *found, f"{vectors:.0f}"))
        print(*rows[-1], sep=" | ", flush=True)
    perfect = ranks(bm25(pages, queries), relevant)
    rows.append(
        ("BM25 on the PDF's text", "", *(summary(perfect[kind == name]) for name in ("keywords", "question")), "")
    )
    text = [
        "# ColTiny: what more training buys",
        f"`python -m training.curve --run {options.run}`",
        machine.describe(),
        f"{len(pages)} pages and {len(queries)} queries of the half that constants are chosen on. The learning rate "
        "falls to nothing over the whole run, so an earlier checkpoint is worse than a run that ends there.",
        machine.table(("minutes of training", "steps", "keywords", "questions", "vectors a page"), rows),
    ]
    machine.write(f"{options.name}.md", "\n\n".join(text))


if __name__ == "__main__":
    main()
