"""Translated filters agree with `matches`, in the Qdrant engine itself (qdrant-edge) and in the client's local mode."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import qdrant_client
import qdrant_edge
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qdrant_client import models

from benchmarks.qdrant_edge import EDGE
from colpali_integrations.stores.filters import And, Condition, Filter, Not, Operator, Or, matches, parse_filter
from colpali_integrations.stores.qdrant.filters import ClientDialect, point_id, translate
from tests.stores.filter_cases import filters, payloads

Point = tuple[str, dict[str, Any]]


class EdgePoints:
    """Points of Qdrant's engine, which servers run too."""

    def __init__(self, folder: Path, index: Any = None) -> None:
        vectors = {"v": qdrant_edge.EdgeVectorParams(1, qdrant_edge.Distance.Dot)}
        self.shard = qdrant_edge.EdgeShard.create(str(folder), qdrant_edge.EdgeConfig(vectors=vectors))
        self.dialect: ClientDialect = EDGE
        for key in ("id", "document_id", *(f'metadata."{field}"' for field in ("x", "page", "a.b", "a", "tags", ""))):
            if index is not None:
                self.shard.update(qdrant_edge.UpdateOperation.create_field_index(key, index))

    def store(self, points: Sequence[Point]) -> None:
        known = [point.id for point in self._scroll(None)]
        self.shard.update(qdrant_edge.UpdateOperation.delete_points(known))
        made = [qdrant_edge.Point(id_, {"v": [1.0]}, payload) for id_, payload in points]
        self.shard.update(qdrant_edge.UpdateOperation.upsert_points(made))

    def payloads(self, native: Any) -> Iterator[dict[str, Any]]:
        return (point.payload for point in self._scroll(native))

    def count(self, native: Any) -> int:
        return int(self.shard.count(qdrant_edge.CountRequest(filter=qdrant_edge.Filter(must=[native]))))

    def _scroll(self, native: Any) -> list[Any]:
        where = None if native is None else qdrant_edge.Filter(must=[native])
        return list(self.shard.scroll(qdrant_edge.ScrollRequest(limit=1000, filter=where, with_payload=True))[0])

    def close(self) -> None:
        self.shard.close()


class LocalPoints:
    """Points of the client's local mode."""

    def __init__(self, dialect: ClientDialect) -> None:
        self.client = qdrant_client.QdrantClient(":memory:")
        self.dialect = dialect

    def store(self, points: Sequence[Point]) -> None:
        self.client.delete_collection("c")
        self.client.create_collection("c", {"v": models.VectorParams(size=1, distance=models.Distance.DOT)})
        made = [models.PointStruct(id=id_, vector={"v": [1.0]}, payload=payload) for id_, payload in points]
        self.client.upsert("c", made)

    def payloads(self, native: Any) -> Iterator[dict[str, Any]]:
        where = None if native is None else models.Filter(must=[native])
        return (point.payload or {} for point in self.client.scroll("c", where, limit=1000)[0])

    def count(self, native: Any) -> int:
        return int(self.client.count("c", models.Filter(must=[native])).count)

    def close(self) -> None:
        self.client.close()


Points = EdgePoints | LocalPoints


