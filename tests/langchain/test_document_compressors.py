"""Reranking: stored vectors where there are any, one encoding where not, and LangChain's own compositions."""

from __future__ import annotations

import copy
import json
import logging
import pickle
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever, EnsembleRetriever
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.documents.compressor import BaseDocumentCompressor as Interface
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import InMemoryVectorStore
from pydantic import ValidationError

from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, QueryError, StoreError
from colpali_integrations.langchain import (
    ColPaliEmbeddings,
    ColPaliReranker,
    ColPaliVectorStore,
    PdfPageLoader,
    image_blocks,
)
from tests.langchain.cases import WORDS, CountingEmbeddings, word_pdf
from tests.stores.documents import DPI

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
TEXTS = [Document("a violin in the orchestra"), Document("the tide is low"), Document("rates of tax")]


class Fixed(BaseRetriever):
    """Finds the same Documents whatever is asked, as a bad retriever does."""

    found: list[Document]

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return self.found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> list[Document]:
    return PdfPageLoader(word_pdf(tmp_path_factory.mktemp("pages") / "words.pdf"), dpi=DPI).load()


@pytest.fixture(scope="module")
def store(pages: list[Document]) -> ColPaliVectorStore:
    """The pages, and a text that has the id "1"."""
    made = ColPaliVectorStore.from_documents(pages)
    made.add_texts(["the tide is low"], ids=["1"])
    return made


@pytest.fixture
def counting() -> CountingEmbeddings:
    return CountingEmbeddings()


@pytest.fixture
def encoded(counting: CountingEmbeddings) -> Counter[str]:
    return counting.counts


def names(documents: Sequence[Document]) -> list[Any]:
    return [document.metadata.get("page") or document.page_content for document in documents]


def near(found: Sequence[Document], expected: Sequence[Document]) -> bool:
    """The same Documents with the same scores, which for stored vectors are over halves."""
    same = [one.page_content for one in found] == [one.page_content for one in expected]
    return same and relevance(found) == pytest.approx(relevance(expected), abs=1e-4)


def relevance(documents: Sequence[Document]) -> list[float]:
    return [document.metadata["relevance_score"] for document in documents]


# -- results --------------------------------------------------------------------------------------------------------


async def test_pages_and_texts_are_ordered_together(pages: list[Document]) -> None:
    reranker = ColPaliReranker(top_n=None)
    given = [*TEXTS, *pages]
    before = copy.deepcopy(given)
    found = reranker.compress_documents(given, "a violin in the orchestra")
    assert names(found)[0] == "a violin in the orchestra"
    assert names(found)[1] == 1, "the page on which violin stands"
    assert sorted(map(str, names(found))) == sorted(map(str, names(given)))
    scores = relevance(found)
    assert scores == sorted(scores, reverse=True)
    assert all(type(score) is float and 0 <= score <= 1 for score in scores)
    assert given == before, "what came in is not changed"
    assert json.loads(json.dumps(found[1].metadata)) == found[1].metadata
    assert await reranker.acompress_documents(given, "a violin in the orchestra") == found


async def test_empty_input_gives_empty_output(
    store: ColPaliVectorStore, counting: CountingEmbeddings, encoded: Counter[str]
) -> None:
    for reranker in (ColPaliReranker(embedding=counting), ColPaliReranker(vectorstore=store, embedding=counting)):
        assert reranker.compress_documents([], "violin") == await reranker.acompress_documents([], "violin") == []
    assert not encoded


def test_the_best_are_kept(store: ColPaliVectorStore, pages: list[Document]) -> None:
    assert names(ColPaliReranker(vectorstore=store, top_n=1).compress_documents(pages, "invoice")) == [3]
    assert len(ColPaliReranker(vectorstore=store).compress_documents([*pages, *TEXTS], "invoice")) == 3
    assert names(ColPaliReranker(vectorstore=store, score_threshold=0.1).compress_documents(pages, "invoice")) == [3]
    assert ColPaliReranker(vectorstore=store, score_threshold=1).compress_documents(pages, "tide") == []


def test_a_document_keeps_its_id_and_its_class(store: ColPaliVectorStore) -> None:
    class Chunk(Document):
        size: int = 0

    [found] = ColPaliReranker().compress_documents([Chunk(page_content="the tide", id="7", size=3)], "tide")
    assert isinstance(found, Chunk)
    assert (found.id, found.size) == ("7", 3)


