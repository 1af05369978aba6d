"""Requests to collections that other programs have made: as few as to our own, and sent by the same sender."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Entry, Layout, MultiVectorStore
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.collection import connect
from tests.stores.backends import MODEL, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.collections import LAYOUTS, Made, made
from tests.stores.qdrant.grpc_stand_in import grpc_stand_in
from tests.stores.qdrant.stand_in import StandIn, stand_in


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def client(server: StandIn) -> Iterator[QdrantClient]:
    made_client = connect(server.url)
    yield made_client
    made_client.close()


def of_kind(client: QdrantClient, kind: str, count: int = 9) -> Made:
    return next(made(client, kind, [page(number, seed=3, rows=12) for number in range(count)]))


def opened(one: Made, url: str, **options: Any) -> MultiVectorStore:
    given = {"url": url, "collection_name": one.name, "model": MODEL, "layout": one.layout, "writable": True}
    return MultiVectorStore.open(**{**given, **options})


def asked(server: StandIn) -> list[str]:
    """The last parts of the paths of the requests since the last call."""
    paths = [path.rpartition("/")[2] for _, path, _ in server.asked]
    server.asked.clear()
    return paths


def added(number: int, **metadata: Any) -> tuple[Entry, Any]:
    entry = Entry(id=f"p{number}", metadata={"source": "new.pdf", "page": number, **metadata}, document_id="new")
    return entry, page(number, rows=3)


def test_documents_are_counted_by_the_server_where_their_key_has_an_index(
    server: StandIn, client: QdrantClient
) -> None:
    one = of_kind(client, "tutorial", 300)
    expected = {f"{number}.pdf": 100 for number in range(3)} | {"2.pdf": 99}
    expected["2.pdf"] -= 1  # one page has no document, another no payload
    store = opened(one, server.url)
    read = store.documents()
    assert asked(server).count("scroll") == 4  # two of them at the opening
    client.create_payload_index(one.name, "document", field_schema=models.PayloadSchemaType.KEYWORD)
    indexed = opened(one, server.url)
    asked(server)
    assert indexed.documents() == read == store.documents()
    assert asked(server)[:5] == ["facet", "count", "count", "scroll", "scroll"]  # the last one is of `store`
    assert sum(read.values()) == sum("document" in payload for payload in one.payloads.values())
    some = {"page": {"$lte": 2}}
    assert indexed.documents(some) == store.documents(some) == dict.fromkeys(["0.pdf", "1.pdf", "2.pdf"], 2)
    indexed.add([added(1), added(2)])
    assert indexed.documents() == store.documents() == {**read, "new": 2}
    for value in (7, ["0.pdf", "1.pdf"], "", None):  # the index of texts has neither numbers nor lists as such
        server.client.set_payload(one.name, {"document": value}, points=[0])
        asked(server)
        counted = indexed.documents()
        assert asked(server)[0] == "facet"
        assert counted == store.documents()
        assert counted.get("7", 0) == (value == 7)


@pytest.mark.parametrize("kind", [*LAYOUTS])
@pytest.mark.parametrize("transport", ["REST", "gRPC"])
def test_pages_are_sent_as_to_our_own_collections(kind: str, transport: str, server: StandIn) -> None:
    with grpc_stand_in() as grpc_server:
        place: dict[str, Any] = {"url": server.url}
        if transport == "gRPC":
            port = grpc_server.port
            place = {"url": f"http://127.0.0.1:{port}", "prefer_grpc": True, "grpc_port": port}
        making = connect(**place)
        one = of_kind(making, kind)
        with MultiVectorStore.open(
            **place, collection_name=one.name, model=MODEL, layout=one.layout, writable=True
        ) as store:
            assert store.add([added(number, tag="x") for number in range(1, 6)]) == 5
            assert len(store) == 14
            ids = [f"p{number}" for number in range(1, 6)]
            for number, stored in zip(range(1, 6), store.vectors(ids), strict=True):
                assert stored == pytest.approx(page(number, rows=3), abs=2e-3)
            assert {one.id for one in store.scroll({"tag": "x"})} == {*ids}
        making.close()


def test_a_page_that_the_server_refuses_is_named_and_the_others_are_stored(
    server: StandIn, client: QdrantClient
) -> None:
    one = of_kind(client, "fastembed")
    store = opened(one, server.url)
    made_point = store._points.point

    def point(entry: Entry, vectors: Any) -> Any:
        result = made_point(entry, vectors)
        if entry.page == 3:
            result.vectors["full"] = np.ones((2, 9), np.float16)  # type: ignore[index]
        return result

    store._points.point = point  # type: ignore[method-assign]
    told: list[tuple[str, str]] = []
    records = [added(number) for number in range(1, 8)]
    assert store.add(records, on_error=lambda entry, error: told.append((entry.id, str(error)))) == 6
    assert [id_ for id_, _ in told] == ["p3"]
    assert "the server refused: Wrong input: Vector dimension error" in told[0][1]
    assert len(store) == 15


def test_uploads_wait_for_a_server_that_comes_back(
    server: StandIn, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = of_kind(client, "tutorial")
    store, clock = opened(one, server.url), FakeClock()
    monkeypatch.setattr(retries, "CLOCK", clock)
    clock.then = lambda time: server.start() if time >= 2 and not server._thread.is_alive() else None
    server.stop()
    assert store.add([added(number) for number in range(1, 4)]) == 3
    assert clock.time >= 2
    assert len(store) == 12


def test_optimize_waits_and_changes_nothing(
    server: StandIn, client: QdrantClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retries, "CLOCK", FakeClock())
    one = of_kind(client, "tutorial")
    server.thresholds[one.name] = 0  # the other program loads
    seen: list[tuple[int, int]] = []
    for writable in (False, True):
        store = opened(one, server.url, writable=writable)
        server.statuses = ["yellow", "green", "yellow", "green", "green", "yellow"]
        store.optimize(progress=lambda done, of: seen.append((done, of)))
        assert server.statuses == ["yellow"]
        assert len(seen) == 5
        seen.clear()
        server.statuses = ["grey", "green"]
        with caplog.at_level(logging.WARNING):
            store.optimize()
        assert server.statuses == ["green"]
        assert "optimizes nothing before the collection's next change" in caplog.text
        server.statuses = ["red"]
        with pytest.raises(StoreError, match="the server cannot optimize the collection"):
            store.optimize()
    assert server.changes == []
    assert server.thresholds[one.name] == 0


def test_a_collection_that_is_gone_is_named_with_the_next_step() -> None:
    calls: list[Callable[[MultiVectorStore], object]] = [
        len,
        lambda store: store.search(page(1, rows=4)),
        lambda store: store.get(["0"]),
        lambda store: [*store.scroll()],
        lambda store: store.documents(),
        lambda store: store.add([added(1)]),
        lambda store: store.optimize(),
    ]
    with stand_in() as server, grpc_stand_in() as grpc_server:
        by_grpc = {"url": f"http://127.0.0.1:{grpc_server.port}", "prefer_grpc": True, "grpc_port": grpc_server.port}
        for place in ({"url": server.url}, by_grpc, {"url": ":memory:"}):
            client = connect(**place)
            one = of_kind(client, "tutorial")
            store = MultiVectorStore.open(
                client=client, collection_name=one.name, model=MODEL, layout=one.layout, writable=True
            )
            client.delete_collection(one.name)
            for call in calls[: -2 if place["url"] == ":memory:" else None]:
                with pytest.raises(StoreError) as raised:
                    call(store)
                message = str(raised.value)
                assert f"the Qdrant collection '{one.name}' at " in message
                assert "is not there (any more): another program made it, and opening it again makes none" in message
                assert "QdrantClient.get_collections" in message
            client.close()


def test_a_wrong_name_is_told_at_the_opening(server: StandIn) -> None:
    with pytest.raises(StoreError, match=r"'doks' at http://127.* does not exist, and a layout makes none; check its"):
        MultiVectorStore.open(url=server.url, collection_name="doks", model=MODEL, layout=Layout())


def test_the_error_without_a_layout_reads_one_picture(
    server: StandIn, client: QdrantClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = of_kind(client, "tutorial")
    ids = [record.id for record in client.scroll(one.name, limit=9)[0]]
    server.client.set_payload(one.name, {"image": "A" * 100_000}, points=ids)
    server.client.set_payload(one.name, {"late": True}, points=ids[-1:])
    sizes, respond = [], server.respond

    def counted(*given: Any) -> Any:
        answer = respond(*given)
        sizes.append(len(answer[2]))
        return answer

    monkeypatch.setattr(server, "respond", counted)
    with pytest.raises(StoreError, match=r"'image' \(text\), .*'late' \(.*image='image'"):
        opened(one, server.url, layout=None, writable=None)
    assert 100_000 < sum(sizes) < 150_000
