"""The formats of Office files, their suffixes, and how a file's content tells its format.

The content decides, and not the name: LibreOffice would read a page of HTML that is called ".docx" as HTML.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Collection
from typing import NamedTuple

from colpali_integrations.errors import OfficeError

__all__ = ["BINARY", "FORMATS", "HTML", "UPLOADED", "Format", "format_of", "is_marked"]

_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_ZIP = b"PK\x03\x04"
_RTF = b"{\\rtf"
_BIGGEST_NAMES = 1_000_000  # bytes of the parts that tell a zip's format


class Format(NamedTuple):
    """A format that LibreOffice reads.

    Attributes:
        suffix: of its files.
        program: of LibreOffice that reads it: "writer", "calc" or "impress".
        reader: LibreOffice's name of the filter that reads it.
    """

    suffix: str
    program: str
    reader: str


FORMATS = {
    one.suffix: one
    for one in (
        Format(".docx", "writer", "MS Word 2007 XML"),
        Format(".doc", "writer", "MS Word 97"),
        Format(".odt", "writer", "writer8"),
        Format(".rtf", "writer", "Rich Text Format"),
        Format(".xlsx", "calc", "Calc MS Excel 2007 XML"),
        Format(".xls", "calc", "MS Excel 97"),
        Format(".ods", "calc", "calc8"),
        Format(".pptx", "impress", "Impress MS PowerPoint 2007 XML"),
        Format(".ppt", "impress", "MS PowerPoint 97"),
        Format(".odp", "impress", "impress8"),
        Format(".html", "writer", "HTML (StarWriter)"),
        Format(".htm", "writer", "HTML (StarWriter)"),
    )
}
"""The formats that are read, by suffix in lower case."""

HTML = frozenset({".html", ".htm"})
"""Suffixes of HTML, which is known by its name alone, so that only a file on the disk can be HTML."""

BINARY = frozenset({".doc", ".xls", ".ppt"})
"""Suffixes of the formats that cannot be cleaned."""

UPLOADED = frozenset(FORMATS) - HTML
"""Suffixes of the formats that are known by their content."""

# The beginnings of the content types of a zip's main part, and the media types in an OpenDocument file.
_CONTENT_TYPES = {
    ".docx": (b"wordprocessingml.document.main+xml", b"ms-word.document.macroEnabled.main+xml"),
    ".xlsx": (b"spreadsheetml.sheet.main+xml", b"ms-excel.sheet.macroEnabled.main+xml"),
    ".pptx": (b"presentationml.presentation.main+xml", b"ms-powerpoint.presentation.macroEnabled.main+xml"),
}
_MEDIA_TYPES = {
    b"application/vnd.oasis.opendocument.text": ".odt",
    b"application/vnd.oasis.opendocument.spreadsheet": ".ods",
    b"application/vnd.oasis.opendocument.presentation": ".odp",
}
# Names of streams in the binary formats, as their folders have them.
_STREAMS = {".doc": ("WordDocument",), ".ppt": ("PowerPoint Document",), ".xls": ("Workbook", "Book")}
_ENCRYPTED = "EncryptedPackage"


def is_marked(prefix: bytes) -> bool:
    """Whether content begins as an Office file that is known by its content may; a zip may be another kind of file.

    Args:
        prefix: the first 8 bytes.
    """
    return prefix.startswith((_OLE, _ZIP, _RTF))


def format_of(content: bytes, suffix: str) -> Format | None:
    """The format of a document.

    Args:
        content: of the whole file.
        suffix: of its name in lower case; it decides for HTML, and between the formats that fit a binary file.

    Returns:
        The format; None where the content is of none that is read.

    Raises:
        OfficeError: it is encrypted.
    """
    if content.startswith(_RTF):
        return FORMATS[".rtf"]
    if content.startswith(_ZIP):
        return _of_zip(content)
    if content.startswith(_OLE):
        return _of_streams(content, suffix)
    return FORMATS[suffix] if suffix in HTML else None


def _of_zip(content: bytes) -> Format | None:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            if "mimetype" in names:
                media = _start(archive, "mimetype").strip().removesuffix(b"-template")
                return FORMATS[_MEDIA_TYPES[media]] if media in _MEDIA_TYPES else None
            types = _start(archive, "[Content_Types].xml") if "[Content_Types].xml" in names else b""
    # The exceptions for a damaged zip depend on the place of the damage.
    except Exception:
        return None
    found = [suffix for suffix, marks in _CONTENT_TYPES.items() if any(mark in types for mark in marks)]
    return FORMATS[found[0]] if found else None


def _start(archive: zipfile.ZipFile, name: str) -> bytes:
    with archive.open(name) as part:
        return part.read(_BIGGEST_NAMES)


def _of_streams(content: bytes, suffix: str) -> Format | None:
    if _has(content, [_ENCRYPTED]):
        raise OfficeError("is encrypted, and LibreOffice takes no password here; save it without one")
    found = [one for one, names in _STREAMS.items() if _has(content, names)]
    if suffix in found:  # a document may hold one of another format
        return FORMATS[suffix]
    return FORMATS[found[0]] if found else None


def _has(content: bytes, names: Collection[str]) -> bool:
    return any(f"{name}\0".encode("utf-16-le") in content for name in names)
