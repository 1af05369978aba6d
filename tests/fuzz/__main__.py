"""Run the targets: `python -m tests.fuzz --seconds 60`, or `--engine atheris --target words` with the group `fuzz`.

Each target runs in a process of its own, so that a crash is a fault of that target. Inputs of faults are kept in
build/fuzz. The exit code is 1 if there are faults.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator

from benchmarks import machine
from tests.fuzz.engine import Record
from tests.fuzz.names import NAMES
from tests.fuzz.processes import FAULTS, watched

_FAST = 1000  # calls per CPU second


def keep(name: str, record: Record) -> Iterator[str]:
    """Write the inputs of faults, and describe each."""
    for fault, data in record.faults.items():
        path = FAULTS / name / hashlib.sha256(data).hexdigest()[:12]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        yield f"{name}: {fault}: {path}"


def records(names: list[str], options: argparse.Namespace) -> dict[str, Record]:
    """Run each target, and the fast ones once more if there are too few calls."""
    made = {}
    for name in names:
        made[name] = watched(name, options.calls, options.seconds, options.seed)
        print(row(name, made[name]), file=sys.stderr, flush=True)
    missing = options.total - sum(record.calls for record in made.values())
    fast = [name for name, record in made.items() if record.calls > _FAST * record.cpu_seconds]
    for name in fast if missing > 0 else ():
        made[name].add(watched(name, missing // len(fast) + 1, 0, options.seed + 1))
        print(row(name, made[name]), file=sys.stderr, flush=True)
    return made


def row(name: str, record: Record) -> str:
    outcomes = ", ".join(f"{outcome} {count:,}" for outcome, count in record.outcomes.most_common())
    return (
        f"| {name} | {record.calls:,} | {record.cpu_seconds:.0f} | {outcomes} | {record.slowest:.2f} s "
        f"| {record.peak_bytes / 1e6:.0f} MB | {len(record.faults)} |"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--target", action="append", choices=NAMES, help="only this one; repeatable")
    parser.add_argument("--calls", type=int, default=0, help="at least so many calls per target")
    parser.add_argument("--seconds", type=float, default=10.0, help="at least so many CPU seconds per target")
    parser.add_argument("--total", type=int, default=0, help="at least so many calls in all, of the fast targets")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--engine", choices=("random", "atheris"), default="random")
    options = parser.parse_args()
    names = options.target or NAMES
    FAULTS.mkdir(parents=True, exist_ok=True)
    if options.engine == "atheris":
        from tests.fuzz.guided import guided

        if len(names) != 1:
            parser.error("atheris runs one --target")
        guided(names[0], options.seconds, FAULTS)
    print("# Hostile input\n")
    command = " ".join(["python -m tests.fuzz", *sys.argv[1:]])
    print(f"Made by `{command}`; `tests/fuzz` has the targets. A fault is an error that is not of this package,")
    print("a call of more than 5 CPU seconds or 1 GB, a crash or a hang.\n")
    print("| target | calls | CPU seconds | outcomes | slowest | most memory | faults |", flush=True)
    print("|---|---|---|---|---|---|---|", flush=True)
    made = records(names, options)
    faults = [fault for name, record in made.items() for fault in keep(name, record)]
    print(*(row(name, record) for name, record in made.items()), sep="\n")
    print(
        f"\n{sum(record.calls for record in made.values()):,} calls. Of pdf, the CPU seconds and the slowest call are"
    )
    print("those of the caller alone.")
    print(*(f"- {fault}" for fault in faults), sep="\n", end="\n\n")
    print(machine.describe())
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
