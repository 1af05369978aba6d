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
import time
from collections.abc import Callable
from pathlib import Path

from tests.faults.damage import damage
from tests.faults.errors_of_calls import failing_calls, full_disk
from tests.faults.figures import Figures
from tests.faults.killing import killing
from tests.faults.folders import changed_folders, read_only
from tests.faults.library import build, library
from tests.faults.life import warm_up
from tests.faults.power import power_cuts
from tests.faults.processes import beside_a_writer, creators, forks, garbage, signals, writers
from tests.faults.rolling import rolling

__all__ = ["SCENARIOS"]

Scenario = Callable[[Path, int, int], "list[Figures]"]
# The scenarios, whether they need the library, and the rounds of the short version.
SCENARIOS: dict[str, tuple[Scenario, bool, int]] = {
    "killing": (killing, False, 12),
    "power": (power_cuts, True, 20),
    "full_disk": (full_disk, True, 4),
    "failing_calls": (failing_calls, True, 6),
    "damage": (damage, False, 16),
    "beside_a_writer": (beside_a_writer, False, 2),
    "creators": (creators, False, 3),
    "writers": (writers, False, 1),
    "forks": (forks, False, 2),
    "signals": (signals, False, 3),
    "garbage": (garbage, False, 1),
    "rolling": (rolling, False, 12),
    "changed_folders": (changed_folders, False, 1),
    "read_only": (read_only, False, 1),
}
REPORT = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenarios", nargs="*", help=f"any of {', '.join(SCENARIOS)}; all by default")
    parser.add_argument("--rounds", type=int, help="tries per fault; those of the short version by default")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print the figures instead of writing the report")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="faults") as folder:
        reason = _preloaded(Path(folder))
        warm_up(Path(folder) / "first")
        figures = []
        for name in options.scenarios or SCENARIOS:
            scenario, needs_library, short = SCENARIOS[name]
            if needs_library and reason:
                figures.append(Figures(name, skipped=reason))
                continue
            start = time.monotonic()
            place = Path(folder).resolve() / name
            place.mkdir()
            found = scenario(place, options.rounds or short, options.seed)
            shutil.rmtree(place)
            figures += found
            for one in found:
                print(f"{one.name}: {len(one.bad)} bad of {one.rounds} ({one.notes})", *one.bad[:20], sep="\n  ", file=sys.stderr)
            print(f"{name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    if options.json:
        print(json.dumps({one.name: one.to_dict() for one in figures}))


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
