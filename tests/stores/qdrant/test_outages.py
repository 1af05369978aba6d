"""A server that goes away and comes back, pages that it refuses, and nodes that are lost: through whole stores."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qdrant_client import QdrantClient

from colpali_integrations import ColPali
from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Entry, MultiVectorStore, copy_store, index_documents
from colpali_integrations.stores.engine import FULL, Point, VectorSpec
from colpali_integrations.stores.ingestion.progress import Progress
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect
from colpali_integrations.stores.refused import PointsRefusedError
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.grpc_stand_in import GrpcStandIn, grpc_stand_in
from tests.stores.qdrant.refusals import Cluster
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.stored_models import made_up

COUNT = 500


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture
def grpc_server() -> Iterator[GrpcStandIn]:
    with grpc_stand_in() as running:
        yield running


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    made = FakeClock()
    monkeypatch.setattr(retries, "CLOCK", made)
    yield made


def connected(server: StandIn | GrpcStandIn) -> QdrantClient:
    if isinstance(server, GrpcStandIn):
        return connect(f"http://127.0.0.1:{server.port}", prefer_grpc=True, grpc_port=server.port)
    return connect(server.url)


def opened(server: StandIn | GrpcStandIn, **options: Any) -> MultiVectorStore:
    if isinstance(server, GrpcStandIn):
        options |= {"prefer_grpc": True, "grpc_port": server.port}
        return MultiVectorStore.open(url=f"http://127.0.0.1:{server.port}", **{"model": MODEL, **options})
    return MultiVectorStore.open(url=server.url, **{"model": MODEL, **options})


def records(count: int, away: dict[int, Callable[[], object]]) -> Iterator[tuple[Entry, Any]]:
    """Pages; before some of them something happens."""
    for number in range(count):
        away.get(number, lambda: None)()
        yield entry(number), page(number, rows=2)


class Away:
    """Stops a server, which comes back after so many seconds of a clock."""

    def __init__(self, server: StandIn, clock: FakeClock, seconds: float) -> None:
        self.server, self.clock, self.seconds, self.times = server, clock, seconds, 0
        self.back, self.lock = 0.0, threading.Lock()  # several threads wait
        clock.then = self.look

    def __call__(self) -> None:
        self.times += 1
        self.back = self.clock.time + self.seconds
        self.server.stop()

    def look(self, time: float) -> None:
        with self.lock:
            self.clock.then = self.look
            if time >= self.back and self.server.socket.fileno() == -1:
                self.server.start()


def test_a_run_goes_on_when_the_server_was_away_twice(server: StandIn, clock: FakeClock) -> None:
    away = Away(server, clock, 30)
    with opened(server) as store:
        # Record 470 is read once the batch of record 200 is stored, because of three batches on their way at once.
        assert store.add(records(COUNT, {200: away, 470: away})) == COUNT
        assert away.times == 2
        assert clock.time >= 60
        ids = [one.id for one in store.scroll()]
        assert len(ids) == len(set(ids)) == len(store) == COUNT


def test_an_outage_of_moments_without_a_fake_clock(server: StandIn, grpc_server: GrpcStandIn) -> None:
    for one in (server, grpc_server):
        timers = [threading.Timer(1.2, one.start)]

        def stop(one: Any = one, timers: Any = timers) -> None:
            one.stop()
            timers[0].start()

        with opened(one) as store:
            assert store.add(records(300, {150: stop})) == 300
            timers[0].join()
            assert len({entry.id for entry in store.scroll()}) == 300


def test_indexing_shows_its_waits_and_goes_on(
    server: StandIn, clock: FakeClock, coltiny: ColPali, examples_folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[Progress] = []
    away = Away(server, clock, 30)

    def progress(state: Progress) -> None:
        seen.append(state)
        if state.done == 1 and not away.times:
            away()

    with opened(server, model=coltiny) as store, caplog.at_level(logging.WARNING):
        report = index_documents(examples_folder / "report.pdf", model=coltiny, store=store, progress=progress)
        assert (report.added, report.failures, len(store)) == (2, [], 2)
    waits = [state.waiting for state in seen if state.waiting is not None]
    assert waits
    assert all(wait.startswith(f"{server.url}: ") and wait.endswith("trying again for 60 s") for wait in waits)
    assert seen[-1].waiting is None
    assert [state.done for state in seen if not state.waiting] == [0, 1, 2, 2]
    told = [entry.message for entry in caplog.records if server.url in entry.message]
    assert told == [waits[0], f"{server.url} answers again"]


def test_a_copy_shows_its_waits(server: StandIn, clock: FakeClock) -> None:
    seen: list[str | None] = []
    away = Away(server, clock, 30)

    def progress(done: int, total: int) -> None:
        if not away.times:
            away()

    with MultiVectorStore.open(model=MODEL) as source, opened(server) as target:
        source.add(records(40, {}))
        assert copy_store(source, target, progress=progress, waiting=seen.append).copied == 40
    assert seen[-1] is None
    assert seen[0] == f"{server.url}: [Errno 111] Connection refused; trying again for 60 s"


def test_a_run_that_gives_up_says_how_to_go_on(
    server: StandIn, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(server) as store:
        monkeypatch.setattr(store._engine, "batches_at_once", 1)  # the clock adds up what threads wait at once
        with pytest.raises(StoreError) as caught:
            store.add(records(COUNT, {200: server.stop}))
        message = str(caught.value)
        assert clock.time == pytest.approx(60)
        server.start()
        assert f"{len(store)} pages are stored; add the records again" in message
        assert len(store) == 192  # three batches of 64
        assert "cannot be reached" in message
        assert "(tried again for 60 s)" in message


def test_indexing_that_gives_up_continues_the_next_time(
    server: StandIn, clock: FakeClock, coltiny: ColPali, examples_folder: Path
) -> None:
    with opened(server, model=coltiny, retry_seconds=(5, 20)) as store:
        index_documents(examples_folder / "report.pdf", model=coltiny, store=store, pages=[1])
        times: list[int] = []

        def progress(state: Progress) -> None:
            times.append(state.done)
            server.stop()

        with pytest.raises(StoreError, match=r"tried again for 20 s.*No page is stored by this run; run it again"):
            index_documents(examples_folder / "report.pdf", model=coltiny, store=store, progress=progress)
        assert clock.time == pytest.approx(20)
        server.start()
        report = index_documents(examples_folder / "report.pdf", model=coltiny, store=store)
        assert (report.added, report.present) == (1, 1)


def test_single_calls_give_up_after_five_seconds(server: StandIn, clock: FakeClock) -> None:
    store = opened(server)
    store.add(records(3, {}))
    server.stop()
    calls: list[Callable[[], object]] = [
        lambda: len(store),
        lambda: store.search(page(1), 1),
        lambda: store.get(["page 1"]),
        lambda: store.add(records(1, {})),
        lambda: store.delete(["page 1"]),
    ]
    for call in calls:
        before = clock.time
        with pytest.raises(StoreError, match=r"cannot be reached.*\(tried again for 5 s\)"):
            call()
        assert 5 <= clock.time - before < 6
    server.start()
    assert len(store) == 3  # the same object works again
    store.close()
    server.stop()
    before = clock.time
    with pytest.raises(StoreError, match="address and port right"):
        opened(server)
    assert clock.time == before


def test_nodes_that_are_lost_for_a_while(server: StandIn, grpc_server: GrpcStandIn, clock: FakeClock) -> None:
    for one in (server, grpc_server):
        one.cluster = Cluster()
        with opened(one, collection_options={"write_consistency_factor": 2}) as store:
            store.add(records(3, {}))
            for lost in (1, 2):
                one.cluster.lost = lost
                back = clock.time + 4
                clock.then = finding(one.cluster, back)
                assert store.add(records(10, {})) == 10
                assert clock.time >= back
            one.cluster.lost = 2
            clock.then = lambda _: None
            with pytest.raises(StoreError, match="nodes of the cluster cannot be reached"):
                store.search(page(1), 1)


def finding(cluster: Cluster, back: float) -> Callable[[float], None]:
    """Ends the loss of nodes at a time."""

    def then(time: float) -> None:
        if time >= back:
            cluster.lost = 0

    return then


@pytest.mark.parametrize("framework", ["store", "langchain", "llama_index"])
def test_the_next_url_answers(server: StandIn, framework: str, coltiny: ColPali) -> None:
    with stand_in() as other:
        other.client.close()
        other.client, other.strict = server.client, server.strict  # another node of the same cluster
        urls = [server.url, other.url]
        found: Callable[[], list[str | None]]
        if framework == "store":
            store = MultiVectorStore.open(url=urls, model=MODEL, retry_seconds=1)
            store.add(records(1, {}))
            found = lambda: [hit.id for hit in store.search(page(0), 1)]  # noqa: E731
            expected = "page 0"
        elif framework == "langchain":
            from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore

            vectors = LangChainStore(url=urls, retry_seconds=1)
            vectors.add_texts(["low tide"], ids=["tide"])
            found = lambda: [one.id for one in vectors.similarity_search("tide", k=1)]  # noqa: E731
            expected = "tide"
        else:
            from llama_index.core.schema import TextNode
            from llama_index.core.vector_stores.types import VectorStoreQuery

            from colpali_integrations.llama_index import ColPaliVectorStore as LlamaStore

            nodes = LlamaStore(url=urls, client_options={"retry_seconds": [1, 2]})
            nodes.add([TextNode(id_="tide", text="low tide")])
            found = lambda: [*(nodes.query(VectorStoreQuery(query_str="tide", similarity_top_k=1)).ids or ())]  # noqa: E731
            expected = "tide"
        assert found() == [expected]
        before = len(other.asked)
        server.stop()
        assert found() == [expected]
        assert len(other.asked) > before
        server.start()
        other.stop()
        assert found() == [expected]
        server.stop()
        with pytest.raises(StoreError, match=f"at {server.url}, {other.url}: the server cannot be reached"):
            found()
        server.start()


def test_everything_goes_on_over_another_node(server: StandIn, clock: FakeClock) -> None:
    """Searches, changes, copies, facets and loads, while either node is gone; one that comes back is asked again."""
    with stand_in() as other, MultiVectorStore.open(model=MODEL) as copied:
        other.client.close()
        other.client, other.strict, other.lock = server.client, server.strict, server.lock  # of the same cluster
        other.thresholds = server.thresholds
        copied.add(records(20, {}))
        nodes = (server, other)
        with MultiVectorStore.open(url=[one.url for one in nodes], model=MODEL) as store:
            for turn in range(4):
                gone, left = nodes[turn % 2], nodes[(turn + 1) % 2]
                asked = len(left.asked)
                with store.loading():  # which the other node has to end
                    store.add(records(70, {}))
                    gone.stop()
                    assert store.add(records(200, {})) == 200
                assert server.thresholds["pages"] == 10_000
                assert {hit.id for hit in store.search(page(1), 200)} == {f"page {number}" for number in range(200)}
                assert sum(store.documents().values()) == len(store) == 200
                assert store.update_metadata(entry(1).document_id or "", {"turn": turn})
                assert store.count({"turn": turn}) > 0
                assert store.delete([f"page {number}" for number in range(20)]) == 20
                assert copy_store(copied, store).copied == 20
                store.optimize()
                assert len(left.asked) > asked
                gone.start()
            assert clock.waits == [0.2] * 4, "of `optimize`: another node answers at once"
            for one in nodes:
                one.stop()
            message = f"{server.url}, {other.url}: the server cannot be reached"
            for ask in (lambda: store.search(page(1), 1), lambda: store.add(records(1, {})), store.documents):
                with pytest.raises(StoreError, match=message):
                    ask()
            server.start()
            assert len(store) == 200


WIDE = made_up("wide", dim=128)
LARGE = np.ones((8192, 128), np.float16)  # one number more than a server takes


def test_a_page_that_is_too_large_costs_no_other(server: StandIn, grpc_server: GrpcStandIn) -> None:
    small = np.ones((3, 128), np.float16)
    for one in (server, grpc_server):
        with opened(one, model=WIDE, first_stage="exact") as store:
            with pytest.raises(StoreError) as caught:
                store.add([(entry(1), small), (entry(2), LARGE), (entry(3), small)])
            message = str(caught.value)
            assert message.startswith(
                "2.pdf, page 2: 8,192 vectors of 128 numbers are too many for the Qdrant collection"
            )
            for remedy in ("pool_factor=", "dim=", "max_num_visual_tokens=", "dpi=", "path="):
                assert remedy in message
            assert message.endswith("2 other entries are stored")
            assert sorted(one.page or 0 for one in store.scroll()) == [1, 3]


def test_a_server_that_refuses_a_large_page_names_its_point(server: StandIn, grpc_server: GrpcStandIn) -> None:
    for one in (server, grpc_server):
        client = connected(one)
        schema = {FULL: VectorSpec(dim=128)}
        engine = QdrantServerEngine(client, "engine", schema=schema, manifest={"a": 1}, owns_client=True)
        arrays = {"a": LARGE[:2], "b": LARGE, "c": LARGE[:3], "d": LARGE[:1]}
        with pytest.raises(PointsRefusedError, match=r"Total size of all vectors \(1048576\)") as caught:
            engine.upsert([Point(id_, {FULL: array}, None, {"id": id_}) for id_, array in arrays.items()])
        assert list(caught.value.errors) == ["b"]
        assert [payload is not None for payload in engine.retrieve(list(arrays))] == [True, False, True, True]
        engine.close()


def test_pages_that_the_server_refuses_are_named(server: StandIn, grpc_server: GrpcStandIn) -> None:
    """Those of a whole batch: the server does not say which."""
    for one in (server, grpc_server):
        with opened(one, first_stage="exact") as store:
            store._points._max_numbers = None  # as if the server took less than it says
            store._points.point = refusing(store._points.point)  # type: ignore[method-assign]
            told: list[tuple[Entry, StoreError]] = []
            assert store.add(records(20, {}), on_error=lambda *both, told=told: told.append(both)) == 17
            assert len(store) == 17
            names = [f"{refused.id}: {error}" for refused, error in told]
            assert [name.partition(":")[0] for name in names] == ["page 3", "page 11", "page 12"]
            assert all("the server refused: Wrong input: Vector dimension error" in name for name in names)
            assert names[0].startswith("page 3: 0.pdf, page 3: the Qdrant collection 'pages' at http")
            with pytest.raises(StoreError, match=r"^0\.pdf, page 3: .*2 more entries were refused: .*17 other entries"):
                store.add(records(20, {}))


def refusing(point: Callable[..., Any]) -> Callable[..., Any]:
    """Makes points of which some have vectors of another length than the collection."""

    def made(one: Entry, vectors: Any) -> Any:
        result = point(one, vectors)
        if one.page in (3, 11, 12):
            result.vectors["full"] = np.ones((2, 9), np.float16)
        return result

    return made
