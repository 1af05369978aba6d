"""Scores of many entries: over mapped vectors, over their small copies, and over the words of their texts."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._blocks import LIMITS, Limits
from colpali_integrations.scoring._kernels import best_in_runs
from colpali_integrations.scoring.bm25 import SparseVector, inverse_frequency
from colpali_integrations.scoring.int8 import products_in_runs, quantize_queries, scaled_matches
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer
from colpali_integrations.stores.embedded.catalogue import Catalogue, Places
from colpali_integrations.stores.embedded.coarse import coarse_matches
from colpali_integrations.stores.engine import Search, pieces

__all__ = [
    *("Matcher", "Ranking", "as_rows", "best_entries", "best_positions", "binary_matcher", "bm25_of", "int8_matcher"),
    *("max_sim_scores", "ranked", "vectors_matcher"),
]

Ranking: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Positions of entries, the best first, and their scores."""

Matcher: TypeAlias = Callable[[Float32, NDArray[np.int64]], NDArray[Any]]
"""Computes the highest product of each query vector with each entry at some positions: (n_vectors, n_positions).

Its arguments are float32 (n_vectors, dim), at least one, and positions, at least one, of entries that have vectors.
"""

# Entries whose best matches are in memory at a time; fewer for many query vectors.
_CHUNK = 16_384
# Entries whose words are looked up one by one; older versions of SQLite take 999 parameters.
_LOOKED_UP = 900
_WORD_ROWS = "SELECT entry, value FROM words WHERE word = ?"
# Entries whose signs are unpacked at a time.
_COPIES = 512


def as_rows(search: Search) -> Float32:
    """The vectors of a search's query: float32 (n, dim), n = 1 for a single one."""
    return np.atleast_2d(np.asarray(search.query, np.float32))


def ranked(positions: NDArray[np.int64], scores: NDArray[np.float64], limit: int) -> Ranking:
    """The entries with the highest scores."""
    best = best_positions(scores, limit)
    return positions[best], scores[best]


