"""Run blocking work off the event loop, in a bounded number of threads, and only while a task waits for it.

`asyncio.to_thread` would use the loop's default executor. The whole program shares it (DNS look-ups, for example), and
`asyncio.gather` over a hundred pages would encode up to 32 of them at the same time, each with its own memory. Queries
have separate threads, so that a question never waits for the encoding of a folder of pages.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ["AsyncResults", "Lane", "cancellable", "collect", "in_thread", "offload"]

T = TypeVar("T")
Lane: TypeAlias = Literal["queries", "pages"]

# One run uses all cores. A second call can read and resize its pages meanwhile; a third would only take memory.
_THREADS: dict[Lane, int] = {"queries": 4, "pages": 2}
# Iterations over queries mostly wait for a run that they share (`batching`), so the more of them wait, the better.
_ITERATING: dict[Lane, int] = {"queries": 32, "pages": 2}


async def offload(call: Callable[[], T], lane: Lane, *, workers: int | None = None) -> T:
    """Run a blocking call in one of the lane's threads; wait while all are busy.

    Args:
        call: the call, which runs in a copy of the caller's context variables.
        lane: "queries" for short calls, "pages" for long ones.
        workers: number of threads; None for 4 in the lane of queries and 2 in the lane of pages. Calls with equal lanes
            and numbers share threads.

    Returns:
        The result of the call.
    """
    import asyncio  # slow to import, and unused by most programs

    return await asyncio.get_running_loop().run_in_executor(
        _threads(lane, workers or _THREADS[lane], os.getpid()), contextvars.copy_context().run, call
    )


class _EitherEvent(threading.Event):
    """An event that is also set once another one is."""

    def __init__(self, other: threading.Event | None) -> None:
        super().__init__()
        self._other = other

    def is_set(self) -> bool:
        return super().is_set() or (self._other is not None and self._other.is_set())


async def cancellable(
    call: Callable[[threading.Event], T], stop: threading.Event | None = None, *, workers: int | None = None
) -> T:
    """Run a call in the lane of pages.

    Args:
        call: the call; its argument is an event that is set once `stop` is, or when the task is cancelled.
        stop: the caller's event, which stays as it is.
        workers: as in `offload`.
    """
    either = _EitherEvent(stop)
    try:
        return await offload(lambda: call(either), "pages", workers=workers)
    finally:
        either.set()


async def collect(
    start: Callable[[], Generator[T, None, None]],
    *,
    convert: Callable[[T], Any] = lambda item: item,
    workers: int | None = None,
) -> list[Any]:
    """Exhaust a generator in the lane of pages. When the task is cancelled, the thread stops after the current item.

    Args:
        start: makes the generator; it runs in the thread too, because loading a model blocks as well.
        convert: applied to each item.
        workers: as in `offload`.

    Returns:
        The converted items.
    """

    def work(cancelled: threading.Event) -> list[Any]:
        results = []
        with closing(start()) as items:
            for item in items:
                results.append(convert(item))
                if cancelled.is_set():
                    break
        return results

    return await cancellable(work, workers=workers)


class AsyncResults(AsyncGenerator[T, None], Coroutine[Any, None, list[T]]):
    """Results that arrive one by one in an `async for`, or all together by `await`, as a list.

    It is an asynchronous generator and a coroutine, and works once, as each of these: `asyncio.create_task`, `gather`
    and the others take it as the coroutine of the list. A second `await` is a RuntimeError, and so is an `await` beside
    an `async for`, which would miss the results that the other one took. To read a list several times, keep it, or
    await the task.

    Example:
        >>> import asyncio
        >>> from colpali_integrations import ColPali
        >>> async def ask(model):
        ...     first, second = (asyncio.create_task(model.aembed_queries(text)) for text in ("low tide", "ebb"))
        ...     return len(await first), len(await second), len(await first)
        >>> asyncio.run(ask(ColPali.from_pretrained()))
        (1, 1, 1)
    """

    def __init__(self, results: AsyncGenerator[T, None]) -> None:
        self._results = results
        self._iterated = False
        self._awaited: Coroutine[Any, None, list[T]] | None = None

    def __await__(self) -> Generator[Any, None, list[T]]:
        return self._coroutine().__await__()

    def send(self, value: None) -> Any:
        """As of every coroutine."""
        return self._coroutine().send(value)

    def throw(self, *error: Any) -> Any:
        """As of every coroutine."""
        return self._coroutine().throw(*error)

    def close(self) -> None:
        """As of every coroutine."""
        self._coroutine().close()

    def _coroutine(self) -> Coroutine[Any, None, list[T]]:
        """One coroutine for all calls, so that Python itself refuses a second `await`."""
        if self._iterated:
            raise RuntimeError("cannot await results of which an `async for` takes some; await or iterate, not both")
        if self._awaited is None:
            self._awaited = self._all()
        return self._awaited

    async def _all(self) -> list[T]:
        return [result async for result in self._results]

    async def asend(self, value: None) -> T:
        """As of every asynchronous generator."""
        if self._awaited is not None:
            raise RuntimeError("cannot iterate over results that are awaited; await or iterate, not both")
        self._iterated = True
        return await self._results.asend(value)

    async def athrow(self, *error: Any) -> T:
        """As of every asynchronous generator."""
        return await self._results.athrow(*error)

    async def aclose(self) -> None:
        """End the work early."""
        await self._results.aclose()


def in_thread(results: Iterator[T], lane: Lane = "pages") -> AsyncResults[T]:
    """Iterate in the lane's threads, one item at a time, and close the iterator in every case."""
    return AsyncResults(_in_thread(results, lane))


async def _in_thread(results: Iterator[T], lane: Lane) -> AsyncGenerator[T, None]:
    import asyncio

    end, workers = object(), _ITERATING[lane]
    busy = threading.Lock()  # a cancelled task leaves its thread inside the generator, which cannot be closed meanwhile

    def pull() -> Any:
        with busy:
            return next(results, end)

    def close() -> None:
        with busy:
            getattr(results, "close", lambda: None)()

    try:
        while (result := await offload(pull, lane, workers=workers)) is not end:
            yield result
    finally:
        await asyncio.shield(offload(close, lane, workers=workers))


@cache
def _threads(lane: Lane, workers: int, process: int) -> ThreadPoolExecutor:
    """Make the threads of a lane, once per `process`, because a forked child inherits none."""
    return ThreadPoolExecutor(workers, thread_name_prefix=f"colpali-async-{lane}")
