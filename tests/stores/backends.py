"""The stores that all search tests run over: in memory, in a folder, on a server.

The server is qdrant-client's own imitation, in this process, unless QDRANT_URL names a real one.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.memory import MemoryEngine
from tests.stores.stored_models import made_up

BACKENDS = ["memory", "embedded", "server"]
DIM = 8
MODEL = made_up("fake", dim=DIM)

Open: TypeAlias = Callable[..., MultiVectorStore]


@contextmanager
def opening(backend: str, folder: Path) -> Iterator[Open]:
    """A function that opens one and the same place of a kind, again and again; it is removed in the end."""
    opened: list[MultiVectorStore] = []
    place: dict[str, Any] = {}
    if backend == "embedded":
        place = {"path": folder / "store"}
    elif backend == "server":
        from qdrant_client import QdrantClient

        url = os.environ.get("QDRANT_URL")
        place = {
            "client": QdrantClient(url=url) if url else QdrantClient(":memory:"),
            "collection_name": f"test-{uuid.uuid4().hex}",
        }

    def open_(**options: Any) -> MultiVectorStore:
        opened.append(MultiVectorStore.open(**{**place, "model": MODEL, **options}))
        return opened[-1]

    try:
        yield open_
    finally:
        for store in opened:
            store.close()
        if "client" in place:
            place["client"].delete_collection(place["collection_name"])
            place["client"].close()


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
