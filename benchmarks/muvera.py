"""MUVERA: ours against fastembed's and muvera-python's (Rust), 10,240 numbers per page: time per page and recall.

From the repository's root::

    python -m benchmarks.muvera [--pages 1000] [--rounds 5]      # -> results/muvera.md

All draw other random numbers, so encodings differ; on equal ones fastembed's and ours agree to 1e-5
(tests/scoring/test_muvera.py). muvera-python takes the parameters that are fastembed's defaults.
Times are CPU time of one core, of the same pages in turns. Recall@100 is the part of exact MaxSim's best 10 that is
among the best 100 by the encodings' dot product, on the pages of `benchmarks/stores_data.py`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}  # before numpy is loaded

import numpy as np
from fastembed.postprocess.muvera import Muvera as Peer
from muvera import Muvera as Rust

from benchmarks import machine
from benchmarks.stores_data import Corpus
from colpali_integrations import max_sim
from colpali_integrations.scoring import Muvera, top_pages

ROWS, DIM = 1030, 128
OURS, PEER, RUST = "ours", "fastembed", "muvera-python"


def seconds(call: Callable[[], Any]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=1000)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    corpus, ours, peer = Corpus(options.pages, ROWS, DIM), Muvera(DIM), Peer(DIM, 5, 16, 20)
    assert ours.size == peer.embedding_size
    rust = Rust(20, 5, DIM, projection_type="ams_sketch", projection_dimension=16)
    of_page = {
        OURS: ours.document,
        PEER: peer.process_document,
        RUST: lambda page: rust.encode_documents([page])[0],
    }
    of_query = {OURS: ours.query, PEER: peer.process_query, RUST: lambda query: rust.encode_queries([query])[0]}
    assert of_page[RUST](corpus.page(0).astype(np.float32)).shape == (ours.size,)
    page, query = corpus.page(0).astype(np.float32), corpus.query(0).astype(np.float32)
    times: dict[str, list[float]] = {name: [] for name in of_page}
    asked: dict[str, list[float]] = {name: [] for name in of_page}
    for turn in range(options.rounds):
        for name in (OURS, RUST, PEER) if turn % 2 == 0 else (PEER, RUST, OURS):
            for _ in range(1 if name == PEER else 20):
                times[name].append(seconds(lambda name=name: of_page[name](page)))  # type: ignore[misc]
            asked[name].append(seconds(lambda name=name: of_query[name](query)))  # type: ignore[misc]
    queries = [corpus.query(number).astype(np.float32) for number in range(options.queries)]
    exact = np.empty((len(queries), options.pages), np.float32)
    encoded = {name: np.empty((options.pages, ours.size), np.float32) for name in of_page}
    for number in range(options.pages):
        vectors = corpus.page(number).astype(np.float32)
        exact[:, number] = max_sim(queries, vectors)
        for name, encode in of_page.items():
            encoded[name][number] = encode(vectors)
    best = top_pages(exact, 10)
    rows = []
    for name in of_page:
        scores = np.stack([encoded[name] @ of_query[name](query) for query in queries])
        pairs = zip(best, top_pages(scores, 100), strict=True)
        recall = np.mean([np.isin(truth, found).mean() for truth, found in pairs])
        rows.append(
            (
                name,
                machine.spread(times[name], unit=1000, digits=1),
                f"{median(times[PEER]) / median(times[name]):.0f}x",
                machine.spread(asked[name], unit=1000, digits=2),
                f"{recall:.3f}",
            )
        )
    header = ("encoder", "CPU ms a page", "speed by fastembed", "CPU ms a query", "recall@100")
    machine.write(
        "muvera.md",
        f"# MUVERA: a page of {ROWS} x {DIM} to {ours.size:,} numbers\n\n`python -m benchmarks.muvera`; medians of "
        f"alternating rounds, least and greatest in brackets; recall of {options.queries} queries among "
        f"{options.pages:,} pages.\n\n{machine.table(header, rows)}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