# -- what is encoded, and what is not -----------------------------------------------------------------------------


async def test_stored_content_is_not_encoded(
    store: ColPaliVectorStore, pages: list[Document], counting: CountingEmbeddings, encoded: Counter[str]
) -> None:
    reranker = ColPaliReranker(vectorstore=store, embedding=counting)
    found = store.similarity_search("violin", k=9)
    encoded.clear()
    assert names(reranker.compress_documents(found, "mitochondria"))[0] == 2
    assert (encoded["pages"], encoded["texts"]) == (0, 1), "the question alone"
    assert names(reranker.compress_documents(pages, "invoice"))[0] == 3, "without ids, as another retriever has them"
    assert names(await reranker.acompress_documents(pages, "invoice"))[0] == 3
    assert (encoded["pages"], encoded["texts"]) == (0, 3)


def test_pages_that_langchain_indexed_under_ids_of_its_own_are_known(
    pages: list[Document], counting: CountingEmbeddings, encoded: Counter[str]
) -> None:
    records = InMemoryRecordManager("pages")
    records.create_schema()
    store = ColPaliVectorStore(counting)
    index(pages, records, store, key_encoder="sha256")
    encoded.clear()
    assert names(ColPaliReranker(vectorstore=store).compress_documents(pages, "invoice"))[0] == 3
    assert encoded["pages"] == 0


def test_stored_and_encoded_vectors_give_the_same_scores(store: ColPaliVectorStore, pages: list[Document]) -> None:
    given = [*pages, TEXTS[1].model_copy(update={"id": "1"})]
    by_store = ColPaliReranker(vectorstore=store, top_n=None).compress_documents(given, "low tide, invoice")
    by_encoding = ColPaliReranker(top_n=None).compress_documents(given, "low tide, invoice")
    assert relevance(by_store)[1] > 0
    assert near(by_store, by_encoding)


def test_other_content_is_encoded_once(
    pages: list[Document], counting: CountingEmbeddings, encoded: Counter[str]
) -> None:
    reranker = ColPaliReranker(embedding=counting)
    for question in (*WORDS, *WORDS):
        reranker.compress_documents([*pages, *TEXTS], question)
    assert (encoded["pages"], encoded["texts"]) == (3, 3 + 6)
    assert names(ColPaliReranker(embedding=counting, cache_size=0).compress_documents(pages, "invoice"))[0] == 3
    assert encoded["pages"] == 6


def test_an_equal_id_with_other_content_is_encoded(store: ColPaliVectorStore) -> None:
    """Chroma's "1" is not the "1" of this store, nor is a page's id its text's."""
    stranger = Document("a violin in the orchestra", id="1")
    page = store.similarity_search("invoice", k=1)[0]
    text = Document("the harbour", id=page.id)
    found = ColPaliReranker(vectorstore=store).compress_documents([text, stranger], "violin")
    assert names(found)[0] == "a violin in the orchestra"
    expected = ColPaliReranker().compress_documents([text, stranger], "violin")
    assert relevance(found) == pytest.approx(relevance(expected), abs=1e-4)


# -- what cannot work ---------------------------------------------------------------------------------------------


def test_a_document_that_cannot_be_drawn_is_named_or_ranked_last(
    pages: list[Document], caplog: pytest.LogCaptureFixture
) -> None:
    gone = pages[0].model_copy(
        update={
            "metadata": {**pages[0].metadata, "source": "gone.pdf", "file_path": "gone.pdf", "content_hash": "0" * 64}
        }
    )
    with pytest.raises(InputError, match=r"item 1 \(gone\.pdf, page 1\)"):
        ColPaliReranker().compress_documents([pages[1], gone], "violin")
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        found = ColPaliReranker(on_error="skip").compress_documents([gone, *TEXTS[1:]], "violin")
    assert found[-1].metadata["source"] == "gone.pdf"
    assert found[-1].metadata["relevance_score"] == 0
    assert "gone.pdf" in caplog.text
    with pytest.raises(QueryError, match="white space"):
        ColPaliReranker().compress_documents(TEXTS, " ")


