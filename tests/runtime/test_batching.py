"""Concurrent calls share a batch, and each gets its own results and errors without further waiting."""

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
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.session import ModelSessions


class Doubler:
    """Doubles numbers; notes the batches, waits at a gate that tests open, and fails on -1."""

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
    end = time.monotonic() + 60  # also while much else runs
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


def test_a_lone_call_runs_at_once_and_calls_during_a_run_share_the_next_batch(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2, 3), calls.start(4), calls.start(5, 6)]
    assert calls.work.batches == [[1]]
    calls.work.gate.set()
    assert [future.result(20) for future in futures] == [[2], [4, 6], [8], [10, 12]]
    assert calls.work.batches == [[1], [2, 3, 4, 5, 6]]
    assert calls.start(7).result(20) == [14]
    assert (calls.coalescer._busy, calls.coalescer._waiting) == (False, [])


def test_calls_of_another_key_run_in_another_batch(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2, key="b"), calls.start(3), calls.start(4, key="b"), calls.start(5)]
    calls.work.gate.set()
    assert [future.result(20) for future in futures] == [[2], [4], [6], [8], [10]]
    assert calls.work.batches == [[1], [2, 4], [3, 5]]


def test_a_batch_is_limited_by_the_smallest_limit_of_its_calls(calls: Calls) -> None:
    futures = [calls.start(0), calls.start(1, 2, most=5), calls.start(3, 4, most=5), calls.start(5, 6, most=5)]
    futures += [calls.start(7, most=2), calls.start(8, 9, 10, most=2)]
    calls.work.gate.set()
    assert [future.result(20) for future in futures][1:] == [[2, 4], [6, 8], [10, 12], [14], [16, 18, 20]]
    # A call with more items than its limit runs alone: the caller decides the size of its own batch.
    assert calls.work.batches == [[0], [1, 2, 3, 4], [5, 6], [7], [8, 9, 10]]


def test_an_error_reaches_only_the_call_that_causes_it(calls: Calls) -> None:
    futures = [calls.start(0), calls.start(1), calls.start(2, -1), calls.start(3)]
    calls.work.gate.set()
    assert [futures[position].result(20) for position in (0, 1, 3)] == [[0], [2], [6]]
    with pytest.raises(ValueError, match=r"cannot double \[2, -1\]"):
        futures[2].result(20)
    assert calls.work.batches == [[0], [1, 2, -1, 3], [1], [2, -1], [3]]
    with pytest.raises(ValueError, match=r"cannot double \[-1\]"):
        calls.start(-1).result(20)
    assert calls.start(4).result(20) == [8]


def test_after_an_interrupt_of_the_leader_the_other_calls_run(calls: Calls) -> None:
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


def test_an_interrupted_call_leaves_the_queue(calls: Calls) -> None:
    futures = [calls.start(1), calls.start(2), calls.start(3)]
    calls.coalescer._leave(calls.coalescer._waiting[0])
    assert futures[1].result(20) == []
    calls.work.gate.set()
    assert futures[2].result(20) == [6]
    assert calls.work.batches == [[1], [3]]


def test_a_batch_whose_leader_is_interrupted_does_not_wait_for_a_call_that_left(calls: Calls) -> None:
    first = calls.start(1)
    running, gate = threading.Event(), threading.Event()

    def interrupted(items: Sequence[int]) -> list[int]:
        running.set()
        assert gate.wait(20)
        raise KeyboardInterrupt

    led = calls.pool.submit(calls.coalescer.submit, "", [2], run=interrupted, run_batch=interrupted, most=64)
    until(lambda: len(calls.coalescer._waiting) == 1)
    others = [calls.start(3), calls.start(4)]
    leaver = calls.coalescer._waiting[1]
    calls.work.gate.set()
    assert first.result(20) == [2]
    assert running.wait(20)
    calls.coalescer._leave(leaver)
    assert others[0].result(20) == []
    gate.set()
    with pytest.raises(KeyboardInterrupt):
        led.result(20)
    assert others[1].result(20) == [8]
    assert (calls.coalescer._busy, calls.coalescer._waiting) == (False, [])


@given(
    jobs=st.lists(st.tuples(st.lists(st.integers(-1, 9), min_size=1, max_size=4), st.sampled_from("ab")), max_size=24)
)
@settings(max_examples=30, deadline=None)
def test_any_calls_get_the_results_of_lone_calls(jobs: list[tuple[list[int], str]]) -> None:
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


class CountingSessions(ModelSessions):
    """Notes the sizes of the runs of queries; the first run lasts until this many other calls wait."""

    def __init__(self, model: ColPali, others: int) -> None:
        super().__init__(model.family.graphs, SessionConfig())
        self.batches: list[int] = []
        self.others = others

    def queries(self, feed: Any, runs: Any = None) -> Any:
        self.batches.append(len(next(iter(feed.values()))))
        if len(self.batches) == 1:
            until(lambda: len(self.coalescer._waiting) >= self.others)
        return super().queries(feed, runs)


def with_sessions(model: ColPali, sessions: ModelSessions) -> ColPali:
    return ColPali(model.family, [sessions], model.description)


def test_concurrent_threads_share_runs(paligemma: ColPali) -> None:
    sessions = CountingSessions(paligemma, others=11)
    model = with_sessions(paligemma, sessions)
    texts = ["which crane"] * 12
    [alone] = paligemma.embed_queries(texts[:1], parallel=1)
    with ThreadPoolExecutor(12) as pool:
        results = list(pool.map(lambda text: next(model.embed_queries(text)), texts))
    assert sessions.batches == [1, 11]
    for vectors in results:
        np.testing.assert_allclose(vectors, alone, atol=2e-6)  # what a batch may change, see test_model.py
        assert vectors.base is None


async def test_concurrent_tasks_share_runs(coltiny: ColPali) -> None:
    sessions = CountingSessions(coltiny, others=4)
    model = with_sessions(coltiny, sessions)
    expected = [next(coltiny.embed_queries(text, parallel=1)) for text in QUESTIONS]

    async def ask(text: str) -> Any:
        [vectors] = [result async for result in model.aembed_queries(text)]
        return vectors

    results = await asyncio.gather(*(ask(text) for text in QUESTIONS * 2))
    assert sessions.batches[0] == 1
    assert sessions.batches[1] >= 4
    assert sum(sessions.batches) == 8
    for vectors, other in zip(results, expected * 2, strict=True):
        np.testing.assert_allclose(vectors, other, atol=2e-6)


def test_a_query_that_cannot_be_encoded_fails_for_its_caller_alone(paligemma: ColPali) -> None:
    """Every batch with one of the queries fails."""
    bad = paligemma.family.queries.prepare("violin").ids

    class RefusingSessions(ModelSessions):
        def queries(self, feed: Any, runs: Any = None) -> Any:
            time.sleep(0.05)
            if any(np.array_equal(ids, bad) for ids in feed["input_ids"]):
                raise EncodingError("onnxruntime failed")
            return super().queries(feed, runs)

    model = with_sessions(paligemma, RefusingSessions(paligemma.family.graphs, SessionConfig()))

    def ask(text: str) -> Any:
        try:
            return next(model.embed_queries(text))
        except EncodingError as error:
            return error

    texts = ["violin", "crane", "piano", "organs"] * 3
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(ask, texts))
    for text, result in zip(texts, found, strict=True):
        assert isinstance(result, EncodingError) == (text == "violin"), text
        if text == "violin":
            assert "'violin'" in str(result)
