"""Vectors that only choose candidates, as rows of int8: half the bytes of float16, and faster products.

    row = the values of a vector, -127 to 127, and the four bytes of a float32: the scale of all vectors of its entry

The arithmetic is that of `scoring.int8` without centres. A vector of the first stage is a mean already, which differs
from the page's vectors by much more than its rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.int8 import PAGE_LEVELS, products_in_runs, quantize_queries, quantize_values

__all__ = ["SCALE_BYTES", "coarse_matches", "coarse_rows", "coarse_vectors"]

SCALE_BYTES = 4
"""Bytes behind the values of a row."""


def coarse_rows(vectors: NDArray[Any]) -> NDArray[np.int8]:
    """Round the vectors (n, dim) of an entry to rows, int8 (n, dim + 4)."""
    floats = np.asarray(vectors, np.float32)
    values, scale = quantize_values(floats, np.abs(floats).max(keepdims=True), PAGE_LEVELS, "first stage")
    scales = np.broadcast_to(scale.astype("<f4").view(np.int8), (len(values), SCALE_BYTES))
    return np.concatenate([values, scales], axis=1)


def coarse_vectors(rows: NDArray[np.int8]) -> Float32:
    """Restore vectors, float32 (n, dim), from rows; a number is off by at most half the entry's scale."""
    vectors: Float32 = rows[:, :-SCALE_BYTES] * _scales(rows)[:, None]
    return vectors


def coarse_matches(
    queries: Float32, runs: Sequence[NDArray[np.int8]], lengths: NDArray[np.int64], firsts: NDArray[np.int8]
) -> NDArray[np.float64]:
    """Compute the highest product of each query vector with a vector of each entry, up to the rounding of both.

    Args:
        queries: (n_vectors, dim), at least one.
        runs: (n, dim + 4) arrays, each with the rows of one or more whole entries.
        lengths: (n_entries,), the number of rows per entry over all runs, at least 1 each.
        firsts: (n_entries, dim + 4), the first row of each entry.

    Returns:
        float64 (n_vectors, n_entries).
    """
    values, scales = quantize_queries(queries)
    best = products_in_runs(values, [run[:, :-SCALE_BYTES] for run in runs], lengths)
    matches: NDArray[np.float64] = best * scales[:, None]
    matches *= _scales(firsts).astype(np.float64)
    return matches


def _scales(rows: NDArray[np.int8]) -> Float32:
    return np.ascontiguousarray(rows[:, -SCALE_BYTES:]).view("<f4")[:, 0].astype(np.float32)
