"""Tests beyond LangChain's suite: pages, encoding, scores, filters, copies and threads."""

from __future__ import annotations

import asyncio
import copy
import inspect
import json
import logging
import pickle
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.indexing.api import aindex
from langchain_core.messages import HumanMessage
from langchain_core.tools import StructuredTool
from PIL import Image

from colpali_integrations import ColPali, max_sim
from colpali_integrations.errors import (
    ConfigurationError,
    FingerprintError,
    ImageError,
    InputError,
    PdfError,
    QueryError,
    StoreError,
)
from colpali_integrations.langchain import (
    ColPaliEmbeddings,
    ColPaliReranker,
    ColPaliVectorStore,
    PdfPageLoader,
    image_blocks,
    to_html,
)
from colpali_integrations.pages.identity import page_id
from colpali_integrations.stores import MultiVectorStore, Progress, index_documents, parse_filter
from tests.langchain.cases import WORDS, CountingEmbeddings, with_texts, word_pdf
from tests.pages.test_pdf import encrypted
from tests.stores.documents import DPI, draw, save_pdf

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"


@pytest.fixture(scope="module")
def pdf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_pdf(tmp_path_factory.mktemp("pages") / "words.pdf")


@pytest.fixture(scope="module")
def filled(pdf: Path) -> ColPaliVectorStore:
    """Three pages and two texts, in memory; tests only read it."""
    store = ColPaliVectorStore()
    store.add_pdf(pdf, dpi=DPI, metadata={"kind": "page"})
    store.add_texts(
        ["a violin in the orchestra", "the tide is low"],
        [{"kind": "text", "year": 2023}, {"kind": "text", "year": 2024}],
        ids=["violin", "tide"],
    )
    return store


@pytest.fixture
def counting() -> CountingEmbeddings:
    return CountingEmbeddings()


@pytest.fixture
def store(counting: CountingEmbeddings) -> ColPaliVectorStore:
    return ColPaliVectorStore(counting)


@pytest.fixture
def encoded(counting: CountingEmbeddings) -> Counter[str]:
    return counting.counts


def pages_of(documents: list[Document]) -> list[tuple[str, int]]:
    return [(Path(one.metadata["source"]).name, one.metadata["page"]) for one in documents]


@pytest.mark.parametrize("method", ["similarity_search", "max_marginal_relevance_search"])
def test_a_search_is_a_tool_as_it_stands(filled: ColPaliVectorStore, method: str) -> None:
    tool = StructuredTool.from_function(getattr(filled, method))
    [found] = tool.invoke({"query": "the tide is low", "k": 1})  # LangChain passes `kwargs` alone on as it should
    assert found.id == "tide"


# -- pages and texts ----------------------------------------------------------------------------------------------


def test_pages_of_the_loader_are_encoded_as_images(pdf: Path, counting: CountingEmbeddings) -> None:
    pages = PdfPageLoader(pdf, dpi=DPI).load()
    store = ColPaliVectorStore.from_documents(pages, counting)
    assert counting.counts["pages"] == 3
    for number, word in enumerate(WORDS, 1):
        [found] = store.similarity_search(word, k=1)
        assert found.page_content == f"words.pdf, page {number}", "the word is in the picture alone"
        assert found == pages[number - 1].model_copy(update={"id": found.id})
    [block] = image_blocks([found])
    assert HumanMessage(content_blocks=[block]).content_blocks[0]["type"] == "image"


@pytest.mark.parametrize(
    "metadata",
    [
        {"source": "gone.pdf", "page": 0, "page_label": "1"},  # PyPDFLoader: pages from 0
        {"source": "gone.pdf", "page": 3},
        {"source": "gone.pdf", "page": 3, "content_hash": "d41d8cd98f00b204e9800998ecf8427e"},  # an MD5
        {"source": "gone.pdf", "page": "iii", "content_hash": "0" * 64},
        {"source": "gone.txt", "content_hash": "0" * 64},
        {"page": 3, "content_hash": "0" * 64},
        {"source": "gone.pdf", "page": 3, "content_hash": "0" * 64, "text_hash": "of another text"},
        {"image_base64": "gone", "text_hash": "of another text"},
    ],
)
def test_documents_of_other_loaders_are_texts(
    store: ColPaliVectorStore, encoded: Counter[str], metadata: dict[str, Any]
) -> None:
    chunk = Document("prices of violins", metadata=metadata)
    [id_] = store.add_documents([chunk])
    assert encoded["pages"] == 0
    [found] = store.similarity_search("violins", k=1)
    assert found == chunk.model_copy(update={"id": id_})


def test_a_page_that_went_through_a_store_of_floats_is_a_page(
    store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]
) -> None:
    [page] = PdfPageLoader(pdf, pages=[2], dpi=DPI).load()
    page.metadata["page"] = 2.0
    store.add_documents([page])
    assert encoded["pages"] == 1


def test_a_document_with_its_picture_is_a_page(store: ColPaliVectorStore, pdf: Path) -> None:
    [page] = PdfPageLoader(pdf, pages=[2], dpi=DPI, include_image=True).load()
    bare = Document("somewhere", metadata={"image_base64": page.metadata["image_base64"]})
    assert store.add_documents([bare]) != store.add_documents(
        [bare.model_copy(update={"page_content": "x", "id": "x"})]
    )
    assert store.similarity_search("mitochondria", k=1)[0].page_content in ("somewhere", "x")
    [again] = store.get_by_ids(["x"])
    assert again.metadata == bare.metadata


def test_the_command_line_s_index_and_this_store_are_one(
    pdf: Path, tmp_path: Path, coltiny: ColPali, counting: CountingEmbeddings
) -> None:
    index_documents([pdf], model=coltiny, store=tmp_path / "index", dpi=DPI)
    with ColPaliVectorStore(counting, path=tmp_path / "index") as store:
        found = store.similarity_search("invoice", k=1)
        assert pages_of(found) == [("words.pdf", 3)]
        assert store.add_pdf(pdf, dpi=DPI)[2] == found[0].id
        assert len(store.store) == 3
        assert len(image_blocks(found)) == 1
    assert counting.counts["pages"] == 0, "the pages are stored"


