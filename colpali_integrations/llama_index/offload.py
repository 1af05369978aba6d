"""Blocking work off the event loop, in a bounded number of threads.

`asyncio.to_thread` would do with its default executor, but that is shared with everything else in the program (DNS
look-ups among it) and lets up to 32 encodings run at once, each with the memory of a batch.
"""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TypeVar

__all__ = ["offload", "stream_in_chunks"]

T = TypeVar("T")

# One call encodes with every core while the next reads and resizes its images; more only adds memory.
DEFAULT_WORKERS = 2


async def offload(call: Callable[[], T], *, workers: int | None = None) -> T:
    """Run a blocking call in a thread; at most `workers` such calls run at once in the process, the rest wait.

    Args:
        call: what to run, in a copy of the caller's context variables.
        workers: how many may run at the same time; None for 2. Calls with equal numbers share threads.

    Returns:
        What the call returns.
    """
    executor = _executor(workers or DEFAULT_WORKERS, os.getpid())
    return await asyncio.get_running_loop().run_in_executor(executor, contextvars.copy_context().run, call)


async def stream_in_chunks(stream: Iterator[T], size: int, *, workers: int | None = None) -> AsyncGenerator[list[T]]:
    """Pull lists of up to `size` items from a blocking iterator, off the event loop, and close it whatever happens.

    When the task is cancelled while a thread works, the thread finishes its chunk, and then the stream is closed.
    """
    lock = threading.Lock()  # a generator must not be closed while another thread runs it

    def pull() -> list[T]:
        with lock:
            return list(itertools.islice(stream, size))

    def close() -> None:
        with lock:
            getattr(stream, "close", lambda: None)()

    executor = _executor(workers or DEFAULT_WORKERS, os.getpid())
    try:
        while chunk := await offload(pull, workers=workers):
            yield chunk
    finally:
        try:
            executor.submit(close)
        except RuntimeError:  # the interpreter is going down, and with it the threads
            close()


@cache
def _executor(workers: int, process: int) -> ThreadPoolExecutor:
    """The threads for a bound; `process` is part of the key because a forked child inherits none of them."""
    return ThreadPoolExecutor(workers, thread_name_prefix="colpali-async")
