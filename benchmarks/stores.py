"""A folder of 10,000 pages of 1030 vectors: exact search, two stages, a rerank, beside the embedded Qdrant engine.

From the repository's root, with `pip install --group benchmark`::

    python -m benchmarks.stores build [--pages 10000]     # about 25 minutes and 12 GB in benchmarks/work/stores
    python -m benchmarks.stores measure [--queries 30]    # -> results/stores.md

Pages and queries are those of `benchmarks.stores_data`. Both engines hold all vectors of each page and both first
stages, so that all searches run over the same pages: the searches are those that `MultiVectorStore` makes. The engines
take turns, query by query. Ground truth is numpy on a part of the pages, and each engine's own exact search.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeAlias

import numpy as np

from benchmarks import machine
from benchmarks.qdrant_edge import EdgeEngine
from benchmarks.stores_data import Corpus
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import ward_pool
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.engine import FULL, Engine, Point, Search, VectorSpec

FOLDER = Path(__file__).parent / "work" / "stores"
Engines: TypeAlias = "dict[str, Engine]"
PEER = "qdrant-edge 0.9.0"
K, BATCH = 10, 32
MUVERA = Muvera(128)
SCHEMA = {
    FULL: VectorSpec(dim=128),
    "ward": VectorSpec(dim=128, coarse=True),
    "muvera": VectorSpec(dim=MUVERA.size, multi=False, coarse=True),
}
CENTROIDS = "centroids"


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


def opened(manifest: dict[str, Any]) -> Engines:
    return {
        "ours": FolderEngine(
            FOLDER / "ours", schema={**SCHEMA, FULL: VectorSpec(dim=128, quantization="centroids")}, manifest=manifest
        ),
        PEER: EdgeEngine(FOLDER / "qdrant-edge", schema=SCHEMA, manifest=manifest),
    }


def build(pages: int) -> None:
    """Continue where an earlier build stopped."""
    engines = opened({"pages": pages})
    corpus = Corpus(pages=int(engines["ours"].manifest["pages"]))
    spent = dict.fromkeys(("make", "ward", "muvera", *engines), 0.0)
    began, held = time.perf_counter(), min(engine.count() for engine in engines.values())
    for batch in points(corpus, spent, held):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine.upsert(batch)
            spent[name] += time.perf_counter() - started
        held += len(batch)
        if held % (BATCH * 20) == 0 or held == pages:
            each = ", ".join(f"{name} {1000 * seconds / held:.1f}" for name, seconds in spent.items())
            print(f"{held} pages, {time.perf_counter() - began:.0f} s; ms per page: {each}", flush=True)
    for engine in engines.values():
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
    found[CENTROIDS] = Search(query=query, limit=K, oversampling=1.0)  # of the folder engine alone
    return found


def measure(queries: int) -> None:
    sizes = {
        path.name: sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file())
        for path in FOLDER.iterdir()
    }
    engines = opened({})
    pages = engines["ours"].count()
    corpus = Corpus(pages=int(engines["ours"].manifest["pages"]))
    asked = [corpus.query(number) for number in range(queries)]
    checked = {name: check(engine, corpus, asked[:3]) for name, engine in engines.items()}
    for engine in engines.values():
        engine.search([Search(query=asked[0], limit=K)])  # the pages of the files are in memory from here on
    times: dict[tuple[str, str], list[float]] = {}
    shares: dict[tuple[str, str], list[float]] = {}
    for number, query in enumerate(asked):
        kinds, answers = searches(query, pages), {}
        order = [(name, kind) for kind in kinds for name in engines if name == "ours" or kind != CENTROIDS]
        for name, kind in order if number % 2 == 0 else reversed(order):
            started = time.perf_counter()
            [answers[name, kind]] = engines[name].search([kinds[kind]])
            times.setdefault((name, kind), []).append(time.perf_counter() - started)
        for (name, kind), found in answers.items():
            truth = {scored.id for scored in answers[name, "exact"]}
            shares.setdefault((name, kind), []).append(len(truth & {scored.id for scored in found}) / K)
    rows = [
        (
            kind,
            *(f"{np.mean(shares[name, kind]):.3f}" if (name, kind) in shares else "-" for name in engines),
            *(
                machine.spread(times[name, kind], unit=1000, digits=1) if (name, kind) in times else "-"
                for name in engines
            ),
            "-" if kind == CENTROIDS else f"{median(times['ours', kind]) / median(times[PEER, kind]):.2f}",
        )
        for kind in searches(asked[0], pages)
    ]
    names = list(engines)
    text = [
        f"# Search in {pages:,} pages on disk",
        f"`python -m benchmarks.stores build --pages {pages}`, then `measure --queries {queries}` instead of `build`",
        machine.describe(),
        f"{pages:,} pages of {corpus.vectors} x 128 (benchmarks/stores_data.py), {queries} queries, {K} hits; the "
        f"engines take turns. Scores differ from numpy's by at most {max(checked.values()):.0e} on 200 pages. A search "
        "by MUVERA includes no encoding of the query.",
        machine.table(
            ("search", *(f"recall@10, {name}" for name in names), *(f"ms, {name}" for name in names), "ratio"), rows
        ),
        "On disk: "
        + ", ".join(f"{name} {size / 2**20:,.0f} MiB" for name, size in sizes.items())
        + f"; all vectors as float16 are {pages * corpus.vectors * 256 / 2**20:,.0f} MiB. Memory of this process after "
        f"these searches: {memory('RssAnon'):,.0f} MiB of its own, Python, numpy and both engines included.",
        "## A rerank of 100 stored candidates",
        rerank(engines, corpus, asked),
    ]
    machine.write("stores.md", "\n\n".join(text))
    for engine in engines.values():
        engine.close()


def memory(field: str) -> float:
    """MiB of this process, as Linux counts them."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) / 2**10 for line in lines if line.startswith(f"{field}:"))


def check(engine: Engine, corpus: Corpus, asked: list[Any]) -> float:
    """The largest difference from numpy's scores."""
    numbers = range(0, corpus.pages, max(1, corpus.pages // 200))
    pages = [corpus.page(number) for number in numbers]
    worst = 0.0
    for query in asked:
        truth = max_sim(query, pages)
        search = Search(query=query, limit=len(pages), ids=[str(number) for number in numbers], scores_only=True)
        found = {scored.id: scored.score for scored in engine.search([search])[0]}
        worst = max(worst, *(abs(found[str(number)] - score) for number, score in zip(numbers, truth, strict=True)))
    return worst


def rerank(engines: Engines, corpus: Corpus, asked: list[Any]) -> str:
    numbers = list(range(0, corpus.pages, max(1, corpus.pages // 100)))[:100]
    half = [corpus.page(number) for number in numbers]
    ids = [str(number) for number in numbers]

    def by(engine: Engine) -> Any:
        return lambda query: engine.search([Search(query=query, limit=len(ids), ids=ids, scores_only=True)])

    ways = {name: by(engine) for name, engine in engines.items()}
    ways["max_sim, float16 arrays in memory"] = lambda query: max_sim(query, half)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(2):
        for query in asked[:10]:
            for name, way in ways.items():
                started = time.perf_counter()
                way(query)
                times[name].append(time.perf_counter() - started)
    base = median(times[PEER])
    rows = [
        (name, machine.spread(one, unit=1000, digits=1), f"{median(one) / base:.2f}") for name, one in times.items()
    ]
    return machine.table(("100 pages", "ms", "time, qdrant-edge = 1"), rows)


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
