"""The filter language of stores, independent of engines: it selects entries for a search, a deletion or a listing.

`parse_filter` reads the dicts that users of LangChain's stores write, such as
`{"source": "a.pdf", "page": {"$gte": 3}}`; adapters may also build the conditions themselves. `matches` defines the
meaning of a filter, and the native filters of an engine must agree with it:

- A field is a key of an entry's metadata, taken literally: "a.b" is the key "a.b", never b within a. `$id`,
  `$document` and `$content` are the entry's own id, the id of its document and its content hash.
- A field has values: the elements of a list, or the single value. Null and a missing key are no value; an object or a
  list within a list is a value that equals nothing. A condition holds when it holds for any of the values.
- So a missing field fits only the negative conditions: `$ne`, `$nin`, `$exists: false` and `$not`, each exactly the
  opposite of its positive. `$exists` asks for a value that is neither null nor an empty list.
- Texts, numbers (3 equals 3.0) and bools are three kinds, and values of two kinds never match. Text is ordered by code
  point; `$text` respects case, `$itext` compares case-folded text.
"""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from enum import Enum
from numbers import Integral, Real
from typing import Any, ClassVar, TypeAlias

import numpy as np

from colpali_integrations.errors import InputError

__all__ = [
    "CONTENT",
    "DOCUMENT",
    "ID",
    "MAX_LEVELS",
    "RESERVED",
    "And",
    "Condition",
    "Filter",
    "FilterLike",
    "Not",
    "Operator",
    "Or",
    "Scalar",
    "always",
    "check_levels",
    "matches",
    "parse_filter",
]

ID = "$id"
"""The entry's own id, as a field."""
DOCUMENT = "$document"
"""The id of the entry's document, as a field."""
CONTENT = "$content"
"""The entry's content hash, as a field."""
MAX_LEVELS = 30
"""Levels of filters within filters, as callers write them."""
# A level of a dict becomes up to three of `Filter` (Not, Or, And), and adapters add conditions of their own.
_MOST_PARSED = 3 * MAX_LEVELS + 10
RESERVED = {ID: "id", DOCUMENT: "document_id", CONTENT: "content_hash"}
"""The fields that are not metadata, and their keys in a payload."""

Scalar: TypeAlias = str | bool | int | float


class Operator(str, Enum):
    """The comparison of a condition. `CONTAINS` and `ANY` are `EQ` and `IN` for fields that hold lists."""

    EQ = "$eq"
    NE = "$ne"
    GT = "$gt"
    GTE = "$gte"
    LT = "$lt"
    LTE = "$lte"
    IN = "$in"
    NIN = "$nin"
    CONTAINS = "$contains"
    ANY = "$any"
    ALL = "$all"
    TEXT = "$text"
    TEXT_INSENSITIVE = "$itext"
    EXISTS = "$exists"


_MANY = {Operator.IN, Operator.NIN, Operator.ANY, Operator.ALL}
_RANGES: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
}
_TEXTS = {Operator.TEXT, Operator.TEXT_INSENSITIVE}


@dataclass(frozen=True)
class Filter:
    """Base of the four kinds of filter: `Condition`, `And`, `Or` and `Not`.

    Example:
        >>> from colpali_integrations.stores import parse_filter
        >>> where = parse_filter({"source": "a.pdf", "page": {"$gte": 3}})
        >>> isinstance(where, Filter), where.to_dict()
        (True, {'$and': [{'source': {'$eq': 'a.pdf'}}, {'page': {'$gte': 3}}]})
    """

    def to_dict(self) -> dict[str, Any]:
        """The filter as `parse_filter` reads it, JSON-safe: parsing it gives an equal filter."""
        raise TypeError("a filter is a Condition, an And, an Or or a Not")


