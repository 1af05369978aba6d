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

__all__ = ["Stage", "first_stage", "line_means"]


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
        return Stage(lambda vectors, grid: line_means(vectors, grid, normalize=normalize))
    if settings.first_stage == "muvera":
        encoder = settings.muvera
        return Stage(lambda vectors, _: encoder.document(vectors), encoder.query)
    return None


def line_means(vectors: Float32, grid: PageGrid | None, *, columns: bool = False, normalize: bool = False) -> Float32:
    """One mean per row of a page's grid, or per column, and the vectors outside the grid.

    Args:
        vectors: (n, dim), of a page or a text.
        grid: of the page; None for a text, whose vectors are returned.
        columns: means of columns.
        normalize: give the means length 1.

    Raises:
        StoreError: there are more or fewer vectors than the grid has.
    """
    if grid is None:
        return vectors  # a text has no rows, and few vectors
    if grid.n_stored != len(vectors):
        raise StoreError(f"a grid of {grid.n_stored} cells came with {len(vectors)} vectors")
    vectors = grid.spread(vectors)
    place = grid.cells % grid.columns if columns else grid.cells // grid.columns
    lines = np.where(grid.cells < 0, -1, place)
    means = [vectors[lines == line].mean(axis=0) for line in np.unique(lines[lines >= 0])]
    if normalize:
        means = [mean / (np.linalg.norm(mean) or 1.0) for mean in means]
    return np.stack([*means, *vectors[lines < 0]]).astype(np.float32)
