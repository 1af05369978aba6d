"""The short version of all faults; `python -m tests.faults.run --rounds 300` tries each of them more often."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.library import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        sys.platform != "linux", reason="the faults are tried in forks, which libraries of macOS do not survive"
    ),
]
SCENARIOS = (
    *("killing", "power_cuts", "full_disk", "failing_calls", "damage", "beside_a_writer", "creators", "writers"),
    *("forks", "signals", "garbage", "rolling", "changed_folders", "read_only"),
)


@pytest.fixture(scope="module")
def figures() -> dict[str, list[dict[str, Any]]]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    command = [sys.executable, "-m", "tests.faults.run", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)  # type: ignore[no-any-return]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_store_survives(figures: dict[str, list[dict[str, Any]]], scenario: str) -> None:
    skipped = {one["skipped"] for one in figures[scenario] if one["skipped"]}
    if skipped:
        pytest.skip("; ".join(skipped))
    for one in figures[scenario]:
        assert one["rounds"]
        assert not one["bad"], f"{one['name']}: {one['bad']}"


def test_all_scenarios_are_tested(figures: dict[str, list[dict[str, Any]]]) -> None:
    assert set(figures) == set(SCENARIOS)


def test_the_library_intercepts_the_calls_of_python_and_sqlite(tmp_path: Path) -> None:
    library = build(tmp_path)
    if isinstance(library, str):
        pytest.skip(library)
    program = """
import os, sqlite3, sys
from pathlib import Path
from tests.faults.disk import events
from tests.faults.library import library
folder, record = Path(sys.argv[1]) / "watched", Path(sys.argv[1]) / "record"
folder.mkdir()
faults = library()
faults.watch(folder)
with record.open("wb", buffering=0) as file:
    faults.record(file.fileno())
    connection = sqlite3.connect(folder / "a.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = TRUNCATE")
    connection.execute("CREATE TABLE t (a)")
    connection.close()
    (folder / "b").write_bytes(b"12")
    (folder / "b").rename(folder / "c")
    (folder / "c").unlink()
    faults.record(-1)
calls = [call for call in events(record.read_bytes())]
print({op: sum(call.op == op for call in calls) for op in "CWSDTRU"})
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "LD_PRELOAD": str(library)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    counts = json.loads(done.stdout.replace("'", '"'))
    # The database, its journal and the file; SQLite flushes the journal, the folder of its name, and the database.
    assert counts["C"] == 3
    assert counts["W"] >= 4
    assert counts["S"] >= 2
    assert counts["D"] >= 1
    assert counts["T"] >= 1
    assert (counts["R"], counts["U"]) == (1, 1)
