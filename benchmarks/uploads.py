"""The client's CPU per page that is sent to a Qdrant server, beside the ways that scipy and qdrant-client offer.

From the repository's root::

    python -m benchmarks.uploads [--pages 20] [--vectors 1030]

No server takes part: Ward's means are made, and the bytes of a request. The pages are those of
`benchmarks.stores_data`. Each part is measured in turns with its peer, and the results are checked to be the same.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.stores_data import Corpus, Float
from colpali_integrations.scoring.pooling import group_means, ward_pool
from colpali_integrations.stores.engine import FIRST, FULL, Point
from colpali_integrations.stores.qdrant.sending import point_json, point_message, point_struct

HALF = {FULL, FIRST}


def scipy_ward(page: Float) -> Float:
    """Ward's means by scipy's own distances."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    labels = fcluster(linkage(pdist(page), "ward"), 32, "maxclust") - 1
    return group_means(page, labels)


def by_client(point: Point) -> bytes:
    """A point of the client's models, as its JSON."""
    return point_struct(point, HALF).model_dump_json(exclude_unset=True).encode()


def by_client_grpc(point: Point) -> bytes:
    """A point of the client's models, as a message."""
    from qdrant_client.conversions.conversion import RestToGrpc

    return bytes(RestToGrpc.convert_point_struct(point_struct(point, HALF)).SerializeToString())


def message(point: Point) -> bytes:
    """A point as the store's engine writes it."""
    return bytes(point_message(point, HALF).SerializeToString())


def cpu(ways: dict[str, Callable[[Any], object]], items: list[Any]) -> dict[str, float]:
    """Medians of milliseconds by way, item by item in turns."""
    took: dict[str, list[float]] = {name: [] for name in ways}
    for item in items:
        for name, way in ways.items():
            began = time.process_time()
            way(item)
            took[name].append(time.process_time() - began)
    return {name: median(some[1:]) * 1e3 for name, some in took.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=20)
    parser.add_argument("--vectors", type=int, default=1030)
    options = parser.parse_args()
    corpus = Corpus(options.pages, options.vectors)
    pages = [corpus.page(number).astype(np.float32) for number in range(options.pages)]
    assert all((scipy_ward(page) == ward_pool(page)).all() for page in pages)
    points = [
        Point(str(number), {FULL: page.astype(np.float16), FIRST: ward_pool(page)}, None, {"id": str(number)})
        for number, page in enumerate(pages)
    ]
    assert all(by_client_grpc(point) == message(point) for point in points)
    ward = cpu({"scipy": scipy_ward, "ours": ward_pool}, pages)
    rest = cpu({"client": by_client, "ours": lambda point: point_json(point, HALF)}, points)
    grpc = cpu({"client": by_client_grpc, "ours": message}, points)
    sizes = [len(by_client(points[0])), len(point_json(points[0], HALF)), len(message(points[0]))]
    rows = [
        ("Ward's means, 32", ward["scipy"], ward["ours"]),
        ("REST", rest["client"], rest["ours"]),
        ("gRPC", grpc["client"], grpc["ours"]),
        ("REST with Ward's means", ward["scipy"] + rest["client"], ward["ours"] + rest["ours"]),
        ("gRPC with Ward's means", ward["scipy"] + grpc["client"], ward["ours"] + grpc["ours"]),
    ]
    table = machine.table(
        ("part", "scipy, qdrant-client", "ours", "ratio"),
        [(name, f"{theirs:.1f}", f"{own:.1f}", f"{own / theirs:.2f}") for name, theirs, own in rows],
    )
    machine.write(
        "uploads.md",
        "# The client's CPU per page sent to a Qdrant server\n\n"
        f"Made by `python -m benchmarks.uploads {shlex.join(sys.argv[1:])}` on synthetic pages of {options.vectors} x "
        f"{corpus.dim}; milliseconds of CPU per page, medians of {options.pages - 1}. Means and gRPC messages of both "
        f"ways are equal to the last bit. Bytes per page: REST by the client {sizes[0]:,}, ours {sizes[1]:,}; gRPC "
        f"{sizes[2]:,}.\n\n{table}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
