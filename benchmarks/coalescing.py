"""What threads gain by asking one model together: questions/s of 1, 8 and 32 threads, with shared runs and without.

From the repository's root, after `python -m benchmarks.make_replica`::

    python -m benchmarks.coalescing [--seconds 5] [--rounds 3]      # -> results/coalescing.md

Each thread asks one question after another. "Shared" is `embed_query` as it is: questions that arrive during a run
wait for its end and are run as one batch. "Apart" is `embed_queries(..., parallel=1)`, where each call has its run to
itself. The two take turns.
"""

from __future__ import annotations

import argparse
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.encode import WORK, queries
from benchmarks.worker import NAME
from colpali_integrations import ColPali

THREADS = (1, 8, 32)
QUESTIONS = queries(64)


def ask(model: Any, threads: int, seconds: float, options: dict[str, Any]) -> tuple[float, list[float]]:
    """Questions per second, and the seconds of each."""
    latencies: list[float] = []
    end = time.perf_counter() + seconds

    def work(number: int) -> None:
        place = number
        while time.perf_counter() < end:
            begin = time.perf_counter()
            list(model.embed_queries([QUESTIONS[place % len(QUESTIONS)]], **options))
            latencies.append(time.perf_counter() - begin)
            place += threads

    begin = time.perf_counter()
    started = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    for one in started:
        one.start()
    for one in started:
        one.join()
    return len(latencies) / (time.perf_counter() - begin), latencies


def table(model: Any, options: argparse.Namespace) -> str:
    ways: dict[str, dict[str, Any]] = {"shared": {}, "apart": {"parallel": 1}}
    list(model.embed_queries(QUESTIONS[:8]))
    rates: dict[tuple[int, str], list[float]] = {(count, way): [] for count in THREADS for way in ways}
    latencies: dict[tuple[int, str], list[float]] = {key: [] for key in rates}
    for turn in range(options.rounds):
        for count in THREADS:
            for way in ways if turn % 2 == 0 else reversed(ways):
                rate, seconds = ask(model, count, options.seconds, ways[way])
                rates[count, way].append(rate)
                latencies[count, way] += seconds
    rows = [
        (
            f"{count}, {way}",
            machine.spread(rates[count, way]),
            f"{median(rates[count, way]) / median(rates[1, 'apart']):.1f}x",
            f"{median(latencies[count, way]) * 1e3:.1f}",
            f"{sorted(latencies[count, way])[int(0.95 * len(latencies[count, way]))] * 1e3:.1f}",
        )
        for count, way in rates
    ]
    header = ("threads, runs", "questions/s", "against one thread, apart", "median latency, ms", "95% within, ms")
    return machine.table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=WORK / "colpali-quarter", help="folder with the ONNX export")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    models = {"ColTiny": ColPali.from_pretrained()}
    if (options.model / "model.onnx").is_file():
        models["ColPali of a quarter of the real width"] = ColPali.from_pretrained(NAME, local_dir=options.model)
    tables = "\n\n".join(f"## {name}\n\n{table(model, options)}" for name, model in models.items())
    machine.write(
        "coalescing.md",
        "# Questions of several threads in shared runs\n\nMade by `python -m benchmarks.coalescing`; medians over "
        f"{options.rounds} rounds of {options.seconds:g} s, with the least and the greatest. Each thread asks one "
        "question after another: shared, questions that arrive during a run are run as one batch; apart, each has its "
        f"run to itself.\n\n{tables}\n\n{machine.describe()}\n",
    )


if __name__ == "__main__":
    main()
