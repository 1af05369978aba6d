"""A server that runs in a thread, and clients of it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from colpali_integrations import ColPali
from colpali_integrations.server.service import Service
from colpali_integrations.server.serving import Server
from colpali_integrations.server.settings import ApiKey, ServerSettings
from colpali_integrations.server.uploads import Uploads
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.conftest import few_pages

KEY = "a-key-that-only-the-tests-have"
Start = Callable[..., "Running"]


class Running:
    """A running server, its service, and a client without a key."""

    def __init__(self, service: Service, server: Server, client: httpx.Client) -> None:
        self.service, self.server, self.client, self.url = service, server, client, server.url

    @property
    def store(self) -> MultiVectorStore:
        return self.service.current.store


def service_of(model: ColPali, store: MultiVectorStore, path: Path, **settings: Any) -> Service:
    return Service(model, store, ServerSettings(**settings), Uploads(path.with_name(f"{path.name}.uploads")))


@contextmanager
def running(service: Service) -> Iterator[Running]:
    """Serve until the block ends."""
    ready = threading.Event()
    server = Server(service, lambda url: ready.set())
    thread = threading.Thread(target=server.serve_until_stopped)
    thread.start()
    try:
        while thread.is_alive() and not ready.wait(0.05):
            pass
        assert ready.is_set(), "the server has not started"
        with httpx.Client(base_url=server.url, timeout=60, trust_env=False) as client:
            yield Running(service, server, client)
    finally:
        server.should_exit = True
        thread.join(30)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a PDF of two pages of a real paper: on palettes, and on the seats in a parliament."""
    folder = tmp_path_factory.mktemp("papers")
    few_pages(folder / "report.pdf", [3, 7])
    return folder


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali, papers: Path) -> Iterator[Running]:
    """A server that the tests only read from: a store with the report, the folder of which is a root."""
    path = tmp_path_factory.mktemp("served") / "index"
    with MultiVectorStore.open(path, model=coltiny) as store:
        index_documents([papers / "report.pdf"], model=coltiny, store=store, metadata={"year": 2024, "new": True})
        with running(service_of(coltiny, store, path, port=0, roots=[papers])) as server:
            yield server


@pytest.fixture
def start(tmp_path: Path, coltiny: ColPali) -> Iterator[Start]:
    """Starts a server with a new store and other settings."""
    with ExitStack() as stack:

        def begin(path: Path | None = None, **settings: object) -> Running:
            path = path or tmp_path / "index"
            store = stack.enter_context(MultiVectorStore.open(path, model=coltiny))
            return stack.enter_context(running(service_of(coltiny, store, path, port=0, **settings)))

        yield begin


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> Iterator[Running]:
    """A server with an API key, and without pages."""
    path = tmp_path_factory.mktemp("locked") / "index"
    with MultiVectorStore.open(path, model=coltiny) as store:
        service = service_of(coltiny, store, path, port=0, key=ApiKey(KEY, where="the tests"))
        with running(service) as server:
            yield server


def cookie_of(server: Running) -> str:
    """The name of the server's cookie, which no other server on the host has."""
    return f"colpali_session_{server.url.rpartition(':')[2]}"


def wait_until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for a condition; an error after so many seconds."""
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it has not happened in time"
        time.sleep(0.02)
