"""A clock that passes only where the retries wait."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, Lock


class FakeClock:
    """A clock for `retries.CLOCK`.

    Attributes:
        time: seconds that have passed.
        waits: the length of each wait.
        then: called after each wait, with the time, such as to bring a server back.
    """

    def __init__(self) -> None:
        self.time = 0.0
        self.waits: list[float] = []
        self.then: Callable[[float], object] = lambda _: None
        self._lock = Lock()

    def now(self) -> float:
        return self.time

    def wait(self, seconds: float, stop: Event | None) -> bool:
        with self._lock:
            self.time += seconds
            self.waits.append(seconds)
        self.then(self.time)
        return stop is not None and stop.is_set()
