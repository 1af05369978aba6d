"""Blocking work off the event loop, in a bounded number of threads, and only while a task waits for it.

`asyncio.to_thread` would use the loop's default executor. That one is shared with everything else in the program (DNS
look-ups among it), and `asyncio.gather` over a hundred pages would encode up to 32 of them at once, each with memory
of its own. Queries have threads to themselves, so that a question never waits for a folder of pages to be encoded.
"""

from __future__ import annotations

import contextvars
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Literal, TypeAlias, TypeVar

__all__ = ["Lane", "collect", "in_thread", "offload"]

T = TypeVar("T")
Lane: TypeAlias = Literal["queries", "pages"]

# A run uses every core by itself. A second call reads and resizes its pages meanwhile; more only adds memory.
_THREADS: dict[Lane, int] = {"queries": 4, "pages": 2}


async def offload(call: Callable[[], T], lane: Lane, *, workers: int | None = None) -> T:
    """Run a blocking call in one of the lane's threads; wait while all are busy.

    Args:
        call: what to run, in a copy of the caller's context variables.
        lane: "queries" for short calls, "pages" for long ones.
        workers: how many may run at the same time; None for 4 queries or 2 calls about pages. Calls with equal lanes
            and numbers share threads.

    Returns:
        What the call returns.
    """
    import asyncio  # slow to import, and most programs are not asynchronous

    executor = _executor(lane, workers or _THREADS[lane], os.getpid())
    return await asyncio.get_running_loop().run_in_executor(executor, contextvars.copy_context().run, call)


async def collect(start: Callable[[], Iterator[T]], *, workers: int | None = None) -> list[T]:
    """Exhaust an iterator in the lane of pages. When the task is cancelled, the thread stops after the item at hand.

    Args:
        start: makes the iterator; called in the thread too, for loading a model blocks as well.
        workers: as for `offload`.

    Returns:
        Its items.
    """
    cancelled = threading.Event()

    def work() -> list[T]:
        results: list[T] = []
        for result in start():
            results.append(result)
            if cancelled.is_set():
                break
        return results

    try:
        return await offload(work, "pages", workers=workers)
    finally:
        cancelled.set()


async def in_thread(results: Iterator[T]) -> AsyncGenerator[T, None]:
    """Iterate in a thread of the event loop's own, one item at a time, and close the iterator whatever happens."""
    import asyncio

    end = object()
    busy = threading.Lock()  # a cancelled task leaves its thread inside the generator, which cannot be closed then

    def pull() -> Any:
        with busy:
            return next(results, end)

    def close() -> None:
        with busy:
            getattr(results, "close", lambda: None)()

    try:
        while (result := await asyncio.to_thread(pull)) is not end:
            yield result
    finally:
        await asyncio.shield(asyncio.to_thread(close))


@cache
def _executor(lane: Lane, workers: int, process: int) -> ThreadPoolExecutor:
    """A lane's threads; `process` is part of the key because a forked child inherits none of them."""
    return ThreadPoolExecutor(workers, thread_name_prefix=f"colpali-async-{lane}")
