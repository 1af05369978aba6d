"""Filters as Qdrant's own, for its engine in this process and for its servers, with the meaning of `filters.matches`.

What Qdrant expresses with exactly that meaning is left to it: equality of text, numbers and bools, sets of these,
ranges of numbers, substrings, existence, ids. The rest (text ranges, case-insensitive text, numbers beyond 2^53, keys
with a quote in them) is decided here: the payloads of the points that fit the native part are read, and those that fit
the rest become a set of ids. Measured on qdrant-edge-py 0.9.0 and the local mode of qdrant-client 1.20:

- A key of the payload in quotes is taken literally; one that contains a quote or a backslash cannot be written.
- Qdrant compares numbers as float64, so that only numbers below 2^53 are sure to be told from their neighbours. Its
  integer equality misses 3.0, hence a range from 3 to 3.
- `IsEmpty` is "missing, null or an empty list": exactly the opposite of `$exists`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha1
from typing import Any, TypeAlias

from colpali_integrations.stores.filters import ID, RESERVED, And, Condition, Filter, Not, Operator, Or, matches
from colpali_integrations.stores.qdrant.dialects import CLIENT, EDGE, ClientDialect, Dialect, EdgeDialect

__all__ = ["CLIENT", "EDGE", "ClientDialect", "Dialect", "EdgeDialect", "Payloads", "point_id", "translate"]

Payloads: TypeAlias = "Callable[[Any], Iterable[Mapping[str, Any]]]"
"""Given a Qdrant filter, or None for all points: the payloads (reserved fields and metadata) that fit it."""

_IDS = uuid.UUID("6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90")
_EXACT = 2**53
_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}


def point_id(id_: str) -> str:
    """Qdrant's id of a point: it takes UUIDs and integers, so any string is hashed to a UUID (version 5).

    >>> point_id("report.pdf, page 7")
    'c9865ec8-38e7-549e-8b9c-13aa75869825'
    """
    # As uuid.uuid5, which refuses strings that are no Unicode, such as some file names.
    digest = sha1(_IDS.bytes + id_.encode("utf-8", "surrogatepass"), usedforsecurity=False).digest()
    return str(uuid.UUID(bytes=digest[:16], version=5))


def translate(where: Filter, dialect: Dialect, payloads: Payloads) -> Any:
    """A filter as a Qdrant filter with the same meaning.

    Args:
        where: the filter.
        dialect: `EDGE`, or a `ClientDialect`.
        payloads: asked at most once for each of the places where an And, an Or or a Not has parts that Qdrant cannot
            express; never for filters that it can express whole.

    Returns:
        A condition or filter of the dialect's library, fit to stand in a filter's `must`.
    """
    if (found := _native(where, dialect)) is not None:
        return found
    if isinstance(where, Not):
        return dialect.combine(must_not=[translate(where.part, dialect, payloads)])
    if isinstance(where, And):
        fitting = [_native(part, dialect) for part in where.parts]
        must = [one for one in fitting if one is not None]
        rest = And(tuple(part for part, one in zip(where.parts, fitting, strict=True) if one is None))
        return dialect.combine(must=[*must, _resolved(rest, must, dialect, payloads)])
    if isinstance(where, Or):
        fitting = [_native(part, dialect) for part in where.parts]
        should = [one for one in fitting if one is not None]
        others = Or(tuple(part for part, one in zip(where.parts, fitting, strict=True) if one is None))
        return dialect.combine(should=[*should, _resolved(others, [], dialect, payloads)])
    return _resolved(where, [], dialect, payloads)


def _resolved(rest: Filter, must: Sequence[Any], dialect: Dialect, payloads: Payloads) -> Any:
    """The ids of what fits `rest`, among what fits all of `must`."""
    needed = [
        dialect.combine(must_not=[dialect.empty(key)])
        for part in (rest.parts if isinstance(rest, And) else (rest,))
        if isinstance(part, Condition)
        and part.op not in (Operator.NE, Operator.NIN, Operator.EXISTS)
        and (key := _key(part.field)) is not None
    ]
    among = dialect.combine(must=[*must, *needed]) if must or needed else None
    return dialect.ids({point_id(payload["id"]) for payload in payloads(among) if matches(rest, payload)})


def _native(where: Filter, dialect: Dialect) -> Any | None:
    """The whole filter in Qdrant's own terms; None if a part of it has none."""
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


def _condition(where: Condition, dialect: Dialect) -> Any | None:
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
    found = _one_of(where.field, key, value if isinstance(value, tuple) else (value,), dialect)
    if found is None or op not in (Operator.NE, Operator.NIN):
        return found
    return dialect.combine(must_not=[found])


def _one_of(field: str, key: str, values: tuple[Any, ...], dialect: Dialect) -> Any | None:
    """The field holds one of the values."""
    texts = [value for value in values if isinstance(value, str) and _storable(value)]
    if field == ID:
        return dialect.ids({point_id(text) for text in texts})
    numbers = [value for value in values if not isinstance(value, str | bool)]
    if not all(map(_exact, numbers)):
        return None
    found = [dialect.one_of(key, texts)] if texts else []
    found += [dialect.equals(key, value) for value in values if isinstance(value, bool)]
    found += [dialect.between(key, {"gte": number, "lte": number}) for number in numbers]
    return _either(found, dialect)


def _either(parts: Sequence[Any], dialect: Dialect) -> Any:
    """One of the parts; nothing, for no parts."""
    return dialect.combine(should=parts) if parts else dialect.ids(())


def _key(field: str) -> str | None:
    """The path to a field within the payload; None if it cannot be written."""
    if field in RESERVED:
        return RESERVED[field]
    return None if '"' in field or "\\" in field or not _storable(field) else f'metadata."{field}"'


def _storable(text: str) -> bool:
    """Whether Qdrant can hold this text: halves of a surrogate pair are no Unicode."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _exact(value: Any) -> bool:
    return isinstance(value, int | float) and abs(value) < _EXACT
