"""Indexing of files and folders: documents are stored once, again after changes, and a broken one harms no other."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NoReturn

import numpy as np
import pypdfium2
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, ModelLoadError, PdfError
from colpali_integrations.pages.identity import PAGE_KEYS
from colpali_integrations.stores import (
    IngestReport,
    MultiVectorStore,
    Progress,
    find_documents,
    index_documents,
)
from tests.pages.test_pdf import encrypted, stream
from tests.pages.test_viewer import HINDI, page_with
from tests.stores.documents import DPI, draw, make_folder, save_pdf
from tests.stores.stored_models import made_up


@pytest.fixture(scope="module")
def model() -> Iterator[ColPali]:
    with ColPali.from_pretrained("coltiny") as loaded:
        yield loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "documents")


class Recorder:
    def __init__(self, stop_after: int = 1000) -> None:
        self.states: list[Progress] = []
        self.stop_after = stop_after

    def __call__(self, state: Progress) -> None:
        self.states.append(state)
        if len(self.pages) == self.stop_after:
            raise KeyboardInterrupt

    @property
    def pages(self) -> list[str]:
        return [state.name for state in self.states if state.name and state.failure is None]

    @property
    def failures(self) -> list[str]:
        return [state.failure.name for state in self.states if state.failure is not None]


def index(folder: Path, model: ColPali, store: MultiVectorStore, **options: Any) -> IngestReport:
    return index_documents([folder], model=model, store=store, dpi=DPI, **options)


_LISTS = ("documents", "failures", "passed_over", "warnings")


def counts(report: IngestReport) -> dict[str, int]:
    numbers = {name: value for name, value in report.to_dict().items() if name not in _LISTS}
    return {name: value for name, value in numbers.items() if value}


def without_area(path: Path, page: int) -> None:
    """Move a page's crop box outside of its media box, so that the page cannot be drawn."""
    with pypdfium2.PdfDocument(path.read_bytes()) as document:
        document[page].set_cropbox(5000, 5000, 5001, 5001)
        document.save(path)


def best(store: MultiVectorStore, model: ColPali, question: str) -> str:
    [query] = model.embed_queries(question)
    return store.search(query, k=1)[0].entry.name


def test_documents_are_found_in_order_and_once(folder: Path) -> None:
    fruit, train = folder / "fruit.pdf", folder / "deep" / "er" / "train.PNG"
    assert find_documents([folder]) == find_documents(folder) == find_documents(str(folder)) == [train, fruit]
    assert find_documents([fruit, folder, folder / "deep" / ".." / "fruit.pdf"]) == [fruit, train]
    assert find_documents([folder / "notes.txt"]) == [folder / "notes.txt"], "a named file is always tried"
    with pytest.raises(InputError, match="nowhere"):
        find_documents([folder / "nowhere"])


@pytest.mark.parametrize("pattern", ["*.PNG", "deep/*", "train.PNG"])
def test_excluded_files_are_skipped(pattern: str, folder: Path) -> None:
    assert find_documents(folder, exclude=[pattern]) == [folder / "fruit.pdf"]
    assert find_documents(folder, exclude=pattern) == [folder / "fruit.pdf"]
    assert find_documents(folder / "deep" / "er" / "train.PNG", exclude=[pattern]), "a named file is not excluded"


