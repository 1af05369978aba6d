"""The stores that all search tests run over: in memory, in a folder, on a Qdrant server, on a server of this package.

The Qdrant server is qdrant-client's own imitation, in this process, unless QDRANT_URL names a real one. The server of
this package answers over HTTP with stores in folders; `tests/server` has the whole one.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError
from colpali_integrations.server.checking import parsed
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.served.answers import answered
from tests.stores.qdrant.real import client_options, server_url
from tests.stores.stored_models import made_up

BACKENDS = ["memory", "embedded", "server", "served"]
DIM = 8
MODEL = made_up("fake", dim=DIM)

Open: TypeAlias = Callable[..., MultiVectorStore]


@contextmanager
def opening(backend: str, folder: Path) -> Iterator[Open]:
    """A function that opens one and the same place of a kind, again and again; it is removed in the end."""
    opened: list[MultiVectorStore] = []
    hosted: list[MultiVectorStore] = []
    place: dict[str, Any] = {}
    if backend == "embedded":
        place = {"path": folder / "store"}
    elif backend == "server":
        from qdrant_client import QdrantClient

        url = server_url()
        place = {
            "client": QdrantClient(url=url, **client_options()) if url else QdrantClient(":memory:"),
            "collection_name": f"test-{uuid.uuid4().hex}",
        }

    def open_(**options: Any) -> MultiVectorStore:
        if backend == "served" and not hosted:
            hosted.append(hosted_store(folder / "hosted", {"model": MODEL, **options}))
            HOSTED[name := uuid.uuid4().hex] = hosted[0]
            place["path"] = f"{host()}/{name}"
        opened.append(MultiVectorStore.open(**{**place, "model": MODEL, **options}))
        return opened[-1]

    try:
        yield open_
    finally:
        for store in (*opened, *hosted):
            store.close()
        if "client" in place:
            place["client"].delete_collection(place["collection_name"])
            place["client"].close()


def hosted_store(folder: Path, options: dict[str, Any]) -> MultiVectorStore:
    """A store in memory, or else in a folder, where one in memory does not have the options."""
    try:
        return MultiVectorStore.open(**options)
    except ConfigurationError:
        return MultiVectorStore.open(folder, **options)


HOSTED: dict[str, MultiVectorStore] = {}
"""The stores of `host`, by the first part of their paths."""


@cache
def host() -> str:
    """The URL of a server that answers the calls of engines, until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            store = HOSTED[self.path.split("/")[1]]
            status, answer = 200, {}
            try:
                body = parsed(content, "the body")
                answer = {"result": answered(store, body["call"], body["arguments"])}
            except ColPaliError as error:
                status, answer = 400 if isinstance(error, InputError) else 409, {"message": str(error)}
            content = json.dumps(answer, allow_nan=False).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def in_memory(store: MultiVectorStore) -> bool:
    """Whether a store cannot be opened again; the imitation of a server, which is in memory too, can."""
    return store.where == MemoryEngine.where


def page(number: int, *, seed: int = 0, rows: int | None = None, weighted: bool = False) -> NDArray[np.float32]:
    """The vectors of a made-up page: its number and seed decide them, and how many there are."""
    random = np.random.default_rng((seed, number))
    vectors = random.standard_normal((rows or int(random.integers(1, 40)), DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    lengths = random.uniform(0, 2, (len(vectors), 1)).astype(np.float32) if weighted else np.float32(1)
    return (vectors * lengths).astype(np.float16).astype(np.float32)


def entry(number: int, **fields: Any) -> Entry:
    given = {
        "id": f"page {number}",
        "text": f"text of page {number}",
        "metadata": {"source": f"{number % 3}.pdf", "page": number, "even": number % 2 == 0},
        "document_id": f"{number % 3}.pdf",
        "content_hash": f"hash {number}",
    }
    return Entry(**{**given, **fields})
