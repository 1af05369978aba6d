"""The catalogue: the places of all vectors, in memory, so that a search reads no rows of the database."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["WORDS_LAYER", "Catalogue", "Places", "Segment", "counter", "segments_of"]

# The layer number under which `places` counts the words of an entry.
WORDS_LAYER = 99


@dataclass(frozen=True)
class Places:
    """The rows of every entry in one layer; a length of 0 where an entry has none.

    Attributes:
        files: int64 (n_entries,).
        starts: int64 (n_entries,), the first row.
        lengths: int64 (n_entries,).
    """

    files: NDArray[np.int64]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]


class Segment(NamedTuple):
    """A segment of the index of centroids; see `segments`.

    Attributes:
        file: its number.
        first: number of an entry; the segment holds all entries from there on ...
        last: ... to this number, which may be gone.
        vectors: of these entries.
        length: bytes of the file.
        checksum: of the bytes.
    """

    file: int
    first: int
    last: int
    vectors: int
    length: int
    checksum: int


@dataclass(frozen=True)
class Catalogue:
    """The entries of one state of the store, in the order of their numbers.

    Attributes:
        connection: that read the state; None for an empty catalogue that was not read.
        version: SQLite's `data_version` of the state, which only the same connection can compare.
        layout: the number of compactions until then.
        updates: the number of changes of payloads until then.
        numbers: int64 (n_entries,), ascending.
        layers: places by layer number.
        texts: number of entries with words.
        segments: of the index of centroids.
    """

    connection: sqlite3.Connection | None = None
    version: int = -1
    layout: int = -1
    updates: int = -1
    numbers: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    layers: dict[int, Places] = field(default_factory=dict)
    texts: int = 0
    segments: tuple[Segment, ...] = ()

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def files(self) -> set[int]:
        """The numbers of all files."""
        named = [np.unique(places.files) for layer, places in self.layers.items() if layer != WORDS_LAYER]
        return {int(number) for numbers in named for number in numbers} | {segment.file for segment in self.segments}

    def positions(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of entries; those that the catalogue lacks are left out."""
        if not len(self):
            return np.empty(0, np.int64)
        found: NDArray[np.int64] = np.minimum(np.searchsorted(self.numbers, numbers), len(self) - 1)
        present: NDArray[np.int64] = found[self.numbers[found] == numbers]
        return present

    def refreshed(self, connection: sqlite3.Connection, layers: int) -> Catalogue:
        """The catalogue of the connection's state: this one if nothing was changed since."""
        version = int(connection.execute("PRAGMA data_version").fetchone()[0])
        if connection is self.connection and version == self.version:
            return self
        layout, updates = counter(connection, "layout"), counter(connection, "updates")
        numbers = _column(connection, "SELECT number FROM entries ORDER BY number")
        segments = tuple(segments_of(connection))
        if layout != self.layout or not len(self):
            places, texts = _places(connection, numbers, layers, -1)
            return Catalogue(connection, version, layout, updates, numbers, places, texts, segments)
        kept = np.isin(self.numbers, numbers, assume_unique=True)
        new = numbers[numbers > self.numbers[-1]]
        added, _ = _places(connection, new, layers, int(self.numbers[-1]))
        merged = {
            layer: Places(
                *(
                    np.concatenate([old[kept], late])
                    for old, late in zip(_arrays(self.layers[layer]), _arrays(one), strict=True)
                )
            )
            for layer, one in added.items()
        }
        texts = int((merged[WORDS_LAYER].lengths > 0).sum())
        return Catalogue(connection, version, layout, updates, numbers, merged, texts, segments)


def counter(connection: sqlite3.Connection, name: str) -> int:
    """A number in the settings of a store: "layout" or "updates"; see `Catalogue`."""
    return int(connection.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()[0])


def segments_of(connection: sqlite3.Connection) -> list[Segment]:
    """The segments of a store, in the order of their entries."""
    query = "SELECT file, first, last, vectors, length, checksum FROM segments ORDER BY first"
    return [Segment(*row) for row in connection.execute(query)]


def _arrays(places: Places) -> tuple[NDArray[np.int64], ...]:
    return places.files, places.starts, places.lengths


def _column(connection: sqlite3.Connection, query: str) -> NDArray[np.int64]:
    return np.fromiter((row[0] for row in connection.execute(query)), np.int64)


def _places(
    connection: sqlite3.Connection, numbers: NDArray[np.int64], layers: int, after: int
) -> tuple[dict[int, Places], int]:
    query = "SELECT entry, layer, file, start, length FROM places WHERE entry > ?"
    row = np.dtype([(name, np.int64) for name in ("entry", "layer", "file", "start", "length")])
    rows = np.fromiter(connection.execute(query, (after,)), row).view(np.int64).reshape(-1, 5)
    places = {}
    for layer in (*range(layers), WORDS_LAYER):
        of_layer = rows[rows[:, 1] == layer]
        at = np.searchsorted(numbers, of_layer[:, 0])
        columns = np.zeros((3, len(numbers)), np.int64)
        columns[:, at] = of_layer[:, 2:].T
        places[layer] = Places(*columns)
    return places, int((places[WORDS_LAYER].lengths > 0).sum())
