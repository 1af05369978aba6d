"""A page as frameworks keep it: text, JSON-safe metadata, and a reference from which it can be drawn again.

Frameworks copy, hash, store and trace metadata, and drop fields of their documents' subclasses. Pixels do not survive
that, so a page travels as its source, number and resolution; base64 comes along only on request, because it floods
traces and stores.

| key | what |
|---|---|
| source | the path as given, or the name of what was handed in |
| file_path | the path, only where `source` says something else, such as the URL that it was fetched from |
| page, page_count | 1-based number within the source, and how many there are; 1, 1 for an image |
| width, height | in points (1/72 inch) for a PDF page, in pixels for an image |
| dpi | the resolution at which a PDF page is to be drawn; an image has none |
| content_hash | 64 hex digits, see `page_hash` |
| image_base64, image_mime_type | the picture itself, on request |
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePath
from typing import Any, NamedTuple, TypeAlias

from PIL import Image

from colpali_integrations.errors import ImageError, InputError
from colpali_integrations.pages.images import image_name, load_image
from colpali_integrations.pages.pdf import PdfPage, pdf_pages

__all__ = [
    "DEFAULT_DPI",
    "LoadedPage",
    "document_hash",
    "encode_base64",
    "encode_png",
    "is_pdf",
    "page_hash",
    "page_image",
    "page_name",
    "read_pages",
]

DEFAULT_DPI = 150.0
PNG = "image/png"

Document: TypeAlias = "str | os.PathLike[str] | bytes"


class LoadedPage(NamedTuple):
    """What a framework's document is made of.

    Attributes:
        content: the text layer, or "report.pdf, page 7" for a page without one. Never empty: frameworks take
            documents of equal content for duplicates.
        metadata: see the module; every value is a str, int or float.
    """

    content: str
    metadata: dict[str, Any]


def read_pages(
    source: Document,
    *,
    name: str | None = None,
    dpi: float = DEFAULT_DPI,
    pages: Iterable[int] | None = None,
    password: str | None = None,
    include_image: bool = False,
) -> Iterator[LoadedPage]:
    """Read the pages of a PDF, or an image as the one page of itself.

    Args:
        source: a path, or the content itself.
        name: what `source` in the metadata says instead of the path; needed to tell contents apart.
        dpi: resolution at which pages are to be drawn.
        pages: 1-based numbers of the pages wanted, in order; None for all.
        password: for an encrypted PDF. It is not kept in the metadata.
        include_image: put the picture into the metadata as base64 PNG.

    Yields:
        Pages, in order.

    Raises:
        PdfError: as `pdf_pages`.
        ImageError: neither a PDF nor an image that can be read, or a page other than 1 of an image.

    Example:
        >>> for page in read_pages("report.pdf", pages=[1, 2]):
        ...     print(page.metadata["page"], page.metadata["page_count"], len(page.content) > 100)
        1 2 True
        2 2 True
    """
    shown = name or image_name(source)
    drawn = is_pdf(source)
    if drawn:
        # Nobody looks at the picture without include_image, and at 1 dpi drawing costs next to nothing.
        found = pdf_pages(source, dpi=dpi if include_image else 1, pages=pages, password=password)
    else:
        found = _image_as_page(source, pages)
    digest = None
    for page in found:
        digest = digest or document_hash(source)  # after the first page: only readable documents are worth hashing
        metadata: dict[str, Any] = {
            "source": shown,
            "page": page.number,
            "page_count": page.page_count,
            "width": round(page.width, 2),
            "height": round(page.height, 2),
            "content_hash": page_hash(digest, page.number),
        }
        if drawn:
            metadata["dpi"] = float(dpi)
        if not isinstance(source, bytes) and shown != os.fspath(source):
            metadata["file_path"] = os.fspath(source)
        if include_image:
            metadata |= {"image_base64": encode_base64(page.image), "image_mime_type": PNG}
        yield LoadedPage(page.text.strip() or page_name(shown, page.number), metadata)


def page_image(metadata: Mapping[str, Any], *, dpi: float | None = None, password: str | None = None) -> Image.Image:
    """The picture of a page, from the base64 in its metadata or drawn again from its reference.

    Args:
        metadata: with `file_path` or `source`, and `page` (and perhaps `dpi`), or with `image_base64`.
        dpi: draw a PDF page at this resolution instead of the metadata's; None also takes a picture that is there.
        password: for an encrypted PDF.

    Returns:
        An RGB image.

    Raises:
        InputError: the metadata refers to no page, or its source is not there (any more).
        PdfError: the PDF or its page cannot be read.
        ImageError: the picture cannot be read.
    """
    encoded = metadata.get("image_base64")
    source, number = metadata.get("file_path") or metadata.get("source"), metadata.get("page")
    there = isinstance(source, str) and Path(source).is_file()
    if encoded and (dpi is None or not there):
        return load_image(f"data:{metadata.get('image_mime_type', PNG)};base64,{encoded}")
    if isinstance(number, float) and number.is_integer():
        number = int(number)  # some stores keep all numbers as floats
    if not isinstance(source, str) or not isinstance(number, int) or isinstance(number, bool):
        raise InputError(
            "the metadata refers to no page: it needs 'source' or 'file_path' and 'page' (1-based), or 'image_base64'; "
            f"its keys are: {', '.join(map(str, metadata)) or 'none'}"
        )
    if not there:
        raise InputError(
            f"cannot draw {page_name(source, number)}: no file at {source!r}. A relative path holds where the page was "
            "loaded; pages of content without a path carry their picture only when it was asked for"
        )
    if not is_pdf(source):
        return next(_image_as_page(source, [number])).image
    resolution = dpi if dpi is not None else metadata.get("dpi", DEFAULT_DPI)
    return next(pdf_pages(source, dpi=resolution, pages=[number], password=password)).image


def page_name(source: str, number: int) -> str:
    """The page as a person would name it.

    >>> page_name("reports/2024.pdf", 7)
    '2024.pdf, page 7'
    """
    return f"{PurePath(source).name or source}, page {number}"


def document_hash(source: Document) -> str:
    """SHA-256 of a document's bytes, as 64 hex digits; a file is read in pieces.

    Raises:
        InputError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest = hashlib.sha256()
    try:
        with Path(source).open("rb") as file:
            while piece := file.read(2**20):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"cannot read {image_name(source)}: {error}") from error
    return digest.hexdigest()


