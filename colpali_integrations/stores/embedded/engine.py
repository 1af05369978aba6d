"""`FolderEngine`: points in a folder, in a SQLite database and mapped files of vectors."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import wraps
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, cast

from colpali_integrations.errors import ColPaliError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores.embedded.answers import Answers, ChangedError
from colpali_integrations.stores.embedded.blocks import BlockFiles, MissingFile, Place, checksum
from colpali_integrations.stores.embedded.conditions import to_sql
from colpali_integrations.stores.embedded.database import Database
from colpali_integrations.stores.embedded.layers import layers_of
from colpali_integrations.stores.embedded.rows import (
    HEAD,
    HEAD_FIELDS,
    ROW,
    checked_payload,
    of_ids,
    packed_text,
    rows_that_fit,
)
from colpali_integrations.stores.embedded.segments import SegmentIndex, Sizes
from colpali_integrations.stores.embedded.writing import Writer, live_rows, next_number
from colpali_integrations.stores.engine import (
    FULL,
    OnOptimized,
    Payload,
    Point,
    Scored,
    Search,
    VectorSpec,
    in_order,
)
from colpali_integrations.stores.filters import Filter
from colpali_integrations.stores.scrolling import documents_by_scrolling

__all__ = ["FolderEngine"]

_SMALLEST_BYTES = 1 << 20
_SEGMENT_SIZES = Sizes()
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
    facts: Mapping[str, Any] = MappingProxyType({})
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
        self._writer = Writer(self._files, self._layers, smallest_bytes, packed=packed)
        self._answers = Answers(self._files, schema, self._layers, self._segments)

    @property
    def where(self) -> str:
        """The folder."""
        return self._database.where

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
        with self._changing() as connection:
            self._writer.add(connection, points)
            self._writer.compact(connection)
        self._grow()

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        if payloads:
            with self._changing() as connection:
                self._writer.describe(connection, payloads)

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        if ids:
            with self._changing() as connection:
                self._writer.remove(connection, ids)
                self._writer.compact(connection)

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Release the space of all removed points."""
        with self._changing() as connection:
            self._writer.compact(connection, most_dead=0.0)
        self._grow(least=1)
        self._database.vacuum()

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """Put nothing off."""
        return contextlib.nullcontext()

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
            rows = of_ids(connection, f"SELECT {ROW} FROM entries", ids)
        found = {row[1]: checked_payload(row, self.where) for row in rows}
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
            live = dict(live_rows(connection))
            of_layers = sum(live.get(name, 0) * one.row_bytes for name, one in self._layers.items() if name != FULL)
            of_segments = sum(index.used_bytes(connection) for index in self._segments.values())
        return self._database.used_bytes() + of_layers + of_segments

    @_reads
    def packing_gain(self, ids: Sequence[str]) -> float:
        """Bytes per point that `packed` would save, by the mean of some points."""
        with self._database.reading() as connection:
            rows = of_ids(connection, "SELECT rest FROM entries", ids)
        texts = [row[0].encode() for row in rows if isinstance(row[0], str)]
        return sum(len(text) - len(packed_text(text)) for text in texts) / max(1, len(rows))

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
                    rows = of_ids(connection, query, ids)
                found = {id_: self._checked(name, id_, entry, Place(*place)) for id_, entry, *place in rows}
                return in_order(ids, found)
        raise AssertionError("unreachable")

    @_reads
    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order in which they were stored."""
        columns = ROW if fields is None or {*fields} - HEAD_FIELDS else HEAD
        with self._database.reading() as connection:
            rows = list(islice(rows_that_fit(connection, where, columns, after or 0), limit + 1))
        batch = [checked_payload(row, self.where, fields) for row in rows[:limit]]
        return batch, rows[limit - 1][0] if len(rows) > limit else None

    @_reads
    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        clause = to_sql(where)
        with self._database.reading() as connection:
            if clause.exact:
                query = f"SELECT count(*) FROM entries WHERE {clause.sql}"
                return int(connection.execute(query, clause.parameters).fetchone()[0])
            return sum(1 for _ in rows_that_fit(connection, where, HEAD))

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
            with contextlib.suppress(MissingFile, ChangedError), state:
                return self._answers.of(self._database, searches)
        raise AssertionError("unreachable")

    # -- help ----------------------------------------------------------------------------------------------------------

    def _changing(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A transaction that changes the store; after it, files that are no longer named are removed."""
        return self._database.writing(self._writer.sweep)

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

    def _checked(self, name: str, id_: str, number: int, place: Place) -> Float32:
        rows = self._files.at(self._layers[name], place)
        if checksum(self._layers[name], number, rows) != place.checksum:
            raise StoreError(f"{self.where}: the vectors of {id_!r} are damaged; repair the store, or index it anew")
        vectors = self._layers[name].vectors(rows)
        return vectors if self._schema[name].multi else vectors[0]

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
                self._writer.to_sweep = True
                with self._changing() as connection:
                    index.store(connection, plan, data, next_number(connection, "files"))
                return True
        raise AssertionError("unreachable")
