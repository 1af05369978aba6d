"""Documents find their way into a store: each once, again only when changed, and one that is broken harms no other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, PdfError
from colpali_integrations.stores import Entry, Failure, Fingerprint, MultiVectorStore, find_documents, index_documents
from tests.stores.documents import DPI, draw, make_folder, save_pdf


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained("coltiny") as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "documents")


class Recorder:
    def __init__(self) -> None:
        self.total = 0
        self.pages: list[str] = []
        self.failures: list[str] = []
        self.fallen = 0

    def planned(self, pages: int) -> None:
        self.total = pages

    def done(self, page: Entry) -> None:
        self.pages.append(page.name)

    def failed(self, failure: Failure, pages: int) -> None:
        self.failures.append(failure.name)
        self.fallen += pages


def index(folder: Path, model: ColPali, store: MultiVectorStore, **options: object) -> tuple[int, int, int, list[str]]:
    report = index_documents([folder], model=model, store=store, dpi=DPI, **options)  # type: ignore[arg-type]
    return report.added, report.present, report.removed, [Path(failure.name).name for failure in report.failures]


def best(store: MultiVectorStore, model: ColPali, question: str) -> str:
    [query] = model.embed_queries(question)
    return store.search(query, k=1)[0].entry.name


def test_documents_are_found_in_order_and_once(folder: Path) -> None:
    fruit, train = folder / "fruit.pdf", folder / "deep" / "er" / "train.PNG"
    assert find_documents([folder]) == [train, fruit]
    assert find_documents([fruit, folder, folder / "deep" / ".." / "fruit.pdf"]) == [fruit, train]
    assert find_documents([folder / "notes.txt"]) == [folder / "notes.txt"], "what is named is tried"
    with pytest.raises(InputError, match="nowhere"):
        find_documents([folder / "nowhere"])


def test_pages_are_found_by_what_they_say(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    recorder = Recorder()
    assert index(folder, model, store, listener=recorder) == (3, 0, 0, [])
    assert (recorder.total, recorder.fallen) == (3, 0)
    assert recorder.pages == ["train.PNG, page 1", "fruit.pdf, page 1", "fruit.pdf, page 2"]
    assert best(store, model, "bananas market") == "fruit.pdf, page 2"
    assert best(store, model, "apples") == "fruit.pdf, page 1"
    assert best(store, model, "railway") == "train.PNG, page 1"
    sizes = sorted((entry.metadata["width"], entry.metadata["height"]) for entry in store.scroll())
    assert sizes == [(504.0, 216.0), (504.0, 216.0), (700, 300)], "an image in pixels, PDF pages in points"
    [train] = store.scroll({"page_count": 1})
    [alone] = model.embed_pages(draw("The railway timetable"))
    [kept] = store.vectors([train.id])
    assert kept is not None
    np.testing.assert_array_equal(kept, alone.vectors.astype(np.float16).astype(np.float32))
    assert train.grid == alone.grid


def test_running_again_adds_nothing_and_a_copy_is_recognised(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    shutil.copy(folder / "fruit.pdf", folder / "copy of fruit.pdf")
    assert index(folder, model, store) == (0, 5, 0, [])
    save_pdf(folder / "new.pdf", draw("one more"))
    assert index(folder, model, MultiVectorStore.open(tmp_path / "store")) == (1, 5, 0, [])


def test_a_changed_document_replaces_its_pages(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    save_pdf(folder / "fruit.pdf", draw("Cherries everywhere"))
    assert index(folder, model, store) == (1, 1, 2, [])
    assert best(store, model, "cherries") == "fruit.pdf, page 1"
    assert len(store) == 2


def test_broken_documents_are_named_and_skipped(folder: Path, tmp_path: Path, model: ColPali) -> None:
    (folder / "empty.pdf").touch()
    (folder / "broken.pdf").write_bytes((folder / "fruit.pdf").read_bytes()[:150])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    recorder = Recorder()
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    added, present, removed, failures = index(folder, model, store, listener=recorder)
    assert (added, present, removed) == (3, 0, 0)
    assert sorted(failures) == ["broken.pdf", "broken.png", "empty.pdf"]
    assert sorted(Path(name).name for name in recorder.failures) == sorted(failures)
    assert recorder.total - recorder.fallen == 3
    report = index_documents([folder / "empty.pdf"], model=model, store=store)
    assert "0 bytes" in report.failures[0].reason


def test_raise_stops_and_keeps_what_was_done(folder: Path, tmp_path: Path, model: ColPali) -> None:
    (folder / "zzz.png").write_bytes(b"not an image")
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(InputError, match=r"zzz\.png"):
        index(folder, model, store, on_error="raise")
    assert len(store) == 3
    (folder / "a.pdf").touch()
    with pytest.raises(PdfError, match=r"a\.pdf"):
        index(folder, model, store, on_error="raise")


def test_an_interrupted_run_goes_on_where_it_stopped(folder: Path, tmp_path: Path, model: ColPali) -> None:
    class Interrupting(Recorder):
        def done(self, page: Entry) -> None:
            super().done(page)
            if len(self.pages) == 2:
                raise KeyboardInterrupt

    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(KeyboardInterrupt):
        index(folder, model, store, listener=Interrupting())
    assert len(MultiVectorStore.open(tmp_path / "store")) == 2
    assert index(folder, model, store) == (1, 2, 0, [])


def test_another_resolution_is_another_page(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    report = index_documents([folder], model=model, store=store, dpi=DPI / 2)
    assert (report.added, report.present, report.removed) == (2, 1, 2)


def test_a_folder_will_do_and_another_models_store_will_not(folder: Path, tmp_path: Path, model: ColPali) -> None:
    assert index_documents([folder / "deep"], model=model, store=tmp_path / "new").added == 1
    assert len(MultiVectorStore.open(tmp_path / "new", model=model)) == 1
    other = Fingerprint(name="other", family="coltiny", dim=model.dim, description="0" * 16)
    with pytest.raises(FingerprintError, match="other"):
        index_documents([folder], model=model, store=MultiVectorStore.open(tmp_path / "other", model=other))


@pytest.mark.parametrize("options", [{"dpi": 0}, {"on_error": "ignore"}, {"batch_size": 0}, {"parallel": -1}])
def test_options_that_cannot_be(options: dict[str, object], folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        index_documents([folder], model=model, store=store, **options)  # type: ignore[arg-type]
