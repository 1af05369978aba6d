"""`ColPaliVectorStore` by the suite, over every engine, and what it promises beyond."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import QdrantClient

from colpali_integrations.llama_index import ColPaliVectorStore
from colpali_integrations.stores import MultiVectorStore
from tests.adapters.llama_index_suite import VectorStoreConformance


class TestInMemory(VectorStoreConformance):
    @pytest.fixture
    def vector_store(self) -> Iterator[ColPaliVectorStore]:
        yield ColPaliVectorStore()


class TestEmbedded(VectorStoreConformance):
    @pytest.fixture
    def vector_store(self, tmp_path: Path) -> Iterator[ColPaliVectorStore]:
        store = ColPaliVectorStore(path=tmp_path / "store")
        yield store
        store.close()


class TestOnAServer(VectorStoreConformance):
    """qdrant-client's own imitation, in this process, unless QDRANT_URL names a real server."""

    @pytest.fixture
    def vector_store(self) -> Iterator[ColPaliVectorStore]:
        url, collection = os.environ.get("QDRANT_URL"), f"test-{uuid.uuid4().hex}"
        client = QdrantClient(url=url) if url else QdrantClient(":memory:")
        yield ColPaliVectorStore(store=MultiVectorStore.open(client=client, collection=collection, model="coltiny"))
        client.delete_collection(collection)
        client.close()
