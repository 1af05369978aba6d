"""Pages per second, ours and fastembed's, quiet and beside other work, on the same ONNX file.

From the repository's root, after `python -m benchmarks.make_replica`::

    python -m benchmarks.under_load [--rounds 7] [--pages 24] [--loads quiet busy bursty]   # -> results/under_load.md
    python -m benchmarks.under_load --minutes 4      # some of it; the next call goes on

Contestants take turns, each run in a process of its own. A run is warm: one page before the measurement, but for a pool
of processes, which starts in it. The loads are those of `benchmarks.load`.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import machine
from benchmarks.encode import BUILT, MIB, OURS, PEER, WORK, contestant, pages
from benchmarks.load import KINDS, load
from benchmarks.process import measure

KEPT = WORK / "under_load.jsonl"
CHECKPOINT = next(name for name, precision in BUILT.items() if precision == "float32")
SETTINGS: list[tuple[str, int | None]] = [(OURS, 2), (PEER, 2), (OURS, None), (PEER, None), (CHECKPOINT, 2)]
# Of the cores; a run beside more than that of other work is measured again, and not counted. Looking at the memory and
# starting fastembed's pool count as other work, about .06.
MOST_OTHERS = 0.1
LOADS = {"quiet": "quiet", "busy": "two busy processes", "bursty": "eight bursty processes"}
Record = dict[str, Any]


def recorded() -> list[Record]:
    return [json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines()] if KEPT.is_file() else []


def run(folder: Path, options: argparse.Namespace) -> bool:
    """Measure what is not recorded yet, until the time is over; returns whether nothing is left."""
    end = time.monotonic() + 60 * options.minutes
    paths = pages(options.pages)
    longest = 0.0
    for turn, kind in itertools.product(range(options.rounds), options.loads):
        for name, parallel in SETTINGS if turn % 2 == 0 else SETTINGS[::-1]:
            key = {"load": kind, "name": name, "parallel": parallel, "pages": len(paths)}
            if sum(key.items() <= one.items() and one["others"] <= MOST_OTHERS for one in recorded()) > turn:
                continue
            begin = time.monotonic()
            if begin + longest > end:
                return False
            task = contestant(name, folder, what="images", paths=paths, parallel=parallel, batch_size=1)
            with load(kind):
                outcome = measure(task, interval=0.25)
            longest = max(longest, time.monotonic() - begin)
            line = json.dumps({**key, **outcome.result, "peak": outcome.peaks["run"]})
            with KEPT.open("a", encoding="utf-8") as log:
                log.write(line + "\n")
            print(line, flush=True)
    return True


def table(records: list[Record], kind: str) -> str:
    rates = {one: [r["n"] / r["seconds"] for r in of(records, kind, *one)] for one in SETTINGS}
    fastest = max(median(rates[one]) for one in SETTINGS if one[0] == PEER and rates[one])
    rows = []
    for one in SETTINGS:
        found, (name, parallel) = of(records, kind, *one), one
        if not found:
            continue
        rate = median(rates[one])
        rows.append(
            (
                f"{name}, parallel={parallel}",
                machine.spread(rates[one], digits=2),
                f"{rate / median(rates[PEER, parallel]):.2f}",
                f"{rate / fastest:.2f}",
                machine.spread([r["cpu"] / r["n"] for r in found], digits=2),
                machine.spread([r["first"] for r in found], digits=1),
                machine.spread([r["peak"] for r in found], unit=1 / MIB),
            )
        )
    header = (
        LOADS[kind],
        "pages/s",
        "of fastembed's",
        "of its fastest",
        "CPU s/page",
        "first result, s",
        "peak memory, MiB",
    )
    return machine.table(header, rows)


def of(records: list[Record], kind: str, name: str, parallel: int | None) -> list[Record]:
    wanted = (kind, name, parallel)
    return [r for r in records if (r["load"], r["name"], r["parallel"]) == wanted and r["others"] <= MOST_OTHERS]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=WORK / "colpali-quarter", help="folder with the ONNX export")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--pages", type=int, default=24)
    parser.add_argument("--loads", nargs="+", choices=LOADS, default=[*LOADS])
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--again", action="store_true", help="forget what was measured")
    options = parser.parse_args()
    if options.again:
        KEPT.unlink(missing_ok=True)
    whole = run(options.model.resolve(), options)
    records = recorded()
    kinds = [kind for kind in LOADS if of(records, kind, PEER, 2) and of(records, kind, PEER, None)]
    if not kinds:
        return
    counts = ", ".join(
        f"{kind}: {len(of(records, kind, OURS, 2))} rounds of {of(records, kind, OURS, 2)[0]['n']} pages"
        for kind in kinds
    )
    text = (
        "# Pages per second beside other work: ours against fastembed\n\nThe model is "
        "`make_replica.py`'s ColPali of a quarter of the real width, its ONNX file, and its checkpoint in one row. "
        "Made by `python -m benchmarks.under_load`; "
        f"{counts}. Medians, with the least and the greatest; batches of one page. Busy: {KINDS['busy']} processes "
        f"that compute without a pause. Bursty: {KINDS['bursty']} that compute for 20 to 80 ms and rest "
        "for three times as long. Runs beside which other programs took more than a tenth of the cores are not "
        "counted. A pool of processes is started within the call, as its user would see it.\n\n"
        + "\n\n".join(table(records, kind) for kind in kinds)
        + f"\n\n{machine.describe()}\n"
    )
    if whole:
        machine.write("under_load.md", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
