"""The pipeline: order, bounds, positions of errors, and no threads left behind."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import EncodingError, ImageError
from colpali_integrations.runtime.pipeline import Failure, Stage, run_in_order, run_inline
from tests.runtime.threads import pipeline_threads


def times_ten(batch: Sequence[int], worker: int) -> list[int]:
    return [item * 10 for item in batch]


def make_stage(
    prepare: Callable[[int], int] = lambda item: item,
    run: Callable[[Sequence[int], int], list[int]] = times_ten,
    key: Callable[[int], Hashable] = lambda ready: "all",
) -> Stage[int, int, int]:
    return Stage(prepare=prepare, key=key, run=run, name=lambda item: f"item {item}")


def values(results: Iterator[int | Failure]) -> list[int | str]:
    return [type(result.error).__name__ if isinstance(result, Failure) else result for result in results]


@given(
    items=st.lists(st.integers(0, 9), max_size=40),
    batch_size=st.integers(1, 7),
    workers=st.integers(1, 4),
    keys=st.integers(1, 3),
    bad=st.sets(st.integers(0, 9)),
)
@settings(max_examples=60, deadline=None)
def test_threads_and_a_plain_loop_have_equal_results(
    items: list[int], batch_size: int, workers: int, keys: int, bad: set[int]
) -> None:
    def prepare(item: int) -> int:
        if item in bad:
            raise ImageError("bad")
        return item

    stage = make_stage(prepare, key=lambda ready: ready % keys)
    expected = ["ImageError" if item in bad else item * 10 for item in items]
    threaded = run_in_order(items, stage, batch_size=batch_size, workers=workers, preparers=2)
    assert values(threaded) == expected
    assert values(run_inline(items, stage, batch_size=batch_size)) == expected


def test_only_items_of_equal_key_share_a_batch() -> None:
    batches: list[list[int]] = []

    def run(batch: Sequence[int], worker: int) -> list[int]:
        batches.append(list(batch))
        return list(batch)

    list(run_inline([1, 2, 3, 4, 5, 6], make_stage(run=run, key=lambda ready: ready % 2), batch_size=6))
    assert batches == [[1, 3, 5], [2, 4, 6]]


def test_the_source_is_read_a_bounded_number_of_items_ahead() -> None:
    pulled = 0

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(1000):
            pulled += 1
            yield item

    release = threading.Event()

    def run(batch: Sequence[int], worker: int) -> list[int]:
        release.wait(5)
        return list(batch)

    results = run_in_order(source(), make_stage(run=run), batch_size=3, workers=2, preparers=2, batches_ahead=2)
    threading.Timer(0.2, release.set).start()
    assert next(results) == 0
    # Two workers with two batches of three each: twelve items, and not one more while the first result was awaited.
    assert pulled <= 12
    results.close()


def test_the_first_result_does_not_wait_for_the_backlog() -> None:
    pulled = 0
    ran = threading.Event()

    def source() -> Iterator[int]:
        nonlocal pulled
        for item in range(100):
            pulled += 1
            if item:  # the second is there when the first has run
                assert ran.wait(20)
                time.sleep(0.02)
            yield item

    def run(batch: Sequence[int], worker: int) -> list[int]:
        ran.set()
        return list(batch)

    results = run_in_order(source(), make_stage(run=run), batch_size=1, workers=4, preparers=2, batches_ahead=4)
    assert next(results) == 0
    assert pulled < 16  # the backlog
    results.close()


def test_an_error_of_the_source_comes_after_the_results_before_it() -> None:
    def source() -> Iterator[int]:
        yield from (1, 2, 3)
        raise RuntimeError("the scanner jammed")

    for results in (
        run_in_order(source(), make_stage(), batch_size=2, workers=2, preparers=1),
        run_inline(source(), make_stage(), batch_size=2),
    ):
        done: list[int | Failure] = []
        with pytest.raises(RuntimeError, match="the scanner jammed"):
            for result in results:
                done.append(result)
        assert done == [10, 20, 30]
    assert not pipeline_threads()


def test_a_failing_batch_is_tried_item_by_item() -> None:
    def run(batch: Sequence[int], worker: int) -> list[int]:
        if 3 in batch:
            raise EncodingError("three is too much")
        return list(batch)

    [a, b, failure, d] = run_inline([1, 2, 3, 4], make_stage(run=run), batch_size=4)
    assert (a, b, d) == (1, 2, 4)
    assert isinstance(failure, Failure)
    assert str(failure.error) == "item 2 (item 3): three is too much"


def test_a_foreign_exception_keeps_its_cause_and_names_its_item() -> None:
    def prepare(item: int) -> int:
        if item == 5:
            raise ZeroDivisionError("oh")
        return item

    *_, failure = run_in_order([4, 5], make_stage(prepare), batch_size=1, workers=1, preparers=1)
    assert isinstance(failure, Failure)
    assert isinstance(failure.error, EncodingError)
    assert str(failure.error) == "item 1 (item 5): ZeroDivisionError: oh"
    assert isinstance(failure.error.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("take", [0, 1, 5])
def test_an_abandoned_iteration_leaves_no_thread(take: int) -> None:
    ran: list[int] = []

    def run(batch: Sequence[int], worker: int) -> list[int]:
        time.sleep(0.01)
        ran.extend(batch)
        return list(batch)

    results = run_in_order(range(10_000), make_stage(run=run), batch_size=1, workers=3, preparers=2)
    for _ in range(take):
        next(results)
    results.close()
    assert not pipeline_threads()
    after = len(ran)
    time.sleep(0.05)
    assert len(ran) == after
    assert after <= take + 6


def test_an_interrupt_in_the_consumer_leaves_no_thread() -> None:
    with pytest.raises(KeyboardInterrupt):
        for index, _ in enumerate(run_in_order(range(1000), make_stage(), batch_size=2, workers=2, preparers=2)):
            if index == 3:
                raise KeyboardInterrupt
    # The generator is closed when its last reference goes, with the frame of the loop above.
    deadline = time.monotonic() + 5
    while pipeline_threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pipeline_threads()


def test_workers_run_at_the_same_time_and_have_numbers() -> None:
    together = threading.Barrier(3, timeout=10)
    seen: set[int] = set()

    def run(batch: Sequence[int], worker: int) -> list[int]:
        together.wait()
        seen.add(worker)
        return list(batch)

    assert list(run_in_order(range(6), make_stage(run=run), batch_size=1, workers=3, preparers=1)) == list(range(6))
    assert seen == {0, 1, 2}


def test_a_complete_iteration_aborts_nothing() -> None:
    aborted: list[int] = []
    stage = dataclasses.replace(make_stage(), abort=lambda: aborted.append(1))
    list(run_in_order(range(7), stage, batch_size=2, workers=2, preparers=1))
    assert aborted == []


def test_batches_under_way_are_aborted_when_the_iteration_ends_early() -> None:
    aborted, another_runs = threading.Event(), threading.Event()

    def until_aborted(batch: Sequence[int], worker: int) -> list[int]:
        if batch[0] == 0:
            another_runs.wait(10)
        else:
            another_runs.set()
            aborted.wait(10)
        return list(batch)

    stage = dataclasses.replace(make_stage(run=until_aborted), abort=aborted.set)
    results = run_in_order(range(100), stage, batch_size=1, workers=2, preparers=1)
    assert next(results) == 0
    assert not aborted.is_set()
    results.close()
    assert aborted.is_set()
    assert not pipeline_threads()
