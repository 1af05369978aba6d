"""From entries and their vectors to the points of an engine: with a first stage and the words for BM25."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from colpali_integrations.errors import StoreError
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.stores.engine import FIRST, FULL, Point
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.first_stage import first_stage
from colpali_integrations.stores.limits import MAX_VECTORS, check_numbers
from colpali_integrations.stores.settings import Settings

__all__ = ["PointMaker"]


class PointMaker:
    """Makes the points of a store.

    Args:
        settings: of the store.
        where: the kind and place of the store, for messages.
        max_numbers: as of `engine.Engine`.

    Attributes:
        stage: the first stage; None if the store has none, or the engine supplies it.
        bm25: the encoder of texts.
    """

    def __init__(self, settings: Settings, where: str, max_numbers: int | None = None) -> None:
        self._model, self._where, self._max_numbers = settings.model, where, max_numbers
        self.stage = first_stage(settings)
        self.bm25 = Bm25(language=settings.language, tokenizer=settings.tokenizer)

    def point(self, entry: Entry, vectors: ArrayLike) -> Point:
        """Check an entry and its vectors (n, dim), and make its point.

        Raises:
            StoreError: a limit of `stores.limits`, vectors of another shape or not finite in float16, or metadata that
                cannot be written as JSON.
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
        check_numbers(entry.name, array.shape, self._max_numbers, self._where)
        if entry.grid is not None and len(entry.grid) != len(array):
            raise StoreError(f"{entry.name}: a grid of {len(entry.grid)} positions came with {len(array)} vectors")
        with np.errstate(over="ignore"):
            half = array.astype(np.float16)
        if not np.isfinite(half).all():
            raise StoreError(f"{entry.name}: vectors must be finite in float16 (at most 65504)")
        named: dict[str, Any] = {FULL: half}
        if self.stage is not None:
            named[FIRST] = self.stage.page(half.astype(np.float32), entry.grid)
        words = self.bm25.document(entry.text) if entry.has_text else None
        return Point(entry.id, named, words if words is not None and len(words) else None, payload)