def test_data_of_another_adapter_about_a_page_stays(
    store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]
) -> None:
    [id_] = store.add_pdf(pdf, dpi=DPI, pages=[1])
    [entry], [vectors] = store.store.get([id_]), store.store.vectors([id_])
    assert entry is not None
    assert vectors is not None
    theirs = replace(entry, extra={"llama_index": {"relationships": 1}}, document_id="its-document")
    store.store.add([(theirs, vectors)])
    [page] = store.get_by_ids([id_])
    store.add_documents([page.model_copy(update={"metadata": {**page.metadata, "year": 2024}})])
    [after] = store.store.get([id_])
    assert after == replace(theirs, metadata={**theirs.metadata, "year": 2024})
    assert encoded["pages"] == 1


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColPaliVectorStore]:
    with ColPaliVectorStore(path=tmp_path_factory.mktemp("round-trip")) as store:
        yield store


@pytest.mark.parametrize("where", ["memory", "folder"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    metadata=st.dictionaries(TEXT, VALUES, max_size=4), text=TEXT.filter(str.strip), id_=st.text(min_size=1, max_size=5)
)
def test_documents_are_returned_as_they_were_added(
    where: str,
    filled: ColPaliVectorStore,
    folder: ColPaliVectorStore,
    metadata: dict[str, Any],
    text: str,
    id_: str,
) -> None:
    store = ColPaliVectorStore() if where == "memory" else folder
    given_, before = Document(text, metadata=metadata), copy.deepcopy(metadata)
    try:
        id_.encode()
    except UnicodeEncodeError:
        return
    assert store.add_documents([given_], ids=[id_]) == [id_]
    assert given_ == Document(text, metadata=before)
    assert store.get_by_ids([id_]) == [Document(text, metadata=before, id=id_)]


@pytest.mark.parametrize("where", ["memory", "folder"])
def test_changing_a_result_does_not_change_the_store(where: str, folder: ColPaliVectorStore) -> None:
    store = ColPaliVectorStore() if where == "memory" else folder
    store.add_texts(["tide"], [{"tags": ["a"]}], ids=["changed"])
    retriever = store.as_retriever(search_kwargs={"k": 1, "filter": {"$id": "changed"}})
    for found in (store.get_by_ids("changed")[0], retriever.invoke("tide")[0], *retriever.batch(["tide", "tide"])[0]):
        found.metadata["tags"].append("b")
        assert store.get_by_ids(["changed"])[0].metadata == {"tags": ["a"]}

    def clear(document: Document) -> bool:
        document.metadata.clear()
        return True

    store.similarity_search("tide", filter=clear)
    assert store.get_by_ids(["changed"])[0].metadata == {"tags": ["a"]}


def test_ids_are_the_documents_own_the_pages_or_new_ones(store: ColPaliVectorStore, pdf: Path) -> None:
    [page] = PdfPageLoader(pdf, pages=[1], dpi=DPI).load()
    documents = [Document("one", id="own"), page, Document("two"), Document("two")]
    own, of_page, new, other = store.add_documents(documents)
    assert (own, of_page) == ("own", page_id(page.metadata["document_id"], 1))
    assert new != other
    assert store.add_documents(documents, ids=["a", None, "", "d"])[:2] == ["a", of_page]
    assert [document.id for document in documents] == ["own", None, None, None]


def test_the_later_of_two_documents_with_one_id_counts(store: ColPaliVectorStore) -> None:
    assert store.add_texts(["violin", "tide"], ids=["1", "1"]) == ["1", "1"]
    assert [found.page_content for found in store.similarity_search("violin")] == ["tide"]


def test_any_iterable_is_accepted(store: ColPaliVectorStore, pdf: Path) -> None:
    assert len(store.add_texts(text for text in ["a violin", "an invoice"])) == 2
    assert len(store.add_documents(PdfPageLoader(pdf, pages=[1], dpi=DPI).lazy_load())) == 1
    assert store.add_documents([]) == store.add_texts([]) == store.add_images([]) == []


# -- what is encoded, and what is not -----------------------------------------------------------------------------


def test_stored_content_is_not_encoded_again(store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]) -> None:
    documents = [*PdfPageLoader(pdf, dpi=DPI).load(), Document("the tide", id="tide")]
    ids = store.add_documents(documents)
    assert (encoded["pages"], encoded["texts"]) == (3, 1)
    assert store.add_documents(documents) == ids
    assert store.add_pdf(pdf, dpi=DPI) == ids[:3]
    assert (encoded["pages"], encoded["texts"]) == (3, 1)


def test_new_metadata_and_new_ids_reuse_the_stored_vectors(
    store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]
) -> None:
    pages = PdfPageLoader(pdf, dpi=DPI).load()
    ids = store.add_documents([*pages, Document("the tide", id="tide")])
    labelled = [page.model_copy(update={"metadata": {**page.metadata, "year": 2024}}) for page in pages]
    store.add_documents([*labelled, Document("the tide", metadata={"year": 2024}, id="tide")])
    assert {found.metadata["year"] for found in store.get_by_ids(ids)} == {2024}
    store.add_documents(pages, ids=["a", "b", "c"])
    assert (encoded["pages"], encoded["texts"]) == (3, 1)
    for id_, of_page in zip("abc", ids, strict=False):
        first, second = store.store.vectors([id_, of_page])
        assert first is not None
        assert np.array_equal(first, second)  # type: ignore[arg-type]
    assert store.store.get(["a"])[0].grid is not None, "and their places"  # type: ignore[union-attr]


def test_new_content_under_an_old_id_is_encoded(store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]) -> None:
    store.add_texts(["violin"], ids=["1"])
    store.add_texts(["tide"], ids=["1"])
    store.add_documents(PdfPageLoader(pdf, pages=[3], dpi=DPI).load(), ids=["1"])
    assert (encoded["texts"], encoded["pages"]) == (2, 1)
    assert pages_of(store.similarity_search("invoice", k=1)) == [("words.pdf", 3)]
    store.add_texts(["words.pdf, page 3"], ids=["1"])
    assert encoded["texts"] == 4, "a text that reads like the page is not the page"


