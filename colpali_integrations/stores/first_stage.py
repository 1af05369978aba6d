"""What a two-stage search scans first: a page's many vectors -> fewer, or one.

| name | a page of 1030 vectors becomes | compared by |
|---|---|---|
| ward | 32 means of similar vectors (Ward's linkage) | MaxSim |
| rows | one mean a row of its grid, and the vectors without a place | MaxSim |
| muvera | one fixed dimensional encoding | dot product |

The second stage scores the candidates with all vectors of the page, so the first one decides what is found, and
never its score.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.scoring.pooling import ward_pool
from colpali_integrations.stores.settings import Settings

__all__ = ["Stage", "first_stage"]


class Stage(Protocol):
    """One way of making less of a page."""

    def page(self, vectors: NDArray[np.float32], grid: PageGrid | None) -> NDArray[np.float32]:
        """(n, dim) -> (m, dim), or (size,)."""
        ...

    def query(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What is compared with it: (n, dim), or (size,)."""
        ...


def first_stage(settings: Settings) -> Stage | None:
    """The stage that a store was made with; None where the engine does it, or nobody."""
    if settings.first_stage == "ward":
        return _Ward(settings.first_vectors, settings.model.unit_length)
    if settings.first_stage == "rows":
        return _Rows(settings.model.unit_length)
    return _Muvera(settings.muvera) if settings.first_stage == "muvera" else None


class _Ward:
    def __init__(self, size: int, normalize: bool) -> None:
        self._size, self._normalize = size, normalize

    def page(self, vectors: NDArray[np.float32], grid: PageGrid | None) -> NDArray[np.float32]:
        return ward_pool(vectors, self._size, normalize=self._normalize)

    def query(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors


class _Rows:
    def __init__(self, normalize: bool) -> None:
        self._normalize = normalize

    def page(self, vectors: NDArray[np.float32], grid: PageGrid | None) -> NDArray[np.float32]:
        if grid is None:
            return vectors  # a text has no rows, and few vectors
        if len(grid.cells) != len(vectors):
            raise StoreError(f"a grid of {len(grid.cells)} cells came with {len(vectors)} vectors")
        rows = np.where(grid.cells < 0, -1, grid.cells // grid.columns)
        means = [vectors[rows == row].mean(axis=0) for row in np.unique(rows[rows >= 0])]
        if self._normalize:
            means = [mean / (np.linalg.norm(mean) or 1.0) for mean in means]
        return np.stack([*means, *vectors[rows < 0]]).astype(np.float32)

    def query(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return vectors


class _Muvera:
    def __init__(self, encoder: Muvera) -> None:
        self._encoder = encoder

    def page(self, vectors: NDArray[np.float32], grid: PageGrid | None) -> NDArray[np.float32]:
        return self._encoder.document(vectors)

    def query(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._encoder.query(vectors)
