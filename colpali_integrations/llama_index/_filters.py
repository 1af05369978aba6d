"""Translate LlamaIndex's `MetadataFilters` to the stores' filter language, with the meaning that LlamaIndex gives them.

What counts is `llama_index.core.vector_stores.utils.build_metadata_filter_fn`, the filter of `SimpleVectorStore`. Two
things are decided otherwise, as stores that people run have it:

- Metadata of several values (lists) fit a comparison that one of the values fits: `==`, `in`, `>`, `text_match` and the
  rest; there `SimpleVectorStore` compares the list as a whole, or fails. `contains`, `any`, `all` and `is_empty` are
  about lists in both.
- Values that cannot be compared, such as a text with a number, do not fit; `SimpleVectorStore` fails.

`doc_id`, `ref_doc_id` and `document_id` are the source document's id, as in LlamaIndex; metadata that are called so
count too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from colpali_integrations.errors import InputError
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Condition, Filter, Not, Operator, Or, Scalar

__all__ = ["Scan", "store_filter"]

Scan = Callable[[Filter], Iterable[Entry]]
"""The entries that fit a filter: `MultiVectorStore.scroll`."""

_DOCUMENT_KEYS = frozenset({"doc_id", "ref_doc_id", "document_id"})
_RANGES = {
    FilterOperator.GT: Operator.GT,
    FilterOperator.GTE: Operator.GTE,
    FilterOperator.LT: Operator.LT,
    FilterOperator.LTE: Operator.LTE,
}
_TEXTS = {
    FilterOperator.TEXT_MATCH: Operator.TEXT,
    FilterOperator.TEXT_MATCH_INSENSITIVE: Operator.TEXT_INSENSITIVE,
}
_EVERYTHING, _NOTHING = And(()), Or(())


def store_filter(filters: MetadataFilters | None, scan: Scan) -> Filter | None:
    """Translate filters, nested ones too.

    Args:
        filters: LlamaIndex's.
        scan: looks at entries, where an operator needs it: `contains`, `any` and `all` mean membership in a list and,
            for a text, part of it; the stores' language cannot tell a list from a text.

    Returns:
        The filter; None for one that leaves nothing out.

    Raises:
        InputError: a value that its operator does not take.

    Example:
        >>> wanted = MetadataFilters(filters=[MetadataFilter(key="page", value=3, operator=FilterOperator.GTE)])
        >>> store_filter(wanted, scan=lambda where: [])
        Condition(field='page', op=<Operator.GTE: '$gte'>, value=3)
    """
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise InputError(f"filters must be MetadataFilters, got {type(filters).__name__}: {filters!r}")
    if not filters.filters:
        return None
    parts = tuple(_part(one, scan) for one in filters.filters)
    condition = filters.condition or FilterCondition.AND
    if condition is FilterCondition.NOT:
        return Not(Or(parts))  # none of them
    if len(parts) == 1:
        return parts[0]
    return Or(parts) if condition is FilterCondition.OR else And(parts)


def _part(one: MetadataFilter | MetadataFilters, scan: Scan) -> Filter:
    if isinstance(one, MetadataFilters):
        return store_filter(one, scan) or _EVERYTHING
    if one.operator in (FilterOperator.NE, FilterOperator.NIN):
        positive = FilterOperator.EQ if one.operator is FilterOperator.NE else FilterOperator.IN
        return Not(_any_field(one, positive, scan))
    return _any_field(one, one.operator, scan)


def _any_field(one: MetadataFilter, operator: FilterOperator, scan: Scan) -> Filter:
    fields = (DOCUMENT, one.key) if one.key in _DOCUMENT_KEYS else (one.key,)
    if operator is FilterOperator.IS_EMPTY:
        empty = tuple(_empty(field, scan) for field in fields)
        return empty[0] if len(empty) == 1 else And(empty)
    parts = tuple(_positive(field, operator, one, scan) for field in fields)
    return parts[0] if len(parts) == 1 else Or(parts)


def _empty(field: str, scan: Scan) -> Filter:
    """Missing, null, "" or []; a list with an empty text in it is not empty."""
    blank = Condition(field, Operator.EQ, "")
    return Or((Condition(field, Operator.EXISTS, False), _decided(blank, field, lambda held: held == "", scan)))


def _positive(field: str, operator: FilterOperator, one: MetadataFilter, scan: Scan) -> Filter:
    value: Any = one.value
    if value is None:
        raise _refused(one, "a value; for a missing one ask with FilterOperator.IS_EMPTY")
    if operator in _RANGES:
        if isinstance(value, list):
            raise _refused(one, "a number or text")
        return _range(field, operator, value)
    if operator in _TEXTS:
        if not isinstance(value, str):
            raise _refused(one, "text")
        return Condition(field, _TEXTS[operator], value)
    if operator is FilterOperator.EQ:
        return _equal_list(field, value, scan) if isinstance(value, list) else _equal(field, [value])
    if operator is FilterOperator.CONTAINS:
        if isinstance(value, list):
            raise _refused(one, "one value; for several use FilterOperator.ANY or ALL")
        return _contains(field, value, scan)
    if not isinstance(value, list):
        raise _refused(one, "a list of values")
    if operator is FilterOperator.IN:
        return _equal(field, value)
    parts = tuple(_contains(field, member, scan) for member in value)
    if operator is FilterOperator.ANY:
        return Or(parts)
    if operator is FilterOperator.ALL:
        # Of no values all are there, if there is anything to look at, be it [].
        return And(parts) if parts else Or((Condition(field, Operator.EXISTS, True), _equal_list(field, [], scan)))
    raise InputError(f"the filter on {one.key!r}: unknown operator {one.operator!r}")


def _equal(field: str, values: Sequence[Scalar]) -> Filter:
    """Any of the values; 1 and 0 are true and false too, as in Python: `MetadataFilter` takes no bools."""
    several = [*values, *(bool(value) for value in values if not isinstance(value, str) and value in (0, 1))]
    return Condition(field, Operator.EQ, several[0]) if len(several) == 1 else Condition(field, Operator.IN, several)


def _range(field: str, operator: FilterOperator, value: Scalar) -> Filter:
    condition = Condition(field, _RANGES[operator], value)
    if isinstance(value, str):
        return condition
    compare: Callable[[Any, Any], bool] = {
        FilterOperator.GT: lambda held, wanted: held > wanted,
        FilterOperator.GTE: lambda held, wanted: held >= wanted,
        FilterOperator.LT: lambda held, wanted: held < wanted,
        FilterOperator.LTE: lambda held, wanted: held <= wanted,
    }[operator]
    fitting = [held for held in (False, True) if compare(held, value)]
    return Or((condition, Condition(field, Operator.IN, fitting))) if fitting else condition


def _equal_list(field: str, values: Sequence[Scalar], scan: Scan) -> Filter:
    if not values:
        return _decided(Condition(field, Operator.EXISTS, False), field, lambda held: held == [], scan)
    members = And(tuple(_equal(field, [value]) for value in values))
    return _decided(members, field, lambda held: held == list(values), scan)


def _contains(field: str, value: Scalar, scan: Scan) -> Filter:
    """A list that has the value, or a text of which it is a part."""
    if not isinstance(value, str):
        return _decided(_equal(field, [value]), field, lambda held: isinstance(held, list) and value in held, scan)
    part = Condition(field, Operator.TEXT, value)
    return _decided(part, field, lambda held: isinstance(held, list | str) and value in held, scan)


def _decided(candidates: Filter, field: str, fits: Callable[[Any], bool], scan: Scan) -> Filter:
    """A condition that the language lacks, decided over the entries that come into question."""

    def held(entry: Entry) -> Any:
        return entry.document_id if field == DOCUMENT else entry.metadata.get(field)

    ids = tuple(entry.id for entry in scan(candidates) if fits(held(entry)))
    return Condition(ID, Operator.IN, ids) if ids else _NOTHING


def _refused(one: MetadataFilter, expected: str) -> InputError:
    return InputError(f"the filter on {one.key!r}: {one.operator.value!r} takes {expected}, got {one.value!r}")
