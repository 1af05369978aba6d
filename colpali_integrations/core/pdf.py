"""A PDF -> its pages, one at a time, with page number, text layer and size (pypdfium2)."""

from __future__ import annotations

import io
import logging
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from colpali_integrations.core.errors import MissingExtraError, PdfError
from colpali_integrations.core.images import image_name

if TYPE_CHECKING:
    import pypdfium2

__all__ = ["PdfPage", "pdf_page_count", "pdf_pages"]

logger = logging.getLogger(__name__)

# pdfium is not thread-safe, not even for two documents: every call into it holds this lock.
_pdfium = threading.RLock()
# A poster of 5 m at 150 dpi would be a gigapixel; beyond this the page is drawn at a lower resolution.
_MAX_PIXELS = 50_000_000


@dataclass(frozen=True)
class PdfPage:
    """One page of a PDF.

    Attributes:
        image: the rendered page, RGB.
        number: 1-based position in the document.
        text: the text layer, "" for a scan without one.
        width: in points (1/72 inch), as displayed (after the page's own rotation).
        height: in points.
        source: the path, or a short name of what was handed in.
        page_count: number of pages of the document.
    """

    image: Image.Image = field(repr=False)
    number: int
    text: str = field(repr=False)
    width: float
    height: float
    source: str
    page_count: int

    @property
    def name(self) -> str:
        """How messages call this page."""
        return f"{self.source}, page {self.number}"


def pdf_pages(
    source: str | os.PathLike[str] | bytes | IO[bytes],
    *,
    dpi: float = 150,
    pages: Iterable[int] | None = None,
    password: str | None = None,
) -> Iterator[PdfPage]:
    """Render the pages of a PDF one by one, so that a long document never stands in memory whole.

    Args:
        source: a path, the bytes, or an open binary file (rewound first).
        dpi: resolution of the rendered page. A page beyond 50 megapixels is drawn smaller, and the log says so.
        pages: 1-based numbers, in the order wanted; None for all.
        password: for an encrypted document.

    Yields:
        Pages, in order.

    Raises:
        PdfError: not a PDF, damaged, encrypted without the right password, empty, or without a page asked for.
        MissingExtraError: pypdfium2 is not installed.

    Example:
        >>> for page in pdf_pages("report.pdf", pages=range(1, 4)):  # doctest: +SKIP
        ...     print(page.number, page.image.size, page.text[:40])
    """
    if not dpi > 0:
        raise PdfError(f"dpi must be positive, got {dpi}")
    wanted = None if pages is None else list(pages)
    return _pages(source, dpi, wanted, password)


def pdf_page_count(source: str | os.PathLike[str] | bytes | IO[bytes], *, password: str | None = None) -> int:
    """Number of pages of a PDF, without rendering any.

    Raises:
        PdfError: as `pdf_pages`.
    """
    with _pdfium:
        document = _open(source, password)
        try:
            return len(document)
        finally:
            document.close()


def _pages(source: Any, dpi: float, wanted: list[int] | None, password: str | None) -> Iterator[PdfPage]:
    name = image_name(source)
    with _pdfium:
        document = _open(source, password)
        total = len(document)
    try:
        for number in wanted if wanted is not None else range(1, total + 1):
            if not 1 <= number <= total:
                raise PdfError(f"{name} has pages 1 to {total}; page {number} was asked for (numbers are 1-based)")
            with _pdfium:
                page = _page(document, number, total, dpi, name)
            yield page
    finally:
        with _pdfium:
            document.close()


def _open(source: Any, password: str | None) -> pypdfium2.PdfDocument:
    try:
        import pypdfium2
    except ImportError as error:
        raise MissingExtraError("pypdfium2", "pdf", "Reading PDFs") from error
    name = image_name(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source)
        if not path.is_file():
            raise PdfError(f"no PDF at {path}")
        if path.stat().st_size == 0:
            raise PdfError(f"{path} is empty (0 bytes)")
        handed: Any = path
    else:
        content = source
        if hasattr(source, "read"):
            if getattr(source, "seekable", lambda: False)():
                source.seek(0)
            content = source.read()
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise PdfError(
                f"cannot use {type(source).__name__} as a PDF; expected a path, bytes or an open binary file"
            )
        if not len(content):
            raise PdfError(f"{name} is empty (0 bytes)")
        handed = io.BytesIO(content)
    try:
        document = pypdfium2.PdfDocument(handed, password=password)
    except pypdfium2.PdfiumError as error:
        text = str(error).lower()
        if "password" in text:
            hint = "the password is wrong" if password else "pass password=..."
            raise PdfError(f"{name} is encrypted; {hint}") from error
        raise PdfError(f"{name} is not a PDF, or is damaged or cut off ({error})") from error
    if len(document) == 0:
        document.close()
        raise PdfError(f"{name} has no pages")
    # Without this the values of filled-in forms are not drawn.
    document.init_forms()
    return document


def _page(document: pypdfium2.PdfDocument, number: int, total: int, dpi: float, name: str) -> PdfPage:
    import pypdfium2

    try:
        page = document[number - 1]
        width, height = page.get_size()
        scale = dpi / 72
        pixels = width * height * scale * scale
        if pixels > _MAX_PIXELS:
            scale *= (_MAX_PIXELS / pixels) ** 0.5
            logger.warning(
                "%s, page %d is %.0f x %.0f points; drawn at %.0f dpi", name, number, width, height, scale * 72
            )
        image = page.render(scale=scale).to_pil().convert("RGB")
        text_page = page.get_textpage()
        text = text_page.get_text_range().replace("\r\n", "\n").replace("\x00", "")
        text_page.close()
        page.close()
    except pypdfium2.PdfiumError as error:
        raise PdfError(f"{name}, page {number} cannot be drawn: {error}") from error
    return PdfPage(image, number, text, float(width), float(height), name, total)
