"""Which names a file may contain, so that what is rare costs only the files that have it."""

from __future__ import annotations

import mmap
import re
import zlib
from pathlib import Path
from typing import TypeAlias

__all__ = ["LAYERS", "USER_UNIT", "FileNames"]

USER_UNIT, LAYERS = b"UserUnit", b"OCProperties"

_Bytes: TypeAlias = bytes | mmap.mmap
_NAMES = frozenset({USER_UNIT, LAYERS})
_LONGEST = max(map(len, _NAMES))
_OBJECTS = b"/ObjStm"
_BEGIN = re.compile(rb"/ObjStm.{0,400}?stream\r?\n", re.DOTALL)
# A stream is unpacked in pieces, and no further than objects ever need.
_PIECE, _MOST_PIECES = 2**20, 64
# A larger file is not searched: it would count as memory of the process, which is limited.
_LARGEST_FILE = 2**28


class FileNames:
    """The names `USER_UNIT` and `LAYERS` in a PDF, which is searched at first use.

    Objects may be compressed. Where they are encrypted, or cannot be unpacked here, every name may be there, and so it
    may in a file of more than 256 MB.

    Args:
        source: path of an existing file, or the bytes.
    """

    def __init__(self, source: Path | bytes) -> None:
        self._source: Path | bytes | None = source
        self._found: frozenset[bytes] = frozenset()

    def may_have(self, name: bytes) -> bool:
        """Whether the file may have a name; if not, it has it nowhere."""
        source, self._source = self._source, None
        if source is not None:
            self._found = _found_in(source)
        return name in self._found


def _found_in(source: Path | bytes) -> frozenset[bytes]:
    if isinstance(source, bytes):
        return _names(source)
    if source.stat().st_size > _LARGEST_FILE:
        return _NAMES
    with source.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return _names(content)


def _names(content: _Bytes) -> frozenset[bytes]:
    found = frozenset(name for name in _NAMES if content.find(name) >= 0)
    at = content.find(_OBJECTS)
    if at >= 0 and content.find(b"/Encrypt") >= 0:
        return _NAMES
    while at >= 0 and found != _NAMES:
        begin = _BEGIN.match(content, at)
        if begin is None:
            return _NAMES
        found |= _names_in_stream(content, begin.end())
        at = content.find(_OBJECTS, begin.end())
    return found


def _names_in_stream(content: _Bytes, start: int) -> frozenset[bytes]:
    """The names in a compressed stream of objects; all if it cannot be unpacked here."""
    end = content.find(b"endstream", start)
    packed, unpacker = content[start : end if end >= 0 else len(content)], zlib.decompressobj()
    found: frozenset[bytes] = frozenset()
    before = b""
    for _ in range(_MOST_PIECES):
        try:
            piece = unpacker.decompress(packed, _PIECE)
        except zlib.error:
            return _NAMES
        found |= {name for name in _NAMES if name in before + piece}
        packed, before = unpacker.unconsumed_tail, piece[-_LONGEST:]
        if not packed:
            return found
    return _NAMES
