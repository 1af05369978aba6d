"""The stores' filter language: which entries a search, a deletion or a listing is about. It knows no engine.

    {"source": "a.pdf", "page": {"$gte": 3}}  --parse_filter-->  And((Condition("source", EQ, "a.pdf"),
                                                                      Condition("page", GTE, 3)))

The dict is the one that users of LangChain's stores write; adapters may also build the conditions themselves. What a
filter means is written once, as `matches`; an engine's own filters are right when they agree with it:

- A field is a key of an entry's metadata, taken literally: "a.b" is the key "a.b", never b within a. `$id`,
  `$document` and `$content` are the entry's own id, the id of its document and its content hash.
- A field has values: the elements of a list, or the single value. Null and a missing key are no value; an object or a
  list within a list is a value that equals nothing. A condition holds when it holds for any of the values.
- So a missing field fits no condition but the negative ones: `$ne`, `$nin`, `$exists: false` and `$not`, each exactly
  the opposite of its positive. `$exists` asks for a value that is not null, nor an empty list.
- Text is text, a number is a number (3 equals 3.0) and a bool is neither: values of two kinds never match. Text is
  ordered by code point; `$text` respects case, `$itext` compares case-folded text.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias

from colpali_integrations.errors import InputError
from colpali_integrations.stores.filters.conditions import (
    CONTENT,
    DOCUMENT,
    ID,
    RESERVED,
    And,
    Condition,
    Filter,
    Not,
    Operator,
    Or,
    Scalar,
)

__all__ = [
    "CONTENT",
    "DOCUMENT",
    "ID",
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
    "matches",
    "parse_filter",
]

FilterLike: TypeAlias = "Filter | Mapping[str, Any] | None"
"""A filter as callers write it."""

_RANGES: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.GT: operator.gt,
    Operator.GTE: operator.ge,
    Operator.LT: operator.lt,
    Operator.LTE: operator.le,
}


def matches(where: Filter, payload: Mapping[str, Any]) -> bool:
    """Whether an entry fits a filter: the meaning of the language.

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
        held = payload.get(RESERVED[where.field])
    else:
        held = (payload.get("metadata") or {}).get(where.field)
    values = held if isinstance(held, list | tuple) else [] if held is None else [held]
    op, wanted = where.op, where.value
    if op is Operator.EXISTS:
        return bool(values) is wanted
    many: tuple[Any, ...] = wanted if isinstance(wanted, tuple) else (wanted,)
    if op in (Operator.EQ, Operator.CONTAINS, Operator.IN, Operator.ANY):
        if where.field in RESERVED:  # always text, and often looked for among hundreds
            return held in many
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
    return any(_kind(value) == _kind(wanted) and _RANGES[op](value, wanted) for value in values)


def always(where: Filter) -> bool | None:
    """Whether a filter holds of every entry (True) or of none (False), whatever they are; None where it depends.

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
    """What a value can be compared with: values of another kind, never."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else "other"


def _equal(value: Any, wanted: Any) -> bool:
    return _kind(value) == _kind(wanted) and bool(value == wanted)


def parse_filter(given: Mapping[str, Any] | Filter | None) -> Filter | None:
    """Read a filter as users write it.

    Args:
        given: `{"source": "a.pdf"}`, `{"page": {"$gte": 3, "$lt": 9}}`, several keys (all must hold), and these
            combined by `$and`, `$or` and `$nor` (lists of filters) and `$not` (a filter, or within a field its
            operators). None as a value asks for a field without one. A `Filter` is returned as it is.

    Returns:
        None for None and for {}, which leave nothing out.

    Raises:
        InputError: an unknown operator, or a value that its operator does not take.

    >>> parse_filter({"page": {"$gte": 3}})
    Condition(field='page', op=<Operator.GTE: '$gte'>, value=3)
    """
    if given is None or isinstance(given, Filter):
        return given
    if not isinstance(given, Mapping):
        raise InputError(
            f"a filter is a dict such as {{'source': 'a.pdf', 'page': {{'$gte': 3}}}}, got {type(given).__name__}: "
            f"{given!r}"
        )
    parts = tuple(_entry(key, value) for key, value in given.items())
    return None if not parts else parts[0] if len(parts) == 1 else And(parts)


def _neither(parts: tuple[Filter, ...]) -> Filter:
    return Not(Or(parts))


_COMBINATIONS: dict[str, Callable[[tuple[Filter, ...]], Filter]] = {"$and": And, "$or": Or, "$nor": _neither}
_OPERATORS = tuple(op.value for op in Operator)


def _parsed(given: Any, place: str) -> Filter:
    """A filter within a filter; {} holds of everything."""
    if not isinstance(given, Mapping | Filter):
        raise InputError(f"the filter's {place} takes filters such as {{'page': 3}}, got {given!r}")
    return parse_filter(given) or And(())


def _entry(key: Any, value: Any) -> Filter:
    """One key of a filter: a combination, or a field with a value or operators."""
    if key == "$not":
        return Not(_parsed(value, key))
    if key in _COMBINATIONS:
        if isinstance(value, str | Mapping) or not isinstance(value, Iterable):
            raise InputError(f"the filter's {key} takes a list of filters, got {value!r}")
        return _COMBINATIONS[key](tuple(_parsed(part, key) for part in value))
    if isinstance(key, str) and key.startswith("$") and key not in RESERVED:
        known = (*_COMBINATIONS, "$not", *RESERVED)
        wrong = f"; {key} belongs within a field: {{'page': {{{key!r}: ...}}}}" if key in _OPERATORS else ""
        raise InputError(f"the filter's key {key!r} is unknown: {_known(key, known)}{wrong}")
    if not isinstance(value, Mapping):
        return _condition(key, "$eq", value)
    if not value:
        raise InputError(f"the filter on {key!r} is empty: give a value, or one of {', '.join(_OPERATORS)}")
    parts = tuple(_condition(key, op, one) for op, one in value.items())
    return parts[0] if len(parts) == 1 else And(parts)


def _condition(field: Any, op: Any, value: Any) -> Filter:
    if op == "$not":
        if not isinstance(value, Mapping):
            raise InputError(f"the filter on {field!r}: $not takes operators such as {{'$gt': 3}}, got {value!r}")
        return Not(_entry(field, value))
    if op not in _OPERATORS:
        advice = _known(op, (*_OPERATORS, "$not"))
        raise InputError(f"the filter on {field!r} has the unknown operator {op!r}: {advice}")
    if value is None and op in ("$eq", "$ne"):
        return Condition(field, Operator.EXISTS, op == "$ne")
    return Condition(field, Operator(op), value)


def _known(given: Any, known: tuple[str, ...]) -> str:
    near = get_close_matches(str(given), known, n=1) or get_close_matches(f"${given}", known, n=1)
    return f"{f'did you mean {near[0]!r}? ' if near else ''}Known are {', '.join(known)}"
