"""Places that are no Qdrant server, and options that no server has: errors that name them and what was expected."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from qdrant_client import AsyncQdrantClient, QdrantClient

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import MultiVectorStore
from tests.stores.backends import MODEL
from tests.stores.qdrant.stand_in import StandIn, stand_in

LOCAL = "http://127.0.0.1:1"


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@contextmanager
def answering(content: bytes) -> Iterator[str]:
    """A server of another kind, which gives every request the same answer."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    other = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=other.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{other.server_address[1]}"
    finally:
        other.shutdown()
        thread.join()
        other.server_close()


@pytest.mark.parametrize("url", ["", "  ", 5, b"http://localhost", Path("/x"), [LOCAL, ""], [LOCAL, 5], {LOCAL: 1}])
def test_what_is_no_url_is_refused(url: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"url must be a text such as 'http://localhost:6333', or a list"):
        MultiVectorStore.open(url=url, model=MODEL)


@pytest.mark.parametrize("content", [b"hello", b'{"hello": "world"}', b"[]"])
def test_another_server_is_not_taken_for_one_that_is_away(content: bytes) -> None:
    with (
        answering(content) as url,
        pytest.raises(StoreError, match=r"the answer is not one of a Qdrant server's \(.*\)\. Are address"),
    ):
        MultiVectorStore.open(url=url, model=MODEL)


@pytest.mark.parametrize("made", [lambda: 5, lambda: LOCAL, lambda: AsyncQdrantClient(":memory:")])
@pytest.mark.parametrize("layout", [None, {}])
def test_what_is_no_client_is_refused(made: Any, layout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"must be a QdrantClient, got (int|str|AsyncQdrantClient); pass"):
        MultiVectorStore.open(client=made(), model=MODEL, layout=layout)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metadata": "x"}, "no Qdrant client can be made for http://.*: 'str' object has no attribute 'items'"),
        ({"timeout": 0}, "timeout must be a number above 0"),
        ({"timeout": "10"}, "timeout must be a number above 0"),
        ({"writable": "yes", "layout": {}}, "writable must be True or False, got 'yes'"),
        ({"indexes": {"": "text"}}, "'' is no metadata field that can have an index"),
        ({"collection_options": 5}, "collection_options must be a dict such as {'shard_number': 6}, got 5"),
        ({"collection_options": {"vectors_config": {}}}, "collection_options has no 'vectors_config'"),
    ],
)
def test_wrong_options_are_refused(server: StandIn, options: dict[str, Any], message: str) -> None:
    before = len(server.client.get_collections().collections)
    with pytest.raises(ConfigurationError, match=message):
        MultiVectorStore.open(url=server.url, collection_name="wrong", model=MODEL, **options)
    assert len(server.client.get_collections().collections) == before


def test_the_imitation_of_a_server_is_in_memory_and_not_pickled() -> None:
    for store in (
        MultiVectorStore.open(url=":memory:", model=MODEL),
        MultiVectorStore.open(client=QdrantClient(":memory:"), model=MODEL),
    ):
        with pytest.raises(ConfigurationError, match="cannot be pickled, because it has no place from which another"):
            pickle.dumps(store)
        store.close()
