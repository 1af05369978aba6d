"""Ingestion: document and number identify a page, and equal content is encoded once."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, InputError, QueryError, StoreError
from colpali_integrations.pages import PagedDocument
from colpali_integrations.pages.identity import text_key
from colpali_integrations.pages.pdf import Pdf, open_named_pdf
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores import (
    DocumentSource,
    Entry,
    Item,
    MultiVectorStore,
    Progress,
    index_documents,
    ingest,
)
from tests.pages.hostile import COUNTS_TOO_MANY, FORM_IN_ITSELF, TINY_PATTERN_STEPS
from tests.pages.test_viewer import FONT, page_with, write
from tests.stores.documents import DPI, draw, save_pdf


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained("coltiny") as loaded:
        yield loaded


@pytest.fixture
def pdf(tmp_path: Path) -> Path:
    return save_pdf(tmp_path / "fruit.pdf", draw("Harvest of apples"), draw("Prices of bananas"))


def text_item(id_: str, text: str, index: int | None = None) -> Item:
    entry = Entry(id=id_, text=text, content_hash=text_key(text))
    return Item(id=id_, key=text_key(text), name=id_, entry=lambda: entry, index=index)


def source(path: Path, **options: object) -> DocumentSource:
    return DocumentSource(source=path, dpi=DPI, **options)  # type: ignore[arg-type]


def test_tenants_keep_their_pages(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    reports = [
        ingest([source(pdf, metadata={"tenant": tenant})], store=store, model=model) for tenant in ("north", "south")
    ]
    assert [(report.added, report.copied) for report in reports] == [(2, 0), (0, 2)]
    assert store.count({"tenant": "north"}) == store.count({"tenant": "south"}) == 2
    assert store.delete(where={"tenant": "south"}) == 2
    assert store.count({"tenant": "north"}) == 2


def test_only_pages_of_the_document_are_cleaned_up(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf)], store=store, model=model)
    [vectors] = model.embed_texts("a summary")
    own = {"source": str(pdf), "file_path": str(pdf), "document_id": str(pdf)}
    store.add([(Entry(id="note", text="a summary", document_id=str(pdf), metadata=own), vectors)])
    store.add([(Entry(id="summary", text="a summary", metadata=own), vectors)])
    save_pdf(pdf, draw("Cherries"))
    report = ingest([source(pdf)], store=store, model=model)
    assert (report.replaced, report.removed) == (1, 1)
    assert {"note", "summary"} <= store.hashes().keys()
    assert len(store) == 3


def test_a_url_keeps_its_pages_beside_a_local_copy(pdf: Path, model: ColPali) -> None:
    store, url = MultiVectorStore.open(model=model), "https://example.org/fruit.pdf"
    ingest([DocumentSource(source=pdf.read_bytes(), name=url, dpi=DPI)], store=store, model=model)
    assert ingest([source(pdf)], store=store, model=model).copied == 2
    assert store.documents() == {url: 2, str(pdf): 2}


def test_copied_documents_are_closed(tmp_path: Path, pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf)], store=store, model=model)
    copies = [tmp_path / f"{number}.pdf" for number in range(3)]
    for copy in copies:
        copy.write_bytes(pdf.read_bytes())
    opened: list[PagedDocument] = []

    class Recorded(DocumentSource):
        def open(self) -> PagedDocument:
            opened.append(super().open())
            return opened[-1]

    report = ingest([Recorded(source=copy, dpi=DPI) for copy in copies], store=store, model=model)
    assert report.copied == 6
    assert [document._pdf for document in opened] == [None, None, None]


def test_copies_in_one_run_are_opened_once_to_plan_and_once_to_read(
    tmp_path: Path, model: ColPali, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = save_pdf(tmp_path / "first.pdf", *(draw(f"Page {word}") for word in ("one", "two", "three", "four")))
    second = Path(shutil.copy(first, tmp_path / "second.pdf"))
    opened: list[Any] = []

    def counted(path: Any, *names: Any, **options: Any) -> Pdf:
        opened.append(path)
        return open_named_pdf(path, *names, **options)

    monkeypatch.setattr("colpali_integrations.pages.document.open_named_pdf", counted)
    documents: list[PagedDocument] = []

    class Recorded(DocumentSource):
        def open(self) -> PagedDocument:
            documents.append(super().open())
            return documents[-1]

    report = ingest(
        [Recorded(source=path, dpi=DPI) for path in (first, second)],
        store=MultiVectorStore.open(model=model),
        model=model,
    )
    assert (report.added, report.copied) == (4, 4)
    assert sorted(opened) == [str(first), str(first), str(second)]  # the last one stays open after planning
    assert [document._pdf for document in documents] == [None, None]


def test_a_given_identity_and_other_metadata(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf, document_id="x", metadata={"year": 2023, "draft": True})], store=store, model=model)
    report = ingest([source(pdf, document_id="x", metadata={"year": 2024})], store=store, model=model)
    assert (report.updated, report.added, report.copied) == (2, 0, 0)
    assert store.count({"year": 2024}) == 2
    assert store.count({"draft": True}) == 2, "metadata that are not given again stay"
    assert ingest([source(pdf, document_id="x", metadata={"year": 2024})], store=store, model=model).present == 2


def test_tags_change_without_a_copy(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf, metadata={"tenant": "north"})], store=store, model=model)
    [document] = store.documents()
    before = {entry.id: store.vectors([entry.id])[0] for entry in store.scroll()}
    assert store.update_metadata(document, {"tenant": None, "year": 2024}) == 2
    assert store.documents() == {document: 2}
    for entry in store.scroll():
        assert entry.metadata["year"] == 2024
        assert "tenant" not in entry.metadata
        assert entry.is_page
        np.testing.assert_array_equal(store.vectors([entry.id])[0], before[entry.id])
    with pytest.raises(InputError, match="page describes the page"):
        store.update_metadata(document, {"page": 3})
    assert store.update_metadata("unknown", {"year": 1}) == 0


def test_ids_come_in_the_order_of_the_input_without_failures(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    sources: list[DocumentSource | Item] = [
        text_item("b", "low tide"),
        source(pdf, pages=[2]),
        text_item("empty", " "),
        text_item("a", "tax"),
    ]
    report = ingest(sources, store=store, model=model, on_error="skip")
    assert [report.ids[0], report.ids[2]] == ["b", "a"]
    assert [failure.name for failure in report.failures] == ["empty"]
    assert store.get([report.ids[1]])[0].page == 2  # type: ignore[union-attr]


def test_an_error_names_the_item_of_the_caller(model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    with pytest.raises(QueryError) as caught:
        ingest([text_item("a", "tax", 0), text_item("b", "", 1)], store=store, model=model)
    assert (caught.value.index, caught.value.item) == (1, "b")
    bad = Item(id="c", key="c", name="c", entry=lambda: Entry(id="c", text="x", metadata={"when": object()}), index=5)
    with pytest.raises(StoreError, match="JSON"):
        ingest([bad], store=store, model=model)
    with pytest.raises(ConfigurationError, match="on_error"):
        ingest([], store=store, model=model, on_error="ignore")  # type: ignore[arg-type]


def test_content_that_another_process_deleted_meanwhile_is_encoded(model: ColPali) -> None:
    class Forgetful(MultiVectorStore):
        def vectors(self, ids: object) -> list[None]:  # type: ignore[override]
            self.delete(list(ids))  # type: ignore[call-overload]
            return [None for _ in ids]  # type: ignore[attr-defined]

    whole = MultiVectorStore.open(model=model)
    store = Forgetful(whole._engine, whole.settings)
    ingest([text_item("a", "low tide")], store=store, model=model)
    report = ingest([text_item("b", "low tide")], store=store, model=model)
    assert (report.added, report.copied, report.ids) == (1, 0, ["b"])


def test_vectors_are_copied_only_from_content_that_is_still_there(pdf: Path, model: ColPali) -> None:
    class Interrupted(MultiVectorStore):
        """Another process changes the origin, once, before its vectors are read."""

        change: Callable[[MultiVectorStore], object] | None = None

        def vectors(self, ids: Iterable[str]) -> list[Float32 | None]:
            change, self.change = self.change, None
            if change is not None:
                change(self)
            return super().vectors(ids)

    [tax] = model.embed_texts(["rates of tax"])
    other = Entry(id="a", text="rates of tax", content_hash=text_key("rates of tax"))
    for change in (lambda store: store.delete(["a"]), lambda store: store.add([(other, tax)])):
        memory = MultiVectorStore.open(model=model)
        store = Interrupted(memory._engine, memory.settings)
        ingest([text_item("a", "low tide"), text_item("b", "high tide")], store=store, model=model)
        store.change = change
        report = ingest([text_item("b", "low tide")], store=store, model=model)
        assert (report.added, report.copied, report.replaced, report.ids) == (1, 0, 1, ["b"])
        [tide], [stored] = model.embed_texts(["low tide"]), store.vectors(["b"])
        assert stored is not None
        np.testing.assert_array_equal(stored, tide.astype(np.float16))


def test_tags_survive_a_lost_origin(tmp_path: Path, pdf: Path, model: ColPali) -> None:
    class Forgetful(MultiVectorStore):
        lost: str | None = None

        def vectors(self, ids: Iterable[str]) -> list[Float32 | None]:
            if self.lost is not None:
                self.delete(document_id=self.lost)
            return super().vectors(ids)

    memory = MultiVectorStore.open(model=model)
    store = Forgetful(memory._engine, memory.settings)
    copy = tmp_path / "copy.pdf"
    save_pdf(copy, draw("Old"), draw("Older"))
    ingest([source(copy), source(pdf)], store=store, model=model)
    store.update_metadata(str(copy), {"year": 2024})
    shutil.copy(pdf, copy)
    store.lost = str(pdf)
    report = ingest([source(copy)], store=store, model=model)
    assert (report.added, report.replaced, store.count({"year": 2024}), len(store)) == (2, 2, 2, 2)


def test_page_numbers_are_checked_before_anything_is_opened(pdf: Path, model: ColPali, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="expected 1-based whole numbers"):
        source(tmp_path / "gone.pdf", pages=[1.0])
    store = MultiVectorStore.open(model=model)
    for pages in ([0], ["1"], "1", 1, [True]):
        with pytest.raises(ConfigurationError, match="expected 1-based whole numbers"):
            index_documents(pdf, model=model, store=store, pages=pages)  # type: ignore[arg-type]
    save_pdf(tmp_path / "second.pdf", draw("One"), draw("Two"))
    report = index_documents(tmp_path, model=model, store=store, pages=iter(np.array([2])), dpi=DPI)
    assert (report.documents, report.added) == (2, 2)
    assert store.count({"page": 2}) == 2
    with PagedDocument(pdf) as document:
        assert document.page(np.int64(1)).id == document.page(1).id
        with pytest.raises(ConfigurationError, match="expected 1-based whole numbers"):
            document.page(1.0)  # type: ignore[arg-type]


def test_tags_survive_when_the_document_is_added_again(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf)], store=store, model=model)
    store.update_metadata(str(pdf), {"year": 2024})
    assert ingest([source(pdf)], store=store, model=model).present == 2
    save_pdf(pdf, draw("Cherries"), draw("Plums"))
    assert ingest([source(pdf)], store=store, model=model).replaced == 2
    assert store.count({"year": 2024}) == 2


def test_a_page_whose_text_is_now_read_otherwise_is_not_encoded_again(tmp_path: Path, model: ColPali) -> None:
    pdf = tmp_path / "tex.pdf"
    pdf.write_bytes(page_with(write("r\\264esistance"), font=FONT[:-2] + b"/Encoding/WinAnsiEncoding>>"))
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf)], store=store, model=model)
    [read] = store.scroll()
    assert read.text == "résistance"
    earlier = replace(read, text="r´esistance", metadata={**read.metadata, "text_hash": text_key("r´esistance")})
    [vectors] = store.vectors([read.id])
    assert vectors is not None
    store.add([(earlier, vectors)], model=model)
    assert ingest([source(pdf)], store=store, model=model).present == 1
    assert [entry.text for entry in store.scroll()] == ["r´esistance"]
    ingest([source(pdf)], store=store, model=model, force=True)
    assert list(store.scroll()) == [read]


def test_a_moved_file_of_a_given_identity_has_its_new_path(tmp_path: Path, pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf, document_id="x")], store=store, model=model)
    moved = pdf.rename(tmp_path / "moved.pdf")
    assert ingest([source(moved, document_id="x")], store=store, model=model).updated == 2
    assert {entry.metadata["file_path"] for entry in store.scroll()} == {str(moved)}
    assert store.documents() == {"x": 2}


def test_new_metadata_write_no_vectors(tmp_path: Path, pdf: Path, model: ColPali) -> None:
    def sizes() -> dict[str, int]:
        return {path.name: path.stat().st_size for path in (tmp_path / "store").glob("*.block")}

    with MultiVectorStore.open(tmp_path / "store", model=model, first_stage="ward") as store:
        ingest([source(pdf, document_id="x", metadata={"year": 2023})], store=store, model=model)
        before, vectors = sizes(), store.vectors(list(store.hashes()))
        assert ingest([source(pdf, document_id="x", metadata={"year": 2024})], store=store, model=model).updated == 2
        assert store.count({"year": 2024}) == 2
        assert sizes() == before
        np.testing.assert_array_equal(np.array(store.vectors(list(store.hashes()))), np.array(vectors))
        [hit, *_] = store.search("Apples", k=1)
        assert hit.entry.metadata["year"] == 2024


def test_pages_that_another_process_removes_meanwhile_are_encoded_again(
    tmp_path: Path, pdf: Path, model: ColPali
) -> None:
    class Removed(MultiVectorStore):
        def update_entries(self, entries: Iterable[Entry]) -> None:
            changed = list(entries)
            assert self.delete(ids=[entry.id for entry in changed]) == len(changed)
            super().update_entries(changed)

    with Removed.open(tmp_path / "store", model=model) as store:
        ingest([source(pdf, document_id="x")], store=store, model=model)
        report = ingest([source(pdf, document_id="x", metadata={"year": 2024})], store=store, model=model)
        assert (report.updated, report.added, store.count({"year": 2024})) == (0, 2, 2)


def test_pages_with_ids_of_their_own_stay(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    ingest([source(pdf)], store=store, model=model)
    [page, _] = store.scroll()
    [vectors] = store.vectors([page.id])
    assert vectors is not None
    store.add([(replace(page, id="figure", grid=page.grid), vectors)])
    assert ingest([source(pdf)], store=store, model=model).removed == 0
    assert "figure" in store


def test_a_file_that_changes_during_the_run_is_a_failure(tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    paths = [save_pdf(tmp_path / f"{name}.pdf", draw(name)) for name in ("apples", "bananas")]
    before = paths[0].read_bytes()

    def change(state: Progress) -> None:
        if not state.done:
            save_pdf(paths[0], draw("cherries, many of them"))

    report = ingest([source(path) for path in paths], store=store, model=model, on_error="skip", progress=change)
    assert [failure.name for failure in report.failures] == ["apples.pdf, page 1"]
    assert "changed while it was read" in report.failures[0].reason
    paths[0].write_bytes(before)
    assert ingest([source(paths[0])], store=store, model=model).added == 1


def test_equal_pages_fail_one_by_one(pdf: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    bad = source(pdf, metadata={"when": object()})
    good = source(pdf, metadata={"tenant": "north"})
    for sources in ([bad, good], [good, bad]):
        report = ingest(sources, store=store, model=model, on_error="skip")
        assert len(report.failures) == 2
        assert store.count({"tenant": "north"}) == len(report.ids) == 2


def test_a_stopped_run_reports_only_stored_ids(pdf: Path, model: ColPali) -> None:
    store, stop = MultiVectorStore.open(model=model), Event()
    report = ingest([source(pdf)], store=store, model=model, stop=stop, progress=lambda _: stop.set())
    assert sorted(report.ids) == sorted(store.hashes())
    assert len(report.ids) < 2


TEXTS = ["low tide", "rates of tax", "the old harbour"]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from(TEXTS)), max_size=5), max_size=4))
def test_every_entry_has_the_vectors_of_its_own_text(runs: list[list[tuple[str, str]]]) -> None:
    model = encoder()
    store = MultiVectorStore.open(model=model)
    expected: dict[str, str] = {}
    vectors = dict(zip(TEXTS, model.embed_texts(TEXTS), strict=True))
    for run in runs:
        report = ingest([text_item(*one) for one in run], store=store, model=model)
        new = dict(run)
        assert report.ids == [id_ for id_, _ in run], "one id per item, also for items with equal ids"
        assert report.present == sum(expected.get(id_) == text for id_, text in new.items())
        expected |= new
    assert {entry.id: entry.text for entry in store.scroll()} == expected
    for id_, text in expected.items():
        [found] = store.vectors([id_])
        assert found is not None
        np.testing.assert_array_equal(found, vectors[text].astype(np.float16).astype(np.float32))


_encoders: list[ColPali] = []


def encoder() -> ColPali:
    """One model for all examples: hypothesis refuses fixtures that live for one test."""
    if not _encoders:
        _encoders.append(ColPali.from_pretrained())
    return _encoders[0]


class PanicException(BaseException):
    """As pyo3 raises it for a panic of Rust code."""


def text_of(error: BaseException) -> Item:
    def entry() -> Entry:
        raise error

    return Item(id=type(error).__name__, key=text_key(type(error).__name__), name="a text", entry=entry)


@pytest.mark.parametrize("error", [KeyError("MediaBox"), MemoryError(), PanicException("index out of bounds")])
def test_foreign_exceptions_are_failures_of_their_item(error: BaseException, pdf: Path, model: ColPali) -> None:
    def broken() -> bytes:
        raise error

    store = MultiVectorStore.open(model=model)
    sources: list[DocumentSource | Item] = [
        DocumentSource(source=broken, name="broken.pdf"),
        text_of(error),
        source(pdf),
        text_item("note", "tide"),
    ]
    report = ingest(sources, store=store, model=model, on_error="skip")
    assert report.added == len(store) == 3
    assert [failure.name for failure in report.failures] == ["broken.pdf", "a text"]
    expected = "out of memory" if isinstance(error, MemoryError) else f"{type(error).__name__}: {error}"
    assert {failure.reason for failure in report.failures} == {expected}
    with pytest.raises(InputError) as caught:
        ingest(sources, store=store, model=model, on_error="raise")
    assert caught.value.__cause__ is error


def test_ctrl_c_is_no_failure_of_an_item(model: ColPali) -> None:
    with pytest.raises(KeyboardInterrupt):
        ingest([text_of(KeyboardInterrupt())], store=MultiVectorStore.open(model=model), model=model, on_error="skip")


def test_a_wrong_number_of_pages_is_one_failure(tmp_path: Path, pdf: Path, model: ColPali) -> None:
    wrong = tmp_path / "wrong.pdf"
    wrong.write_bytes(COUNTS_TOO_MANY)
    report = index_documents([wrong, pdf], model=model, store=MultiVectorStore.open(model=model))
    assert report.added == 3
    [failure] = report.failures
    assert failure.name == "wrong.pdf, page 2"
    assert "the file counts 100000 pages, but none from this one on can be found" in failure.reason


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no limit of memory")
@pytest.mark.parametrize("content", [TINY_PATTERN_STEPS, FORM_IN_ITSELF], ids=["time", "memory"])
def test_a_hostile_page_fails_within_the_limits_and_the_run_goes_on(
    content: bytes, tmp_path: Path, pdf: Path, model: ColPali
) -> None:
    hostile = tmp_path / "hostile.pdf"
    hostile.write_bytes(content)
    before = time.monotonic()
    report = index_documents([hostile, pdf], model=model, store=MultiVectorStore.open(model=model))
    assert time.monotonic() - before < 240
    assert report.added == 4
    [failure] = report.failures
    assert failure.name == "hostile.pdf, page 2"
    assert "hostile.pdf, page 2 cannot be drawn: it " in failure.reason
