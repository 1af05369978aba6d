"""Blocking work off the event loop: in a bounded number of threads, and only while somebody waits for it.

LangChain's own `run_in_executor` would use the loop's default executor. That one is shared with everything else in the
program, and `asyncio.gather` over a hundred pages would encode up to 32 of them at once, each run with memory of its
own. Queries have threads to themselves, so that a question never waits for a folder of pages to be encoded.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Literal, TypeVar

__all__ = ["collect", "offload"]

T = TypeVar("T")

# A run uses every core by itself. A second call reads and resizes its pages meanwhile; more only adds memory.
_THREADS = {"queries": 4, "pages": 2}


async def offload(call: Callable[[], T], lane: Literal["queries", "pages"]) -> T:
    """Run a blocking call in one of the lane's threads, with the caller's context variables; wait while all are busy.

    Args:
        call: what to run.
        lane: "queries" for short calls, "pages" for long ones.

    Returns:
        What the call returns.
    """
    executor = _executor(lane, os.getpid())
    return await asyncio.get_running_loop().run_in_executor(executor, contextvars.copy_context().run, call)


async def collect(start: Callable[[], Iterator[T]]) -> list[T]:
    """Exhaust an iterator in the lane of pages. When the task is cancelled, the thread stops after the item at hand.

    Args:
        start: makes the iterator; called in the thread too, for loading a model blocks as well.

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
        return await offload(work, "pages")
    finally:
        cancelled.set()


@cache
def _executor(lane: str, process: int) -> ThreadPoolExecutor:
    """The lane's threads; `process` is part of the key because a forked child inherits none of them."""
    return ThreadPoolExecutor(_THREADS[lane], thread_name_prefix=f"colpali-{lane}")
