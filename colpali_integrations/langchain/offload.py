"""Long blocking work off the event loop, which ends when nobody waits for it any more."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

from langchain_core.runnables.config import run_in_executor

__all__ = ["collect"]

T = TypeVar("T")


async def collect(start: Callable[[], Iterator[T]]) -> list[T]:
    """Exhaust an iterator in one thread. When the task is cancelled, the thread stops after the item at hand.

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
        return await run_in_executor(None, work)
    finally:
        cancelled.set()
