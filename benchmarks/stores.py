"""A store of 10,000 pages of 1030 vectors on disk: exact search, two stages, and a rerank, side by side.

From the repository's root::

    python -m benchmarks.stores build [--pages 10000]     # about 15 minutes and 8 GB in benchmarks/work/stores
    python -m benchmarks.stores measure [--queries 30]    # -> results/stores.md

Pages and queries are those of `benchmarks.stores_data`. One collection of the embedded engine holds all vectors of
each page and both first stages, so that all searches run over the same pages: the searches are those that
`MultiVectorStore` makes. Ground truth is the engine's exact search, which is checked against numpy on a part.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.qdrant_edge import EdgeEngine
from benchmarks.qdrant_edge_shards import read_manifest
from benchmarks.stores_data import Corpus
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import ward_pool
from colpali_integrations.stores.engine import FULL, Point, Search, VectorSpec

FOLDER = Path(__file__).parent / "work" / "stores"
K, BATCH = 10, 32
MUVERA = Muvera(128)
SCHEMA = {
    FULL: VectorSpec(dim=128),
    "ward": VectorSpec(dim=128),
    "muvera": VectorSpec(dim=MUVERA.size, multi=False),
}


def points(corpus: Corpus, spent: dict[str, float], start: int) -> Iterator[list[Point]]:
    def timed(name: str, call: Any, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = call(*arguments)
        spent[name] += time.perf_counter() - began
        return result

    for first in range(start, corpus.pages, BATCH):
        batch = []
        for number in range(first, min(first + BATCH, corpus.pages)):
            vectors = timed("make", corpus.page, number)
            single = vectors.astype(np.float32)
            first_stages = {
                "ward": timed("ward", ward_pool, single, 32),
                "muvera": timed("muvera", MUVERA.document, single),
            }
            batch.append(Point(str(number), {FULL: vectors, **first_stages}, None, {"id": str(number)}))
        yield batch


def build(pages: int) -> None:
    """Continue where an earlier build stopped."""
    corpus = Corpus(pages=pages)
    manifest = read_manifest(FOLDER) or {"pages": pages}
    engine = EdgeEngine(FOLDER, schema=SCHEMA, manifest=manifest)
    spent = dict.fromkeys(("make", "ward", "muvera", "insert"), 0.0)
    began, held = time.perf_counter(), engine.count()
    for batch in points(corpus, spent, held):
        started = time.perf_counter()
        engine.upsert(batch)
        spent["insert"] += time.perf_counter() - started
        held += len(batch)
        if held % (BATCH * 20) == 0 or held == pages:
            each = ", ".join(f"{name} {1000 * seconds / held:.1f}" for name, seconds in spent.items())
            print(f"{held} pages, {time.perf_counter() - began:.0f} s; ms a page: {each}", flush=True)
    engine.close()


def searches(query: np.ndarray[Any, np.dtype[np.float32]], pages: int) -> dict[str, Search]:
    found = {"exact": Search(query=query, limit=K)}
    for kept in (50, 100, 200):
        first = Search(query=query, using="ward", limit=kept)
        found[f"Ward-32, {kept} candidates"] = Search(query=query, limit=K, prefetch=first)
    encoded = MUVERA.query(query)
    for kept in (100, 200, 500):
        first = Search(query=encoded, using="muvera", limit=kept)
        found[f"MUVERA, {kept} candidates"] = Search(query=query, limit=K, prefetch=first)
    return found


def measure(queries: int) -> None:
    size = sum(file.stat().st_blocks * 512 for file in FOLDER.rglob("*") if file.is_file())
    log = sum(file.stat().st_blocks * 512 for file in (FOLDER / "shard" / "wal").rglob("*") if file.is_file())
    began = time.perf_counter()
    engine = EdgeEngine(FOLDER, schema=SCHEMA, manifest={})
    opening = time.perf_counter() - began
    pages = engine.count()
    corpus = Corpus(pages=int(engine.manifest["pages"]))
    asked = [corpus.query(number) for number in range(queries)]
    checked = check(engine, corpus, asked[:3])
    engine.search([Search(query=asked[0], limit=K)])  # the pages of the file are in memory from here on
    times: dict[str, list[float]] = {}
    shares: dict[str, list[float]] = {}
    for number, query in enumerate(asked):
        kinds = searches(query, pages)
        order = list(kinds) if number % 2 == 0 else list(reversed(kinds))
        answers = {}
        for name in order:
            started = time.perf_counter()
            [answers[name]] = engine.search([kinds[name]])
            times.setdefault(name, []).append(time.perf_counter() - started)
        truth = {scored.id for scored in answers["exact"]}
        for name, found in answers.items():
            shares.setdefault(name, []).append(len(truth & {scored.id for scored in found}) / K)
    private, mapped = memory("RssAnon"), memory("RssFile")
    rows = [
        (
            name,
            f"{np.mean(shares[name]):.3f}",
            machine.spread(times[name], unit=1000, digits=1),
            f"{median(times[name]) / median(times['exact']):.3f}",
        )
        for name in times
    ]
    text = [
        "# Search in 10,000 pages on disk",
        f"`python -m benchmarks.stores build --pages {pages}`, then `measure --queries {queries}` instead of `build`",
        machine.describe(),
        f"{pages:,} pages of {corpus.vectors} x 128 (benchmarks/stores_data.py), {queries} queries, {K} hits, one "
        f"collection of the embedded engine; exact search agrees with numpy on {checked} pages within 1e-3. A search "
        "by MUVERA includes no encoding of the query.",
        machine.table(("search", "recall@10 of exact", "ms a query", "time, exact = 1"), rows),
        f"On disk {size / 2**20:,.0f} MiB, of these {log / 2**20:,.0f} MiB the write-ahead log; all vectors as float16 "
        f"are {pages * corpus.vectors * 256 / 2**20:,.0f} MiB. Opened in {opening:.2f} s. Memory of this process after "
        f"these searches: {private:,.0f} MiB of its own, Python and numpy included, {mapped:,.0f} MiB of the files, "
        "which the system takes back when it needs them.",
        "## A rerank of 100 stored candidates",
        rerank(engine, corpus, asked),
    ]
    machine.write("stores.md", "\n\n".join(text))
    engine.close()


def memory(field: str) -> float:
    """MiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{field}:"))


