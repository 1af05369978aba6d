"""First steps of a LlamaIndex user: an index over the store, documents that change, a pipeline."""

from __future__ import annotations

import asyncio
import base64
import shutil
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, SimpleDirectoryReader, StorageContext, VectorStoreIndex
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.chat_engine.types import ChatMode
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.node_parser import TokenTextSplitter
from llama_index.core.schema import Document, ImageDocument, ImageNode, MetadataMode, NodeWithScore, TextNode
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.core.vector_stores import SimpleVectorStore
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index import (
    ColPaliIndex,
    ColPaliRetriever,
    ColPaliVectorStore,
    DeferredEmbedding,
    PdfPageReader,
)
from tests.llama_index.suite import CountingEmbedding, CountingModel, counting_store
from tests.llama_index.test_retrievers import SeeingLLM
from tests.stores.documents import DPI, draw, save_pdf


@pytest.fixture(autouse=True)
def no_other_model(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No other model is resolved, and nothing is asked over a network."""

    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was made")

    before = set(sys.modules)  # other tests call the server by OpenAI's client
    monkeypatch.setattr(Settings, "_embed_model", None)
    monkeypatch.setenv("OPENAI_API_KEY", "")
    monkeypatch.delenv("IS_TESTING", raising=False)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    yield
    assert Settings._embed_model is None
    assert not {"openai", "clip", "torch", "llama_index.embeddings"} & (sys.modules.keys() - before)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pdf(
        tmp_path_factory.mktemp("index") / "report.pdf", draw("Harvest of apples"), draw("Prices of bananas")
    )


@pytest.fixture(scope="module")
def filled(report: Path) -> ColPaliVectorStore:
    """Two pages, to be looked at only."""
    store = counting_store()
    store.add(PdfPageReader(dpi=DPI).load_data(report))
    return store


@pytest.fixture
def store(filled: ColPaliVectorStore) -> ColPaliVectorStore:
    """A copy of `filled`, to be changed."""
    from colpali_integrations.llama_index._persistence import copied_records

    made = counting_store()
    made.client.add(copied_records(filled.client))
    return made


def counting_context() -> StorageContext:
    return StorageContext.from_defaults(vector_store=counting_store())


def base64_of(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode("ascii")


def read(path: Path) -> list[ImageNode]:
    return PdfPageReader(dpi=DPI).load_data(path)


def found(index: VectorStoreIndex, question: str, k: int = 1, **options: Any) -> list[NodeWithScore]:
    return index.as_retriever(similarity_top_k=k, **options).retrieve(question)


# -- VectorStoreIndex -----------------------------------------------------------------------------------------------


def test_a_plain_index_over_a_store_needs_no_other_model(filled: ColPaliVectorStore, encoded: CountingModel) -> None:
    index = VectorStoreIndex.from_vector_store(filled, embed_model=DeferredEmbedding())
    assert found(index, "bananas")[0].metadata["page"] == 2
    assert (encoded.pages, encoded.texts) == (0, 1)
    async_found = asyncio.run(index.as_retriever(similarity_top_k=1).aretrieve("bananas"))
    assert async_found == found(index, "bananas")
    only = MetadataFilters(filters=[MetadataFilter(key="page", value=1, operator=FilterOperator.EQ)])
    assert found(index, "bananas", filters=only)[0].metadata["page"] == 1
    hybrid = found(index, "bananas", vector_store_query_mode="hybrid", alpha=0.5)
    assert hybrid[0].metadata["page"] == 2
    diverse = found(index, "bananas", k=2, vector_store_query_mode="mmr", vector_store_kwargs={"mmr_threshold": 0.2})
    assert diverse[0].metadata["page"] == 2


def test_an_index_of_nodes_encodes_each_once(report: Path, encoded: CountingModel) -> None:
    store = counting_store()
    context = StorageContext.from_defaults(vector_store=store)
    nodes = [*read(report), TextNode(text="a note on pears")]
    before = [node.to_json() for node in nodes]
    index = VectorStoreIndex(nodes, storage_context=context, embed_model=DeferredEmbedding())
    assert (encoded.pages, encoded.texts) == (2, 1)
    assert [node.to_json() for node in nodes] == before
    assert found(index, "bananas")[0].node == nodes[1]
    # Its own retriever is restricted to the pictures, of which an index keeps a list; the store's is not.
    assert found(ColPaliIndex.from_vector_store(store), "pears")[0].text == "a note on pears"


def test_a_plain_index_encodes_inserted_nodes_once(store: ColPaliVectorStore, encoded: CountingModel) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.deferred_embedding)
    index.insert_nodes([TextNode(text="a note on pears")])
    assert (encoded.pages, encoded.texts) == (0, 1)


def test_a_plain_index_shows_inserted_pages(tmp_path: Path) -> None:
    """`VectorStoreIndex` keeps copies of pictures, which are `ImageNode`s without a file."""
    store, llm = counting_store(), SeeingLLM(max_tokens=None)
    index = VectorStoreIndex.from_vector_store(store, embed_model=store.deferred_embedding)
    index.insert_nodes(read(save_pdf(tmp_path / "train.pdf", draw("The railway timetable"))))
    assert str(index.as_query_engine(llm=llm, multimodal=True).query("railway")) == "seen"


def test_an_index_works_with_the_store_s_encoder_too(filled: ColPaliVectorStore) -> None:
    index = VectorStoreIndex.from_vector_store(filled, embed_model=filled.embed_model)
    assert found(index, "bananas")[0].metadata["page"] == 2


def test_insert_delete_and_refresh(store: ColPaliVectorStore, encoded: CountingModel) -> None:
    index = VectorStoreIndex.from_vector_store(store, embed_model=DeferredEmbedding())
    pears = Document(id_="pears.txt", text="a note on pears")
    assert index.refresh_ref_docs([pears]) == [True]
    assert found(index, "pears")[0].node.ref_doc_id == "pears.txt"
    encoded.reset()
    assert index.refresh_ref_docs([pears]) == [False]
    assert encoded.texts == 0
    assert index.refresh_ref_docs([Document(id_="pears.txt", text="a note on plums")]) == [True]
    assert [node.get_content() for node in store.get_nodes() if node.ref_doc_id == "pears.txt"] == ["a note on plums"]
    index.delete_ref_doc("pears.txt", delete_from_docstore=True)
    assert len(store.get_nodes()) == 2
    index.delete_nodes([store.get_nodes()[0].node_id])
    assert len(store.get_nodes()) == 1


# -- ColPaliIndex ---------------------------------------------------------------------------------------------------


def test_our_index_needs_no_embedding_model(filled: ColPaliVectorStore) -> None:
    index = ColPaliIndex.from_vector_store(filled)
    assert isinstance(index, VectorStoreIndex)
    assert found(index, "bananas")[0].metadata["page"] == 2
    assert found(ColPaliIndex(), "bananas") == []


@pytest.mark.parametrize("use_async", [False, True])
def test_our_index_keeps_pages_whole(report: Path, encoded: CountingModel, use_async: bool) -> None:
    pages = read(report)
    before = [page.to_json() for page in pages]
    index = ColPaliIndex.from_documents(pages, counting_context(), use_async=use_async)
    assert encoded.pages == 2
    assert [page.to_json() for page in pages] == before
    assert found(index, "bananas")[0].node == pages[1]
    assert index.refresh_ref_docs(pages) == [False, False]  # type: ignore[arg-type]
    assert encoded.pages == 2


def test_our_index_finds_what_was_there_after_an_insert(store: ColPaliVectorStore, tmp_path: Path) -> None:
    """`VectorStoreIndex` restricts its retriever to the pictures that it inserted itself."""
    index = ColPaliIndex.from_vector_store(store)
    [train] = read(save_pdf(tmp_path / "train.pdf", draw("The railway timetable")))
    index.insert(train)  # type: ignore[arg-type]
    index.insert_nodes([TextNode(text="a note on pears")])
    assert [found(index, words)[0].text for words in ("bananas", "railway", "pears")] == [
        "report.pdf, page 2", "train.pdf, page 1", "a note on pears",
    ]  # fmt: skip
    index.delete_ref_doc(train.ref_doc_id or "")
    assert "train.pdf, page 1" not in [one.text for one in found(index, "railway", k=9)]
    asyncio.run(index.ainsert(train))  # type: ignore[arg-type]
    assert found(index, "railway")[0].node == train


def test_our_index_takes_pictures_without_text(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    draw("The railway timetable").save(path)
    index = ColPaliIndex([ImageNode(id_="a", image_path=str(path)), TextNode(text="a note on pears")])
    assert found(index, "railway")[0].node.node_id == "a"


def test_our_index_takes_what_a_directory_reader_gives(report: Path, tmp_path: Path, encoded: CountingModel) -> None:
    shutil.copy(report, tmp_path)
    draw("The railway timetable").save(tmp_path / "train.png")
    (tmp_path / "note.txt").write_text("a note on pears")
    readers: dict[str, Any] = {".pdf": PdfPageReader(dpi=DPI), ".png": PdfPageReader()}
    documents = SimpleDirectoryReader(str(tmp_path), file_extractor=readers).load_data()
    image = ImageDocument(image=base64_of(tmp_path / "train.png"), id_="image")
    index = ColPaliIndex.from_documents([*documents, image], counting_context())
    assert encoded.pages == 3, "the same picture is encoded once"
    assert found(index, "bananas")[0].text == "report.pdf, page 2"
    assert {one.node.node_id for one in found(index, "railway", k=2)} == {"image", documents[-1].node_id}
    [note] = found(index, "pears")
    assert (note.text, note.node.ref_doc_id) == ("a note on pears", note.node.node_id)
    assert index.refresh_ref_docs(documents) == [False] * 4
    assert encoded.pages == 3
    changed = Document(id_=note.node.node_id, text="a note on plums")
    assert index.refresh_ref_docs([changed]) == [True]
    assert found(index, "plums")[0].text == "a note on plums"
    assert len(index.vector_store.get_nodes()) == 5


def test_a_query_engine_of_our_index_shows_pages(filled: ColPaliVectorStore) -> None:
    llm = SeeingLLM(max_tokens=None)
    engine = ColPaliIndex.from_vector_store(filled).as_query_engine(llm=llm, multimodal=True, similarity_top_k=1)
    assert str(engine.query("bananas")) == "seen"
    assert llm._seen == [("image/png", (700, 300))]


async def test_our_index_makes_our_retriever(filled: ColPaliVectorStore) -> None:
    index = ColPaliIndex.from_vector_store(filled)
    retriever = index.as_retriever(similarity_top_k=1, regions=True)
    assert isinstance(retriever, ColPaliRetriever)
    [page] = retriever.retrieve("bananas")
    assert page.metadata["regions"][0]["token"] == "bananas"
    assert await retriever.aretrieve("bananas") == [page]
    first = filled.get_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="page", value=1)]))[0]
    cases: list[dict[str, Any]] = [
        {"node_ids": [first.node_id]},
        {"doc_ids": [first.ref_doc_id]},
        {"filters": MetadataFilters(filters=[MetadataFilter(key="page", value=1)])},
    ]
    for options in cases:
        assert [one.metadata["page"] for one in found(index, "bananas", k=9, **options)] == [1]
    hybrid: dict[str, Any] = {"vector_store_query_mode": "hybrid", "alpha": 0.5, "sparse_top_k": 3}
    assert len(found(index, "bananas", hybrid_top_k=2, **hybrid)) == 2
    diverse: dict[str, Any] = {"vector_store_query_mode": "mmr", "vector_store_kwargs": {"mmr_threshold": 0.2}}
    assert found(index, "bananas", k=2, **diverse)[0].metadata["page"] == 2
    assert found(index, "bananas", k=9, min_relevance=0.05, search_mode="exact")[1:] == []


def test_engines_of_our_index_take_their_own_arguments(filled: ColPaliVectorStore) -> None:
    index, llm = ColPaliIndex.from_vector_store(filled), SeeingLLM(max_tokens=None)
    memory = ChatMemoryBuffer.from_defaults(llm=llm)
    chat = index.as_chat_engine(chat_mode=ChatMode.CONTEXT, llm=llm, memory=memory, similarity_top_k=1)
    assert [one.metadata["page"] for one in chat.chat("bananas").source_nodes] == [2]
    with pytest.raises(ConfigurationError, match="similarity_top_k"):
        index.as_query_engine(llm=llm, k=1)


@pytest.mark.parametrize(
    ("option", "right"),
    [("k", "similarity_top_k"), ("top_k", "similarity_top_k"), ("filter", "filters"), ("where", "filters"),
     ("mode", "search_mode"), ("score_threshold", "min_relevance"), ("regoins", "regions")],
)  # fmt: skip
def test_wrong_guesses_name_the_right_option(filled: ColPaliVectorStore, option: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"'{option}'.*\b{right}\b"):
        ColPaliIndex.from_vector_store(filled).as_retriever(**{option: 1})


def test_our_index_requires_our_store(filled: ColPaliVectorStore) -> None:
    with pytest.raises(ConfigurationError, match="SimpleVectorStore"):
        ColPaliIndex(storage_context=StorageContext.from_defaults())
    with pytest.raises(ConfigurationError, match="from_vector_store"):
        ColPaliIndex(filled)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="not both"):
        ColPaliIndex(storage_context=counting_context(), vector_store=filled)


def test_our_index_adds_to_a_vector_store(store: ColPaliVectorStore) -> None:
    pears = Document(text="a note on pears")
    for index in (ColPaliIndex.from_documents([pears], vector_store=store), ColPaliIndex([], vector_store=store)):
        assert index.vector_store is store
        assert found(index, "pears")[0].text == "a note on pears"


# -- pipelines ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_changed_document_replaces_its_pages(tmp_path: Path, encoded: CountingModel, asynchronous: bool) -> None:
    store, docstore, path = counting_store(), SimpleDocumentStore(), tmp_path / "report.pdf"

    def run() -> int:
        encoded.reset()
        made = store.ingestion_pipeline(docstore=docstore)
        if asynchronous:
            asyncio.run(made.arun(nodes=read(path)))
        else:
            made.run(nodes=read(path))
        return encoded.pages

    save_pdf(path, draw("Harvest of apples"), draw("Prices of bananas"))
    assert run() == 2
    assert run() == 0, "nothing changed"
    save_pdf(path, draw("Harvest of apples"), draw("The railway timetable"))
    assert run() == 2, "by the document's bytes both pages are others"
    index = ColPaliIndex.from_vector_store(store)
    assert len(store.get_nodes()) == 2
    assert found(index, "railway")[0].metadata["page"] == 2
    assert found(index, "bananas")[0].score == pytest.approx(0, abs=1e-6)


def test_a_removed_document_loses_its_pages(report: Path, tmp_path: Path, encoded: CountingModel) -> None:
    store, docstore = counting_store(), SimpleDocumentStore()
    train = save_pdf(tmp_path / "train.pdf", draw("The railway timetable"))
    note = Document(id_="note.txt", text="a note on pears")

    made = store.ingestion_pipeline(docstore=docstore, docstore_strategy="upserts_and_delete")
    made.run(documents=[*read(report), *read(train), note])
    assert len(store.get_nodes()) == 4
    made.run(nodes=read(report))
    assert {node.metadata.get("source") for node in store.get_nodes()} == {str(report)}
    assert encoded.pages == 3


def test_a_pipeline_stores_what_an_index_stores(report: Path, filled: ColPaliVectorStore, tmp_path: Path) -> None:
    store = counting_store()
    draw("The railway timetable").save(tmp_path / "train.png")
    image = ImageDocument(image=base64_of(tmp_path / "train.png"), id_="image")
    given = [*read(report), Document(id_="note.txt", text="a note on pears"), image]
    before = [node.to_json() for node in given]
    store.ingestion_pipeline().run(documents=given)
    assert [node.to_json() for node in given] == before
    stored = {node.node_id: node for node in store.get_nodes()}
    assert [stored[node.node_id] for node in filled.get_nodes()] == filled.get_nodes()
    assert (stored["note.txt"].class_name(), stored["note.txt"].ref_doc_id) == ("TextNode", "note.txt")
    assert isinstance(stored["image"], ImageNode)
    store.delete("image")
    assert "image" not in {node.node_id for node in store.get_nodes()}


def test_a_pipeline_splits_texts_on_request(encoded: CountingModel) -> None:
    store, docstore = counting_store(), SimpleDocumentStore()
    made = store.ingestion_pipeline([TokenTextSplitter(chunk_size=20, chunk_overlap=0)], docstore=docstore)
    text = Document(id_="notes.txt", text="Low tide is at six. " * 6)
    assert len(made.run(documents=[text])) == 2
    assert {node.ref_doc_id for node in store.get_nodes()} == {"notes.txt"}
    assert made.run(documents=[text]) == []
    assert len(made.run(documents=[Document(id_="notes.txt", text="High tide is at noon.")])) == 1
    assert [node.get_content() for node in store.get_nodes()] == ["High tide is at noon."]


def test_a_pipeline_passes_over_duplicates(report: Path, encoded: CountingModel) -> None:
    store = counting_store()
    made = store.ingestion_pipeline(docstore=SimpleDocumentStore(), docstore_strategy="duplicates_only")
    assert [len(made.run(documents=read(report))) for _ in range(2)] == [2, 0]
    assert encoded.pages == 2


def test_wrong_options_of_a_pipeline_are_refused() -> None:
    store = counting_store()
    for options, message in (
        ({"readers": []}, r"run\(documents="),
        ({"docstore_strategy": "replace"}, "upserts_and_delete"),
        ({"doc_store": None}, "docstore"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            store.ingestion_pipeline(**options)


def test_llama_index_s_own_pipeline_needs_an_embedding(report: Path, encoded: CountingModel) -> None:
    """The limit that is documented; the day on which this fails, `ingestion_pipeline` may lose its last step."""
    store = counting_store()
    IngestionPipeline(transformations=[], vector_store=store).run(nodes=read(report))
    assert (store.get_nodes(), encoded.pages) == ([], 0)


def test_a_pipeline_without_docstore_encodes_nothing_twice(report: Path, encoded: CountingModel) -> None:
    store = counting_store()
    for _ in range(2):
        store.ingestion_pipeline().run(nodes=read(report))
    assert encoded.pages == 2
    assert len(store.get_nodes()) == 2


def test_our_embedding_in_a_pipeline_works_too(report: Path, encoded: CountingModel) -> None:
    store = counting_store()
    IngestionPipeline(transformations=[CountingEmbedding()], vector_store=store).run(nodes=read(report))
    assert encoded.pages == 4, "once for the pooled vector, which has no use, once for the store"
    assert found(ColPaliIndex.from_vector_store(store), "bananas")[0].metadata["page"] == 2


# -- DeferredEmbedding ----------------------------------------------------------------------------------------------


def test_a_deferred_embedding_is_for_no_other_store() -> None:
    index = VectorStoreIndex([TextNode(text="a note")], embed_model=DeferredEmbedding())
    assert isinstance(index.vector_store, SimpleVectorStore)
    with pytest.raises(ConfigurationError, match="ColPaliEmbedding"):
        found(index, "pears")
    fields = DeferredEmbedding().to_dict()
    assert DeferredEmbedding.from_dict(fields).to_dict() == DeferredEmbedding(**fields).to_dict() == fields


def test_pages_of_a_plain_index_show_their_pictures(filled: ColPaliVectorStore) -> None:
    index = VectorStoreIndex.from_vector_store(filled, embed_model=DeferredEmbedding())
    [one] = found(index, "bananas")
    assert isinstance(one.node.get_content_blocks(MetadataMode.LLM)[-1], ImageBlock)
