"""A PDF -> its pages, one at a time, with page number, text layer and size (pypdfium2)."""

from __future__ import annotations

import logging
import math
import operator
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from colpali_integrations.errors import MissingExtraError, PdfError
from colpali_integrations.pages.images import image_name

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

    Example:
        >>> [page] = pdf_pages("report.pdf", pages=[2], dpi=72)
        >>> page.name, page.page_count, page.image.mode
        ('report.pdf, page 2', 2, 'RGB')
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
        >>> for page in pdf_pages("report.pdf", pages=range(1, 3)):
        ...     print(page.number, page.image.size, len(page.text) > 100)
        1 (1241, 1754) True
        2 (1241, 1754) True
    """
    if not 0 < dpi < math.inf:
        raise PdfError(f"dpi must be a positive number, got {dpi!r}")
    return _pages(source, dpi, None if pages is None else _numbers(pages), password)


def pdf_page_count(source: str | os.PathLike[str] | bytes | IO[bytes], *, password: str | None = None) -> int:
    """Number of pages of a PDF, without rendering any.

    Args:
        source: as for `pdf_pages`.
        password: for an encrypted document.

    Raises:
        PdfError: as `pdf_pages`.
        MissingExtraError: pypdfium2 is not installed.

    Example:
        >>> pdf_page_count("report.pdf")
        2
    """
    with _pdfium:
        document = _open(source, password)
        try:
            return len(document)
        finally:
            document.close()


def _numbers(pages: Iterable[int]) -> list[int]:
    try:
        return [operator.index(number) for number in pages]
    except TypeError as error:
        raise PdfError(f"pages must be 1-based numbers, such as [1, 3] or range(1, 4), got {pages!r}") from error


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
            try:
                if getattr(source, "seekable", lambda: False)():
                    source.seek(0)
                content = source.read()
            except (OSError, ValueError) as error:  # ValueError: it is closed
                raise PdfError(f"cannot read {name}: {error}") from error
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise PdfError(
                f"cannot use {type(source).__name__} as a PDF; expected a path, bytes or an open binary file"
            )
        if not memoryview(content).nbytes:
            raise PdfError(f"{name} is empty (0 bytes)")
        handed = content if isinstance(content, bytes) else memoryview(content).tobytes()
    try:
        document = pypdfium2.PdfDocument(handed, password=password)
    except pypdfium2.PdfiumError as error:
        text = str(error).lower()
        if "password" in text:
            hint = "the password is wrong" if password else "pass password=..."
            raise PdfError(f"{name} is encrypted; {hint}") from error
        raise PdfError(f"{name} is not a PDF, or is damaged or cut off ({error})") from error
    try:
        # Without this the values of filled-in forms are not drawn.
        with _quiet_about_xfa():
            document.init_forms()
        if len(document) == 0:
            raise PdfError(f"{name} has no pages")
    except BaseException as error:
        document.close()
        if isinstance(error, pypdfium2.PdfiumError):
            raise PdfError(f"{name} is damaged: {error}") from error
        raise
    return document


@contextmanager
def _quiet_about_xfa() -> Iterator[None]:
    """Keep pypdfium2 from logging, for every XFA form, how to build pdfium; the form's own pages are drawn anyway."""
    helpers = logging.getLogger("pypdfium2._helpers.document")

    def other(record: logging.LogRecord) -> bool:
        return "XFA" not in record.getMessage()

    helpers.addFilter(other)
    try:
        yield
    finally:
        helpers.removeFilter(other)


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
                "%s, page %d is %.0f x %.0f points; drawn at %.0f dpi instead of %g, which is 50 megapixels",
                name,
                number,
                width,
                height,
                scale * 72,
                dpi,
            )
        image = page.render(scale=scale).to_pil().convert("RGB")
        text_page = page.get_textpage()
        text = _clean(text_page.get_text_range())
        text_page.close()
        page.close()
    except pypdfium2.PdfiumError as error:
        raise PdfError(f"{name}, page {number} cannot be drawn: {error}") from error
    return PdfPage(image, number, text, float(width), float(height), name, total)


def _clean(text: str) -> str:
    """Text that any store can hold.

    pdfium marks a hyphen at a line's end, where it joins the lines, with U+FFFE, which is no character; NULs and
    surrogates come out of broken character maps.
    """
    text = text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")
