from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from colpali_integrations import pdf_pages
from colpali_integrations.errors import ImageError, InputError, PdfError
from colpali_integrations.pages.reference import (
    document_hash,
    encode_base64,
    encode_png,
    is_pdf,
    page_hash,
    page_image,
    page_name,
    read_pages,
)

PDFS = Path(__file__).parents[2] / "demo" / "pdfs"
SLIDES = PDFS / "metropolis-slides.pdf"


def same(first: Image.Image, second: Image.Image) -> bool:
    return first.size == second.size and first.tobytes() == second.tobytes()


@pytest.mark.parametrize("kind", [Path, str, Path.read_bytes])
def test_every_kind_of_source_gives_the_same_pages(kind: Callable[[Path], Any]) -> None:
    expected = list(read_pages(SLIDES, pages=[1, 3]))
    found = list(read_pages(kind(SLIDES), name=str(SLIDES), pages=[1, 3]))
    assert found == expected
    assert [page.metadata["page"] for page in found] == [1, 3]
    for page in found:
        assert json.loads(json.dumps(page.metadata)) == page.metadata


def test_a_reference_draws_the_very_page_at_the_very_resolution() -> None:
    for page, drawn in zip(
        read_pages(SLIDES, pages=[2, 5], dpi=40), pdf_pages(SLIDES, pages=[2, 5], dpi=40), strict=True
    ):
        assert same(page_image(page.metadata), drawn.image)
    larger = page_image(page.metadata, dpi=80)
    assert abs(larger.width - 2 * drawn.image.width) <= 1


def test_a_carried_picture_is_the_drawn_one(tmp_path: Path) -> None:
    copy = tmp_path / "slides.pdf"
    copy.write_bytes(SLIDES.read_bytes())
    [page] = read_pages(copy, pages=[2], dpi=40, include_image=True)
    drawn = page_image({"source": str(copy), "page": 2, "dpi": 40})
    assert same(page_image(page.metadata), drawn)
    larger = page_image(page.metadata, dpi=80)  # while the file is there, it is drawn anew
    assert larger.width > drawn.width
    copy.unlink()
    assert same(page_image(page.metadata), drawn)
    assert same(page_image(page.metadata, dpi=80), drawn)


def test_a_picture_of_another_format_is_read_by_its_mime_type() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "white").save(buffer, "JPEG")
    metadata = {"image_base64": base64.b64encode(buffer.getvalue()).decode(), "image_mime_type": "image/jpeg"}
    assert page_image(metadata).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ImageError, match="malformed base64"):
        page_image({"image_base64": "???"})


def test_an_image_is_a_document_of_one_page(tmp_path: Path) -> None:
    path = tmp_path / "scan.png"
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(6, 10)).save(path)
    [page] = read_pages(path, dpi=300)
    assert page.content == "scan.png, page 1"
    expected = {"source": str(path), "page": 1, "page_count": 1, "width": 10, "height": 6}
    assert {key: page.metadata[key] for key in expected} == expected
    assert "dpi" not in page.metadata
    with Image.open(path) as image:
        assert same(page_image(page.metadata), image.convert("RGB"))
    with pytest.raises(ImageError, match="page 2 was asked for"):
        list(read_pages(path, pages=[2]))


def test_a_store_that_turns_whole_numbers_into_floats_does_no_harm() -> None:
    assert same(
        page_image({"source": str(SLIDES), "page": 2.0, "dpi": 20}),
        page_image({"source": str(SLIDES), "page": 2}, dpi=20),
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
def test_metadata_without_a_page_say_what_is_missing(metadata: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="the metadata refers to no page"):
        page_image(metadata)


def test_a_page_that_went_away_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot draw gone\.pdf, page 3: no file at"):
        page_image({"source": str(tmp_path / "gone.pdf"), "page": 3})
    with pytest.raises(PdfError, match="page 34 was asked for"):
        page_image({"source": str(SLIDES), "page": 34})


def test_hashes_are_of_content_and_page() -> None:
    digest = document_hash(SLIDES)
    assert digest == document_hash(str(SLIDES)) == document_hash(SLIDES.read_bytes())
    hashes = {page_hash(digest, number) for number in range(1, 34)}
    assert len(hashes) == 33
    assert all(len(one) == 64 and set(one) <= set("0123456789abcdef") for one in hashes)
    assert [page.metadata["content_hash"] for page in read_pages(SLIDES, pages=[7])] == [page_hash(digest, 7)]
    # Stores hold these, so the recipe must stay. From coreutils: h=$(printf abc | sha256sum | cut -d' ' -f1);
    # printf "$h#page=2" | sha256sum
    assert page_hash(document_hash(b"abc"), 2) == "4c99d9edba72f2db0ff2b8bfc1a30a32c304e535c1b37fe9d96cfa061cd8c584"
    with pytest.raises(InputError, match="cannot read"):
        document_hash("no/such/file")


def test_what_is_meant_as_a_pdf(tmp_path: Path) -> None:
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


def test_a_name_is_the_files_and_not_the_folders() -> None:
    assert page_name("reports/2024.pdf", 7) == "2024.pdf, page 7"
    assert page_name("slides.pdf", 1) == "slides.pdf, page 1"
