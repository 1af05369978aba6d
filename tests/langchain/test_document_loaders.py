from __future__ import annotations

import asyncio
import base64
import io
import json
import logging
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore
from PIL import Image

from colpali_integrations import pdf_pages
from colpali_integrations.errors import ConfigurationError, ImageError, InputError, PdfError
from colpali_integrations.langchain import (
    ColPaliEmbeddings,
    ColPaliVectorStore,
    PageImageBlobParser,
    PdfPageLoader,
    image_blocks,
)
from colpali_integrations.pages import page_image
from colpali_integrations.pages.identity import text_key
from colpali_integrations.pages.metadata import picture_hash
from colpali_integrations.stores import Progress
from tests.pages.strangers import frames, tiff
from tests.pages.test_viewer import HINDI

PDFS = Path(__file__).resolve().parents[2] / "demo" / "pdfs"
MANUAL = PDFS / "freedoom-manual.pdf"
SLIDES = PDFS / "metropolis-slides.pdf"
SCAN = PDFS / "huckleberry-finn-scan.pdf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two PDFs, one of them deeper and with its suffix in capitals, one broken PDF, one image, one text."""
    inside = tmp_path / "reports"
    (inside / "old").mkdir(parents=True)
    shutil.copy(SCAN, inside / "c-scan.pdf")
    (inside / "b-broken.pdf").write_bytes(MANUAL.read_bytes()[:2000])
    Image.new("RGB", (30, 20), "white").save(inside / "picture.png")
    (inside / "note.txt").write_text("not a page")
    Image.new("RGB", (30, 20), "white").save(inside / "old" / "BLANK.PDF", "PDF")
    return inside


def test_the_classes_are_a_loader_and_a_parser() -> None:
    assert isinstance(PdfPageLoader(MANUAL), BaseLoader)
    assert isinstance(PageImageBlobParser(), BaseBlobParser)


def test_a_page_becomes_a_document_with_its_text_and_reference() -> None:
    documents = PdfPageLoader(MANUAL).load()
    assert [document.metadata["page"] for document in documents] == list(range(1, 16))
    for document, page in zip(documents, pdf_pages(MANUAL, dpi=10), strict=True):
        assert document.page_content == page.text.strip()
        assert document.metadata == {
            "source": str(MANUAL),
            "file_path": str(MANUAL),
            "file_name": "freedoom-manual.pdf",
            "document_id": str(MANUAL),
            "page": page.number,
            "page_label": document.metadata["page_label"],
            "page_count": 15,
            "width": round(page.width, 2),
            "height": round(page.height, 2),
            "dpi": 150.0,
            "content_hash": document.metadata["content_hash"],
            "text_hash": text_key(document.page_content),
        }
        assert json.loads(json.dumps(document.metadata)) == document.metadata
    assert len({document.metadata["content_hash"] for document in documents}) == 15


def test_a_page_without_text_is_called_by_its_name() -> None:
    [document] = PdfPageLoader(str(SCAN)).load()
    assert document.page_content == "huckleberry-finn-scan.pdf, page 1"


def test_requested_pages_come_in_the_requested_order() -> None:
    documents = PdfPageLoader(SLIDES, pages=iter([7, 2])).load()
    assert [document.metadata["page"] for document in documents] == [7, 2]
    assert {document.metadata["page_count"] for document in documents} == {33}
    with pytest.raises(PdfError, match="pages 1 to 33; page 34 was requested"):
        PdfPageLoader(SLIDES, pages=[34]).load()
    for pages in ([0], [1.0], "1", 2):
        with pytest.raises(ConfigurationError, match="pages: expected 1-based whole numbers"):
            PdfPageLoader(SLIDES, pages=pages)  # type: ignore[arg-type]


def test_a_url_is_the_source_of_one_document() -> None:
    url = {"source": "https://example.org/slides.pdf"}
    [first] = PdfPageLoader(SLIDES, pages=[1], metadata=url).load()
    assert first.metadata["source"] == url["source"]
    with pytest.raises(ConfigurationError, match="identifies one document, and there are 2"):
        PdfPageLoader([SLIDES, SCAN], metadata=url).load()


