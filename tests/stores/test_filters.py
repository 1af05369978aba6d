"""The filter language: meaning, parsing and refusals."""

from __future__ import annotations

import datetime
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from colpali_integrations.stores.filters import And, Condition, Filter, Not, Operator, Or, matches, parse_filter
from tests.stores.filter_cases import conditions, filters, payloads


def entry(metadata: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    return {"id": "an id", "document_id": None, "text": "", "metadata": metadata or {}, **more}


def fits(where: dict[str, Any], metadata: dict[str, Any]) -> bool:
    found = parse_filter(where)
    assert found is not None
    return matches(found, entry(metadata))


@pytest.mark.parametrize(
    ("where", "metadata", "expected"),
    [
        ({"page": 3}, {"page": 3}, True),
        ({"page": 3}, {"page": 3.0}, True),
        ({"page": 3}, {"page": "3"}, False),
        ({"page": 1}, {"page": True}, False),
        ({"page": True}, {"page": 1}, False),
        ({"page": {"$gt": 0}}, {"page": True}, False),
        ({"page": {"$gte": 3, "$lt": 9}}, {"page": 9}, False),
        ({"page": {"$gte": 3, "$lt": 9}}, {"page": 3}, True),
        ({"date": {"$gt": "2025-12-31"}}, {"date": "2026-01-01"}, True),
        ({"date": {"$gt": "2025-12-31"}}, {"date": 2026}, False),
        ({"big": 2**53}, {"big": 2**53 + 1}, False),
        ({"tags": "a"}, {"tags": ["b", "a"]}, True),
        ({"tags": {"$contains": "a"}}, {"tags": "a"}, True),
        ({"tags": {"$contains": "a"}}, {"tags": "ab"}, False),
        ({"tags": {"$ne": "a"}}, {"tags": ["b", "a"]}, False),
        ({"tags": {"$gt": 2}}, {"tags": [1, "x", 3]}, True),
        ({"tags": {"$any": ["a", "z"]}}, {"tags": ["b", "a"]}, True),
        ({"tags": {"$all": ["a", "b"]}}, {"tags": ["b", "a", "c"]}, True),
        ({"tags": {"$all": ["a", "z"]}}, {"tags": ["b", "a"]}, False),
        ({"tags": "a"}, {"tags": [["a"]]}, False),
        ({"a.b": 1}, {"a": {"b": 1}}, False),
        ({"a.b": 1}, {"a.b": 1}, True),
        ({"x": {"$in": []}}, {"x": 1}, False),
        ({"x": {"$nin": []}}, {"x": 1}, True),
        ({"x": {"$in": [1, "one", True]}}, {"x": "one"}, True),
        ({"x": {"$nin": [1, "one"]}}, {}, True),
        ({"x": {"$ne": 1}}, {"x": None}, True),
        ({"x": {"$not": {"$gt": 1}}}, {}, True),
        ({"x": {"$lte": 1}}, {}, False),
        ({"x": {"$exists": True}}, {"x": None}, False),
        ({"x": {"$exists": False}}, {"x": []}, True),
        ({"x": {"$exists": True}}, {"x": ""}, True),
        ({"x": None}, {}, True),
        ({"x": {"$ne": None}}, {"x": 0}, True),
        ({"x": {"$text": "ort"}}, {"x": "report"}, True),
        ({"x": {"$text": "ORT"}}, {"x": "report"}, False),
        ({"x": {"$itext": "ORT"}}, {"x": ["a", "report"]}, True),
        ({"x": {"$itext": "STRASSE"}}, {"x": "Hauptstraße"}, True),
        ({"x": {"$text": ""}}, {"x": 3}, False),
        ({"x": 1, "y": 2}, {"x": 1, "y": 3}, False),
        ({"$or": [{"x": 1}, {"y": 2}]}, {"x": 0, "y": 2}, True),
        ({"$nor": [{"x": 1}, {"y": 2}]}, {"x": 0, "y": 2}, False),
        ({"$and": [{}, {"x": 1}]}, {"x": 1}, True),
        ({"$or": []}, {"x": 1}, False),
        ({"$not": {"x": 1, "y": 2}}, {"x": 1, "y": 3}, True),
    ],
)
def test_each_operator_matches_as_documented(where: dict[str, Any], metadata: dict[str, Any], expected: bool) -> None:
    assert fits(where, metadata) is expected


def test_the_ids_of_entry_and_document_are_not_metadata() -> None:
    given = entry({"id": "other", "document_id": "other"}, id="7", document_id="report.pdf")
    assert matches(Condition("$id", Operator.IN, ("7", "8")), given)
    assert matches(Condition("$document", Operator.EQ, "report.pdf"), given)
    assert not matches(Condition("$document", Operator.EQ, "other"), given)
    assert matches(Condition("document_id", Operator.EQ, "other"), given)


def test_empty_filters_become_none_and_parsed_ones_stay() -> None:
    assert parse_filter(None) is None
    assert parse_filter({}) is None
    where = Or((Condition("x", Operator.EQ, 1),))
    assert parse_filter(where) is where
    assert parse_filter({"$and": [where, {"y": 2}]}) == And((where, Condition("y", Operator.EQ, 2)))


def test_numpy_scalars_are_values() -> None:
    where = parse_filter({"x": np.int64(3), "y": np.float32(0.5), "z": np.bool_(True)})
    assert isinstance(where, And)
    assert [type(part.value) for part in where.parts if isinstance(part, Condition)] == [int, float, bool]


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ({"page": {"$gtt": 3}}, ["'page'", "'$gtt'", "did you mean '$gt'", "$itext"]),
        ({"page": {"gte": 3}}, ["did you mean '$gte'"]),
        ({"page": {"number": 3}}, ["'number'", "Known are"]),
        ({"name": {"$like": "%x%"}}, ["unknown operator '$like'", "use $text for a part of a text", "without %"]),
        ({"name": {"$regex": "x.*"}}, ["unknown operator '$regex'", "there are no patterns", "$itext"]),
        ({"name": {"$startswith": "x"}}, ["$text"]),
        ({"page": {"$between": [1, 3]}}, ["use {'$gte': ..., '$lte': ...}"]),
        ({"source": Path("a.pdf")}, ["compare str(value)"]),
        ({"$an": []}, ["'$an'", "did you mean '$and'"]),
        ({"$gt": 3}, ["$gt belongs within a field"]),
        ({"page": {}}, ["'page'", "empty"]),
        ({"page": [1, 2]}, ["$eq takes text, a finite number or a bool", "[1, 2]", "$in"]),
        ({"page": {"$in": "abc"}}, ["$in takes a list", "'abc'"]),
        ({"page": {"$in": {"a": 1}}}, ["$in takes a list"]),
        ({"page": {"$in": 5}}, ["$in takes a list", "5"]),
        ({"page": {"$in": [1, None]}}, ["$in takes a list"]),
        ({"page": {"$all": []}}, ["$all takes at least one value"]),
        ({"page": {"$gt": math.nan}}, ["$gt takes a finite number", "nan"]),
        ({"page": math.nan}, ["finite"]),
        ({"page": {"$in": [math.inf]}}, ["finite"]),
        ({"page": {"$gt": True}}, ["$gt takes a finite number or text", "True"]),
        ({"page": {"$gt": None}}, ["$gt takes"]),
        ({"day": {"$gt": datetime.date(2026, 1, 1)}}, ["isoformat"]),
        ({"page": {"$exists": 1}}, ["$exists takes true or false"]),
        ({"page": {"$text": 3}}, ["$text takes text"]),
        ({"page": {"$eq": {"a": 1}}}, ["objects"]),
        ({"page": {"$not": 3}}, ["$not takes operators"]),
        ({3: 4}, ["3", "key of the metadata"]),
        ({"$and": {"x": 1}}, ["$and takes a list of filters"]),
        ({"$or": [3]}, ["$or takes filters", "3"]),
        ({"$not": None}, ["$not takes filters"]),
        ([("page", 3)], ["a dict such as", "list"]),
        (lambda payload: True, ["a dict such as", "function"]),
    ],
)
def test_refusals_name_the_key_and_the_remedy(where: Any, said: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_filter(where)
    for words in said:
        assert words in str(caught.value)


def test_a_number_beyond_the_largest_float_is_refused_unless_it_is_whole() -> None:
    with pytest.raises(InputError, match=r"price.*a finite number"):
        parse_filter({"price": Fraction(10**400, 3)})
    assert fits({"price": {"$lt": 10**400}}, {"price": 3})


def test_a_condition_built_by_hand_is_checked_too() -> None:
    with pytest.raises(InputError, match="may begin with"):
        Condition("$price", Operator.EQ, 3)
    with pytest.raises(InputError, match=r"\$in takes a list"):
        Condition("price", Operator.IN, 3)
    assert hash(Condition("price", Operator.IN, [3, 4])) == hash(Condition("price", Operator.IN, (3, 4)))


def plain(where: Filter, payload: dict[str, Any]) -> bool:
    """The language once more, from its description, without looking at how `matches` does it."""
    wanted: Any = ()
    match where:
        case And(parts=parts):
            return False not in [plain(part, payload) for part in parts]
        case Or(parts=parts):
            return True in [plain(part, payload) for part in parts]
        case Not(part=part):
            return plain(part, payload) is False
        case Condition(field=field, op=op):
            wanted = where.value
            places = {"$id": payload["id"], "$document": payload["document_id"]}
            held = places[field] if field in places else payload["metadata"].get(field)
            if op is Operator.EXISTS:
                return (held not in (None, [])) is bool(wanted)
            opposite = {Operator.NE: Operator.EQ, Operator.NIN: Operator.IN}
            if op in opposite:
                return not plain(Condition(field, opposite[op], wanted), payload)
            if op is Operator.ALL:
                return all(plain(Condition(field, Operator.EQ, one), payload) for one in wanted)
            if op in (Operator.IN, Operator.ANY):
                return any(plain(Condition(field, Operator.EQ, one), payload) for one in wanted)
            return any(holds(op.value, one, wanted) for one in (held if isinstance(held, list) else [held]))
    raise AssertionError(where)


def holds(op: str, one: Any, wanted: Any) -> bool:
    kinds = {bool: "bool", int: "number", float: "number", str: "text"}
    if kinds.get(type(one)) is None or kinds.get(type(one)) != kinds[type(wanted)]:
        return False
    if op == "$text":
        return str(one).find(wanted) >= 0
    if op == "$itext":
        return str(one).casefold().find(wanted.casefold()) >= 0
    less, same = one < wanted, one == wanted
    more = not less and not same
    found: dict[str, bool] = {
        "$eq": same,
        "$contains": same,
        "$gt": more,
        "$gte": more or same,
        "$lt": less,
        "$lte": less or same,
    }
    return found[op]


@given(filters, payloads())
def test_matches_agrees_with_the_description(where: Filter, payload: dict[str, Any]) -> None:
    assert matches(where, payload) is plain(where, payload)


@given(st.lists(filters, max_size=3), payloads())
def test_de_morgan(parts: list[Filter], payload: dict[str, Any]) -> None:
    opposites = tuple(Not(part) for part in parts)
    assert matches(Not(And(tuple(parts))), payload) is matches(Or(opposites), payload)
    assert matches(Not(Or(tuple(parts))), payload) is matches(And(opposites), payload)


@given(filters, payloads())
def test_not_not_is_the_same(where: Filter, payload: dict[str, Any]) -> None:
    assert matches(Not(Not(where)), payload) is matches(where, payload)


@given(conditions(), payloads())
def test_negative_operators_are_the_opposites(where: Condition, payload: dict[str, Any]) -> None:
    opposites = {Operator.EQ: Operator.NE, Operator.IN: Operator.NIN}
    if where.op in opposites:
        assert matches(Condition(where.field, opposites[where.op], where.value), payload) is not matches(where, payload)


@given(filters)
def test_a_filter_survives_json(where: Filter) -> None:
    assert parse_filter(json.loads(json.dumps(where.to_dict()))) == where


@given(filters)
def test_filters_are_hashable_and_read_back(where: Filter) -> None:
    assert hash(where) == hash(parse_filter(where.to_dict()))
