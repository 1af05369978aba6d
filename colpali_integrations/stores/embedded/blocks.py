"""Append-only files of vectors, mapped into memory.

A file holds the rows of one layer: all vectors of the entries, or those of the first stage. Rows that the database
names never change, and a file is only removed when no row of it is named any more. So a mapped file is never shortened
under a reader, which would end the reader's process.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import zlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.stores.embedded.coarse import coarse_rows, coarse_vectors

__all__ = ["BlockFiles", "Layer", "MissingFile", "Place", "Tail", "checksum", "flush", "sync_folder"]

_SUFFIX = ".block"


@dataclass(frozen=True)
class Layer:
    """A kind of row.

    Attributes:
        name: part of the file names.
        dtype: of the numbers.
        width: numbers per row.
        coarse: whether the rows are those of `coarse_rows`.
        code: of the rows, if they are those of a `VectorCode`.
    """

    name: str
    dtype: DTypeLike
    width: int
    coarse: bool = False
    code: VectorCode | None = None

    def rows_of(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """The rows of an entry's vectors (n, dim)."""
        if self.code is not None:
            return self.code.encode(vectors)
        return coarse_rows(vectors) if self.coarse else vectors

    def vectors(self, rows: NDArray[Any]) -> Float32:
        """The vectors (n, dim) in an entry's rows."""
        if self.code is not None:
            return self.code.decode(rows)
        return coarse_vectors(rows) if self.coarse else rows.astype(np.float32)

    @property
    def row_bytes(self) -> int:
        """Bytes per row."""
        return int(np.dtype(self.dtype).itemsize) * self.width


class Place(NamedTuple):
    """The rows of an entry: `length` rows of file `file`, beginning with row `start`, and their checksum."""

    file: int
    start: int
    length: int
    checksum: int


class Tail(NamedTuple):
    """The file that is appended to, and the number of its rows that the database names."""

    file: int
    rows: int


def checksum(layer: Layer, entry: int, rows: NDArray[Any]) -> int:
    """CRC-32 of the rows of an entry, which also differs between entries and layers."""
    return zlib.crc32(np.ascontiguousarray(rows).view(np.uint8).data, zlib.crc32(f"{layer.name} {entry}".encode()))


class BlockFiles:
    """The block files of a store.

    Args:
        folder: of the store.
        mode: permissions of new files.
    """

    def __init__(self, folder: Path, mode: int = 0o600) -> None:
        self._folder, self._mode = folder, mode
        self._maps: dict[int, NDArray[np.uint8]] = {}

    def path(self, layer: Layer, number: int) -> Path:
        """The path of a file."""
        return self._folder / f"{layer.name}-{number:08d}{_SUFFIX}"

    def append(
        self, layer: Layer, arrays: Mapping[int, NDArray[Any]], tail: Tail | None, following: int, largest: int
    ) -> dict[int, Place]:
        """Write arrays of rows and flush them to disk.

        Args:
            layer: of the rows.
            arrays: (n, width) per number of an entry; at least one.
            tail: the file to continue; None to begin a new one.
            following: the number of the next new file.
            largest: bytes from which on a file is not continued.

        Returns:
            The place per number of an entry.

        Raises:
            OSError: the disk is full, or cannot be written.
        """
        number, start = following, 0
        if tail is not None and tail.rows * layer.row_bytes < largest:
            # A longer file has rows of a batch that was not committed; they are never overwritten.
            with contextlib.suppress(FileNotFoundError):
                if self.path(layer, tail.file).stat().st_size == tail.rows * layer.row_bytes:
                    number, start = tail
        places = {}
        with os.fdopen(self._opened(layer, number, new=number == following), "wb", buffering=0) as file:
            for entry, array in arrays.items():
                rows = np.ascontiguousarray(array, layer.dtype)
                _write(file, rows)
                places[entry] = Place(number, start, len(rows), checksum(layer, entry, rows))
                start += len(rows)
            flush(file.fileno())
        if number == following:
            sync_folder(self._folder)
        return places

    def rows(self, layer: Layer, number: int, end: int) -> NDArray[Any]:
        """The rows of a file up to `end`, mapped: (end, width) or longer.

        Raises:
            StoreError: the file is missing or too short.
        """
        mapped = self._maps.get(number)
        if mapped is None or len(mapped) < end * layer.row_bytes:
            mapped = self._maps[number] = self._map(layer, number, end)
        size = len(mapped) // layer.row_bytes * layer.row_bytes
        return mapped[:size].view(layer.dtype).reshape(-1, layer.width)

    def at(self, layer: Layer, place: Place) -> NDArray[Any]:
        """The rows (n, width) at a place, mapped.

        Raises:
            StoreError: the file is missing or too short.
        """
        end = place.start + place.length
        return self.rows(layer, place.file, end)[place.start : end]

    def stored(self) -> dict[int, Path]:
        """The block files in the folder by number."""
        return {
            int(number): path
            for path in self._folder.glob(f"*-*{_SUFFIX}")
            if (number := path.stem.rpartition("-")[2]).isdecimal()
        }

    def keep_only(self, numbers: Iterable[int]) -> None:
        """Remove the files that the database does not name; the caller holds the write lock."""
        kept = set(numbers)
        for number, path in self.stored().items():
            if number not in kept:
                self._maps.pop(number, None)
                # Windows refuses while another process has the file mapped; the next call tries again.
                with contextlib.suppress(OSError):
                    path.unlink()

    def forget_others(self, numbers: Collection[int]) -> None:
        """Forget the maps of other files: a mapped file keeps its space on the disk after its removal."""
        self._maps = {number: mapped for number, mapped in self._maps.items() if number in numbers}

    def close(self) -> None:
        """Forget the maps; each ends with the last array that uses it."""
        self._maps = {}

    def _opened(self, layer: Layer, number: int, *, new: bool) -> int:
        path = self.path(layer, number)
        if new:
            # A file of this number belongs to a batch that was never committed.
            path.unlink(missing_ok=True)
        flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_BINARY", 0) | (os.O_CREAT | os.O_EXCL if new else 0)
        descriptor = os.open(path, flags, self._mode)
        if new:
            path.chmod(self._mode)  # despite the umask
        return descriptor

    def _map(self, layer: Layer, number: int, end: int) -> NDArray[np.uint8]:
        path = self.path(layer, number)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size < end * layer.row_bytes:
                    raise StoreError(
                        f"{path} is damaged: it has {size} bytes, and the database names {end * layer.row_bytes}; "
                        "repair the store, or restore it from a backup"
                    )
                return np.frombuffer(mmap.mmap(file.fileno(), end * layer.row_bytes, access=mmap.ACCESS_READ), np.uint8)
        except FileNotFoundError as error:
            raise MissingFile(f"{path} is missing; repair the store, or restore it from a backup") from error


class MissingFile(StoreError):
    """A block file is missing: compaction by another process removed it, or the store is damaged."""


def _write(file: Any, rows: NDArray[Any]) -> None:
    data = memoryview(rows.view(np.uint8).reshape(-1).data)
    while len(data):
        data = data[file.write(data) :]


def flush(descriptor: int) -> None:
    """Write to the disk itself; macOS keeps data in the drive's cache otherwise."""
    if sys.platform == "darwin":
        import fcntl

        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_folder(folder: Path) -> None:
    """Write a folder's list of files to the disk; Windows does that itself."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
