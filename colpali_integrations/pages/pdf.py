"""PDFs: text, size and picture of each page, read by pypdfium2."""

from __future__ import annotations

import logging
import math
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from numbers import Integral
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

import pypdfium2
from PIL import Image

from colpali_integrations._forks import hold_during_forks
from colpali_integrations._logs import without_entries
from colpali_integrations.errors import ConfigurationError, PdfError
from colpali_integrations.pages.images import image_name, read_whole

__all__ = ["Pdf", "PdfPage", "is_pdf", "open_pdf", "page_numbers", "pdf_page_count", "pdf_pages", "whole_number"]

logger = logging.getLogger(__name__)

PdfSource: TypeAlias = "str | os.PathLike[str] | bytes | IO[bytes]"

# pdfium is not thread-safe, not even for two documents: every call into it holds this lock.
_pdfium = threading.RLock()
hold_during_forks(_pdfium)
_EXPECTED = "pages: expected 1-based whole numbers, such as [1, 3] or range(1, 4)"
# A poster of 5 m at 150 dpi would be a gigapixel; larger pages are drawn at a lower resolution.
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
        source: the path, or a short name of the content.
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
        """The name of the page in messages."""
        return f"{self.source}, page {self.number}"


class Pdf(Protocol):
    """An open PDF. Page numbers are 1-based; any thread may call it.

    Attributes:
        name: the document's name in messages.
        page_count: number of pages.

    Raises:
        PdfError: from every method, for a page that does not exist or cannot be read.

    Example:
        >>> pdf: Pdf = open_pdf("report.pdf")
        >>> pdf.name, pdf.label(1), len(pdf.size(1))
        ('report.pdf', '1', 2)
        >>> pdf.close()
    """

    name: str
    page_count: int

    def size(self, number: int) -> tuple[float, float]:
        """Width and height of a page in points (1/72 inch), as displayed (after the page's own rotation)."""

    def text(self, number: int) -> str:
        """The text layer of a page; "" for a scan without one."""

    def label(self, number: int) -> str:
        """The printed number of a page, such as "iv"; the number itself where the document names no label."""

    def render(self, number: int, dpi: float) -> Image.Image:
        """The picture of a page, RGB. A page beyond 50 megapixels is drawn smaller, and the log names it."""

    def close(self) -> None:
        """Release the document. Calling it twice does nothing."""


def open_pdf(source: PdfSource, *, password: str | None = None) -> Pdf:
    """Open a PDF.

    Args:
        source: a path, the bytes, or an open binary file (rewound first).
        password: for an encrypted document.

    Returns:
        The open document; close it when its pages are done.

    Raises:
        PdfError: `source` is not a PDF, damaged, empty, or encrypted and the password is wrong or missing.

    Example:
        >>> pdf = open_pdf("report.pdf")
        >>> pdf.page_count, pdf.render(2, dpi=72).size, len(pdf.text(2)) > 100
        (2, (596, 842), True)
        >>> pdf.close()
    """
    return _PdfiumPdf(source, password)


