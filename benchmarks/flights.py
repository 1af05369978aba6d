"""Batches in flight: the time to send pages to a server that takes a while to answer, one by one or several at once.

From the repository's root::

    python -m benchmarks.flights [--pages 80] [--vectors 1030] [--batch 16] [--repeats 5]

The server is a process of its own, which reads each request, waits, and confirms it. The ways are measured in turns.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from typing import Any

import numpy as np

from benchmarks import machine
from benchmarks.stores_data import Corpus
from colpali_integrations.stores.engine import FULL, Point
from colpali_integrations.stores.flights import Flights
from colpali_integrations.stores.qdrant.collection import connect
from colpali_integrations.stores.qdrant.retries import calling
from colpali_integrations.stores.qdrant.sending import send_points

DELAYS, WAYS = (0, 20, 100), (1, 2, 3)
ANSWER = b'{"result":{"operation_id":0,"status":"completed"},"status":"ok","time":0.0}'


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self) -> None:
        left = int(self.headers["content-length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        _, delay, _ = self.path.split("/", 2)
        time.sleep(int(delay) / 1e3)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


def serve() -> None:
    """Answer until the process is ended; the first part of a path is the delay in milliseconds."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


def seconds(url: str, batches: list[dict[str, Point]], at_once: int) -> float:
    """The time until all batches are confirmed."""
    client = connect(url)

    def send(batch: dict[str, Point]) -> None:
        calling(client, lambda node: send_points(node, "pages", [*batch.values()], {FULL}))

    def settle(batch: dict[str, Point], error: BaseException | None) -> None:
        if error is not None:
            raise error

    began = time.perf_counter()
    flights = Flights(send, at_once, settle)
    for batch in batches:
        flights.start(batch)
    flights.finish()
    took = time.perf_counter() - began
    client.close()
    return took


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=80)
    parser.add_argument("--vectors", type=int, default=1030)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    corpus = Corpus(options.pages, options.vectors)
    points = [
        Point(str(number), {FULL: corpus.page(number).astype(np.float16)}, None, {"id": str(number)})
        for number in range(options.pages)
    ]
    batches = [
        {point.id: point for point in points[first : first + options.batch]}
        for first in range(0, len(points), options.batch)
    ]
    took: dict[tuple[int, int], list[float]] = {(delay, way): [] for delay in DELAYS for way in WAYS}
    with subprocess.Popen(
        [sys.executable, "-c", "from benchmarks.flights import serve; serve()"], stdout=subprocess.PIPE, text=True
    ) as server:
        try:
            assert server.stdout is not None
            place = f"http://127.0.0.1:{int(server.stdout.readline())}"
            seconds(f"{place}/0", batches, 1)
            for _ in range(options.repeats):
                for delay, way in took:
                    took[delay, way].append(seconds(f"{place}/{delay}", batches, way))
        finally:
            server.kill()
    means = {key: median(some) / len(points) * 1e3 for key, some in took.items()}
    table = machine.table(
        ("the server answers after", *(f"{way} at once" for way in WAYS), "of one"),
        [
            (
                f"{delay} ms",
                *(f"{means[delay, way]:.1f}" for way in WAYS),
                f"{means[delay, WAYS[-1]] / means[delay, 1]:.2f}",
            )
            for delay in DELAYS
        ],
    )
    command = shlex.join(["python", "-m", "benchmarks.flights", *sys.argv[1:]])
    machine.write(
        "flights.md",
        "# Batches in flight to a server\n\n"
        f"Made by `{command}`: {options.pages} synthetic pages of "
        f"{options.vectors} x {corpus.dim} in requests of {options.batch} pages over REST, to a process that reads "
        f"each, waits and confirms it; milliseconds per page, medians of {options.repeats}. A store keeps "
        f"{WAYS[-1]} at once.\n\n{table}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