class Lookups(ClientDialect):
    """That of a server which knows the texts of every field, and compares no two numbers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.points: LocalPoints | None = None

    def values(self, key: str) -> Collection[str]:
        assert self.points is not None
        field = key.removeprefix("metadata.").strip('"')
        stored = [
            payload.get(field, (payload.get("metadata") or {}).get(field)) for payload in self.points.payloads(None)
        ]
        each = [one for value in stored for one in (value if isinstance(value, list) else [value])]
        return {one for one in each if isinstance(one, str)}

    def ranges(self, key: str, count: int) -> bool:
        return count < 2


@pytest.fixture(
    scope="module",
    params=["edge", "edge, Keyword", "edge, Float", "client", "client before 1.20", "client with lookups"],
)
def points(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Points]:
    made: Points
    if request.param.startswith("edge"):
        index = request.param.removeprefix("edge").removeprefix(", ")
        schema = getattr(qdrant_edge.PayloadSchemaType, index) if index else None
        made = EdgePoints(tmp_path_factory.mktemp("shard"), schema)
    elif request.param == "client with lookups":
        made = LocalPoints(lookups := Lookups())
        lookups.points = made
    else:
        made = LocalPoints(ClientDialect(substring=request.param == "client"))
    yield made
    made.close()


def found(points: Points, where: Filter, ids: Collection[str]) -> set[str]:
    native = translate(where, points.dialect, points.payloads)
    fitting = {payload["id"] for payload in points.payloads(native)}
    assert points.count(native) == len(fitting)
    assert fitting <= set(ids)
    return fitting


@st.composite
def several(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = draw(st.lists(st.sampled_from(["a", "b", "A", "ü", "1", "report.pdf, page 7", ""]), min_size=1, unique=True))
    return [draw(payloads(st.just(id_))) for id_ in ids]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(several(), st.lists(filters, min_size=1, max_size=8))
def test_the_engine_agrees_with_matches(points: Points, stored: list[dict[str, Any]], wheres: list[Filter]) -> None:
    points.store([(point_id(payload["id"]), payload) for payload in stored])
    for where in wheres:
        expected = {payload["id"] for payload in stored if matches(where, payload)}
        assert found(points, where, [payload["id"] for payload in stored]) == expected, where


EVERY_KIND: list[Any] = [None, "", "a", "A", "ab", "1", "true", True, False, 0, 1, 1.0, 3, -2.5, -0.0, 1e300]
EVERY_KIND += [2**53, 2**53 + 1, 2**63 - 1, -(2**63), [], {}, [None], [[]], [["a"]], {"a": "a"}]
EVERY_KIND += [["a", 1, None], [True, "ab"], ["A", 3]]


@pytest.mark.parametrize("op", Operator, ids=lambda op: op.value)
def test_every_operator_on_every_kind_of_value(points: Points, op: Operator) -> None:
    stored: list[dict[str, Any]]
    stored = [{"id": f"{number}", "metadata": {"x": value}} for number, value in enumerate(EVERY_KIND)]
    stored.append({"id": "none", "metadata": {}})
    points.store([(point_id(payload["id"]), payload) for payload in stored])
    simple = [value for value in EVERY_KIND if isinstance(value, str | bool | int | float)]
    values: Sequence[Any] = simple
    if op in (Operator.IN, Operator.NIN, Operator.ANY, Operator.ALL):
        values = [[value] for value in simple] + [list(pair) for pair in itertools.combinations(simple, 2)]
    elif op is Operator.EXISTS:
        values = [True, False]
    elif op in (Operator.TEXT, Operator.TEXT_INSENSITIVE):
        values = [value for value in simple if isinstance(value, str)]
    elif op in (Operator.GT, Operator.GTE, Operator.LT, Operator.LTE):
        values = [value for value in simple if not isinstance(value, bool)]
    assert len(values) > 1
    for value in values:
        where = Condition("x", op, value)
        expected = {payload["id"] for payload in stored if matches(where, payload)}
        assert found(points, where, [payload["id"] for payload in stored]) == expected, where


def none_expected(native: Any) -> Iterable[Mapping[str, Any]]:
    raise AssertionError("the filter should be Qdrant's own")


@pytest.mark.parametrize("dialect", [EDGE, ClientDialect()], ids=["edge", "client"])
@pytest.mark.parametrize(
    "where",
    [
        {"source": "a.pdf"},
        {"page": {"$gte": 3, "$lt": 9.5}},
        {"draft": True, "a.b": {"$ne": 3}},
        {"x": {"$in": ["a", 1, False]}, "y": {"$nin": ["b"]}},
        {"$or": [{"tags": {"$all": ["a", "b"]}}, {"$not": {"tags": {"$exists": True}}}]},
        {"$id": {"$in": ["a", "b"]}, "$document": "report.pdf"},
        {"$and": []},
        {"$or": []},
        {"file": {"$in": ["a.pdf", "not\udcffunicode"]}},
    ],
    ids=str,
)
def test_common_filters_read_no_payload(where: dict[str, Any], dialect: ClientDialect) -> None:
    parsed = parse_filter(where)
    assert parsed is not None
    translate(parsed, dialect, none_expected)


def test_text_with_surrogates_matches_nothing(points: Points) -> None:
    points.store([(point_id("a"), {"id": "a", "metadata": {"x": "b"}})])
    for op in (Operator.EQ, Operator.TEXT, Operator.TEXT_INSENSITIVE, Operator.CONTAINS):
        assert found(points, Condition("x", op, "\udcff"), ["a"]) == set()
    assert found(points, Condition("x", Operator.NE, "\udcff"), ["a"]) == {"a"}
    assert found(points, Condition("\udcff", Operator.EXISTS, False), ["a"]) == {"a"}


class Counting:
    """How many payloads were read, and how often."""

    def __init__(self, read: Callable[[Any], Iterable[Mapping[str, Any]]]) -> None:
        self.read, self.asked = read, list[int]()

    def __call__(self, native: Any) -> list[Mapping[str, Any]]:
        answer = list(self.read(native))
        self.asked.append(len(answer))
        return answer


def test_only_payloads_that_fit_the_native_part_are_read(points: Points) -> None:
    stored = [{"id": str(n), "metadata": {"page": n, "title": f"Title {n}"}} for n in range(50)]
    points.store([(point_id(str(n)), payload) for n, payload in enumerate(stored)])
    title = Condition("title", Operator.TEXT_INSENSITIVE, "TITLE 1")
    page = Condition("page", Operator.LT, 20)
    for where, asked in [
        (And((page, title)), [20]),
        (And((page, title, Not(title))), [20]),
        (And((page, Condition("missing", Operator.TEXT_INSENSITIVE, "a"))), [0]),
        (Or((page, title)), [50]),
        (Not(And((title, page))), [20]),
    ]:
        counting = Counting(points.payloads)
        native = translate(where, points.dialect, counting)
        # With the values at hand, no payload is read.
        assert counting.asked == ([] if isinstance(points.dialect, Lookups) else asked), where
        expected = {payload["id"] for payload in stored if matches(where, payload)}
        assert {payload["id"] for payload in points.payloads(native)} == expected


def test_many_numbers_without_an_index_are_looked_up_among_those_in_between(points: Points) -> None:
    stored = [{"id": str(n), "metadata": {"page": n if n % 2 else float(n), "tags": [n, "a"]}} for n in range(60)]
    points.store([(point_id(str(n)), payload) for n, payload in enumerate(stored)])
    numbers = (*range(10, 50), 11.5)
    for field, op, asked in [
        ("page", Operator.IN, [40]),
        ("tags", Operator.ANY, [40]),
        ("page", Operator.NIN, [40]),
    ]:
        where = Condition(field, op, numbers)
        counting = Counting(points.payloads)
        native = translate(where, points.dialect, counting)
        assert counting.asked == asked
        expected = {payload["id"] for payload in stored if matches(where, payload)}
        assert {payload["id"] for payload in points.payloads(native)} == expected
    indexed = ClientDialect(numbers=['metadata."page"'])
    translate(Condition("page", Operator.NIN, numbers), indexed, none_expected)


def test_texts_are_chosen_among_the_values_of_an_index() -> None:
    dialect = ClientDialect(values=lambda key: ["Low.pdf", "high.pdf"] if key == 'metadata."source"' else None)
    found = translate(Condition("source", Operator.TEXT_INSENSITIVE, "LOW"), dialect, none_expected)
    assert found == dialect.one_of('metadata."source"', ["Low.pdf"])
    assert translate(Condition("source", Operator.TEXT, "x"), dialect, none_expected) == dialect.ids(())
    with pytest.raises(AssertionError, match="Qdrant's own"):
        translate(Condition("title", Operator.TEXT, "x"), dialect, none_expected)


def test_ids_of_points_are_uuids_that_never_change() -> None:
    assert point_id("report.pdf, page 7") == point_id("report.pdf, page 7")
    assert point_id("1") != point_id("01")
    assert point_id("") == "b8f8d36a-46e2-5596-8101-154b3ce138ee"
    assert point_id("ü") == str(uuid.uuid5(uuid.UUID("6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90"), "ü"))
    assert point_id("\udcff") != point_id("\udcfe")