def check(engine: EdgeEngine, corpus: Corpus, asked: list[Any]) -> int:
    numbers = range(0, corpus.pages, max(1, corpus.pages // 200))
    pages = [corpus.page(number) for number in numbers]
    for query in asked:
        truth = max_sim(query, pages)
        search = Search(query=query, limit=len(pages), ids=[str(number) for number in numbers], scores_only=True)
        found = {scored.id: scored.score for scored in engine.search([search])[0]}
        worst = max(abs(found[str(number)] - score) for number, score in zip(numbers, truth, strict=True))
        if worst > 1e-3:
            raise SystemExit(f"the engine's scores are off by {worst}")
    return len(pages)


def rerank(engine: EdgeEngine, corpus: Corpus, asked: list[Any]) -> str:
    numbers = list(range(0, corpus.pages, max(1, corpus.pages // 100)))[:100]
    half = [corpus.page(number) for number in numbers]
    single = [page.astype(np.float32) for page in half]
    ids = [str(number) for number in numbers]
    ways = {
        "stored vectors, by the engine": lambda query: engine.search(
            [Search(query=query, limit=len(ids), ids=ids, scores_only=True)]
        ),
        "max_sim, float32 arrays": lambda query: max_sim(query, single),
        "max_sim, float16 arrays": lambda query: max_sim(query, half),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(2):
        for query in asked[:10]:
            for name, way in ways.items():
                started = time.perf_counter()
                way(query)
                times[name].append(time.perf_counter() - started)
    base = median(times["max_sim, float32 arrays"])
    rows = [
        (name, machine.spread(one, unit=1000, digits=1), f"{median(one) / base:.2f}") for name, one in times.items()
    ]
    return machine.table(("100 pages", "ms", "time, float32 arrays = 1"), rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["build", "measure"])
    parser.add_argument("--pages", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=30)
    options = parser.parse_args()
    if options.command == "build":
        build(options.pages)
    else:
        measure(options.queries)


if __name__ == "__main__":
    main()
