"""The fixed cost of int8 MaxSim per page, and the cost of each query vector.

From the repository's root::

    python -m benchmarks.int8_parts      # -> results/int8_parts.md; half a minute, a gigabyte

Pages of 1030 x 128 random numbers, on all cores; a line through the least times by the number of question vectors.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import machine
from colpali_integrations.scoring.int8 import Int8Pages
from colpali_integrations.scoring.packed import PackedPages

PAGES, ROWS, DIM, ROUNDS = 1500, 1030, 128, 15
ASKED = (1, 2, 4, 8, 12, 16, 20, 32)


def micros(call: Callable[[], Any]) -> float:
    """Of a page."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) / PAGES * 1e6


def main() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(-127, 128, (PAGES * ROWS, DIM), dtype=np.int8)
    plain = Int8Pages(values, np.full(PAGES, ROWS), np.ones(PAGES), np.zeros((PAGES, DIM)))
    forms = {"int8": plain, "int8, packed": PackedPages(plain)}
    queries = {count: rng.normal(size=(count, DIM)).astype(np.float32) for count in ASKED}
    times: dict[tuple[str, int], list[float]] = {(name, count): [] for name in forms for count in ASKED}
    reading = []
    for turn in range(ROUNDS + 1):
        for (name, count), found in times.items():
            spent = micros(lambda pages=forms[name], query=queries[count]: pages.best_matches(query))  # type: ignore[misc]
            if turn:  # the first makes sessions
                found.append(spent)
        reading.append(micros(lambda: values.view(np.int64).max()))
    rows = []
    for name in forms:
        least = [min(times[name, count]) for count in ASKED]
        slope, rest = np.polyfit(ASKED, least, 1)
        rate = 2 * ROWS * DIM / slope / 1e3
        rows.append((name, *(f"{value:.0f}" for value in least), f"{rest:.0f}", f"{slope:.1f}", f"{rate:.0f}"))
    header = ("microseconds a page", *(f"{count} asked" for count in ASKED), "at 0, by the line", "each more", "G op/s")
    machine.write(
        "int8_parts.md",
        f"# int8 MaxSim: pages of {ROWS} x {DIM} by the number of question vectors\n\n"
        f"`python -m benchmarks.int8_parts`; the least of {ROUNDS} rounds, {PAGES:,} pages. Reading the same bytes "
        f"once, on one core: {min(reading):.0f} microseconds a page.\n\n"
        f"{machine.table(header, rows)}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