def page_hash(document: str, number: int) -> str:
    """The content hash of a page: SHA-256 over its document's hash and its number, as 64 hex digits.

    The bytes of the document count and not the pixels: the hash then needs no drawing, and neither a new version of
    the renderer nor another resolution changes it. Copies of a file have equal hashes wherever they lie; a document
    that was edited has new hashes on all its pages.

    Args:
        document: `document_hash(...)`.
        number: 1-based.

    Example:
        >>> page_hash(document_hash(b"%PDF-"), 1)[:8] != page_hash(document_hash(b"%PDF-"), 2)[:8]
        True
    """
    return hashlib.sha256(f"{document}#page={number}".encode()).hexdigest()


def encode_png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_base64(image: Image.Image) -> str:
    """An image as base64 of a PNG file, ASCII, without a data URI's head."""
    return base64.b64encode(encode_png(image)).decode("ascii")


def is_pdf(source: Document) -> bool:
    """Whether something is meant as a PDF, by its suffix or by its first bytes (readers allow 1 KiB before `%PDF-`).

    A file that cannot be read is judged by its suffix, so that the one who reads it says what is wrong.
    """
    if isinstance(source, bytes):
        return b"%PDF-" in source[:1024]
    path = Path(source)
    if path.suffix.lower() == ".pdf":
        return True
    try:
        with path.open("rb") as file:
            return b"%PDF-" in file.read(1024)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return False


def _image_as_page(source: Document, pages: Iterable[int] | None) -> Iterator[PdfPage]:
    name = image_name(source)
    for number in [1] if pages is None else pages:
        if number != 1:
            raise ImageError(f"{name} is an image, which is its own page 1; page {number} was asked for")
        image = load_image(source)
        yield PdfPage(image, 1, "", float(image.width), float(image.height), name, 1)
