"""Several processes at one store: readers beside a writer, refused ones, creators, writers; forks, signals, garbage."""

from __future__ import annotations

import gc
import mmap
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from colpali_integrations.errors import FingerprintError
from colpali_integrations.stores import MultiVectorStore
from tests.faults.children import Child, in_child
from tests.faults.figures import Figures
from tests.faults.killing import possible
from tests.faults.life import (
    MODEL,
    Change,
    State,
    answers,
    apply,
    check,
    life,
    open_store,
    problems,
    records,
    state_of,
    versions,
)

__all__ = ["beside_a_writer", "creators", "forks", "garbage", "signals", "writers"]

_CHANGES = 60


class _Progress:
    """Numbers that forked processes share: how many changes have begun, and how many are done."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 16)

    def set(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._memory, 8 * place, value)

    def get(self, place: int) -> int:
        return int(struct.unpack_from("<q", self._memory, 8 * place)[0])


def beside_a_writer(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Read, or be refused for another model, while another process writes; each answer is one state."""
    figures = {False: Figures("reading processes beside a writer"), True: Figures("refused processes beside a writer")}
    reads = 0
    for number in range(rounds):
        place, progress = folder / f"store {number}", _Progress()
        in_child(_make, place, {1: 1, 2: 1})
        states = _states({1: 1, 2: 1}, number)
        writer = Child(lambda _: _write(place, number, progress))  # noqa: B023 - it runs at once
        refused = number % 2 == 1
        others = [
            Child(lambda _: (_be_refused if refused else _read)(place, states, progress))  # noqa: B023
            for _ in "12"
        ]
        wrong = []
        for process in (*others, writer):
            try:
                found, count = process.result()
                wrong += found
                reads += count
            except (RuntimeError, TimeoutError) as error:
                wrong.append(str(error)[-400:])
        later, _ = in_child(check, place, [states[-1]])
        figures[refused].add(wrong + later, f"round {number}")
    figures[False].notes = f"{reads} reads, {_CHANGES} changes per round"
    return list(figures.values())


def _states(state: State, seed: int) -> list[State]:
    states = [state]
    for change, _ in zip(life(state, seed), range(_CHANGES), strict=False):
        states.append(change.after(states[-1]))
    return states


def _make(place: Path, state: State) -> None:
    with open_store(place) as store:
        apply(store, Change(dict(state), []))


def _write(place: Path, seed: int, progress: _Progress) -> tuple[list[str], int]:
    with open_store(place) as store:
        state: State = state_of(store)
        for number, change in zip(range(1, _CHANGES + 1), life(state, seed), strict=False):
            progress.set(0, number)
            apply(store, change)
            progress.set(1, number)
            state = change.after(state)
        return problems(store, [state]), 0


def _read(place: Path, states: Sequence[State], progress: _Progress) -> tuple[list[str], int]:
    wrong: list[str] = []
    reads = 0
    query = np.ones((2, MODEL.dim), np.float32)
    with open_store(place) as store:
        while progress.get(1) < _CHANGES and len(wrong) < 5:
            first = progress.get(1)
            hits = store.search(query, 1000, mode="exact")
            found = versions(hit.entry for hit in hits)
            last = progress.get(0)
            if found not in states[first : last + 1]:
                wrong.append(f"a search found a state that is none of {first} to {last}: {found}")
            expected = {entry.id: float((query @ vectors.T).max(axis=1).sum()) for entry, vectors in records(found)}
            if any(abs(hit.score - expected[hit.entry.id]) > 1e-3 for hit in hits):
                wrong.append("a search has other scores")
            first = progress.get(1)
            scrolled = state_of(store)
            if scrolled not in states[first : progress.get(0) + 1]:
                wrong.append(f"scrolling found a state that is none of {first} to {progress.get(0)}: {scrolled}")
            for (entry, vectors), got in zip(records(found), store.vectors(list(expected)), strict=True):
                if got is not None and not np.array_equal(got, vectors) and state_of(store) == found:
                    wrong.append(f"the vectors of {entry.id} are others")
            reads += 1
    return wrong, reads


def _be_refused(place: Path, states: Sequence[State], progress: _Progress) -> tuple[list[str], int]:
    other = replace(MODEL, fingerprint=replace(MODEL.fingerprint, space="fedcba9876543210@"))
    tries = 0
    while progress.get(1) < _CHANGES:
        try:
            MultiVectorStore.open(place, model=other).close()
            return ["a store was opened with another model"], tries
        except FingerprintError:
            tries += 1
    return [], tries


