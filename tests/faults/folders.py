"""Folders that change under an open store, or that cannot be written."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from colpali_integrations.errors import StoreError
from tests.faults.children import in_child
from tests.faults.figures import Figures
from tests.faults.life import Change, State, answers, apply, check, open_store, problems

__all__ = ["changed_folders", "read_only"]

_STATE: State = dict.fromkeys(range(30), 1)


def changed_folders(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Remove, rename or replace the folder or its database under an open store; change the working directory; copy."""
    results = []
    acts: dict[str, Callable[[Path], object]] = {
        "a folder that was removed": lambda place: shutil.rmtree(place),
        "a folder that was renamed": lambda place: place.rename(place.with_name("renamed")),
        "a database that was removed": lambda place: (place / "store.db").unlink(),
        "a folder that another store replaced": _replace,
        "a database that another one replaced": _replace_database,
    }
    for name, act in acts.items():
        figures = Figures(f"open store, {name}")
        place = folder / name / "store"
        place.parent.mkdir()
        figures.add(in_child(_refused, place, act), name)
        results.append(figures)
    other = Figures("working directory changed under an open store")
    other.add(in_child(_elsewhere, folder), "chdir")
    copy = Figures("copy of the folder of an open store at rest")
    copy.add(in_child(_copied, folder), "copy")
    return [*results, other, copy]


def _replace(place: Path) -> None:
    place.rename(place.with_name("renamed"))
    with open_store(place) as other:
        apply(other, Change({100: 5}, []))


def _replace_database(place: Path) -> None:
    """Put a copy in the place of the database, as a restored backup."""
    (place / "store.db").rename(place / "former.db")
    shutil.copyfile(place / "former.db", place / "store.db")


def _refused(place: Path, act: Callable[[Path], object]) -> list[str]:
    """Change and read the store after `act`: refused, or right, and nothing is made or lost."""
    wrong = []
    with open_store(place) as store:
        apply(store, Change(dict(_STATE), []))
        answers(store)
        act(place)
        before = _listing(place.parent)
        change = Change({1000: 1}, [1])
        steps: dict[str, Callable[[], None]] = {
            "an addition": lambda: apply(store, Change(change.added, [])),
            "a deletion": lambda: apply(store, Change({}, change.deleted)),
        }
        for name, step in steps.items():
            try:
                step()
                wrong.append(f"{name} is reported as done")
            except StoreError:
                pass
        if _listing(place.parent) != before:
            wrong.append(f"the folder changed from {before} to {_listing(place.parent)}")
        with contextlib.suppress(StoreError):
            wrong += problems(store, [_STATE])
    renamed = place.with_name("renamed")
    if renamed.exists():
        wrong += check(renamed, [_STATE])[0]
    return wrong


def _listing(folder: Path) -> dict[str, int]:
    """Files with their sizes; a lock is no part of a store."""
    return {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.suffix != ".lock" and path.is_file()
    }


def _elsewhere(folder: Path) -> list[str]:
    first, second = folder / "first", folder / "second"
    first.mkdir()
    second.mkdir()
    os.chdir(first)
    with open_store(Path("store")) as store:
        os.chdir(second)
        apply(store, Change(dict(_STATE), []))
        wrong = problems(store, [_STATE])
    if list(second.iterdir()):
        wrong.append("files were made in the new working directory")
    return wrong + check(first / "store", [_STATE])[0]


def _copied(folder: Path) -> list[str]:
    place, copy = folder / "original", folder / "copy"
    with open_store(place) as store:
        apply(store, Change(dict(_STATE), []))
        answers(store)
        shutil.copytree(place, copy)
        apply(store, Change({}, [1]))
    after = Change({}, [1]).after(_STATE)
    return check(copy, [_STATE])[0] + check(place, [after])[0]


def read_only(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Open a cleanly closed store, and one whose writer was killed, on a disk that is mounted read-only."""
    figures = Figures("read-only disk")
    place = folder / "store"
    in_child(_make, place)
    mounted = _mounted(place)
    if mounted:
        figures.skipped = mounted
        return [figures]
    try:
        figures.add(in_child(_read_there, place), "closed store")
    finally:
        subprocess.run(["umount", str(place)], check=True)
    figures.add(in_child(check, place, [_STATE])[0], "writable again")
    return [figures]


def _make(place: Path) -> None:
    with open_store(place) as store:
        apply(store, Change(dict(_STATE), []))


def _mounted(place: Path) -> str:
    """Mount a folder on itself, read-only; the reason where that is not allowed."""
    if sys.platform != "linux" or shutil.which("mount") is None:
        return "folders are mounted read-only on Linux only"
    for options in (["--bind", str(place), str(place)], ["-o", "remount,bind,ro", str(place)]):
        done = subprocess.run(["mount", *options], capture_output=True, text=True)
        if done.returncode:
            return f"a folder cannot be mounted read-only here: {done.stderr.strip()}"
    return ""


def _read_there(place: Path) -> list[str]:
    wrong = []
    with open_store(place) as store:
        wrong += problems(store, [_STATE])
        try:
            apply(store, Change({1: 2}, []))
            wrong.append("an addition is reported as done")
        except StoreError as error:
            if "read" not in str(error):
                wrong.append(f"the error does not tell that the disk is read-only: {error}")
        wrong += problems(store, [_STATE])
    return wrong
