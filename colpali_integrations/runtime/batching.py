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

import itertools
import threading
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from colpali_integrations._forks import renew_after_forks

__all__ = ["Coalescer"]

Item = TypeVar("Item")
Result = TypeVar("Result")
Work: TypeAlias = Callable[[Sequence[Item]], Sequence[Result]]


@dataclass(eq=False)
class _Call(Generic[Item, Result]):
    """A call that waits or runs.

    Attributes:
        key: calls of equal key may share a batch.
        items: the items of the call.
        most: maximum number of items in a shared batch.
        changed: wakes its thread, and no other of those that wait.
        outcome: the results or the error; None until the call has run.
    """

    key: Hashable
    items: Sequence[Item]
    most: int
    changed: threading.Condition
    outcome: list[Result] | Exception | None = None


class Coalescer(Generic[Item, Result]):
    """Runs one batch at a time: all calls of equal key that wait when it begins. Any thread may call it."""

    def __init__(self) -> None:
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        self._lock = threading.RLock()
        self._waiting: list[_Call[Item, Result]] = []
        self._busy = False

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
        call: _Call[Item, Result] = _Call(key, items, most, threading.Condition(self._lock))
        with self._lock:
            self._waiting.append(call)
            try:
                call.changed.wait_for(lambda: call.outcome is not None or (not self._busy and self._waiting[0] is call))
            except BaseException:  # Ctrl-C
                self._leave(call)
                raise
            batch = self._take() if call.outcome is None else []
        if batch:
            self._run(batch, run, run_batch)
        if isinstance(call.outcome, Exception):
            raise call.outcome
        assert call.outcome is not None
        return call.outcome

    def _take(self) -> list[_Call[Item, Result]]:
        """Begin a batch: the call that waits longest, and all calls that may share its run."""
        leader = self._waiting[0]
        batch, size, most = [leader], len(leader.items), leader.most
        for call in self._waiting[1:]:
            least = min(most, call.most)
            if call.key == leader.key and size + len(call.items) <= least:
                batch.append(call)
                size, most = size + len(call.items), least
        self._waiting = [call for call in self._waiting if call not in batch]
        self._busy = True
        return batch

    def _run(self, batch: list[_Call[Item, Result]], run: Work[Item, Result], run_batch: Work[Item, Result]) -> None:
        """Run the calls of a batch together, or one by one when that fails."""
        try:
            if len(batch) > 1:
                with suppress(Exception):
                    results = iter(list(run_batch([item for call in batch for item in call.items])))
                    for call in batch:
                        call.outcome = list(itertools.islice(results, len(call.items)))
            for call in batch:
                if call.outcome is None:
                    try:
                        call.outcome = list((run if call is batch[0] else run_batch)(call.items))
                    except Exception as error:
                        call.outcome = error
                    with self._lock:
                        call.changed.notify()
        finally:
            with self._lock:
                # After a KeyboardInterrupt, calls without an outcome wait again, before the calls that arrived later.
                self._waiting[:0] = [call for call in batch[1:] if call.outcome is None]
                self._busy = False
                for call in batch[1:]:
                    call.changed.notify()
                self._wake_next()

    def _leave(self, call: _Call[Item, Result]) -> None:
        """Withdraw a call whose thread ends."""
        with self._lock:
            call.outcome = []
            self._waiting = [other for other in self._waiting if other is not call]
            call.changed.notify()
            self._wake_next()

    def _wake_next(self) -> None:
        """Let the call that waits longest lead the next batch. The caller holds the lock."""
        if self._waiting and not self._busy:
            self._waiting[0].changed.notify()
