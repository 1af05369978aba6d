"""Translation of filters to Qdrant's, with the meaning of `filters.matches`.

Qdrant evaluates the conditions that it can express with exactly that meaning: equality of text, numbers and bools, sets
of these, ranges of numbers, substrings, existence, ids. This module evaluates the rest (text ranges, case-insensitive
text, numbers beyond 2^53, keys with a quote in them): it reads the payloads of the points that fit the native part, and
those that fit the rest become a set of ids. Measured on the local mode of qdrant-client 1.20:

- A key of the payload in quotes is taken literally; one that contains a quote or a backslash cannot be written.
- Qdrant compares numbers as float64, so only numbers below 2^53 differ reliably from their neighbours. Its integer
  equality misses 3.0, hence a range from 3 to 3.
- `IsEmpty` is "missing, null or an empty list": exactly the opposite of `$exists`.

Where the server has an index of a field's texts, texts that contain another are chosen among its distinct values, which
are far fewer than points. Sets of many numbers take a range each, and without an index the server compares every point
with all of them (1.6 s for 500 numbers and 3,000 points): they are looked up in the payloads of the points in between.

A collection in strict mode refuses conditions on fields without an index of their kind, which are evaluated here too
(see `indexes`), and may limit the values of a condition. An index of dates narrows the points whose texts are compared.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import cached_property
from hashlib import sha1
from typing import Any, Protocol, TypeAlias, TypeVar

from colpali_integrations._text import is_unicode
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.entries import id_of
from colpali_integrations.stores.filters import ID, RESERVED, And, Condition, Filter, Not, Operator, Or, matches

__all__ = [
    *("CLIENT", "ClientDialect", "Payloads", "Served", "is_exact", "point_id", "storable_path"),
    "translate",
]

Payloads: TypeAlias = Callable[[Any], Iterable[Mapping[str, Any]]]
"""A function that reads the payloads (reserved fields and metadata) that fit a Qdrant filter; None reads all."""

_Value = TypeVar("_Value", bound="str | int")
_IDS = uuid.UUID("6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90")
_EXACT = 2**53
_MOST_RANGES = 32  # of a set of numbers in a field without an index
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_MARGIN = timedelta(days=3)  # a day of the date itself, and two
_EQUAL = (Operator.EQ, Operator.CONTAINS)
_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}


class Served(Protocol):
    """The conditions that a collection takes, by the indexes of its fields: `indexes.Indexes`."""

    def serves(self, key: str, kind: str) -> bool:
        """Whether conditions of a kind on a field are taken, if need be after its index has been made."""

    def has(self, key: str, kind: str) -> bool:
        """Whether they are taken as it is."""

    def kind(self, key: str) -> str | None:
        """The kind of a field's index."""


