"""Files that are damaged while the store is closed: flipped bytes, lost ends, lost files, zeros.

A damage is silent if an entry or an answer is another one, and neither reading nor `verify` raises or reports it.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from colpali_integrations.errors import ColPaliError
from tests.faults.children import in_child
from tests.faults.figures import Figures
from tests.faults.life import STAGES, Change, State, apply, check, life, open_store, problems, two_stages, verified

__all__ = ["damage"]


def damage(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Damage a random file of a closed store, read everything, and look for differences without a report."""
    figures = {
        kind: Figures(f"closed store, {kind}")
        for kind in ("bytes flipped", "file cut off", "file removed", "zeros written")
    }
    outcomes: dict[str, Counter[str]] = {kind: Counter() for kind in figures}
    templates: dict[str, tuple[State, list[str]]] = {}
    for number in range(rounds):
        random = Random(f"damage {seed} {number}")
        stage = STAGES[number // 4 % len(STAGES)]
        template, place = folder / f"template {stage}", folder / "damaged"
        if stage not in templates:
            templates[stage] = in_child(_make, template, stage, seed)
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        kind = list(figures)[number % len(figures)]
        file = _victim(place, random)
        _harm(file, kind, random)
        state, rough = templates[stage]
        outcome, wrong = in_child(_read, place, stage, state, rough)
        if kind == "file removed" and file.name != "store.lock":
            shutil.copyfile(template / file.name, file)
            later, _ = in_child(check, place, [state], stage)
            wrong += [f"after the file came back: {one}" for one in later]
        outcomes[kind][outcome] += 1
        figures[kind].add(wrong, f"round {number}, {file.name}, {stage}")
    for kind, one in figures.items():
        one.notes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes[kind].items()))
    return list(figures.values())


def _make(place: Path, stage: Any, seed: int) -> tuple[State, list[str]]:
    state: State = {}
    with open_store(place, stage) as store:
        for change, _ in zip(life(state, seed), range(25), strict=False):
            apply(store, change)
            state = change.after(state)
        more = Change(dict.fromkeys(range(40), 3), [])
        apply(store, more)
        return more.after(state), list(two_stages(store))


def _victim(place: Path, random: Random) -> Path:
    files = sorted(path for path in place.iterdir() if path.is_file())
    database = place / "store.db"
    return database if random.random() < 0.5 else random.choice(files)


def _harm(file: Path, kind: str, random: Random) -> None:
    data = bytearray(file.read_bytes())
    if kind == "file removed":
        file.unlink()
        return
    if not data:
        return
    if kind == "file cut off":
        del data[random.randrange(len(data)) :]
    elif kind == "zeros written":
        start = random.randrange(len(data))
        end = min(len(data), start + random.choice((16, 512, 4096)))
        data[start:end] = bytes(end - start)
    else:
        for _ in range(random.choice((1, 1, 8))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    file.write_bytes(data)


def _read(place: Path, stage: Any, state: State, rough: list[str]) -> tuple[str, list[str]]:
    try:
        with open_store(place, stage) as store:
            wrong = problems(store, [state])
            # Small copies have no check of their own while they are read: only `verify` can find damage in them.
            if list(two_stages(store)) != rough:
                wrong.append("a search in two stages finds other entries")
            if not wrong:
                return "without effect", []
            if verified(store):
                return "reported by verify", []
            return "silent", wrong
    except ColPaliError:
        return "reported by reading", []
    except Exception as error:
        return "another error", [f"{type(error).__name__}: {error}"]
