"""Runs: work of many calls of a store, such as indexing, which waits longer for a server than a single call.

A run is a context, so that every call below it knows of it: `running` begins one, and `current_run` finds it. A thread
that makes calls for a run starts in a copy of the run's context (`contextvars.copy_context().run`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Event, Lock

from colpali_integrations._text import number
from colpali_integrations.errors import StoreError

__all__ = ["GaveUpError", "Run", "count_stored", "current_run", "gave_up", "running"]

_SLICE = 0.2  # seconds, for a wait that two events may end


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
        is_single: whether it is a single call all the same, and waits no longer than one.
        stored: number of points that a server has confirmed; None for none, and for other engines.
        interrupted: set by Ctrl-C and the like, see `interrupt`.
    """

    waiting: Callable[[str | None], object] = lambda _: None
    stop: Event | None = None
    reached: bool = False
    is_single: bool = False
    stored: int | None = None
    interrupted: Event = field(default_factory=Event)

    @property
    def end(self) -> Event:
        """Once it is set, nothing is waited for any more: the caller has stopped the run, or interrupted it."""
        return self.interrupted if self.stop is None else _Either(self.stop, self.interrupted)

    def interrupt(self) -> None:
        """Let no call of the run wait for a server any more, in whatever thread."""
        self.interrupted.set()


class _Either(Event):
    """An event that is set once one of two others is."""

    def __init__(self, one: Event, other: Event) -> None:
        super().__init__()
        self._one, self._other = one, other

    def is_set(self) -> bool:
        return self._one.is_set() or self._other.is_set()

    def wait(self, timeout: float | None = None) -> bool:
        until = None if timeout is None else time.monotonic() + timeout
        while not self.is_set():
            left = _SLICE if until is None else until - time.monotonic()
            if left <= 0:
                break
            self._one.wait(min(left, _SLICE))
        return self.is_set()


_counting = Lock()
_current: ContextVar[Run | None] = ContextVar("colpali_integrations_run", default=None)


def current_run() -> Run | None:
    """The run that this call is part of; None for a call by itself."""
    return _current.get()


def count_stored(points: int) -> None:
    """Count points that were stored, for the message of a run that gives up."""
    if (run := _current.get()) is not None:
        with _counting:
            run.stored = points + (run.stored or 0)


@contextmanager
def running(
    advice: str | None,
    *,
    waiting: Callable[[str | None], object] | None = None,
    stop: Event | None = None,
    reached: bool = False,
    is_single: bool = False,
) -> Iterator[Run]:
    """Begin a run; within another one, its calls are part of that one.

    Args:
        advice: how the caller goes on after the run has given up, for the message; "{stored}" in it becomes the number
            of stored pages. None leaves the error as it is.
        waiting: as of `Run`.
        stop: as of `Run`.
        reached: as of `Run`.
        is_single: as of `Run`.

    Raises:
        GaveUpError: a server was away for too long.
        KeyboardInterrupt: Ctrl-C; after a server has stored pages, its message is about them and has the advice.

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
    run = Run(stop=stop, reached=reached, is_single=is_single)
    if waiting is not None:
        run.waiting = waiting
    token = _current.set(run)
    try:
        yield run
    except GaveUpError as error:
        if advice is None or run.is_single:
            raise
        raise gave_up(error, run.stored or 0, advice) from error
    except KeyboardInterrupt as error:
        run.interrupt()
        if advice is not None and run.stored is not None and not error.args:
            error.args = (advice.replace("{stored}", _pages(run.stored)),)
        raise
    finally:
        _current.reset(token)


def gave_up(error: GaveUpError, stored: int, advice: str) -> GaveUpError:
    """The error of a run that has given up; see `running`."""
    return GaveUpError(f"{error}. {advice.replace('{stored}', _pages(stored))}")


def _pages(stored: int) -> str:
    return "No page is stored" if not stored else f"{number(stored, 'page')} {'is' if stored == 1 else 'are'} stored"
