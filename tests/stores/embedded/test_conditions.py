"""Filters in SQL agree with `matches`, which defines their meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colpali_integrations.stores.embedded.conditions import to_sql
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.engine import Point
from colpali_integrations.stores.filters import Filter, matches, parse_filter
from tests.stores.filter_cases import filters, payloads


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FolderEngine]:
    engine = FolderEngine(tmp_path_factory.mktemp("store"), schema={}, manifest={})
    yield engine
    engine.close()


@st.composite
def several(draw: st.DrawFn) -> list[dict[str, Any]]:
    ids = st.sampled_from(["a", "b", "A", "ü", "1", "a\0", "a\0b", "report.pdf, page 7", "\U0001f600"])
    return [draw(payloads(st.just(id_))) for id_ in draw(st.lists(ids, min_size=1, unique=True))]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(several(), st.lists(filters, min_size=1, max_size=8))
def test_the_engine_agrees_with_matches(
    engine: FolderEngine, stored: list[dict[str, Any]], wheres: list[Filter]
) -> None:
    engine.delete([payload["id"] for payload in engine.scroll()[0]])
    engine.upsert([Point(payload["id"], {}, None, payload) for payload in stored])
    for where in wheres:
        expected = {payload["id"] for payload in stored if matches(where, payload)}
        assert {payload["id"] for payload in engine.scroll(where)[0]} == expected, where
        assert engine.count(where) == len(expected), where


@pytest.mark.parametrize(
    ("where", "exact", "narrow"),
    [
        ({"$id": {"$in": ["a", "b"]}, "$document": "report.pdf"}, True, True),
        ({"$not": {"$content": {"$exists": True}}}, True, True),
        ({"source": "a.pdf"}, False, True),
        ({"tags": {"$in": ["a", "b"]}, "page": 3}, False, True),
        ({"$or": [{"source": "a.pdf"}, {"page": 3}]}, False, False),
        ({"$not": {"source": "a.pdf"}}, False, False),
        ({"page": {"$gte": 3}}, False, False),
        ({"$id": {"$in": ["a\0", "b"]}}, False, False),
        ({"$and": []}, True, False),
        ({"$or": []}, True, True),
    ],
    ids=str,
)
def test_sql_decides_or_narrows_down_common_filters(where: dict[str, Any], exact: bool, narrow: bool) -> None:
    clause = to_sql(parse_filter(where))
    assert (clause.exact, clause.sql.strip("()1 AND") != "") == (exact, narrow)


def test_a_filter_takes_any_number_of_values(engine: FolderEngine) -> None:
    engine.delete([payload["id"] for payload in engine.scroll()[0]])
    engine.upsert([Point(f"{number}", {}, None, {"id": f"{number}"}) for number in range(10)])
    many = parse_filter({"$id": {"$in": [f"{number}" for number in range(5, 100_000)]}})
    assert engine.count(many) == 5
    texts = parse_filter({"source": {"$in": [f"{number}" for number in range(100_000)]}})
    assert engine.count(texts) == 0
