"""Which collections get a graph, which searches use it, and what is asked of a cluster."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from qdrant_client import models

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.collection_options import checked_options
from colpali_integrations.stores.engine import FIRST, FULL, VectorSpec
from colpali_integrations.stores.qdrant.graph import GRAPH_FROM
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.qdrant.test_requests import MODEL, vectors
from tests.stores.qdrant.test_server import MANIFEST, SCHEMA


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def links(server: StandIn, name: str, vector: str = FIRST) -> int | None:
    params = server.client.get_collection(name).config.params.vectors
    assert isinstance(params, dict)
    graph = params[vector].hnsw_config
    assert graph is not None
    return server.strict.graphs[name].get(vector, graph.m)


def opened(server: StandIn, name: str, schema: Mapping[str, VectorSpec] = SCHEMA, **options: Any) -> QdrantServerEngine:
    return QdrantServerEngine(
        connect(server.url), name, schema=schema, manifest=MANIFEST, options=options, owns_client=True
    )


def test_only_searched_graphs_are_made(server: StandIn) -> None:
    single = {FULL: VectorSpec(dim=8), FIRST: VectorSpec(dim=16, multi=False)}
    for name, schema, options, made in (
        ("ward", SCHEMA, {}, 0),
        ("ward-graph", SCHEMA, {"graph": True}, 32),
        ("muvera", single, {}, 0),
        ("muvera-graph", single, {"graph": True}, 32),
    ):
        opened(server, name, schema, **options).close()
        assert (links(server, name), links(server, name, FULL)) == (made, 0)
    assert server.changes == []


def test_an_existing_collection_gets_or_loses_its_graph_on_request(server: StandIn) -> None:
    opened(server, "changed").close()
    for graph, made in ((True, 32), (None, 32), (True, 32), (False, 0), (None, 0)):
        options: dict[str, Any] = {} if graph is None else {"graph": graph}
        opened(server, "changed", **options).close()
        assert links(server, "changed") == made
    assert len(server.changes) == 2


def test_a_graph_needs_a_first_stage_of_vectors(server: StandIn) -> None:
    with pytest.raises(ConfigurationError, match="graph=True is for first_stage='ward', 'rows' or 'muvera'"):
        opened(server, "exact", {FULL: VectorSpec(dim=8)}, graph=True)
    assert not server.client.collection_exists("exact")


def searched(server: StandIn, store: MultiVectorStore, **options: Any) -> models.SearchParams:
    """The parameters of the first stage of a two-stage search."""
    server.searches.clear()
    store.search(vectors(1), 3, mode="two_stage", **options)
    [search] = server.searches
    assert isinstance(search.prefetch, models.Prefetch)
    assert search.params is not None and search.params.exact
    assert search.prefetch.params is not None
    return search.prefetch.params


def test_a_collection_that_becomes_large_gets_a_graph_and_uses_it(
    server: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = MultiVectorStore.open(url=server.url, model=MODEL, first_stage="muvera")
    size = GRAPH_FROM
    monkeypatch.setattr(QdrantServerEngine, "holds_more_than", lambda _, number: size > number)
    store.add((entry, vectors(number)) for number, entry in enumerate(entries()))
    assert (links(server, "pages"), searched(server, store).exact) == (0, True)
    size = GRAPH_FROM + 1
    assert searched(server, store).exact
    store.add([(entries()[0], vectors(0))])
    assert (links(server, "pages"), len(server.changes)) == (32, 1)
    assert searched(server, store).hnsw_ef == 800
    assert searched(server, store, oversampling=100).hnsw_ef == 2400
    assert searched(server, store).acorn is None
    acorn = searched(server, store, where={"page": 1}).acorn
    assert acorn is not None and acorn.enable
    store.add([(entries()[1], vectors(0))])
    assert len(server.changes) == 1
    again = MultiVectorStore.open(url=server.url)
    assert searched(server, again).hnsw_ef == 800
    size = GRAPH_FROM
    assert searched(server, again).exact
    again.close()
    store.close()
    size = GRAPH_FROM + 1
    store = MultiVectorStore.open(url=server.url, collection_options={"graph": False})
    store.add([(entries()[1], vectors(0))])
    assert (links(server, "pages"), searched(server, store).exact) == (0, True)
    store.close()


def test_points_are_stored_where_the_graph_may_not_be_made(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = MultiVectorStore.open(url=server.url, model=MODEL, first_stage="muvera")
    monkeypatch.setattr(QdrantServerEngine, "holds_more_than", lambda _, number: True)
    monkeypatch.setattr(StandIn, "_patch_collection", lambda *_: forbidden())
    with caplog.at_level("WARNING"):
        for entry in entries():
            assert store.add([(entry, vectors(0))]) == 1
    assert len(caplog.records) == 1 and "it is scanned" in caplog.text
    assert searched(server, store).exact
    store.close()


def forbidden() -> None:
    raise ValueError("Global manage access is required")


def test_a_graph_that_is_wanted_is_used_in_every_two_stage_search(server: StandIn) -> None:
    store = MultiVectorStore.open(url=server.url, model=MODEL, collection_options={"graph": True})
    store.add((entry, vectors(number)) for number, entry in enumerate(entries()))
    assert searched(server, store).hnsw_ef == 800
    again = pickle.loads(pickle.dumps(store))
    assert searched(server, again).hnsw_ef == 800
    again.close()
    store.close()


def entries() -> list[Any]:
    from colpali_integrations.stores import Entry

    return [Entry(id=str(number)) for number in range(3)]


def test_reads_ask_for_the_wanted_replicas(server: StandIn) -> None:
    options = {"read_consistency": "majority", "shard_number": 6, "replication_factor": 2}
    store = MultiVectorStore.open(url=server.url, model=MODEL, collection_options=options)
    store.add((entry, vectors(number)) for number, entry in enumerate(entries()))
    server.queries.clear()
    store.search(vectors(1))
    store.get(["1"])
    store.vectors(["1"])
    list(store.scroll())
    store.documents()
    assert server.queries == ["consistency=majority"] * 5
    again = pickle.loads(pickle.dumps(store))
    server.queries.clear()
    again.get(["1"])
    assert server.queries == ["consistency=majority"]
    again.close()
    store.close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shard_number": 0}, "shard_number must be a whole number of at least 1, got 0"),
        ({"replication_factor": "two"}, "replication_factor must be a whole number"),
        ({"replication_factor": 2, "write_consistency_factor": 3}, "at most the replication_factor, 2, got 3"),
        ({"read_consistency": "most"}, "one of 'majority', 'quorum', 'all', got 'most'"),
        ({"read_consistency": 0}, "read_consistency must be a whole number"),
        ({"graph": "yes"}, "graph must be True or False"),
        ({"shard_numbers": 6}, "did you mean 'shard_number'"),
        ({"metadata": {}}, "collection_options has no 'metadata'"),
    ],
)
def test_invalid_options_are_refused_before_anything_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MultiVectorStore.open(url="http://127.0.0.1:1", model=MODEL, collection_options=options)


def test_valid_options_pass() -> None:
    checked = checked_options(
        {"shard_number": 3.0, "write_consistency_factor": 1, "on_disk_payload": True, "graph": False}
    )
    assert checked.creation == {"shard_number": 3, "write_consistency_factor": 1, "on_disk_payload": True}
    assert (checked.graph, checked.reading) == (False, {})
    assert checked_options(None).of_object == {}
    assert checked_options({"read_consistency": 2}).of_object == {"read_consistency": 2}
