"""Scores of many entries: over mapped vectors, over their small copies, and over the words of their texts."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._kernels import best_matches
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.scoring.int8 import Int8Pages
from colpali_integrations.stores.embedded.blocks import BlockFiles, Layer
from colpali_integrations.stores.embedded.catalogue import Catalogue, Places

__all__ = ["best_positions", "bm25_of", "first_scores", "full_scores"]

# Entries whose products are in memory at a time.
_CHUNK = 16_384
# Entries whose small copies are gathered at a time.
_COPIES = 512


def best_positions(scores: NDArray[np.float64], limit: int) -> NDArray[np.int64]:
    """Indices of the highest scores, the best first; of equal ones the earlier."""
    if limit < len(scores):
        lowest = np.partition(scores, -limit)[-limit]
        near = np.flatnonzero(scores >= lowest)
    else:
        near = np.arange(len(scores))
    return near[np.argsort(-scores[near], kind="stable")][:limit]


def full_scores(
    query: Float32, files: BlockFiles, layer: Layer, places: Places, positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """MaxSim of a query (n, dim) with the entries at `positions`, from their stored vectors."""
    scores = np.empty(len(positions))
    for first in range(0, len(positions), _CHUNK):
        part = positions[first : first + _CHUNK]
        pages = list(_arrays(files, layer, places, part))
        scores[first : first + len(part)] = best_matches(query, pages).sum(axis=0, dtype=np.float64)
    return scores


def first_scores(
    query: Float32, files: BlockFiles, layers: Sequence[tuple[Layer, Places]], positions: NDArray[np.int64]
) -> NDArray[np.float64]:
    """MaxSim with the small copies of the entries at `positions`, which all have one.

    Args:
        query: float32 (n, dim).
        files: of the store.
        layers: the values and the scales and centres of int8 copies, or the signs of binary ones, with their places.
        positions: of entries.
    """
    scores = np.empty(len(positions))
    dim = query.shape[1]
    for first in range(0, len(positions), _COPIES):
        part = positions[first : first + _COPIES]
        values = np.concatenate(list(_arrays(files, *layers[0], part)))
        lengths = layers[0][1].lengths[part]
        if len(layers) == 2:
            scales = np.concatenate(list(_arrays(files, *layers[1], part)))
            pages = Int8Pages(values, lengths, scales[:, 0], scales[:, 1:])
        else:
            signs = np.unpackbits(values, axis=1, count=dim).astype(np.int8) * np.int8(2) - np.int8(1)
            pages = Int8Pages(signs, lengths, np.ones(len(part)), np.zeros((len(part), dim)))
        scores[first : first + len(part)] = pages.best_matches(query).sum(axis=0)
    return scores


def bm25_of(connection: sqlite3.Connection, catalogue: Catalogue, query: SparseVector) -> NDArray[np.float64]:
    """BM25 of all entries, in the order of the catalogue; see `scoring.bm25` for the formula."""
    scores = np.zeros(len(catalogue))
    for word, weight in zip(query.indices.tolist(), query.values.tolist(), strict=True):
        rows = connection.execute("SELECT entry, value FROM words WHERE word = ? ORDER BY entry", (word,)).fetchall()
        if rows:
            numbers = np.fromiter((row[0] for row in rows), np.int64, len(rows))
            values = np.fromiter((row[1] for row in rows), np.float64, len(rows))
            idf = np.log1p((catalogue.texts - len(rows) + 0.5) / (len(rows) + 0.5))
            scores[catalogue.positions(numbers)] += weight * idf * values
    return scores


def _arrays(
    files: BlockFiles, layer: Layer, places: Places, positions: NDArray[np.int64]
) -> Iterator[NDArray[np.generic]]:
    numbers, starts = places.files[positions], places.starts[positions]
    ends = starts + places.lengths[positions]
    mapped = {
        int(number): files.rows(layer, int(number), int(ends[numbers == number].max())) for number in np.unique(numbers)
    }
    for number, start, end in zip(numbers.tolist(), starts.tolist(), ends.tolist(), strict=True):
        yield mapped[number][start:end]
