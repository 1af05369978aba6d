"""Load on the machine's cores, for measurements beside other programs.

::

    python -m benchmarks.load busy 2       # two processes that compute without a pause
    python -m benchmarks.load bursty 8     # eight that compute for 20 to 80 ms and rest for three times as long

Each ends with the program's standard input, so that none outlives the measurement.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

KINDS = {"busy": 2, "bursty": 8}
"""The kinds of load, and how many processes a measurement has of each."""


def busy(seed: int) -> None:
    while True:
        compute(1.0)


def bursty(seed: int) -> None:
    chance = random.Random(seed)
    while True:
        seconds = chance.uniform(0.02, 0.08)
        compute(seconds)
        time.sleep(3 * seconds)


def compute(seconds: float) -> None:
    end, number = time.perf_counter() + seconds, 1
    while time.perf_counter() < end:
        for _ in range(1000):
            number = number * 6364136223846793005 % 2**64


@contextmanager
def load(kind: str) -> Iterator[None]:
    """Run the processes of a kind; none for "quiet"."""
    if kind == "quiet":
        yield
        return
    command = [sys.executable, "-m", "benchmarks.load", kind, str(KINDS[kind])]
    made = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert made.stdin is not None and made.stdout is not None
    try:
        made.stdout.readline()  # they run
        yield
    finally:
        made.stdin.close()
        made.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    target = {"busy": busy, "bursty": bursty}[options.kind]
    processes = [multiprocessing.Process(target=target, args=(seed,), daemon=True) for seed in range(options.count)]
    for one in processes:
        one.start()
    print("running", flush=True)
    sys.stdin.read()
    for one in processes:
        one.kill()
        one.join()


if __name__ == "__main__":
    main()
