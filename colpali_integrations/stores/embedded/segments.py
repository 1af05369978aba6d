"""The index of the first stage "centroids": segments, each with the centroids of a range of entries.

A segment is a file of its own and never changes. Entries behind the last segment are compared exactly, until they have
enough vectors for a segment. Small segments are then made into a large one, so an entry's vectors are grouped twice.
Everything here is derived: a lost segment is made again from the vectors.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._kernels import Buffers, share_out
from colpali_integrations.scoring.centroids import CentroidPages, cluster_pages
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer, checksum
from colpali_integrations.stores.embedded.catalogue import Catalogue, Segment, segments_of
from colpali_integrations.stores.embedded.scan import best_positions

__all__ = ["SEGMENTS", "Plan", "SegmentIndex", "Sizes", "is_intact"]

SEGMENTS = Layer("centroids", np.uint8, 1)
"""The bytes of segments."""

# Numbers before the arrays of a segment: entries, centroids, listed pages, numbers per vector.
_HEAD = 4
# Consecutive small segments that stay apart.
_MOST_SMALL = 4


class Sizes(NamedTuple):
    """Numbers of vectors.

    Attributes:
        least: behind the last segment before they get one; comparing so many takes about 15 ms.
        most: in a segment; half as many make it a large one. With more, centroids would be fewer than is good.
        scored: exactly per search, at least, which takes 60 ms: 6 % of 100,000 pages of ColTiny, which hold 99 % of the
            best ten (`benchmarks/results/large.md`).
    """

    least: int = 1 << 18
    most: int = 1 << 21
    scored: int = 1 << 20


class Plan(NamedTuple):
    """A change of the segments.

    Attributes:
        segments: all of them when the change was planned.
        replaced: those that are given up.
        table: (n, 4): number, file, first row and number of rows of each entry of the new segment; None for none.
        last: the last number of the new segment; None for that of its last entry.
    """

    segments: list[Segment]
    replaced: list[Segment]
    table: NDArray[np.int64] | None
    last: int | None


class SegmentIndex:
    """The segments of a store.

    Args:
        files: of the store.
        layer: of the vectors.
        number: of that layer.
        sizes: see `Sizes`.
    """

    def __init__(self, files: BlockFiles, layer: Layer, number: int, sizes: Sizes) -> None:
        self._files, self._layer, self._number, self._sizes = files, layer, number, sizes
        self._loaded: dict[Segment, tuple[NDArray[np.int64], CentroidPages]] = {}

    def candidates(
        self, query: Float32, catalogue: Catalogue, positions: NDArray[np.int64], limit: int
    ) -> NDArray[np.int64]:
        """The entries that are worth exact scores.

        Args:
            query: (n, dim).
            catalogue: of the store.
            positions: of the entries to choose from, which have vectors.
            limit: at least so many, if there are.

        Returns:
            Some of `positions`: the best by estimate, and all that no segment holds.
        """
        lengths = catalogue.layers[self._number].lengths[positions]
        limit = max(limit, math.ceil(self._sizes.scored / lengths.mean())) if len(positions) else 0
        if limit >= len(positions):
            return positions
        self._loaded = {segment: self._load(segment) for segment in catalogue.segments}
        estimates = np.full(len(catalogue), -np.inf)

        def estimate(segment: tuple[NDArray[np.int64], CentroidPages], _: Buffers) -> None:
            numbers, pages = segment
            at = np.minimum(np.searchsorted(catalogue.numbers, numbers), len(catalogue) - 1)
            there = catalogue.numbers[at] == numbers
            estimates[at[there]] = pages.best_matches(query, threads=1).sum(axis=0, dtype=np.float64)[there]

        share_out(list(self._loaded.values()), estimate)
        of_positions = estimates[positions]
        known = np.isfinite(of_positions)
        near = positions[known]
        return np.sort(np.concatenate([near[best_positions(of_positions[known], limit)], positions[~known]]))

    def close(self) -> None:
        """Forget the segments; the map of each ends with it."""
        self._loaded = {}

    def plan(self, connection: sqlite3.Connection, least: int | None = None) -> Plan | None:
        """The next change of the segments; None if none is due.

        Args:
            connection: of a transaction.
            least: vectors behind the last segment that make a new one due; None for `Sizes.least`.
        """
        segments = segments_of(connection)
        last = segments[-1].last if segments else 0
        tail = self._vectors(connection, last + 1, None)
        if tail < (self._sizes.least if least is None else max(1, least)):
            return None
        living = [self._vectors(connection, one.first, one.last) for one in segments]
        if empty := [one for one, vectors in zip(segments, living, strict=True) if not vectors]:
            return Plan(segments, empty, None, None)
        replaced, with_tail = _due(segments, living, tail, self._sizes.most)
        first = replaced[0].first if replaced else last + 1
        end = None if with_tail else replaced[-1].last
        query = "SELECT entry, file, start, length FROM places WHERE layer = ? AND entry BETWEEN ? AND ? ORDER BY entry"
        rows = connection.execute(query, (self._number, first, _highest(end))).fetchall()
        table = np.array(rows, np.int64)
        if with_tail:
            fitting = int(np.searchsorted(np.cumsum(table[:, 3]), self._sizes.most, side="right"))
            table = table[: max(1, fitting)]
        return Plan(segments, replaced, table, end)

    def make(self, plan: Plan) -> NDArray[np.uint8] | None:
        """The bytes of a plan's segment. It takes seconds, outside of a transaction."""
        if plan.table is None:
            return None
        pages = [
            self._files.rows(self._layer, file, start + length)[start : start + length]
            for _, file, start, length in plan.table.tolist()
        ]
        coded = self._layer.code is not None
        return _packed(plan.table[:, 0], cluster_pages(_Restored(self._layer, pages) if coded else pages))

    def store(self, connection: sqlite3.Connection, plan: Plan, data: NDArray[np.uint8] | None, following: int) -> None:
        """Write a plan's segment, unless another process has changed the segments since.

        Args:
            connection: of a transaction.
            plan: see `plan`.
            data: of `make`.
            following: the number of the next file.
        """
        if segments_of(connection) != plan.segments:
            return
        if plan.table is not None and data is not None:
            [place] = self._files.append(SEGMENTS, {following: data}, None, following, 0).values()
            first, last = int(plan.table[0, 0]), int(plan.table[-1, 0])
            if plan.replaced:
                first = plan.replaced[0].first
            vectors = int(plan.table[:, 3].sum())
            row = Segment(following, first, plan.last or last, vectors, place.length, place.checksum)
            connection.execute("INSERT INTO files VALUES (?, ?, ?, ?)", (following, SEGMENTS.name, *[place.length] * 2))
            connection.execute("INSERT INTO segments VALUES (?, ?, ?, ?, ?, ?)", row)
        for one in plan.replaced:
            connection.execute("DELETE FROM segments WHERE file = ?", (one.file,))
            connection.execute("DELETE FROM files WHERE number = ?", (one.file,))

    def used_bytes(self, connection: sqlite3.Connection) -> int:
        """Bytes of the segments, without the share of the vectors of removed entries."""
        return round(
            sum(
                one.length * self._vectors(connection, one.first, one.last) / max(1, one.vectors)
                for one in segments_of(connection)
            )
        )

    def _vectors(self, connection: sqlite3.Connection, first: int, last: int | None) -> int:
        query = "SELECT ifnull(sum(length), 0) FROM places WHERE layer = ? AND entry BETWEEN ? AND ?"
        return int(connection.execute(query, (self._number, first, _highest(last))).fetchone()[0])

    def _load(self, segment: Segment) -> tuple[NDArray[np.int64], CentroidPages]:
        if segment in self._loaded:
            return self._loaded[segment]
        try:
            return _unpacked(self._files.rows(SEGMENTS, segment.file, segment.length)[: segment.length, 0])
        except (InputError, ValueError) as error:
            name = self._files.path(SEGMENTS, segment.file)
            raise StoreError(f"{name} is damaged ({error}); repair the store") from error