def test_invalid_arguments_are_refused(store: ColPaliVectorStore, tmp_path: Path) -> None:
    for fields in ({"top_n": 0}, {"score_threshold": 1.5}, {"on_error": "ignore"}):
        with pytest.raises(ValidationError):
            ColPaliReranker(**fields)
    for guess, right in {"store": "vectorstore=", "k": "top_n=", "model": "embedding=", "topn": "'top_n'"}.items():
        with pytest.raises(ConfigurationError, match=f"no option '{guess}'; .*{right}"):
            ColPaliReranker(**cast(Any, {guess: 1}))
    with pytest.raises(StoreError, match="no such store"):
        ColPaliReranker(vectorstore=tmp_path / "nowhere")
    other = ColPaliEmbeddings(model_name=FIXTURES / "colmodernvbert")
    with pytest.raises(FingerprintError, match="cannot be compared"):
        ColPaliReranker(vectorstore=store, embedding=other)


# -- in LangChain -------------------------------------------------------------------------------------------------


async def test_in_a_contextual_compression_retriever(
    store: ColPaliVectorStore, pages: list[Document], counting: CountingEmbeddings, encoded: Counter[str]
) -> None:
    assert isinstance(ColPaliReranker(), BaseDocumentCompressor)
    assert BaseDocumentCompressor is Interface
    reranker = ColPaliReranker(vectorstore=store, embedding=counting, top_n=1)
    retriever = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=Fixed(found=pages))
    encoded.clear()
    for number, word in enumerate(WORDS, 1):
        assert names(retriever.invoke(word)) == names(await retriever.ainvoke(word)) == [number]
    assert encoded["pages"] == 0
    assert len(image_blocks(retriever.invoke("violin"))) == 1


def test_it_corrects_the_ranking_of_pooled_vectors(store: ColPaliVectorStore, pages: list[Document]) -> None:
    """A first stage that anybody has: pages as single vectors, in a store of single vectors."""
    embeddings = ColPaliEmbeddings()

    class Pictures(ColPaliEmbeddings):
        def embed_documents(self, texts: Any) -> list[list[float]]:
            return embeddings.embed_images(pages)

    first = InMemoryVectorStore.from_documents(pages, Pictures()).as_retriever(search_kwargs={"k": 3})
    retriever = ContextualCompressionRetriever(
        base_compressor=ColPaliReranker(vectorstore=store, top_n=1), base_retriever=first
    )
    assert [names(retriever.invoke(word)) for word in WORDS] == [[1], [2], [3]]


async def test_in_an_ensemble(store: ColPaliVectorStore, pages: list[Document], counting: CountingEmbeddings) -> None:
    """Pages without a text layer, found by two retrievers: three of them come out, not one and not six."""
    late = store.as_retriever(search_kwargs={"k": 4, "filter": {"page": {"$exists": True}}})
    ensemble = EnsembleRetriever(retrievers=[late, Fixed(found=pages)], weights=[0.7, 0.3])
    found = ensemble.invoke("invoice")
    assert names(found)[0] == 3
    assert len(found) == 3
    by_hash = EnsembleRetriever(retrievers=[late, Fixed(found=pages)], id_key="content_hash")
    assert len(by_hash.invoke("invoice")) == 3
    reranker = ColPaliReranker(vectorstore=store, embedding=counting)
    reranked = ContextualCompressionRetriever(base_compressor=reranker, base_retriever=ensemble)
    counting.counts.clear()
    assert names(reranked.invoke("mitochondria"))[0] == names(await reranked.ainvoke("mitochondria"))[0] == 2
    assert counting.counts["pages"] == 0


def test_copies_rerank_the_same(store: ColPaliVectorStore, pages: list[Document], tmp_path: Path) -> None:
    reranker = ColPaliReranker(vectorstore=store, top_n=2)
    expected = reranker.compress_documents(pages, "invoice")
    for twin in (copy.copy(reranker), copy.deepcopy(reranker), reranker.model_copy(deep=True)):
        assert twin.compress_documents(pages, "invoice") == expected
    twin = pickle.loads(pickle.dumps(ColPaliReranker(top_n=2)))
    assert near(twin.compress_documents(pages, "invoice"), expected)
    with ColPaliVectorStore.from_documents(pages[:1], path=tmp_path / "store") as kept:
        pickled = pickle.dumps(ColPaliReranker(vectorstore=kept, top_n=2))
        assert near(pickle.loads(pickled).compress_documents(pages, "invoice"), expected)
