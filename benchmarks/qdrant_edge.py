"""The Qdrant engine inside this process, a peer of the engine in a folder (qdrant-edge-py, group `benchmark`).

A folder belongs to one process at a time. Stores on the same folder within a process share it; another process gets a
`StoreError`, because the engine locks its log.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.qdrant_edge_shards import SEALED_BYTES, Shard, acquire, edge, release
from colpali_integrations.errors import StoreError
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import FULL, WORDS, OnOptimized, Payload, Point, Scored, Search, VectorSpec
from colpali_integrations.stores.filters import RESERVED, Filter
from colpali_integrations.stores.qdrant.filters import ClientDialect, point_id, translate
from colpali_integrations.stores.scrolling import documents_by_scrolling

__all__ = ["EDGE", "EdgeEngine"]


class EdgeEngine:
    """Points in a folder, stored and searched by the Qdrant engine.

    When a method returns, its changes are in the engine's log and survive the death of the process.

    Args:
        folder: opened if it holds a store, otherwise created.
        schema: the points' vectors.
        manifest: stored in a new folder; an existing folder has its own.

    Raises:
        StoreError: another process has the folder open, or it cannot be read or written.
    """

    max_numbers: int | None = None
    has_own_codes = False
    refuses_exact: str | None = None
    refuses_changes: str | None = None
    indexes: Mapping[str, str] = MappingProxyType({})

    def __init__(self, folder: Path, *, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        self._shard: Shard | None = acquire(folder, schema, manifest)
        self.manifest: Mapping[str, Any] = self._shard.manifest

    @property
    def where(self) -> str:
        """The folder."""
        return f"the store {self._folder}"

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        made = [_edge_point(point) for point in points]
        if not made:
            return
        self._update(edge.UpdateOperation.upsert_points(made))
        shard = self._shard
        if shard is not None:
            shard.unsealed += sum(vectors.size * 2 for point in points for vectors in point.vectors.values())
            if shard.unsealed >= SEALED_BYTES:
                shard.unsealed = 0
                self.optimize()

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        for (id_, payload), stored in zip(payloads.items(), self.retrieve([*payloads]), strict=True):
            if stored is not None and stored.get("content_hash") == payload.get("content_hash"):
                self._update(edge.UpdateOperation.overwrite_payload([point_id(id_)], payload))

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        if ids:
            self._update(edge.UpdateOperation.delete_points([point_id(id_) for id_ in ids]))

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        with self._using() as shard:
            records = shard.retrieve([point_id(id_) for id_ in ids], True, False) if ids else []
        found = {str(record.id): record.payload or {} for record in records}
        return [found.get(point_id(id_)) for id_ in ids]

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[NDArray[np.float32] | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        with self._using() as shard:
            records = shard.retrieve([point_id(id_) for id_ in ids], False, [name]) if ids else []
        # The engine returns vectors as lists of Python floats.
        found = {
            str(record.id): np.array(record.vector[name], np.float32)
            for record in records
            if isinstance(record.vector, dict) and name in record.vector
        }
        return [found.get(point_id(id_)) for id_ in ids]

    def scroll(
        self,
        where: Filter | None = None,
        *,
        limit: int = 256,
        after: Any = None,
        fields: Collection[str] | None = None,
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order of the engine's own ids."""
        wanted: Any = True if fields is None else [*{*fields, "id"}]
        with self._using() as shard:
            request = edge.ScrollRequest(
                offset=after, limit=limit, filter=self._filter(where), with_payload=wanted, with_vector=False
            )
            records, following = shard.scroll(request)
        return [record.payload or {} for record in records], following

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        with self._using() as shard:
            return int(shard.count(edge.CountRequest(filter=self._filter(where), exact=True)))

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that."""
        return self.count() > number

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each."""
        return documents_by_scrolling(self, where)

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches in one pass of the engine."""
        if not searches:
            return []
        known = [{point_id(id_): id_ for id_ in search.ids or ()} for search in searches]
        requests = [self._request(search, names) for search, names in zip(searches, known, strict=True)]
        with self._using() as shard:
            answers = shard.query_batch(edge.QueryBatchRequest(requests))
        return [
            [
                Scored(found["id"] if (found := point.payload) else names[str(point.id)], point.score, found or {})
                for point in points
            ]
            for points, names in zip(answers, known, strict=True)
        ]

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Seal and merge segments, release the space of removed points, and make the quantised copies, if any."""
        with self._using() as shard:
            shard.optimize()

    def close(self) -> None:
        """Release the folder unless another store of this process uses it."""
        shard, self._shard = self._shard, None
        if shard is not None:
            release(shard)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- translation --------------------------------------------------------------------------------------------

    def _request(self, search: Search, points: Collection[str]) -> Any:
        inner = search.prefetch
        conditions = self._filter(search.where, None if search.ids is None else points)
        return edge.QueryRequest(
            limit=search.limit,
            query=self._query(search),
            prefetches=[]
            if inner is None
            else [
                edge.Prefetch(limit=inner.limit, query=self._query(inner), params=_parameters(inner), filter=conditions)
            ],
            filter=conditions,
            params=_parameters(search),
            with_payload=not (search.scores_only and search.ids is not None),
            with_vector=False,
        )

    def _query(self, search: Search) -> Any:
        vector: Any
        if isinstance(search.query, SparseVector):
            vector = _sparse(search.query)
        else:
            vector = np.ascontiguousarray(search.query, np.float32)
        return edge.Query.Nearest(vector, using=search.using)

    def _filter(self, where: Filter | None, points: Collection[str] | None = None) -> Any:
        parts = []
        if where is not None:
            parts.append(translate(where, EDGE, self._payloads))
        if points is not None:
            parts.append(edge.HasIdCondition(set(points)))
        return edge.Filter(must=parts) if parts else None

    def _payloads(self, condition: Any) -> Iterator[Payload]:
        """Read the payloads for the part of a filter that the engine cannot express."""
        after = None
        while True:
            fields = [*RESERVED.values(), "metadata"]
            with self._using() as shard:
                request = edge.ScrollRequest(
                    offset=after, limit=1024, filter=condition, with_payload=fields, with_vector=False
                )
                records, after = shard.scroll(request)
            yield from (record.payload for record in records)
            if after is None:
                return

    # -- the shard ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _using(self) -> Iterator[Any]:
        shard = self._shard
        if shard is None:
            raise StoreError(f"{self.where} was closed; open it again")
        if shard.process != os.getpid():
            raise StoreError(
                f"{self.where} was opened before this process was forked, and belongs to the parent. Use a Qdrant "
                "server (url=) for several processes"
            )
        try:
            yield shard.handle
        except StoreError:
            raise
        except Exception as error:  # the engine has no more specific type
            raise StoreError(f"{self.where}: {error}") from error

    def _update(self, operation: Any) -> None:
        with self._using() as handle:
            handle.update(operation)


