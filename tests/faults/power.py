"""Power cuts: a life of a store is recorded, and what would be on the disk after random calls is opened."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random

from tests.faults.children import in_child
from tests.faults.disk import Event, events, remains
from tests.faults.figures import Figures
from tests.faults.killing import live, possible
from tests.faults.library import Library, library
from tests.faults.life import STAGES, check

__all__ = ["power_cuts"]

_CUTS_PER_LIFE = 20


def power_cuts(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Cut the power after a random call: with only the flushed data on the disk, and with random parts of the rest."""
    faults = library()
    assert faults is not None
    figures = {
        False: Figures("power cut, only flushed data on the disk"),
        True: Figures("power cut, random parts of the rest on the disk too"),
    }
    kinds: Counter[str] = Counter()
    calls: list[Event] = []
    for number in range(rounds):
        random = Random(f"power {seed} {number}")
        life = number // _CUTS_PER_LIFE
        stage = STAGES[life % len(STAGES)]
        root = folder / f"life {life}"
        if number % _CUTS_PER_LIFE == 0:
            root.mkdir()
            record = folder / f"record {life}"
            in_child(_record, faults, root, record, stage, life)
            calls = list(events(record.read_bytes()))
            record.unlink()
            kinds.update(call.op for call in calls)
        # A third of the cuts falls into the first moments of the store.
        until = random.randrange(len(calls) if random.random() < 0.67 else 200)
        some = number % 2 == 1
        target = folder / "after"
        target.mkdir()
        remains(calls[:until], root, target, random if some else None)
        marks = [call.inode for call in calls[:until] if call.op == "M"]
        wrong, _ = in_child(check, target / "new" / "store", possible({}, life, marks), stage)
        figures[some].add(wrong, f"life {life}, after call {until} of {len(calls)}")
        shutil.rmtree(target)
    for one in figures.values():
        one.notes = ", ".join(f"{count} {_NAMES[op]}" for op, count in sorted(kinds.items()) if op in _NAMES)
    return list(figures.values())


_NAMES = {"W": "writes", "S": "flushes of files", "D": "flushes of folders", "T": "truncations", "U": "removals"}
_CHANGES = 40


class _Enough(Exception):
    pass


def _record(faults: Library, root: Path, record: Path, stage: str, seed: int) -> None:
    def mark(number: int) -> None:
        faults.mark(number)
        if number == 2 * _CHANGES - 1:
            raise _Enough

    with record.open("wb", buffering=0) as file:
        faults.watch(root)
        faults.record(file.fileno())
        try:
            live(root / "new" / "store", stage, {}, seed, mark)
        except _Enough:
            faults.record(-1)
