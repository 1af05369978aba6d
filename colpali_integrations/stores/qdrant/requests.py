"""What travels to a Qdrant server and back: points, searches and what they found."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import models

from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import WORDS, Point, Scored, Search
from colpali_integrations.stores.qdrant.filters import point_id

__all__ = ["answerable", "pieces", "point_size", "point_struct", "query_request", "scored", "search_size"]

# As JSON: "-0.01234567890123456," and "-1.2345e-05,".
_FLOAT_BYTES, _HALF_BYTES = 22, 12


def point_struct(point: Point, half: Collection[str]) -> models.PointStruct:
    """A point as it is sent; `half` are the vectors that are kept as float16."""
    vectors: dict[str, Any] = {}
    for name, array in point.vectors.items():
        vectors[name] = _short(array) if name in half else np.asarray(array, np.float32)
    if point.words is not None and len(point.words):
        vectors[WORDS] = _sparse(point.words)
    return models.PointStruct(id=point_id(point.id), vector=vectors, payload=dict(point.payload))


def query_request(search: Search, conditions: models.Filter | None, *, local: bool) -> models.QueryRequest:
    """A search as it is sent; the conditions hold for both of its stages. The local mode refuses parameters."""
    inner = search.prefetch
    prefetch = None
    if inner is not None:
        prefetch = models.Prefetch(
            query=_query(inner), using=inner.using, limit=inner.limit, params=_params(inner, local), filter=conditions
        )
    return models.QueryRequest(
        query=_query(search),
        using=search.using,
        limit=search.limit,
        params=_params(search, local),
        filter=conditions,
        prefetch=prefetch,
        with_payload=["id"] if search.scores_only else True,
        with_vector=False,
    )


def answerable(search: Search | None) -> bool:
    """Whether anything could be found: servers refuse to look for nothing, or for no results."""
    return search is None or (len(search.query) > 0 and search.limit > 0 and answerable(search.prefetch))


def scored(search: Search, points: Sequence[models.ScoredPoint]) -> list[Scored]:
    """What a search found."""
    found = [(point.payload or {}, point.score) for point in points]
    return [Scored(payload["id"], score, {} if search.scores_only else payload) for payload, score in found]


def point_size(point: Point, half: Collection[str]) -> int:
    """At most so many bytes is a point in a request."""
    vectors = (array.size * (_HALF_BYTES if name in half else _FLOAT_BYTES) for name, array in point.vectors.items())
    words = 0 if point.words is None else 2 * len(point.words) * _FLOAT_BYTES
    return sum(vectors) + words + len(json.dumps(point.payload)) + 1024


def search_size(search: Search) -> int:
    """At most so many bytes is a search in a request, but for its filter. Each id is sent as a UUID, for each stage."""
    query = search.query
    numbers = 2 * len(query) if isinstance(query, SparseVector) else query.size
    ids = 40 * len(search.ids or ())
    return numbers * _FLOAT_BYTES + ids + 1024 + (0 if search.prefetch is None else search_size(search.prefetch) + ids)


def pieces(ids: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    """Up to `size` ids at a time."""
    for start in range(0, len(ids), size):
        yield ids[start : start + size]


def _query(search: Search) -> Any:
    if isinstance(search.query, SparseVector):
        return _sparse(search.query)
    return np.asarray(search.query, np.float32).tolist()


def _params(search: Search, local: bool) -> models.SearchParams | None:
    if local or isinstance(search.query, SparseVector):
        return None
    if search.oversampling is None:
        return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
    return models.SearchParams(
        quantization=models.QuantizationSearchParams(ignore=False, rescore=True, oversampling=search.oversampling)
    )


def _sparse(words: SparseVector) -> models.SparseVector:
    return models.SparseVector(indices=words.indices.tolist(), values=words.values.tolist())


def _short(array: NDArray[Any]) -> list[list[float]]:
    """Float16 numbers as the decimals with five digits that are nearest to them.

    Reading such a decimal as float16 gives the number again: it is off by at most 5e-5 of itself, and a float16's
    neighbours are 4.8e-4 of itself away or more. So half the bytes say the same.
    """
    exact = np.asarray(array, np.float16).astype(np.float64)
    size = np.abs(exact, where=exact != 0, out=np.ones_like(exact))
    scale = 10.0 ** (4 - np.floor(np.log10(size)))
    found: list[list[float]] = (np.rint(exact * scale) / scale).tolist()
    return found
