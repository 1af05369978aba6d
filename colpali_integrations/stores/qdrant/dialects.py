"""Qdrant's conditions, spelled for its embedded engine and for its client, which have classes of their own."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import numpy as np

__all__ = ["CLIENT", "EDGE", "ClientDialect", "Dialect", "EdgeDialect"]


class Dialect(Protocol):
    """The conditions of one Qdrant library. `key` is a path into the payload."""

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        ...

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        ...

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts; there is at least one."""
        ...

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds named gt, gte, lt and lte."""
        ...

    def substring(self, key: str, text: str) -> Any | None:
        """Text that contains another; None where the engine does not know such a condition."""
        ...

    def ids(self, ids: Collection[str]) -> Any:
        """These points; none of them for an empty collection."""
        ...

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """All of `must`, one of `should` if there are any, and none of `must_not`."""
        ...


class EdgeDialect:
    """The conditions of qdrant-edge-py."""

    @cached_property
    def _edge(self) -> Any:
        import qdrant_edge

        return qdrant_edge

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        return self._edge.IsEmptyCondition(key)

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        # Python's True is taken for the integer 1 (qdrant-edge-py 0.9.0); numpy's stays a bool.
        return self._edge.FieldCondition(key=key, match=self._edge.MatchValue(np.bool_(value)))

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts."""
        return self._edge.FieldCondition(key=key, match=self._edge.MatchAny(list(texts)))

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds."""
        return self._edge.FieldCondition(key=key, range=self._edge.RangeFloat(**bounds))

    def substring(self, key: str, text: str) -> Any:
        """Text that contains another."""
        return self._edge.FieldCondition(key=key, match=self._edge.MatchSubstring(text))

    def ids(self, ids: Collection[str]) -> Any:
        """These points."""
        return self._edge.HasIdCondition(set(ids))

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """All of `must`, one of `should` if there are any, and none of `must_not`."""
        return self._edge.Filter(must=list(must), should=list(should) or None, must_not=list(must_not))


class ClientDialect:
    """The conditions of qdrant-client.

    Args:
        substring: whether the server knows the substring match: Qdrant 1.20 and later do.
    """

    def __init__(self, *, substring: bool = False) -> None:
        self._knows_substring = substring

    @cached_property
    def _models(self) -> Any:
        from qdrant_client import models

        return models

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=key))

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        return self._models.FieldCondition(key=key, match=self._models.MatchValue(value=value))

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts."""
        return self._models.FieldCondition(key=key, match=self._models.MatchAny(any=list(texts)))

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds."""
        return self._models.FieldCondition(key=key, range=self._models.Range(**bounds))

    def substring(self, key: str, text: str) -> Any | None:
        """Text that contains another; None for servers before 1.20."""
        if not self._knows_substring:
            return None
        return self._models.FieldCondition(key=key, match=self._models.MatchSubstring(substring=text))

    def ids(self, ids: Collection[str]) -> Any:
        """These points."""
        return self._models.HasIdCondition(has_id=list(ids))

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """All of `must`, one of `should` if there are any, and none of `must_not`."""
        return self._models.Filter(must=list(must), should=list(should) or None, must_not=list(must_not))


EDGE = EdgeDialect()
CLIENT = ClientDialect()
