"""LangChain's own suite for vector stores: sync and async, with the real ColTiny, over every engine."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests

from colpali_integrations.langchain import ColPaliVectorStore


class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        with ColPaliVectorStore() as store:
            yield store


class TestInAFolder(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with ColPaliVectorStore(path=tmp_path / "store") as store:
            yield store


class TestInTwoStages(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, tmp_path: Path) -> Iterator[VectorStore]:
        with ColPaliVectorStore(path=tmp_path / "store", first_stage="muvera") as store:
            yield store


if "QDRANT_URL" in os.environ:

    class TestOnAServer(VectorStoreIntegrationTests):
        @pytest.fixture
        def vectorstore(self) -> Iterator[VectorStore]:
            collection = f"test-{uuid.uuid4().hex}"
            with ColPaliVectorStore(url=os.environ["QDRANT_URL"], collection=collection) as store:
                yield store
                store.delete(filter={"$id": {"$exists": True}})
