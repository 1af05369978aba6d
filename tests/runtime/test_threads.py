"""Asynchronous results: one by one, or all together."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.threads import AsyncResults, in_thread


def test_results_are_iterated_over_or_awaited(coltiny: ColPali) -> None:
    async def both() -> tuple[int, int]:
        one_by_one = [vectors async for vectors in coltiny.aembed_queries(["low tide", "ebb"])]
        together = await coltiny.aembed_queries(["low tide", "ebb"])
        return len(one_by_one), len(together)

    assert asyncio.run(both()) == (2, 2)


def test_work_ends_early() -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    async def first() -> int:
        results = in_thread(numbers(), "pages")
        number = await results.__anext__()
        await results.aclose()
        return number

    assert asyncio.run(first()) == 0
    assert closed == [True]


def test_results_are_a_coroutine_of_their_list() -> None:
    def tasks() -> list[asyncio.Task[list[int]]]:
        return [asyncio.create_task(in_thread(iter(numbers))) for numbers in ([1, 2], [], [3])]

    async def every_way() -> None:
        results = in_thread(iter([1, 2]))
        assert asyncio.iscoroutine(results)
        assert inspect.isawaitable(results)
        assert await results == [1, 2]
        several = tasks()
        assert [await task for task in several] == [[1, 2], [], [3]]
        assert [await task for task in several] == [[1, 2], [], [3]], "a task answers again"
        assert [*await asyncio.gather(in_thread(iter("a")), in_thread(iter("b")))] == [["a"], ["b"]]
        assert await asyncio.wait_for(in_thread(iter("c")), 60) == ["c"]

    asyncio.run(every_way(), debug=True)
    assert asyncio.run(in_thread(iter([4]))) == [4]


def test_results_are_read_once() -> None:
    async def twice() -> None:
        results = in_thread(iter([1, 2]))
        assert await results == [1, 2]
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await results
        with pytest.raises(RuntimeError, match="await or iterate, not both"):
            [result async for result in results]

    async def both() -> None:
        results = in_thread(iter([1, 2]))
        assert await anext(results) == 1
        with pytest.raises(RuntimeError, match="await or iterate, not both"):
            await results
        assert [result async for result in results] == [2]

    asyncio.run(twice())
    asyncio.run(both())


def test_a_cancelled_task_ends_the_work() -> None:
    closed, started = [], []

    def numbers() -> Iterator[int]:
        try:
            for number in range(10**9):
                started.append(number)
                yield number
        finally:
            closed.append(True)

    async def cancel() -> None:
        task = asyncio.create_task(in_thread(numbers()))
        while not started:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert closed == [True]


def test_results_that_nobody_reads_give_no_warning() -> None:
    in_thread(iter([1])).close()
    in_thread(iter([1]))


@pytest.mark.parametrize("lane", ["queries", "pages"])
def test_the_programs_own_threads_stay_free(coltiny: ColPali, lane: str) -> None:
    """Embeddings that cannot end before the program's only thread has run do end."""
    begun, released = threading.Event(), threading.Event()

    def blocked(item: Any) -> Iterator[Any]:
        begun.set()
        assert released.wait(60), "no thread of the program was free"
        yield item

    def start() -> AsyncResults[Float32]:
        if lane == "queries":
            return coltiny.aembed_queries(blocked("low tide"))
        return coltiny.aembed_images(blocked(np.full((64, 64), 255, np.uint8)))

    async def both() -> list[list[Float32]]:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
        tasks = [asyncio.create_task(start()) for _ in range(3)]
        while not begun.is_set():
            await asyncio.sleep(0.001)
        await asyncio.to_thread(released.set)
        return await asyncio.gather(*tasks)

    assert [len(vectors) for vectors in asyncio.run(both())] == [1, 1, 1]
