"""How many requests an operation makes, and what is remembered between them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations.models import find_model
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.filters import parse_filter
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect
from colpali_integrations.stores.remembered import REMEMBERED_SECONDS, KnownSize, KnownWords
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.qdrant.test_server import MANIFEST, SCHEMA, page, unit

MODEL = find_model("Qdrant/colpali-v1.3-fp16")


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def vectors(seed: int, count: int = 3) -> NDArray[np.float32]:
    return unit(np.random.default_rng(seed).standard_normal((count, MODEL.dim)))


def asked(server: StandIn) -> list[str]:
    """The last parts of the paths of the requests since the last call."""
    paths = [path.rpartition("/")[2] for _, path, _ in server.asked]
    server.asked.clear()
    return paths


@pytest.fixture
def large(server: StandIn) -> Iterator[MultiVectorStore]:
    """A store that is searched in two stages."""
    store = MultiVectorStore.open(url=server.url, collection_name="large", model=MODEL, first_vectors=2)
    texts = ["low tide at six", "high water"]
    store.add(
        (Entry(id=str(number), text=texts[number % 2], document_id=f"d{number // 2}"), vectors(number))
        for number in range(1010)
    )
    asked(server)
    yield store
    server.client.delete_collection("large")
    store.close()


def test_a_search_is_one_request_and_a_hybrid_one_two(server: StandIn, large: MultiVectorStore) -> None:
    large.search(vectors(1))
    assert asked(server) == ["count", "batch"]  # once a minute
    for _ in range(3):
        assert len(large.search(vectors(1), mode="auto")) == 10
    assert asked(server) == ["batch"] * 3
    large.search(vectors(1), hybrid=True, text="low tide")
    assert asked(server) == ["count", "scroll", "batch", "batch"]  # the first two once a minute
    for _ in range(3):
        large.search(vectors(1), hybrid=True, text="low tide")
        assert asked(server) == ["batch"] * 2


def test_three_thousand_documents_are_listed_by_two_requests(server: StandIn) -> None:
    engine = QdrantServerEngine(connect(server.url), "documents", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    names = [f"d{number}" for number in range(3300)]
    for first in range(0, 3300, 300):
        points = [page(number) for number in range(first, first + 300)]
        for point in points:
            point.payload["document_id"] = names[int(point.id)]
        engine.upsert(points)
    note = page(9999)
    del note.payload["document_id"]
    engine.upsert([note, page(3300, open=True)])
    asked(server)
    assert engine.documents() == {**dict.fromkeys(names, 1), f"g{3300 % 3}": 1}
    assert len(asked(server)) <= 2
    assert engine.documents(parse_filter({"page": {"$lt": 3}})) == {"d0": 1, "d1": 1, "d2": 1}
    assert asked(server) == ["facet"]
    server.client.delete_collection("documents")
    engine.close()


def test_facets_are_asked_with_growing_limits(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("colpali_integrations.stores.qdrant.facets._LIMITS", (2, 4, 8))
    engine = QdrantServerEngine(connect(server.url), "limits", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    for documents, requests in ((1, 1), (2, 2), (7, 3), (8, 4)):
        for number in range(documents):
            point = page(number)
            point.payload["document_id"] = f"d{number}"
            engine.upsert([point])
        asked(server)
        assert engine.documents() == {f"d{number}": 1 for number in range(documents)}
        assert asked(server) == ["facet"] * min(requests, 3) + ["scroll"] * (requests == 4)
    server.client.delete_collection("limits")
    engine.close()


def test_documents_are_read_where_facets_are_refused(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = QdrantServerEngine(connect(server.url), "refused", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    engine.upsert([page(number) for number in range(9)])
    expected = {"g0": 3, "g1": 3, "g2": 3}
    monkeypatch.delitem(server.strict.indexes["refused"], "document_id")
    asked(server)
    assert engine.documents() == expected
    assert asked(server) == ["facet", "scroll"]
    assert engine.documents() == expected
    assert asked(server) == ["scroll"]
    server.client.delete_collection("refused")
    engine.close()


def test_substrings_of_sources_are_chosen_among_their_values(server: StandIn) -> None:
    engine = QdrantServerEngine(connect(server.url), "sources", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    engine.upsert([page(number, source=f"Report {number % 4}.pdf", title="A") for number in range(40)])
    asked(server)
    where = parse_filter({"source": {"$itext": "rEPORT 3"}})
    assert engine.count(where) == 10
    assert asked(server) == ["facet", "count"]
    assert engine.count(parse_filter({"source": {"$not": {"$itext": "report"}}})) == 0
    assert asked(server) == ["facet", "count"]
    assert engine.count(parse_filter({"title": {"$itext": "a"}})) == 40
    assert asked(server) == ["scroll", "count"]
    server.client.delete_collection("sources")
    engine.close()


def test_a_size_is_asked_for_where_it_may_have_changed() -> None:
    now, stored, count = 0.0, 990, Counter[str]()

    def ask() -> int:
        count["asked"] += 1
        return stored

    size = KnownSize(ask, lambda: now)
    assert not size.holds_more_than(1000) and not size.holds_more_than(1000)
    assert count["asked"] == 1
    size.added(10)  # at most 1000
    assert not size.holds_more_than(1000)
    assert count["asked"] == 1
    stored = 1005
    size.added(5)
    assert size.holds_more_than(1000)
    assert count["asked"] == 2
    size.added(500)
    size.removed(4)  # at least 1001
    assert size.holds_more_than(1000)
    assert count["asked"] == 2
    stored = 1000
    size.removed(1)
    assert not size.holds_more_than(1000)
    assert count["asked"] == 3
    stored = 5000  # by another process
    now = REMEMBERED_SECONDS - 1
    assert not size.holds_more_than(1000)
    now = REMEMBERED_SECONDS
    assert size.holds_more_than(1000)
    assert count["asked"] == 4


def test_words_are_asked_for_until_there_are_some() -> None:
    now, has, count = 0.0, False, Counter[str]()

    def ask() -> bool:
        count["asked"] += 1
        return has

    words = KnownWords(ask, lambda: now)
    assert not words.has() and not words.has()
    has = True
    assert words.has() and words.has() and count["asked"] == 3
    has = False
    assert words.has()
    words.forget()
    assert not words.has()
    has = True
    assert words.has()
    has, now = False, REMEMBERED_SECONDS
    assert not words.has()


def test_an_own_change_is_seen_at_once(server: StandIn, large: MultiVectorStore) -> None:
    def is_staged() -> bool:
        return bool(large._searcher._two_stages("auto"))

    assert is_staged()
    assert large._engine.has_words()
    large.delete([str(number) for number in range(10)])
    assert not is_staged()
    large.add([(Entry(id="new"), vectors(0))])
    assert is_staged()
    large.delete(large.hashes())
    assert not large._engine.has_words()
    assert len(large) == 0