def test_pages_come_one_at_a_time() -> None:
    pages = PdfPageLoader([SLIDES, "missing.pdf"]).lazy_load()
    assert next(pages).metadata["page"] == 1
    assert next(pages).metadata["page"] == 2


def test_the_picture_is_included_on_request() -> None:
    [plain] = PdfPageLoader(SLIDES, pages=[3], dpi=40).load()
    [full] = PdfPageLoader(SLIDES, pages=[3], dpi=40, include_image=True).load()
    encoded, mime = full.metadata.pop("image_base64"), full.metadata.pop("image_mime_type")
    assert full.metadata.pop("image_hash") == picture_hash(encoded)
    assert (full, mime) == (plain, "image/png")
    [page] = pdf_pages(SLIDES, pages=[3], dpi=40)
    with Image.open(io.BytesIO(base64.b64decode(encoded))) as image:
        assert image.tobytes() == page.image.tobytes()


def test_the_hash_is_the_contents_and_not_the_paths(tmp_path: Path) -> None:
    copy = tmp_path / "copy.pdf"
    shutil.copy(SCAN, copy)
    [first], [same] = PdfPageLoader(SCAN).load(), PdfPageLoader(copy, dpi=30).load()
    assert same.metadata["content_hash"] == first.metadata["content_hash"]
    copy.write_bytes(copy.read_bytes() + b"\n")
    [edited] = PdfPageLoader(copy).load()
    assert edited.metadata["content_hash"] != first.metadata["content_hash"]


# -- sources ------------------------------------------------------------------------------------------------------


def names(documents: list[Document]) -> list[tuple[str, int]]:
    return [(Path(document.metadata["source"]).name, document.metadata["page"]) for document in documents]


