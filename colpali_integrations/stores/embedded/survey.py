"""A survey of a store's entries that also reads damaged databases and files, as far as possible."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._text import parse_json
from colpali_integrations.pages.identity import page_name
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, Place, checksum
from colpali_integrations.stores.embedded.catalogue import WORDS_LAYER
from colpali_integrations.stores.embedded.connections import READ_ERRORS
from colpali_integrations.stores.embedded.rows import row_checksum, words_of
from colpali_integrations.stores.embedded.schema import DATABASE

__all__ = ["FULL_LAYER", "ROW", "Record", "RowReader", "Survey"]

# Keys of `Record.faults` beside those of the other layers.
ROW, FULL_LAYER = -1, 0
_COLUMNS = "number, id, document, content, metadata, rest, words, checksum"
_NUMBERS = (
    "SELECT number FROM entries NOT INDEXED ORDER BY number",
    "SELECT number FROM entries INDEXED BY entries_by_document ORDER BY document",
    "SELECT entry FROM places ORDER BY entry",
)
_IDS = "SELECT number, id FROM entries INDEXED BY sqlite_autoindex_entries_1 ORDER BY id"


@dataclass
class Record:
    """An entry as it was found.

    Attributes:
        number: of the entry.
        id: None if it cannot be read.
        name: for messages.
        document: its document's id, None if it has none or it cannot be read.
        row: the columns of its row; None if it is missing.
        named: the places of its vectors and words by layer, as the database names them.
        places: those of them whose rows are intact.
        faults: file and damage by layer, or `ROW`.
    """

    number: int
    id: str | None = None
    name: str = ""
    document: str | None = None
    row: tuple[Any, ...] | None = None
    named: dict[int, Place] = field(default_factory=dict)
    places: dict[int, Place] = field(default_factory=dict)
    faults: dict[int, tuple[str, str]] = field(default_factory=dict)


class RowReader:
    """The rows of a store's files, read without mapping them: a damaged disk raises errors instead of signals.

    Args:
        folder: of the store.
        layers: of the store, in the order of their numbers.
    """

    def __init__(self, folder: Path, layers: Sequence[Layer]) -> None:
        self._blocks, self._layers = BlockFiles(folder), layers
        self._open: dict[int, tuple[int, IO[bytes]]] = {}

    def rows(self, layer: int, place: Place) -> NDArray[Any]:
        """Read the rows of an entry.

        Raises:
            OSError: the file is missing, too short or cannot be read.
        """
        kind = self._layers[layer]
        file = self._file(layer, place.file)
        size = file.seek(0, 2)
        if place.start < 0 or place.length < 1 or (place.start + place.length) * kind.row_bytes > size:
            raise OSError(f"it has {size} bytes, and the database names rows behind them")
        file.seek(place.start * kind.row_bytes)
        return np.frombuffer(file.read(place.length * kind.row_bytes), kind.dtype).reshape(-1, kind.width)

    def are_intact(self, layer: int, entry: int, place: Place) -> bool:
        """Whether the rows of an entry are those that were stored.

        Raises:
            OSError: the file is missing, too short or cannot be read.
        """
        return checksum(self._layers[layer], entry, self.rows(layer, place)) == place.checksum

    def close(self) -> None:
        """Close the files."""
        for _, file in self._open.values():
            file.close()
        self._open = {}

    def _file(self, layer: int, number: int) -> IO[bytes]:
        opened = self._open.get(layer)
        if opened is None or opened[0] != number:
            file = self._blocks.path(self._layers[layer], number).open("rb")
            if opened is not None:
                opened[1].close()
            self._open[layer] = opened = number, file
        return opened[1]


class Survey:
    """The entries of a store.

    Args:
        folder: of the store.
        connection: to its database, or to a readable copy.
        layers: of the store, by name.
        vectors: whether the rows of the files are read too.
    """

    def __init__(
        self, folder: Path, connection: sqlite3.Connection, layers: Mapping[str, Layer], *, vectors: bool = True
    ) -> None:
        connection.text_factory = lambda text: text.decode(errors="surrogateescape")
        self._connection, self._layers, self._vectors = connection, list(layers.values()), vectors
        self._blocks, self._reader = BlockFiles(folder), RowReader(folder, self._layers)
        self.named: set[int] = set()
        """The numbers of the files that the places name."""

    def numbers(self) -> list[int]:
        """The numbers of all entries that any table or index names, the latest first."""
        found: set[int] = set()
        for query in _NUMBERS:
            for order in ("ASC", "DESC"):
                found.update(row[0] for row in self._readable(f"{query} {order}") if type(row[0]) is int)
        return sorted(found, reverse=True)

    def ids(self) -> dict[int, str]:
        """The ids by number that the index of ids holds."""
        rows = (row for order in ("ASC", "DESC") for row in self._readable(f"{_IDS} {order}"))
        return {number: id_ for number, id_ in rows if isinstance(id_, str)}

    def records(self) -> Iterator[Record]:
        """All entries, the latest first."""
        ids: dict[int, str] | None = None
        try:
            for number in self.numbers():
                record = self._record(number)
                if ROW in record.faults:
                    ids = self.ids() if ids is None else ids
                    record.id = ids.get(number, record.id)
                record.name = record.name or record.id or f"entry number {number}"
                yield record
        finally:
            self._reader.close()

    def rows(self, layer: int, place: Place) -> NDArray[Any]:
        """Read the rows of an entry; see `RowReader`."""
        return self._reader.rows(layer, place)

    def _readable(self, query: str) -> Iterator[tuple[Any, ...]]:
        """Rows up to the first that cannot be read."""
        with contextlib.suppress(*READ_ERRORS):
            yield from self._connection.execute(query)

    def _record(self, number: int) -> Record:
        record = Record(number)
        try:
            row = self._connection.execute(f"SELECT {_COLUMNS} FROM entries WHERE number = ?", (number,)).fetchone()
            self._read_row(record, row)
        except READ_ERRORS as error:
            record.faults[ROW] = DATABASE, f"the row of an entry cannot be read ({error})"
        self._read_places(record)
        return record

    def _read_row(self, record: Record, row: tuple[Any, ...] | None) -> None:
        if row is None:
            record.faults[ROW] = DATABASE, "there are vectors of an entry whose row is missing"
            return
        record.row = row
        record.id, record.document = (one if isinstance(one, str) else None for one in row[1:3])
        record.name = _name(row[4])
        if not _is_sound(row):
            record.faults[ROW] = DATABASE, "the row of an entry is damaged"

    def _read_places(self, record: Record) -> None:
        found = record.named
        query = "SELECT layer, file, start, length, checksum FROM places WHERE entry = ?"
        try:
            for layer, *place in self._connection.execute(query, (record.number,)):
                if all(type(one) is int for one in (layer, *place)):
                    found[layer] = Place(*place)
        except READ_ERRORS as error:
            found.clear()
            record.faults[FULL_LAYER] = DATABASE, f"the place of vectors cannot be read ({error})"
        self.named.update(place.file for layer, place in found.items() if layer != WORDS_LAYER)
        for layer in range(len(self._layers)):
            self._read_vectors(record, layer, found.get(layer))
        if record.row is not None and not _has_words(record.row[6], found.get(WORDS_LAYER)):
            record.faults[WORDS_LAYER] = DATABASE, "the words of an entry are damaged"
        elif WORDS_LAYER in found:
            record.places[WORDS_LAYER] = found[WORDS_LAYER]

    def _read_vectors(self, record: Record, layer: int, place: Place | None) -> None:
        if place is None:
            record.faults.setdefault(layer, (DATABASE, "the place of an entry's vectors is missing or damaged"))
            return
        name = self._blocks.path(self._layers[layer], place.file).name
        try:
            if not self._vectors or self._reader.are_intact(layer, record.number, place):
                record.places[layer] = place
            else:
                record.faults[layer] = name, "the vectors of an entry are damaged, or their place"
        except FileNotFoundError:
            record.faults[layer] = name, "the file is missing"
        except OSError as error:
            record.faults[layer] = name, f"the file cannot be read: {error}"


def _is_sound(row: tuple[Any, ...]) -> bool:
    try:
        return row_checksum(row[:6]) == row[7] and isinstance(row[6], bytes | None)
    except (TypeError, ValueError):  # a value of a kind that no entry has
        return False


def _has_words(words: object, place: Place | None) -> bool:
    if place is None or not isinstance(words, bytes):
        return place is None and words is None
    return zlib.crc32(words) == place.checksum and len(words_of(words)) == place.length


def _name(metadata: object) -> str:
    """The name of a page by its metadata, which may be damaged; "" if there is none."""
    with contextlib.suppress(TypeError, ValueError):
        values = parse_json(metadata)  # type: ignore[arg-type]
        if isinstance(values, dict) and isinstance(values.get("source"), str) and isinstance(values.get("page"), int):
            return page_name(values["source"], values["page"])
    return ""
