"""Filters as SQL: a condition that every fitting entry meets; `filters.matches` decides where it is not exact."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from colpali_integrations.stores.filters import RESERVED, And, Condition, Filter, Not, Operator, Or

__all__ = ["Clause", "to_sql"]

_COLUMNS = {"id": "id", "document_id": "document", "content_hash": "content"}
# Texts that are looked for in the stored JSON; with more, reading it is as fast.
_MOST_TEXTS = 20
_ANY = (Operator.EQ, Operator.CONTAINS, Operator.IN, Operator.ANY)
_NONE = (Operator.NE, Operator.NIN)


class Clause(NamedTuple):
    """A WHERE clause, its parameters, and whether it holds for exactly the fitting entries or for some more."""

    sql: str
    parameters: list[Any]
    exact: bool


_EVERY = Clause("1", [], False)


# SQLite's parser keeps 100 symbols, and a level takes up to five of them.
_LEVELS = 12


def to_sql(where: Filter | None, levels: int = _LEVELS) -> Clause:
    """Translate the part of a filter that SQL can decide, or narrow down; deeper levels than `levels` do neither.

    >>> to_sql(None)
    Clause(sql='1', parameters=[], exact=True)
    """
    if where is None:
        return Clause("1", [], True)
    if levels == 0:
        return _EVERY
    if isinstance(where, And):
        parts = [to_sql(part, levels - 1) for part in where.parts]
        sql = " AND ".join(f"({part.sql})" for part in parts) or "1"
        return Clause(sql, [one for part in parts for one in part.parameters], all(part.exact for part in parts))
    if isinstance(where, Or):
        parts = [to_sql(part, levels - 1) for part in where.parts]
        if all(part is not _EVERY for part in parts):
            sql = " OR ".join(f"({part.sql})" for part in parts) or "0"
            return Clause(sql, [one for part in parts for one in part.parameters], all(part.exact for part in parts))
    if isinstance(where, Not):
        part = to_sql(where.part, levels - 1)
        if part.exact:
            return Clause(f"NOT ({part.sql})", part.parameters, True)
    if isinstance(where, Condition):
        if where.field in RESERVED:
            return _condition(_COLUMNS[RESERVED[where.field]], where.op, where.value)
        return _metadata_condition(where.op, where.value)
    return _EVERY


def _metadata_condition(op: Operator, value: Any) -> Clause:
    """The stored JSON contains the texts that are asked for, somewhere."""
    values = value if isinstance(value, tuple) else (value,)
    if op not in (*_ANY, Operator.ALL, Operator.TEXT) or not 0 < len(values) <= _MOST_TEXTS:
        return _EVERY
    if not all(isinstance(one, str) for one in values):
        return _EVERY
    quotes = slice(1, -1) if op is Operator.TEXT else slice(None)
    joined = (" AND " if op is Operator.ALL else " OR ").join(["instr(metadata, ?)"] * len(values))
    return Clause(f"({joined})", [json.dumps(one)[quotes] for one in values], False)


def _condition(column: str, op: Operator, value: Any) -> Clause:
    if op is Operator.EXISTS:
        return Clause(f"{column} IS {'NOT ' if value else ''}NULL", [], True)
    values = [one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, str)]
    if op not in _ANY + _NONE or any("\0" in one for one in values):  # SQLite's JSON ends a text there
        return _EVERY
    # One parameter for any number of values. Without ifnull, NOT of it would leave out entries whose column is NULL.
    inside = f"ifnull({column} IN (SELECT value FROM json_each(?)), 0)"
    return Clause(inside if op in _ANY else f"NOT {inside}", [json.dumps(values)], True)
