"""Two stages in arrays against an exact int8 scan: 50,000 pages of 400 vectors, their float16 vectors on disk.

From the repository's root::

    python -m benchmarks.two_stages build [--pages 50000]   # a quarter of an hour, 6 GB in benchmarks/work/two_stages
    python -m benchmarks.two_stages measure [--queries 30]  # -> results/two_stages.md

All of it is made of this package's functions: `quantize_int8` and `PackedPages` for the scan of all vectors, the same
over `ward_pool`'s means for the first stage, `max_sim` over the float16 rows of the candidates, read from the file, for
the second. Pages are those of `benchmarks/stores_data.py`; recall is of the ten best by exact float32 MaxSim.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import machine
from benchmarks.stores_data import Corpus
from colpali_integrations import max_sim
from colpali_integrations.scoring import PackedPages, quantize_int8, top_pages, ward_pool

FOLDER = Path(__file__).parent / "work" / "two_stages"
VECTORS, DIM, K = 400, 128, 10
MEANS = (16, 32)
KEPT = {16: (100, 200, 400), 32: (50, 100, 200)}
Scores = Callable[[NDArray[np.float32]], NDArray[np.intp]]


def rows(name: str, pages: int, each: int, mode: Any) -> np.memmap[Any, np.dtype[np.float16]]:
    return np.memmap(FOLDER / name, np.float16, mode, shape=(pages, each, DIM))


def build(pages: int) -> None:
    """Continue where an earlier build stopped."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    corpus, progress = Corpus(pages, VECTORS, DIM), FOLDER / f"done-{pages}"
    done = int(progress.read_text()) if progress.exists() else 0
    mode = "r+" if done else "w+"
    full = rows("full.f16", pages, VECTORS, mode)
    pooled = {means: rows(f"ward-{means}.f16", pages, means, mode) for means in MEANS}
    began = time.perf_counter()
    for number in range(done, pages):
        page = corpus.page(number)
        full[number] = page
        for means, file in pooled.items():
            file[number] = ward_pool(page.astype(np.float32), means)
        if (number + 1) % 500 == 0 or number + 1 == pages:
            progress.write_text(str(number + 1))
            print(f"{number + 1} pages, {time.perf_counter() - began:.0f} s", flush=True)


def truth(full: NDArray[np.float16], queries: list[NDArray[np.float32]]) -> NDArray[np.intp]:
    scores = [max_sim(queries, list(full[first : first + 1000])) for first in range(0, len(full), 1000)]
    return top_pages(np.concatenate(scores, axis=1), K)


def measure(count: int) -> None:
    [progress] = FOLDER.glob("done-*")
    pages = int(progress.name.split("-")[1])
    if int(progress.read_text()) != pages:
        raise SystemExit("the build is not finished: run it again")
    full = rows("full.f16", pages, VECTORS, "r")
    queries = [Corpus(pages, VECTORS, DIM).query(number) for number in range(count)]
    best = truth(full, queries)
    scan = PackedPages(quantize_int8(full))

    def exact(query: NDArray[np.float32]) -> NDArray[np.intp]:
        return top_pages(max_sim(query, scan), K)

    def two_stages(first: PackedPages, kept: int) -> Scores:
        def search(query: NDArray[np.float32]) -> NDArray[np.intp]:
            near = np.sort(top_pages(max_sim(query, first), kept))
            found: NDArray[np.intp] = near[top_pages(max_sim(query, [full[page] for page in near]), K)]
            return found

        return search

    ways: dict[str, Scores] = {"exact int8 scan": exact}
    for means, several in KEPT.items():
        first = PackedPages(quantize_int8(rows(f"ward-{means}.f16", pages, means, "r")))
        ways |= {f"Ward-{means} in int8, {kept} candidates": two_stages(first, kept) for kept in several}
    times: dict[str, list[float]] = {name: [] for name in ways}
    recall: dict[str, list[float]] = {name: [] for name in ways}
    for number, (query, right) in enumerate(zip(queries, best, strict=True)):
        for name in list(ways) if number % 2 else list(reversed(ways)):
            began = time.perf_counter()
            found = ways[name](query)
            times[name].append(time.perf_counter() - began)
            recall[name].append(float(np.isin(right, found).mean()))
    base = median(times["exact int8 scan"])
    table = machine.table(
        ("search", f"recall@{K}", "ms a query", "part of the scan's time"),
        [
            (name, f"{np.mean(recall[name]):.3f}", machine.spread(took, unit=1000), f"1/{base / median(took):.1f}")
            for name, took in times.items()
        ],
    )
    machine.write(
        "two_stages.md",
        f"# Two stages against an exact int8 scan: {pages:,} pages of {VECTORS} x {DIM}\n\n"
        f"`python -m benchmarks.two_stages build --pages {pages}`, then `measure`; {count} queries of 20 to 24 vectors."
        " Scan and first stages are in memory, the second stage reads float16 rows from a file (in the system's cache)."
        f"\n\n{table}\n\n{machine.describe()}\n",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "measure"])
    parser.add_argument("--pages", type=int, default=50_000)
    parser.add_argument("--queries", type=int, default=30)
    options = parser.parse_args()
    if options.command == "build":
        build(options.pages)
    else:
        measure(options.queries)


if __name__ == "__main__":
    main()
