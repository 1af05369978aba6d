"""LangChain's own suite for vector stores: sync and async, with the real ColTiny, over every engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import VectorStoreIntegrationTests
from qdrant_client import QdrantClient

from colpali_integrations.langchain import ColPaliVectorStore
from tests.stores.qdrant.real import client_options, server_url

EVERYTHING = {"$id": {"$exists": True}}


class TestInMemory(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        with ColPaliVectorStore() as store:
            yield store


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColPaliVectorStore]:
    # One for all tests: making a folder takes longer than a test.
    with ColPaliVectorStore(path=tmp_path_factory.mktemp("standard") / "store", first_stage="muvera") as store:
        yield store


class TestInAFolder(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, folder: ColPaliVectorStore) -> Iterator[VectorStore]:
        yield folder
        folder.delete(filter=EVERYTHING)


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
class TestThroughAServersClient(VectorStoreIntegrationTests):
    """With qdrant-client's own imitation of a server."""

    @pytest.fixture
    def vectorstore(self) -> Iterator[VectorStore]:
        with ColPaliVectorStore(client=QdrantClient(":memory:")) as store:
            yield store


if server_url() is not None:

    class TestOnAServer(VectorStoreIntegrationTests):
        @pytest.fixture
        def vectorstore(self) -> Iterator[VectorStore]:
            name = f"test-{uuid.uuid4().hex}"
            with ColPaliVectorStore(url=server_url(), collection_name=name, **client_options()) as store:
                yield store
                store.delete(filter=EVERYTHING)
