"""The parts of a zip within limits, and a zip made of those that a rule leaves."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator

from colpali_integrations.errors import OfficeError
from colpali_integrations.office.references import is_picture

__all__ = ["MOST_BYTES", "MOST_PARTS", "PartRule", "is_markup", "parts", "write_parts"]

MOST_PARTS = 20_000
MOST_BYTES = 500_000_000
_PIECE = 2**20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Beginnings of XML in the encodings that parsers recognise without a declaration; "<" in UTF-16 has a null beside it.
_XML_STARTS = (b"<", b"\xef\xbb\xbf", b"\xfe\xff", b"\xff\xfe", b"\0<", b"\0\0")

PartRule = Callable[[str, bytes], bytes | None]
"""Gives what stays of a part, by its name and content; None leaves it out."""


def parts(content: bytes) -> Iterator[tuple[str, bytes]]:
    """The parts of a zip in its order, without its folders.

    Raises:
        OfficeError: it is damaged or encrypted, has two parts of one name, more than 20,000 parts or more than 500 MB.
    """
    seen: set[str] = set()
    left = MOST_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(entries) > MOST_PARTS:
                raise OfficeError(f"has {len(entries):,} parts; {MOST_PARTS:,} are allowed")
            for entry in entries:
                if entry.flag_bits & 1:
                    raise OfficeError("is encrypted; save it without a password")
                if entry.filename in seen or entry.compress_type not in _METHODS:
                    raise OfficeError(f"is damaged: a part of it, {entry.filename!r}, cannot be read")
                seen.add(entry.filename)
                part = _read(archive, entry, left)
                left -= len(part)
                yield entry.filename, part
    except OfficeError:
        raise
    # The exceptions for a damaged zip depend on the place of the damage.
    except Exception as error:
        raise OfficeError(f"is damaged or cut off: {error}") from error


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, most: int) -> bytes:
    """The bytes of a part. Its header may promise fewer than it has."""
    content = io.BytesIO()
    with archive.open(entry) as part:
        while piece := part.read(_PIECE):
            if content.tell() + len(piece) > most:
                raise OfficeError(f"has more than {MOST_BYTES / 1e6:.0f} MB once it is decompressed")
            content.write(piece)
    return content.getvalue()


def is_markup(content: bytes) -> bool:
    """Whether a parser of XML may read content."""
    return content.lstrip(b" \t\r\n").startswith(_XML_STARTS)


def write_parts(content: bytes, rule: PartRule) -> bytes:
    """A zip of what a rule leaves of each part.

    Parts that are neither XML nor pictures are never kept: programs, embedded files and fonts among them.
    """
    result = io.BytesIO()
    with zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, part in parts(content):
            if not (name == "mimetype" or is_markup(part) or is_picture(part)):
                continue
            kept = rule(name, part)
            if kept is not None:
                method = zipfile.ZIP_STORED if name == "mimetype" else zipfile.ZIP_DEFLATED
                archive.writestr(zipfile.ZipInfo(name), kept, method)
    return result.getvalue()
