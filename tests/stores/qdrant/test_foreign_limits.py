"""Collections that other programs have made in strict mode: no filter without an index, and limits of requests."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from qdrant_client import models

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores import Layout, MultiVectorStore
from colpali_integrations.stores.filters import matches, parse_filter
from colpali_integrations.stores.qdrant.collection import connect
from colpali_integrations.stores.search import Mode
from tests.stores.backends import DIM, MODEL, entry, page
from tests.stores.qdrant.collections import LAYOUTS, Made, direct, payload, vectors
from tests.stores.qdrant.profiles import CLOUD
from tests.stores.qdrant.stand_in import StandIn, stand_in

NARROW = {**CLOUD, "max_query_limit": 20, "upsert_max_batchsize": 10, "search_allow_exact": False}
QUERY = page(1000, rows=4)
COUNT = 36
ids = ["0", "70", "350"]


@contextmanager
def collection(profile: dict[str, Any], indexes: dict[str, str]) -> Iterator[tuple[StandIn, MultiVectorStore]]:
    """The tutorial's collection on a server with a strict mode, and with some indexes."""
    with stand_in(profile=profile) as server:
        client = connect(server.url)
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        one = models.VectorParams(size=DIM, distance=models.Distance.COSINE, multivector_config=multi)
        full = one.model_copy(update={"hnsw_config": models.HnswConfigDiff(m=0)})
        layout = LAYOUTS["tutorial"]
        client.create_collection("docs", {layout.full: full, **dict.fromkeys(layout.first, one)})
        for field, kind in indexes.items():
            client.create_payload_index("docs", field, field_schema=models.PayloadSchemaType(kind))
        points = [
            models.PointStruct(
                id=10 * number,
                vector=vectors("tutorial", page(number, seed=3, rows=12)),
                payload=payload("tutorial", number),
            )
            for number in range(COUNT)
        ]
        for start in range(0, COUNT, 9):
            client.upsert("docs", points[start : start + 9])
        given: dict[str, Any] = {"url": server.url, "collection_name": "docs", "model": MODEL, "layout": layout}
        store = MultiVectorStore.open(**given, writable=True)
        yield server, store
        store.close()
        client.close()


FILTERS: list[dict[str, Any]] = [
    {"document": "1.pdf"},
    {"source": "1.pdf", "page": {"$lte": 4}},
    {"page_number": {"$gte": 3, "$lt": 7}},
    {"page": {"$in": [1, 3]}},
    {"page": 2},
    {"tags": "a"},
    {"tags": {"$exists": False}},
    {"$document": "2.pdf"},
    {"$nor": [{"tags": "b"}, {"$document": "0.pdf"}]},
    {"$id": {"$in": ids}},
]


@pytest.mark.parametrize("indexes", [{}, {"document": "keyword", "page_number": "float"}], ids=["none", "some"])
def test_filters_without_an_index_are_decided_over_the_payloads(
    indexes: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), collection(dict(CLOUD), indexes) as (server, store):
        payloads = {
            one.id: {"metadata": one.metadata, "document_id": one.document_id, "id": one.id} for one in store.scroll()
        }
        for given in FILTERS * 2:
            where = parse_filter(given)
            assert where is not None
            expected = {id_ for id_, one in payloads.items() if matches(where, one)}
            assert 0 < len(expected) < COUNT, given
            assert {one.id for one in store.scroll(given)} == expected, given
            assert {hit.id for hit in store.search(QUERY, COUNT, where=given)} == expected, given
        assert server.strict.kinds("docs") == indexes  # it is never given any
        shown = {"keyword": "text", "float": "number"}
        assert store.info().indexes == {key: shown[kind] for key, kind in indexes.items()}
    warned = [
        record.getMessage() for record in caplog.records if "is in strict mode and has no index" in record.getMessage()
    ]
    assert 0 < len(warned) == len(set(warned))
    assert all(one.endswith(" makes them faster (QdrantClient.create_payload_index)") for one in warned)


def test_a_key_in_an_object_is_named_as_a_whole(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), stand_in(profile=CLOUD) as server:
        client = connect(server.url)
        multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
        one = models.VectorParams(size=DIM, distance=models.Distance.COSINE, multivector_config=multi)
        client.create_collection("docs", {"late": one})
        vector = {"late": page(1, rows=2).tolist()}
        client.upsert("docs", [models.PointStruct(id=1, vector=vector, payload={"metadata": {"page": 3}})])
        layout = Layout(full="late", page="metadata.page")
        store = MultiVectorStore.open(url=server.url, collection_name="docs", model=MODEL, layout=layout)
        assert [entry.page for entry in store.scroll({"page": 3})] == [3]
        client.close()
    [message] = [record.getMessage() for record in caplog.records if "strict mode" in record.getMessage()]
    assert "has no index for metadata.page: filters on it read the payloads" in message
    assert "Open the store with indexes=" not in message  # which are for collections of this package


def test_requests_keep_within_the_limits_of_a_collection() -> None:
    with collection(NARROW, {"document": "keyword"}) as (server, store):
        assert sum(1 for _ in store.scroll()) == COUNT
        assert len(store.hashes()) == COUNT
        client = connect(server.url)
        made = Made(client, "docs", LAYOUTS["tutorial"], {})
        expected = direct(made, QUERY, 3, candidates=20)  # the limit
        modes: list[Mode] = ["auto", "two_stage"]
        for mode in modes:
            found = store.search(QUERY, 3, mode=mode)
            assert [hit.id for hit in found] == [id_ for id_, _ in expected]
            assert [hit.score for hit in found] == pytest.approx([score for _, score in expected])
        best = dict(direct(made, QUERY, 20, candidates=20))
        assert store.score(QUERY, [*best]) == pytest.approx(best)
        with pytest.raises(ConfigurationError, match=r"forbids exact searches .* a layout whose first names vectors"):
            store.search(QUERY, 3, mode="exact")
        store.add((entry(number), page(number)) for number in range(25))
        assert len(store.hashes()) == COUNT + 25
        assert store.delete([f"page {number}" for number in range(25)]) == 25
        client.close()


def test_indexes_are_not_for_such_collections() -> None:
    with collection(dict(CLOUD), {}) as (server, store):
        given: dict[str, Any] = {"url": server.url, "collection_name": "docs", "model": MODEL}
        with pytest.raises(
            ConfigurationError, match="indexes: for a new store; a collection with a layout stays as it"
        ):
            MultiVectorStore.open(**given, layout=Layout(full="original"), indexes={"tags": "text"})
        assert store.info().entries == COUNT
