"""A value that threads share, made at first use."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from colpali_integrations._forks import keep_for_ever, renew_after_forks

__all__ = ["Once"]

T = TypeVar("T")


class Once(Generic[T]):
    """A value that is made once, at first use, even by concurrent threads."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._values: list[T] = []
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        for value in self._values:
            keep_for_ever(value)
        self._lock = threading.Lock()
        self._values = []
        self._used = False

    def get(self) -> T:
        """The value, to use it."""
        self._used = True
        return self.load()

    def load(self) -> T:
        """Make the value."""
        for value in self._values:  # without the lock where it was made before
            return value
        with self._lock:
            if not self._values:
                self._values = [self._make()]
            return self._values[0]

    def clear(self) -> None:
        """Release the value; the next use makes it again."""
        with self._lock:
            self._values = []
            self._used = False

    def release_unused(self) -> None:
        """Release a value that was made and never used."""
        if self._values and not self._used:
            self.clear()
