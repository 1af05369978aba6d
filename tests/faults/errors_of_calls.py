"""Calls that fail: the n-th of an opening, an addition, a deletion, a compaction; and a disk that is full."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from colpali_integrations.errors import StoreError
from tests.faults.children import in_child
from tests.faults.figures import Figures
from tests.faults.library import Library, library
from tests.faults.life import Change, State, answers, apply, check, life, open_store, problems, right_answers

__all__ = ["failing_calls", "full_disk"]

_CHANGES = {
    "an addition": Change({1: 2, 100: 1, 101: 1}, []),
    "a deletion": Change({}, [0, 3]),
    "a change of metadata": Change({}, [], (1, 5)),
    "a deletion with compaction": Change({}, list(range(20))),
}


def failing_calls(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Let each call of an operation fail once, and also that call and all later ones; at most `rounds` calls."""
    faults = library()
    assert faults is not None
    state = dict.fromkeys(range(24), 1)
    template = folder / "template"
    in_child(_make, template, state)
    results = [_each_call(faults, folder, "making a store", None, {}, None, rounds)]
    results.append(_each_call(faults, folder, "opening a store", template, state, None, rounds))
    for name, change in _CHANGES.items():
        results.append(_each_call(faults, folder, name, template, state, change, rounds))
    return results


def _make(folder: Path, state: State) -> None:
    with open_store(folder) as store:
        apply(store, Change(dict(state), []))


def _each_call(
    faults: Library, folder: Path, name: str, template: Path | None, state: State, change: Change | None, rounds: int
) -> Figures:
    figures = Figures(f"I/O error at each call of {name}")
    place = folder / name

    def attempt(first: int, code: int, calls: int) -> tuple[list[str], int]:
        shutil.rmtree(place, ignore_errors=True)
        if template is not None:
            shutil.copytree(template, place)
        return in_child(_with_failure, faults, place, state, change, first, code, calls)  # type: ignore[no-any-return]

    after = state if change is None else change.after(state)
    for one in (state, after, {**state, -5: 1}, {**after, -5: 1}):
        right_answers(frozenset(one.items()))  # for all attempts
    _, total = attempt(10**9, errno.EIO, 1)
    step = max(1, total // rounds)
    for first in range(1, total + 1, step):
        for calls in (1, 10**6):
            wrong, _ = attempt(first, errno.EIO, calls)
            later, _ = in_child(check, place, [after])
            figures.add(wrong + later, f"call {first} of {total}, {'once' if calls == 1 else 'and all later ones'}")
    figures.notes = f"{total} calls, every {step}. of them"
    return figures


def _with_failure(
    faults: Library, place: Path, state: State, change: Change | None, first: int, code: int, calls: int
) -> tuple[list[str], int]:
    """Do something while calls fail, and then once more without failures; the problems, and the number of calls."""
    faults.watch(place)
    if change is None:
        faults.fail(first, code, calls=calls)
        wrong, _ = _refused(lambda: open_store(place).close())
        total = faults.counted()
        faults.fail(-1)
        with open_store(place) as store:
            return wrong + problems(store, [state]), total
    with open_store(place) as store:
        answers(store)
        faults.fail(first, code, calls=calls)
        wrong, refused = _refused(lambda: apply(store, change))
        total = faults.counted()
        faults.fail(-1)
        after = change.after(state)
        wrong += problems(store, [state, after] if refused else [after])
        apply(store, change)
        return wrong + problems(store, [after]), total


def _refused(act: Callable[[], Any]) -> tuple[list[str], bool]:
    """Whether something raises the store's error; another one is a problem."""
    try:
        act()
    except StoreError:
        return [], True
    except Exception as error:
        return [f"{type(error).__name__} instead of a StoreError: {error}"], True
    return [], False


def full_disk(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Fill the disk at a random point of an addition; search, try again, and go on when there is space."""
    faults = library()
    assert faults is not None
    figures = Figures("full disk")
    refusals = 0
    for number in range(rounds):
        place = folder / f"full {number}"
        wrong, found, refused = in_child(_fill, faults, place, seed + number)
        later, _ = in_child(check, place, [found])
        refusals += refused
        figures.add(wrong + later, f"round {number}")
    figures.notes = f"{refusals} additions were refused"
    return [figures]


def _fill(faults: Library, place: Path, seed: int) -> tuple[list[str], State, int]:
    random = Random(f"full {seed}")
    faults.watch(place)
    state: State = {}
    wrong, refusals = [], 0
    with open_store(place) as store:
        changes = life(state, seed)
        for _ in range(random.randint(1, 12)):
            change = next(changes)
            apply(store, change)
            state = change.after(state)
        faults.space(random.randrange(20_000))
        for _ in range(60):
            change = Change({random.randrange(10**6): 1 for _ in "1234"}, [])
            problem, refused = _refused(lambda: apply(store, change))  # noqa: B023 - it runs at once
            wrong += problem + problems(store, [state] if refused else [change.after(state)])
            state = state if refused else change.after(state)
            refusals += refused
            if refusals == 5:
                break
        if not refusals:
            wrong.append("the disk was never full")
        faults.space(None)
        for _ in range(5):
            change = next(changes)
            apply(store, change)
            state = change.after(state)
        wrong += problems(store, [state])
    return wrong, state, refusals
