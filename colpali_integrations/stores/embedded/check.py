"""The check of a store: everything in it against the checksums and numbers that were stored with it."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, Place
from colpali_integrations.stores.embedded.catalogue import WORDS_LAYER, Segment, segments_of
from colpali_integrations.stores.embedded.connections import READ_ERRORS, connect
from colpali_integrations.stores.embedded.layers import layers_of
from colpali_integrations.stores.embedded.lock import LOCK
from colpali_integrations.stores.embedded.manifest import stored_manifest
from colpali_integrations.stores.embedded.reports import Problem, VerifyReport
from colpali_integrations.stores.embedded.rows import words_of
from colpali_integrations.stores.embedded.schema import DATABASE, SCHEMA
from colpali_integrations.stores.embedded.segments import SEGMENTS, is_intact
from colpali_integrations.stores.embedded.survey import ROW, RowReader, Survey
from colpali_integrations.stores.engine import VectorSpec

__all__ = ["Schema", "StoredRows", "check_database", "check_store", "expected_schema", "schema_of"]

Schema = Callable[[Mapping[str, Any]], Mapping[str, VectorSpec]]
"""The vectors of a store by its manifest; it raises StoreError for a damaged one."""

# Rows of words that are compared at a time.
_WORDS = 50_000


def check_store(folder: Path, schema: Schema, mode: str) -> VerifyReport:
    """Check the store in a folder; the caller holds its lock, or opens the database with the mode "ro"."""
    return _check(_Check(folder, vectors=True), folder, schema, mode)


def check_database(folder: Path, schema: Schema, mode: str) -> tuple[VerifyReport, StoredRows]:
    """Check all but the rows of the files, as `check_store` does, and read the places of these rows."""
    check = _Check(folder, vectors=False)
    return _check(check, folder, schema, mode), check.stored


def _check(check: _Check, folder: Path, schema: Schema, mode: str) -> VerifyReport:
    try:
        with contextlib.closing(connect(folder, mode)) as connection:
            connection.execute("BEGIN IMMEDIATE" if mode == "rw" else "BEGIN")
            check.run(connection, schema)
    except (*READ_ERRORS, StoreError) as error:
        check.found(DATABASE, str(error))
    return check.report()


@dataclass(frozen=True)
class StoredRows:
    """The places of all rows in one state of a store, whose database was sound.

    Attributes:
        layers: of the store, in the order of their numbers.
        places: int64 (n_places, 6): layer, entry, file, start, length and checksum, in the order of the files.
        segments: of the index of centroids.
    """

    layers: Sequence[Layer] = ()
    places: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 6), np.int64))
    segments: Sequence[Segment] = ()

    def are_intact(self, folder: Path) -> bool:
        """Whether the files still hold these rows; the caller needs no lock."""
        reader, blocks = RowReader(folder, self.layers), BlockFiles(folder)
        try:
            entries = all(
                reader.are_intact(layer, entry, Place(*place))
                for layer, entry, *place in map(np.ndarray.tolist, self.places)
            )
            return entries and all(is_intact(blocks, segment) for segment in self.segments)
        except (OSError, StoreError):
            return False
        finally:
            reader.close()


class _Check:
    """The problems that a check finds.

    Args:
        folder: of the store.
        vectors: whether the rows of the files are read; otherwise `stored` has their places.
    """

    def __init__(self, folder: Path, *, vectors: bool) -> None:
        self._folder, self._vectors = folder, vectors
        self.stored = StoredRows()
        self._found: dict[tuple[str, str], list[str]] = defaultdict(list)
        self._entries = 0
        self._files: dict[int, tuple[str, int, int]] = {}

    def found(self, file: str, message: str, *ids: str) -> None:
        """Note a problem."""
        self._found[file, message].extend(ids)

    def run(self, connection: sqlite3.Connection, schema: Schema) -> None:
        """Check a store whose database can be opened."""
        for (message,) in connection.execute("PRAGMA integrity_check"):
            if message != "ok":
                self.found(DATABASE, f"SQLite's integrity check: {message}")
        if schema_of(connection) != expected_schema():
            self.found(DATABASE, "the schema is damaged")
        for name, value, expected in connection.execute("SELECT name, value, checksum FROM settings"):
            if zlib.crc32(str(value).encode(errors="surrogateescape")) != expected:
                self.found(DATABASE, f"the setting {name!r} is damaged")
        names = {row[0] for row in connection.execute("SELECT name FROM settings")}
        if names != {"manifest", "manifest again", "layout", "updates"}:
            self.found(DATABASE, "settings are missing, or their names are damaged")
        layers = layers_of(schema(stored_manifest(connection, self._folder) or {}))
        self._check_entries(connection, layers)
        self._check_numbers(connection)
        if not self._vectors and not self._found:
            self.stored = _stored_rows(connection, layers)

    def report(self) -> VerifyReport:
        """The report."""
        problems = [Problem(file, message, tuple(ids)) for (file, message), ids in self._found.items()]
        used = {DATABASE, LOCK, f"{DATABASE}-journal"}
        stored = BlockFiles(self._folder).stored()
        used |= {path.name for number, path in stored.items() if number in self._files}
        leftovers = sorted(path.name for path in self._folder.iterdir() if path.name not in used)
        return VerifyReport(problems=problems, entries=self._entries, files=len(self._files), leftovers=leftovers)

    def _check_entries(self, connection: sqlite3.Connection, layers: Mapping[str, Layer]) -> None:
        survey = Survey(self._folder, connection, layers, vectors=self._vectors)
        live: dict[int, int] = defaultdict(int)
        ends: dict[int, int] = defaultdict(int)
        words: dict[int, int] = {}
        for record in survey.records():
            self._entries += ROW not in record.faults
            for file, message in record.faults.values():
                self.found(file, message, record.id or record.name)
            for layer, place in record.named.items():
                if layer != WORDS_LAYER:
                    live[place.file] += place.length
                    ends[place.file] = max(ends[place.file], place.start + place.length)
            if record.row is not None and WORDS_LAYER in record.places:
                words[record.number] = _digest_of(record.row[6])
        self._check_segments(connection, live, ends)
        self._check_files(connection, {**layers, SEGMENTS.name: SEGMENTS}, live, ends)
        self._check_words(connection, words)

    def _check_segments(self, connection: sqlite3.Connection, live: dict[int, int], ends: dict[int, int]) -> None:
        blocks = BlockFiles(self._folder)
        before = 0
        for segment in segments_of(connection):
            if any(type(one) is not int for one in segment) or not before < segment.first <= segment.last:
                self.found(DATABASE, "a row of the index of centroids is damaged")
                continue
            before = segment.last
            live[segment.file] = ends[segment.file] = segment.length
            with contextlib.suppress(StoreError):  # a missing or short file is found with the other files
                if self._vectors and not is_intact(blocks, segment):
                    self.found(blocks.path(SEGMENTS, segment.file).name, "a segment of the index is damaged")

    def _check_files(
        self,
        connection: sqlite3.Connection,
        layers: Mapping[str, Layer],
        live: Mapping[int, int],
        ends: Mapping[int, int],
    ) -> None:
        blocks = BlockFiles(self._folder)
        for number, name, rows, counted in connection.execute("SELECT number, layer, rows, live FROM files"):
            if name not in layers or not isinstance(rows, int) or not isinstance(counted, int):
                self.found(DATABASE, f"the row of file number {number} is damaged")
                continue
            self._files[number] = name, rows, counted
            path = blocks.path(layers[name], number)
            size = path.stat().st_size if path.exists() else 0
            if size < rows * layers[name].row_bytes:
                self.found(path.name, f"it has {size} bytes, and {rows * layers[name].row_bytes} were stored")
            elif live[number] != counted or ends[number] > rows:
                self.found(DATABASE, f"the numbers of rows of {path.name} do not fit its entries")
        if missing := live.keys() - self._files.keys():
            self.found(DATABASE, f"it does not list the files {', '.join(map(str, sorted(missing)))} of its entries")

    def _check_words(self, connection: sqlite3.Connection, expected: Mapping[int, int]) -> None:
        numbers = np.array(sorted(expected), np.int64)
        digests = np.zeros(len(numbers), np.uint64)
        cursor = connection.execute("SELECT entry, word, value FROM words")
        try:
            while rows := cursor.fetchmany(_WORDS):
                entries, of_word, values = (np.array(column) for column in zip(*rows, strict=True))
                at = np.minimum(np.searchsorted(numbers, entries), max(len(numbers) - 1, 0))
                if not len(numbers) or (numbers[at] != entries).any():
                    self.found(DATABASE, "there are words of entries that are not there")
                    return
                np.add.at(digests, at, _mixed(of_word.astype(np.uint64), values.astype(np.float64)))
        except (TypeError, ValueError, OverflowError):
            self.found(DATABASE, "a row of words is damaged")
            return
        wrong = [
            number
            for number, digest in zip(numbers.tolist(), digests.tolist(), strict=True)
            if digest != expected[number]
        ]
        if wrong:
            query = "SELECT id FROM entries WHERE number IN (SELECT value FROM json_each(?))"
            ids = [row[0] for row in connection.execute(query, (json.dumps(wrong),))]
            self.found(DATABASE, "the table of words differs from the words of entries", *ids)

    def _check_numbers(self, connection: sqlite3.Connection) -> None:
        """The numbers of later rows must not be taken."""
        for table in ("entries", "files"):
            last = connection.execute(f"SELECT max(number) FROM {table}").fetchone()[0]
            found = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
            if last is not None and (found is None or not isinstance(found[0], int) or not last <= found[0] < 2**62):
                self.found(DATABASE, f"the last number of the table {table} is damaged")


def _stored_rows(connection: sqlite3.Connection, layers: Mapping[str, Layer]) -> StoredRows:
    query = (
        "SELECT layer, entry, file, start, length, checksum FROM places WHERE layer != ? ORDER BY layer, file, start"
    )
    row = np.dtype([(name, np.int64) for name in ("layer", "entry", "file", "start", "length", "checksum")])
    places = np.fromiter(connection.execute(query, (WORDS_LAYER,)), row).view(np.int64).reshape(-1, 6)
    return StoredRows(list(layers.values()), places, segments_of(connection))


def _mixed(words: NDArray[np.uint64], values: NDArray[np.float64]) -> NDArray[np.uint64]:
    """A hash per word and value; sums of them do not depend on the order. The constants are those of splitmix64."""
    mixed = words * np.uint64(0x9E3779B97F4A7C15) ^ values.view(np.uint64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    result: NDArray[np.uint64] = mixed ^ (mixed >> np.uint64(31))
    return result


def _digest_of(blob: bytes) -> int:
    words = words_of(blob)
    return int(_mixed(words.indices.astype(np.uint64), words.values.astype(np.float64)).sum(dtype=np.uint64))


def schema_of(connection: sqlite3.Connection) -> set[tuple[Any, ...]]:
    """The tables and indexes of a database."""
    rows = connection.execute("SELECT type, name, tbl_name, sql FROM sqlite_master WHERE name NOT LIKE 'sqlite_stat%'")
    return set(rows)


def expected_schema() -> set[tuple[Any, ...]]:
    """Those that a store has."""
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return schema_of(connection)
