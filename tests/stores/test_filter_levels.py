"""Filters within filters: 30 levels work on every engine and at every door, and deeper ones are refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.vector_stores.types import FilterCondition, MetadataFilter, MetadataFilters

from colpali_integrations.cli.app import run
from colpali_integrations.errors import InputError
from colpali_integrations.langchain import ColPaliVectorStore
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.stores import parse_filter
from colpali_integrations.stores.filters import MAX_LEVELS, And, Condition, Filter, Not, Operator, Or
from tests.stores.backends import Open, entry, page

REFUSAL = "a filter may have 30 levels of filters within filters, and this one has more"
LEAVES = ({"page": 1}, {"$id": "page 1"}, {"$id": {"$in": ["page 1"], "$ne": "x"}, "$document": {"$exists": True}})
WAYS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "and": lambda inner: {"$and": [inner]},
    "or": lambda inner: {"$or": [inner, {"$id": "none"}]},
    "nor": lambda inner: {"$nor": [inner]},
    "not": lambda inner: {"$not": inner},
    "several": lambda inner: {"$nor": [inner, {"$id": "none"}], "page": {"$gte": 1}},
}


def nested(way: Callable[[Any], Any], inner: Any, levels: int) -> Any:
    for _ in range(levels - 1):
        inner = way(inner)
    return inner


@pytest.fixture(scope="module")
def deep() -> Callable[[str, int], dict[str, Any]]:
    """A filter of 50,000 levels over a leaf of LEAVES, made once for all engines; each call changes the leaf."""

    @cache
    def made(way: str) -> tuple[dict[str, Any], dict[str, Any]]:
        leaf: dict[str, Any] = {}
        return leaf, nested(WAYS[way], leaf, 50_000)

    def over(way: str, number: int) -> dict[str, Any]:
        leaf, where = made(way)
        leaf.clear()
        leaf.update(LEAVES[number])
        return where

    return over


@pytest.mark.parametrize("way", WAYS)
def test_thirty_levels_are_answered_by_every_engine(
    way: str, open_store: Open, deep: Callable[[str, int], dict[str, Any]]
) -> None:
    store = open_store()
    store.add([(entry(n), page(n)) for n in (1, 2)])
    for number, leaf in enumerate(LEAVES):
        negated = way in ("nor", "not", "several") and (MAX_LEVELS - 1) % 2
        expected = ["page 2"] if negated else ["page 1"]
        where = nested(WAYS[way], leaf, MAX_LEVELS)
        assert [hit.id for hit in store.search(page(1), where=where)] == expected
        assert store.count(where) == 1
        for refused in (nested(WAYS[way], leaf, MAX_LEVELS + 1), deep(way, number)):
            with pytest.raises(InputError, match=REFUSAL):
                store.search(page(1), where=refused)


def test_filters_made_of_objects_have_a_limit_too() -> None:
    where: Filter = Condition("page", Operator.EQ, 1)
    for _ in range(50_000):
        where = Not(Or((where,)))
    with pytest.raises(InputError, match=REFUSAL):
        parse_filter(where)
    with pytest.raises(InputError, match=REFUSAL):
        parse_filter({"$and": [where]})
    shared: Filter = Condition("page", Operator.EQ, 1)
    for _ in range(50):
        shared = And((shared, shared))  # 2**50 parts, but 51 levels
    assert parse_filter(shared) is shared


def test_loops_and_deep_values_are_refused() -> None:
    loop: dict[str, Any] = {}
    loop["$and"] = [loop]
    operators = nested(lambda inner: {"$not": inner}, {"$eq": 1}, 32)
    for where in (loop, {"page": operators}, {"page": {"$gte": nested(lambda inner: [inner], [], 50_000)}}):
        with pytest.raises(InputError, match=REFUSAL):
            parse_filter(where)


def test_every_door_refuses_deep_filters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    deep = nested(WAYS["and"], {"page": 1}, MAX_LEVELS + 1)
    with ColPaliVectorStore(path=tmp_path / "store") as store:
        [id_] = store.add_texts(["low tide"], [{"page": 1}])
        for call in (
            lambda: store.similarity_search("tide", filter=deep),
            lambda: store.delete([id_], filter=deep),
            lambda: store.as_retriever(search_kwargs={"filter": deep}).invoke("tide"),
        ):
            with pytest.raises(InputError, match=REFUSAL):
                call()
    filters = MetadataFilters(filters=[MetadataFilter(key="page", value=1)])
    with closing(LlamaIndexStore(path=str(tmp_path / "store"))) as store_of_nodes:
        for levels in range(1, MAX_LEVELS + 2):
            if levels > MAX_LEVELS:
                with pytest.raises(InputError, match=REFUSAL):
                    store_of_nodes.get_nodes(filters=filters)
            else:
                assert len(store_of_nodes.get_nodes(filters=filters)) == levels % 2
            filters = MetadataFilters(filters=[filters], condition=FilterCondition.NOT)
    for levels in (MAX_LEVELS + 1, 100_000):
        text = '{"$and": [' * (levels - 1) + json.dumps({"page": 1}) + "]}" * (levels - 1)
        assert run(["search", "tide", "--store", str(tmp_path / "store"), "--filter", text]) in (1, 2)
        assert "levels of filters within filters" in " ".join(capsys.readouterr().err.replace("│", " ").split())