def test_one_page_under_several_ids_is_encoded_once(
    store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]
) -> None:
    pages = PdfPageLoader(pdf, pages=[1, 1], dpi=DPI).load()
    assert store.add_documents(pages, ids=["a", "b"]) == ["a", "b"]
    assert encoded["pages"] == 1
    assert len(store.store) == 2


def test_another_resolution_replaces_the_page(store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]) -> None:
    assert store.add_pdf(pdf, pages=[1], dpi=DPI) == store.add_pdf(pdf, pages=[1], dpi=DPI / 2)
    assert encoded["pages"] == 2
    assert store.similarity_search("violin", k=9)[0].metadata["dpi"] == DPI / 2
    assert len(store.store) == 1


async def test_force_encodes_pages_that_are_stored(store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]) -> None:
    ids = store.add_pdf(pdf, dpi=DPI)
    assert store.add_pdf(pdf, dpi=DPI, pages=[2], force=True) == ids[1:2]
    assert encoded["pages"] == 4
    assert await store.aadd_pdf(pdf, dpi=DPI, force=True) == ids
    assert encoded["pages"] == 7
    assert len(store.store) == 3


def test_a_repeated_call_continues_an_interrupted_run(
    store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]
) -> None:
    def interrupt(state: Progress) -> None:
        if state.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.add_pdf(pdf, dpi=DPI, progress=interrupt)
    assert len(store.store) == 2
    encoded.clear()
    assert len(store.add_pdf(pdf, dpi=DPI)) == len(store.store) == 3
    assert encoded["pages"] == 1