def creators(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Let four processes make one store, and store an entry each."""
    figures = Figures("four processes that make one store")
    for number in range(rounds):
        place = folder / f"store {number}"
        start = time.time() + 0.05
        children = [Child(lambda _: _store_one(place, one, start)) for one in range(4)]  # noqa: B023
        figures.add(_failures(children) + in_child(check, place, [dict.fromkeys(range(4), 1)])[0], f"round {number}")
    return [figures]


def _store_one(place: Path, number: int, start: float) -> None:
    time.sleep(max(0.0, start - time.time()))
    with open_store(place) as store:
        apply(store, Change({number: 1}, []))


def writers(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Let two processes, with two threads each, write to one store."""
    figures = Figures("two writing processes with two threads each")
    for number in range(rounds):
        place = folder / f"store {number}"
        children = [Child(lambda _: _store_many(place, 1000 * one)) for one in (1, 2)]  # noqa: B023
        expected = {1000 * one + 100 * thread + n: 2 for one in (1, 2) for thread in (1, 2) for n in range(10)}
        figures.add(_failures(children) + in_child(check, place, [expected])[0], f"round {number}")
    return [figures]


def _store_many(place: Path, base: int) -> None:
    def work(first: int) -> None:
        for step in range(10):
            apply(store, Change({first + step: 1, first + 50 + step: 1}, []))
            apply(store, Change({first + step: 2}, [first + 50 + step]))

    with open_store(place) as store:
        _threads([lambda: work(base + 100), lambda: work(base + 200)])


def _threads(works: Sequence[Callable[[], None]]) -> None:
    errors: list[BaseException] = []

    def run(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def _failures(children: Sequence[Child]) -> list[str]:
    wrong = []
    for child in children:
        try:
            child.result()
        except (RuntimeError, TimeoutError) as error:
            wrong.append(str(error)[-400:])
    return wrong


def forks(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Fork a process with an open store: at rest, while a thread writes, and while a thread reads."""
    figures = []
    for name in ("at rest", "while a thread writes", "while a thread reads"):
        one = Figures(f"fork of a process with an open store, {name}")
        for number in range(rounds):
            place = folder / name / f"store {number}"
            place.parent.mkdir(exist_ok=True)
            try:
                wrong, state = in_child(_fork, place, name, number)
                wrong += in_child(check, place, [state])[0]
            except (RuntimeError, TimeoutError) as error:
                wrong = [str(error)[-600:]]
            one.add(wrong, f"round {number}")
        figures.append(one)
    return figures


def _fork(place: Path, name: str, seed: int) -> tuple[list[str], State]:
    """Fork several times, let each child read, write and end; the problems, and the state at the end."""
    state: dict[int, int] = dict.fromkeys(range(20), 1)
    wrong: list[str] = []
    stop = threading.Event()
    with open_store(place) as store:
        apply(store, Change(dict(state), []))
        answers(store)
        last = [0]

        def write() -> None:
            while not stop.is_set():
                last[0] += 1
                apply(store, Change({5000: last[0], 5001: last[0]}, []))

        def read() -> None:
            while not stop.is_set():
                answers(store)

        works: dict[str, Callable[[], object]] = {
            "at rest": stop.wait,
            "while a thread writes": write,
            "while a thread reads": read,
        }
        errors: list[BaseException] = []

        def run() -> None:
            try:
                works[name]()
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        for number in range(4):
            child = Child(lambda _: _inherit(store, place, number, ends=number % 2 == 0))  # noqa: B023
            try:
                wrong += child.result(30.0)
            except (RuntimeError, TimeoutError) as error:
                wrong.append(f"child {number}: {str(error)[-500:]}")
            state[7000 + number] = 1
        stop.set()
        thread.join()
        wrong += [f"the parent's thread: {type(error).__name__}: {error}" for error in errors]
        if last[0]:
            state |= {5000: last[0], 5001: last[0]}
        wrong += [f"the parent: {one}" for one in problems(store, [state])]
        apply(store, Change({6000: 1}, []))
        state[6000] = 1
        wrong += [f"the parent, later: {one}" for one in problems(store, [state])]
    return wrong, state


def _inherit(store: MultiVectorStore, place: Path, number: int, *, ends: bool) -> list[str]:
    wrong = []
    for _ in range(5):
        found = state_of(store)
        if any(found.get(one) != 1 for one in range(20)):
            wrong.append("entries are missing")
        if found.get(5000) != found.get(5001):
            wrong.append("a part of a batch is visible")
        if len(answers(store)[0]) < 20:
            wrong.append("a search misses entries")
    apply(store, Change({7000 + number: 1}, []))
    if state_of(store).get(7000 + number) != 1:
        wrong.append("its own entry is missing")
    if ends:
        store.close()
    return wrong


_PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from tests.faults.life import Change, apply, life, open_store, state_of
store = open_store(Path(sys.argv[1]))
if sys.argv[2] == "handler":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
def work():
    for number, change in enumerate(life(state_of(store), int(sys.argv[3]))):
        os.write(1, b"%d\\n" % (2 * number))
        apply(store, change)
        os.write(1, b"%d\\n" % (2 * number + 1))
if sys.argv[2] == "thread":
    threading.Thread(target=work, daemon=True).start()
    if os.fork() == 0:
        sys.exit()  # an ordinary end of a process with an inherited store
    signal.pause()
work()
"""


def signals(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Send SIGTERM to writing programs, and interrupt a writing process at random points."""
    return [_terminated(folder, rounds, seed), _interrupted(folder, max(1, rounds // 3), seed)]


def _terminated(folder: Path, rounds: int, seed: int) -> Figures:
    figures = Figures("SIGTERM of a writing program")
    changes = 0
    for number in range(rounds):
        place = folder / f"terminated {number}"
        mode, expected = [("default", -15), ("handler", 7), ("thread", -15)][number % 3]
        command = [sys.executable, "-c", _PROGRAM, str(place), mode, str(number)]
        program = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        assert program.stdout is not None
        first = program.stdout.readline()
        time.sleep(Random(f"{seed} {number}").uniform(0.05, 0.5))
        program.terminate()
        wrong = []
        try:
            output, errors = program.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)
            output, errors = program.communicate()
            wrong.append("it did not end within 30 s")
        if program.returncode != expected:
            wrong.append(f"it ended with {program.returncode}, not {expected}: {errors[-300:]}")
        marks = [int(line) for line in (first + output).splitlines() if line.isdecimal()]
        changes += len(marks) // 2
        wrong += in_child(check, place, possible({}, number, marks, in_parts=mode == "handler"))[0]
        figures.add(wrong, f"round {number}, {mode}")
    figures.notes = f"{changes} changes were reported as stored"
    return figures


def _interrupted(folder: Path, rounds: int, seed: int) -> Figures:
    figures = Figures("KeyboardInterrupt in a writing process")
    for number in range(rounds):
        place = folder / f"interrupted {number}"
        try:
            wrong, state = in_child(_be_interrupted, place, seed + number)
            wrong += in_child(check, place, [state])[0]
        except (RuntimeError, TimeoutError) as error:
            wrong = [str(error)[-600:]]
        figures.add(wrong, f"round {number}")
    figures.notes = "20 interruptions per round"
    return figures


def _be_interrupted(place: Path, seed: int) -> tuple[list[str], State]:
    random = Random(seed)
    state: State = {}
    wrong = []
    with open_store(place) as store:
        changes = life(state, seed)
        for _ in range(20):
            change = next(changes)
            after = change.after(state)
            between = [part.after(state) for part in change.parts()]
            signal.signal(signal.SIGALRM, signal.default_int_handler)
            try:
                signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 2e-2))
                for _ in range(50):
                    apply(store, change)
            except KeyboardInterrupt:
                pass
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_IGN)
            wrong += problems(store, [state, *between, after])
            apply(store, change)
            state = after
            wrong += problems(store, [state])
    return wrong, state


def garbage(folder: Path, rounds: int, seed: int) -> list[Figures]:
    """Drop open stores without closing them, in cycles too; descriptors stay bounded and the store can be written."""
    figures = Figures("open stores that are dropped")
    for number in range(rounds):
        place = folder / f"store {number}"
        try:
            wrong = in_child(_drop, place)
        except (RuntimeError, TimeoutError) as error:
            wrong = [str(error)[-600:]]
        figures.add(wrong + in_child(check, place, [{1: 20}])[0], f"round {number}")
    return [figures]


def _drop(place: Path) -> list[str]:
    counts = []
    for version in range(1, 21):
        store: Any = open_store(place)
        apply(store, Change({1: version}, []))
        answers(store)
        store.itself = store
        del store
        gc.collect()
        counts.append(len(list(Path("/proc/self/fd").iterdir())) if sys.platform == "linux" else 0)
    return [] if counts[-1] <= counts[0] else [f"the process has {counts[-1]} open files, at first {counts[0]}"]
