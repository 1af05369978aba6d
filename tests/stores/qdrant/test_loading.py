"""Loading in bulk: indexing off and on, and the wait for a green collection."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.qdrant import retries
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.qdrant.test_requests import MODEL, vectors


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def store(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[MultiVectorStore]:
    monkeypatch.setattr(retries, "CLOCK", FakeClock())
    with MultiVectorStore.open(url=server.url, model=MODEL) as store:
        yield store


def thresholds(server: StandIn) -> list[int | None]:
    changed = [change.optimizers_config for change in server.changes]
    return [one.indexing_threshold for one in changed if one is not None]


def test_nothing_is_indexed_during_a_load(server: StandIn, store: MultiVectorStore) -> None:
    server.thresholds["pages"] = 5_000
    with store.loading():
        assert server.thresholds["pages"] == 0
        assert store.add((Entry(id=str(number)), vectors(number)) for number in range(9)) == 9
        assert len(store.search(vectors(1), 3)) == 3
    assert server.thresholds["pages"] == 5_000
    with pytest.raises(ZeroDivisionError), store.loading():
        raise ZeroDivisionError
    assert thresholds(server) == [0, 5_000, 0, 5_000]


def test_indexing_is_switched_on_after_an_interrupted_load(server: StandIn, store: MultiVectorStore) -> None:
    server.thresholds["pages"] = 0
    store.optimize()
    assert server.thresholds["pages"] == 10_000
    server.thresholds["pages"] = 0
    with store.loading():
        assert server.thresholds["pages"] == 0
    assert server.thresholds["pages"] == 10_000


def test_optimize_waits_until_the_collection_stays_green(server: StandIn, store: MultiVectorStore) -> None:
    store.add([(Entry(id="1"), vectors(1))])
    seen: list[tuple[int, int]] = []
    server.statuses = ["green", "yellow", "yellow", "green", "green", "yellow"]
    store.optimize(progress=lambda done, of: seen.append((done, of)))
    assert server.statuses == ["yellow"]
    assert len(seen) == 5
    assert all(0 <= done <= of == 2 for done, of in seen)
    assert thresholds(server) == []


def test_a_grey_collection_is_set_to_work(server: StandIn, store: MultiVectorStore) -> None:
    server.statuses = ["grey", "yellow"]
    store.optimize()
    assert len(server.changes) == 1


def test_a_red_collection_is_an_error(server: StandIn, store: MultiVectorStore) -> None:
    server.statuses = ["yellow", "red"]
    with pytest.raises(StoreError, match=r"'pages' at http.*cannot optimize the collection: ok"):
        store.optimize()


def test_other_stores_load_as_always() -> None:
    store = MultiVectorStore.open(model=MODEL)
    with store.loading():
        assert store.add([(Entry(id="1"), vectors(1))]) == 1
    store.optimize(progress=lambda *_: pytest.fail("nothing is waited for"))
    assert len(store) == 1