def test_a_folder_is_searched_and_bad_files_are_skipped_with_a_log_entry(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        documents = PdfPageLoader(folder, on_error="skip").load()
    assert names(documents) == [("c-scan.pdf", 1), ("BLANK.PDF", 1), ("picture.png", 1)]
    assert [record.getMessage().startswith(f"skipped {folder / 'b-broken.pdf'}: ") for record in caplog.records] == [
        True
    ]


def test_a_bad_file_raises_by_default_after_what_came_before(folder: Path) -> None:
    documents = PdfPageLoader([SCAN, folder]).lazy_load()
    assert next(documents).metadata["source"] == str(SCAN)
    with pytest.raises(PdfError, match=r"b-broken\.pdf is not a PDF, or is damaged"):
        next(documents)


def test_linked_folders_are_loaded_on_request_and_missing_fonts_are_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").mkdir()
    (tmp_path / "far" / "poem.pdf").write_bytes(HINDI)
    (tmp_path / "near" / "link").symlink_to(tmp_path / "far")
    assert PdfPageLoader(tmp_path / "near").load() == []
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        [page] = PdfPageLoader(tmp_path / "near", follow_symlinks=True).load()
    assert page.page_content == "हिन्दी"
    assert "poem.pdf, page 1: not drawn are characters of Absent" in caplog.text


def test_images_are_pages_and_patterns_exclude_files(folder: Path) -> None:
    [document] = PdfPageLoader(folder, exclude=["*.pdf", "old/*"]).load()
    assert document.page_content == "picture.png, page 1"
    assert (document.metadata["width"], document.metadata["height"], document.metadata["page_count"]) == (30, 20, 1)
    assert PdfPageLoader(folder, exclude="*").load() == []


def test_the_caller_s_metadata_are_part_of_the_identity() -> None:
    blob = Blob.from_path(SCAN, metadata={"fetched": "today"})
    [plain], [north] = PdfPageLoader(blob).load(), PdfPageLoader(blob, metadata={"tenant": "north"}).load()
    assert plain.metadata["document_id"] == str(SCAN)
    assert north.metadata["document_id"].startswith(f"{SCAN}#")
    assert (north.metadata["tenant"], north.metadata["fetched"]) == ("north", "today")
    assert (plain.id, north.id) == (None, None)


def test_one_document_may_have_an_identity_of_its_own(folder: Path) -> None:
    [page] = PdfPageLoader(SCAN, document_id="scan-7").load()
    assert page.metadata["document_id"] == "scan-7"
    for sources in (folder, [folder], [SCAN, SLIDES]):
        with pytest.raises(ConfigurationError, match="document_id names one document, and"):
            PdfPageLoader(sources, document_id="scan-7")


def test_progress_counts_pages_and_failures(folder: Path) -> None:
    states: list[Progress] = []
    assert len(PdfPageLoader([folder, MANUAL], pages=[1], on_error="skip", progress=states.append).load()) == 4
    assert [(state.done, state.total) for state in states] == [(number, number) for number in range(1, 6)]
    assert [Path(state.failure.name).name for state in states if state.failure] == ["b-broken.pdf"]
    assert states[-1].name == "freedoom-manual.pdf, page 1"


def test_a_page_that_cannot_be_read_does_not_hide_the_others(caplog: pytest.LogCaptureFixture) -> None:
    assert names(PdfPageLoader(SCAN, pages=[99, 1], on_error="skip").load()) == [(SCAN.name, 1)]
    assert f"{SCAN.name}, page 99: has pages" in caplog.text


def test_several_sources_of_several_kinds(folder: Path) -> None:
    loader = PdfPageLoader([str(SCAN), folder / "picture.png", Blob.from_path(folder / "old" / "BLANK.PDF")])
    expected = [(SCAN.name, 1), ("picture.png", 1), ("BLANK.PDF", 1)]
    assert names(loader.load()) == expected
    assert names(loader.load()) == expected


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("missing.pdf", PdfError, r"no PDF at .*missing\.pdf"),
        ("missing.png", InputError, r"cannot read .*missing\.png"),
        (Blob.from_data("some text"), ImageError, "not an image"),
        (Blob.from_data(b"%PDF-1.7 and no more", path="half.pdf"), PdfError, "damaged or cut off"),
    ],
)
def test_other_files_are_refused(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        PdfPageLoader(source).load()
    assert PdfPageLoader(source, on_error="skip").load() == []


@pytest.mark.parametrize("arguments", [{"dpi": 0}, {"dpi": float("nan")}, {"on_error": "collect"}, {"unknown": 1}])
def test_invalid_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        PdfPageLoader(SCAN, **arguments)


@pytest.mark.parametrize(
    ("guess", "right"), [("glob", "exclude="), ("silent_errors", "on_error="), ("page", "'pages'")]
)
def test_arguments_of_other_loaders_are_refused_with_the_right_name(guess: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=f"PdfPageLoader has no option '{guess}'; .*{right}"):
        PdfPageLoader(SCAN, **{guess: "*.pdf"})  # type: ignore[arg-type]


# -- blobs --------------------------------------------------------------------------------------------------------


def test_a_blob_keeps_its_metadata_and_its_source() -> None:
    blob = Blob.from_path(SCAN, metadata={"tenant": "north", "source": "https://example.org/finn.pdf", "page": "?"})
    [document] = PageImageBlobParser().parse(blob)
    assert document.metadata["tenant"] == "north"
    assert document.metadata["page"] == 1
    assert document.metadata["source"] == "https://example.org/finn.pdf"
    assert document.metadata["file_path"] == str(SCAN)
    assert document.page_content == "finn.pdf, page 1"


def test_a_blob_of_bytes_equals_the_file() -> None:
    [by_path] = PageImageBlobParser().parse(Blob.from_path(SCAN))
    [by_content] = PageImageBlobParser().parse(Blob.from_data(SCAN.read_bytes(), path=str(SCAN)))
    assert by_content.page_content == by_path.page_content
    assert by_content.metadata == {key: value for key, value in by_path.metadata.items() if key != "file_path"}


def test_a_blob_without_a_name_still_has_a_page_name() -> None:
    [document] = PageImageBlobParser().parse(Blob.from_data(SCAN.read_bytes()))
    assert document.metadata["source"].startswith("sha256:")
    assert document.page_content == f"{document.metadata['source']}, page 1"


# -- in LangChain -------------------------------------------------------------------------------------------------


async def test_the_loop_runs_on_while_pages_load() -> None:
    threads: set[int] = set()

    class Watched(PdfPageLoader):
        def lazy_load(self) -> Iterator[Document]:
            for document in super().lazy_load():
                threads.add(threading.get_ident())
                yield document

    documents = [document async for document in Watched(SLIDES, pages=range(1, 5)).alazy_load()]
    assert documents == await asyncio.to_thread(PdfPageLoader(SLIDES, pages=range(1, 5)).load)
    assert threads
    assert threading.get_ident() not in threads


def test_indexing_twice_adds_nothing() -> None:
    manager = InMemoryRecordManager("pages")
    manager.create_schema()
    store = InMemoryVectorStore(ColPaliEmbeddings())
    arguments: dict[str, Any] = {"cleanup": "incremental", "source_id_key": "source", "key_encoder": "sha256"}
    first = index(PdfPageLoader(SLIDES, pages=[1, 2, 5]), manager, store, **arguments)
    again = index(PdfPageLoader(SLIDES, pages=[1, 2, 5]), manager, store, **arguments)
    assert (first["num_added"], again["num_added"], again["num_skipped"]) == (3, 0, 3)


def test_frames_of_a_tiff_are_documents(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(3)))
    loaded = PdfPageLoader(path).load()
    assert [page.metadata["page"] for page in loaded] == [1, 2, 3]
    assert [page.page_content for page in loaded] == [f"scan.tif, page {number}" for number in (1, 2, 3)]
    parsed = PageImageBlobParser(pages=[2], include_image=True).parse(
        Blob.from_data(path.read_bytes(), path="scan.tif")
    )
    assert page_image(parsed[0].metadata).getpixel((0, 0)) == (60, 60, 60)
    with ColPaliVectorStore() as store:
        assert len(store.add_pdf(path)) == 3
        assert len(store.add_documents(loaded)) == 3
        assert store.store.count() == 3
        assert not caplog.records
        assert len(store.add_images([path])) == 1
        assert "3 frames" in caplog.text
        assert store.store.count() == 3


