"""`FolderEngine`: points in a folder, in a SQLite database and mapped files of vectors."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._text import parse_json
from colpali_integrations.errors import ColPaliError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.int8 import quantize_int8
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, MissingFile, Place, Tail, checksum
from colpali_integrations.stores.embedded.catalogue import WORDS_LAYER, Catalogue, Places, counter
from colpali_integrations.stores.embedded.coarse import SCALE_BYTES
from colpali_integrations.stores.embedded.conditions import to_sql
from colpali_integrations.stores.embedded.database import Database
from colpali_integrations.stores.embedded.scan import (
    Matcher,
    Ranking,
    as_rows,
    best_entries,
    binary_matcher,
    bm25_of,
    int8_matcher,
    ranked,
    vectors_matcher,
)
from colpali_integrations.stores.embedded.segments import SegmentIndex, Sizes
from colpali_integrations.stores.engine import (
    FULL,
    OnOptimized,
    Payload,
    Point,
    Scored,
    Search,
    VectorSpec,
    in_order,
    pieces,
    strings,
)
from colpali_integrations.stores.filters import Filter, matches
from colpali_integrations.stores.limits import MAX_BYTES
from colpali_integrations.stores.scrolling import documents_by_scrolling

__all__ = ["FolderEngine", "layer_rows", "layers_of", "payload_of", "row_checksum", "words_of"]

# A block file is an eighth of the store, within these bounds: compaction copies whole files.
_SMALLEST_BYTES, _LARGEST_BYTES = 1 << 20, 64 << 20
# Rows of removed points may take this share of the others' bytes.
_MOST_DEAD = 0.5
_SEGMENT_SIZES = Sizes()
# Smaller copies that are rows of a `VectorCode`, and its bits.
_CODED_COPIES = {"int4": 4, "int2": 2}
# Bytes of an entry's text and grid as JSON, which escapes a character of a byte as six.
_MOST_TEXT = 6 * MAX_BYTES
# Reads are repeated when a writer removes an entry or a file, or changes payloads, between two steps of one.
_TRIES = 10

Method = TypeVar("Method", bound=Callable[..., Any])


def _reads(method: Method) -> Method:
    """Raise a StoreError where a damaged database returns values of another kind."""

    @wraps(method)
    def read(self: FolderEngine, *arguments: Any, **options: Any) -> Any:
        try:
            return method(self, *arguments, **options)
        except ColPaliError:
            raise
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            raise StoreError(
                f"{self.where} cannot be read ({type(error).__name__}: {error}); verify it, and repair it if it "
                "is damaged"
            ) from error

    return cast("Method", read)


class FolderEngine:
    """Points in a folder.

    When `upsert`, `update` and `delete` return, their changes are flushed to disk. Any number of processes may read;
    one writes at a time, the others wait.

    Args:
        folder: opened if it holds a store, otherwise created.
        schema: the points' vectors.
        manifest: stored in a new folder; an existing folder has its own.
        read_only: neither create nor change anything.
        smallest_bytes: a shorter block file is always continued, and so many bytes of removed points may stay.
        segment_sizes: of the index of centroids.
        file_mode: permissions of the files of a new store.
        packed: compress the texts and grids of new entries, which takes two thirds of their bytes.

    Raises:
        StoreError: it cannot be read or written, or its database is missing or damaged.
    """

    max_numbers: int | None = None
    has_own_codes = False
    refuses_exact: str | None = None
    indexes: Mapping[str, str] = MappingProxyType({})
    batches_at_once = 1

    def __init__(
        self,
        folder: Path,
        *,
        schema: Mapping[str, VectorSpec],
        manifest: Mapping[str, Any],
        read_only: bool = False,
        smallest_bytes: int = _SMALLEST_BYTES,
        segment_sizes: Sizes = _SEGMENT_SIZES,
        file_mode: int = 0o600,
        packed: bool = False,
    ) -> None:
        self._smallest_bytes, self._packed = smallest_bytes, packed
        self._schema = schema
        self._layers = layers_of(schema)
        self._database = Database(folder, manifest, read_only=read_only, file_mode=file_mode)
        self.folder, self.read_only = self._database.folder, read_only
        self._files = BlockFiles(self.folder, self._database.file_mode)
        clustered = [name for name, spec in schema.items() if spec.quantization == "centroids"]
        self._segments = {
            name: SegmentIndex(self._files, self._layers[name], list(self._layers).index(name), segment_sizes)
            for name in clustered
        }
        self._catalogue = Catalogue()
        self._to_sweep = True  # a process that was killed may have left files

    @property
    def where(self) -> str:
        """The folder."""
        return f"the store {self.folder}"

    @property
    def manifest(self) -> Mapping[str, Any]:
        """See `Engine`."""
        return self._database.manifest

    @property
    def refuses_changes(self) -> str | None:
        """The message about a change of a folder that was opened with `read_only`."""
        return self._database.refuses_changes

    # -- changing ------------------------------------------------------------------------------------------------------

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest by what a function makes of it; a store that is opened read-only takes no other."""
        return self._database.change_manifest(change)

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        points = list({point.id: point for point in points}.values())
        if not points:
            return
        with self._database.writing(self._sweep) as connection:
            first = _next_number(connection, "entries")
            numbered = dict(enumerate(points, first))
            places = self._append(connection, numbered)
            self._remove(connection, [point.id for point in points])
            for number, point in numbered.items():
                self._insert(connection, number, point, places[number])
            self._compact(connection, _MOST_DEAD)
        self._grow()

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        if not payloads:
            return
        with self._database.writing(self._sweep) as connection:
            query = "SELECT number, id, content, rest FROM entries"
            for number, id_, content, rest in _of_ids(connection, query, payloads.keys()):
                # The words belong to the text.
                stored = content, _parsed(rest, id_).get("text")
                if stored == (payloads[id_].get("content_hash"), payloads[id_].get("text")):
                    columns = self._columns(number, id_, payloads[id_])
                    connection.execute(
                        "UPDATE entries SET document = ?, content = ?, metadata = ?, rest = ?, checksum = ? "
                        "WHERE number = ?",
                        (*columns[2:], row_checksum(columns), number),
                    )
            _count(connection, "updates")

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        if ids:
            with self._database.writing(self._sweep) as connection:
                self._remove(connection, ids)
                self._compact(connection, _MOST_DEAD)

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Release the space of all removed points."""
        with self._database.writing(self._sweep) as connection:
            self._compact(connection, 0.0)
        self._grow(least=1)
        self._database.vacuum()

    def is_replaced(self) -> bool:
        """Whether another process has removed, renamed or replaced the store since it was opened."""
        return self._database.is_replaced()

    def reopen(self) -> None:
        """Open the folder anew, after a repair."""
        self.close()
        self._database = Database(self.folder, self.manifest, read_only=self.read_only)

    def close(self) -> None:
        """Close the database and forget the mapped files."""
        self._database.close()
        self._files.close()
        for index in self._segments.values():
            index.close()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    @_reads
    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        with self._database.reading() as connection:
            rows = _of_ids(connection, f"SELECT {_ROW} FROM entries", ids)
        found = {row[1]: self._payload(row) for row in rows}
        return in_order(ids, found)

    @_reads
    def versions(self) -> dict[int, tuple[str, int, int | None]]:
        """By number of every entry: its id and the checksums of its row and of its vectors.

        A number never returns in a store, and its vectors never change; another store may have the same numbers.
        """
        query = (
            "SELECT number, id, entries.checksum, places.checksum FROM entries LEFT JOIN places ON entry = number "
            f"AND layer = {list(self._layers).index(FULL)} ORDER BY number"
        )
        with self._database.reading() as connection:
            rows = connection.execute(query).fetchall()
        return {number: tuple(version) for number, *version in rows}

    @_reads
    def fixed_bytes(self) -> int:
        """Bytes of the files without the vectors by which pages are scored, and without what removed points left."""
        with self._database.reading() as connection:
            live = dict(_live_rows(connection))
            of_layers = sum(live.get(name, 0) * one.row_bytes for name, one in self._layers.items() if name != FULL)
            of_segments = sum(index.used_bytes(connection) for index in self._segments.values())
        return self._database.used_bytes() + of_layers + of_segments

    @_reads
    def packing_gain(self, ids: Sequence[str]) -> float:
        """Bytes per point that `packed` would save, by the mean of some points."""
        with self._database.reading() as connection:
            rows = _of_ids(connection, "SELECT rest FROM entries", ids)
        texts = [row[0].encode() for row in rows if isinstance(row[0], str)]
        return sum(len(text) - len(_packed(text)) for text in texts) / max(1, len(rows))

    @_reads
    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        if name not in self._layers:
            return [None] * len(ids)
        query = (
            "SELECT id, number, file, start, length, places.checksum FROM entries JOIN places ON entry = number "
            f"AND layer = {list(self._layers).index(name)}"
        )
        for state in self._tries():
            with contextlib.suppress(MissingFile), state:
                with self._database.reading() as connection:
                    rows = _of_ids(connection, query, ids)
                found = {id_: self._checked(name, id_, entry, Place(*place)) for id_, entry, *place in rows}
                return in_order(ids, found)
        raise AssertionError("unreachable")

    @_reads
    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order in which they were stored."""
        columns = _ROW if fields is None or {*fields} - _HEAD_FIELDS else _HEAD
        with self._database.reading() as connection:
            rows = list(islice(_fitting(connection, where, columns, after or 0), limit + 1))
        batch = [self._payload(row, fields) for row in rows[:limit]]
        return batch, rows[limit - 1][0] if len(rows) > limit else None

    @_reads
    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        clause = to_sql(where)
        with self._database.reading() as connection:
            if clause.exact:
                query = f"SELECT count(*) FROM entries WHERE {clause.sql}"
                return int(connection.execute(query, clause.parameters).fetchone()[0])
            return sum(1 for _ in _fitting(connection, where, _HEAD))

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that."""
        return self.count() > number

    @_reads
    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each."""
        clause = to_sql(where)
        if not clause.exact:
            return documents_by_scrolling(self, where)
        query = (
            f"SELECT document, count(*) FROM entries WHERE document IS NOT NULL AND ({clause.sql}) GROUP BY document"
        )
        with self._database.reading() as connection:
            return dict(connection.execute(query, clause.parameters).fetchall())

    @_reads
    def has_words(self) -> bool:
        """Whether any point has words."""
        with self._database.reading() as connection:
            return bool(connection.execute("SELECT EXISTS (SELECT 1 FROM words)").fetchone()[0])

    @_reads
    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches over one state of the store."""
        for state in self._tries():
            with contextlib.suppress(MissingFile, _Changed), state:
                return self._answers(searches)
        raise AssertionError("unreachable")

    # ----------------------------------------------------------------------------------------------------------------

    def _tries(self) -> Iterator[contextlib.AbstractContextManager[object]]:
        """Contexts to read in, until it succeeds: a writer may change the store between two steps of a read.

        The last one is a transaction, for which writers wait. If that does not help, the store is damaged.
        """
        for _ in range(_TRIES):
            yield contextlib.nullcontext()
        yield self._database.reading()
        with self._database.reading() as connection:
            named = {row[0]: row[1] for row in connection.execute("SELECT number, layer FROM files")}
        missing = [str(number) for number in named.keys() - self._files.stored().keys()]
        raise StoreError(
            f"{self.where} is damaged: it lacks the block files {', '.join(missing) or 'that its database names'}; "
            "repair it, or restore it from a backup"
        )

    def _answers(self, searches: Sequence[Search]) -> list[list[Scored]]:
        with self._database.reading() as connection:
            catalogue = self._catalogue.refreshed(connection, len(self._layers))
            if catalogue is not self._catalogue:
                self._files.forget_others(catalogue.files)
            self._catalogue = catalogue
            # The searches of a batch share one filter, which may have to read every entry's metadata.
            fitting = {id(None): np.arange(len(catalogue))}
            for where in (search.where for search in searches):
                if id(where) not in fitting:
                    fitting[id(where)] = catalogue.positions(_numbers(_fitting(connection, where, _HEAD)))
            chosen = {
                number: self._chosen(connection, catalogue, search, fitting) for number, search in enumerate(searches)
            }
            found: dict[int, Ranking] = {}
            for number, search in enumerate(searches):
                if isinstance(search.query, SparseVector):
                    among = None if search.ids is None else chosen[number]
                    scores = bm25_of(connection, catalogue, search.query, among)[chosen[number]]
                    found[number] = ranked(chosen[number][scores > 0], scores[scores > 0], search.limit)
        by_vectors = {number: search for number, search in enumerate(searches) if number not in found}
        found |= self._ranked(catalogue, by_vectors, chosen)
        rankings = [(catalogue.numbers[found[n][0]], found[n][1]) for n in sorted(found)]
        return self._with_payloads(searches, rankings, catalogue.updates)

    def _ranked(
        self, catalogue: Catalogue, searches: Mapping[int, Search], chosen: Mapping[int, NDArray[np.int64]]
    ) -> dict[int, Ranking]:
        """The best entries of each search among those at its `chosen` positions."""
        scans = {number: search.prefetch for number, search in searches.items() if search.prefetch is not None}
        candidates = dict(chosen)
        if scans:
            candidates |= {number: found for number, (found, _) in self._ranked(catalogue, scans, chosen).items()}
        candidates |= self._candidates(catalogue, searches, candidates)
        rankings: dict[int, Ranking] = {}
        for group in self._together(searches, candidates):
            using, positions = searches[group[0]].using, candidates[group[0]]
            layer, places = self._places(catalogue, using)
            match = vectors_matcher(self._files, layer, places)
            asked = [searches[number] for number in group]
            found = best_entries(asked, match, positions[places.lengths[positions] > 0])
            rankings.update(zip(group, found, strict=True))
        return rankings

    def _together(
        self, searches: Mapping[int, Search], positions: Mapping[int, NDArray[np.int64]]
    ) -> Iterable[list[int]]:
        """Numbers of searches that go over the vectors together: they compare the same vectors of the same entries.

        Questions of one vector go alone: a product with one row ends in other last bits than one with many rows, and a
        batch gives exactly the scores of its searches.

        Args:
            searches: by number.
            positions: of the entries to choose from, by number; the same entries are the same array.
        """
        groups: dict[tuple[str, int, int | None], list[int]] = defaultdict(list)
        for number, search in searches.items():
            alone = number if self._schema[search.using].multi and len(search.query) == 1 else None
            groups[search.using, id(positions[number]), alone].append(number)
        return groups.values()

    def _candidates(
        self, catalogue: Catalogue, searches: Mapping[int, Search], positions: Mapping[int, NDArray[np.int64]]
    ) -> dict[int, NDArray[np.int64]]:
        """The entries that a scan of smaller copies, or the index of centroids, passes on to exact scores.

        Returns:
            For some of the searches, some of their `positions`.
        """
        short = {
            number: replace(search, limit=int(np.ceil(search.oversampling * search.limit)))
            for number, search in searches.items()
            if search.oversampling is not None
        }
        chosen: dict[int, NDArray[np.int64]] = {}
        for group in self._together(short, positions):
            using, entries = short[group[0]].using, positions[group[0]]
            having = entries[self._places(catalogue, using)[1].lengths[entries] > 0]
            asked = {number: short[number] for number in group if short[number].limit < len(having)}
            if using in self._segments:
                index = self._segments[using]
                for number, search in asked.items():
                    chosen[number] = index.candidates(as_rows(search), catalogue, having, search.limit)
            elif (match := self._copies(catalogue, using)) is not None:
                found = best_entries(list(asked.values()), match, having)
                chosen.update((number, ranking[0]) for number, ranking in zip(asked, found, strict=True))
        return chosen

    def _copies(self, catalogue: Catalogue, using: str) -> Matcher | None:
        """Matches of the smaller copies of a vector; None where there are none."""
        copies = self._schema[using].quantization
        if copies == "int8":
            values, scales = (self._places(catalogue, f"{using}-{kind}") for kind in ("int8", "scales"))
            return int8_matcher(self._files, *values, *scales)
        if copies in _CODED_COPIES:
            return vectors_matcher(self._files, *self._places(catalogue, f"{using}-{copies}"))
        if copies == "binary":
            return binary_matcher(self._files, *self._places(catalogue, f"{using}-binary"))
        return None

    def _places(self, catalogue: Catalogue, name: str) -> tuple[Layer, Places]:
        return self._layers[name], catalogue.layers[list(self._layers).index(name)]

    def _chosen(
        self,
        connection: sqlite3.Connection,
        catalogue: Catalogue,
        search: Search,
        fitting: Mapping[int, NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """The positions that a search is restricted to; `fitting` has those that fit a filter, by its `id()`."""
        positions = fitting[id(search.where)]
        if search.ids is None:
            return positions
        rows = _of_ids(connection, "SELECT number FROM entries", search.ids)
        return np.intersect1d(positions, catalogue.positions(_numbers(iter(rows))))

    def _with_payloads(
        self, searches: Sequence[Search], results: Sequence[tuple[NDArray[np.int64], NDArray[np.float64]]], updates: int
    ) -> list[list[Scored]]:
        """The results with ids and payloads, which are those of the state with this number of updates."""
        short = all(search.scores_only for search in searches)
        columns = "number, id" if short else _ROW
        wanted = json.dumps(sorted({int(number) for numbers, _ in results for number in numbers}))
        with self._database.reading() as connection:
            rows = connection.execute(f"SELECT {columns} FROM entries WHERE number IN {_LIST}", [wanted]).fetchall()
            if not short and counter(connection, "updates") != updates:
                raise _Changed
        found = {row[0]: (row[1], {} if short else self._payload(row)) for row in rows}
        answers = []
        for search, (numbers, scores) in zip(searches, results, strict=True):
            if any(int(number) not in found for number in numbers):
                raise _Changed
            pairs = [(*found[int(number)], float(score)) for number, score in zip(numbers, scores, strict=True)]
            answers.append([Scored(id_, score, {} if search.scores_only else dict(one)) for id_, one, score in pairs])
        return answers

    def _payload(self, row: Sequence[Any], fields: Collection[str] | None = None) -> Payload:
        """The payload of a row of `_ROW`, after a check of its checksum, or of `_HEAD`."""
        if len(row) == _ROW_LENGTH:
            *row, expected = row
            if row_checksum(row) != expected:
                raise StoreError(f"{self.where}: the entry {row[1]!r} is damaged; repair the store, or index it anew")
        return payload_of(row, fields)

    def _checked(self, name: str, id_: str, number: int, place: Place) -> Float32:
        rows = self._rows(self._layers[name], place)
        if checksum(self._layers[name], number, rows) != place.checksum:
            raise StoreError(f"{self.where}: the vectors of {id_!r} are damaged; repair the store, or index it anew")
        vectors = self._layers[name].vectors(rows)
        return vectors if self._schema[name].multi else vectors[0]

    def _rows(self, layer: Layer, place: Place) -> NDArray[Any]:
        end = place.start + place.length
        return self._files.rows(layer, place.file, end)[place.start : end]

    def _append(self, connection: sqlite3.Connection, points: Mapping[int, Point]) -> dict[int, dict[int, Place]]:
        """Write the vectors of points to the block files; the places by number of the entry and of the layer."""
        places: dict[int, dict[int, Place]] = {entry: {} for entry in points}
        rows = {entry: layer_rows(point, self._layers) for entry, point in points.items()}
        for number, name in enumerate(self._layers):
            arrays = {entry: by_layer[name] for entry, by_layer in rows.items() if name in by_layer}
            for entry, place in self._written(connection, name, arrays).items():
                places[entry][number] = place
        return places

    def _written(
        self,
        connection: sqlite3.Connection,
        name: str,
        arrays: Mapping[int, NDArray[Any]],
        avoiding: Collection[int] = (),
    ) -> dict[int, Place]:
        """Append rows to the last file of a layer, or to a new one."""
        if not arrays:
            return {}
        row = connection.execute(
            "SELECT number, rows FROM files WHERE layer = ? ORDER BY number DESC LIMIT 1", (name,)
        ).fetchone()
        tail = None if row is None or row[0] in avoiding else Tail(*row)
        living = _live_rows(connection)
        size = sum(rows * self._layers[layer].row_bytes for layer, rows in living if layer in self._layers)
        largest = min(_LARGEST_BYTES, max(self._smallest_bytes, size // 8))
        following = _next_number(connection, "files")
        places = self._files.append(self._layers[name], arrays, tail, following, largest)
        rows = sum(place.length for place in places.values())
        connection.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?) ON CONFLICT (number) DO UPDATE "
            "SET rows = rows + excluded.rows, live = live + excluded.live",
            (next(iter(places.values())).file, name, rows, rows),
        )
        return places

    def _insert(self, connection: sqlite3.Connection, number: int, point: Point, places: Mapping[int, Place]) -> None:
        columns = self._columns(number, point.id, point.payload)
        rows = [(number, layer, *place) for layer, place in places.items()]
        words = None
        if point.words is not None:
            words = point.words.indices.tobytes() + point.words.values.tobytes()
            rows.append((number, WORDS_LAYER, 0, 0, len(point.words), zlib.crc32(words)))
            pairs = zip(point.words.indices.tolist(), point.words.values.tolist(), strict=True)
            of_words = ((word, number, value) for word, value in pairs)
            connection.executemany("INSERT INTO words VALUES (?, ?, ?)", of_words)
        row = (*columns, words, row_checksum(columns))
        connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)
        connection.executemany("INSERT INTO places VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _columns(self, number: int, id_: str, payload: Mapping[str, Any]) -> list[Any]:
        """The columns of an entry's row that its checksum covers."""
        rest = dict(payload)
        columns = [number, id_, rest.pop("document_id", None), rest.pop("content_hash", None)]
        metadata, text = json.dumps(rest.pop("metadata", {})), json.dumps(rest)
        return [*columns, metadata, _packed(text.encode()) if self._packed else text]

    def _remove(self, connection: sqlite3.Connection, ids: Collection[str]) -> None:
        rows = _of_ids(connection, "SELECT number, words FROM entries", ids)
        for number, words in rows:
            if words is not None:
                pairs = ((word, number) for word in words_of(words).indices.tolist())
                connection.executemany("DELETE FROM words WHERE word = ? AND entry = ?", pairs)
        numbers = json.dumps([row[0] for row in rows])
        freed = connection.execute(
            f"SELECT sum(length), file FROM places WHERE entry IN {_LIST} AND file > 0 GROUP BY file", [numbers]
        ).fetchall()
        connection.executemany("UPDATE files SET live = live - ? WHERE number = ?", freed)
        connection.execute(f"DELETE FROM places WHERE entry IN {_LIST}", [numbers])
        connection.execute(f"DELETE FROM entries WHERE number IN {_LIST}", [numbers])

    def _grow(self, least: int | None = None) -> None:
        """Bring the index of centroids up to date, a segment at a time; the points are stored already."""
        for index in self._segments.values():
            is_due = True
            while is_due:
                is_due = self._grown(index, least)

    def _grown(self, index: SegmentIndex, least: int | None) -> bool:
        """Make the next change of an index; False if none is due."""
        for _ in self._tries():
            with self._database.reading() as connection:
                plan = index.plan(connection, least)
            if plan is None:
                return False
            with contextlib.suppress(MissingFile):
                data = index.make(plan)
                self._to_sweep = True
                with self._database.writing(self._sweep) as connection:
                    index.store(connection, plan, data, _next_number(connection, "files"))
                return True
        raise AssertionError("unreachable")

    def _compact(self, connection: sqlite3.Connection, most_dead: float) -> None:
        """Give up files without living rows; copy the living rows of others while too many rows are dead.

        Args:
            connection: of the transaction.
            most_dead: bytes of dead rows that may stay, as a share of the bytes of living ones.
        """
        self._to_sweep |= connection.execute(_DELETE_EMPTY).rowcount > 0
        files = [
            (number, layer, (rows - live) * self._layers[layer].row_bytes, live * self._layers[layer].row_bytes)
            for number, layer, rows, live in connection.execute("SELECT number, layer, rows, live FROM files")
            if layer in self._layers
        ]
        dead, living = (sum(one[column] for one in files) for column in (2, 3))
        if dead <= max(most_dead * living, self._smallest_bytes if most_dead else 0):
            return
        for number, layer, of_file, _ in sorted(files, key=lambda one: -one[2] / (one[2] + one[3])):
            if dead <= most_dead / 2 * living or not of_file:
                break
            self._move(connection, number, layer)
            dead -= of_file
        connection.execute(_DELETE_EMPTY)
        _count(connection, "layout")
        self._to_sweep = True

    def _move(self, connection: sqlite3.Connection, number: int, name: str) -> None:
        """Copy the living rows of a file to the end of its layer."""
        layer = list(self._layers).index(name)
        query = "SELECT entry, file, start, length, checksum FROM places WHERE layer = ? AND file = ? ORDER BY start"
        rows = connection.execute(query, (layer, number)).fetchall()
        arrays = {entry: self._rows(self._layers[name], Place(*place)) for entry, *place in rows}
        places = self._written(connection, name, arrays, avoiding=(number,))
        # The checksums stay those of the first writing, so that damaged rows remain recognisable.
        connection.executemany(
            "UPDATE places SET file = ?, start = ? WHERE entry = ? AND layer = ?",
            ((place.file, place.start, entry, layer) for entry, place in places.items()),
        )
        connection.execute("UPDATE files SET live = 0 WHERE number = ?", (number,))

    def _sweep(self, connection: sqlite3.Connection) -> None:
        """Remove the files that no transaction names any more, or that a killed process left."""
        if self._to_sweep:
            self._files.keep_only(row[0] for row in connection.execute("SELECT number FROM files"))
            self._to_sweep = False


