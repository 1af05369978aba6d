"""Bounded queues: the work of requests in threads, and a refusal with Retry-After where too much of it waits."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from colpali_integrations.server.errors import RequestError, stopping

__all__ = ["Queue"]

Result = TypeVar("Result")

_LONGEST_WAIT = 60


class Queue:
    """Threads for one kind of work. All methods but the work itself run in the event loop's thread.

    Args:
        name: of the work, for messages and metrics.
        threads: number of calls that run at the same time.
        most: number of calls that run or wait; further ones are refused.

    Attributes:
        load: number of calls that run or wait now.
    """

    def __init__(self, name: str, threads: int, most: int) -> None:
        self.name, self.load = name, 0
        self._threads, self._most = threads, most
        self._executor = ThreadPoolExecutor(threads, f"serve-{name}")
        self._closed = False
        self._seconds = 0.1  # of a call, averaged over the last ones

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run a function in a thread.

        Raises:
            RequestError: 429 where the queue is full, 503 where the server stops; both with Retry-After.
        """
        if self._closed:
            raise stopping()
        if self.load >= self._most:
            wait = min(_LONGEST_WAIT, max(1, math.ceil(self.load * self._seconds / self._threads)))
            raise RequestError(
                429,
                f"{self.load} requests of this kind wait already ({self.name}); ask again in {wait} s",
                "queue_full",
                {"Retry-After": str(wait)},
            )
        loop = asyncio.get_running_loop()
        self.load += 1
        future = self._executor.submit(self._timed, work)
        future.add_done_callback(lambda done: self._leave(done, loop))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Refuse further calls, and wait for those that run; those that wait are dropped."""
        self._closed = True
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _timed(self, work: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        try:
            return work()
        finally:
            self._seconds += 0.1 * (time.perf_counter() - began - self._seconds)

    def _leave(self, done: Future[Result], loop: asyncio.AbstractEventLoop) -> None:
        def leave() -> None:
            self.load -= 1

        if not loop.is_closed():
            loop.call_soon_threadsafe(leave)