class ClientDialect:
    """The conditions of qdrant-client. `key` is a path into the payload.

    Args:
        substring: whether the server has the substring match: Qdrant 1.20 and later.
        values: the distinct texts of a field, by its key; None where they are not known, or too many.
        numbers: the keys of the fields with an index of numbers.
        served: the conditions that the collection takes; None for all.
        most: the most values of a condition; None for any number.
    """

    mapped: Collection[str] = ()
    """Fields whose conditions are made by `mapped_condition`."""

    def __init__(
        self,
        *,
        substring: bool = False,
        values: Callable[[str], Collection[str] | None] | None = None,
        numbers: Collection[str] = (),
        served: Served | None = None,
        most: int | None = None,
    ) -> None:
        self._served, self._most = served, most
        self._has_substring, self._values, self._numbers = substring, values, numbers

    def key(self, field: str) -> str | None:
        """The path to a field within the payload; None if the path cannot be written."""
        if field in RESERVED:
            return RESERVED[field]
        return f'metadata."{field}"' if storable_path(field) else None

    def point(self, id_: str) -> str | int:
        """The server's id of an entry's point."""
        return point_id(id_)

    def mapped_condition(self, where: Condition) -> Any | None:
        """A condition on one of `mapped`; None if Qdrant cannot express it."""
        return None

    @cached_property
    def _library(self) -> Any:
        from qdrant_client import models

        return models

    def serves(self, key: str, kind: str, *, make: bool = True) -> bool:
        """Whether the collection takes conditions on a field; see `Indexes.serves`, or `has` if not to `make` any."""
        if self._served is None:
            return True
        return self._served.serves(key, kind) if make else self._served.has(key, kind)

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        return self._library.IsEmptyCondition(is_empty=self._library.PayloadField(key=key))

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        return self._library.FieldCondition(key=key, match=self._library.MatchValue(value=value))

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts; there is at least one."""
        return self._several(
            texts, lambda some: self._library.FieldCondition(key=key, match=self._library.MatchAny(any=some))
        )

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds named gt, gte, lt and lte."""
        return self._library.FieldCondition(key=key, range=self._library.Range(**bounds))

    def substring(self, key: str, text: str) -> Any | None:
        """Text that contains another; None for servers before 1.20."""
        if not self._has_substring:
            return None
        return self._library.FieldCondition(key=key, match=self._library.MatchSubstring(substring=text))

    def values(self, key: str) -> Collection[str] | None:
        """The distinct texts of a field, where the server has an index of them."""
        return None if self._values is None else self._values(key)

    def ranges(self, key: str, count: int) -> bool:
        """Whether a set of so many numbers is compared by the server."""
        indexed = key in self._numbers or (self._served is not None and self._served.kind(key) == "number")
        return count <= _MOST_RANGES or indexed

    def dates(self, key: str, bounds: Mapping[str, datetime]) -> Any | None:
        """Dates within bounds named gt, gte, lt and lte; None where the server has no index of the field's dates."""
        if self._served is None or self._served.kind(key) != "datetime":
            return None
        return self._library.FieldCondition(key=key, range=self._library.DatetimeRange(**bounds))

    def ids(self, ids: Collection[str | int]) -> Any:
        """These points; none of them for an empty collection."""
        return self._several(ids, lambda some: self._library.HasIdCondition(has_id=some))

    def combine(self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()) -> Any:
        """All of `must`, one of `should` if there are any, and none of `must_not`."""
        return self._library.Filter(must=list(must), should=list(should) or None, must_not=list(must_not))

    def _several(self, values: Collection[_Value], condition: Callable[[list[_Value]], Any]) -> Any:
        """One of the values, by as many conditions as the collection wants."""
        if self._most is None or len(values) <= self._most:
            return condition(list(values))
        return self.combine(should=[condition(some) for some in pieces(values, self._most)])


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
    if isinstance(where, Condition) and where.op is Operator.NIN:
        inner = Condition(where.field, Operator.IN, where.value)
        return dialect.combine(must_not=[translate(inner, dialect, payloads)])
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
        _candidates(part, key, dialect)
        for part in (rest.parts if isinstance(rest, And) else (rest,))
        if isinstance(part, Condition)
        and part.op not in (Operator.NE, Operator.NIN, Operator.EXISTS)
        and (key := dialect.key(part.field)) is not None
        and dialect.serves(key, "any", make=False)
    ]
    among = dialect.combine(must=[*must, *needed]) if must or needed else None
    return dialect.ids({dialect.point(id_of(payload)) for payload in payloads(among) if matches(rest, payload)})


def _candidates(part: Condition, key: str, dialect: ClientDialect) -> Any:
    """The points that may fit a condition on a field, of those conditions that need the field."""
    values = part.value if isinstance(part.value, tuple) else (part.value,)
    is_range = part.op in (Operator.IN, Operator.ANY) and part.field not in dialect.mapped
    if is_range and values and all(map(_is_exact_number, values)):
        if dialect.serves(key, "number", make=False):
            return dialect.between(key, {"gte": min(values), "lte": max(values)})
    elif part.field not in dialect.mapped and (dates := _near(part, key, dialect)):
        return dates
    return dialect.combine(must_not=[dialect.empty(key)])


def _near(where: Condition, key: str, dialect: ClientDialect) -> Any | None:
    """The points whose date may fit a comparison with a date, by the server's index of dates.

    Stores compare texts, and the server compares instants: offsets and ways to write a time make a difference of less
    than two days.
    """
    value = where.value
    if not isinstance(value, str) or not _DATE.match(value):
        return None
    try:
        day = datetime.fromisoformat(value[:10]).replace(tzinfo=timezone.utc)
        lowest, highest = day - _MARGIN, day + _MARGIN
    except (ValueError, OverflowError):
        return None
    if where.op in (Operator.GT, Operator.GTE):
        return dialect.dates(key, {"gte": lowest})
    if where.op in (Operator.LT, Operator.LTE):
        return dialect.dates(key, {"lte": highest})
    return dialect.dates(key, {"gte": lowest, "lte": highest}) if where.op in _EQUAL else None


