"""Calls that meet share a batch, get their own results and their own errors, and wait for nothing else."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations import ColPali
from colpali_integrations.errors import EncodingError
from colpali_integrations.runtime.batching import Coalescer
from colpali_integrations.runtime.session import ModelSessions


class Doubler:
    """Doubles numbers; notes the batches, waits at a gate that tests hold shut, and fails on -1."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        assert self.gate.wait(20)
        if -1 in items:
            raise ValueError(f"cannot double {list(items)}")
        return [2 * item for item in items]


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


class Calls:
    """Calls in threads of their own, begun one after the other."""

    def __init__(self, pool: ThreadPoolExecutor, work: Doubler) -> None:
        self.pool, self.work, self.coalescer = pool, work, Coalescer[int, int]()

    def start(self, *items: int, key: str = "", most: int = 64) -> Future[list[int]]:
        waiting, runs = len(self.coalescer._waiting), len(self.work.batches)
        found = self.pool.submit(self.coalescer.submit, key, items, run=self.work, run_batch=self.work, most=most)
        until(lambda: len(self.coalescer._waiting) > waiting or len(self.work.batches) > runs)
        return found


@pytest.fixture
def calls() -> Any:
    with ThreadPoolExecutor(12) as pool:
        work = Doubler()
        yield Calls(pool, work)
        work.gate.set()


def test_who_comes_alone_runs_at_once_and_who_comes_meanwhile_shares_the_next_batch(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2, 3), calls.start(4), calls.start(5, 6)]
    assert calls.work.batches == [[1]]
    calls.work.gate.set()
    assert [future.result(20) for future in futures] == [[2], [4, 6], [8], [10, 12]]
    assert calls.work.batches == [[1], [2, 3, 4, 5, 6]]
    assert calls.start(7).result(20) == [14]
    assert (calls.coalescer._busy, calls.coalescer._waiting) == (False, [])


def test_calls_of_another_key_take_their_turn(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2, key="b"), calls.start(3), calls.start(4, key="b"), calls.start(5)]
    calls.work.gate.set()
    assert [future.result(20) for future in futures] == [[2], [4], [6], [8], [10]]
    assert calls.work.batches == [[1], [2, 4], [3, 5]]


def test_a_batch_keeps_to_the_least_number_of_its_calls(calls: Calls) -> None:
    futures = [calls.start(0), calls.start(1, 2, most=5), calls.start(3, 4, most=5), calls.start(5, 6, most=5)]
    futures += [calls.start(7, most=2), calls.start(8, 9, 10, most=2)]
    calls.work.gate.set()
    assert [future.result(20) for future in futures][1:] == [[2, 4], [6, 8], [10, 12], [14], [16, 18, 20]]
    # What is larger by itself than it may share is run by itself: a call's own batch is the caller's affair.
    assert calls.work.batches == [[0], [1, 2, 3, 4], [5, 6], [7], [8, 9, 10]]


def test_an_error_goes_to_the_call_that_made_it(calls: Calls) -> None:
    futures = [calls.start(0), calls.start(1), calls.start(2, -1), calls.start(3)]
    calls.work.gate.set()
    assert [futures[place].result(20) for place in (0, 1, 3)] == [[0], [2], [6]]
    with pytest.raises(ValueError, match=r"cannot double \[2, -1\]"):
        futures[2].result(20)
    assert calls.work.batches == [[0], [1, 2, -1, 3], [1], [2, -1], [3]]
    with pytest.raises(ValueError, match=r"cannot double \[-1\]"):
        calls.start(-1).result(20)
    assert calls.start(4).result(20) == [8]


def test_a_leader_that_is_interrupted_leaves_the_others_to_go_on(calls: Calls) -> None:
    first = calls.start(1)
    seen: list[int] = []

    def interrupted(items: Sequence[int]) -> list[int]:
        seen.extend(items)
        raise KeyboardInterrupt

    led = calls.pool.submit(calls.coalescer.submit, "", [2], run=interrupted, run_batch=interrupted, most=64)
    until(lambda: len(calls.coalescer._waiting) == 1)
    others = [calls.start(3), calls.start(4)]
    calls.work.gate.set()
    assert first.result(20) == [2]
    with pytest.raises(KeyboardInterrupt):
        led.result(20)
    assert [future.result(20) for future in others] == [[6], [8]]
    assert seen == [2, 3, 4]
    assert calls.work.batches == [[1], [3, 4]]


