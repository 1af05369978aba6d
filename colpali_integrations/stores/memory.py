"""An engine in memory: exact, without dependencies, and lost with its process."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._forks import ForkLock
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector, TextVectors
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.stores.engine import (
    FULL,
    OnOptimized,
    Payload,
    Point,
    Scored,
    Search,
    VectorSpec,
    in_order,
    strings,
)
from colpali_integrations.stores.filters import Filter, matches
from colpali_integrations.stores.scrolling import documents_by_scrolling

__all__ = ["MemoryEngine"]


class MemoryEngine:
    """An engine for tests, notebooks and small collections: each search compares all points.

    Args:
        schema: the points' vectors.
        manifest: see `Engine`.

    Raises:
        ConfigurationError: a quantised vector, which this engine does not support.
    """

    where = "the store in memory"
    max_numbers: int | None = None
    has_own_codes = False
    refuses_exact: str | None = None
    refuses_changes: str | None = None
    indexes: Mapping[str, str] = MappingProxyType({})
    facts: Mapping[str, Any] = MappingProxyType({})
    batches_at_once = 1

    def __init__(self, *, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> None:
        if quantized := [spec.quantization for spec in schema.values() if spec.quantization]:
            raise ConfigurationError(
                f"{self.where} has no first stage {quantized[0]!r}; use first_stage='ward', 'rows' or 'muvera' here, "
                "or a store on disk (path=)"
            )
        self._codes = {name: spec.code for name, spec in schema.items() if spec.code is not None}
        self.manifest: Mapping[str, Any] = dict(manifest)
        self._lock = ForkLock()
        # Replaced and never changed in place, so that a running search keeps the points that it began with; None once
        # the store is closed.
        self._held: dict[str, Point] | None = {}
        self._texts: tuple[Mapping[str, Point], list[str], TextVectors] | None = None  # of the points at a search

    @property
    def _points(self) -> dict[str, Point]:
        if self._held is None:
            raise StoreError(f"{self.where} was closed, and its entries are gone; open a new one")
        return self._held

    @_points.setter
    def _points(self, points: dict[str, Point]) -> None:
        self._held = points

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest by what a function makes of it."""
        with self._lock:
            self.manifest = dict(change(self.manifest))
        return self.manifest

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        copies = {}
        for point in points:
            vectors = {name: self._rows(name, one) for name, one in point.vectors.items()}
            copies[point.id] = Point(point.id, vectors, point.words, dict(point.payload))
        with self._lock:
            self._points = {**self._points, **copies}

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        with self._lock:
            changed = {
                id_: replace(point, payload=dict(payload))
                for id_, payload in payloads.items()
                if (point := self._points.get(id_)) is not None
                and all(point.payload.get(name) == payload.get(name) for name in ("content_hash", "text"))
            }
            self._points = {**self._points, **changed}

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        with self._lock:
            removed = frozenset(strings(ids))
            self._points = {id_: point for id_, point in self._points.items() if id_ not in removed}

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        return [None if point is None else dict(point.payload) for point in in_order(ids, self._points)]

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        stored = [None if point is None else point.vectors.get(name) for point in in_order(ids, self._points)]
        code = self._codes.get(name)
        return [None if rows is None else code.decode(rows) if code else rows.astype(np.float32) for rows in stored]

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order of their ids."""
        points = self._points
        batch: list[Payload] = []
        for id_ in sorted(id_ for id_ in points if after is None or id_ > after):
            payload = points[id_].payload
            if where is None or matches(where, payload):
                if len(batch) == limit:
                    return batch, batch[-1]["id"]
                batch.append({key: value for key, value in payload.items() if fields is None or key in {*fields, "id"}})
        return batch, None

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        points = self._points
        return len(points) if where is None else sum(matches(where, point.payload) for point in points.values())

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that."""
        return self.count() > number

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each."""
        return documents_by_scrolling(self, where)

    def has_words(self) -> bool:
        """Whether any point has words."""
        return any(point.words is not None for point in self._points.values())

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches, one after the other."""
        points = self._points
        return [self._search(points, search) for search in searches]

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Do nothing."""

    def loading(self) -> AbstractContextManager[None]:
        """Put nothing off."""
        return nullcontext()

    def close(self) -> None:
        """Forget all points; a later use is an error."""
        with self._lock:
            self._held = self._texts = None

    def _rows(self, name: str, vectors: NDArray[Any]) -> NDArray[Any]:
        """What is kept of a named vector of a point: a copy, or the rows of its code."""
        code = self._codes.get(name)
        return np.array(vectors) if code is None else code.encode(vectors)

    def _search(self, points: Mapping[str, Point], search: Search) -> list[Scored]:
        asked = points if search.ids is None else {id_: points[id_] for id_ in strings(search.ids) if id_ in points}
        fitting = {
            id_: point for id_, point in asked.items() if search.where is None or matches(search.where, point.payload)
        }
        if search.prefetch is not None:
            fitting = {id_: points[id_] for id_, _ in self._best(points, fitting, search.prefetch)}
        return [
            Scored(id_, score, {} if search.scores_only else dict(points[id_].payload))
            for id_, score in self._best(points, fitting, search)
        ]

    def _best(
        self, points: Mapping[str, Point], fitting: Mapping[str, Point], search: Search
    ) -> list[tuple[str, float]]:
        vectors = {id_: point.vectors[search.using] for id_, point in fitting.items() if search.using in point.vectors}
        pairs: Iterable[tuple[str, float]] = ()
        if isinstance(search.query, SparseVector):
            pairs = self._by_words(points, fitting, search.query)
        elif vectors:
            scores = _scores(search.query, list(vectors.values()), self._codes.get(search.using))
            pairs = zip(vectors, scores.tolist(), strict=True)
        return sorted(pairs, key=lambda pair: -pair[1])[: search.limit]

    def _by_words(
        self, points: Mapping[str, Point], fitting: Mapping[str, Point], query: SparseVector
    ) -> list[tuple[str, float]]:
        # The IDF of a word counts all points, whatever the filter, as in Qdrant.
        held = self._texts
        if held is None or held[0] is not points:
            texts = {id_: point.words for id_, point in points.items() if point.words is not None and len(point.words)}
            self._texts = held = points, [*texts], TextVectors([*texts.values()])
        _, ids, texts_of = held
        scores = texts_of.scores(query, common_words=False)
        found = np.flatnonzero(scores > 0)
        return [
            (id_, score)
            for row, score in zip(found.tolist(), scores[found].tolist(), strict=True)
            if (id_ := ids[row]) in fitting
        ]


def _scores(query: Float32, kept: Sequence[NDArray[Any]], code: VectorCode | None) -> NDArray[Any]:
    """The scores of points, by what is kept of them."""
    if query.ndim == 1:
        return np.stack(kept).astype(np.float32) @ query
    if code is None:
        return max_sim(query, kept)
    lengths = np.array([len(rows) for rows in kept])
    return np.asarray(code.best_matches(query, kept, lengths).sum(axis=0, dtype=np.float64))
