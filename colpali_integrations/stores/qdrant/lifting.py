"""Single vectors with one more number, by which a graph finds them.

A graph (HNSW) links each point to those of the largest product. Where lengths differ, these are the long vectors, and
no point links to the short ones: of 1,000 pages, searches by graph found 18 of 25 best pages however far they looked,
and all 25 with the number. It brings every vector to one length, so that the largest product is the smallest distance,
and points are linked to those near them (Bachrach et al., "Speeding up the Xbox recommender system", 2014). A query has
0 in its place, so no score changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import Point, Search, VectorSpec

__all__ = ["Lifting", "stored_dim"]


def stored_dim(spec: VectorSpec) -> int:
    """The numbers per vector in a new collection."""
    return spec.dim if spec.longest is None else spec.dim + 1


class Lifting:
    """Adds the number to points and queries of a collection.

    Args:
        schema: the points' vectors.
        sizes: numbers per vector in the collection, by name. Collections of earlier versions of this package have the
            vectors as they are.
    """

    def __init__(self, schema: Mapping[str, VectorSpec], sizes: Mapping[str, int]) -> None:
        self._longest = {
            name: spec.longest
            for name, spec in schema.items()
            if spec.longest is not None and sizes.get(name) == spec.dim + 1
        }

    def __contains__(self, name: str) -> bool:
        return name in self._longest

    def vector(self, name: str, stored: Float32) -> Float32:
        """A stored vector without the number."""
        return stored[:-1] if name in self._longest else stored

    def point(self, point: Point) -> Point:
        """A point as the collection keeps it."""
        if self._longest.keys().isdisjoint(point.vectors):
            return point
        vectors = dict(point.vectors)
        for name, longest in self._longest.items():
            if name in vectors:
                vector = np.asarray(vectors[name], np.float32)
                rest = longest**2 - float(vector.astype(np.float64) @ vector)
                vectors[name] = np.append(vector, np.float32(max(0.0, rest) ** 0.5))
        return replace(point, vectors=vectors)

    def search(self, search: Search) -> Search:
        """A search as it is sent, with both of its stages."""
        if search.prefetch is not None:
            search = replace(search, prefetch=self.search(search.prefetch))
        if search.using not in self._longest or isinstance(search.query, SparseVector):
            return search
        return replace(search, query=np.append(search.query, np.float32(0)))
