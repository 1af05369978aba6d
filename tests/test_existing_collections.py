"""Collections of other programs in both frameworks, and tools of agents: the same as qdrant-client's own queries."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from llama_index.core.vector_stores.types import (
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore
from colpali_integrations.llama_index import ColPaliEmbedding, ColPaliRetriever
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.stores import Layout, MultiVectorStore
from tests.stores.qdrant.collections import COUNT, LAYOUTS, Made, direct, made
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.stored_models import made_up

WORDS = ["harbour", "tide", "tax", "palette", "seat", "map", "coast", "wind", "storm", "engine", "river", "tower"]
QUESTIONS = ["the tide in the harbour", "taxes on a tower", "a map of the coast in a storm"]


def texts() -> list[str]:
    random = np.random.default_rng(1)
    return [" ".join(random.choice(WORDS, 8)) for _ in range(COUNT)]


@pytest.fixture(scope="module")
def pages(coltiny: ColPali) -> list[NDArray[np.float32]]:
    return list(coltiny.embed_texts(texts()))


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module", params=[*LAYOUTS])
def collection(
    request: pytest.FixtureRequest, server: StandIn, pages: list[NDArray[np.float32]]
) -> Iterator[tuple[str, Made]]:
    client = QdrantClient(url=server.url, check_compatibility=False)
    for one in made(client, request.param, pages):
        yield request.param, one
    client.close()


def place(server: StandIn, one: Made) -> dict[str, Any]:
    return {"url": server.url, "collection_name": one.name, "layout": one.layout}


def unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    made_unit: NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return made_unit


@pytest.mark.parametrize("question", QUESTIONS)
def test_langchain_finds_what_direct_queries_find(
    collection: tuple[str, Made], server: StandIn, coltiny: ColPali, question: str
) -> None:
    _, one = collection
    store = ColPaliVectorStore(ColPaliEmbeddings(), **place(server, one))
    query = coltiny.embed_query(question)
    found = store.similarity_search_with_score(question, 5)
    expected = direct(one, query, 5)
    assert [document.id for document, _ in found] == [id_ for id_, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-4)
    staged = store.similarity_search_with_score(question, 5, mode="two_stage", oversampling=2)
    assert [document.id for document, _ in staged] == [id_ for id_, _ in direct(one, query, 5, candidates=10)]
    retriever = store.as_retriever(search_kwargs={"k": 3})
    assert [document.id for document in retriever.invoke(question)] == [id_ for id_, _ in expected[:3]]
    relevances = [score for _, score in store.similarity_search_with_relevance_scores(question, 5)]
    assert relevances == sorted(relevances, reverse=True)
    assert 0 < relevances[0] <= 1
    diverse = store.max_marginal_relevance_search(question, 3)
    assert diverse[0].id == expected[0][0]
    store.close()


@pytest.mark.parametrize("question", QUESTIONS)
def test_llama_index_finds_what_direct_queries_find(
    collection: tuple[str, Made], server: StandIn, coltiny: ColPali, question: str
) -> None:
    _, one = collection
    store = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place(server, one))
    query = coltiny.embed_query(question)
    expected = direct(one, query, 5)
    found = store.query(VectorStoreQuery(query_str=question, similarity_top_k=5))
    assert found.ids == [id_ for id_, _ in expected]
    by_cosine = one.layout.full != ""
    highest = len(query) if by_cosine else np.linalg.norm(query, axis=1).sum() * coltiny.description.best_match
    assert found.similarities == pytest.approx([max(0, score) / highest for _, score in expected], rel=1e-4)
    staged = store.query(VectorStoreQuery(query_str=question, similarity_top_k=5), search_mode="two_stage")
    assert staged.ids == [id_ for id_, _ in direct(one, query, 5, candidates=100)]
    nodes = ColPaliRetriever(store, similarity_top_k=5).retrieve(question)
    assert [node.node.node_id for node in nodes] == found.ids
    store.close()


def test_filters_are_on_their_own_keys_in_both_frameworks(
    collection: tuple[str, Made], server: StandIn, coltiny: ColPali
) -> None:
    kind, one = collection
    keys: dict[str, tuple[str, Any]] = {
        "tutorial": ("document", "1.pdf"),
        "fastembed": ("filename", "1.pdf"),
        "unnamed": ("doc_id", 1),
    }
    key, value = keys[kind]
    native = models.Filter(must=[models.FieldCondition(key=key, match=models.MatchValue(value=value))])
    expected = [id_ for id_, _ in direct(one, coltiny.embed_query(QUESTIONS[0]), 6, native)]
    by_langchain = ColPaliVectorStore(ColPaliEmbeddings(), **place(server, one))
    found = by_langchain.similarity_search(QUESTIONS[0], 6, filter={key: value})
    assert [document.id for document in found] == expected
    assert all(document.metadata[key] == document.metadata["source"] == value for document in found)
    by_llama_index = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place(server, one))
    filters = MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=FilterOperator.EQ)])
    query = VectorStoreQuery(query_str=QUESTIONS[0], similarity_top_k=6, filters=filters)
    assert by_llama_index.query(query).ids == expected
    first_pages = {document.id for document in by_langchain.similarity_search("tide", COUNT, filter={"page": 1})}
    assert {node.node_id for node in by_llama_index.get_nodes(filters=page_one())} == first_pages
    assert len(first_pages) == 3
    for store in (by_langchain, by_llama_index):
        store.close()


def page_one() -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key="page", value=1, operator=FilterOperator.EQ)])


def test_texts_and_metadata_reach_the_frameworks(collection: tuple[str, Made], server: StandIn) -> None:
    kind, one = collection
    id_ = str([*one.payloads][4])
    [document] = ColPaliVectorStore(ColPaliEmbeddings(), **place(server, one)).get_by_ids([id_])
    [node] = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place(server, one)).get_nodes([id_])
    text = {"fastembed": "the text of page 4", "tutorial": "1.pdf, page 2", "unnamed": "1, page 2"}[kind]
    assert document.page_content == node.get_content() == text
    assert document.metadata == node.metadata
    assert document.metadata["page"] == 2
    assert node.ref_doc_id == str(document.metadata["source"])


def test_what_a_layout_cannot_do_is_said_in_both_frameworks(collection: tuple[str, Made], server: StandIn) -> None:
    _, one = collection
    by_langchain = ColPaliVectorStore(ColPaliEmbeddings(), **place(server, one))
    by_llama_index = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place(server, one))
    hybrid = VectorStoreQuery(query_str="tide", mode=VectorStoreQueryMode.HYBRID)
    with pytest.raises(ConfigurationError, match="has no vector of words for a hybrid search"):
        by_langchain.similarity_search("tide", hybrid=True)
    with pytest.raises(ConfigurationError, match="has no vector of words for a hybrid search"):
        by_llama_index.query(hybrid)
    with pytest.raises(StoreError, match="recorded no grid"):
        by_llama_index.query(VectorStoreQuery(query_str="tide"), regions=True)
    with pytest.raises(StoreError, match="pass writable=True"):
        by_langchain.add_texts(["a text"])
    with pytest.raises(StoreError, match="pass writable=True"):
        by_llama_index.clear()
    for store in (by_langchain, by_llama_index):
        store.close()


def test_a_model_is_needed_and_must_fit(collection: tuple[str, Made], server: StandIn) -> None:
    _, one = collection
    for opened in (ColPaliVectorStore, LlamaIndexStore):
        with pytest.raises(ConfigurationError, match="embedding= in LangChain, embed_model= in LlamaIndex"):
            opened(**place(server, one))
        with pytest.raises(StoreError, match=r"To search it, pass layout=Layout\("):
            opened(**{**place(server, one), "layout": None})
    with pytest.raises(FingerprintError, match="have 128 numbers, and those of the model 'other' have 64"):
        MultiVectorStore.open(**place(server, one), model=made_up("other", dim=64))


def test_texts_are_added_by_both_frameworks(server: StandIn, pages: list[NDArray[np.float32]]) -> None:
    client = QdrantClient(url=server.url, check_compatibility=False)
    making = made(client, "unnamed", pages[:3])
    one = next(making)
    options = {**place(server, one), "writable": True}
    by_langchain = ColPaliVectorStore(ColPaliEmbeddings(), **options)
    [id_] = by_langchain.add_texts(["low tide at six"], [{"source": "notes.txt", "kind": "note"}])
    [document] = by_langchain.similarity_search("low tide", 1)
    assert (document.id, document.page_content, document.metadata["kind"]) == (id_, "low tide at six", "note")
    by_llama_index = LlamaIndexStore(embed_model=ColPaliEmbedding(), **options)
    [node] = by_llama_index.query(VectorStoreQuery(query_str="low tide", similarity_top_k=1)).nodes or ()
    assert node.get_content() == "low tide at six"
    assert by_langchain.add_texts(["low tide at six"], ids=[id_]) == [id_]
    assert client.count(one.name).count == 4
    by_llama_index.delete_nodes([id_])
    assert client.count(one.name).count == 3
    for store in (by_langchain, by_llama_index):
        store.close()
    next(making, None)
    client.close()


def test_adapters_are_pickled_and_described(collection: tuple[str, Made], server: StandIn) -> None:
    _, one = collection
    by_langchain = ColPaliVectorStore(ColPaliEmbeddings(), **place(server, one))
    by_llama_index = LlamaIndexStore(embed_model=ColPaliEmbedding(), **place(server, one))
    expected = [document.id for document in by_langchain.similarity_search("tide", 2)]
    assert [each.id for each in pickle.loads(pickle.dumps(by_langchain)).similarity_search("tide", 2)] == expected
    again = pickle.loads(pickle.dumps(by_llama_index))
    assert again.query(VectorStoreQuery(query_str="tide", similarity_top_k=2)).ids == expected
    copy = LlamaIndexStore.from_json(by_llama_index.to_json())
    assert copy.layout == one.layout == Layout.of(one.layout.to_dict())
    assert copy.query(VectorStoreQuery(query_str="tide", similarity_top_k=2)).ids == expected
