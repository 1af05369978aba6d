"""Errors about entries that a store refuses while it takes others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from colpali_integrations._text import number
from colpali_integrations.errors import StoreError

__all__ = ["PointsRefusedError", "RefusedError", "all_refused"]

_NAMED = 10  # entries in a message


class RefusedError(StoreError):
    """A store refuses an entry, and takes others."""


class PointsRefusedError(RefusedError):
    """An engine refused some points of a batch, after it had stored the others.

    Attributes:
        errors: the reasons, by id.
    """

    def __init__(self, message: str = "", errors: Mapping[str, StoreError] | None = None) -> None:
        super().__init__(message)
        self.errors = dict(errors or {})

    @classmethod
    def of(cls, errors: Mapping[str, StoreError]) -> PointsRefusedError:
        """The error about several points; its message is that of the first one."""
        return cls(str(next(iter(errors.values())).args[0]), errors)


def all_refused(refused: Sequence[tuple[str, StoreError]], stored: int) -> RefusedError:
    """The error about all entries that a store has refused: the reason of the first one, and the names of the others.

    Args:
        refused: at least one, by name.
        stored: number of the other entries, which are stored.

    Example:
        >>> reason = StoreError("a: it is too large")
        >>> print(all_refused([("a", reason), ("b", reason)], 3))
        a: it is too large. 1 more entry was refused: b. 3 other entries are stored
    """
    (_, error), *others = refused
    message = str(error.args[0])
    if others:
        names = ", ".join(name for name, _ in others[:_NAMED]) + (", ..." if len(others) > _NAMED else "")
        message += f". {number(len(others), 'more entry was', 'more entries were')} refused: {names}"
    if stored:
        message += f". {number(stored, 'other entry is', 'other entries are')} stored"
    made = RefusedError(message)
    made.__cause__ = error.__cause__
    return made
