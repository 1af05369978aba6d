"""The smaller representation of a page that a two-stage search scans first.

| name | representation of a page of 1030 vectors | compared by |
|---|---|---|
| ward | 32 means of similar vectors (Ward's linkage) | MaxSim |
| rows | one mean per row of its grid, and the vectors outside the grid | MaxSim |
| muvera | one fixed dimensional encoding | dot product |

The second stage scores the candidates with all vectors of the page: the first stage decides which pages are found, and
never their scores.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.pooling import ward_pool
from colpali_integrations.stores.settings import Settings

__all__ = ["Stage", "first_stage"]


@dataclass(frozen=True)
class Stage:
    """A first stage.

    Attributes:
        page: reduces the vectors (n, dim) of a page, which has a grid, or of a text to (m, dim) or (size,).
        query: maps the vectors (n, dim) of a question to those that are compared with them: (n, dim) or (size,).
    """

    page: Callable[[Float32, PageGrid | None], Float32]
    query: Callable[[Float32], Float32] = lambda vectors: vectors


def first_stage(settings: Settings) -> Stage | None:
    """The first stage of a store; None for a store without one, or where the engine supplies it."""
    normalize = settings.model.unit_length
    if settings.first_stage == "ward":
        return Stage(lambda vectors, _: ward_pool(vectors, settings.first_vectors, normalize=normalize))
    if settings.first_stage == "rows":
        return Stage(lambda vectors, grid: _row_means(vectors, grid, normalize))
    if settings.first_stage == "muvera":
        encoder = settings.muvera
        return Stage(lambda vectors, _: encoder.document(vectors), encoder.query)
    return None


def _row_means(vectors: Float32, grid: PageGrid | None, normalize: bool) -> Float32:
    if grid is None:
        return vectors  # a text has no rows, and few vectors
    if grid.n_stored != len(vectors):
        raise StoreError(f"a grid of {grid.n_stored} cells came with {len(vectors)} vectors")
    vectors = grid.spread(vectors)
    rows = np.where(grid.cells < 0, -1, grid.cells // grid.columns)
    means = [vectors[rows == row].mean(axis=0) for row in np.unique(rows[rows >= 0])]
    if normalize:
        means = [mean / (np.linalg.norm(mean) or 1.0) for mean in means]
    return np.stack([*means, *vectors[rows < 0]]).astype(np.float32)
