"""Merge concurrent calls into batches, so that a service runs the model once for several questions.

    call A  runs alone, at once               |
    call B      waits                         | B leads: runs B + C + D
    call C        waits                       |    C and D get their results from B
    call D               waits                |

A call that finds the model idle runs immediately. Calls that arrive during a run wait for its end, and are then run as
one batch by the thread of the first of them. All work is done in the callers' threads, so there are no threads to start
or to close, and a fork loses none. Nothing here depends on models.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias, TypeVar

__all__ = ["Coalescer"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Work: TypeAlias = "Callable[[Sequence[Item]], Sequence[Result]]"


@dataclass(eq=False)
class _Call(Generic[Item, Result]):
    """A call that waits or runs.

    Attributes:
        key: calls of equal key may share a batch.
        items: the items of the call.
        most: maximum number of items in a shared batch.
        woken: set when the call has an outcome or becomes the leader of a batch.
        batch: the calls that a leader runs, itself first; empty for a call that does not lead.
        outcome: the results or the error.
    """

    key: Hashable
    items: Sequence[Item]
    most: int
    woken: threading.Event = field(default_factory=threading.Event)
    batch: list[_Call[Item, Result]] = field(default_factory=list)
    outcome: list[Result] | Exception | None = None


class Coalescer(Generic[Item, Result]):
    """Runs one batch at a time: all calls of equal key that wait when it begins. Any thread may call it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[_Call[Item, Result]] = []
        self._busy = False
        _living.add(self)

    def submit(
        self,
        key: Hashable,
        items: Sequence[Item],
        *,
        run: Work[Item, Result],
        run_batch: Work[Item, Result],
        most: int,
    ) -> list[Result]:
        """Run the items of a call, in one batch with those of other calls that wait.

        Args:
            key: calls of equal key may share a batch.
            items: the items, at least one.
            run: runs the items of this call alone; its errors reach this caller.
            run_batch: runs the items of several calls. When it fails, it runs again for the items of each call, so that
                an error reaches only the caller whose items cause it.
            most: maximum number of items in a batch with other calls; the smallest value of the batch's calls counts.

        Returns:
            One result per item, in order.

        Raises:
            Exception: the error of `run`, or of `run_batch` with these items only.
        """
        call: _Call[Item, Result] = _Call(key, items, most)
        with self._lock:
            if self._busy:
                self._waiting.append(call)
            else:
                self._busy = True
                call.batch = [call]
        if not call.batch:
            try:
                call.woken.wait()
            except BaseException:  # Ctrl-C
                self._leave(call)
                raise
        if call.batch:
            self._lead(call, run, run_batch)
        if isinstance(call.outcome, Exception):
            raise call.outcome
        assert call.outcome is not None
        return call.outcome

    def _lead(self, leader: _Call[Item, Result], run: Work[Item, Result], run_batch: Work[Item, Result]) -> None:
        try:
            if len(leader.batch) > 1:
                self._share(leader.batch, run_batch)
            if leader.outcome is None:
                leader.outcome = _attempt(run, leader.items)
            for call in leader.batch[1:]:
                if call.outcome is None:
                    call.outcome = _attempt(run_batch, call.items)
                    call.woken.set()
        finally:
            # After a KeyboardInterrupt, calls without an outcome wait again, before the calls that arrived later.
            self._pass_on([call for call in leader.batch if call.outcome is None and call is not leader])

    def _share(self, batch: list[_Call[Item, Result]], run_batch: Work[Item, Result]) -> None:
        """Give every call of a batch its results, or none of them when the batch fails."""
        try:
            results = list(run_batch([item for call in batch for item in call.items]))
        except Exception:
            return
        start = 0
        for call in batch:
            call.outcome = results[start : start + len(call.items)]
            start += len(call.items)
            call.woken.set()

    def _pass_on(self, first: list[_Call[Item, Result]]) -> None:
        """End a run, and make the first waiting call lead the next one, with all calls that may share its batch."""
        with self._lock:
            self._waiting[:0] = first
            if not self._waiting:
                self._busy = False
                return
            leader = self._waiting[0]
            size, most = 0, leader.most
            for call in self._waiting:
                least = min(most, call.most)
                if call is leader or (call.key == leader.key and size + len(call.items) <= least):
                    leader.batch.append(call)
                    size, most = size + len(call.items), least
            self._waiting = [call for call in self._waiting if call not in leader.batch]
            leader.woken.set()

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Withdraw a call whose thread ends."""
        with self._lock:
            if call in self._waiting:
                self._waiting.remove(call)
                return
            others = call.batch[1:]
        if call.batch:  # it became the leader at the same moment
            self._pass_on(others)

    def _reset(self) -> None:
        self._lock, self._waiting, self._busy = threading.Lock(), [], False


def _attempt(work: Work[Item, Result], items: Sequence[Item]) -> list[Result] | Exception:
    try:
        return list(work(items))
    except Exception as error:
        return error


_living: weakref.WeakSet[Coalescer[Any, Any]] = weakref.WeakSet()


def _after_fork() -> None:
    """Reset every coalescer in a forked child: the threads that ran batches were not copied."""
    for one in list(_living):
        one._reset()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