def best_positions(scores: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Indices of the highest scores, the best first; of equal ones the earlier."""
    if limit < len(scores):
        lowest = np.partition(scores, -limit)[-limit]
        near = np.flatnonzero(scores >= lowest)
    else:
        near = np.arange(len(scores))
    return near[np.argsort(-scores[near], kind="stable")][:limit]


def best_entries(searches: Sequence[Search], match: Matcher, positions: NDArray[np.int64]) -> Iterator[Ranking]:
    """The best entries of each search by MaxSim, read once for many searches.

    Args:
        searches: their queries, which have vectors, and limits count.
        match: computes best matches.
        positions: of the entries to choose from.
    """
    for some in pieces(searches, max(1, LIMITS.matches // max(1, len(positions)))):
        scores = max_sim_scores([as_rows(search) for search in some], match, positions)
        if np.isnan(scores).any():  # every stored number was finite
            raise StoreError("stored vectors are damaged: a score is not a number; verify the store, and repair it")
        for search, of_search in zip(some, scores, strict=True):
            yield ranked(positions, of_search, search.limit)


def max_sim_scores(
    queries: Sequence[Float32], match: Matcher, positions: NDArray[np.int64], limits: Limits = LIMITS
) -> NDArray[np.float64]:
    """MaxSim of each query (n, dim) with the entries at `positions`: (n_queries, n_positions)."""
    stacked = np.concatenate(queries)
    starts = np.cumsum([0, *map(len, queries[:-1])])
    scores = np.empty((len(queries), len(positions)))
    step = min(_CHUNK, max(1, limits.matches // len(stacked)))
    for first in range(0, len(positions), step):
        best = match(stacked, positions[first : first + step])
        scores[:, first : first + step] = np.add.reduceat(best, starts, axis=0, dtype=np.float64)
    return scores


def vectors_matcher(files: BlockFiles, layer: Layer, places: Places) -> Matcher:
    """Matches of the stored vectors, or of those of the first stage."""

    def match(queries: Float32, positions: NDArray[np.int64]) -> NDArray[Any]:
        runs, lengths = list(_runs(files, layer, places, positions)), places.lengths[positions]
        if layer.code is not None:
            return layer.code.best_matches(queries, runs, lengths)
        if layer.coarse:
            return coarse_matches(queries, runs, lengths, _first_rows(files, layer, places, positions))
        return best_in_runs(queries, runs, lengths)

    return match


def int8_matcher(files: BlockFiles, values: Layer, of_values: Places, scales: Layer, of_scales: Places) -> Matcher:
    """Matches of the int8 copies; `scales` holds a row with the scale and the centre of each entry."""

    def match(queries: Float32, positions: NDArray[np.int64]) -> NDArray[Any]:
        levels, of_queries = quantize_queries(queries)
        runs = list(_runs(files, values, of_values, positions))
        best = products_in_runs(levels, runs, of_values.lengths[positions])
        rows = _first_rows(files, scales, of_scales, positions)
        return scaled_matches(best, queries, of_queries, rows[:, 0], rows[:, 1:])

    return match


def binary_matcher(files: BlockFiles, layer: Layer, places: Places) -> Matcher:
    """Matches of the signs of the vectors, as -1 and 1."""

    def match(queries: Float32, positions: NDArray[np.int64]) -> NDArray[Any]:
        levels, of_queries = quantize_queries(queries)
        parts = []
        for first in range(0, len(positions), _COPIES):
            some = positions[first : first + _COPIES]
            packed = np.concatenate(list(_runs(files, layer, places, some)))
            signs = np.unpackbits(packed, axis=1, count=queries.shape[1]).astype(np.int8) * np.int8(2) - np.int8(1)
            parts.append(products_in_runs(levels, [signs], places.lengths[some]))
        return np.concatenate(parts, axis=1) * of_queries[:, None]

    return match


def bm25_of(
    connection: sqlite3.Connection,
    catalogue: Catalogue,
    query: SparseVector,
    among: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """BM25 of all entries, in the order of the catalogue; see `scoring.bm25` for the formula.

    Args:
        connection: to the database.
        catalogue: of its entries.
        query: from `Bm25.query`.
        among: positions of the only entries that are scored; the others get 0.
    """
    scores = np.zeros(len(catalogue))
    for word, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True):
        if among is None or len(among) > _LOOKED_UP:
            rows = connection.execute(f"{_WORD_ROWS} ORDER BY entry", (word,)).fetchall()
            frequency = len(rows)
        else:
            [frequency] = connection.execute("SELECT count(*) FROM words WHERE word = ?", (word,)).fetchone()
            some = catalogue.numbers[among].tolist()
            places = ", ".join("?" * len(some))
            rows = connection.execute(f"{_WORD_ROWS} AND entry IN ({places})", (word, *some)).fetchall()
        if rows:
            numbers = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            values = np.fromiter((row[1] for row in rows), np.float64, len(rows))
            [idf] = inverse_frequency(np.array([frequency]), catalogue.texts, common_words=False)
            scores[catalogue.positions(numbers)] += weight * idf * values
    return scores


def _runs(files: BlockFiles, layer: Layer, places: Places, positions: NDArray[np.int64]) -> Iterator[NDArray[Any]]:
    """The rows of entries; those that lie one behind another come in one array."""
    numbers, starts = places.files[positions], places.starts[positions]
    ends = starts + places.lengths[positions]
    mapped = _mapped(files, layer, numbers, ends)
    begins = np.append(True, (numbers[1:] != numbers[:-1]) | (starts[1:] != ends[:-1]))
    last = np.append(begins[1:], True)
    for number, start, end in zip(numbers[begins].tolist(), starts[begins].tolist(), ends[last].tolist(), strict=True):
        yield mapped[number][start:end]


def _first_rows(files: BlockFiles, layer: Layer, places: Places, positions: NDArray[np.int64]) -> NDArray[Any]:
    """The first row of each entry: (n_positions, width)."""
    numbers, starts = places.files[positions], places.starts[positions]
    rows = np.empty((len(positions), layer.width), layer.dtype)
    for number, mapped in _mapped(files, layer, numbers, starts + places.lengths[positions]).items():
        rows[numbers == number] = mapped[starts[numbers == number]]
    return rows


def _mapped(
    files: BlockFiles, layer: Layer, numbers: NDArray[np.int64], ends: NDArray[np.int64]
) -> dict[int, NDArray[Any]]:
    """The mapped rows of files by number, up to the last of `ends`."""
    return {
        int(number): files.rows(layer, int(number), int(ends[numbers == number].max())) for number in np.unique(numbers)
    }