def is_pdf(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file is a PDF, by its suffix or by its first bytes (readers allow 1 KiB before `%PDF-`).

    Unreadable files are classified by suffix; reading them then raises the specific error.
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


def pdf_pages(
    source: PdfSource, *, dpi: float = 150, pages: Iterable[int] | None = None, password: str | None = None
) -> Iterator[PdfPage]:
    """Render the pages of a PDF one by one, so that a long document never fills the memory.

    Args:
        source: a path, the bytes, or an open binary file (rewound first).
        dpi: resolution of the rendered page. A page beyond 50 megapixels is drawn smaller, and the log names it.
        pages: 1-based numbers, in the requested order; None for all.
        password: for an encrypted document.

    Yields:
        Pages, in order.

    Raises:
        PdfError: `source` cannot be opened (see `open_pdf`), or lacks a requested page.
        ConfigurationError: `pages` are not 1-based whole numbers.

    Example:
        >>> for page in pdf_pages("report.pdf", pages=range(1, 3)):
        ...     print(page.number, page.image.size, len(page.text) > 100)
        1 (1241, 1754) True
        2 (1241, 1754) True
    """
    if not 0 < dpi < math.inf:
        raise PdfError(f"dpi must be a positive number, got {dpi!r}")
    return _pages(source, dpi, page_numbers(pages), password)


def pdf_page_count(source: PdfSource, *, password: str | None = None) -> int:
    """Number of pages of a PDF, without rendering any.

    Args:
        source: as for `pdf_pages`.
        password: for an encrypted document.

    Raises:
        PdfError: as `pdf_pages`.

    Example:
        >>> pdf_page_count("report.pdf")
        2
    """
    with closing(open_pdf(source, password=password)) as pdf:
        return pdf.page_count


def page_numbers(pages: Iterable[int] | None) -> list[int] | None:
    """The requested pages as a list, which may be read once per document; None for all.

    Args:
        pages: 1-based whole numbers, NumPy's among them: a list, a range or a generator.

    Raises:
        ConfigurationError: something else, such as 3, "1-3", [0] or [1.0].

    Example:
        >>> page_numbers(range(1, 4))
        [1, 2, 3]
    """
    if pages is None:
        return None
    if isinstance(pages, str | bytes) or not isinstance(pages, Iterable):
        raise ConfigurationError(f"{_EXPECTED}, got {pages!r}")
    numbers = [whole_number(number) for number in pages]
    if numbers and min(numbers) < 1:
        raise ConfigurationError(f"{_EXPECTED}, got {min(numbers)}")
    return numbers


def whole_number(number: Any) -> int:
    """The number of a page as an int.

    Raises:
        ConfigurationError: a float, a string, a bool or another object.
    """
    if isinstance(number, Integral) and not isinstance(number, bool):
        return int(number)
    raise ConfigurationError(f"{_EXPECTED}, got {number!r}")


def _pages(source: PdfSource, dpi: float, numbers: list[int] | None, password: str | None) -> Iterator[PdfPage]:
    with closing(open_pdf(source, password=password)) as pdf:
        for number in range(1, pdf.page_count + 1) if numbers is None else numbers:
            width, height = pdf.size(number)
            image, text = pdf.render(number, dpi), pdf.text(number)
            yield PdfPage(image, number, text, width, height, pdf.name, pdf.page_count)


class _PdfiumPdf:
    """A `Pdf` read by pdfium. The latest page stays loaded: callers read its text, size and picture together."""

    def __init__(self, source: PdfSource, password: str | None) -> None:
        self.name = image_name(source)
        with _pdfium:
            self._document: pypdfium2.PdfDocument | None = _open(source, password)
            self.page_count = len(self._document)
        self._loaded: tuple[int, pypdfium2.PdfPage] | None = None

    def size(self, number: int) -> tuple[float, float]:
        with self._page(number) as page:
            width, height = page.get_size()
        return float(width), float(height)

    def text(self, number: int) -> str:
        with self._page(number) as page:
            text_page = page.get_textpage()
            try:
                return _clean(text_page.get_text_range())
            finally:
                text_page.close()

    def label(self, number: int) -> str:
        with self._page(number) as page:
            assert page.pdf is not None
            return page.pdf.get_page_label(number - 1) or str(number)

    def render(self, number: int, dpi: float) -> Image.Image:
        with self._page(number) as page:
            image: Image.Image = page.render(scale=self._scale(number, page.get_size(), dpi)).to_pil().convert("RGB")
        return image

    def close(self) -> None:
        with _pdfium:
            document, self._document = self._document, None
            if document is not None:
                self._release()
                document.close()

    @contextmanager
    def _page(self, number: int) -> Iterator[pypdfium2.PdfPage]:
        with _pdfium:
            if self._document is None:
                raise PdfError(f"{self.name} was closed; open it again")
            number = whole_number(number)
            if not 1 <= number <= self.page_count:
                raise PdfError(
                    f"{self.name} has pages 1 to {self.page_count}; page {number} was requested (numbers are 1-based)"
                )
            try:
                if self._loaded is None or self._loaded[0] != number:
                    self._release()
                    self._loaded = number, self._document[number - 1]
                yield self._loaded[1]
            except (pypdfium2.PdfiumError, ValueError) as error:  # ValueError: a page without area
                raise PdfError(f"{self.name}, page {number} cannot be drawn: {error}") from error

    def _release(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded[1].close()

    def _scale(self, number: int, size: tuple[float, float], dpi: float) -> float:
        width, height = size
        scale = dpi / 72
        pixels = width * height * scale * scale
        if pixels <= _MAX_PIXELS:
            return scale
        smaller: float = scale * (_MAX_PIXELS / pixels) ** 0.5
        logger.warning(
            "%s, page %d is %.0f x %.0f points; drawn at %.0f dpi instead of %g, which is 50 megapixels",
            *(self.name, number, width, height, smaller * 72, dpi),
        )
        return smaller


def _open(source: Any, password: str | None) -> pypdfium2.PdfDocument:
    name = image_name(source)
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if not path.is_file():
            raise PdfError(f"no PDF at {path}")
        if path.stat().st_size == 0:
            raise PdfError(f"{path} is empty (0 bytes)")
        opened: Any = path
    else:
        try:
            content = read_whole(source) if hasattr(source, "read") else source
        except (OSError, ValueError) as error:  # ValueError: the file is closed
            raise PdfError(f"cannot read {name}: {error}") from error
        if not isinstance(content, (bytes, bytearray, memoryview)):
            raise PdfError(
                f"cannot use {type(source).__name__} as a PDF; expected a path, bytes or an open binary file"
            )
        if not memoryview(content).nbytes:
            raise PdfError(f"{name} is empty (0 bytes)")
        opened = content if isinstance(content, bytes) else memoryview(content).tobytes()
    try:
        document = pypdfium2.PdfDocument(opened, password=password)
    except pypdfium2.PdfiumError as error:
        text = str(error).lower()
        if "password" in text:
            hint = "the password is wrong" if password else "pass password=..."
            raise PdfError(f"{name} is encrypted; {hint}") from error
        raise PdfError(f"{name} is not a PDF, or is damaged or cut off ({error})") from error
    try:
        if document.get_formtype():
            # pypdfium2 logs build instructions for each XFA form, whose pages are drawn anyway.
            with without_entries("pypdfium2._helpers.document", "XFA"):
                document.init_forms()  # without this, pdfium does not draw the values of filled-in forms
        if len(document) == 0:
            raise PdfError(f"{name} has no pages")
    except BaseException as error:
        document.close()
        if isinstance(error, pypdfium2.PdfiumError):
            raise PdfError(f"{name} is damaged: {error}") from error
        raise
    return document


def _clean(text: str) -> str:
    """Replace characters that some stores cannot hold.

    pdfium joins lines at a hyphen by U+FFFE, which is no character; broken character maps yield NULs and surrogates.
    """
    text = text.replace("\r\n", "\n").replace("\ufffe", "-").replace("\x00", "")
    return text.encode("utf-8", "ignore").decode("utf-8")
