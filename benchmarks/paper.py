"""Vectors of plain paper: how many a page has, how long finding them takes, and what leaving them out costs.

From the repository's root::

    python -m benchmarks.paper [--pages 60]

The shares are those of pages of the demo's PDFs, on the grids of two models. The cost in the best ten is measured on
the generated pages of `benchmarks.stores_data`, whose blank patches are known. No trained weights of such a model
can be had here: what the option costs with them is not measured, and models with random weights do not tell.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np

from benchmarks import machine
from benchmarks.codes import TOP, generated
from benchmarks.coltiny import chosen
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.models.paper import Ink
from colpali_integrations.pages.pdf import pdf_pages
from colpali_integrations.scoring.maxsim import max_sim

GRIDS = {"ColPali, 32 x 32": (32, 32), "NeoMME at A4 and 150 dpi, 55 x 39": (55, 39)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=60)
    options = parser.parse_args()
    shares: dict[str, list[float]] = {name: [] for name in GRIDS}
    took = []
    for path, number in chosen(options.pages):
        [page] = pdf_pages(path, dpi=150, pages=[number])
        started = time.process_time()
        ink = Ink(page.image)
        took.append(time.process_time() - started)
        for name, (rows, columns) in GRIDS.items():
            marks = ink.marks(PageGrid(rows, columns, np.arange(rows * columns)))
            shares[name].append(float(marks.mean()))
    table = [
        (name, f"{np.mean(found):.0%}", *(f"{np.quantile(found, part):.0%}" for part in (0.1, 0.5, 0.9)))
        for name, found in shares.items()
    ]
    real = machine.table(("grid", "patches with ink, mean", "10% of the pages below", "median", "90% below"), table)

    data = generated()
    assert data.printed is not None
    lengths = np.diff(np.cumsum(data.printed)[np.cumsum(data.lengths) - 1], prepend=0)
    whole, inked = data.pages(data.rows), data.pages(data.rows[data.printed], lengths)
    overlaps = []
    for query in data.queries:
        truth, scores = max_sim(query, whole), max_sim(query, inked)
        lowest = np.sort(truth)[-TOP]
        overlaps.append(float((truth[np.argsort(-scores, kind="stable")[:TOP]] >= lowest).mean()))
    machine.write(
        "paper.md",
        "# Vectors of plain paper\n\nMade by `python -m benchmarks.paper`.\n\n"
        f"{real}\n\n{options.pages} pages of the demo's PDFs at 150 dpi. Finding the ink takes "
        f"{median(took) * 1e3:.1f} ms of CPU time per page.\n\n"
        f"On {len(whole):,} generated pages of {data.lengths[0]} vectors, {data.printed.mean():.0%} of them not blank, "
        f"the pages without blank patches keep {np.mean(overlaps):.1%} of the exact ten best ({len(data.queries)} "
        "queries, float32). Generated vectors are no model's: with trained weights the cost is not measured.\n\n"
        f"{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
