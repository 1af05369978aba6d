"""The frames of a TIFF file, each of which is a page.

Pillow finds a frame by reading all frames before it, and compares each with all others. Here the directories are walked
once, and Pillow gets a file whose header names the frame's directory as the first: time is linear in the number of
frames, and a damaged frame harms no other. Of a compressed frame libtiff wants the whole file in memory: it gets one in
which all but the parts of the frame is left out.

A TIFF begins with the position of its first directory. A directory is a number of entries (tag, type, count, and a
value or its position), followed by the position of the next directory, 0 after the last.
"""

from __future__ import annotations

import copy
import io
import mmap
import struct
from array import array
from collections.abc import Mapping
from typing import IO, NamedTuple, TypeAlias, cast

from colpali_integrations.errors import ImageError

__all__ = ["ORIENTATION", "FrameFile", "TiffFrames", "is_tiff"]

_SUBFILE, _WIDTH, _LENGTH, ORIENTATION = 254, 256, 257, 274
# Bits of the tag NewSubfileType: a smaller copy of another frame, such as a thumbnail, and a mask of its transparency.
_REDUCED, _MASK = 1, 4
_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 16: "Q"}
_COMPRESSION, _OLD_JPEG = 259, 6  # old JPEG has positions of tables in further tags
# Tags with the positions of strips or tiles, and those with their lengths.
_PLACES = ((273, 279), (324, 325))
_TABLES = {_COMPRESSION, *(tag for pair in _PLACES for tag in pair)}

_Content: TypeAlias = bytes | bytearray | mmap.mmap


def is_tiff(prefix: bytes) -> bool:
    """Whether a file is a TIFF or BigTIFF, by its first 4 bytes."""
    return prefix[:2] in (b"II", b"MM") and bool({prefix[2:3], prefix[3:4]} & {b"*", b"+"}) and b"\0" in prefix[2:4]


