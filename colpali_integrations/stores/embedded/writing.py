"""Changes of the points in a folder, each within a transaction of the database: writing, removing, and compaction.

Vectors go to the end of the block files. Removed points leave dead rows there, and compaction copies the living ones of
such files, so that they can be given up.
"""

from __future__ import annotations

import json
import sqlite3
import zlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from numpy.typing import NDArray

from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, Place, Tail
from colpali_integrations.stores.embedded.catalogue import WORDS_LAYER, counter
from colpali_integrations.stores.embedded.layers import layer_rows
from colpali_integrations.stores.embedded.rows import LISTED, columns_of, of_ids, parsed, row_checksum, words_of
from colpali_integrations.stores.engine import Payload, Point

__all__ = ["Writer", "live_rows", "next_number"]

# A block file is an eighth of the store, up to this size: compaction copies whole files.
_LARGEST_BYTES = 64 << 20
# Rows of removed points may take this share of the others' bytes.
_MOST_DEAD = 0.5
# The counter alone does not decide: it may be damaged.
_DELETE_EMPTY = "DELETE FROM files WHERE live = 0 AND number NOT IN (SELECT file FROM places)"


class Writer:
    """Writes the points of a store; the transactions are its caller's.

    Args:
        files: of the store.
        layers: of the store, in the order of their numbers.
        smallest_bytes: a shorter block file is always continued, and so many bytes of removed points may stay.
        packed: compress the texts and grids of new entries.

    Attributes:
        to_sweep: whether there may be files that no transaction names.
    """

    def __init__(self, files: BlockFiles, layers: Mapping[str, Layer], smallest_bytes: int, *, packed: bool) -> None:
        self._files, self._layers, self._smallest_bytes, self._packed = files, layers, smallest_bytes, packed
        self.to_sweep = True  # a process that was killed may have left files

    def add(self, connection: sqlite3.Connection, points: Sequence[Point]) -> None:
        """Store points with different ids, in place of those with the same ids."""
        numbered = dict(enumerate(points, next_number(connection, "entries")))
        places = self._append(connection, numbered)
        self.remove(connection, [point.id for point in points])
        for number, point in numbered.items():
            self._insert(connection, number, point, places[number])

    def describe(self, connection: sqlite3.Connection, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        query = "SELECT number, id, content, rest FROM entries"
        for number, id_, content, rest in of_ids(connection, query, payloads.keys()):
            # The words belong to the text.
            stored = content, parsed(rest, id_).get("text")
            if stored == (payloads[id_].get("content_hash"), payloads[id_].get("text")):
                columns = columns_of(number, id_, payloads[id_], packed=self._packed)
                connection.execute(
                    "UPDATE entries SET document = ?, content = ?, metadata = ?, rest = ?, checksum = ? "
                    "WHERE number = ?",
                    (*columns[2:], row_checksum(columns), number),
                )
        _count(connection, "updates")

    def remove(self, connection: sqlite3.Connection, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        rows = of_ids(connection, "SELECT number, words FROM entries", ids)
        for number, words in rows:
            if words is not None:
                pairs = ((word, number) for word in words_of(words).indices.tolist())
                connection.executemany("DELETE FROM words WHERE word = ? AND entry = ?", pairs)
        numbers = json.dumps([row[0] for row in rows])
        freed = connection.execute(
            f"SELECT sum(length), file FROM places WHERE entry IN {LISTED} AND file > 0 GROUP BY file", [numbers]
        ).fetchall()
        connection.executemany("UPDATE files SET live = live - ? WHERE number = ?", freed)
        connection.execute(f"DELETE FROM places WHERE entry IN {LISTED}", [numbers])
        connection.execute(f"DELETE FROM entries WHERE number IN {LISTED}", [numbers])

    def compact(self, connection: sqlite3.Connection, most_dead: float = _MOST_DEAD) -> None:
        """Give up files without living rows; copy the living rows of others while too many rows are dead.

        Args:
            connection: of the transaction.
            most_dead: bytes of dead rows that may stay, as a share of the bytes of living ones.
        """
        self.to_sweep |= connection.execute(_DELETE_EMPTY).rowcount > 0
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
        self.to_sweep = True

    def sweep(self, connection: sqlite3.Connection) -> None:
        """Remove the files that no transaction names any more, or that a killed process left."""
        if self.to_sweep:
            self._files.keep_only(row[0] for row in connection.execute("SELECT number FROM files"))
            self.to_sweep = False

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
        living = live_rows(connection)
        size = sum(rows * self._layers[layer].row_bytes for layer, rows in living if layer in self._layers)
        largest = min(_LARGEST_BYTES, max(self._smallest_bytes, size // 8))
        following = next_number(connection, "files")
        places = self._files.append(self._layers[name], arrays, tail, following, largest)
        rows = sum(place.length for place in places.values())
        connection.execute(
            "INSERT INTO files VALUES (?, ?, ?, ?) ON CONFLICT (number) DO UPDATE "
            "SET rows = rows + excluded.rows, live = live + excluded.live",
            (next(iter(places.values())).file, name, rows, rows),
        )
        return places

    def _insert(self, connection: sqlite3.Connection, number: int, point: Point, places: Mapping[int, Place]) -> None:
        columns = columns_of(number, point.id, point.payload, packed=self._packed)
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

    def _move(self, connection: sqlite3.Connection, number: int, name: str) -> None:
        """Copy the living rows of a file to the end of its layer."""
        layer = list(self._layers).index(name)
        query = "SELECT entry, file, start, length, checksum FROM places WHERE layer = ? AND file = ? ORDER BY start"
        rows = connection.execute(query, (layer, number)).fetchall()
        arrays = {entry: self._files.at(self._layers[name], Place(*place)) for entry, *place in rows}
        places = self._written(connection, name, arrays, avoiding=(number,))
        # The checksums stay those of the first writing, so that damaged rows remain recognisable.
        connection.executemany(
            "UPDATE places SET file = ?, start = ? WHERE entry = ? AND layer = ?",
            ((place.file, place.start, entry, layer) for entry, place in places.items()),
        )
        connection.execute("UPDATE files SET live = 0 WHERE number = ?", (number,))


def _count(connection: sqlite3.Connection, name: str) -> None:
    """Add 1 to a number in the settings."""
    value = str(counter(connection, name) + 1)
    row = (value, zlib.crc32(value.encode()), name)
    connection.execute("UPDATE settings SET value = ?, checksum = ? WHERE name = ?", row)


def next_number(connection: sqlite3.Connection, table: str) -> int:
    """The number of the next row; numbers of removed rows do not return."""
    # Also above the rows that are there: the file of a number that is taken would be overwritten.
    last = "ifnull((SELECT seq FROM sqlite_sequence WHERE name = ?), 0)"
    query = f"SELECT max({last}, ifnull(max(number), 0)) + 1 FROM {table}"
    return int(connection.execute(query, (table,)).fetchone()[0])


def live_rows(connection: sqlite3.Connection) -> list[tuple[str, int]]:
    """Layers, and the numbers of their living rows."""
    return connection.execute("SELECT layer, sum(live) FROM files GROUP BY layer").fetchall()
