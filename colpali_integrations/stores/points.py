"""From entries and their vectors to the points of an engine: pooled, with a first stage and the words for BM25."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.scoring.pooling import group_means, hierarchical_groups
from colpali_integrations.stores.engine import FIRST, FULL, Point
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.first_stage import first_stage
from colpali_integrations.stores.limits import MAX_VECTORS, check_numbers
from colpali_integrations.stores.settings import Settings

__all__ = ["PointMaker"]

Half: TypeAlias = NDArray[np.float16]


class PointMaker:
    """Makes the points of a store.

    Args:
        settings: of the store.
        where: the kind and place of the store, for messages.
        max_numbers: as of `engine.Engine`.
        own_codes: whether the engine rounds vectors by a code of its own.

    Attributes:
        stage: the first stage; None if the store has none, or the engine supplies it.
        bm25: the encoder of texts.
    """

    def __init__(
        self, settings: Settings, where: str, max_numbers: int | None = None, *, own_codes: bool = False
    ) -> None:
        self._model, self._pool_factor = settings.model, settings.pool_factor
        self._code = None if own_codes else settings.code
        self._where, self._max_numbers = where, max_numbers
        self.stage = first_stage(settings)
        self.bm25 = Bm25(language=settings.language, tokenizer=settings.tokenizer)

    def point(self, entry: Entry, vectors: ArrayLike) -> Point:
        """Check an entry and its vectors (n, dim), and make its point.

        Raises:
            RefusedError: more numbers than the engine takes, which other pages need not have.
            StoreError: another limit of `stores.limits`, vectors of another shape or not finite in float16, or metadata
                that cannot be written as JSON.
        """
        payload = entry.to_payload()  # first, because words of a text beyond the limits would take long
        array = np.asarray(vectors)
        dim = self._model.dim
        if array.ndim != 2 or not len(array) or array.shape[1] != dim or array.dtype.kind not in "fiu":
            raise StoreError(
                f"{entry.name}: expected vectors (n, {dim}) with n > 0, got shape {array.shape} of {array.dtype}; "
                f"{self._where} was made by {self._model.name!r}"
            )
        if len(array) > MAX_VECTORS:
            raise StoreError(f"{entry.name}: a page may have {MAX_VECTORS} vectors, and this one has {len(array)}")
        if entry.grid is not None and entry.grid.n_stored != len(array):
            raise StoreError(f"{entry.name}: a grid of {entry.grid.n_stored} positions came with {len(array)} vectors")
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise StoreError(f"{entry.name}: vectors must be finite in float16 (at most 65504)")
        half, grid = self._pooled(entry, half)
        check_numbers(entry.name, half.shape, self._max_numbers, self._where)
        if grid is not entry.grid and grid is not None:
            payload["grid"] = grid.to_json()
        named: dict[str, Any] = {FULL: half}
        if self.stage is not None:
            named[FIRST] = self.stage.page(half.astype(np.float32), grid)
        words = self.bm25.document(entry.text) if entry.has_text else None
        return Point(entry.id, named, words if words is not None and len(words) else None, payload)

    def as_stored(self, vectors: Float32, *, is_page: bool) -> Float32:
        """The vectors (n, dim) of a page or text as the store would return them: pooled, and rounded.

        A server that rounds by a code of its own would round them a little more.
        """
        half = vectors.astype(np.float16)
        if is_page and self._pool_factor > 1:
            half = self._means(half, hierarchical_groups(half, self._pool_factor))
        return half.astype(np.float32) if self._code is None else self._code.decode(self._code.encode(half))

    def _means(self, half: Half, groups: NDArray[np.int64]) -> Half:
        return group_means(half, groups, normalize=self._model.unit_length).astype(np.float16)

    def _pooled(self, entry: Entry, half: Half) -> tuple[Half, PageGrid | None]:
        """The vectors that are stored, and their grid. Vectors that come from a store may be pooled already."""
        grid = entry.grid
        if grid is None or (grid.groups is None and self._pool_factor == 1):
            return half, grid
        if grid.groups is not None:
            if self._pool_factor == 1:
                raise StoreError(
                    f"{entry.name}: its {len(half)} vectors are means of {len(grid)}, and {self._where} keeps all "
                    "vectors of a page; index its document here, or add it to a store with a pool_factor"
                )
            return half, grid
        groups = hierarchical_groups(half, self._pool_factor)
        return self._means(half, groups), replace(grid, groups=groups)
