"""Runs: work of many calls of a store, such as indexing, which waits longer for a server than a single call.

A run is a context, so that every call below it knows of it: `running` begins one, and `current_run` finds it. A thread
that makes calls for a run starts in a copy of the run's context (`contextvars.copy_context().run`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from threading import Event, Lock

from colpali_integrations._text import number
from colpali_integrations.errors import StoreError

__all__ = ["GaveUpError", "Run", "count_stored", "current_run", "gave_up", "running"]


class GaveUpError(StoreError):
    """A server was away for longer than its calls are tried again."""


@dataclass
class Run:
    """Work of many calls.

    Attributes:
        waiting: called with the reason before each wait for a server, and with None once it answers again.
        stop: once it is set, nothing is waited for any more.
        reached: whether the server is known to answer, as by another process; then a refused connection is waited for,
            even before its first answer to this one.
        stored: number of points that the server has confirmed.
    """

    waiting: Callable[[str | None], None] = lambda _: None
    stop: Event | None = None
    reached: bool = False
    stored: int = 0


_counting = Lock()
_current: ContextVar[Run | None] = ContextVar("colpali_integrations_run", default=None)


def current_run() -> Run | None:
    """The run that this call is part of; None for a call by itself."""
    return _current.get()


def count_stored(points: int) -> None:
    """Count points that were stored, for the message of a run that gives up."""
    if (run := _current.get()) is not None:
        with _counting:
            run.stored += points


@contextmanager
def running(
    advice: str | None,
    *,
    waiting: Callable[[str | None], None] | None = None,
    stop: Event | None = None,
    reached: bool = False,
) -> Iterator[Run]:
    """Begin a run; within another one, its calls are part of that one.

    Args:
        advice: how the caller goes on after the run has given up, for the message; "{stored}" in it becomes the number
            of stored pages. None leaves the error as it is.
        waiting: as of `Run`.
        stop: as of `Run`.
        reached: as of `Run`.

    Raises:
        GaveUpError: a server was away for too long.

    Example:
        >>> with running("{stored}; run it again"):
        ...     count_stored(3)
        ...     raise GaveUpError("the server cannot be reached")
        Traceback (most recent call last):
        colpali_integrations.stores.runs.GaveUpError: the server cannot be reached. 3 pages are stored; run it again
    """
    if (outer := _current.get()) is not None:
        yield outer
        return
    run = Run(stop=stop, reached=reached)
    if waiting is not None:
        run.waiting = waiting
    token = _current.set(run)
    try:
        yield run
    except GaveUpError as error:
        if advice is None:
            raise
        raise gave_up(error, run.stored, advice) from error
    finally:
        _current.reset(token)


def gave_up(error: GaveUpError, stored: int, advice: str) -> GaveUpError:
    """The error of a run that has given up; see `running`."""
    pages = "No page is stored" if not stored else f"{number(stored, 'page')} {'is' if stored == 1 else 'are'} stored"
    return GaveUpError(f"{error}. {advice.replace('{stored}', pages)}")
