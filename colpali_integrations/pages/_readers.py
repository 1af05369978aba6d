"""Readers of a PDF: in a process of its own with limits, or in this one, where one thread at a time may call pdfium."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from PIL import Image

from colpali_integrations._forks import hold_during_forks
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ColPaliError, ConfigurationError, OfficeError, PdfError
from colpali_integrations.pages.arguments import checked_password
from colpali_integrations.pages.images import read_whole
from colpali_integrations.pages.isolation import IsolatedReader, image_of
from colpali_integrations.pages.office import is_office, office_pdf, other_kind
from colpali_integrations.pages.paged import is_pdf
from colpali_integrations.pdfium.messages import PageText

__all__ = ["PdfSource", "Reader", "open_reader", "reason_of"]

PdfSource: TypeAlias = str | os.PathLike[str] | bytes | IO[bytes]

# pdfium is not thread-safe, not even for two documents: every call into it holds this lock.
_pdfium = threading.RLock()
hold_during_forks(_pdfium)


class Reader(Protocol):
    """Reads the pages of one document, in this process or in another one; its errors do not name the document."""

    page_count: int

    def size(self, number: int) -> tuple[float, float]: ...

    def text(self, number: int) -> PageText: ...

    def label(self, number: int) -> str: ...

    def draw(self, number: int, dpi: float) -> tuple[Image.Image, float]: ...

    def close(self) -> None: ...


def open_reader(source: Any, name: str, password: str | None, isolate: bool) -> Reader:
    """Open a document, which errors call by `name`; an Office file is converted first.

    Raises:
        PdfError: as `open_pdf`.
        OfficeError: as `open_pdf`.
        ConfigurationError: as `open_pdf`.
    """
    content, password = _checked(source, name), checked_password(password)
    try:
        if not is_pdf(content) and is_office(content):
            found = office_pdf(content)
            return _ConvertedReader(_read_by(found.path, None, isolate), found.texts)
        return _read_by(content, password, isolate)
    except ConfigurationError:
        raise
    except OfficeError as error:
        raise OfficeError(f"{name} {error}") from error
    except Exception as error:
        reason = reason_of(error)
        if reason.startswith("is not a PDF"):
            reason = other_kind(content) or reason
        is_sentence = reason.startswith(("is ", "has "))
        raise PdfError(f"{name} {reason}" if is_sentence else f"{name} cannot be opened: {reason}") from error


def _read_by(content: Path | bytes, password: str | None, isolate: bool) -> Reader:
    return IsolatedReader(content, password) if isolate else _LockedReader(content, password)


def _checked(source: Any, name: str) -> Path | bytes:
    """The path of an existing file, or bytes; neither is empty."""
    if isinstance(source, (str, os.PathLike)):
        path = user_path(source, PdfError)
        if not path.is_file():
            raise PdfError(f"no PDF at {path}")
        if path.stat().st_size == 0:
            raise PdfError(f"{path} is empty (0 bytes)")
        return path
    try:
        content = read_whole(source) if hasattr(source, "read") else source
    except (OSError, ValueError) as error:  # ValueError: the file is closed
        raise PdfError(f"cannot read {name}: {error}") from error
    if not isinstance(content, (bytes, bytearray, memoryview)):
        raise PdfError(f"cannot use {type(source).__name__} as a PDF; expected a path, bytes or an open binary file")
    if not memoryview(content).nbytes:
        raise PdfError(f"{name} is empty (0 bytes)")
    return content if isinstance(content, bytes) else memoryview(content).tobytes()


def reason_of(error: Exception) -> str:
    """The words of an error of this package; of another one its type too."""
    return str(error) if isinstance(error, ColPaliError) else f"{type(error).__name__}: {error}"


class _ConvertedReader:
    """A reader of the PDF of an Office file, with the notes of slides and the names of sheets."""

    def __init__(self, reader: Reader, texts: Mapping[int, str]) -> None:
        self._reader, self._texts = reader, texts
        self.page_count = reader.page_count
        self.size, self.label, self.draw, self.close = reader.size, reader.label, reader.draw, reader.close

    def text(self, number: int) -> PageText:
        read = self._reader.text(number)
        further = self._texts.get(number, "")
        return read._replace(text="\n".join(filter(None, [read.text, further])))


class _LockedReader:
    """A reader in this process, where one thread at a time may call pdfium."""

    def __init__(self, source: Path | bytes, password: str | None) -> None:
        # Slow to import, and unused where documents are read in other processes.
        from colpali_integrations.pdfium.reader import PdfiumReader

        with _pdfium:
            self._reader = PdfiumReader(source, password)
        self.page_count = self._reader.page_count

    def size(self, number: int) -> tuple[float, float]:
        with _pdfium:
            return self._reader.size(number)

    def text(self, number: int) -> PageText:
        with _pdfium:
            return self._reader.text(number)

    def label(self, number: int) -> str:
        with _pdfium:
            return self._reader.label(number)

    def draw(self, number: int, dpi: float) -> tuple[Image.Image, float]:
        with _pdfium:
            drawn = self._reader.draw(number, dpi)
        return image_of(drawn), drawn.dpi

    def close(self) -> None:
        with _pdfium:
            self._reader.close()