def test_pages_are_found_by_their_words(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    recorder = Recorder()
    assert counts(index(folder, model, store, progress=recorder)) == {"added": 3}
    assert recorder.states[0] == Progress(0, 3)
    assert [state.done for state in recorder.states] == [0, 1, 2, 3]
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


def test_metadata_contain_file_and_folder(folder: Path, model: ColPali, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder.parent)
    store = MultiVectorStore.open(model=model)
    index_documents("documents", model=model, store=store, dpi=DPI, metadata={"tenant": "north"})
    for where in (
        {"source": "documents/fruit.pdf"},
        {"file_path": str(folder / "fruit.pdf")},
        {"file_name": "fruit.pdf"},
        {"page_label": "1", "file_name": {"$ne": "train.PNG"}},
        {"document_id": {"$text": "fruit.pdf#"}, "tenant": "north"},
    ):
        assert store.count(where) == (1 if "page_label" in where else 2), where


def test_running_again_adds_nothing_and_a_copy_is_another_document(
    folder: Path, tmp_path: Path, model: ColPali
) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    assert counts(index(folder, model, store)) == {"present": 3}
    shutil.copy(folder / "fruit.pdf", folder / "copy of fruit.pdf")
    assert counts(index(folder, model, store)) == {"present": 3, "copied": 2}
    save_pdf(folder / "new.pdf", draw("one more"))
    assert counts(index(folder, model, MultiVectorStore.open(tmp_path / "store"))) == {"present": 5, "added": 1}


def test_a_changed_document_replaces_its_pages(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    save_pdf(folder / "fruit.pdf", draw("Cherries everywhere"))
    assert counts(index(folder, model, store)) == {"present": 1, "added": 1, "replaced": 1, "removed": 1}
    assert best(store, model, "cherries") == "fruit.pdf, page 1"
    assert len(store) == 2


def test_a_missing_file_keeps_its_pages(folder: Path, model: ColPali) -> None:
    """The path may be another machine's, or on a drive that is not mounted."""
    store = MultiVectorStore.open(model=model)
    index(folder, model, store)
    (folder / "fruit.pdf").rename(folder / "moved.pdf")
    assert counts(index(folder, model, store)) == {"present": 1, "copied": 2}
    assert sorted({entry.metadata["file_name"] for entry in store.scroll()}) == ["fruit.pdf", "moved.pdf", "train.PNG"]


def test_a_document_that_was_read_in_part_keeps_its_earlier_pages(folder: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    index(folder, model, store)
    save_pdf(folder / "fruit.pdf", draw("Cherries everywhere"))
    without_area(folder / "fruit.pdf", page=0)
    report = index_documents(folder / "fruit.pdf", model=model, store=store, dpi=DPI)
    assert [failure.name for failure in report.failures] == ["fruit.pdf, page 1"]
    assert counts(report) == {}
    assert store.count({"file_name": "fruit.pdf"}) == 2


def test_requested_pages_alone_are_replaced(folder: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    index(folder, model, store)
    save_pdf(folder / "fruit.pdf", draw("Cherries everywhere"), draw("Plums"), draw("Pears"))
    assert counts(index(folder / "fruit.pdf", model, store, pages=[2])) == {"added": 1, "replaced": 1}
    assert best(store, model, "apples") == "fruit.pdf, page 1"
    assert best(store, model, "plums") == "fruit.pdf, page 2"
    assert store.count({"file_name": "fruit.pdf"}) == 2


def test_broken_documents_are_named_and_skipped(folder: Path, tmp_path: Path, model: ColPali) -> None:
    (folder / "empty.pdf").touch()
    (folder / "broken.pdf").write_bytes((folder / "fruit.pdf").read_bytes()[:150])
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    recorder = Recorder()
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    report = index(folder, model, store, progress=recorder)
    assert counts(report) == {"added": 3}
    names = sorted(failure.name.rpartition("/")[2] for failure in report.failures)
    assert names == ["broken.pdf", "broken.png, page 1", "empty.pdf"]
    assert sorted(recorder.failures) == sorted(failure.name for failure in report.failures)
    report = index_documents([folder / "empty.pdf"], model=model, store=store)
    assert "0 bytes" in report.failures[0].reason


def test_a_failure_names_its_file_once(folder: Path, model: ColPali, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    index_documents(folder / "torn.png", model=model, store=MultiVectorStore.open(model=model))
    assert caplog.messages[-1] == f"skipped {folder / 'torn.png'}, page 1: is a PNG image that is damaged or cut off"
    with pytest.raises(InputError) as raised:
        list(model.embed_images([folder / "torn.png"]))
    assert str(raised.value) == f"item 0 ({folder / 'torn.png'}): is a PNG image that is damaged or cut off"


def test_raise_stops_and_keeps_earlier_pages(folder: Path, tmp_path: Path, model: ColPali) -> None:
    (folder / "zzz.png").write_bytes(b"not an image")
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(InputError, match=r"zzz\.png"):
        index(folder, model, store, on_error="raise")
    assert len(store) == 3
    (folder / "a.pdf").touch()
    with pytest.raises(PdfError, match=r"a\.pdf"):
        index(folder, model, store, on_error="raise")


def test_an_interrupted_run_continues(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(KeyboardInterrupt):
        index(folder, model, store, progress=Recorder(stop_after=2))
    assert len(MultiVectorStore.open(tmp_path / "store")) == 2
    assert counts(index(folder, model, store)) == {"present": 2, "added": 1}


def test_progress_tells_which_pages_a_search_finds(tmp_path: Path, model: ColPali) -> None:
    folder, total = tmp_path / "many", 70  # more than the store writes at a time
    folder.mkdir()
    save_pdf(folder / "many.pdf", *(draw(f"page {number}") for number in range(total)))
    (folder / "torn.png").write_bytes(b"not an image")
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    failed, seen = 0, []

    def look(state: Progress) -> None:
        nonlocal failed
        failed += state.failure is not None
        seen.append((state.done, state.stored - failed, len(store)))

    index(folder, model, store, progress=look)
    assert failed == 1
    assert all(stored == found <= done for done, stored, found in seen)
    assert seen[-1][0] == total + 1
    assert seen[-1][1] >= 64


def test_a_run_is_stopped_by_an_event(folder: Path, model: ColPali) -> None:
    store, stop = MultiVectorStore.open(model=model), Event()
    stop.set()
    assert counts(index(folder, model, store, stop=stop)) == {}
    assert len(store) == 0


def test_another_resolution_replaces_the_page(folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    index(folder, model, store)
    report = index_documents([folder], model=model, store=store, dpi=DPI / 2)
    assert counts(report) == {"present": 1, "added": 2, "replaced": 2}


def test_a_folder_is_opened_and_a_store_of_another_model_is_refused(
    folder: Path, tmp_path: Path, model: ColPali
) -> None:
    assert index_documents([folder / "deep"], model=model, store=tmp_path / "new").added == 1
    assert len(MultiVectorStore.open(tmp_path / "new", model=model)) == 1
    other = made_up("other", dim=model.dim, identity="0" * 16)
    with pytest.raises(FingerprintError, match="other"):
        index_documents([folder], model=model, store=MultiVectorStore.open(tmp_path / "other", model=other))


def test_encrypted_documents(tmp_path: Path, model: ColPali) -> None:
    path = tmp_path / "locked.pdf"
    path.write_bytes(encrypted(user=b"secret", owner=b"owner"))
    store = MultiVectorStore.open(model=model)
    [failure] = index_documents(path, model=model, store=store).failures
    assert "encrypted" in failure.reason
    assert index_documents(path, model=model, store=store, password="secret").added == 1
    assert "secret" not in str([entry.to_payload() for entry in store.scroll()])


@pytest.mark.parametrize("options", [{"dpi": 0}, {"on_error": "ignore"}, {"batch_size": 0}, {"parallel": -1}])
def test_invalid_options(options: dict[str, Any], folder: Path, tmp_path: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(tmp_path / "store", model=model)
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        index_documents([folder], model=model, store=store, **options)


def test_one_id_cannot_name_several_documents(folder: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    with pytest.raises(ConfigurationError, match="document_id names one document"):
        index_documents(folder, model=model, store=store, document_id="x")
    assert index_documents(folder / "fruit.pdf", model=model, store=store, document_id="x", dpi=DPI).added == 2
    assert store.documents() == {"x": 2}


def test_found_documents_are_held_to_the_rules_of_their_search(tmp_path: Path, model: ColPali) -> None:
    (tmp_path / "notes.txt").write_text("no document")
    save_pdf(tmp_path / "one.pdf", draw("tide"))
    found = find_documents([tmp_path, tmp_path])
    assert (len(found), found.passed_over) == (1, {"other_suffix": 1})
    with MultiVectorStore.open(model=model) as store:
        for option in ({"exclude": ["*.pdf"]}, {"follow_symlinks": True}):
            with pytest.raises(ConfigurationError, match=rf"{next(iter(option))}: .* pass it to find_documents"):
                index_documents(found, model=model, store=store, **option)
        for paths in (found, tmp_path):
            with pytest.raises(ConfigurationError, match=r"document_id names one document, and .* is a folder"):
                index_documents(paths, model=model, store=store, document_id="x")
        assert len(store) == 0


def test_a_model_that_cannot_be_loaded_leaves_no_store(
    coltiny: ColPali, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> NoReturn:
        raise ModelLoadError("damaged")

    draw("apples").save(tmp_path / "a.png")
    with monkeypatch.context() as patch, pytest.raises(ModelLoadError):
        patch.setattr(coltiny._sessions[0], "load", fail)
        index_documents(tmp_path / "a.png", model=coltiny, store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
    assert index_documents(tmp_path / "a.png", model=coltiny, store=tmp_path / "store").added == 1


def test_a_new_store_among_other_files_is_told(
    coltiny: ColPali, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    draw("apples").save(tmp_path / "a.png")
    for _ in range(2):
        index_documents(tmp_path, model=coltiny, store=tmp_path)
    [record] = [one for one in caplog.records if "among other files" in one.message]
    assert record.message.startswith(f"a new store is made in {tmp_path}, among other files (a.png)")


def test_what_a_search_passes_over_is_in_the_report(folder: Path, model: ColPali) -> None:
    (folder / ".hidden.pdf").touch()
    (folder / "link").symlink_to(folder)
    with MultiVectorStore.open(model=model) as store:
        expected = dict(find_documents(folder).passed_over)
        assert {"hidden", "linked_folder"} <= expected.keys()
        assert index(folder, model, store).passed_over == expected
        found = find_documents(folder, follow_symlinks=True)
        report = index_documents(found, model=model, store=store, dpi=DPI)
        assert report.present == 3
        assert report.to_dict()["passed_over"] == dict(found.passed_over)


def test_documents_that_lack_fonts_are_stored_with_a_warning(
    folder: Path, model: ColPali, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "poem.pdf").write_bytes(HINDI)
    shutil.copy(folder / "poem.pdf", folder / "second.pdf")
    with MultiVectorStore.open(model=model) as store, caplog.at_level(logging.WARNING, "colpali_integrations"):
        report = index(folder, model, store)
        assert not report.failures
        assert [warning.name for warning in report.warnings] == [str(folder / "poem.pdf"), str(folder / "second.pdf")]
        for warning in report.warnings:
            assert warning.message.startswith("page 1: not drawn are characters of Absent")
            assert "doctor" in warning.message
            assert "--force" in warning.message
        assert len(report.to_dict()["warnings"]) == 2
        assert sum("not drawn are characters of Absent" in record.getMessage() for record in caplog.records) == 2
        assert {entry.metadata.get("missing_fonts") for entry in store.scroll()} == {None, "Absent"}
        assert index(folder, model, store).warnings == report.warnings, "until the pages are drawn anew"


def test_pages_with_any_characters_can_be_stored(tmp_path: Path, model: ColPali) -> None:
    """Character maps may yield control characters and halves of pairs, also where hidden text is left out."""
    codes = [*range(0x20), 0x7F, 0x85, 0xAD, 0x2028, 0xD83D, 0xDC00, 0xFFFE, 0xFFFF]
    pairs = b" ".join(b"<%02x> <%04x>" % (0x30 + index, code) for index, code in enumerate(codes))
    mapping = b"begincmap 1 begincodespacerange <00> <FF> endcodespacerange %d beginbfchar %b endbfchar endcmap"
    font = b"<</Type/Font/Subtype/Type1/BaseFont/Helvetica/ToUnicode 6 0 R>>"
    text = b"BT /F1 3 Tf 9 40 Td <%b> Tj ET " % b"".join(b"%02x7a" % (0x30 + index) for index in range(len(codes)))
    maps = (stream(mapping % (len(codes), pairs)),)
    store = tmp_path / "store"
    for name, more in (("whole", b""), ("filtered", b"1 g " + text.replace(b"9 40", b"9 70"))):
        (tmp_path / f"{name}.pdf").write_bytes(page_with(text + more, font=font, more=maps))
        report = index_documents(tmp_path / f"{name}.pdf", model=model, store=store)
        assert (report.added, report.failures) == (1, [])
        with MultiVectorStore.open(store) as reopened:
            [entry] = [entry for entry in reopened.get(report.ids) if entry is not None]
            assert entry.text.count("z") == len(codes)
            assert not {"\x00", "\ufffe"} & set(entry.text)
            assert entry.text.encode().decode() == entry.text


def test_force_embeds_what_is_there_already_and_loses_nothing(folder: Path, model: ColPali) -> None:
    fruit, train = folder / "fruit.pdf", folder / "deep" / "er" / "train.PNG"
    with MultiVectorStore.open(model=model) as store:
        first = index(folder, model, store)
        pages = [entry for entry in store.get(first.ids) if entry is not None]
        store.update_metadata(str(fruit), {"shelf": "upper"})
        right = store.vectors(first.ids)
        wrong = [np.roll(array, 1, axis=1) for array in right if array is not None]  # such as those of a blank page
        store.add(zip(store.get(first.ids), wrong, strict=True), model=model)  # type: ignore[arg-type]
        assert counts(index(folder, model, store)) == {"present": 3}
        forced = index_documents(fruit, model=model, store=store, dpi=DPI, force=True)
        assert counts(forced) == {"added": 2, "replaced": 2}
        assert set(forced.ids) < set(first.ids)
        assert len(store) == 3
        for id_, expected, other in zip(first.ids, right, wrong, strict=True):
            [array], [entry] = store.vectors([id_]), store.get([id_])
            assert array is not None
            assert entry is not None
            is_forced = entry.source == str(fruit)
            np.testing.assert_allclose(array, expected if is_forced else other, atol=1e-5)  # type: ignore[arg-type]
            assert entry.metadata.get("shelf") == ("upper" if is_forced else None)
        assert {entry.source for entry in pages} == {str(fruit), str(train)}


def test_force_encodes_equal_pages_of_a_run_once_and_copies_from_no_other(
    folder: Path, tmp_path: Path, model: ColPali
) -> None:
    copy = tmp_path / "copy.pdf"
    shutil.copy(folder / "fruit.pdf", copy)
    with MultiVectorStore.open(model=model) as store:
        index(folder, model, store)
        assert counts(index_documents(copy, model=model, store=store, dpi=DPI, force=True)) == {"added": 2}
        both = index_documents([folder / "fruit.pdf", copy], model=model, store=store, dpi=DPI, force=True)
        assert counts(both) == {"added": 2, "copied": 2, "replaced": 4}


def test_pages_beyond_the_end_of_one_of_several_documents_are_passed_over(folder: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    report = index(folder, model, store, pages=[2, 3], on_error="raise")
    assert counts(report) == {"added": 1, "absent": 3}
    with pytest.raises(InputError, match="no document has any of the requested pages; the longest has 2 pages"):
        index(folder, model, store, pages=[3])
    with pytest.raises(InputError, match=r"the longest has 1 page$"):
        index(folder / "deep", model, store, pages=[2])
    files = find_documents(folder)
    assert index_documents(files, model=model, store=store, dpi=DPI, pages=[2]).absent == 1
    with pytest.raises(PdfError, match="pages 1 to 2; page 3 was requested"):
        index_documents(folder / "fruit.pdf", model=model, store=store, pages=[3], on_error="raise")


@pytest.mark.parametrize("key", sorted(PAGE_KEYS))
def test_metadata_that_a_page_has_of_its_own_are_refused(key: str, folder: Path, model: ColPali) -> None:
    store = MultiVectorStore.open(model=model)
    with pytest.raises(ConfigurationError, match=f"metadata: each page has its own {key}, so a value of the caller"):
        index(folder, model, store, metadata={"tenant": "north", key: 9})
    assert len(store) == 0
