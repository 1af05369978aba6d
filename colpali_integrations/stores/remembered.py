"""Facts about a store elsewhere that are remembered for a while, so that a search need not ask for them first."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["REMEMBERED_SECONDS", "KnownSize", "KnownWords"]

REMEMBERED_SECONDS = 60.0
"""How long the answer of a server counts, before it is asked again what other processes have changed."""


class KnownSize:
    """The number of points of a store, as far as it is known without asking.

    What this process writes counts at once; what others write, after `REMEMBERED_SECONDS` at the latest.

    Args:
        count: asks the store for its number of points.
        clock: returns seconds.

    Example:
        >>> asked = []
        >>> size = KnownSize(lambda: asked.append(1) or 990)
        >>> size.holds_more_than(1000), size.holds_more_than(1000), len(asked)
        (False, False, 1)
        >>> size.added(20)
        >>> size.holds_more_than(1000), len(asked)
        (False, 2)
    """

    def __init__(self, count: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._count, self._clock = count, clock
        # The least and the most that it may be, and since when. Replaced as a whole: threads share it.
        self._known: tuple[int, int, float] | None = None

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that; asks only where it is not known."""
        known = self._known
        if known is None or self._clock() - known[2] >= REMEMBERED_SECONDS or known[0] <= number < known[1]:
            since, counted = self._clock(), self._count()
            self._known = known = (counted, counted, since)
        return known[0] > number

    def added(self, number: int) -> None:
        """Note that so many points were written; some may have replaced others."""
        if (known := self._known) is not None:
            self._known = (known[0], known[1] + number, known[2])

    def removed(self, number: int) -> None:
        """Note that at most so many points were removed."""
        if (known := self._known) is not None:
            self._known = (max(0, known[0] - number), known[1], known[2])


class KnownWords:
    """Whether a store has words: a yes is remembered, a no is not.

    Args:
        ask: asks the store.
        clock: returns seconds.

    Example:
        >>> asked = []
        >>> words = KnownWords(lambda: asked.append(1) or len(asked) > 1)
        >>> words.has(), words.has(), words.has(), len(asked)
        (False, True, True, 2)
    """

    def __init__(self, ask: Callable[[], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._clock = ask, clock
        self._since: float | None = None

    def has(self) -> bool:
        """Whether any point has words."""
        since = self._since
        if since is not None and self._clock() - since < REMEMBERED_SECONDS:
            return True
        now = self._clock()
        self._since = now if self._ask() else None
        return self._since is not None

    def forget(self) -> None:
        """Ask again the next time: points were removed or replaced."""
        self._since = None