def test_progress_and_failures_are_reported(store: ColPaliVectorStore, pdf: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    store.add_pdf(pdf, dpi=DPI, progress=lambda state: seen.append((state.done, state.total, state.name)))
    assert seen == [(0, 3, ""), *((number, 3, f"words.pdf, page {number}") for number in (1, 2, 3))]
    failures: list[str] = []

    def note(state: Progress) -> None:
        if state.failure is not None:
            failures.append(state.failure.name)

    assert len(store.add_documents([Document(""), Document("tide")], on_error="skip", progress=note)) == 1
    assert failures == ["''"]


def test_one_progress_covers_all_images_of_a_call(store: ColPaliVectorStore) -> None:
    images = [Image.new("RGB", (8 + number, 8), "white") for number in range(20)]
    store.add_images(images[:3])
    seen: list[Progress] = []
    assert len(store.add_images([*images, b"no image"], on_error="skip", progress=seen.append)) == 20
    assert seen[0] == Progress(0, 18), "13 new ones of the first 16, and 5 that are not read yet"
    assert [state.done for state in seen if state.name] == list(range(1, 19))
    assert seen[-1].total == 18
    assert [state.failure is not None for state in seen].count(True) == 1


@pytest.mark.parametrize("method", ["add_pdf", "add_documents", "add_images"])
def test_a_set_event_ends_an_addition_after_the_page_at_hand(
    store: ColPaliVectorStore, tmp_path: Path, method: str
) -> None:
    pdf = word_pdf(tmp_path / "long.pdf", [f"word {n}" for n in range(30)])
    pages = PdfPageLoader(pdf, dpi=DPI, include_image=True).load()
    stop = threading.Event()

    def watch(state: Progress) -> None:
        if state.done:
            stop.set()

    given: Any = {"add_pdf": pdf, "add_documents": pages, "add_images": pages}[method]
    ids = getattr(store, method)(given, progress=watch, stop=stop)
    assert 0 < len(ids) == len(store.store) < 30
    assert getattr(store, method)(given, stop=stop) == []
    assert len(store.store) == len(ids)


# -- PDFs and images ----------------------------------------------------------------------------------------------


def test_a_pdf_comes_by_path_as_bytes_or_as_a_blob(store: ColPaliVectorStore, pdf: Path, encoded: Counter[str]) -> None:
    expected = store.add_pdf(str(pdf), dpi=DPI, pages=[1, 3])
    assert store.add_pdf(Blob.from_path(pdf), dpi=DPI, pages=[1, 3]) == expected
    metadata = {"source": "https://example.org/w.pdf", "tenant": "north"}
    assert len(store.add_pdf(pdf.read_bytes(), dpi=DPI, pages=[1, 3], metadata=metadata)) == 2
    assert encoded["pages"] == 2
    [found] = store.similarity_search("invoice", k=1, filter={"tenant": "north"})
    assert found.page_content == "w.pdf, page 3"
    assert found.metadata.items() > metadata.items()


def test_an_encrypted_pdf(store: ColPaliVectorStore, tmp_path: Path) -> None:
    content = encrypted(user=b"open sesame", owner=b"ali baba")
    (tmp_path / "locked.pdf").write_bytes(content)
    with pytest.raises(PdfError, match="pass password"):
        store.add_pdf(content)
    ids = store.add_pdf(tmp_path / "locked.pdf", password="open sesame")
    assert len(ColPaliVectorStore().add_pdf(content, password="open sesame")) == len(ids)
    [found] = store.similarity_search("Hello", k=1)
    assert "sesame" not in json.dumps(found.metadata)
    assert len(image_blocks([found], password="open sesame")) == 1
    assert "No picture" in to_html([found])
    assert "No picture" not in to_html([found], password="open sesame")


async def test_pages_of_an_encrypted_pdf_are_added_and_ranked_with_its_password(
    store: ColPaliVectorStore, tmp_path: Path
) -> None:
    (tmp_path / "locked.pdf").write_bytes(encrypted(user=b"open sesame", owner=b"ali baba"))
    pages = PdfPageLoader(tmp_path / "locked.pdf", password="open sesame").load()
    with pytest.raises(PdfError, match="pass password"):
        store.add_documents(pages)
    other = ColPaliVectorStore.from_documents(pages, store.embeddings, password="open sesame")
    ids = await store.aadd_documents(pages, password="open sesame")
    assert store.get_by_ids(ids) == other.get_by_ids(ids)
    with pytest.raises(PdfError, match="pass password"):
        ColPaliReranker().compress_documents(pages, "secret")
    reranker = ColPaliReranker(password="open sesame")
    [ranked] = copy.copy(reranker).compress_documents(pages, "secret")
    [other_ranked] = await reranker.acompress_documents(pages, "secret")
    assert ranked == other_ranked
    assert "sesame" not in repr(reranker) + json.dumps(ranked.metadata) + str(reranker.model_dump())


def test_a_folder_is_all_pdfs_and_images_in_it(store: ColPaliVectorStore, tmp_path: Path) -> None:
    word_pdf(tmp_path / "a.pdf", ["violin"])
    (tmp_path / "drafts").mkdir()
    draw("tide").save(tmp_path / "drafts" / "b.png")
    assert len(store.add_pdf(tmp_path, exclude=["drafts/*"])) == 1
    assert len(store.add_pdf(tmp_path)) == 2
    (tmp_path / "c.pdf").write_text("no PDF")
    assert len(store.add_pdf(str(tmp_path), on_error="skip")) == 2
    with pytest.raises(PdfError, match=r"c\.pdf"):
        store.add_pdf(tmp_path)
    with pytest.raises(PdfError, match=r"no PDF at .*missing\.pdf"):
        store.add_pdf("missing.pdf")
    with pytest.raises(ConfigurationError, match="document_id names one document"):
        store.add_pdf(tmp_path, document_id="mine")


def test_images_of_every_kind(store: ColPaliVectorStore, tmp_path: Path, encoded: Counter[str]) -> None:
    path = tmp_path / "violin.png"
    draw("violin").save(path)
    [by_path] = store.add_images([path])
    assert store.add_images([str(path), Blob.from_path(path)]) == [by_path] * 2
    content: list[Any] = [path.read_bytes(), bytearray(path.read_bytes()), Blob.from_data(path.read_bytes())]
    assert len(set(store.add_images(content))) == 1, "content without a name goes by itself"
    assert store.add_images(path) == [by_path], "one alone will do"
    assert store.add_images([*PdfPageLoader(path).load()]) == [by_path], "and is the loader's page"
    assert encoded["pages"] == 1
    drawn, array = store.add_images([draw("invoice"), np.asarray(draw("mitochondria"))])
    assert store.similarity_search("invoice", k=1)[0].id == drawn
    assert store.similarity_search("mitochondria", k=1)[0].id == array


def test_images_have_the_metadata_of_the_loader_and_of_the_caller(store: ColPaliVectorStore, tmp_path: Path) -> None:
    path = tmp_path / "violin.png"
    draw("violin").save(path)
    store.add_images(
        [path, draw("invoice"), draw("invoice")], [{"year": 1}, {"source": "scan"}, {}], ids=["a", "b", "c"]
    )
    file, named, bare = store.get_by_ids(["a", "b", "c"])
    [expected] = PdfPageLoader(path).load()
    assert file.metadata == {**expected.metadata, "year": 1, "document_id": "a"}
    assert "dpi" not in file.metadata
    assert named.page_content == "scan, page 1"
    assert bare.page_content.startswith("sha256:")
    assert len(image_blocks([file])) == 1
    with pytest.raises(InputError, match="include their picture only on request"):
        image_blocks([bare])
    store.add_images([draw("invoice")], ids=["d"], include_image=True)
    assert len(image_blocks(store.get_by_ids(["d"]))) == 1


def test_an_unreadable_image_is_named_or_skipped(
    store: ColPaliVectorStore, pdf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ImageError, match=r"item 1 \(sha256:.*8 bytes is not an image"):
        store.add_images([draw("violin"), b"no image"])
    with pytest.raises(InputError, match=r"item 0 \(.*words\.pdf\): is a PDF; use add_pdf"):
        store.add_images([pdf])
    with pytest.raises(InputError, match="is a text and not a page"):
        store.add_images([Document("text")])
    with pytest.raises(InputError, match="metadatas: expected 1, one per item, got 2"):
        store.add_images([draw("violin")], [{}, {}])
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        assert len(store.add_images([b"no image", draw("violin")], on_error="skip")) == 1
    assert "8 bytes is not an image" in caplog.text


def test_a_pdf_and_a_text_among_images_are_named_or_skipped(
    store: ColPaliVectorStore, pdf: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = [draw("violin"), pdf, Document("a text"), Blob.from_path(pdf), object(), draw("invoice")]
    with caplog.at_level("WARNING"):
        ids = store.add_images(images, on_error="skip")  # type: ignore[arg-type]
    assert len(ids) == len(store.store) == 2
    assert caplog.text.count("is a PDF; use add_pdf") == 2
    assert "skipped 'a text': item 2 ('a text'): this Document is a text and not a page" in caplog.text
    with pytest.raises(InputError, match=r"item 1 .*is a PDF; use add_pdf") as caught:
        store.add_images(images[:2], on_error="raise")  # type: ignore[arg-type]
    assert caught.value.index == 1


def test_a_page_that_cannot_be_drawn_is_named_or_skipped(
    store: ColPaliVectorStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pages = PdfPageLoader(word_pdf(tmp_path / "a.pdf", ["violin"])).load()
    pages += PdfPageLoader(word_pdf(tmp_path / "b.pdf", ["invoice"])).load()
    (tmp_path / "a.pdf").unlink()
    with pytest.raises(InputError, match=r"item 0 \(a\.pdf, page 1\): .*no file at"):
        store.add_documents(pages)
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        [id_] = store.add_documents([*pages, Document("")], on_error="skip")
    assert pages_of(store.get_by_ids([id_])) == [("b.pdf", 1)]
    assert len(caplog.records) == 2
    with pytest.raises(QueryError, match=r"item 1 \(''\)"):
        store.add_documents([pages[1], Document("")])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda store: store.add_texts("text"), InputError, r"pass \['text'\]"),
        (lambda store: store.add_documents(Document("a")), InputError, r"pass \[document\]"),
        (lambda store: store.add_documents(["a"]), InputError, "item 0 is a str; add_texts takes texts"),
        (lambda store: store.add_texts(["a"], [{}, {}]), InputError, "metadatas: expected 1"),
        (lambda store: store.add_texts(["a"], ids=["1", "2"]), InputError, "ids: expected 1"),
        (lambda store: store.add_texts(["a"], ids="1"), InputError, "ids: expected 1"),
        (
            lambda store: store.add_texts(["a", "b"], [{}, {"at": {1}}]),
            StoreError,
            r"item 1 \('b'\).* metadata cannot",
        ),
        (lambda store: store.add_texts(["a"], [{"x": float("nan")}]), StoreError, "metadata cannot be written as JSON"),
        (lambda store: store.add_texts(["a"], on_error="ignore"), ConfigurationError, "on_error must be"),
        (lambda store: store.add_texts(["a"], bulk=True), TypeError, "bulk"),
        (lambda store: store.similarity_search("a", top_k=3), ConfigurationError, "no option 'top_k'; use k="),
        (lambda store: store.similarity_search("a", filters={}), ConfigurationError, "use filter="),
        (lambda store: store.similarity_search("a", where={}), ConfigurationError, "use filter="),
        (lambda store: store.similarity_search_by_image(draw("a"), foo=1), ConfigurationError, "it has filter"),
        (lambda store: store.max_marginal_relevance_search("a", modes=1), ConfigurationError, "did you mean 'mode'"),
        (lambda store: store.as_retriever(k=3), ConfigurationError, r"pass search_kwargs=\{'k': 3\}"),
        (lambda store: store.as_retriever(hybrid=True), ConfigurationError, r"search_kwargs=\{'hybrid': True\}"),
        (lambda store: store.as_retriever(search_kwargs={"filters": 1}), ConfigurationError, "use filter="),
        (lambda store: store.similarity_search("a", k=0), ConfigurationError, "k must be a whole number of at least 1"),
        (lambda store: store.similarity_search("a", score_threshold=2), ConfigurationError, "score_threshold must be"),
        (lambda store: store.similarity_search(" "), QueryError, "white space"),
        (lambda store: store.similarity_search("a", filter={"$near": 1}), InputError, r"\$near"),
        (lambda store: store.delete(), InputError, "nothing was given"),
        (lambda store: store.delete(filter=lambda document: True), InputError, "as a dict"),
        (lambda store: store.delete(filter={"$and": []}), InputError, "fits every entry"),
        (lambda store: ColPaliVectorStore(cast(Any, "my-index")), ConfigurationError, "pass path='my-index'"),
        (lambda store: ColPaliVectorStore(collection="a"), ConfigurationError, "use collection_name="),
        (lambda store: ColPaliVectorStore(persist_directory="a"), ConfigurationError, "use path="),
        (lambda store: ColPaliVectorStore(model="coltiny"), ConfigurationError, "use embedding=ColPaliEmbeddings"),
        (lambda store: ColPaliVectorStore(location="a"), ConfigurationError, "use path= for a folder, or url="),
        (lambda store: ColPaliVectorStore(embeddings=store.embeddings), ConfigurationError, "use embedding="),
    ],
)
def test_invalid_calls_are_refused_with_a_remedy(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(ColPaliVectorStore())


# -- searching ----------------------------------------------------------------------------------------------------


def test_scores_by_sight_are_max_sim(filled: ColPaliVectorStore) -> None:
    query = filled.embeddings.embed_query_multi_vector("violin")
    found = filled.similarity_search_with_score("violin", k=5, hybrid=False)
    vectors = filled.store.vectors([str(document.id) for document, _ in found])
    expected = [float(max_sim(query, array)) for array in vectors if array is not None]
    assert [score for _, score in found] == pytest.approx(expected, abs=1e-4)
    assert expected == sorted(expected, reverse=True)


def test_relevance_is_between_0_and_1_and_has_a_threshold(filled: ColPaliVectorStore) -> None:
    question = "a violin in the orchestra"
    found = filled.similarity_search_with_relevance_scores(question, k=5)
    relevance = [score for _, score in found]
    assert found[0][0].id == "violin"
    assert relevance == sorted(relevance, reverse=True)
    assert 0 <= relevance[-1] < relevance[0] <= 1
    floor = (relevance[0] + relevance[1]) / 2
    assert (
        filled.similarity_search_with_relevance_scores("a violin in the orchestra", score_threshold=floor) == found[:1]
    )
    assert filled.similarity_search("a violin in the orchestra", k=5, score_threshold=floor) == [found[0][0]]


def test_search_by_vectors_and_by_image(filled: ColPaliVectorStore) -> None:
    query = filled.embeddings.embed_query_multi_vector("mitochondria")
    expected = filled.similarity_search_with_score("mitochondria", k=2, hybrid=False)
    assert filled.similarity_search_by_vector_with_score(query, k=2) == expected
    assert filled.similarity_search_by_vector(query, k=2) == [document for document, _ in expected]
    assert filled.similarity_search_by_vector(query.tolist(), k=2) == [document for document, _ in expected]
    [(found, score)] = filled.similarity_search_by_image_with_score(draw("invoice"), k=1)
    assert pages_of([found]) == [("words.pdf", 3)]
    assert score > 0
    assert filled.similarity_search_by_image(draw("invoice"), k=1) == [found]


def test_a_pooled_vector_is_refused_with_a_remedy(filled: ColPaliVectorStore) -> None:
    with pytest.raises(InputError, match=r"one vector of length 128\. Pass the result of embed_query"):
        filled.similarity_search_by_vector(filled.embeddings.embed_query("violin"))
    with pytest.raises(InputError, match=r"expected vectors \(n, 128\)"):
        filled.similarity_search_by_vector([[1.0, 2.0]])


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"kind": "text"}, {"violin", "tide"}),
        ({"year": {"$gte": 2024}}, {"tide"}),
        ({"$or": [{"year": 2023}, {"page": 2}]}, {"violin", 2}),
        ({"kind": "page", "page": {"$in": [1, 3]}}, {1, 3}),
        (parse_filter({"year": {"$exists": True}}), {"violin", "tide"}),
        (lambda document: "tide" in document.page_content, {"tide"}),
        (lambda document: False, set()),
        ({"year": 1}, set()),
        ({}, {1, 2, 3, "violin", "tide"}),
    ],
)
def test_filters(filled: ColPaliVectorStore, where: Any, expected: set[Any]) -> None:
    def told(documents: list[Document]) -> set[Any]:
        return {document.metadata.get("page", document.id) for document in documents}

    assert told(filled.similarity_search("violin", k=9, filter=where)) == expected
    assert told(filled.max_marginal_relevance_search("violin", k=9, filter=where)) == expected
    assert told(filled.similarity_search_by_image(draw("violin"), k=9, filter=where)) == expected
    scored = filled.similarity_search_with_relevance_scores("violin", k=9, filter=where)
    assert told([document for document, _ in scored]) == expected


