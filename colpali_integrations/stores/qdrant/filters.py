"""Translation of filters to Qdrant's, with the meaning of `filters.matches`.

Qdrant evaluates the conditions that it can express with exactly that meaning: equality of text, numbers and bools, sets
of these, ranges of numbers, substrings, existence, ids. This module evaluates the rest (text ranges, case-insensitive
text, numbers beyond 2^53, keys with a quote in them): it reads the payloads of the points that fit the native part, and
those that fit the rest become a set of ids. Measured on the local mode of qdrant-client 1.20:

- A key of the payload in quotes is taken literally; one that contains a quote or a backslash cannot be written.
- Qdrant compares numbers as float64, so only numbers below 2^53 differ reliably from their neighbours. Its integer
  equality misses 3.0, hence a range from 3 to 3.
- `IsEmpty` is "missing, null or an empty list": exactly the opposite of `$exists`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cached_property
from hashlib import sha1
from typing import Any, TypeAlias

from colpali_integrations.stores.entries import id_of
from colpali_integrations.stores.filters import ID, RESERVED, And, Condition, Filter, Not, Operator, Or, matches

__all__ = ["CLIENT", "ClientDialect", "Payloads", "point_id", "translate"]

Payloads: TypeAlias = "Callable[[Any], Iterable[Mapping[str, Any]]]"
"""A function that reads the payloads (reserved fields and metadata) that fit a Qdrant filter; None reads all."""

_IDS = uuid.UUID("6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90")
_EXACT = 2**53
_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}


class ClientDialect:
    """The conditions of qdrant-client. `key` is a path into the payload.

    Args:
        substring: whether the server has the substring match: Qdrant 1.20 and later.
    """

    def __init__(self, *, substring: bool = False) -> None:
        self._has_substring = substring

    @cached_property
    def _library(self) -> Any:
        from qdrant_client import models

        return models

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        return self._library.IsEmptyCondition(is_empty=self._library.PayloadField(key=key))

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        return self._library.FieldCondition(key=key, match=self._library.MatchValue(value=value))

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts; there is at least one."""
        return self._library.FieldCondition(key=key, match=self._library.MatchAny(any=list(texts)))

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds named gt, gte, lt and lte."""
        return self._library.FieldCondition(key=key, range=self._library.Range(**bounds))

    def substring(self, key: str, text: str) -> Any | None:
        """Text that contains another; None for servers before 1.20."""
        if not self._has_substring:
            return None
        return self._library.FieldCondition(key=key, match=self._library.MatchSubstring(substring=text))

    def ids(self, ids: Collection[str]) -> Any:
        """These points; none of them for an empty collection."""
        return self._library.HasIdCondition(has_id=list(ids))

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """All of `must`, one of `should` if there are any, and none of `must_not`."""
        return self._library.Filter(must=list(must), should=list(should) or None, must_not=list(must_not))


CLIENT = ClientDialect()


def point_id(id_: str) -> str:
    """Qdrant's id of a point: it takes UUIDs and integers, so any string is hashed to a UUID (version 5).

    >>> point_id("report.pdf, page 7")
    'c9865ec8-38e7-549e-8b9c-13aa75869825'
    """
    # As uuid.uuid5, which refuses strings with lone surrogates, such as some file names.
    digest = sha1(_IDS.bytes + id_.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def translate(where: Filter, dialect: ClientDialect, payloads: Payloads) -> Any:
    """A filter as a Qdrant filter with the same meaning.

    Args:
        where: the filter.
        dialect: of the server.
        payloads: called at most once for each And, Or and Not with parts that Qdrant cannot express; never for filters
            that it can express as a whole.

    Returns:
        A condition or filter of the dialect's library, fit to stand in a filter's `must`.
    """
    if (native := _native(where, dialect)) is not None:
        return native
    if isinstance(where, Not):
        return dialect.combine(must_not=[translate(where.part, dialect, payloads)])
    if isinstance(where, And | Or):
        conditions = [_native(part, dialect) for part in where.parts]
        native = [one for one in conditions if one is not None]
        rest = type(where)(tuple(part for part, one in zip(where.parts, conditions, strict=True) if one is None))
        if isinstance(where, And):
            return dialect.combine(must=[*native, _resolved(rest, native, dialect, payloads)])
        return dialect.combine(should=[*native, _resolved(rest, [], dialect, payloads)])
    return _resolved(where, [], dialect, payloads)


def _resolved(rest: Filter, must: Sequence[Any], dialect: ClientDialect, payloads: Payloads) -> Any:
    """The ids of the points that fit `rest`, among those that fit all of `must`."""
    needed = [
        dialect.combine(must_not=[dialect.empty(key)])
        for part in (rest.parts if isinstance(rest, And) else (rest,))
        if isinstance(part, Condition)
        and part.op not in (Operator.NE, Operator.NIN, Operator.EXISTS)
        and (key := _key(part.field)) is not None
    ]
    among = dialect.combine(must=[*must, *needed]) if must or needed else None
    return dialect.ids({point_id(id_of(payload)) for payload in payloads(among) if matches(rest, payload)})


def _native(where: Filter, dialect: ClientDialect) -> Any | None:
    """The whole filter in Qdrant's terms; None if Qdrant cannot express a part of it."""
    if isinstance(where, Condition):
        return _condition(where, dialect)
    if isinstance(where, Not):
        part = _native(where.part, dialect)
        return None if part is None else dialect.combine(must_not=[part])
    if not isinstance(where, And | Or):
        return None
    parts = [_native(part, dialect) for part in where.parts]
    if any(part is None for part in parts):
        return None
    return dialect.combine(must=parts) if isinstance(where, And) else _either(parts, dialect)