class TiffFrames:
    """The frames of a TIFF file that are pages.

    A reduced copy of the frame before it and a transparency mask are no pages.

    Args:
        file: open, seekable, in binary mode; it may be closed then.

    Attributes:
        count: number of pages, at least 1.

    Raises:
        ImageError: the file has no directory, or its directories overlap.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._patched: bytearray | None = None
        self._size = file.seek(0, io.SEEK_END)
        file.seek(0)
        self._layout = _Layout.of(file.read(16))
        self._offsets = self._walk(file)
        self.count = len(self._offsets)

    def unused(self) -> TiffFrames:
        """The same frames without the content of the file, for another user."""
        other = copy.copy(self)
        other._patched = None
        return other

    def frame(self, file: IO[bytes], number: int) -> IO[bytes]:
        """A file for Pillow in which a page's frame is the first. Only the latest one may be in use.

        Args:
            file: the same file, which must stay open.
            number: 1-based.

        Raises:
            ImageError: there is no such page, or its directory is damaged.
        """
        if not 1 <= number <= self.count:
            raise ImageError(f"it has pages 1 to {self.count}; page {number} was requested")
        offset = self._offsets[number - 1]
        directory = self._directory(file, offset)
        if directory is None:
            raise ImageError("its directory lies beyond the end of the file, which may be cut off")
        if directory.data > self._size:
            raise ImageError("its tags have more data than the file")
        return cast("IO[bytes]", FrameFile(self, file, offset))

    def _walk(self, file: IO[bytes]) -> array[int]:
        found: dict[int, None] = {}  # a directory that names an earlier one as the next ends the file
        pages = array("Q")  # positions, in the 8 bytes of a BigTIFF
        total, offset = 0, self._layout.first
        page_size = (0, 0)
        while offset and offset not in found:
            found[offset] = None
            directory = self._directory(file, offset)
            if directory is None:  # drawing the page raises the error
                pages.append(offset)
                break
            total += directory.length
            if total > self._size:
                raise ImageError("the directories of its frames overlap")
            if not pages or not _is_part(directory.numbers, page_size):
                pages.append(offset)
                page_size = _size(directory.numbers)
            offset = directory.next
        if not pages:
            raise ImageError("it has no frames")
        return pages

    def _directory(self, file: IO[bytes], offset: int) -> _Directory | None:
        """Read a directory; None if it lies beyond the end of the file."""
        layout = self._layout
        if offset >= self._size:
            return None
        file.seek(offset)
        try:
            (count,) = struct.unpack(layout.number, file.read(struct.calcsize(layout.number)))
        except struct.error:
            return None
        length = count * layout.entry
        if file.tell() + length > self._size:
            return None
        content = file.read(length + layout.pointer)
        numbers: dict[int, int] = {}
        data = 0
        for tag, kind, values, value in struct.iter_unpack(layout.fields, content[:length]):
            size = _BYTES.get(kind, 0) * values
            data += size if size > layout.pointer else 0
            if kind in _INTEGERS and 0 < size <= layout.pointer:
                numbers.setdefault(tag, struct.unpack_from(layout.order + _INTEGERS[kind], value)[0])
        pointer = content[length:]  # some writers leave it out at the end of the file
        (following,) = struct.unpack(layout.position, pointer) if len(pointer) == layout.pointer else (0,)
        return _Directory(numbers, data, length + layout.pointer, following)

    def _content(self, file: IO[bytes], offset: int) -> _Content:
        """The file with a directory as the first; what other frames need is perhaps left out."""
        if isinstance(file, io.BytesIO) and offset == self._layout.first:
            return file.getvalue()  # not a copy
        header = self._layout.header(offset)
        parts = self._parts(file, offset)
        if parts is not None:
            sparse = mmap.mmap(-1, self._size)  # takes memory as it is written
            for start, length in parts:
                file.seek(start)
                content = file.read(length)
                sparse[start : start + len(content)] = content
            sparse[: len(header)] = header
            return sparse
        if self._patched is None:
            file.seek(0)
            self._patched = bytearray(file.read())
        self._patched[: len(header)] = header
        return self._patched

    def _parts(self, file: IO[bytes], offset: int) -> list[tuple[int, int]] | None:
        """Position and length of all that a frame consists of; None where libtiff has to guess it."""
        layout = self._layout
        file.seek(offset)
        (count,) = struct.unpack(layout.number, file.read(struct.calcsize(layout.number)))
        entries = file.read(count * layout.entry)
        parts = [(offset, file.tell() - offset)]  # without the position of the next directory
        tables: dict[int, tuple[int, ...]] = {}
        for tag, kind, values, value in struct.iter_unpack(layout.fields, entries):
            size = _BYTES.get(kind, 0) * values
            if size > layout.pointer:
                parts.append((struct.unpack(layout.position, value)[0], size))
            if tag in _TABLES:
                if tag in tables or kind not in _INTEGERS:
                    return None
                if size > layout.pointer:
                    file.seek(parts[-1][0])
                    value = file.read(size)
                if len(value) < size:
                    return None
                tables[tag] = struct.unpack_from(f"{layout.order}{values}{_INTEGERS[kind]}", value)
        if tables.pop(_COMPRESSION, ())[:1] in ((), (_OLD_JPEG,)) or not tables:
            return None
        for places, lengths in _PLACES:
            if len(tables.get(places, ())) != len(tables.get(lengths, ())):
                return None
            parts += zip(tables.get(places, ()), tables.get(lengths, ()), strict=True)
        is_whole = all(length > 0 and start + length <= self._size for start, length in parts)
        # Strips may overlap, so that all together are longer than the file.
        return parts if is_whole and sum(length for _, length in parts) <= self._size else None


class FrameFile(io.RawIOBase):
    """A TIFF file with another header, as Pillow reads it.

    Pillow reads an uncompressed frame by position. For a compressed one it calls `getvalue` and passes the result to
    libtiff.

    Args:
        frames: of the file.
        file: the file itself.
        offset: position of the frame's directory.
    """

    def __init__(self, frames: TiffFrames, file: IO[bytes], offset: int) -> None:
        self._frames, self._file, self._offset = frames, file, offset
        self._header = frames._layout.header(offset)
        self._at = 0

    def readable(self) -> bool:
        """True."""
        return True

    def seekable(self) -> bool:
        """True."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to a position."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._frames._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._at = base + offset
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes."""
        self._file.seek(self._at)
        content = self._file.read(size)
        if self._at < len(self._header):
            patched = self._header[self._at : self._at + len(content)]
            content = patched + content[len(patched) :]
        self._at += len(content)
        return content

    def getvalue(self) -> _Content:
        """The file, as far as the frame needs it; valid until the next frame is read."""
        return self._frames._content(self._file, self._offset)


class _Directory(NamedTuple):
    """What is read of a directory.

    Attributes:
        numbers: tags with an integer; of several values the first.
        data: bytes of the values outside of the directory.
        length: bytes of the entries and of the position of the next directory.
        next: position of the next directory.
    """

    numbers: Mapping[int, int]
    data: int
    length: int
    next: int


class _Layout(NamedTuple):
    """Byte order and sizes: those of BigTIFF are larger.

    Attributes:
        order: "<" or ">".
        mark: the first bytes, before the position of the first directory.
        pointer: bytes of a position, and of a value inside an entry.
        first: position of the first directory.
    """

    order: str
    mark: bytes
    pointer: int
    first: int

    @classmethod
    def of(cls, head: bytes) -> _Layout:
        order = "<" if head[:2] == b"II" else ">"
        big = b"+" in head[2:4]
        at, pointer = (8, 8) if big else (4, 4)
        if not is_tiff(head) or len(head) < at + pointer:
            raise ImageError("it is not a TIFF file, or is cut off")
        layout = cls(order, head[:at], pointer, 0)
        return layout._replace(first=struct.unpack_from(layout.position, head, at)[0])

    def header(self, first: int) -> bytes:
        return self.mark + struct.pack(self.position, first)

    @property
    def position(self) -> str:
        return self.order + ("Q" if self.pointer == 8 else "I")

    @property
    def number(self) -> str:
        return self.order + ("Q" if self.pointer == 8 else "H")

    @property
    def fields(self) -> str:
        return self.order + ("HHQ8s" if self.pointer == 8 else "HHI4s")

    @property
    def entry(self) -> int:
        return struct.calcsize(self.fields)


def _size(numbers: Mapping[int, int]) -> tuple[int, int]:
    return numbers.get(_WIDTH, 0), numbers.get(_LENGTH, 0)


def _is_part(numbers: Mapping[int, int], page_size: tuple[int, int]) -> bool:
    """Whether a frame is a part of the page before it. A whole page that is marked as reduced is not smaller."""
    kind, (width, length) = numbers.get(_SUBFILE, 0), _size(numbers)
    return bool(kind & _MASK) or (bool(kind & _REDUCED) and width < page_size[0] and length < page_size[1])
