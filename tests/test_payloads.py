"""Entries of a store that are damaged, or that another program wrote: an error of this package, or an answer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations import ColPali
from colpali_integrations.errors import ColPaliError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, to_html
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaStore
from colpali_integrations.llama_index import to_html as nodes_html
from colpali_integrations.stores import Entry, MultiVectorStore, index_documents
from colpali_integrations.stores.memory import MemoryEngine
from tests.conftest import few_pages

OTHER_VALUES = [3, "x", [1], 10**400, "\ud800"]
SOME_OR_ALL = [pytest.param([3, 10**400], id="some"), pytest.param(OTHER_VALUES, id="all", marks=pytest.mark.slow)]
FIELDS = ("id", "text", "metadata", "document_id", "content_hash", "grid", "extra", "exact")
METADATA = ("source", "file_path", "document_id", "page", "width", "height", "dpi", "content_hash", "image_base64")
QUESTION = "diverging palettes"


@pytest.fixture(scope="module")
def one_page(tmp_path_factory: pytest.TempPathFactory, coltiny: ColPali) -> MultiVectorStore:
    path = tmp_path_factory.mktemp("payloads") / "report.pdf"
    few_pages(path, [3])
    store = MultiVectorStore.open(model=coltiny)
    index_documents(path, model=coltiny, store=store, dpi=30)
    return store


def with_payload(store: MultiVectorStore, change: Callable[[dict[str, Any]], object]) -> MultiVectorStore:
    """A store whose entry has another payload, as if another program had written it."""
    engine = store._engine
    assert isinstance(engine, MemoryEngine)
    [(id_, point)] = engine._points.items()
    payload = {**point.payload, "metadata": dict(point.payload["metadata"])}
    change(payload)
    other = MemoryEngine(schema=store.settings.schema, manifest=engine.manifest)
    other._points = {id_: replace(point, payload=payload)}
    return MultiVectorStore(other, store.settings)


def use(store: MultiVectorStore, query: Any, embedding: ColPaliEmbeddings) -> None:
    """Everything that reads an entry; only errors of this package may come."""
    ids = list(store._engine._points)  # type: ignore[attr-defined]
    langchain, llama_index = LangChainStore(embedding, store=store), LlamaStore(store)
    calls: list[Callable[[], object]] = [
        *(store.documents, store.hashes, lambda: store.get(ids), lambda: store.regions(query, ids)),
        lambda: store.prune("."),
        lambda: store.count({"page": {"$gte": 1}}),
        lambda: store.search(query).to_html(heatmaps=False, max_side=50),
        lambda: to_html(langchain.similarity_search_by_vector(query), max_side=50),
        lambda: langchain.add_documents(langchain.similarity_search_by_vector(query)),
        lambda: nodes_html(llama_index.get_nodes(), max_side=50),
    ]
    for call in calls:
        with suppress(ColPaliError):
            call()


@pytest.mark.parametrize("values", SOME_OR_ALL)
@pytest.mark.parametrize("key", FIELDS)
def test_fields_of_other_types(key: str, values: list[Any], one_page: MultiVectorStore, coltiny: ColPali) -> None:
    query, embedding = coltiny.embed_query(QUESTION), ColPaliEmbeddings()
    for value in values:
        store = with_payload(one_page, lambda payload, value=value: payload.update({key: value}))  # type: ignore[misc]
        use(store, query, embedding)
        expected = dict if key in ("metadata", "grid", "extra") else str
        if not isinstance(value, expected):
            with pytest.raises(StoreError, match="Verify and repair"):
                store.search(query)


@pytest.mark.parametrize("values", SOME_OR_ALL)
@pytest.mark.parametrize("key", METADATA)
def test_metadata_of_other_types(key: str, values: list[Any], one_page: MultiVectorStore, coltiny: ColPali) -> None:
    query, embedding = coltiny.embed_query(QUESTION), ColPaliEmbeddings()
    for value in values:
        use(
            with_payload(one_page, lambda payload, value=value: payload["metadata"].update({key: value})),  # type: ignore[misc]
            query,
            embedding,
        )


def test_keys_of_later_versions_are_ignored(one_page: MultiVectorStore) -> None:
    [entry] = with_payload(one_page, lambda payload: payload.update(colour="red")).scroll()
    assert entry.is_page


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON))
def test_a_payload_is_read_or_refused(payload: dict[str, Any]) -> None:
    with suppress(StoreError):
        entry = Entry.from_payload(payload)
        assert isinstance(entry.id, str)
        with suppress(ColPaliError):
            assert entry.grid is None or len(entry.grid) >= 0
            assert isinstance(entry.name, str)


def test_a_point_of_another_program_on_a_server_is_named() -> None:
    from qdrant_client import QdrantClient, models

    from tests.stores.backends import DIM, MODEL, entry, page

    client = QdrantClient(":memory:")
    store = MultiVectorStore.open(client=client, collection_name="pages", model=MODEL, first_stage="exact")
    store.add([(entry(1), page(1))])
    vector: Any = {"full": np.ones((1, DIM)).tolist()}
    client.upsert("pages", [models.PointStruct(id=7, vector=vector, payload={"title": "no entry"})])
    for read in (store.hashes, lambda: store.search(page(1)), lambda: list(store.scroll())):
        with pytest.raises(StoreError, match="has the id None, and an id is a string"):
            read()
