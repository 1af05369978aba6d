"""Answers to searches: which points are compared, how, and what the best ones hold."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer
from colpali_integrations.stores.embedded.catalogue import Catalogue, Places, counter
from colpali_integrations.stores.embedded.database import Database
from colpali_integrations.stores.embedded.layers import CODED_COPIES
from colpali_integrations.stores.embedded.rows import HEAD, LISTED, ROW, checked_payload, of_ids, rows_that_fit
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
from colpali_integrations.stores.embedded.segments import SegmentIndex
from colpali_integrations.stores.engine import Scored, Search, VectorSpec

__all__ = ["Answers", "ChangedError"]


class ChangedError(Exception):
    """A writer removed an entry, or changed payloads, between the search and the reading of the payloads."""


class Answers:
    """Answers searches, with the catalogue of the last state that was searched.

    Args:
        files: of the store.
        schema: the points' vectors.
        layers: of the store, in the order of their numbers.
        segments: the indexes of centroids by vector.
    """

    def __init__(
        self,
        files: BlockFiles,
        schema: Mapping[str, VectorSpec],
        layers: Mapping[str, Layer],
        segments: Mapping[str, SegmentIndex],
    ) -> None:
        self._files, self._schema, self._layers, self._segments = files, schema, layers, segments
        self._catalogue = Catalogue()

    def of(self, database: Database, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches over one state of the store.

        Raises:
            ChangedError: a writer has changed it meanwhile.
            MissingFile: as `ChangedError`, or a file is lost.
            StoreError: the store is damaged.
        """
        with database.reading() as connection:
            catalogue = self._catalogue.refreshed(connection, len(self._layers))
            if catalogue is not self._catalogue:
                self._files.forget_others(catalogue.files)
            self._catalogue = catalogue
            # The searches of a batch share one filter, which may have to read every entry's metadata.
            fitting = {id(None): np.arange(len(catalogue))}
            for where in (search.where for search in searches):
                if id(where) not in fitting:
                    fitting[id(where)] = catalogue.positions(_numbers(rows_that_fit(connection, where, HEAD)))
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
        return self._with_payloads(database, searches, rankings, catalogue.updates)

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
        if copies in CODED_COPIES:
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
        rows = of_ids(connection, "SELECT number FROM entries", search.ids)
        return np.intersect1d(positions, catalogue.positions(_numbers(iter(rows))))

    def _with_payloads(
        self, database: Database, searches: Sequence[Search], results: Sequence[Ranking], updates: int
    ) -> list[list[Scored]]:
        """The results with ids and payloads, which are those of the state with this number of updates."""
        short = all(search.scores_only for search in searches)
        columns = "number, id" if short else ROW
        wanted = json.dumps(sorted({int(number) for numbers, _ in results for number in numbers}))
        with database.reading() as connection:
            rows = connection.execute(f"SELECT {columns} FROM entries WHERE number IN {LISTED}", [wanted]).fetchall()
            if not short and counter(connection, "updates") != updates:
                raise ChangedError
        found = {row[0]: (row[1], {} if short else checked_payload(row, database.where)) for row in rows}
        answers = []
        for search, (numbers, scores) in zip(searches, results, strict=True):
            if any(int(number) not in found for number in numbers):
                raise ChangedError
            pairs = [(*found[int(number)], float(score)) for number, score in zip(numbers, scores, strict=True)]
            answers.append([Scored(id_, score, {} if search.scores_only else dict(one)) for id_, one, score in pairs])
        return answers


def _numbers(rows: Iterator[tuple[Any, ...]]) -> NDArray[np.int64]:
    return np.fromiter((row[0] for row in rows), np.int64)