def test_size_and_formats_of_images(tmp_path: Path) -> None:
    path = tmp_path / "old.pcx"
    Image.new("L", (40, 30)).save(path)
    assert len(PdfPageLoader(tmp_path, image_formats=["PCX"]).load()) == 1
    with pytest.raises(ImageError, match=r"image_formats=\['PCX'\]"):
        PdfPageLoader(path).load()
    with pytest.raises(ImageError, match="max_pixels=2640"):
        PdfPageLoader(path, image_formats=["PCX"], max_pixels=1000).load()
    with ColPaliVectorStore(embedding=ColPaliEmbeddings(image_formats=["PCX"])) as store:
        [id_] = store.add_images([path])
        assert store.add_pdf(path) == [id_]
        [page] = store.get_by_ids([id_])
        with pytest.raises(ImageError, match="may be PCX"):
            image_blocks([page])
        assert len(image_blocks([page], image_formats=["PCX"])) == 1


def test_pages_beyond_the_end_of_one_of_several_files_are_passed_over() -> None:
    assert names(PdfPageLoader([SLIDES, SCAN], pages=[33]).load()) == [(SLIDES.name, 33)]
    with pytest.raises(InputError, match="no document has any of the requested pages; the longest has 33 pages"):
        PdfPageLoader([SLIDES, SCAN], pages=[34]).load()


@pytest.mark.parametrize("key", ["page", "document_id", "content_hash"])
def test_metadata_that_a_page_has_of_its_own_are_refused(key: str) -> None:
    for make in (lambda: PdfPageLoader(SCAN, metadata={key: 9}), lambda: PageImageBlobParser(metadata={key: 9})):
        with pytest.raises(ConfigurationError, match=f"each page has its own {key}"):
            make()
