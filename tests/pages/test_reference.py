from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colpali_integrations.errors import ConfigurationError, ImageError, InputError, PdfError
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.identity import page_hash, pixel_digest
from colpali_integrations.pages.paged import is_pdf
from colpali_integrations.pages.pdf import pdf_pages
from colpali_integrations.pages.reference import encode_base64, encode_png, page_image

PDFS = Path(__file__).parents[2] / "demo" / "pdfs"
SLIDES = PDFS / "metropolis-slides.pdf"


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


def test_a_picture_of_another_format_is_read_by_its_mime_type() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "white").save(buffer, "JPEG")
    metadata = {"image_base64": base64.b64encode(buffer.getvalue()).decode(), "image_mime_type": "image/jpeg"}
    assert page_image(metadata).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ImageError, match="malformed base64"):
        page_image({"image_base64": "???"})


def test_a_store_that_turns_whole_numbers_into_floats_does_no_harm() -> None:
    assert same(
        page_image({"source": str(SLIDES), "page": 2.0, "dpi": 20}, roots=PDFS),
        page_image({"source": str(SLIDES), "page": 2}, dpi=20, roots=PDFS),
    )


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"source": str(SLIDES)},
        {"page": 1},
        {"source": 7, "page": 1},
        {"source": str(SLIDES), "page": "1"},
        {"source": str(SLIDES), "page": 1.5},
        {"source": str(SLIDES), "page": True},
        {"image_base64": ""},
    ],
)
def test_metadata_without_a_page_are_an_error(metadata: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the metadata refers to no page"):
        page_image(metadata)


def test_a_missing_page_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot draw gone\.pdf, page 3: no file at"):
        page_image({"source": str(tmp_path / "gone.pdf"), "page": 3}, roots=[tmp_path])
    with pytest.raises(PdfError, match="page 34 was requested"):
        page_image({"source": str(SLIDES), "page": 34}, roots=[PDFS])


def test_pdfs_are_recognised_by_suffix_or_content(tmp_path: Path) -> None:
    (tmp_path / "late").write_bytes(b"\n" * 1000 + b"%PDF-1.4")
    (tmp_path / "text").write_bytes(b"plain")
    assert is_pdf("Missing.PDF")
    assert is_pdf(tmp_path / "late")
    assert is_pdf(b"%PDF-1.4")
    assert not is_pdf(tmp_path / "text")
    assert not is_pdf(tmp_path / "missing")
    assert not is_pdf("a\0b")
    assert not is_pdf(b"\n" * 1024 + b"%PDF-1.4")


def test_png_is_lossless() -> None:
    image = next(pdf_pages(SLIDES, dpi=30)).image
    with Image.open(io.BytesIO(encode_png(image))) as again:
        assert same(again, image)
    assert base64.b64decode(encode_base64(image)) == encode_png(image)


def test_metadata_draw_the_same_page_at_the_same_resolution() -> None:
    with PagedDocument(SLIDES, dpi=40) as document:
        for page, drawn in zip(document.pages([2, 5]), pdf_pages(SLIDES, pages=[2, 5], dpi=40), strict=True):
            assert same(page_image(page.metadata), drawn.image)
        larger = page_image(page.metadata, dpi=80)
    assert abs(larger.width - 2 * drawn.image.width) <= 1


def test_a_picture_in_the_metadata_is_the_drawn_one(tmp_path: Path) -> None:
    copy = tmp_path / "slides.pdf"
    copy.write_bytes(SLIDES.read_bytes())
    with PagedDocument(copy, dpi=40) as document:
        metadata = document.page(2).metadata_with_image()
    drawn = page_image({"source": str(copy), "page": 2, "dpi": 40}, roots=tmp_path)
    assert same(page_image(metadata), drawn)
    larger = page_image(metadata, dpi=80)  # while the file is there, it is drawn anew
    assert larger.width > drawn.width
    copy.unlink()
    assert same(page_image(metadata), drawn)
    assert same(page_image(metadata, dpi=80), drawn)


def test_a_changed_file_is_not_shown(tmp_path: Path) -> None:
    copy = tmp_path / "slides.pdf"
    copy.write_bytes(SLIDES.read_bytes())
    with PagedDocument(copy, dpi=20) as document:
        metadata = document.page(2).metadata
    assert page_image(metadata).width > 0
    copy.write_bytes((PDFS / "hcl-colors.pdf").read_bytes())
    with pytest.raises(InputError, match=r"slides\.pdf, page 2 is not shown: .* has changed since it was indexed"):
        page_image(metadata)
    copy.write_bytes(SLIDES.read_bytes())
    assert page_image(metadata).width > 0


def test_a_picture_from_memory_may_be_drawn_from_its_file(tmp_path: Path) -> None:
    picture = Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).convert("RGB")
    picture.save(tmp_path / "scan.png")
    metadata = {"source": str(tmp_path / "scan.png"), "page": 1, "content_hash": page_hash(pixel_digest(picture), 1)}
    assert same(page_image(metadata), picture)
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(tmp_path / "scan.png")
    with pytest.raises(InputError, match="has changed"):
        page_image(metadata)


@pytest.mark.parametrize("roots", [5, [None], "/tmp\0", [b"/tmp"], b"/tmp", ["\ud800"]])
def test_roots_that_are_no_folders_are_refused(roots: Any) -> None:
    with pytest.raises(ConfigurationError, match="roots must be folders, such as"):
        page_image({"source": str(SLIDES), "page": 1}, roots=roots)
