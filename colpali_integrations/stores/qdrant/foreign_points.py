"""Points and questions in the layout of a collection that another program has made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.fastembed_muvera import FastembedMuvera
from colpali_integrations.stores.engine import FULL, Point
from colpali_integrations.stores.first_stage import line_means
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.qdrant.collection import models
from colpali_integrations.stores.qdrant.foreign_payloads import ForeignPayloads

__all__ = ["ForeignPoints"]


class ForeignPoints:
    """Makes the points of one collection, and the questions of its first stages.

    Args:
        layout: of the collection.
        params: of its vectors.
        payloads: translates payloads.
        where: the collection, for messages.
    """

    def __init__(
        self, layout: Layout, params: Mapping[str, models.VectorParams], payloads: ForeignPayloads, where: str
    ) -> None:
        self._layout, self._params, self._payloads, self._where = layout, params, payloads, where
        self._muvera = layout.encoder(params[layout.full].size)
        self.half = frozenset(name for name, one in params.items() if one.datatype == models.Datatype.FLOAT16)

    def point(self, point: Point) -> Point:
        """A point of a store with the vectors and the payload of the layout.

        Raises:
            ConfigurationError: how the vectors of a first stage are made of a page is not known.
            StoreError: the metadata have the key that is the package's own, or do not fit the grid.
        """
        full = np.asarray(point.vectors[FULL], np.float32)
        grid = point.payload.get("grid")
        page = None if grid is None else PageGrid.from_json(grid)
        vectors: dict[str, NDArray[Any]] = {name: self._reduced(full, page, name) for name in self._layout.first}
        vectors[self._layout.full] = full
        return replace(point, vectors=vectors, words=None, payload=self._payloads.raw(dict(point.payload)))

    def query(self, query: Float32, name: str) -> Any:
        """The question of a first stage; over one mean per page, the sum has the product that MaxSim would have."""
        if self._params[name].multivector_config is not None:
            return query.tolist()
        encoder = self._encoder(name)
        return (query.sum(axis=0) if encoder is None else encoder.query(query)).tolist()

    def query_size(self, query: Float32, name: str) -> int:
        """The numbers of `query` in a request."""
        return query.size if self._params[name].multivector_config is not None else self._params[name].size

    def _encoder(self, name: str) -> FastembedMuvera | None:
        """The transform that made a single vector; None for the mean, which has the length of the others."""
        return None if self._params[name].size == self._params[self._layout.full].size else self._muvera

    def _reduced(self, full: Float32, grid: PageGrid | None, name: str) -> Float32:
        """The vectors of a page in a first stage: means of rows or of columns, by its name, or one of all vectors."""
        if self._params[name].multivector_config is None:
            encoder = self._encoder(name)
            return np.asarray(full.mean(axis=0), np.float32) if encoder is None else encoder.document(full)
        columns, rows = "column" in name.lower(), "row" in name.lower()
        if columns == rows:
            raise ConfigurationError(
                f"{self._where}: how the vectors {name!r} are made of a page is not known here, only means of rows and "
                "of columns by their names; add pages with a layout without it, or by the program that made them"
            )
        return line_means(full, grid, columns=columns)
