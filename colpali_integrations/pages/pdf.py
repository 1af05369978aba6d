"""PDFs: text, size and picture of each page, read by pdfium in a process of its own, or in this one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import ConfigurationError, PdfError
from colpali_integrations.pages._readers import PdfSource, Reader, open_reader, reason_of
from colpali_integrations.pages.arguments import page_numbers, whole_number
from colpali_integrations.pages.fonts import missing_fonts_message
from colpali_integrations.pages.images import image_name
from colpali_integrations.pdfium.messages import PageText
from colpali_integrations.pdfium.pixels import check_sides

__all__ = [
    "FailedPage",
    "Pdf",
    "PdfPage",
    "open_named_pdf",
    "open_pdf",
    "pages_and_failures",
    "pdf_page_count",
    "pdf_pages",
]

logger = package_logger(__name__)

_UNJUDGED = (
    "its text may have words that no viewer shows, such as white ones on white; to find them, the page takes too long "
    "to draw"
)


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


@dataclass(frozen=True)
class FailedPage:
    """Takes the place of a page that cannot be read; use of its picture raises the error.

    Attributes:
        name: of the page in messages.
        error: the reason.
    """

    name: str
    error: PdfError

    @property
    def image(self) -> Image.Image:
        """No picture.

        Raises:
            PdfError: always.
        """
        raise self.error


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
        """Width and height of a page in points (1/72 inch), as displayed (after the page's own rotation).

        A page that no resolution can draw, such as one without area, raises the error.
        """

    def text(self, number: int) -> str:
        """The text layer of a page, as far as a viewer shows it; "" for a scan without one."""

    def missing_fonts(self, number: int) -> tuple[str, ...]:
        """Names of fonts that are neither in the file nor on this machine: the picture lacks their characters."""

    def label(self, number: int) -> str:
        """The printed number of a page, such as "iv"; the number itself where the document names no label."""

    def render(self, number: int, dpi: float) -> Image.Image:
        """The picture of a page, RGB. A page beyond 50 megapixels is drawn smaller, and the log names it."""

    def close(self) -> None:
        """Release the document. Calling it twice does nothing."""


def open_pdf(source: PdfSource, *, password: str | None = None, isolate: bool = True) -> Pdf:
    """Open a PDF.

    An Office file is converted by LibreOffice first; see `docs/office.md`.

    Its pages are read in a worker process, with limits: opening the document, and reading and drawing each page, may
    take 30 s of processor time, 120 s in all and 1.5 GB of memory. A page beyond them, or one that crashes the process,
    raises a `PdfError`, and the next page is read by another process. Windows has the limit of 120 s alone, and macOS
    no limit of memory.

    Args:
        source: a path, the bytes, or an open binary file (rewound first), of a PDF or an Office file.
        password: for an encrypted document.
        isolate: False to read in this process without limits, for documents that you trust.

    Returns:
        The open document; close it when its pages are done.

    Raises:
        PdfError: `source` is not a PDF, damaged, empty, or encrypted and the password is wrong or missing.
        OfficeError: it is an Office file that cannot be converted, or LibreOffice is not installed.
        ConfigurationError: the worker process does not start, or `password` is no valid string.

    Example:
        >>> pdf = open_pdf("report.pdf")
        >>> pdf.page_count, pdf.render(2, dpi=72).size, len(pdf.text(2)) > 100
        (2, (596, 842), True)
        >>> pdf.close()
    """
    return open_named_pdf(source, image_name(source), password=password, isolate=isolate)


def open_named_pdf(source: PdfSource, name: str, *, password: str | None = None, isolate: bool = True) -> Pdf:
    """`open_pdf` of a document that errors and log entries call by a name, such as content without a path."""
    return _OpenPdf(name, open_reader(source, name, password, isolate))


def pdf_pages(
    source: PdfSource,
    *,
    dpi: float = 150,
    pages: Iterable[int] | None = None,
    password: str | None = None,
    isolate: bool = True,
) -> Iterator[PdfPage]:
    """Render the pages of a PDF one by one, so that a long document never fills the memory.

    Args:
        source: a path, the bytes, or an open binary file (rewound first).
        dpi: resolution of the rendered page. A page beyond 50 megapixels is drawn smaller, and the log names it.
        pages: 1-based numbers, in the requested order; None for all.
        password: for an encrypted document.
        isolate: as for `open_pdf`.

    Yields:
        Pages, in order.

    Raises:
        PdfError: `source` cannot be opened (see `open_pdf`), lacks a requested page, or has one that cannot be read.
            Pages after it can be requested by `pages`, or read by `open_pdf`.
        ConfigurationError: `pages` are not 1-based whole numbers, or `dpi` is not positive.

    Example:
        >>> for page in pdf_pages("report.pdf", pages=range(1, 3)):
        ...     print(page.number, page.image.size, len(page.text) > 100)
        1 (1241, 1754) True
        2 (1241, 1754) True
    """
    return _raising(pages_and_failures(source, dpi=dpi, pages=pages, password=password, isolate=isolate))


def pages_and_failures(
    source: PdfSource, *, dpi: float, pages: Iterable[int] | None, password: str | None, isolate: bool
) -> Generator[PdfPage | FailedPage, None, None]:
    """`pdf_pages` with a `FailedPage` in the place of each page that cannot be read, instead of its error."""
    return _pages(source, checked_number(dpi, "dpi", 0, above=True), page_numbers(pages), password, isolate)


def pdf_page_count(source: PdfSource, *, password: str | None = None, isolate: bool = True) -> int:
    """Number of pages of a PDF, without rendering any.

    Args:
        source: as for `pdf_pages`.
        password: for an encrypted document.
        isolate: as for `open_pdf`.

    Raises:
        PdfError: as `pdf_pages`.

    Example:
        >>> pdf_page_count("report.pdf")
        2
    """
    with closing(open_pdf(source, password=password, isolate=isolate)) as pdf:
        return pdf.page_count


def _pages(
    source: PdfSource, dpi: float, numbers: list[int] | None, password: str | None, isolate: bool
) -> Generator[PdfPage | FailedPage, None, None]:
    with closing(open_pdf(source, password=password, isolate=isolate)) as pdf:
        for number in range(1, pdf.page_count + 1) if numbers is None else numbers:
            yield _page(pdf, number, dpi)


def _page(pdf: Pdf, number: int, dpi: float) -> PdfPage | FailedPage:
    try:
        width, height = pdf.size(number)
        image, text = pdf.render(number, dpi), pdf.text(number)
    except PdfError as error:
        return FailedPage(f"{pdf.name}, page {number}", error)
    return PdfPage(image, number, text, width, height, pdf.name, pdf.page_count)


def _raising(pages: Generator[PdfPage | FailedPage, None, None]) -> Iterator[PdfPage]:
    with closing(pages):
        for page in pages:
            if isinstance(page, FailedPage):
                raise page.error
            yield page


class _OpenPdf:
    """A `Pdf` over a reader: checks numbers, and names document and page in errors."""

    def __init__(self, name: str, reader: Reader) -> None:
        self.name = name
        self._reader: Reader | None = reader
        self.page_count = reader.page_count
        self._latest_text: tuple[int, PageText] | None = None
        self._has_warned = False

    def size(self, number: int) -> tuple[float, float]:
        with self._reading(number) as (reader, page):
            size = reader.size(page)
            check_sides(size)
            return size

    def text(self, number: int) -> str:
        return self._text(number).text

    def missing_fonts(self, number: int) -> tuple[str, ...]:
        return self._text(number).missing_fonts

    def label(self, number: int) -> str:
        with self._reading(number) as (reader, page):
            return reader.label(page) or str(page)

    def render(self, number: int, dpi: float) -> Image.Image:
        dpi = checked_number(dpi, "dpi", 0, above=True)
        with self._reading(number) as (reader, page):
            image, drawn_dpi = reader.draw(page, dpi)
            if drawn_dpi < dpi * (1 - 1e-9):
                self._warn(page, reader.size(page), drawn_dpi, dpi)
            return image

    def close(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    @contextmanager
    def _reading(self, number: int) -> Iterator[tuple[Reader, int]]:
        if self._reader is None:
            raise PdfError(f"{self.name} was closed; open it again")
        number = whole_number(number)
        if not 1 <= number <= self.page_count:
            raise PdfError(
                f"{self.name} has pages 1 to {self.page_count}; page {shown(number)} was requested (they count from 1)"
            )
        try:
            yield self._reader, number
        except ConfigurationError:
            raise
        except Exception as error:
            raise PdfError(f"{self.name}, page {number} cannot be drawn: {reason_of(error)}") from error

    def _text(self, number: int) -> PageText:
        """The latest page's text is kept for the question about its fonts."""
        with self._reading(number) as (reader, page):
            latest = self._latest_text
            if latest is None or latest[0] != page:
                latest = self._latest_text = page, reader.text(page)
                self._warn_of_fonts(page, latest[1].missing_fonts)
                if not latest[1].judged:
                    logger.warning("%s, page %d: %s", self.name, page, _UNJUDGED)
            return latest[1]

    def _warn_of_fonts(self, page: int, names: tuple[str, ...]) -> None:
        if names and not self._has_warned:
            self._has_warned = True  # once per document
            message = missing_fonts_message(names)
            logger.warning("%s, page %d: %s", self.name, page, message, extra={"missing_fonts": names})

    def _warn(self, page: int, size: tuple[float, float], drawn: float, dpi: float) -> None:
        logger.warning(
            "%s, page %d is %.0f x %.0f points; drawn at %.3g dpi instead of %g, which is 50 megapixels",
            *(self.name, page, *size, drawn, dpi),
        )
