"""What a filter is made of: conditions on fields, combined by and, or and not. What they mean is in `filters`."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Integral, Real
from typing import Any, TypeAlias

import numpy as np

from colpali_integrations.errors import InputError

__all__ = ["CONTENT", "DOCUMENT", "ID", "RESERVED", "And", "Condition", "Filter", "Not", "Operator", "Or", "Scalar"]

ID = "$id"
"""The entry's own id, as a field."""
DOCUMENT = "$document"
"""The id of the entry's document, as a field."""
CONTENT = "$content"
"""The entry's content hash, as a field."""
RESERVED = {ID: "id", DOCUMENT: "document_id", CONTENT: "content_hash"}
"""The fields that are not metadata, and their keys in a payload."""

Scalar: TypeAlias = "str | bool | int | float"


class Operator(str, Enum):
    """What a condition asks of a field. `CONTAINS` and `ANY` say of a list what `EQ` and `IN` say of a value."""

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
_RANGES = {Operator.GT, Operator.GTE, Operator.LT, Operator.LTE}
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
    """One question about one field.

    Attributes:
        field: a key of the metadata, or one of `RESERVED`.
        op: what is asked.
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
        object.__setattr__(self, "value", self._checked())

    def _checked(self) -> Scalar | tuple[Scalar, ...]:
        value: Any = self.value
        if self.op in _MANY:
            if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
                raise self._refused("a list of texts, numbers or bools")
            values = tuple(self._scalar(one, "a list of texts, finite numbers or bools") for one in value)
            if self.op is Operator.ALL and not values:
                raise self._refused("at least one value")
            return values
        if self.op is Operator.EXISTS:
            if not isinstance(value, bool):
                raise self._refused("true or false")
            return value
        if self.op in _TEXTS:
            if not isinstance(value, str):
                raise self._refused("text")
            return value
        if self.op in _RANGES:
            if isinstance(value, bool):
                raise self._refused("a finite number or text")
            return self._scalar(value, "a finite number or text")
        return self._scalar(value, "text, a finite number or a bool")

    def _scalar(self, value: Any, expected: str) -> Scalar:
        if isinstance(value, str | bool):
            return value
        if isinstance(value, np.bool_):
            return bool(value)
        if isinstance(value, Integral):
            return int(value)
        if isinstance(value, Real) and math.isfinite(value):
            return float(value)
        raise self._refused(expected)

    def _refused(self, expected: str) -> InputError:
        advice = ""
        if hasattr(self.value, "isoformat"):
            advice = "; metadata holds no dates: store and compare value.isoformat()"
        elif self.op not in _MANY and isinstance(self.value, list | tuple | set | frozenset):
            advice = "; for several values use $in, $any or $all"
        elif isinstance(self.value, Mapping):
            advice = "; conditions do not reach into objects"
        return InputError(f"the filter on {self.field!r}: {self.op.value} takes {expected}, got {self.value!r}{advice}")

    def to_dict(self) -> dict[str, Any]:
        """`{field: {operator: value}}`."""
        return {self.field: {self.op.value: list(self.value) if isinstance(self.value, tuple) else self.value}}


@dataclass(frozen=True)
class And(Filter):
    """All of the parts hold; no parts hold of everything."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))

    def to_dict(self) -> dict[str, Any]:
        """`{"$and": [...]}`."""
        return {"$and": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True)
class Or(Filter):
    """At least one of the parts holds; no parts hold of nothing."""

    parts: tuple[Filter, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))

    def to_dict(self) -> dict[str, Any]:
        """`{"$or": [...]}`."""
        return {"$or": [part.to_dict() for part in self.parts]}


@dataclass(frozen=True)
class Not(Filter):
    """The part does not hold."""

    part: Filter

    def to_dict(self) -> dict[str, Any]:
        """`{"$not": {...}}`."""
        return {"$not": self.part.to_dict()}
