"""Errors about entries that a store refuses while it takes others."""

from __future__ import annotations

from collections.abc import Mapping

from colpali_integrations.errors import StoreError

__all__ = ["PointsRefusedError", "RefusedError"]


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