def test_hybrid_search_finds_words_that_only_the_text_has(store: ColPaliVectorStore) -> None:
    """Pages whose texts have other words than their pictures."""
    pages = with_texts([draw("violin"), draw("invoice")], ["a quartet", "a serenade for strings"])
    store.add_documents(pages, ids=["violin", "invoice"])
    assert store.similarity_search("violin serenade", k=1)[0].id == "violin"
    assert store.similarity_search("violin serenade", k=1, hybrid=0.9)[0].id == "invoice"
    [(found, score), _] = store.similarity_search_with_score("serenade", k=2, hybrid=True)
    assert found.id == "invoice"
    query = store.embeddings.embed_query_multi_vector("serenade")
    assert score == store.store.search(query, 2, hybrid=True, text="serenade")[0].score


def test_marginal_relevance_does_not_repeat_itself(store: ColPaliVectorStore) -> None:
    store.add_images([draw("violin sonata"), draw("violin sonata"), draw("violin concert")], ids=["a", "b", "c"])
    question = "violin sonata"
    plain = [found.id for found in store.similarity_search(question, k=3)]
    assert plain[2] == "c"
    diverse = [found.id for found in store.max_marginal_relevance_search(question, k=2, lambda_mult=0.3)]
    assert diverse == [plain[0], "c"]
    assert [found.id for found in store.max_marginal_relevance_search(question, k=3, lambda_mult=1)] == plain
    assert len(store.max_marginal_relevance_search(question, k=3, fetch_k=1)) == 3
    query = store.embeddings.embed_query_multi_vector(question)
    by_vector = store.max_marginal_relevance_search_by_vector(query, k=2, lambda_mult=0.3)
    assert [found.id for found in by_vector] == diverse
    with pytest.raises(ConfigurationError, match="lambda_mult"):
        store.max_marginal_relevance_search("violin", lambda_mult=2)


