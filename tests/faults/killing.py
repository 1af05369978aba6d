"""Processes that are killed at random points: while they make a store, change it or compact it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from tests.faults.children import Child, in_child
from tests.faults.figures import Figures
from tests.faults.library import KILL, library
from tests.faults.life import STAGES, State, apply, check, life, open_store

__all__ = ["killing", "live", "possible"]


def killing(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Kill a process, at a random time or at a random call, and check what it left; every second store is new."""
    figures = {
        False: Figures("kill -9 of a process that makes a store"),
        True: Figures("kill -9 of a process that writes"),
    }
    state: State = {}
    changes = 0
    for number in range(rounds):
        random = Random(f"{seed} {number}")
        existing = number % 2 == 1
        path = folder / f"store {number // 2}"
        stage = STAGES[number // 2 % len(STAGES)]
        state = state if existing else {}
        by_call = library() is not None and random.random() < 0.5
        call = random.randrange(1, 2000 if existing else 300) if by_call else None
        child = Child(lambda send: live(path, stage, state, number, send, call))  # noqa: B023 - it runs at once
        if by_call:
            marks = child.ended(5.0)
        else:
            time.sleep(random.uniform(0, 0.4 if existing else 0.05))
            marks = child.kill()
        changes += len(marks) // 2
        states = possible(state, number, marks)
        wrong, state = in_child(check, path, states, stage)
        figures[existing].add(wrong, f"round {number}, after {len(marks)} marks")
    figures[True].notes = f"{changes} changes were reported as stored"
    return list(figures.values())


def live(
    folder: Path, stage: str, state: State, seed: int, send: Callable[[int], None], call: int | None = None
) -> None:
    """Change a store for ever, and send 2n before and 2n + 1 after change n."""
    faults = library()
    if faults is not None and call is not None:
        faults.watch(folder)
        faults.fail(call, KILL)
    store = open_store(folder, stage)  # type: ignore[arg-type]
    for number, change in enumerate(life(state, seed)):
        send(2 * number)
        apply(store, change)
        send(2 * number + 1)


def possible(state: State, seed: int, marks: Sequence[int], *, in_parts: bool = False) -> list[State]:
    """The states that a store may be in after these marks: without or with the change that had begun.

    Args:
        state: before the first change.
        seed: of the changes.
        marks: that were received.
        in_parts: whether the process ended by an exception, which stores the records before it.
    """
    done = sum(mark % 2 for mark in marks)
    changes = life(state, seed)
    for _ in range(done):
        state = next(changes).after(state)
    if len(marks) == 2 * done:
        return [state]
    change = next(changes)
    parts = change.parts() if in_parts else []
    return [state, change.after(state), *(part.after(state) for part in parts)]