@dataclass(frozen=True)
class Condition(Filter):
    """A comparison of one field with a value.

    Attributes:
        field: a key of the metadata, or one of `RESERVED`.
        op: the comparison.
        value: text, a bool or a finite number; a tuple of these for `IN`, `NIN`, `ANY` and `ALL`; text or a number for
            the ranges; text for `TEXT` and `TEXT_INSENSITIVE`; a bool for `EXISTS`.

    Raises:
        InputError: the field or the value is none of these.

    >>> Condition("page", Operator.IN, [3, 4])
    Condition(field='page', op=<Operator.IN: '$in'>, value=(3, 4))
    """

    field: str
    op: Operator
    value: Scalar | Sequence[Scalar]

    def __post_init__(self) -> None:
        field: Any = self.field
        if not isinstance(field, str) or (field.startswith("$") and field not in RESERVED):
            raise InputError(
                f"a filter's field is a key of the metadata or one of {', '.join(RESERVED)} (no other may begin with "
                f"'$'), got {field!r}"
            )
        object.__setattr__(self, "op", Operator(self.op))
        object.__setattr__(self, "value", self._valid_value())

    def _valid_value(self) -> Scalar | tuple[Scalar, ...]:
        value: Any = self.value
        if self.op in _MANY:
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
                raise self._refusal("a list of texts, numbers or bools")
            values = tuple(self._scalar(one, "a list of texts, finite numbers or bools") for one in value)
            if self.op is Operator.ALL and not values:
                raise self._refusal("at least one value")
            return values
        if self.op is Operator.EXISTS:
            if not isinstance(value, bool):
                raise self._refusal("true or false")
            return value
        if self.op in _TEXTS:
            if not isinstance(value, str):
                raise self._refusal("text")
            return value
        if self.op in _RANGES:
            if isinstance(value, bool):
                raise self._refusal("a finite number or text")
            return self._scalar(value, "a finite number or text")
        return self._scalar(value, "text, a finite number or a bool")

    def _scalar(self, value: Any, expected: str) -> Scalar:
        if isinstance(value, str | bool):
            return value
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, Integral):
            return int(value)
        with suppress(OverflowError):  # a fraction beyond the largest float
            if isinstance(value, Real) and math.isfinite(value):
                return float(value)
        raise self._refusal(expected)

    def _refusal(self, expected: str) -> InputError:
        advice = ""
        if hasattr(self.value, "isoformat"):
            advice = "; metadata cannot hold dates: store and compare value.isoformat()"
        elif isinstance(self.value, os.PathLike):
            advice = "; metadata hold paths as texts: compare str(value)"
        elif self.op not in _MANY and isinstance(self.value, list | tuple | set | frozenset):
            advice = "; for several values use $in, $any or $all"
        elif isinstance(self.value, Mapping):
            advice = "; conditions do not reach into objects"
        return InputError(f"the filter on {self.field!r}: {self.op.value} takes {expected}, got {self.value!r}{advice}")

    def to_dict(self) -> dict[str, Any]:
        """`{field: {operator: value}}`."""
        return {self.field: {self.op.value: list(self.value) if isinstance(self.value, tuple) else self.value}}


@dataclass(frozen=True)
class _Several(Filter):
    parts: tuple[Filter, ...]
    _key: ClassVar[str]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))

    def to_dict(self) -> dict[str, Any]:
        """`{"$and": [...]}` or `{"$or": [...]}`."""
        return {self._key: [part.to_dict() for part in self.parts]}


class And(_Several):
    """All of the parts hold; an And without parts fits every entry."""

    _key = "$and"


class Or(_Several):
    """At least one of the parts holds; an Or without parts fits no entry."""

    _key = "$or"


@dataclass(frozen=True)
class Not(Filter):
    """The part does not hold."""

    part: Filter

    def to_dict(self) -> dict[str, Any]:
        """`{"$not": {...}}`."""
        return {"$not": self.part.to_dict()}


FilterLike: TypeAlias = Filter | Mapping[str, Any] | None
"""A filter as callers write it."""


