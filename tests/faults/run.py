"""Try all faults: `python -m tests.faults.run --rounds 300` writes benchmarks/results/faults.md.

With `--json` the figures are printed instead. The process starts itself anew with the preloaded library.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from benchmarks.machine import describe
from tests.faults.damage import damage
from tests.faults.errors_of_calls import failing_calls, full_disk
from tests.faults.figures import Figures
from tests.faults.folders import changed_folders, read_only
from tests.faults.killing import killing
from tests.faults.library import build, library
from tests.faults.life import warm_up
from tests.faults.power import power_cuts
from tests.faults.processes import beside_a_writer, creators, forks, garbage, signals, writers
from tests.faults.rolling import rolling

__all__ = ["SCENARIOS"]


class Scenario(NamedTuple):
    """A function of a folder, the rounds and a seed; whether it needs the library; its usual and its most rounds."""

    run: Callable[[Path, int, int], list[Figures]]
    needs_library: bool
    short: int
    most: int = 10**6


SCENARIOS = {
    "killing": Scenario(killing, False, 8),
    "power_cuts": Scenario(power_cuts, True, 10),
    "full_disk": Scenario(full_disk, True, 2, 50),
    "failing_calls": Scenario(failing_calls, True, 2, 1000),
    "damage": Scenario(damage, False, 8),
    "beside_a_writer": Scenario(beside_a_writer, False, 2, 100),
    "creators": Scenario(creators, False, 2, 50),
    "writers": Scenario(writers, False, 1, 20),
    "forks": Scenario(forks, False, 1, 10),
    "signals": Scenario(signals, False, 3, 30),
    "garbage": Scenario(garbage, False, 1, 5),
    "rolling": Scenario(rolling, False, 12, 300),
    "changed_folders": Scenario(changed_folders, False, 1, 1),
    "read_only": Scenario(read_only, False, 1, 1),
}
REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"any of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--rounds", type=int, help="tries per fault; those of the short version by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures instead of writing the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults") as name:
        folder = Path(name).resolve()
        reason = _preloaded(folder)
        warm_up(folder / "first")
        figures = {
            scenario: _tried(scenario, folder / scenario, reason, options.rounds, options.seed)
            for scenario in options.scenarios or SCENARIOS
        }
    if options.json:
        sys.stdout.write(json.dumps({name: [asdict(one) for one in found] for name, found in figures.items()}))
    else:
        REPORT.write_text(_report(figures, options.rounds), encoding="utf-8")


def _tried(name: str, place: Path, reason: str, rounds: int | None, seed: int) -> list[Figures]:
    scenario, needs_library, short, most = SCENARIOS[name]
    if needs_library and reason:
        return [Figures(name, skipped=reason)]
    start = os.times()
    place.mkdir()
    found = scenario(place, min(rounds or short, most), seed)
    shutil.rmtree(place)
    for one in found:
        lines = [f"{one.name}: {len(one.bad)} bad of {one.rounds} ({one.notes or one.skipped})", *one.bad[:20]]
        sys.stderr.write("\n  ".join(lines) + "\n")
    spent = [after - before for before, after in zip(start, os.times(), strict=True)]
    sys.stderr.write(f"{name}: {spent[4]:.1f} s, {sum(spent[:4]):.1f} s of processor time\n")
    return found


def _report(figures: dict[str, list[Figures]], rounds: int | None) -> str:
    rows = [
        f"| {one.name} | {one.skipped or f'{len(one.bad)} of {one.rounds}'} | {one.notes} |"
        for found in figures.values()
        for one in found
    ]
    bad = [f"- {one.name}: {problem}" for found in figures.values() for one in found for problem in one.bad]
    lines = [
        *("# Faults of a store in a folder", "", f"`python -m tests.faults.run --rounds {rounds}`", ""),
        *(describe(), ""),
        "A try is bad if an entry that was reported as stored is missing or differs, a deleted one is there, a batch "
        "is stored in part, a search does not give the answer of the entries, another error than a `StoreError` is "
        "raised, or the store cannot be changed afterwards. `tests/faults` describes each fault.",
        *("", "| fault | bad tries | notes |", "| --- | ---: | --- |", *rows, ""),
    ]
    return "\n".join([*lines, *bad, *([""] if bad else [])])


def _preloaded(folder: Path) -> str:
    """Load the library into this process by starting it anew; the reason where it cannot be loaded."""
    if library() is not None:
        return ""
    if "FAULTS_LIBRARY" in os.environ:
        return "the library was not loaded, although LD_PRELOAD named it"
    built = build(Path(tempfile.mkdtemp(prefix="faults-library")))
    if isinstance(built, str):
        return built
    environment = {**os.environ, "LD_PRELOAD": str(built), "FAULTS_LIBRARY": str(built), "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, [sys.executable, "-m", "tests.faults.run", *sys.argv[1:]], environment)


if __name__ == "__main__":
    main()