def _condition(where: Condition, dialect: ClientDialect) -> Any | None:
    key, op = _key(where.field), where.op
    if key is None:
        return None
    value: Any = where.value
    if op is Operator.EXISTS:
        return dialect.combine(must_not=[dialect.empty(key)]) if value else dialect.empty(key)
    if op is Operator.TEXT:
        if not _storable(value):
            return dialect.ids(())
        return dialect.substring(key, value)
    if op is Operator.TEXT_INSENSITIVE:
        return None
    if op in _BOUNDS:
        return dialect.between(key, {_BOUNDS[op]: value}) if _exact(value) else None
    if op is Operator.ALL:
        each = [_one_of(where.field, key, (one,), dialect) for one in value]
        return None if any(one is None for one in each) else dialect.combine(must=each)
    condition = _one_of(where.field, key, value if isinstance(value, tuple) else (value,), dialect)
    if condition is None or op not in (Operator.NE, Operator.NIN):
        return condition
    return dialect.combine(must_not=[condition])


def _one_of(field: str, key: str, values: tuple[Any, ...], dialect: ClientDialect) -> Any | None:
    """The field holds one of the values."""
    texts = [value for value in values if isinstance(value, str) and _storable(value)]
    if field == ID:
        return dialect.ids({point_id(text) for text in texts})
    numbers = [value for value in values if not isinstance(value, str | bool)]
    if not all(map(_exact, numbers)):
        return None
    conditions = [dialect.one_of(key, texts)] if texts else []
    conditions += [dialect.equals(key, value) for value in values if isinstance(value, bool)]
    conditions += [dialect.between(key, {"gte": number, "lte": number}) for number in numbers]
    return _either(conditions, dialect)


def _either(parts: Sequence[Any], dialect: ClientDialect) -> Any:
    """One of the parts; nothing, for no parts."""
    return dialect.combine(should=parts) if parts else dialect.ids(())


def _key(field: str) -> str | None:
    """The path to a field within the payload; None if the path cannot be written."""
    if field in RESERVED:
        return RESERVED[field]
    return None if '"' in field or "\\" in field or not _storable(field) else f'metadata."{field}"'


def _storable(text: str) -> bool:
    """Whether Qdrant can store this text: it must not contain halves of surrogate pairs."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _exact(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _EXACT
