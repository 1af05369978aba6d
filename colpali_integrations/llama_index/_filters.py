"""Translate LlamaIndex's `MetadataFilters` to the stores' filter language, with LlamaIndex's meaning.

`llama_index.core.vector_stores.utils.build_metadata_filter_fn`, the filter of `SimpleVectorStore`, defines the meaning.
Two cases differ, as in the vector stores of servers:

- Metadata of several values (lists) match a comparison that one of the values matches: `==`, `in`, `>`, `text_match`
  and the rest; `SimpleVectorStore` compares the list as a whole, or fails. `contains`, `any`, `all` and `is_empty` are
  about lists in both.
- Values that cannot be compared, such as a text with a number, do not match; `SimpleVectorStore` fails.

`doc_id`, `ref_doc_id` and `document_id` are the source document's id, as in LlamaIndex, or metadata of that name.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

from colpali_integrations.errors import InputError
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import (
    DOCUMENT,
    ID,
    And,
    Condition,
    Filter,
    Not,
    Operator,
    Or,
    Scalar,
    check_levels,
)

__all__ = ["Scan", "store_filter"]

Scan = Callable[[Filter], Iterable[Entry]]
"""The entries that match a filter: `MultiVectorStore.scroll`."""

_DOCUMENT_KEYS = frozenset({"doc_id", "ref_doc_id", "document_id"})
_RANGES: dict[FilterOperator, tuple[Operator, Callable[[Any, Any], bool]]] = {
    FilterOperator.GT: (Operator.GT, operator.gt),
    FilterOperator.GTE: (Operator.GTE, operator.ge),
    FilterOperator.LT: (Operator.LT, operator.lt),
    FilterOperator.LTE: (Operator.LTE, operator.le),
}
_TEXTS = {
    FilterOperator.TEXT_MATCH: Operator.TEXT,
    FilterOperator.TEXT_MATCH_INSENSITIVE: Operator.TEXT_INSENSITIVE,
}


def store_filter(filters: MetadataFilters | None, scan: Scan, level: int = 1) -> Filter | None:
    """Translate filters, nested ones too.

    Args:
        filters: LlamaIndex's.
        scan: reads entries for `contains`, `any` and `all`. These mean membership in a list and a part of a text, and
            the stores' language does not distinguish lists from texts.
        level: of filters within filters.

    Returns:
        The filter; None if it matches everything.

    Raises:
        InputError: an operator does not take its value, or there are more than `MAX_LEVELS` levels.

    Example:
        >>> pages = MetadataFilters(filters=[MetadataFilter(key="page", value=3, operator=FilterOperator.GTE)])
        >>> store_filter(pages, scan=lambda where: [])
        Condition(field='page', op=<Operator.GTE: '$gte'>, value=3)
    """
    check_levels(level)
    if filters is None:
        return None
    if not isinstance(filters, MetadataFilters):
        raise InputError(
            f"filters must be MetadataFilters, got {type(filters).__name__}: {filters!r}; for equalities write "
            "MetadataFilters.from_dict({'page': 3})"
        )
    if not filters.filters:
        return None
    parts = tuple(_part(part, scan, level) for part in filters.filters)
    condition = filters.condition or FilterCondition.AND
    if condition is FilterCondition.NOT:
        return Not(Or(parts))  # none of them
    if len(parts) == 1:
        return parts[0]
    return Or(parts) if condition is FilterCondition.OR else And(parts)


def _part(part: MetadataFilter | MetadataFilters, scan: Scan, level: int) -> Filter:
    if isinstance(part, MetadataFilters):
        return store_filter(part, scan, level + 1) or And(())
    if part.operator is FilterOperator.NE:
        return Not(_any_field(part, FilterOperator.EQ, scan))
    if part.operator is FilterOperator.NIN:
        return Not(_any_field(part, FilterOperator.IN, scan))
    return _any_field(part, part.operator, scan)


def _any_field(part: MetadataFilter, op: FilterOperator, scan: Scan) -> Filter:
    fields = (DOCUMENT, part.key) if part.key in _DOCUMENT_KEYS else (part.key,)
    conditions = tuple(_condition(field, op, part, scan) for field in fields)
    if len(conditions) == 1:
        return conditions[0]
    return And(conditions) if op is FilterOperator.IS_EMPTY else Or(conditions)


def _condition(field: str, op: FilterOperator, part: MetadataFilter, scan: Scan) -> Filter:
    value: Any = part.value
    if op is FilterOperator.IS_EMPTY:
        # Missing, null, "" or []; a list that contains an empty text is not empty.
        empty_text = _scanned(Condition(field, Operator.EQ, ""), field, lambda stored: stored == "", scan)
        return Or((Condition(field, Operator.EXISTS, False), empty_text))
    if value is None:
        raise _refused(part, "a value; use FilterOperator.IS_EMPTY for a missing one")
    if op in _RANGES:
        if isinstance(value, list):
            raise _refused(part, "a number or text")
        return _range(field, *_RANGES[op], value)
    if op in _TEXTS:
        if not isinstance(value, str):
            raise _refused(part, "text")
        return Condition(field, _TEXTS[op], value)
    if op is FilterOperator.EQ:
        return _equal_list(field, value, scan) if isinstance(value, list) else _equal(field, [value])
    if op is FilterOperator.CONTAINS:
        if isinstance(value, list):
            raise _refused(part, "one value; for several use FilterOperator.ANY or ALL")
        return _contains(field, value, scan)
    if not isinstance(value, list):
        raise _refused(part, "a list of values")
    if op is FilterOperator.IN:
        return _equal(field, value)
    members = tuple(_contains(field, member, scan) for member in value)
    if op is FilterOperator.ANY:
        return Or(members)
    if op is FilterOperator.ALL:
        # ALL of no values matches every value, [] included.
        return And(members) if members else Or((Condition(field, Operator.EXISTS, True), _equal_list(field, [], scan)))
    raise InputError(f"the filter on {part.key!r}: unknown operator {op!r}")


def _equal(field: str, values: Sequence[Scalar]) -> Filter:
    """Any of the values. As in Python, 1 and 0 equal true and false, because `MetadataFilter` takes no bools."""
    several = [*values, *(bool(value) for value in values if not isinstance(value, str) and value in (0, 1))]
    return Condition(field, Operator.EQ, several[0]) if len(several) == 1 else Condition(field, Operator.IN, several)


def _range(field: str, op: Operator, compare: Callable[[Any, Any], bool], value: Scalar) -> Filter:
    condition = Condition(field, op, value)
    bools = [] if isinstance(value, str) else [stored for stored in (False, True) if compare(stored, value)]
    return Or((condition, Condition(field, Operator.IN, bools))) if bools else condition


def _equal_list(field: str, values: Sequence[Scalar], scan: Scan) -> Filter:
    members = And(tuple(_equal(field, [value]) for value in values))
    candidates = members if values else Condition(field, Operator.EXISTS, False)
    return _scanned(candidates, field, lambda stored: stored == list(values), scan)


def _contains(field: str, value: Scalar, scan: Scan) -> Filter:
    """A list that contains the value, or a text of which it is a part."""
    candidates = Condition(field, Operator.TEXT, value) if isinstance(value, str) else _equal(field, [value])
    kinds = (list, str) if isinstance(value, str) else list
    return _scanned(candidates, field, lambda stored: isinstance(stored, kinds) and value in stored, scan)


def _scanned(candidates: Filter, field: str, matches: Callable[[Any], bool], scan: Scan) -> Filter:
    """A condition that the stores' language lacks, evaluated over the candidates."""

    def stored(entry: Entry) -> Any:
        return entry.document_id if field == DOCUMENT else entry.metadata.get(field)

    ids = tuple(entry.id for entry in scan(candidates) if matches(stored(entry)))
    return Condition(ID, Operator.IN, ids) if ids else Or(())


def _refused(part: MetadataFilter, expected: str) -> InputError:
    return InputError(f"the filter on {part.key!r}: {part.operator.value!r} takes {expected}, got {part.value!r}")
