"""The size of a page's user space unit, which pdfium does not tell and does not apply.

A page may say that one unit of its coordinates is `UserUnit` times 1/72 inch (ISO 32000-1, table 30); large plans do.
Acrobat, PDF.js and MuPDF apply it. pdfium copies the entry when it copies a page, so it is read from such a copy.
"""

from __future__ import annotations

import io
import math
import mmap
import re
import zlib
from pathlib import Path
from typing import TypeAlias

import pypdfium2

__all__ = ["UserUnits"]

_Bytes: TypeAlias = "bytes | mmap.mmap"

_NAME = b"UserUnit"
_OBJECTS = b"/ObjStm"
_BEGIN = re.compile(rb"/ObjStm.{0,400}?stream\r?\n", re.DOTALL)
# A stream is unpacked in pieces, and no further than objects ever need.
_PIECE, _MOST_PIECES = 2**20, 64
_STRING = re.compile(rb"\((?:\\.|[^\\()])*\)|(?<!<)<[0-9A-Fa-f\s]*>(?!>)", re.DOTALL)
_INNER = re.compile(rb"<<(?:(?!<<|>>).)*>>", re.DOTALL)
_ENTRY = re.compile(rb"/UserUnit\s*([-+.\d]+)(\s+\d+\s+R)?")


class UserUnits:
    """The user units of a document's pages.

    Copying a page takes milliseconds, so it is done only where the file may have such an entry. That is looked up at
    the first page.

    Args:
        document: that is open.
        source: its path or bytes.
    """

    def __init__(self, document: pypdfium2.PdfDocument, source: Path | bytes) -> None:
        self._document, self._source = document, source
        self._possible: bool | None = None
        self._latest: tuple[int, float] | None = None

    def of(self, number: int) -> float:
        """The unit of the page of a 1-based number, in points (1/72 inch); 1.0 where the page has none."""
        if self._possible is None:
            self._possible = _may_have_units(self._source)
        if not self._possible:
            return 1.0
        if self._latest is None or self._latest[0] != number:
            self._latest = number, _unit(self._document, number)
        return self._latest[1]


def _may_have_units(source: Path | bytes) -> bool:
    """Whether the name can occur in a file; it may stand in compressed streams of objects."""
    if isinstance(source, bytes):
        return _mentions_units(source)
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _mentions_units(content)


def _mentions_units(content: _Bytes) -> bool:
    if content.find(_NAME) >= 0:
        return True
    at = content.find(_OBJECTS)
    if at >= 0 and content.find(b"/Encrypt") >= 0:
        return True
    while at >= 0:
        begin = _BEGIN.match(content, at)
        if begin is None or _stream_may_name_units(content, begin.end()):
            return True
        at = content.find(_OBJECTS, begin.end())
    return False


def _stream_may_name_units(content: _Bytes, start: int) -> bool:
    """Whether a compressed stream of objects has the name, or cannot be unpacked here."""
    end = content.find(b"endstream", start)
    packed, unpacker = content[start : end if end >= 0 else len(content)], zlib.decompressobj()
    before = b""
    for _ in range(_MOST_PIECES):
        try:
            piece = unpacker.decompress(packed, _PIECE)
        except zlib.error:
            return True
        if _NAME in before + piece:
            return True
        packed, before = unpacker.unconsumed_tail, piece[-len(_NAME) :]
        if not packed:
            return False
    return True


def _unit(document: pypdfium2.PdfDocument, number: int) -> float:
    copy, written = pypdfium2.PdfDocument.new(), io.BytesIO()
    try:
        copy.import_pages(document, [number - 1])
        copy.save(written)
    finally:
        copy.close()
    return _unit_of_copy(written.getvalue())


def _unit_of_copy(content: bytes) -> float:
    """The unit of the only page of a file that pdfium has written: without compressed objects and encryption."""
    kids = re.search(rb"/Kids\s*\[\s*(\d+) 0 R", content)
    entry = _ENTRY.search(_own_entries(content, kids[1])) if kids else None
    if entry is None:
        return 1.0
    number = _object(content, entry[1]) if entry[2] else entry[1]
    try:
        unit = float(number)
    except ValueError:
        return 1.0
    # As PDF.js and MuPDF do.
    return unit if 0 < unit < math.inf else 1.0


def _own_entries(content: bytes, number: bytes) -> bytes:
    """The dictionary of an object without its strings and the dictionaries in it."""
    outer = _STRING.sub(b"", _object(content, number)).strip()
    entries, changed = outer.removeprefix(b"<<").removesuffix(b">>"), 1
    while changed:
        entries, changed = _INNER.subn(b"", entries)
    return entries


def _object(content: bytes, number: bytes) -> bytes:
    found = re.search(rb"(?:^|[\r\n])%b 0 obj\s(.*?)\s?endobj" % number, content, re.DOTALL)
    return found[1] if found else b""
