"""Size, text, label and pixels of the pages of one PDF, by pypdfium2. Callers add the document's name to its errors."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from mmap import mmap
from pathlib import Path
from typing import Any

import pypdfium2
import pypdfium2.raw as pdfium

from colpali_integrations.errors import PdfError
from colpali_integrations.pdfium.fields import field_values
from colpali_integrations.pdfium.messages import PageText
from colpali_integrations.pdfium.names import LAYERS, USER_UNIT, FileNames
from colpali_integrations.pdfium.pixels import Pixels, drawing_scale
from colpali_integrations.pdfium.text import clean, read_text
from colpali_integrations.pdfium.units import user_unit

__all__ = ["PdfiumReader"]

# A damaged file may count millions of pages that it does not have; after so many missing ones the search ends.
_MISSING_IN_A_ROW = 1000


class PdfiumReader:
    """The pages of an open PDF, by 1-based numbers, read in this process.

    pdfium allows one call at a time, over all documents. The latest page stays loaded: callers read its text, size and
    picture together.

    Args:
        source: path of an existing file, or the bytes.
        password: for an encrypted document.

    Attributes:
        page_count: number of pages.

    Raises:
        PdfError: the document cannot be opened; from every method, for a page that cannot be read.
    """

    def __init__(self, source: Path | bytes, password: str | None) -> None:
        self._document: pypdfium2.PdfDocument | None = _open(source, password)
        self._names = FileNames(source)
        self._unit: tuple[int, float] | None = None  # of the latest page
        self._loaded: tuple[int, pypdfium2.PdfPage] | None = None
        self._counted = len(self._document)
        self.page_count = _existing_pages(self._document, self._counted)

    def size(self, number: int) -> tuple[float, float]:
        """Width and height in points."""
        with self._page(number) as page:
            (width, height), unit = page.get_size(), self._user_unit(number)
        return width * unit, height * unit

    def text(self, number: int, *, judged: bool = True) -> PageText:
        """The text layer, the values of form fields after it, and the fonts that are missing to draw it.

        Args:
            number: of the page.
            judged: leave out what no viewer shows, for which the page is drawn; otherwise only text outside of it.
        """
        with self._page(number) as page:
            may_have_layers = self._names.may_have(LAYERS)
            read = read_text(page, self._user_unit(number), may_have_layers=may_have_layers, judged=judged)
            return read._replace(text="\n".join(filter(None, [read.text, *map(clean, field_values(page))])))

    def label(self, number: int) -> str:
        """The printed number; "" where the document names none."""
        with self._page(number) as page:
            assert page.pdf is not None
            return clean(page.pdf.get_page_label(number - 1))

    def draw(self, number: int, dpi: float, memory: mmap | None = None) -> Pixels:
        """The picture, drawn into `memory` if it is given."""
        with self._page(number) as page:
            (width, height), unit = page.get_size(), self._user_unit(number)
            scale = drawing_scale((width * unit, height * unit), dpi)
            options = {} if memory is None else {"bitmap_maker": partial(_bitmap, memory)}
            bitmap = page.render(scale=scale * unit, **options)
        return Pixels(bitmap.width, bitmap.height, bitmap.stride, scale * 72, bitmap.buffer)

    def close(self) -> None:
        """Release the document. Calling it twice does nothing."""
        document, self._document = self._document, None
        if document is not None:
            self._release()
            document.close()

    def _user_unit(self, number: int) -> float:
        if not self._names.may_have(USER_UNIT):
            return 1.0
        if self._unit is None or self._unit[0] != number:
            self._unit = number, user_unit(self._document, number)
        return self._unit[1]

    @contextmanager
    def _page(self, number: int) -> Iterator[pypdfium2.PdfPage]:
        if self._document is None:
            raise PdfError("the document was closed")
        try:
            if self._loaded is None or self._loaded[0] != number:
                self._release()
                self._loaded = number, self._document[number - 1]
            yield self._loaded[1]
        except (pypdfium2.PdfiumError, ValueError) as error:  # ValueError: a page without area
            if number == self.page_count < self._counted:
                reason = f"the file counts {self._counted} pages, but none from this one on can be found"
                raise PdfError(reason) from error
            raise PdfError(str(error)) from error

    def _release(self) -> None:
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            loaded[1].close()


class _Document(pypdfium2.PdfDocument):  # type: ignore[misc]
    """A document whose forms are drawn.

    pypdfium2 makes a form environment only for a document with an AcroForm. A page that was split off a form keeps its
    fields without it, and viewers draw them (compared with poppler's drawings). For a document with XFA, pypdfium2
    logs how to build another pdfium; its pages are drawn anyway.
    """

    def get_formtype(self) -> int:
        return int(pdfium.FORMTYPE_ACRO_FORM)


def _open(source: Path | bytes, password: str | None) -> pypdfium2.PdfDocument:
    try:
        document = _Document(source, password=password)
    except pypdfium2.PdfiumError as error:
        if "password" in str(error).lower():
            hint = "the password is wrong" if password else "pass password=..."
            raise PdfError(f"is encrypted; {hint}") from error
        raise PdfError(f"is not a PDF, or is damaged or cut off ({error})") from error
    try:
        document.init_forms()  # without this, pdfium does not draw the values of filled-in forms
        if len(document) == 0:
            raise PdfError("has no pages")
    except BaseException as error:
        document.close()
        if isinstance(error, pypdfium2.PdfiumError):
            raise PdfError(f"is damaged: {error}") from error
        raise
    return document


def _bitmap(memory: mmap, width: int, height: int, format: int, **options: Any) -> pypdfium2.PdfBitmap:
    buffer = (ctypes.c_ubyte * (3 * width * height)).from_buffer(memory)
    return pypdfium2.PdfBitmap.new_native(width, height, format, buffer=buffer, **options)


def _existing_pages(document: pypdfium2.PdfDocument, counted: int) -> int:
    """The number of pages up to the first of those that are missing at the end.

    A file of 577 bytes can count 100,000 pages. They fail together, as one page.
    """
    if _exists(document, counted):
        return counted
    last = 0
    for number in range(1, counted):
        if _exists(document, number):
            last = number
        elif number - last >= _MISSING_IN_A_ROW:
            break
    return last + 1


def _exists(document: pypdfium2.PdfDocument, number: int) -> bool:
    """Whether the page tree has a page; unlike loading the page, this reads none of its content."""
    try:
        document.get_page_size(number - 1)
    except pypdfium2.PdfiumError:
        return False
    return True