class _Changed(Exception):
    """A writer removed an entry, or changed payloads, between the search and the reading of the payloads."""


_HEAD = "number, id, document, content, metadata"
_HEAD_FIELDS = {"id", "document_id", "content_hash", "metadata"}
_ROW, _ROW_LENGTH = f"{_HEAD}, rest, checksum", 7
# The counter alone does not decide: it may be damaged.
_DELETE_EMPTY = "DELETE FROM files WHERE live = 0 AND number NOT IN (SELECT file FROM places)"
_LIST = "(SELECT value FROM json_each(?))"


def _of_ids(connection: sqlite3.Connection, query: str, ids: Collection[object]) -> list[tuple[Any, ...]]:
    """Rows of the entries with these ids; `query` has no WHERE yet."""
    # Not as JSON in one parameter: SQLite's JSON ends a text at a NUL. Versions before 3.32 take 999 parameters.
    storable = [id_ for id_ in strings(ids) if not any("\ud800" <= one <= "\udfff" for one in id_)]
    return [
        row
        for some in pieces(storable, 900)
        for row in connection.execute(f"{query} WHERE id IN ({', '.join('?' * len(some))})", some)
    ]


def layers_of(schema: Mapping[str, VectorSpec]) -> dict[str, Layer]:
    """The layers of a store by name, in the order of their numbers."""
    layers = {}
    for name, spec in schema.items():
        if spec.code is not None:
            layers[name] = Layer(name, np.uint8, spec.code.width, code=spec.code)
        elif spec.coarse:
            layers[name] = Layer(name, np.int8, spec.dim + SCALE_BYTES, coarse=True)
        else:
            layers[name] = Layer(name, np.float16 if spec.multi else np.float32, spec.dim)
        if spec.quantization == "int8":
            layers[f"{name}-int8"] = Layer(f"{name}-int8", np.int8, spec.dim)
            layers[f"{name}-scales"] = Layer(f"{name}-scales", np.float32, spec.dim + 1)
        elif spec.quantization in _CODED_COPIES:
            code = VectorCode(spec.dim, _CODED_COPIES[spec.quantization])
            copies = f"{name}-{spec.quantization}"
            layers[copies] = Layer(copies, np.uint8, code.width, code=code)
        elif spec.quantization == "binary":
            layers[f"{name}-binary"] = Layer(f"{name}-binary", np.uint8, (spec.dim + 7) // 8)
    return layers  # "centroids" has no rows


def layer_rows(point: Point, layers: Mapping[str, Layer]) -> dict[str, NDArray[Any]]:
    """The rows (n, width) of a point by layer; `layers` are all layers of the store by name."""
    rows: dict[str, NDArray[Any]] = {}
    for name, vectors in point.vectors.items():
        rows[name] = layers[name].rows_of(np.atleast_2d(vectors))
        if f"{name}-int8" in layers:
            copies = quantize_int8([vectors])
            rows[f"{name}-int8"] = copies.values
            rows[f"{name}-scales"] = np.concatenate([copies.scales[:, None], copies.centres], axis=1)
        for coded in (one for one in _CODED_COPIES if f"{name}-{one}" in layers):
            rows[f"{name}-{coded}"] = layers[f"{name}-{coded}"].rows_of(vectors)
        if f"{name}-binary" in layers:
            rows[f"{name}-binary"] = np.packbits(vectors > 0, axis=1)
    return rows


def _count(connection: sqlite3.Connection, name: str) -> None:
    """Add 1 to a number in the settings."""
    value = str(counter(connection, name) + 1)
    row = (value, zlib.crc32(value.encode()), name)
    connection.execute("UPDATE settings SET value = ?, checksum = ? WHERE name = ?", row)


def _numbers(rows: Iterator[tuple[Any, ...]]) -> NDArray[np.int64]:
    return np.fromiter((row[0] for row in rows), np.int64)


def _next_number(connection: sqlite3.Connection, table: str) -> int:
    """The number of the next row; numbers of removed rows do not return."""
    # Also above the rows that are there: the file of a number that is taken would be overwritten.
    last = "ifnull((SELECT seq FROM sqlite_sequence WHERE name = ?), 0)"
    query = f"SELECT max({last}, ifnull(max(number), 0)) + 1 FROM {table}"
    return int(connection.execute(query, (table,)).fetchone()[0])


def _live_rows(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    return connection.execute("SELECT layer, sum(live) FROM files GROUP BY layer").fetchall()


def words_of(blob: bytes) -> SparseVector:
    """The words of an entry as its row holds them."""
    half = len(blob) // 2
    return SparseVector(np.frombuffer(blob[:half], np.uint32), np.frombuffer(blob[half:], np.float32))


def row_checksum(columns: Sequence[Any]) -> int:
    """CRC-32 of an entry's columns: number, id, document, content, metadata and rest."""
    return zlib.crc32(json.dumps(list(columns), default=repr).encode())  # a damaged row may hold bytes


def payload_of(row: Sequence[Any], fields: Collection[str] | None = None) -> Payload:
    """The payload in an entry's columns: number, id, document, content, metadata and, unless it is left out, rest."""
    _, id_, document, content, metadata, *rest = row
    payload: Payload = {"id": id_, "document_id": document, "content_hash": content}
    if fields is None or "metadata" in fields:
        payload["metadata"] = _parsed(metadata, id_) or None
    payload = {key: value for key, value in payload.items() if value is not None}
    if rest:
        payload.update(_parsed(rest[0], id_))
    return payload if fields is None else {key: value for key, value in payload.items() if key in {*fields, "id"}}


def _parsed(text: str | bytes, id_: str) -> Any:
    try:
        return parse_json(_unpacked(text) if isinstance(text, bytes) else text)
    except (TypeError, ValueError, zlib.error) as error:
        raise StoreError(f"the entry {id_!r} is damaged ({error}); repair the store, or index it anew") from error


def _packed(text: bytes) -> bytes:
    return zlib.compress(text, 9)


def _unpacked(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, _MOST_TEXT)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("its text does not end where it should")
    return text


def _fitting(
    connection: sqlite3.Connection, where: Filter | None, columns: str, after: int = 0
) -> Iterator[tuple[Any, ...]]:
    """Rows that fit a filter, with numbers above `after`, ascending; `columns` begin with `_HEAD`."""
    clause = to_sql(where)
    query = f"SELECT {columns} FROM entries WHERE number > ? AND ({clause.sql}) ORDER BY number"
    with contextlib.closing(connection.execute(query, [after, *clause.parameters])) as rows:
        for row in rows:
            if clause.exact or where is None or matches(where, payload_of(row[:5])):
                yield row