async def test_the_retriever_with_all_search_types(filled: ColPaliVectorStore) -> None:
    question = "a violin in the orchestra"
    plain = filled.as_retriever(search_kwargs={"k": 2, "filter": {"kind": "text"}})
    assert [found.id for found in plain.invoke(question)] == ["violin", "tide"]
    assert [found.id for found in plain.invoke(question, k=1)] == ["violin"]
    near = filled.as_retriever(search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.6})
    assert [found.id for found in near.invoke(question)] == ["violin"]
    diverse = filled.as_retriever(search_type="mmr", search_kwargs={"k": 2, "fetch_k": 5})
    assert len(diverse.invoke(question)) == 2
    for retriever in (plain, near, diverse):
        assert await retriever.ainvoke(question) == retriever.invoke(question)
    assert plain.tags == ["ColPaliVectorStore", "ColPaliEmbeddings"]
    hybrid = filled.as_retriever(search_kwargs={"k": 1, "hybrid": True})
    assert hybrid.invoke("orchestra")[0].id == "violin"


async def test_async_twins_answer_the_same(filled: ColPaliVectorStore) -> None:
    query = filled.embeddings.embed_query_multi_vector("violin")
    image = draw("violin")
    calls: list[tuple[str, Any]] = [
        ("similarity_search", "violin"),
        ("similarity_search_with_score", "violin"),
        ("similarity_search_with_relevance_scores", "violin"),
        ("similarity_search_by_vector", query),
        ("similarity_search_by_vector_with_score", query),
        ("similarity_search_by_image", image),
        ("similarity_search_by_image_with_score", image),
        ("max_marginal_relevance_search", "violin"),
        ("max_marginal_relevance_search_by_vector", query),
        ("get_by_ids", ["tide", "violin", "unknown"]),
    ]
    for name, argument in calls:
        expected = getattr(filled, name)(argument)
        assert len(expected) > 1
        assert await getattr(filled, f"a{name}")(argument) == expected, name


# -- removing, and LangChain's indexing ---------------------------------------------------------------------------


async def test_removal_by_id_and_by_filter(store: ColPaliVectorStore, pdf: Path) -> None:
    await store.aadd_pdf(pdf, dpi=DPI)
    await store.aadd_texts(["violin", "tide", "invoice"], [{"n": 1}, {"n": 2}, {"n": 3}], ids=["1", "2", "3"])
    assert store.delete(["1", "unknown"]) is True
    assert await store.adelete(filter={"n": {"$gte": 3}}) is True
    assert store.delete(["2"], filter={"n": 7}) is True, "both must hold"
    assert store.delete([]) is True
    assert len(store.store) == 4
    assert store.delete(filter={"source": str(pdf)}) is True
    assert [found.id for found in await store.asimilarity_search("violin", k=9)] == ["2"]


def manager() -> InMemoryRecordManager:
    made = InMemoryRecordManager("pages")
    made.create_schema()
    return made


def results(found: Any) -> tuple[int, int, int]:
    return found["num_added"], found["num_skipped"], found["num_deleted"]


def test_incremental_indexing(store: ColPaliVectorStore, tmp_path: Path, encoded: Counter[str]) -> None:
    records = manager()
    options: dict[str, Any] = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
    for name in ("a.pdf", "b.pdf"):
        word_pdf(tmp_path / name, [name, *WORDS[:2]])

    def run(**more: Any) -> tuple[int, int, int]:
        return results(index(PdfPageLoader(tmp_path, dpi=DPI), records, store, **options, **more))

    assert run() == (6, 0, 0)
    assert encoded["pages"] == 6
    assert run() == (0, 6, 0)
    assert run(force_update=True) == (0, 0, 0)
    assert encoded["pages"] == 6, "pages that did not change are not encoded"
    word_pdf(tmp_path / "b.pdf", ["invoice"])
    assert run() == (1, 3, 3)
    assert encoded["pages"] == 7
    assert pages_of(store.similarity_search("invoice", k=1)) == [("b.pdf", 1)]
    assert len(store.store) == 4


