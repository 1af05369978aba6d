"""The size of a page's user space unit, which pdfium neither applies nor tells.

A page may say that one unit of its coordinates is `UserUnit` times 1/72 inch (ISO 32000-1, table 30); large plans do.
PDF.js and MuPDF apply it; poppler ignores it, as pdfium does. pdfium copies the entry when it copies a page, so it is
read from such a copy.
"""

from __future__ import annotations

import io
import math
import re

import pypdfium2

__all__ = ["user_unit"]

_STRING = re.compile(rb"\((?:\\.|[^\\()])*\)|(?<!<)<[0-9A-Fa-f\s]*>(?!>)", re.DOTALL)
_INNER = re.compile(rb"<<(?:(?!<<|>>).)*>>", re.DOTALL)
_ENTRY = re.compile(rb"/UserUnit\s*([-+.\d]+)(\s+\d+\s+R)?")


def user_unit(document: pypdfium2.PdfDocument, number: int) -> float:
    """The user unit of a page in points (1/72 inch), 1.0 where it has none. It takes a millisecond or several.

    Args:
        document: that is open.
        number: of the page, 1-based.
    """
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
    # PDF.js (`Page.userUnit`) ignores others too.
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
