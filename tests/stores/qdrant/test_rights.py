"""An API key that may only read is found before pages are encoded, by a request that changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali
from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore, copy_store, index_documents
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.qdrant import rights
from colpali_integrations.stores.remembered import REMEMBERED_SECONDS
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.grpc_stand_in import grpc_stand_in
from tests.stores.qdrant.refusals import Access
from tests.stores.qdrant.stand_in import StandIn, stand_in

pytestmark = pytest.mark.filterwarnings("ignore:Api key is used with an insecure connection")  # a stand-in has no TLS

REFUSED = r"the API key does not allow this \(.*Write access to collection pages is required\).* may write, by api_key="


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        running.access = Access({"admin": "admin", "read": "read", "token": "pages", "writer": "pages rw"})
        yield running


def opened(server: StandIn, key: str, **options: Any) -> MultiVectorStore:
    return MultiVectorStore.open(url=server.url, api_key=key, **{"model": MODEL, **options})


def probes(server: StandIn) -> int:
    return sum(path.endswith("/points/delete") for _, path, _ in server.asked)


class Watched(list[Any]):
    """Records that note whether they were read."""

    was_read = False

    def __iter__(self) -> Iterator[Any]:
        self.was_read = True
        return super().__iter__()


@pytest.mark.parametrize("key", ["read", "token"])
def test_a_key_that_may_only_read_is_found_before_the_work(server: StandIn, key: str) -> None:
    with opened(server, "admin") as store:
        store.add([(entry(1), page(1))])
    with opened(server, key) as store:
        assert len(store.search(page(1), 1)) == 1
        assert probes(server) == 1  # that of the writer
        records = Watched([(entry(2), page(2))])
        changes: list[Callable[[], object]] = [
            lambda: store.add(records),
            lambda: store.delete(["page 1"]),
            lambda: store.update_metadata("d", {"year": 2024}),
            store.require_writable,
        ]
        for change in changes:
            with pytest.raises(StoreError, match=REFUSED):
                change()
        assert not records.was_read
        assert probes(server) == 2  # a refusal counts for a minute
        assert len(store) == 1


def test_no_page_is_encoded_or_read_for_it(
    server: StandIn, coltiny: ColPali, examples_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(server, "admin", model=coltiny).close()
    monkeypatch.setattr(ColPali, "embed_pages", lambda *_, **__: pytest.fail("a page is encoded"))
    with opened(server, "token", model=coltiny) as store, MultiVectorStore.open(model=coltiny) as source:
        with pytest.raises(StoreError, match=REFUSED):
            index_documents(examples_folder / "report.pdf", model=coltiny, store=store)
        with pytest.raises(StoreError, match=REFUSED):
            copy_store(source, store)


def test_a_key_for_one_collection_writes_and_is_asked_about_once(server: StandIn) -> None:
    opened(server, "admin").close()
    with opened(server, "writer") as store:
        for number in range(3):
            assert store.add([(entry(number), page(number))]) == 1
        assert probes(server) == 1
        assert len(store) == 3


def test_of_a_collection_of_another_program_too(server: StandIn) -> None:
    cosine = models.VectorParams(
        size=8,
        distance=models.Distance.COSINE,
        multivector_config=models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM),
    )
    server.client.create_collection("pages", {"full": cosine})
    layout = Layout(full="full", source="document", page="page")
    with opened(server, "token", layout=layout, writable=True) as store, pytest.raises(StoreError, match=REFUSED):
        store.add([(entry(1), page(1))])


def test_over_grpc() -> None:
    with grpc_stand_in() as server:
        place: dict[str, Any] = {
            "url": f"http://127.0.0.1:{server.port}",
            "prefer_grpc": True,
            "grpc_port": server.port,
        }
        with MultiVectorStore.open(model=MODEL, **place) as store:
            server.refuse = grpc.StatusCode.PERMISSION_DENIED
            with pytest.raises(StoreError, match=r"the API key does not allow this \(some words\)"):
                store.require_writable()


def test_a_yes_lasts_and_a_no_lasts_a_minute(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    time = [0.0]
    server.access = None
    with opened(server, "admin") as store:
        engine: Any = store._engine
        monkeypatch.setattr(engine, "_right", rights.WriteRight(engine._using, "pages", store.where, lambda: time[0]))
        server.read_only = True
        for seconds, expected in ((0, 1), (REMEMBERED_SECONDS - 1, 1), (REMEMBERED_SECONDS, 2)):
            time[0] = seconds
            with pytest.raises(StoreError):
                store.require_writable()
            assert probes(server) == expected
        server.read_only = False
        time[0] += REMEMBERED_SECONDS
        for _ in range(2):
            store.require_writable()
        assert probes(server) == 3


def test_an_absent_server_does_not_tell(server: StandIn) -> None:
    server.access = None
    with opened(server, "admin", retry_seconds=(0.1, 60)) as store:
        server.stop()
        store.require_writable()  # the run itself waits for the server
        server.start()


def test_the_imitation_has_no_keys() -> None:
    client = QdrantClient(":memory:")
    with MultiVectorStore.open(client=client, model=MODEL) as store:
        store.require_writable()
    client.close()
