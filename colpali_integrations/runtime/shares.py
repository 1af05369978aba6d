"""Cores shared among runs: a run waits until as many are free as it has threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from colpali_integrations._forks import renew_after_forks

__all__ = ["Shares"]


class Shares:
    """A number of cores, which callers hold in the order in which they ask, so that no small run overtakes a large one.

    Args:
        total: number of cores.

    Example:
        >>> cores = Shares(4)
        >>> with cores.hold(3), cores.hold(1):
        ...     cores.free
        0
        >>> with cores.hold(9):  # as many as there are
        ...     cores.free
        0
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[object] = deque()
        self._held = 0

    @property
    def free(self) -> int:
        """Number of cores that no caller holds."""
        return self.total - self._held

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """Hold `count` cores, or all if there are fewer, once the callers before have theirs."""
        count, mine = min(count, self.total), object()
        with self._changed:
            self._waiting.append(mine)
            try:
                self._changed.wait_for(lambda: self._waiting[0] is mine and self.free >= count)
                self._held += count
            finally:
                self._waiting.remove(mine)
                self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()
