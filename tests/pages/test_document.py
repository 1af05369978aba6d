"""Documents as pages: equal from all kinds of source, with JSON-safe metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colpali_integrations.errors import ConfigurationError, ImageError, InputError, PdfError
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.identity import document_id, text_key
from colpali_integrations.pages.reference import page_image

PDFS = Path(__file__).parents[2] / "demo" / "pdfs"
SLIDES = PDFS / "metropolis-slides.pdf"


@pytest.mark.parametrize("kind", [Path, str])
def test_every_kind_of_path_gives_the_same_pages(kind: Callable[[Path], Any]) -> None:
    with PagedDocument(kind(SLIDES)) as found:
        pages = [(page.content, page.metadata) for page in found.pages([1, 3])]
    assert [metadata["page"] for _, metadata in pages] == [1, 3]
    for content, metadata in pages:
        assert json.loads(json.dumps(metadata)) == metadata
        assert metadata["text_hash"] == text_key(content)
        assert (metadata["file_path"], metadata["file_name"]) == (str(SLIDES), SLIDES.name)
        assert metadata["document_id"] == str(SLIDES)


def test_content_without_a_file_gives_the_same_pages() -> None:
    places = {"source", "file_path", "file_name", "document_id"}
    with PagedDocument(SLIDES) as file, PagedDocument(SLIDES.read_bytes(), name="https://example.org/a.pdf") as content:
        theirs, ours = file.page(2).metadata, content.page(2).metadata
    assert {key: theirs[key] for key in theirs.keys() - places} == {key: ours[key] for key in ours.keys() - places}
    assert ours["source"] == ours["document_id"] == "https://example.org/a.pdf"
    assert ours["file_name"] == "a.pdf"
    assert "file_path" not in ours


def test_names_of_one_file_are_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.pdf").write_bytes(SLIDES.read_bytes())
    (tmp_path / "link.pdf").symlink_to(tmp_path / "report.pdf")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    given = ["report.pdf", "./report.pdf", str(tmp_path / "report.pdf"), "link.pdf", "~/report.pdf"]
    documents = [PagedDocument(one) for one in given]
    assert {document.document_id for document in documents} == {os.path.realpath("report.pdf")}
    assert [document.page(1).metadata["source"] for document in documents] == given
    for document in documents:
        assert page_image(document.page(1).metadata, dpi=10).width > 0
        document.close()


def test_a_document_is_opened_again_after_it_was_closed() -> None:
    document = PagedDocument(SLIDES, dpi=10)
    document.close()
    assert document.page(3).draw().width > 0
    document.close()
    document.close()


def test_an_image_is_a_document_of_one_page(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(path)
    with PagedDocument(path, dpi=300) as document:
        page = document.page(1)
        assert page.content == "scan.png, page 1"
        expected = {"source": str(path), "page": 1, "page_count": 1, "page_label": "1", "width": 10, "height": 6}
        assert {key: page.metadata[key] for key in expected} == expected
        assert "dpi" not in page.metadata
        with Image.open(path) as image:
            assert page.draw().tobytes() == image.convert("RGB").tobytes() == page_image(page.metadata).tobytes()
        with pytest.raises(ImageError, match="page 2 was requested"):
            document.page(2)


def test_labels_are_those_that_viewers_show() -> None:
    with PagedDocument(SLIDES) as document:
        assert document.page(2).metadata["page_label"] == document._opened.label(2)


@pytest.mark.parametrize("dpi", [0, -1, float("inf"), float("nan")])
def test_invalid_resolutions(dpi: float) -> None:
    with pytest.raises(ConfigurationError, match="dpi must be a positive number"):
        PagedDocument(SLIDES, dpi=dpi)


def test_errors_name_the_document(tmp_path: Path) -> None:
    with pytest.raises(PdfError, match=r"no PDF at .*gone\.pdf"):
        PagedDocument(tmp_path / "gone.pdf")
    with pytest.raises(InputError, match=r"cannot read .*gone\.png"):
        PagedDocument(tmp_path / "gone.png")
    with PagedDocument(SLIDES) as document, pytest.raises(PdfError, match="page 34 was requested"):
        document.page(34)


def test_only_the_caller_s_metadata_identify_a_document() -> None:
    plain = document_id("/a.pdf")
    assert plain == document_id("/a.pdf", {}) == document_id("/a.pdf", {"file_size": 3, "page_label": "iv", "dpi": 72})
    north, south = document_id("/a.pdf", {"tenant": "north"}), document_id("/a.pdf", {"tenant": "south"})
    assert len({plain, north, south, document_id("/b.pdf", {"tenant": "north"})}) == 4
    assert document_id("/a.pdf", {"x": 1, "y": 2}) == document_id("/a.pdf", {"y": 2, "x": 1})
