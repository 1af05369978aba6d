"""Datatypes of a Qdrant server beside those of a folder: the exact ten best that they keep, by Qdrant's own engine.

From the repository's root::

    python -m benchmarks.turbo [--pages 200]

Generated pages of 400 x 128 (`benchmarks.stores_data`), in qdrant-edge-py, the engine of a server inside this process.
"""

from __future__ import annotations

import argparse
import tempfile

import numpy as np
import qdrant_edge as edge

from benchmarks import machine
from benchmarks.codes import TOP
from benchmarks.stores_data import Corpus, Float
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.maxsim import max_sim

QUERIES = 20
NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10)
MAX_SIM = edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim)


def of_engine(pages: list[Float], queries: list[Float], datatype: edge.VectorStorageDatatype) -> list[list[int]]:
    """The ten best of each query, by the engine."""
    params = edge.EdgeVectorParams(
        128, edge.Distance.Dot, multivector_config=MAX_SIM, datatype=datatype, hnsw_config=NO_GRAPH
    )
    with tempfile.TemporaryDirectory() as folder:
        shard = edge.EdgeShard.create(folder, edge.EdgeConfig(vectors={"full": params}))
        for number, page in enumerate(pages):
            point = edge.Point(number, {"full": page.tolist()}, {})
            shard.update(edge.UpdateOperation.upsert_points([point]))
        exact = edge.SearchParams(exact=True)
        asked = [edge.Query.Nearest(query.tolist(), using="full") for query in queries]
        found = [shard.query(edge.QueryRequest(query=one, limit=TOP, params=exact)) for one in asked]
        shard.close()
    return [[int(one.id) for one in several] for several in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    corpus = Corpus(options.pages, 400)
    pages = [corpus.page(number).astype(np.float32) for number in range(corpus.pages)]
    queries = [corpus.query(number) for number in range(QUERIES)]
    truth = [np.argsort(-max_sim(query, pages), kind="stable")[:TOP] for query in queries]
    rows = []
    for name, bits in (("float16", 16), ("int8", 8), ("int4", 4)):
        kept = [page.astype(np.float16).astype(np.float32) for page in pages]
        if bits < 16:
            code = VectorCode(128, bits)
            kept = [code.decode(code.encode(page)) for page in pages]
        ours = [np.argsort(-max_sim(query, kept), kind="stable")[:TOP].tolist() for query in queries]
        datatype = getattr(edge.VectorStorageDatatype, f"Turbo{bits}" if bits < 16 else "Float16")
        theirs = of_engine(pages, queries, datatype)
        shares = [
            np.mean([np.isin(a, b).mean() for a, b in zip(found, truth, strict=True)]) for found in (ours, theirs)
        ]
        rows.append((name, *(f"{share:.3f}" for share in shares)))
    machine.write(
        "turbo.md",
        "# Datatypes of a Qdrant server\n\nMade by `python -m benchmarks.turbo`.\n\n"
        f"{machine.table(('datatype', 'folder: recall@10', 'Qdrant: recall@10'), rows)}\n\n{corpus.pages} generated "
        f"pages of 400 x 128, {QUERIES} queries, against float32; qdrant-edge-py 0.9.0.\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