class _Restored(Sequence[Float32]):
    """Coded pages, restored at each use: those of a segment are too many to be in memory together."""

    def __init__(self, layer: Layer, pages: Sequence[NDArray[Any]]) -> None:
        self._layer, self._pages = layer, pages

    def __len__(self) -> int:
        return len(self._pages)

    @overload
    def __getitem__(self, index: int) -> Float32: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Float32]: ...
    def __getitem__(self, index: int | slice) -> Float32 | Sequence[Float32]:
        if isinstance(index, slice):
            return _Restored(self._layer, self._pages[index])
        return self._layer.vectors(self._pages[index])


def _highest(last: int | None) -> int:
    return 2**62 if last is None else last


def is_intact(files: BlockFiles, segment: Segment) -> bool:
    """Whether a segment's bytes are those that were stored.

    Raises:
        StoreError: its file is missing or too short.
    """
    data = files.rows(SEGMENTS, segment.file, segment.length)[: segment.length]
    return checksum(SEGMENTS, segment.file, data) == segment.checksum


def _due(segments: Sequence[Segment], living: Sequence[int], tail: int, most: int) -> tuple[list[Segment], bool]:
    """The segments to make into one, and whether the entries behind the last segment belong to it.

    These are neighbours that are small, if they add up to a large one or are many; else one that has lost half of its
    vectors; else only the entries behind the last segment.
    """
    # The tail counts as a last part; None stands for it.
    parts = [*zip(segments, living, strict=True), (None, tail)]
    run: list[Segment | None] = []
    total = 0
    for part, vectors in [*parts, (None, most)]:
        if vectors < most / 2 and total + vectors <= most:
            run.append(part)
            total += vectors
            continue
        if len(run) > 1 and (total >= most / 2 or len(run) > _MOST_SMALL):
            return [one for one in run if one is not None], run[-1] is None
        run, total = ([part], vectors) if vectors < most / 2 else ([], 0)
    for segment, vectors in zip(segments, living, strict=True):
        if vectors < segment.vectors / 2:
            return [segment], False
    return [], True


def _packed(numbers: NDArray[np.int64], pages: CentroidPages) -> NDArray[np.uint8]:
    head = np.array([len(numbers), len(pages.centroids), len(pages.pages), pages.dim], np.int64)
    parts = (head, numbers, pages.ends, pages.pages, pages.centroids)
    return np.concatenate([np.ascontiguousarray(part).reshape(-1).view(np.uint8) for part in parts])[:, None]


def _unpacked(data: NDArray[np.uint8]) -> tuple[NDArray[np.int64], CentroidPages]:
    entries, centroids, listed, dim = data[: 8 * _HEAD].view(np.int64).tolist()
    sizes = (8 * _HEAD, 8 * entries, 8 * centroids, 4 * listed, 2 * centroids * dim)
    if min(sizes) < 1 or sum(sizes) != len(data):
        raise InputError(f"its {len(data)} bytes do not hold {entries} entries and {centroids} centroids of {dim}")
    ends = np.cumsum(sizes)
    _, numbers, of_lists, pages, points = np.split(data, ends[:-1])
    return numbers.view(np.int64), CentroidPages(
        entries, points.view(np.float16).reshape(-1, dim), of_lists.view(np.int64), pages.view(np.uint32)
    )
