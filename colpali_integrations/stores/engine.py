"""The seam between `MultiVectorStore` and whatever keeps the vectors: what an engine is asked, and nothing more.

    MultiVectorStore --Point, Search, Filter--> Engine (memory | embedded Qdrant | Qdrant server | yours)

An engine keeps points of several named vectors and a JSON payload, and scores them by dot product: MaxSim for
multi-vectors, the plain product for single vectors, BM25's sum for sparse ones. It knows nothing of pages, models,
fusion or frameworks. Another engine is one class with these methods, and a line in `opening`; the assertions of
`tests/stores/test_store.py`, which run over every engine, say when it is right.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.filters import Filter

__all__ = ["FIRST", "FULL", "WORDS", "Engine", "Payload", "Point", "Scored", "Search", "VectorSpec"]

# Names of the vectors of a point.
FULL = "full"
"""Every vector of the page, for MaxSim."""
FIRST = "first"
"""Fewer vectors of the same page, or a single one, for the first stage."""
WORDS = "words"
"""The page's text for BM25: a sparse vector, whose dimensions the engine weighs by their IDF."""

Payload: TypeAlias = "dict[str, Any]"


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """How one named vector is kept.

    Attributes:
        dim: length of a vector.
        multi: whether a point has several of them, compared by MaxSim, or one.
        quantization: a smaller copy to scan first, "int8" or "binary".
    """

    dim: int
    multi: bool = True
    quantization: str | None = None


@dataclass(frozen=True)
class Point:
    """What is stored under an id.

    Attributes:
        id: any string.
        vectors: by name: float16 (n, dim) for a multi-vector, float32 (dim,) for a single one.
        words: the sparse vector of its text; None for none.
        payload: JSON-safe.
    """

    id: str
    vectors: Mapping[str, NDArray[Any]]
    words: SparseVector | None = None
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search. Points that lack the vector `using` are not found.

    Attributes:
        query: float32 (n, dim) for a multi-vector, (dim,) for a single one, or a sparse vector.
        using: name of the vector that it is compared with.
        limit: how many points, the best first.
        where: only points whose payload fits.
        ids: only these points.
        prefetch: a search that chooses the candidates; this one scores them. Its `where` and `ids` are ignored: these
            hold for both stages.
        oversampling: for a quantised vector, how many times `limit` the scan of the small copies hands on to exact
            scoring; None for exact scoring of all.
        scores_only: leave the payloads out, where the ids are known and only the scores wanted.
    """

    query: NDArray[np.float32] | SparseVector
    using: str = FULL
    limit: int
    where: Filter | None = None
    ids: Collection[str] | None = None
    prefetch: Search | None = None
    oversampling: float | None = None
    scores_only: bool = False


@dataclass(frozen=True)
class Scored:
    """A point that was found.

    Attributes:
        id: its id.
        score: dot product, MaxSim or BM25, by what was searched.
        payload: as stored; empty when scores only were asked for.
    """

    id: str
    score: float
    payload: Payload = field(default_factory=dict)


class Engine(Protocol):
    """Where points are kept.

    Methods may be called from any thread. What `upsert` and `delete` did is there when they return: for later
    searches, and on disk for an engine that persists. A batch is stored whole or not at all.

    Raises:
        StoreError: from every method, when the engine cannot do it.
    """

    @property
    def where(self) -> str:
        """What and where this is, for messages: "the store my-index"."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]:
        """What was stored when the collection was made, JSON-safe."""
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        ...

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are passed over."""
        ...

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        ...

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[NDArray[np.float32] | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        ...

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Payloads, a piece at a time, and what to pass as `after` for the next piece; None at the end.

        `fields` are the top-level keys of the payload that are wanted; None for all.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        ...

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches: for each the points found, by falling score, equal scores in any order."""
        ...

    def optimize(self) -> None:
        """Reorganise what is on disk, after many changes. May take long; searches go on meanwhile."""
        ...

    def close(self) -> None:
        """Release files and connections. Calling it twice does nothing."""
        ...