async def test_full_indexing(store: ColPaliVectorStore, tmp_path: Path, encoded: Counter[str]) -> None:
    records = manager()
    options: dict[str, Any] = {"cleanup": "full", "key_encoder": "sha256"}
    word_pdf(tmp_path / "a.pdf")
    texts = [Document("the tide", metadata={"source": "b.txt"})]
    pages = PdfPageLoader(tmp_path, dpi=DPI).load()
    assert results(index([*pages, *texts], records, store, **options)) == (4, 0, 0)
    assert results(await aindex([*pages[:2], *texts], records, store, **options)) == (0, 3, 1)
    assert results(index([*pages, *texts], records, store, **options)) == (1, 3, 0)
    assert encoded["pages"] == 4, "the page that was removed and came back"
    assert results(index([], records, store, **options)) == (0, 0, 4)
    assert len(store.store) == 0


def test_a_moved_file_is_indexed_anew_without_encoding(
    store: ColPaliVectorStore, tmp_path: Path, encoded: Counter[str]
) -> None:
    records = manager()
    word_pdf(tmp_path / "a.pdf")
    index(PdfPageLoader(tmp_path, dpi=DPI), records, store, cleanup="full", key_encoder="sha256")
    (tmp_path / "a.pdf").rename(tmp_path / "b.pdf")
    found = index(PdfPageLoader(tmp_path, dpi=DPI), records, store, cleanup="full", key_encoder="sha256")
    assert results(found) == (3, 0, 3)
    assert encoded["pages"] == 3
    assert {name for name, _ in pages_of(store.similarity_search("violin", k=9))} == {"b.pdf"}


# -- models, places, copies ---------------------------------------------------------------------------------------


def test_a_folder_belongs_to_its_model(tmp_path: Path) -> None:
    other = ColPaliEmbeddings(model_name=FIXTURES / "colmodernvbert")
    with ColPaliVectorStore(other, path=tmp_path / "store") as store:
        store.add_texts(["the tide"], ids=["tide"])
    with ColPaliVectorStore(other, path=tmp_path / "store") as again:
        assert again.similarity_search("tide")[0].id == "tide"
    with pytest.raises(FingerprintError, match="coltiny"):
        ColPaliVectorStore(ColPaliEmbeddings(), path=tmp_path / "store")
    with pytest.raises(ConfigurationError, match="made by the model 'colmodernvbert', which is not registered"):
        ColPaliVectorStore(path=tmp_path / "store")


def test_an_open_store_is_used_unchanged(filled: ColPaliVectorStore) -> None:
    twin = ColPaliVectorStore(store=filled.store)
    assert twin.similarity_search("violin") == filled.similarity_search("violin")
    assert twin.embeddings == filled.embeddings
    other = ColPaliEmbeddings(model_name=FIXTURES / "colmodernvbert")
    with pytest.raises(FingerprintError, match="cannot be compared"):
        ColPaliVectorStore(other, store=filled.store)
    with pytest.raises(ConfigurationError, match="cannot be combined with path"):
        ColPaliVectorStore(store=filled.store, path="x")


def test_contradicting_places_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="DeterministicFakeEmbedding has none"):
        ColPaliVectorStore(DeterministicFakeEmbedding(size=3))  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="one place"):
        ColPaliVectorStore(path="x", url="http://localhost:1")
    with pytest.raises(ConfigurationError, match="api_key: options of a server's client need url="):
        ColPaliVectorStore(api_key="x")


@pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")
def test_a_client_of_a_server(pdf: Path) -> None:
    from qdrant_client import QdrantClient

    client = QdrantClient(":memory:")
    store = ColPaliVectorStore(client=client, collection_name="mine")
    store.add_pdf(pdf, dpi=DPI)
    again = ColPaliVectorStore(client=client, collection_name="mine")
    assert pages_of(again.similarity_search("invoice", k=1, filter={"page": {"$gt": 1}})) == [("words.pdf", 3)]
    assert again.embeddings.model_name == "coltiny"


def test_copies_share_the_store(filled: ColPaliVectorStore) -> None:
    for twin in (copy.copy(filled), copy.deepcopy(filled), copy.deepcopy(filled.as_retriever()).vectorstore):
        assert twin.store is filled.store  # type: ignore[attr-defined]
        assert twin.similarity_search("violin") == filled.similarity_search("violin")
    with pytest.raises(TypeError, match="no place from which it could be opened again"):
        pickle.dumps(filled)


def test_a_pickle_opens_the_folder_again(tmp_path: Path) -> None:
    with ColPaliVectorStore(path=tmp_path / "store") as store:
        store.add_texts(["the tide"], ids=["tide"])
        pickled = pickle.dumps(store)
        with pickle.loads(pickled) as twin:  # within the process they share the folder
            assert twin.similarity_search("tide")[0].id == "tide"
        assert store.similarity_search("tide")[0].id == "tide"
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).similarity_search('tide')[0].id)"
    done = subprocess.run([sys.executable, "-c", code], input=pickled, capture_output=True, check=True)
    assert done.stdout.decode().strip() == "tide"


async def test_classmethods_take_the_place_and_the_options(tmp_path: Path, pdf: Path) -> None:
    pages = PdfPageLoader(pdf, dpi=DPI).load()
    embeddings = ColPaliEmbeddings()
    with ColPaliVectorStore.from_texts(["a", "b"], embeddings, [{"n": 1}, {"n": 2}], ids=["1", "2"]) as store:
        assert store.get_by_ids(["2", "1"]) == [
            Document("b", id="2", metadata={"n": 2}),
            Document("a", id="1", metadata={"n": 1}),
        ]
    made = await ColPaliVectorStore.afrom_documents(pages[:1], embeddings, path=tmp_path / "store", on_error="skip")
    with made:
        assert isinstance(made, ColPaliVectorStore)
        assert len(made.store) == 1
        assert "store" in repr(made)
    with await ColPaliVectorStore.afrom_texts(["", "b"], embeddings, on_error="skip") as store:
        assert len(store.store) == 1
    with pytest.raises(StoreError, match="closed"):
        made.similarity_search("violin")


