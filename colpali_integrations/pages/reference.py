"""Drawing a page again from its metadata; `document` lists their keys."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image

from colpali_integrations.errors import InputError
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import file_digest, page_hash, page_name, pixel_digest
from colpali_integrations.pages.images import ImagePages, load_image
from colpali_integrations.pages.metadata import has_own_picture
from colpali_integrations.pages.pdf import is_pdf, open_pdf

__all__ = ["DEFAULT_DPI", "encode_base64", "encode_png", "page_file", "page_image"]

DEFAULT_DPI = 150.0
_LIMITS = ImageLimits()

Source: TypeAlias = "str | os.PathLike[str] | bytes"


def page_image(
    metadata: Mapping[str, Any],
    *,
    dpi: float | None = None,
    password: str | None = None,
    isolate: bool = True,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
) -> Image.Image:
    """Draw a page again from its file, or decode the base64 in its metadata.

    Args:
        metadata: with `file_path` or `source`, and `page` (and perhaps `dpi`), or with `image_base64`. With a
            `content_hash` the file must not have changed.
        dpi: draw a PDF page at this resolution instead of the metadata's. A picture in the metadata is preferred with
            None, and where the file is missing, has changed or cannot be opened. One that a caller put into the
            metadata of a page is always preferred.
        password: for an encrypted PDF.
        isolate: False to draw a PDF that you trust in this process, without limits; see `open_pdf`.
        max_pixels: of an image; see `load_image`.
        image_formats: further formats of images; see `load_image`.

    Returns:
        An RGB image.

    Raises:
        InputError: the metadata refers to no page, or its file is missing or has changed.
        PdfError: the PDF or its page cannot be read.
        ImageError: the picture cannot be read.

    Example:
        >>> page_image({"source": "report.pdf", "page": 2}, dpi=72).size
        (596, 842)
    """
    encoded, limits = metadata.get("image_base64"), ImageLimits(max_pixels, image_formats)
    if not encoded:
        return _drawn(metadata, dpi, password, isolate, limits)
    if dpi is not None and has_own_picture(metadata):
        with suppress(InputError):
            return _drawn(metadata, dpi, password, isolate, limits)
    uri = f"data:{metadata.get('image_mime_type', 'image/png')};base64,{encoded}"
    return load_image(uri, **limits.options)


def _drawn(
    metadata: Mapping[str, Any], dpi: float | None, password: str | None, isolate: bool, limits: ImageLimits
) -> Image.Image:
    path, number = page_file(metadata, limits)
    if not is_pdf(path):
        if number == 1 and "page_count" not in metadata:
            return load_image(path, **limits.options)  # one image, of which further frames are logged
        return ImagePages(path, limits, path).draw(number)
    with closing(open_pdf(path, password=password, isolate=isolate)) as pdf:
        return pdf.render(number, dpi or metadata.get("dpi") or DEFAULT_DPI)


def page_file(metadata: Mapping[str, Any], limits: ImageLimits = _LIMITS) -> tuple[str, int]:
    """The file of a page and the page's number, after checking that the file has not changed.

    Args:
        metadata: as for `page_image`; the first 16 digits of a content hash suffice.
        limits: of an image that may have been indexed as a picture in memory.

    Raises:
        InputError: the metadata refers to no page, or its file is missing or has changed.
    """
    number, path = metadata.get("page"), _existing(metadata)
    if isinstance(number, float) and number.is_integer():
        number = int(number)  # some stores return all numbers as floats
    if not _paths(metadata) or not isinstance(number, int) or isinstance(number, bool):
        raise InputError(
            "the metadata refers to no page: it needs 'source' or 'file_path' and 'page' (1-based), or 'image_base64'; "
            f"its keys are: {', '.join(map(str, metadata)) or 'none'}"
        )
    if path is None:
        first = _paths(metadata)[0]
        raise InputError(
            f"cannot draw {page_name(first, number)}: no file at {first!r}. A relative path is valid only in the "
            "folder where the page was loaded; pages without a file include their picture only on request"
        )
    _check_content(path, number, metadata.get("content_hash"), limits)
    return path, number


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_base64(image: Image.Image) -> str:
    """Encode an image as base64 of a PNG file, without the head of a data URI."""
    return base64.b64encode(encode_png(image)).decode("ascii")


def _paths(metadata: Mapping[str, Any]) -> list[str]:
    names = (metadata.get("file_path"), metadata.get("source"))
    return [str(Path(name).expanduser()) for name in names if isinstance(name, str) and name]


def _existing(metadata: Mapping[str, Any]) -> str | None:
    return next((path for path in _paths(metadata) if Path(path).is_file()), None)


def _check_content(path: str, number: int, content_hash: object, limits: ImageLimits) -> None:
    """Refuse a file that has changed since it was indexed: its page would be the wrong picture."""
    if not isinstance(content_hash, str) or len(content_hash) not in (16, 64):
        return
    unchanged = page_hash(file_digest(path), number).startswith(content_hash)
    if not unchanged and number == 1 and not is_pdf(path):  # it may have been indexed as a picture in memory
        picture = ImagePages(path, limits, path).draw(1)
        unchanged = page_hash(pixel_digest(picture), 1).startswith(content_hash)
    if not unchanged:
        raise InputError(
            f"{page_name(path, number)} is not shown: {path} has changed since it was indexed. Index it again, or "
            "restore the file"
        )
