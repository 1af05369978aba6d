"""Several batches on their way to an engine at once."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Generic, TypeVar

__all__ = ["Flights"]

_SLICE = 0.2  # seconds

Batch = TypeVar("Batch", bound="Mapping[str, object]")


class Flights(Generic[Batch]):
    """Sends batches in threads, and settles each in the caller's thread, in their order.

    Two batches with an id in common are never on their way at once: the later one counts.

    Args:
        send: sends a batch; runs in a copy of the caller's context.
        most: the most batches on their way; with 1 they are sent by the caller's own thread.
        settle: called with a sent batch, and the error that it ended in, which it may raise.

    Example:
        >>> sent = []
        >>> flights = Flights(lambda batch: sent.extend(batch), 2, lambda batch, error: None)
        >>> for name in "abc":
        ...     flights.start({name: 1})
        >>> flights.finish()
        >>> sorted(sent)
        ['a', 'b', 'c']
    """

    def __init__(
        self,
        send: Callable[[Batch], object],
        most: int,
        settle: Callable[[Batch, BaseException | None], object],
    ) -> None:
        self._send, self._most, self._settle = send, most, settle
        self._pool = ThreadPoolExecutor(most, "colpali-adding") if most > 1 else None
        self._flying: deque[tuple[Future[object], Batch]] = deque()

    def start(self, batch: Batch) -> None:
        """Send a batch, once there is room for it.

        Raises:
            Exception: of `settle`, about an earlier batch; this one is not sent then.
        """
        if self._pool is None:
            self._settle(batch, _error_of(lambda: self._send(batch)))
            return
        while self._flying and (len(self._flying) >= self._most or self._shares_ids(batch)):
            self._land()
        context = contextvars.copy_context()
        self._flying.append((self._pool.submit(context.run, self._send, batch), batch))

    def finish(self) -> None:
        """Wait until all batches are settled, and release the threads.

        Raises:
            Exception: the first one of `settle`; the batches after it are settled all the same.
        """
        errors = []
        while self._flying:
            errors.append(_error_of(self._land))
        if self._pool is not None:
            self._pool.shutdown()
        _raise_first(errors)

    def _land(self) -> None:
        future, batch = self._flying[0]
        # In slices, because a signal that comes just before a wait without an end is seen after the wait only.
        while not future.done():
            wait([future], timeout=_SLICE)
        self._flying.popleft()  # not before: an interruption leaves the batch to `finish`
        self._settle(batch, future.exception())

    def _shares_ids(self, batch: Batch) -> bool:
        return any(not batch.keys().isdisjoint(other) for _, other in self._flying)


def _raise_first(errors: Iterable[BaseException | None]) -> None:
    if (first := next(filter(None, errors), None)) is not None:
        raise first


def _error_of(work: Callable[[], object]) -> BaseException | None:
    try:
        work()
    except Exception as error:
        return error
    return None