def _edge_point(point: Point) -> Any:
    vectors: dict[str, Any] = {name: np.ascontiguousarray(one, np.float32) for name, one in point.vectors.items()}
    if point.words is not None:
        vectors[WORDS] = _sparse(point.words)
    return edge.Point(point_id(point.id), vectors, dict(point.payload))


def _parameters(search: Search) -> Any:
    if search.oversampling is None:
        return edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
    return edge.SearchParams(
        quantization=edge.QuantizationSearchParams(ignore=False, rescore=True, oversampling=search.oversampling)
    )


def _sparse(words: SparseVector) -> Any:
    return edge.SparseVector(words.indices.tolist(), words.values.tolist())


class EdgeDialect(ClientDialect):
    """The same conditions in qdrant-edge-py, which has classes of its own."""

    @cached_property
    def _library(self) -> Any:
        import qdrant_edge

        return qdrant_edge

    def empty(self, key: str) -> Any:
        """Missing, null or an empty list."""
        return self._library.IsEmptyCondition(key)

    def equals(self, key: str, value: bool) -> Any:
        """This bool."""
        # qdrant-edge-py 0.9.0 takes Python's True for the integer 1; numpy's stays a bool.
        return self._library.FieldCondition(key=key, match=self._library.MatchValue(np.bool_(value)))

    def one_of(self, key: str, texts: Sequence[str]) -> Any:
        """One of these texts."""
        return self._library.FieldCondition(key=key, match=self._library.MatchAny(list(texts)))

    def between(self, key: str, bounds: Mapping[str, float]) -> Any:
        """Numbers within bounds."""
        return self._library.FieldCondition(key=key, range=self._library.RangeFloat(**bounds))

    def substring(self, key: str, text: str) -> Any:
        """Text that contains another."""
        return self._library.FieldCondition(key=key, match=self._library.MatchSubstring(text))

    def ids(self, ids: Collection[str | int]) -> Any:
        """These points."""
        return self._library.HasIdCondition(set(ids))


EDGE = EdgeDialect()