# -- the event loop and threads -----------------------------------------------------------------------------------


async def test_the_loop_runs_on_while_pages_are_added(store: ColPaliVectorStore, pdf: Path) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await store.aadd_documents(PdfPageLoader(pdf, dpi=DPI).load())
    await store.aadd_images([draw("violin")])
    ticking.cancel()
    assert ticks > 10
    assert len(store.store) == 4


async def test_a_cancelled_call_stops_and_keeps_the_stored_pages(store: ColPaliVectorStore, tmp_path: Path) -> None:
    pdf = word_pdf(tmp_path / "long.pdf", [f"word {n}" for n in range(40)])
    started = threading.Event()
    done: list[int] = []

    def watch(state: Progress) -> None:
        done.append(state.done)
        if state.done:
            started.set()

    task = asyncio.create_task(store.aadd_documents(PdfPageLoader(pdf, dpi=DPI).load(), progress=watch))
    assert await asyncio.to_thread(started.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    before = -1
    while len(done) != before:  # until the thread has ended
        before = len(done)
        await asyncio.sleep(0.5)
    assert 0 < len(store.store) < 40


@pytest.mark.parametrize(
    "name",
    [name for name in vars(ColPaliVectorStore) if f"a{name}" in vars(ColPaliVectorStore) and not name.startswith("_")],
)
def test_async_signatures_equal_the_sync_ones(name: str) -> None:
    sync, twin = (inspect.signature(getattr(ColPaliVectorStore, one)) for one in (name, f"a{name}"))
    assert twin == sync


def test_threads_add_and_search_at_once(store: ColPaliVectorStore) -> None:
    store.add_texts(["the tide"], ids=["tide"])
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            store.add_texts([f"violin {number}"], ids=[f"violin-{number}"])
            assert store.similarity_search("the tide", k=1)[0].id == "tide"
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.store) == 9


def test_a_turned_photo_is_found(tmp_path: Path, store: ColPaliVectorStore) -> None:
    """An image that was turned by its EXIF orientation is read as a person sees it, here as everywhere."""
    page = draw("violin").rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    page.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    save_pdf(tmp_path / "other.pdf", draw("invoice"))
    store.add_images([tmp_path / "turned.jpg"])
    store.add_pdf(tmp_path / "other.pdf", dpi=DPI)
    assert pages_of(store.similarity_search("violin", k=1)) == [("turned.jpg", 1)]
    assert isinstance(store.store, MultiVectorStore)


class Sequences(RuleBasedStateMachine):
    """Any sequence of additions and removals leaves what a dict would have."""

    ids = st.sampled_from(["a", "b", "1", "a/b c"])
    metadatas = st.dictionaries(st.sampled_from(["n", "kind"]), st.integers(0, 2), max_size=2)

    def __init__(self) -> None:
        super().__init__()
        self.store = ColPaliVectorStore()
        self.kept: dict[str, Document] = {}

    @rule(given_=st.lists(st.tuples(ids, st.sampled_from(WORDS), metadatas), max_size=4))
    def add(self, given_: list[tuple[str, str, dict[str, int]]]) -> None:
        documents = [Document(text, metadata=metadata) for _, text, metadata in given_]
        names = [id_ for id_, _, _ in given_]
        assert self.store.add_documents(documents, ids=names) == names
        self.kept |= {
            one: document.model_copy(update={"id": one}) for one, document in zip(names, documents, strict=True)
        }

    @rule(gone=st.lists(ids, max_size=3))
    def remove(self, gone: list[str]) -> None:
        assert self.store.delete(gone)
        self.kept = {one: document for one, document in self.kept.items() if one not in gone}

    @rule(n=st.integers(0, 2))
    def remove_by_metadata(self, n: int) -> None:
        self.store.delete(filter={"n": {"$gte": n}})
        self.kept = {one: document for one, document in self.kept.items() if document.metadata.get("n", -1) < n}

    @rule(word=st.sampled_from(WORDS), n=st.integers(0, 2))
    def search(self, word: str, n: int) -> None:
        found = self.store.similarity_search(word, k=9, filter={"n": n})
        assert {str(one.id) for one in found} == {one for one, kept in self.kept.items() if kept.metadata.get("n") == n}
        best = [one for one in found if one.page_content == word]
        assert found[: len(best)] == best, "those that say the word come first"

    @invariant()
    def holds_what_a_dict_would(self) -> None:
        found = {str(one.id): one for one in self.store.similarity_search("violin", k=9)}
        assert found == self.kept
        assert self.store.get_by_ids(list(self.kept)) == list(self.kept.values())


TestSequences = Sequences.TestCase
TestSequences.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def test_a_pickle_holds_no_api_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QDRANT_API_KEY", raising=False)
    with ColPaliVectorStore(url=":memory:", api_key="SECRET") as store:
        pickled = pickle.dumps(store)
    assert b"SECRET" not in pickled
    with pytest.raises(ConfigurationError, match="set QDRANT_API_KEY where it is unpickled"):
        pickle.loads(pickled)
    monkeypatch.setenv("QDRANT_API_KEY", "ANOTHER")
    with pickle.loads(pickled) as twin:
        assert twin._place["api_key"] == "ANOTHER"
    options: dict[str, Any] = {"url": ":memory:", "metadata": {"token": "SECRET"}}  # the latter goes to the client
    with (
        ColPaliVectorStore(**options) as store,
        pytest.raises(ConfigurationError, match="a store with metadata= cannot be pickled"),
    ):
        pickle.dumps(store)


def test_integers_of_few_bits_in_memory(filled: ColPaliVectorStore) -> None:
    small = ColPaliVectorStore(datatype="int4")
    small.add_texts(["a violin in the orchestra", "the tide is low"], ids=["violin", "tide"])
    [(found, score)], [(_, exact)] = (one.similarity_search_with_score("violin", k=1) for one in (small, filled))
    assert small.store.settings.datatype == "int4"
    assert found.id == "violin"
    assert score == pytest.approx(exact, rel=0.1)
