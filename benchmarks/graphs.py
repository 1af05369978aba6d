"""A first stage scanned and searched by a graph, in the engine of a Qdrant server: recall and time.

From the repository's root::

    python -m benchmarks.graphs [--pages muvera=6000 ward=2000] [--vectors 400] [--queries 40]

The engine runs in this process (qdrant-edge-py, group `benchmark`). The pages are those of `benchmarks.stores_data`.
Recall is the share of the scan's 100 candidates that the graph finds too; the second stage scores candidates with all
their vectors and is the same for both.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np
import qdrant_edge as edge

from benchmarks import machine
from benchmarks.stores_data import Corpus, Float
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import ward_pool
from colpali_integrations.stores.engine import FIRST, Point, VectorSpec
from colpali_integrations.stores.qdrant.graph import graph_links
from colpali_integrations.stores.qdrant.lifting import Lifting, stored_dim

CANDIDATES = 100
EFS = (100, 200, 400, 800)
Encode = Callable[[Float], Float]


def stage(name: str, dim: int) -> tuple[Encode, Encode]:
    """The encoding of a page and of a query."""
    if name == "ward":
        return ward_pool, lambda query: query
    muvera = Muvera(dim)
    if name == "muvera, as it is":
        return muvera.document, muvera.query
    spec = VectorSpec(dim=muvera.size, multi=False, longest=muvera.longest)
    lifting = Lifting({FIRST: spec}, {FIRST: stored_dim(spec)})
    return (
        lambda page: lifting.point(Point("", {FIRST: muvera.document(page)})).vectors[FIRST],
        lambda query: np.append(muvera.query(query), np.float32(0)),
    )


def shard(folder: str, first: Float) -> Any:
    """An engine whose points have a graph over the first vector's kind."""
    multi = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if first.ndim > 1 else None
    params = edge.EdgeVectorParams(
        first.shape[-1],
        edge.Distance.Dot,
        multivector_config=multi,
        datatype=edge.VectorStorageDatatype.Float16 if multi else edge.VectorStorageDatatype.Float32,
        hnsw_config=edge.HnswIndexConfig(m=graph_links(True).m or 0, ef_construct=100, full_scan_threshold=10),
    )
    optimizers = edge.EdgeOptimizersConfig(default_segment_number=1, indexing_threshold=1)
    return edge.EdgeShard.create(folder, edge.EdgeConfig(vectors={FIRST: params}, optimizers=optimizers))


def searched(engine: Any, queries: list[Float], params: Any) -> tuple[list[set[int]], float]:
    """The candidates of each query, and the median of milliseconds."""
    found, took = [], []
    for query in queries:
        nearest = edge.Query.Nearest(np.ascontiguousarray(query, np.float32), using=FIRST)
        began = time.perf_counter()
        points = engine.query(edge.QueryRequest(query=nearest, limit=CANDIDATES, params=params))
        took.append(time.perf_counter() - began)
        found.append({int(point.id) for point in points})
    return found, median(took) * 1e3


def measure(name: str, pages: int, vectors: int, count: int) -> list[tuple[object, ...]]:
    """The rows of a table."""
    corpus = Corpus(pages, vectors)
    of_page, of_query = stage(name, corpus.dim)
    queries = [of_query(corpus.query(number)) for number in range(count)]
    wanted = [corpus.target(number) for number in range(count)]
    with tempfile.TemporaryDirectory() as folder:
        engine = shard(folder, of_page(corpus.page(0).astype(np.float32)))
        for start in range(0, pages, 100):
            points = [
                edge.Point(number, {FIRST: np.ascontiguousarray(of_page(corpus.page(number).astype(np.float32)))}, {})
                for number in range(start, min(start + 100, pages))
            ]
            engine.update(edge.UpdateOperation.upsert_points(points))
        began = time.process_time()
        engine.optimize()
        built = (time.process_time() - began) / pages * 1e3
        scanned, took = searched(engine, queries, edge.SearchParams(exact=True))

        def row(way: str, found: list[set[int]], took: float) -> tuple[object, ...]:
            recall = np.mean([len(one & exact) / len(exact) for one, exact in zip(found, scanned, strict=True)])
            hits = sum(page in one for page, one in zip(wanted, found, strict=True))
            return name, f"{pages:,}", way, f"{took:.1f}", f"{recall:.3f}", f"{hits} of {count}", f"{built:.1f}"

        rows = [row("scan", scanned, took)]
        for ef in EFS:
            rows.append(row(f"graph, ef {ef}", *searched(engine, queries, edge.SearchParams(hnsw_ef=ef))))
        engine.close()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", nargs="+", default=["muvera, as it is=6000", "muvera=6000", "ward=2000"])
    parser.add_argument("--vectors", type=int, default=400)
    parser.add_argument("--queries", type=int, default=40)
    options = parser.parse_args()
    rows = []
    for name, _, pages in (one.partition("=") for one in options.pages):
        rows += measure(name, int(pages), options.vectors, options.queries)
    header = ("first stage", "pages", "searched by", "ms", "recall of the scan's 100", "wanted page", "CPU ms to build")
    machine.write(
        "graphs.md",
        "# First stages scanned and searched by graph\n\n"
        f"Made by `python -m benchmarks.graphs {shlex.join(sys.argv[1:])}` with qdrant-edge-py, on the synthetic pages "
        f"of `benchmarks/stores_data.py` with {options.vectors} vectors each; medians of {options.queries} searches. "
        "CPU to build the graph is per page.\n\n"
        f"{machine.table(header, rows)}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