def matches(where: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether an entry fits a filter.

    Args:
        where: the filter.
        payload: of an entry; its metadata and the keys of `RESERVED` are read.

    >>> matches(Condition("page", Operator.GTE, 3), {"id": "a", "metadata": {"page": 3}})
    True
    """
    if isinstance(where, And):
        return all(matches(part, payload) for part in where.parts)
    if isinstance(where, Or):
        return any(matches(part, payload) for part in where.parts)
    if isinstance(where, Not):
        return not matches(where.part, payload)
    if not isinstance(where, Condition):
        raise TypeError(f"expected a Condition, an And, an Or or a Not, got {where!r}")
    if where.field in RESERVED:
        stored = payload.get(RESERVED[where.field])
    else:
        metadata = payload.get("metadata")
        stored = metadata.get(where.field) if isinstance(metadata, Mapping) else None
    values = stored if isinstance(stored, list | tuple) else [] if stored is None else [stored]
    op, operand = where.op, where.value
    if op is Operator.EXISTS:
        return bool(values) is operand
    many: tuple[Any, ...] = operand if isinstance(operand, tuple) else (operand,)
    if op in (Operator.EQ, Operator.CONTAINS, Operator.IN, Operator.ANY):
        if where.field in RESERVED:  # always text, and often compared with hundreds of values
            return stored in many
        return any(_equal(value, one) for value in values for one in many)
    if op in (Operator.NE, Operator.NIN):
        return not any(_equal(value, one) for value in values for one in many)
    if op is Operator.ALL:
        return all(any(_equal(value, one) for value in values) for one in many)
    if op is Operator.TEXT:
        return any(isinstance(value, str) and many[0] in value for value in values)
    if op is Operator.TEXT_INSENSITIVE:
        folded = many[0].casefold()
        return any(isinstance(value, str) and folded in value.casefold() for value in values)
    return any(_kind(value) == _kind(operand) and _RANGES[op](value, operand) for value in values)


def always(where: Filter) -> bool | None:
    """Whether a filter fits every possible entry (True) or none (False); None where the entry decides.

    >>> always(And(())), always(Not(Condition("page", Operator.IN, ()))), always(Condition("page", Operator.EQ, 1))
    (True, True, None)
    """
    if isinstance(where, Not):
        inner = always(where.part)
        return None if inner is None else not inner
    if isinstance(where, And | Or):
        parts, decides = {always(part) for part in where.parts}, isinstance(where, Or)
        return decides if decides in parts else None if None in parts else not decides
    empty = isinstance(where, Condition) and where.value == ()
    return where.op is Operator.NIN if empty and isinstance(where, Condition) else None


def _kind(value: Any) -> str:
    """The kind of a value; values of two kinds never match."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def _equal(value: Any, operand: Any) -> bool:
    return _kind(value) == _kind(operand) and bool(value == operand)


def parse_filter(where: FilterLike) -> Filter | None:
    """Read a filter as users write it.

    Args:
        where: `{"source": "a.pdf"}`, `{"page": {"$gte": 3, "$lt": 9}}`, several keys (all must hold), and these
            combined by `$and`, `$or` and `$nor` (lists of filters) and `$not` (a filter, or within a field its
            operators). None as a value asks for a field without one. A `Filter` is returned as it is.

    Returns:
        None for None and for {}, which fit every entry.

    Raises:
        InputError: an unknown operator, a value that its operator does not take, or more than `MAX_LEVELS` levels.

    >>> parse_filter({"page": {"$gte": 3}})
    Condition(field='page', op=<Operator.GTE: '$gte'>, value=3)
    """
    try:
        return _parse(where, 1)
    except RecursionError:  # in showing a value of an error
        raise _too_deep() from None


def check_levels(level: int) -> None:
    """Refuse a filter at a level beyond `MAX_LEVELS`.

    Raises:
        InputError: it is beyond.
    """
    if level > MAX_LEVELS:
        raise _too_deep()


def _too_deep() -> InputError:
    return InputError(f"a filter may have {MAX_LEVELS} levels of filters within filters, and this one has more")


def _levels(where: Filter) -> int:
    """The levels of a filter, counted up to one more than are permitted."""
    level, parts = 0, [where]
    while parts and level <= _MOST_PARSED:
        level += 1
        inside: list[Filter] = []
        for one in parts:
            inside += one.parts if isinstance(one, And | Or) else [one.part] if isinstance(one, Not) else []
        parts = list({id(one): one for one in inside}.values())  # each once: one may be in many places
    return level


def _parse(where: FilterLike, level: int) -> Filter | None:
    check_levels(level)
    if where is None:
        return None
    if isinstance(where, Filter):
        if _levels(where) > _MOST_PARSED:
            raise _too_deep()
        return where
    if not isinstance(where, Mapping):
        raise InputError(
            f"a filter is a dict such as {{'source': 'a.pdf', 'page': {{'$gte': 3}}}}, got {type(where).__name__}: "
            f"{where!r}"
        )
    parts = tuple(_entry(key, value, level) for key, value in where.items())
    return None if not parts else parts[0] if len(parts) == 1 else And(parts)


_COMBINATIONS: dict[str, Callable[[tuple[Filter, ...]], Filter]] = {
    "$and": And,
    "$or": Or,
    "$nor": lambda parts: Not(Or(parts)),
}
_OPERATORS = tuple(op.value for op in Operator)
_PART = "use $text for a part of a text, or $itext in capitals or not"
# Operators of other libraries, and what to use instead.
_GUESSES = {
    **dict.fromkeys(("$like", "$ilike", "$match", "$search", "$substring", "$contains_text"), f"{_PART}, without %"),
    **dict.fromkeys(("$startswith", "$endswith", "$startsWith", "$endsWith", "$prefix", "$suffix"), _PART),
    **dict.fromkeys(("$regex", "$re", "$glob"), f"there are no patterns; {_PART}"),
    **dict.fromkeys(("$not_contains", "$ncontains"), "use {'$not': {'$contains': ...}}"),
    "$between": "use {'$gte': ..., '$lte': ...}",
}


def _parsed(where: Any, place: str, level: int) -> Filter:
    """A filter within a filter; {} fits every entry."""
    if not isinstance(where, Mapping | Filter):
        raise InputError(f"the filter's {place} takes filters such as {{'page': 3}}, got {where!r}")
    return _parse(where, level + 1) or And(())


def _entry(key: Any, value: Any, level: int) -> Filter:
    """One key of a filter: a combination, or a field with a value or operators."""
    if key == "$not":
        return Not(_parsed(value, key, level))
    if key in _COMBINATIONS:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise InputError(f"the filter's {key} takes a list of filters, got {value!r}")
        return _COMBINATIONS[key](tuple(_parsed(part, key, level) for part in value))
    if isinstance(key, str) and key.startswith("$") and key not in RESERVED:
        advice = f"; {key} belongs within a field: {{'page': {{{key!r}: ...}}}}" if key in _OPERATORS else ""
        raise InputError(
            f"the filter's key {key!r} is unknown: {_alternatives(key, (*_COMBINATIONS, '$not', *RESERVED))}{advice}"
        )
    if not isinstance(value, Mapping):
        return _condition(key, "$eq", value, level)
    if not value:
        raise InputError(f"the filter on {key!r} is empty: give a value, or one of {', '.join(_OPERATORS)}")
    parts = tuple(_condition(key, op, one, level) for op, one in value.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _condition(field: Any, op: Any, value: Any, level: int) -> Filter:
    if op == "$not":
        if not isinstance(value, Mapping):
            raise InputError(f"the filter on {field!r}: $not takes operators such as {{'$gt': 3}}, got {value!r}")
        check_levels(level + 1)
        return Not(_entry(field, value, level + 1))
    if op not in _OPERATORS:
        advice = _GUESSES.get(op) if isinstance(op, str) else None
        advice = advice or _alternatives(op, (*_OPERATORS, "$not"))
        raise InputError(f"the filter on {field!r} has the unknown operator {op!r}: {advice}")
    if value is None and op in ("$eq", "$ne"):
        return Condition(field, Operator.EXISTS, op == "$ne")
    return Condition(field, Operator(op), value)


def _alternatives(name: Any, choices: tuple[str, ...]) -> str:
    near = get_close_matches(str(name), choices, n=1) or get_close_matches(f"${name}", choices, n=1)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}Known are {', '.join(choices)}"