def _native(where: Filter, dialect: ClientDialect) -> Any | None:
    """The whole filter in Qdrant's terms; None if Qdrant cannot express a part of it."""
    if isinstance(where, Condition):
        return _condition(where, dialect)
    if isinstance(where, Or):
        either = _natives(where.parts, dialect)
        return None if either is None else _either(either, dialect)
    if not isinstance(where, And | Not):
        return None
    # One filter for the conditions and their negations: servers read 128 levels of JSON.
    parts = where.parts if isinstance(where, And) else (where,)
    must = _natives([part for part in parts if not isinstance(part, Not)], dialect)
    negated = [part.part for part in parts if isinstance(part, Not)]
    must_not = _natives([one for part in negated for one in (part.parts if isinstance(part, Or) else [part])], dialect)
    return None if must is None or must_not is None else dialect.combine(must=must, must_not=must_not)


def _natives(parts: Iterable[Filter], dialect: ClientDialect) -> list[Any] | None:
    """Several filters in Qdrant's terms; None if Qdrant cannot express a part of one."""
    found = [_native(part, dialect) for part in parts]
    return None if any(one is None for one in found) else found


def _condition(where: Condition, dialect: ClientDialect) -> Any | None:
    if where.field in dialect.mapped:
        return dialect.mapped_condition(where)
    key, op = dialect.key(where.field), where.op
    if key is None:
        return None
    value: Any = where.value
    if op is Operator.EXISTS and where.field == ID:  # all points have one
        return dialect.combine() if value else dialect.ids(())
    if op is Operator.EXISTS:
        if not dialect.serves(key, "any"):
            return None
        return dialect.combine(must_not=[dialect.empty(key)]) if value else dialect.empty(key)
    if op is Operator.TEXT:
        if not is_unicode(value):
            return dialect.ids(())
        native = dialect.substring(key, value) if dialect.serves(key, "substring") else None
        return _among_values(where, key, dialect) if native is None else native
    if op is Operator.TEXT_INSENSITIVE:
        return _among_values(where, key, dialect)
    if op in _BOUNDS:
        taken = is_exact(value) and dialect.serves(key, "number")
        return dialect.between(key, {_BOUNDS[op]: value}) if taken else None
    if op is Operator.ALL:
        each = [_one_of(where.field, key, (one,), dialect) for one in value]
        return None if any(one is None for one in each) else dialect.combine(must=each)
    condition = _one_of(where.field, key, value if isinstance(value, tuple) else (value,), dialect)
    if condition is None or op not in (Operator.NE, Operator.NIN):
        return condition
    return dialect.combine(must_not=[condition])


def _among_values(where: Condition, key: str, dialect: ClientDialect) -> Any | None:
    """The field holds one of those of its distinct texts that fit."""
    if (values := dialect.values(key)) is None:
        return None
    inner = RESERVED.get(where.field)
    fitting = [one for one in values if matches(where, {inner: one} if inner else {"metadata": {where.field: one}})]
    return dialect.one_of(key, fitting) if fitting else dialect.ids(())


def _one_of(field: str, key: str, values: tuple[Any, ...], dialect: ClientDialect) -> Any | None:
    """The field holds one of the values."""
    texts = [value for value in values if isinstance(value, str) and is_unicode(value)]
    if field == ID:
        return dialect.ids({dialect.point(text) for text in texts})
    numbers = [value for value in values if not isinstance(value, str | bool)]
    if not all(map(is_exact, numbers)) or not all(dialect.serves(key, kind) for kind in _kinds(values)):
        return None
    if not dialect.ranges(key, len(numbers)):
        return None
    conditions = [dialect.one_of(key, texts)] if texts else []
    conditions += [dialect.equals(key, value) for value in values if isinstance(value, bool)]
    conditions += [dialect.between(key, {"gte": number, "lte": number}) for number in numbers]
    return _either(conditions, dialect)


def _kinds(values: tuple[Any, ...]) -> list[str]:
    """The kinds of values, as indexes have them; texts that no field can hold count as well."""
    kinds = ("bool" if isinstance(one, bool) else "text" if isinstance(one, str) else "number" for one in values)
    return [*dict.fromkeys(kinds)]


def _either(parts: Sequence[Any], dialect: ClientDialect) -> Any:
    """One of the parts; nothing, for no parts."""
    return dialect.combine(should=parts) if parts else dialect.ids(())


def storable_path(field: str) -> bool:
    """Whether a path to a metadata field can be written: without a quote, a backslash or half of a surrogate pair.

    >>> storable_path("a.b"), storable_path('a"b')
    (True, False)
    """
    return not ('"' in field or "\\" in field) and is_unicode(field)


def _is_exact_number(value: Any) -> bool:
    return is_exact(value) and not isinstance(value, bool)


def is_exact(value: Any) -> bool:
    """Whether Qdrant, which compares numbers as float64, tells this number from its neighbours."""
    return isinstance(value, int | float) and abs(value) < _EXACT
