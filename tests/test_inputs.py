"""Wrong inputs at every door: one clear error at once, and the right ones in whatever container."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from llama_index.core.schema import TextNode
from pydantic import ValidationError

from colpali_integrations import ColPali
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    ImageError,
    InputError,
    PdfError,
    QueryError,
    StoreError,
)
from colpali_integrations.langchain import (
    ColPaliEmbeddings,
    ColPaliVectorStore,
    PageImageBlobParser,
    PdfPageLoader,
    image_blocks,
)
from colpali_integrations.langchain._documents import document_of
from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaStore
from colpali_integrations.models import find_model
from colpali_integrations.models.exporting import export_model
from colpali_integrations.models.folder import new_folder
from colpali_integrations.models.hub import cache_folder, cache_state
from colpali_integrations.models.quantizing import quantize_model
from colpali_integrations.pages import load_image, open_pdf, page_image, pdf_pages
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.stores import DocumentSource, Entry, MultiVectorStore, find_documents, index_documents
from colpali_integrations.stores.opening import stored_settings
from colpali_integrations.stores.upkeep import verify_store
from tests.conftest import FIXTURES, PAPER
from tests.pages.test_pdf import simple

NO_TEXTS = [None, 3, 1.5]


def memory(model: ColPali) -> MultiVectorStore:
    return MultiVectorStore.open(model=model)


@pytest.mark.parametrize("texts", NO_TEXTS)
def test_texts_that_are_none_are_refused_at_the_call(texts: Any, coltiny: ColPali) -> None:
    for call in (coltiny.embed_queries, coltiny.embed_texts, coltiny.token_count, coltiny.aembed_queries):
        with pytest.raises(QueryError, match=f"expected a text or several, got {texts}"):
            call(texts)
    with pytest.raises(QueryError, match="expected a text or several"):
        ColPaliEmbeddings().embed_documents(texts)
    store = ColPaliVectorStore()
    for adding in (store.add_texts, store.add_documents, store.add_images, LlamaStore().add):
        with pytest.raises(InputError, match=r"expected .*, got "):
            adding(texts)


@pytest.mark.parametrize("images", NO_TEXTS)
def test_images_that_are_none_are_refused_at_the_call(images: Any, coltiny: ColPali) -> None:
    for call in (coltiny.embed_images, coltiny.embed_pages, coltiny.aembed_images, ColPaliEmbeddings().embed_images):
        with pytest.raises(ImageError, match="expected an image"):
            call(images)


@pytest.mark.parametrize("paths", [None, 3, b"%PDF-1.7", [b"%PDF-1.7"], [None], memoryview(b"%PDF-")])
def test_what_is_no_path_is_refused(paths: Any, coltiny: ColPali) -> None:
    with pytest.raises(InputError, match=r"expected (paths|a path)"):
        index_documents(paths, model=coltiny, store=memory(coltiny))


DOORS: dict[str, Callable[[Any, ColPali], object]] = {
    "find_documents": lambda path, model: find_documents(path),
    "index_documents": lambda path, model: index_documents(path, model=model, store=memory(model)),
    "document_id": lambda path, model: index_documents(path, model=model, store=memory(model), document_id="x"),
    "store": lambda path, model: index_documents(PAPER, model=model, store=path),
    "open": lambda path, model: MultiVectorStore.open(path, model=model),
    "stored_settings": lambda path, model: stored_settings(path),
    "verify_store": lambda path, model: verify_store(path),
    "DocumentSource": lambda path, model: DocumentSource(source=path).open(),
    "pdf_pages": lambda path, model: list(pdf_pages(path)),
    "loader": lambda path, model: PdfPageLoader(path).load(),
    "add_pdf": lambda path, model: ColPaliVectorStore().add_pdf(path),
    "reader": lambda path, model: PdfPageReader().load_data(path),
    "model_name": lambda path, model: ColPaliEmbeddings(model_name=path),
    "from_pretrained": lambda path, model: ColPali.from_pretrained(path),
    "local_dir": lambda path, model: ColPali.from_pretrained(local_dir=path),
    "cache_dir": lambda path, model: ColPali.from_pretrained(cache_dir=path),
    "new_folder": lambda path, model: new_folder(path).__enter__(),
    "export_model": lambda path, model: export_model("coltiny", path),
    "quantize_model": lambda path, model: quantize_model("coltiny", path),
    "cache_state": lambda path, model: cache_state(find_model("coltiny"), local_dir=path),
    "cache_folder": lambda path, model: cache_folder(path),
    "base": lambda path, model: ColPali.from_pretrained(FIXTURES / "paligemma", base=path),
}


@pytest.mark.parametrize("door", DOORS)
def test_an_empty_path_is_not_the_current_folder(
    door: str, coltiny: ColPali, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ColPaliError, match=r"the path is empty; pass '\.' for the current folder"):
        DOORS[door]("", coltiny)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("path", [5, 1.5, [5]])
def test_what_is_neither_text_nor_path_is_one_error(door: str, path: Any, coltiny: ColPali) -> None:
    with pytest.raises((ColPaliError, ValidationError), match=r"must be a str|expected|cannot use|model_name"):
        DOORS[door](path, coltiny)


@pytest.mark.parametrize(
    ("path", "shown", "reason"),
    [
        ("a" * 5000, "a{120}" + r"\.\.\.", "too long"),
        ("~no-such-user/x.pdf", "~no-such-user/x.pdf", "no user of this name"),
        ("a\0b", r"a\\x00b", "a null character"),
        ("a\ud800b", r"a\\ud800b", "no file name can have"),
    ],
)
@pytest.mark.parametrize("door", DOORS)
def test_what_no_path_can_be_is_one_error(door: str, path: str, shown: str, reason: str, coltiny: ColPali) -> None:
    with pytest.raises(ColPaliError, match=rf"not a path: {shown}: .*{reason}"):
        DOORS[door](path, coltiny)


def test_a_file_may_be_named_as_a_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("~draft.pdf").write_bytes(PAPER.read_bytes())
    assert find_documents(".") == find_documents("~draft.pdf") == [Path("~draft.pdf")]
    assert [page.metadata["source"] for page in PdfPageLoader(".", pages=[1]).load()] == ["~draft.pdf"]


NOT_DRAWABLE = {
    b"/MediaBox[0 0 1 1000000000]": "it has 1 x 1e.09 points, and at no resolution",
    b"/MediaBox[0 0 200 100]/CropBox[300 300 400 400]": r"it has no area \(0 x 0 points\)",
}


@pytest.mark.parametrize("box", NOT_DRAWABLE)
def test_a_page_that_nothing_can_draw_is_refused_where_its_text_alone_is_read(box: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.pdf"
    path.write_bytes(simple(box))
    for read in (
        lambda: PdfPageLoader(path).load(),
        lambda: PageImageBlobParser().parse(Blob.from_path(path)),
        lambda: PdfPageReader().load_data(path),
        lambda: DocumentSource(source=path).items(DocumentSource(source=path).open())[0].entry(),
    ):
        with pytest.raises(PdfError, match=f"odd.pdf, page 1 cannot be drawn: {NOT_DRAWABLE[box]}"):
            read()
    assert PdfPageLoader(path, on_error="skip").load() == []


METADATA = ["tenant", ["tenant"], lambda path: 1 / 0, {1: "x"}, 3, {"when": date(2024, 1, 1)}, {"n": float("nan")}]


@pytest.mark.parametrize("metadata", METADATA)
def test_wrong_metadata_are_one_error_and_make_no_store(metadata: Any, coltiny: ColPali, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"^metadata"):
        index_documents(PAPER, model=coltiny, store=tmp_path / "store", metadata=metadata)
    assert not (tmp_path / "store").exists()
    with pytest.raises(ConfigurationError, match=r"^metadata"):
        ColPaliVectorStore().add_pdf(str(PAPER), metadata=metadata)


@pytest.mark.parametrize("metadata", METADATA[:5])
def test_readers_refuse_them_too(metadata: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^metadata"):
        PdfPageLoader(PAPER, metadata=metadata)
    with pytest.raises(ConfigurationError, match=r"^metadata"):
        DocumentSource(source=PAPER, metadata=metadata)
    with pytest.raises(ConfigurationError, match=r"^extra_metadata"):
        list(PdfPageReader().lazy_load_data(PAPER, extra_info=metadata))


PASSWORDS: dict[str, Callable[[Any, ColPali], object]] = {
    "open_pdf": lambda password, _: open_pdf(PAPER, password=password),
    "open_pdf in this process": lambda password, _: open_pdf(PAPER, password=password, isolate=False),
    "index_documents": lambda password, model: index_documents(
        PAPER, model=model, store=memory(model), password=password
    ),
    "LangChain": lambda password, _: PdfPageLoader(PAPER, password=password),
    "page_image": lambda password, _: page_image(
        {"source": str(PAPER), "page": 1}, password=password, roots=PAPER.parent
    ),
}


@pytest.mark.parametrize("door", PASSWORDS)
@pytest.mark.parametrize("password", ["secret\ud800", b"secret", 3])
def test_a_password_is_text_and_no_message_shows_it(door: str, password: Any, coltiny: ColPali) -> None:
    with pytest.raises(ConfigurationError, match="password ") as raised:
        PASSWORDS[door](password, coltiny)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["data:image/png;base64,\ud800", "data:,\ud800", "data:\ud800;base64,AAAA"])
def test_a_data_uri_with_a_lone_surrogate_is_no_image(uri: str) -> None:
    with pytest.raises(ImageError):
        load_image(uri)
    with pytest.raises(ImageError):
        page_image({"image_base64": "\ud800"})


def test_a_malformed_file_url_is_no_image() -> None:
    with pytest.raises(ImageError, match=r"malformed file: URL .*file://\[x"):
        load_image("file://[x")


@pytest.mark.parametrize("timeout", ["5", None, 0, -1, float("nan"), float("inf"), 1e300, 10**400, True, [1]])
def test_a_time_limit_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"timeout must be a number above 0 and up to 1e\+06, got"):
        load_image("https://pictures.test/a.png", allow_urls=True, timeout=timeout)
    with pytest.raises(ConfigurationError, match="max_bytes must be a whole number"):
        load_image("https://pictures.test/a.png", allow_urls=True, max_bytes="1 MB")  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["file://{}", "FILE://localhost{}", "file:{}"])
def test_a_file_url_is_the_file(url: str, coltiny: ColPali, tmp_path: Path) -> None:
    path = tmp_path / "low tide.png"
    load_image(np.full((40, 60), 200, np.uint8)).save(path)
    address = url.format(quote(str(path)))
    assert load_image(address) == load_image(path)
    store = ColPaliVectorStore()
    assert store.add_images([address]) == store.add_images(address) == store.add_images(path), "one page"
    [entry] = store.store.scroll()
    assert (entry.metadata["source"], entry.metadata["file_path"]) == (str(path), str(path.resolve()))
    assert len(image_blocks([document_of(entry)])) == 1, "it can be shown again"
    [vector] = coltiny.embed_images(path)
    for door in (ColPaliEmbeddings().embed_images_multi_vector, ColPaliEmbedding().get_image_multi_vectors):
        np.testing.assert_array_equal(door([address])[0], vector)
    with pytest.raises(InputError, match=r"hcl-colors.pdf\): is a PDF; use add_pdf"):
        store.add_images(PAPER.as_uri())
    with pytest.raises(ImageError, match="on another machine"):
        store.add_images("file://elsewhere/a.png")


@pytest.mark.parametrize("name", [5, b"a.pdf", Path("a.pdf")])
def test_the_name_of_a_document_is_text(name: Any) -> None:
    content = PAPER.read_bytes()
    doors: list[Callable[[], object]] = [
        lambda: DocumentSource(source=content, name=name),
        lambda: PagedDocument(content, name=name),
        lambda: PdfPageReader().load_data(content, name=name),
        lambda: DocumentSource(source=content, document_id=name),
        lambda: PdfPageReader().load_data(content, document_id=name),
        lambda: ColPaliVectorStore().add_pdf(content, document_id=name),
    ]
    for door in doors:
        with pytest.raises(ConfigurationError, match=r"(name|document_id) must be a str"):
            door()


UNSTORABLE = [
    (date(2024, 1, 31), "pass value.isoformat()"),
    (datetime(2024, 1, 31, tzinfo=timezone.utc), "pass value.isoformat()"),
    (np.int64(7), "pass value.item()"),
    (np.float32(0.5), "pass value.item()"),
    (np.arange(3), "pass value.tolist()"),
    (Path("a.pdf"), "pass str(value)"),
    ({"a"}, "pass list(value)"),
    (float("nan"), "pass None"),
    (b"ebb", "pass texts"),
    ([{"deep": [date(2024, 1, 31)]}], "pass value.isoformat()"),
    ({1: date(2024, 1, 31)}, "pass value.isoformat()"),
    ("\ud800", "pass valid Unicode"),
]


@pytest.mark.parametrize(("value", "advice"), UNSTORABLE, ids=[repr(value)[:30] for value, _ in UNSTORABLE])
def test_metadata_that_cannot_be_stored_name_the_key_and_the_way_out(value: Any, advice: str, coltiny: ColPali) -> None:
    metadata = {"tenant": "north", "read_on": value}
    message = rf"JSON cannot hold 'read_on', which is .*; {re.escape(advice)}"
    core, texts, nodes = memory(coltiny), ColPaliVectorStore(), LlamaStore()
    doors: list[Callable[[], object]] = [
        lambda: index_documents(PAPER, model=coltiny, store=core, metadata=metadata),
        lambda: core.add([(Entry(id="note", metadata=metadata), coltiny.embed_query("tide"))]),
        lambda: texts.add_pdf(str(PAPER), metadata=metadata),
        lambda: texts.add_texts(["low tide"], [metadata]),
        lambda: texts.add_documents([Document("low tide", metadata=metadata)]),
        lambda: nodes.add([TextNode(text="low tide", metadata=metadata)]),
        lambda: nodes.add(PdfPageReader(metadata=metadata).load_data(PAPER, pages=[1])),
    ]
    for door in doors:
        with pytest.raises(ColPaliError, match=message):
            door()
    assert len(core) == len(texts.store) == len(nodes.client) == 0


def each(*values: str) -> Iterator[str]:
    yield from values


def test_ids_come_from_a_generator_too() -> None:
    store = ColPaliVectorStore()
    assert store.add_texts(["low tide", "high tide"], ({"n": n} for n in (1, 2)), ids=each("a", "b")) == ["a", "b"]
    assert store.add_documents([Document("ebb")], ids=each("c")) == ["c"]
    assert [document.id for document in store.get_by_ids(each("c", "a", "z"))] == ["c", "a"]
    inner, query = store.store, store.model.embed_query("tide")
    assert [entry and entry.id for entry in inner.get(each("a", "z"))] == ["a", None]
    assert [vectors is not None for vectors in inner.vectors(each("a", "z"))] == [True, False]
    assert inner.score(query, each("a", "b")).keys() == {"a", "b"}
    assert inner.regions(query, each("a", "b")).keys() == {"a", "b"}
    assert inner.similarity_maps(query, each("a", "b")) == {}  # texts
    assert inner.delete(each("a")) == 1
    assert store.delete(each("b"))
    nodes = LlamaStore()
    nodes.add([TextNode(id_="a", text="low tide"), TextNode(id_="b", text="high tide")])
    assert [node.node_id for node in nodes.get_nodes(each("b"))] == ["b"]  # type: ignore[arg-type]
    nodes.delete_nodes(each("b"))  # type: ignore[arg-type]
    assert [node.node_id for node in nodes.get_nodes()] == ["a"]


def test_one_id_is_no_sequence_of_characters(coltiny: ColPali) -> None:
    store = memory(coltiny)
    store.add([(Entry(id="note"), coltiny.embed_query("tide"))])
    assert [entry and entry.id for entry in store.get("note")] == ["note"]
    assert store.score(coltiny.embed_query("tide"), "note").keys() == {"note"}
    for ids in (None, 3):
        with pytest.raises(InputError, match="expected an id or several"):
            store.get(ids)  # type: ignore[arg-type]


def test_the_number_of_ids_is_checked() -> None:
    with pytest.raises(InputError, match="ids: expected 2, one per item, got 1"):
        ColPaliVectorStore().add_texts(["low tide", "high tide"], ids=each("a"))
    with pytest.raises(InputError, match="expected 1 ids, one per item, got 3"):
        ColPaliVectorStore().add_texts(["low tide"], ids=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [10**400, -(10**400)])
def test_integers_of_400_digits_are_kept_and_compared(number: int, coltiny: ColPali) -> None:
    store = memory(coltiny)
    store.add([(Entry(id="note", metadata={"n": number}), coltiny.embed_query("tide"))])
    [entry] = store.get(["note"])
    assert entry is not None
    assert entry.metadata == {"n": number}
    assert store.count({"n": {"$gt": 0}}) == (number > 0)
    with pytest.raises(StoreError, match="cannot be written as JSON"):
        store.add([(Entry(id="note", metadata={"n": 10**5000}), coltiny.embed_query("tide"))])
