"""The repair of a store: a new database with all entries that are intact."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, Place, Tail, sync_folder
from colpali_integrations.stores.embedded.catalogue import WORDS_LAYER, Segment, segments_of
from colpali_integrations.stores.embedded.check import expected_schema, schema_of
from colpali_integrations.stores.embedded.connections import READ_ERRORS, connect
from colpali_integrations.stores.embedded.database import make_file
from colpali_integrations.stores.embedded.layers import layer_rows
from colpali_integrations.stores.embedded.reports import LostEntry, Problem, RepairReport
from colpali_integrations.stores.embedded.rows import payload_of, words_of
from colpali_integrations.stores.embedded.schema import DATABASE, SCHEMA, fill_settings
from colpali_integrations.stores.embedded.segments import SEGMENTS, is_intact
from colpali_integrations.stores.embedded.survey import FULL_LAYER, ROW, Record, Survey
from colpali_integrations.stores.engine import Payload, Point

__all__ = ["Rebuild", "Repair"]

Rebuild = Callable[[Payload, Float32], Point]
"""The point of an entry, made again from its payload and full vectors (n, dim)."""

# Entries that are written at a time.
_BATCH = 64
# A file of rebuilt rows is not continued beyond this size.
_LARGEST_BYTES = 64 << 20
_PAGE = 4096  # bytes of a page of SQLite; the first one holds a header of 100 bytes and the schema
_NEW, _SALVAGE = "store.db.new", "store.db.salvage"


class Repair:
    """A new database with the intact entries of a damaged one."""

    def __init__(self, folder: Path, layers: Mapping[str, Layer], rebuild: Rebuild) -> None:
        self._folder, self._layers, self._rebuild = folder, layers, rebuild
        self._mode = (folder / DATABASE).stat().st_mode & 0o666
        self._blocks = BlockFiles(folder, self._mode)
        self._following = max([0, *self._blocks.stored()]) + 1
        self._tails: dict[str, Tail] = {}
        self._kept: dict[int, tuple[int, int]] = {}  # layer and living rows by file
        self._last = 0
        self._report = RepairReport()
        self._ids: set[str] = set()

    def run(self, manifest: Mapping[str, Any], problems: list[Problem]) -> RepairReport:
        """Write the new database and put it in the place of the old one."""
        self._report.problems.extend(problems)
        _remove(self._folder, _NEW, _SALVAGE)
        make_file(self._folder / _NEW, self._mode)
        try:
            with (
                contextlib.closing(_salvageable(self._folder, self._mode)) as old,
                contextlib.closing(connect(self._folder, "rw", _NEW)) as new,
            ):
                new.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
                # A time is no number of compactions, so that no process takes its catalogue for the current one.
                fill_settings(new, json.dumps(dict(manifest)), int(self._now()))
                survey = Survey(self._folder, old, self._layers)
                self._copy_entries(survey, new)
                self._write_files(new)
                named = survey.named | self._kept.keys() | self._copy_segments(old, new)
                self._write_numbers(old, new)
                new.execute("COMMIT")
            self._set_aside(named, damaged=any(problem.file == DATABASE for problem in problems))
        finally:
            _remove(self._folder, _NEW, _SALVAGE)
        sync_folder(self._folder)
        return RepairReport(**{**vars(self._report), "kept": len(self._ids)})

    def _now(self) -> float:
        return (self._folder / _NEW).stat().st_mtime

    def _copy_entries(self, survey: Survey, new: sqlite3.Connection) -> None:
        waiting: list[tuple[Record, Point | None]] = []
        for record in survey.records():
            self._last = max(self._last, record.number)
            lost = record.faults.get(ROW) or record.faults.get(FULL_LAYER)
            if lost is None and record.id in self._ids:
                lost = DATABASE, "a later entry has its id"
            if lost is not None:
                self._report.lost.append(LostEntry(record.id, record.name, record.document, ": ".join(lost)))
                continue
            assert record.row is not None
            self._ids.add(str(record.id))
            point = None
            if record.faults:
                full = next(iter(self._layers.values())).vectors(survey.rows(FULL_LAYER, record.places[FULL_LAYER]))
                point = self._rebuild(payload_of(record.row[:6]), full)
                self._report.rebuilt.append(str(record.id))
            waiting.append((record, point))
            if len(waiting) == _BATCH:
                self._store(new, waiting)
                waiting = []
        self._store(new, waiting)

    def _store(self, new: sqlite3.Connection, batch: list[tuple[Record, Point | None]]) -> None:
        rebuilt = [(record, layer_rows(point, self._layers)) for record, point in batch if point is not None]
        for number, name in enumerate(self._layers):
            self._append(number, name, rebuilt)
        for record, point in batch:
            assert record.row is not None
            *columns, words, checksum = record.row
            if point is not None and WORDS_LAYER in record.faults:
                words = None if point.words is None else point.words.indices.tobytes() + point.words.values.tobytes()
                if point.words is not None:
                    record.places[WORDS_LAYER] = Place(0, 0, len(point.words), zlib.crc32(words or b""))
            new.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*columns, words, checksum))
            places = ((record.number, layer, *place) for layer, place in record.places.items())
            new.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?)", places)
            if words is not None:
                pairs = words_of(words)
                rows = zip(pairs.indices.tolist(), pairs.values.tolist(), strict=True)
                new.executemany(
                    "INSERT INTO words VALUES (?, ?, ?)", ((word, record.number, one) for word, one in rows)
                )
            for layer, place in record.places.items():
                if layer != WORDS_LAYER:
                    self._kept[place.file] = layer, self._kept.get(place.file, (layer, 0))[1] + place.length

    def _append(self, number: int, name: str, rebuilt: Iterable[tuple[Record, Mapping[str, NDArray[Any]]]]) -> None:
        """Write the rebuilt rows of a layer."""
        damaged = [(record, rows) for record, rows in rebuilt if number in record.faults and name in rows]
        if not damaged:
            return
        layer = self._layers[name]
        arrays = {record.number: rows[name] for record, rows in damaged}
        places = self._blocks.append(layer, arrays, self._tails.get(name), self._following, _LARGEST_BYTES)
        last = list(places.values())[-1]
        self._tails[name] = Tail(last.file, last.start + last.length)
        self._following = max(self._following, last.file + 1)
        for record, _ in damaged:
            record.places[number] = places[record.number]

    def _write_files(self, new: sqlite3.Connection) -> None:
        names = list(self._layers)
        for number, (layer, live) in self._kept.items():
            kind = self._layers[names[layer]]
            rows = self._blocks.path(kind, number).stat().st_size // kind.row_bytes
            new.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (number, names[layer], rows, live))

    def _copy_segments(self, old: sqlite3.Connection, new: sqlite3.Connection) -> set[int]:
        """Keep the segments of the index up to the first damaged one; the others are made again from the vectors.

        Returns:
            The files of all segments.
        """
        segments: list[Segment] = []
        with contextlib.suppress(*READ_ERRORS):
            segments = segments_of(old)
        before = 0
        for segment in segments:
            # Entries of an earlier segment would be estimated twice, and entries between two not at all.
            if any(type(one) is not int for one in segment) or not before < segment.first <= segment.last:
                break
            before = segment.last
            with contextlib.suppress(StoreError):
                if is_intact(self._blocks, segment):
                    new.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", segment)
                    row = (segment.file, SEGMENTS.name, segment.length, segment.length)
                    new.execute("INSERT INTO files VALUES (?, ?, ?, ?)", row)
                    continue
            break
        return {segment.file for segment in segments if type(segment.file) is int}

    def _write_numbers(self, old: sqlite3.Connection, new: sqlite3.Connection) -> None:
        """Continue the numbers of entries and files, so that none returns."""
        last = {"entries": self._last, "files": max(self._following - 1, 0)}
        with contextlib.suppress(*READ_ERRORS):
            for name, number in old.execute("SELECT name, seq FROM sqlite_sequence"):
                if name in last and isinstance(number, int) and number < 2**62:
                    last[name] = max(last[name], number)
        new.execute("DELETE FROM sqlite_sequence")
        new.executemany("INSERT INTO sqlite_sequence VALUES (?, ?)", last.items())

    def _set_aside(self, named: set[int], *, damaged: bool) -> None:
        """Put the new database in its place; keep a damaged one, and files that it may not have named any more."""
        if damaged:
            self._keep(DATABASE)
            for number, path in self._blocks.stored().items():
                if number not in named:
                    path.rename(path.with_name(f"{path.name}.unknown"))
                    self._report.set_aside.append(f"{path.name}.unknown")
        # The journal of the damaged database must not be applied to the new one.
        (self._folder / f"{DATABASE}-journal").unlink(missing_ok=True)
        (self._folder / _NEW).replace(self._folder / DATABASE)

    def _keep(self, name: str) -> None:
        number = 1
        while (copy := self._folder / f"{name}.damaged-{number}").exists():
            number += 1
        try:
            os.link(self._folder / name, copy)
        except OSError:  # a file system without links
            shutil.copyfile(self._folder / name, copy)
        self._report.set_aside.append(copy.name)


def _salvageable(folder: Path, mode: int) -> sqlite3.Connection:
    """A connection to the damaged database, or to a copy whose first page, with the schema, was made anew."""
    with contextlib.suppress(*READ_ERRORS):
        connection = connect(folder, "ro")
        with contextlib.suppress(*READ_ERRORS):
            if schema_of(connection) == expected_schema():
                return connection
        connection.close()
    make_file(folder / _SALVAGE, mode)
    data = bytearray((folder / DATABASE).read_bytes())
    page, size = max(_new_databases(), key=lambda one: sum(map(int.__eq__, one[0][100:], data[100:_PAGE])))
    data[:_PAGE] = page
    data += bytes(max(0, size - len(data)))  # of a file that was cut off: SQLite refuses tables beyond its end
    data[28:40] = (len(data) // _PAGE).to_bytes(4, "big") + bytes(8)  # pages, and no free ones
    (folder / _SALVAGE).write_bytes(data)
    return connect(folder, "ro", _SALVAGE)


def _new_databases() -> Iterator[tuple[bytes, int]]:
    """First page and size of a new database, and of one whose space was given back: its tables begin elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / DATABASE
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"PRAGMA page_size = {_PAGE}; {SCHEMA}")
            yield path.read_bytes()[:_PAGE], path.stat().st_size
            connection.execute("VACUUM")
            yield path.read_bytes()[:_PAGE], path.stat().st_size


def _remove(folder: Path, *names: str) -> None:
    for name in names:
        for ending in ("", "-journal"):
            (folder / f"{name}{ending}").unlink(missing_ok=True)