def test_who_gives_up_waiting_is_not_waited_for(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2), calls.start(3)]
    leaver = calls.coalescer._waiting[0]
    calls.coalescer._leave(leaver)
    calls.work.gate.set()
    assert futures[2].result(20) == [6]
    assert calls.work.batches == [[1], [3]]
    # And one that had just been told to lead hands on what it was to run.
    leaver.batch = [leaver, type(leaver)("", [8], 64)]
    calls.coalescer._busy = True
    calls.coalescer._leave(leaver)
    assert leaver.batch[1].batch == [leaver.batch[1]]
    assert leaver.batch[1].woken.is_set()
    leaver.outcome = []
    leaver.batch = []
    leaver.woken.set()  # lets the thread end
    assert futures[1].result(20) == []


@given(
    jobs=st.lists(st.tuples(st.lists(st.integers(-1, 9), min_size=1, max_size=4), st.sampled_from("ab")), max_size=24)
)
@settings(max_examples=30, deadline=None)
def test_any_calls_get_what_they_would_get_alone(jobs: list[tuple[list[int], str]]) -> None:
    work, coalescer = Doubler(), Coalescer[int, int]()
    work.gate.set()

    def call(job: tuple[list[int], str]) -> list[int] | str:
        try:
            return coalescer.submit(job[1], job[0], run=work, run_batch=work, most=6)
        except ValueError as error:
            return str(error)

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(call, jobs))
    for (items, _), result in zip(jobs, found, strict=True):
        assert result == (f"cannot double {items}" if -1 in items else [2 * item for item in items])
    assert not coalescer._busy


def _double_in_child(coalescer: Coalescer[int, int], answers: Any) -> None:
    answers.put(coalescer.submit("", [4], run=lambda items: [2 * item for item in items], run_batch=list, most=2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_does_not_wait_for_the_parent_s_run(calls: Calls) -> None:
    calls.start(1)
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    child = context.Process(target=_double_in_child, args=(calls.coalescer, answers))
    child.start()
    child.join(30)
    assert child.exitcode == 0
    assert answers.get() == [8]


QUESTIONS = ["harbour", "violin", "mitochondria", "tax"]


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the runs of queries; the first of several waits until all calls are there."""
    sizes: list[int] = []
    original = ModelSessions.queries

    def watched(self: ModelSessions, feed: Any, runs: Any = None) -> Any:
        sizes.append(len(next(iter(feed.values()))))
        if len(sizes) == 1:
            time.sleep(0.3)
        return original(self, feed, runs)

    monkeypatch.setattr(ModelSessions, "queries", watched)
    return sizes


def test_threads_that_ask_at_once_share_runs(paligemma: ColPali, batches: list[int]) -> None:
    texts = ["which crane"] * 12
    [alone] = paligemma.embed_queries(texts[:1], parallel=1)
    batches.clear()
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda text: next(paligemma.embed_queries(text)), texts))
    assert sum(batches) == 12
    assert len(batches) < 6
    for vectors in found:
        np.testing.assert_allclose(vectors, alone, atol=2e-6)  # what a batch may change, see test_model.py
        assert vectors.base is None


async def test_tasks_that_ask_at_once_share_runs(coltiny: ColPali, batches: list[int]) -> None:
    expected = [next(coltiny.embed_queries(text, parallel=1)) for text in QUESTIONS]
    batches.clear()

    async def ask(text: str) -> Any:
        [vectors] = [found async for found in coltiny.aembed_queries(text)]
        return vectors

    found = await asyncio.gather(*(ask(text) for text in QUESTIONS * 2))
    for vectors, other in zip(found, expected * 2, strict=True):
        np.testing.assert_allclose(vectors, other, atol=2e-6)


def test_a_query_that_cannot_be_encoded_fails_for_its_caller_alone(
    paligemma: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph refuses one token: whichever batch it is in fails."""
    original = ModelSessions.queries
    [bad] = [paligemma.family.queries.prepare("violin").ids]

    def refusing(self: ModelSessions, feed: Any, runs: Any = None) -> Any:
        time.sleep(0.05)
        if any(np.array_equal(ids, bad) for ids in feed["input_ids"]):
            raise EncodingError("onnxruntime failed")
        return original(self, feed, runs)

    monkeypatch.setattr(ModelSessions, "queries", refusing)

    def ask(text: str) -> Any:
        try:
            return next(paligemma.embed_queries(text))
        except EncodingError as error:
            return error

    texts = ["violin", "crane", "piano", "organs"] * 3
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, texts))
    for text, result in zip(texts, found, strict=True):
        assert isinstance(result, EncodingError) == (text == "violin"), text
        if text == "violin":
            assert "'violin'" in str(result)
