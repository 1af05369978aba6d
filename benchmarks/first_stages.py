"""Which first stage finds the pages that exact MaxSim ranks best: recall@10 by the number of candidates kept.

From the repository's root::

    python -m benchmarks.first_stages [--pages 10000] [--vectors 1030] [--queries 50]

No store takes part: everything is scored in numpy, so this tells of methods, not of engines. The pages are those of
`benchmarks.stores_data`. A second stage is exact, hence its recall is the share of the true best ten among the
candidates.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np

from benchmarks import machine
from benchmarks.stores_data import Corpus, Float
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import grid_pool, mean_pool, ward_pool

KEPT = (10, 50, 100, 200)
BLOCK = 32
Encode = Callable[[Float], Float]


def stages(corpus: Corpus) -> dict[str, tuple[Encode, Encode]]:
    """Encodings of a page and of a query, by name. Single rows are compared by dot product, several by MaxSim."""
    muvera, folded = Muvera(corpus.dim), Muvera(corpus.dim, final_dim=2560)
    side = corpus.side
    return {
        "mean": (lambda page: mean_pool(page)[None], lambda query: query.sum(axis=0, keepdims=True)),
        f"grid rows, {side + corpus.vectors - side**2}": (lambda page: grid_pool(page, side, side), _same),
        f"grid columns, {side + corpus.vectors - side**2}": (
            lambda page: grid_pool(page, side, side, over="rows"),
            _same,
        ),
        "Ward, 16": (lambda page: ward_pool(page, 16), _same),
        "Ward, 32": (lambda page: ward_pool(page, 32), _same),
        "Ward, 64": (lambda page: ward_pool(page, 64), _same),
        "1 bit a number of the page": (lambda page: np.where(page > 0, 1, -1).astype(np.float32), _same),
        f"MUVERA, {muvera.size}": (lambda page: muvera.document(page)[None], lambda query: muvera.query(query)[None]),
        f"MUVERA folded, {folded.size}": (
            lambda page: folded.document(page)[None],
            lambda query: folded.query(query)[None],
        ),
    }


def _same(vectors: Float) -> Float:
    return vectors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--vectors", type=int, default=1030)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--stages", nargs="*", default=[""], help="parts of the names of those to run; all without")
    options = parser.parse_args()
    corpus = Corpus(options.pages, options.vectors)
    chosen = {name: pair for name, pair in stages(corpus).items() if any(part in name for part in options.stages)}
    queries = [corpus.query(number) for number in range(options.queries)]
    asked = {name: [of_query(query) for query in queries] for name, (_, of_query) in chosen.items()}
    scores = {name: np.empty((len(queries), corpus.pages), np.float32) for name in ("exact", *chosen)}
    took: dict[str, list[float]] = {name: [] for name in chosen}
    for start in range(0, corpus.pages, BLOCK):
        pages = [corpus.page(n).astype(np.float32) for n in range(start, min(start + BLOCK, corpus.pages))]
        at = slice(start, start + len(pages))
        scores["exact"][:, at] = max_sim(queries, pages)
        for name, (of_page, _) in chosen.items():
            began = time.process_time()
            fewer = [of_page(page) for page in pages]
            took[name].append((time.process_time() - began) / len(pages))
            scores[name][:, at] = max_sim(asked[name], fewer)
    best = np.argsort(-scores["exact"], axis=1, kind="stable")[:, : KEPT[0]]
    rows = []
    for name in chosen:
        order = np.argsort(-scores[name], axis=1, kind="stable")
        recall = [
            np.mean([np.isin(truth, found[:kept]).mean() for truth, found in zip(best, order, strict=True)])
            for kept in KEPT
        ]
        rows.append((name, f"{median(took[name]) * 1e3:.1f}", *(f"{value:.3f}" for value in recall)))
    ordered = -np.sort(-scores["exact"], axis=1)
    hit = np.mean([best[number, 0] == corpus.target(number) for number in range(len(queries))])
    table = machine.table(
        ("first stage, vectors or numbers a page", "CPU ms a page", "alone", *(f"{kept} kept" for kept in KEPT[1:])),
        rows,
    )
    machine.write(
        f"first_stages-{corpus.pages}x{corpus.vectors}.md",
        f"# First stages: recall@10 of {corpus.pages:,} pages of {corpus.vectors} vectors\n\n"
        f"Made by `python -m benchmarks.first_stages {shlex.join(sys.argv[1:])}` on the synthetic pages of "
        f"`benchmarks/stores_data.py`.\n\n{table}\n\n"
        f"{len(queries)} queries; the page that a query was made from is first for {hit:.0%}; mean MaxSim of the "
        f"first, tenth, hundredth and median page {ordered[:, 0].mean():.2f}, {ordered[:, 9].mean():.2f}, "
        f"{ordered[:, min(99, corpus.pages - 1)].mean():.2f}, {np.median(scores['exact']):.2f}.\n\n"
        f"{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
