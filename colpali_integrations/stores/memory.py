"""Points in this process's memory: exact, without dependencies, gone with the process."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.bm25 import SparseVector, bm25_scores
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.stores.engine import FULL, Payload, Point, Scored, Search, VectorSpec
from colpali_integrations.stores.filters import Filter, matches

__all__ = ["MemoryEngine"]


class MemoryEngine:
    """An engine for tests, notebooks and small sets: every search compares with every point.

    Args:
        schema: the points' vectors.
        manifest: see `Engine`.

    Raises:
        ConfigurationError: a quantised vector, which this engine has not.
    """

    where = "the store in memory"

    def __init__(self, *, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> None:
        if quantized := [spec.quantization for spec in schema.values() if spec.quantization]:
            raise ConfigurationError(
                f"{self.where} keeps no {quantized[0]} copies; use first_stage='ward', 'rows' or 'muvera' here, or a "
                "store on disk (path=) or on a server (url=)"
            )
        self.manifest = dict(manifest)
        self._lock = threading.Lock()
        # Never changed, only replaced, so that a search goes on with the points that it began with.
        self._points: dict[str, Point] = {}

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        kept = {point.id: Point(point.id, _copies(point), point.words, dict(point.payload)) for point in points}
        with self._lock:
            self._points = {**self._points, **kept}

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are passed over."""
        with self._lock:
            gone = frozenset(ids)
            self._points = {id_: point for id_, point in self._points.items() if id_ not in gone}

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        points = self._points
        return [dict(points[id_].payload) if id_ in points else None for id_ in ids]

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[NDArray[np.float32] | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        points = self._points
        found = [points[id_].vectors.get(name) if id_ in points else None for id_ in ids]
        return [None if vectors is None else vectors.astype(np.float32) for vectors in found]

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Payloads by id, a piece at a time."""
        points = self._points
        ids = sorted(id_ for id_ in points if after is None or id_ > after)
        found: list[Payload] = []
        for id_ in ids:
            payload = points[id_].payload
            if where is None or matches(where, payload):
                if len(found) == limit:
                    return found, found[-1]["id"]
                found.append({key: value for key, value in payload.items() if fields is None or key in {*fields, "id"}})
        return found, None

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        points = self._points
        return len(points) if where is None else sum(matches(where, point.payload) for point in points.values())

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches, one after the other."""
        points = self._points
        return [self._search(points, search) for search in searches]

    def optimize(self) -> None:
        """Nothing to be done."""

    def close(self) -> None:
        """Forget everything."""
        with self._lock:
            self._points = {}

    def _search(self, points: Mapping[str, Point], search: Search) -> list[Scored]:
        wanted = points.keys() if search.ids is None else points.keys() & set(search.ids)
        fitting = {
            id_: point
            for id_, point in points.items()
            if id_ in wanted and (search.where is None or matches(search.where, point.payload))
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
        if isinstance(search.query, SparseVector):
            # A word's IDF is over all points, whatever the filter: as Qdrant has it.
            texts = {id_: point.words for id_, point in points.items() if point.words is not None}
            scores = bm25_scores(search.query, list(texts.values())).tolist()
            ids = [id_ for id_, score in zip(texts, scores, strict=True) if score > 0 and id_ in fitting]
            found = dict(zip(texts, scores, strict=True))
            pairs = [(id_, found[id_]) for id_ in ids]
        else:
            ids = [id_ for id_, point in fitting.items() if search.using in point.vectors]
            vectors = [points[id_].vectors[search.using] for id_ in ids]
            if not ids:
                return []
            if search.query.ndim == 1:
                values = np.stack(vectors).astype(np.float32) @ search.query
            else:
                values = max_sim(search.query, vectors)
            pairs = list(zip(ids, values.tolist(), strict=True))
        return sorted(pairs, key=lambda pair: -pair[1])[: search.limit]


def _copies(point: Point) -> dict[str, NDArray[Any]]:
    return {name: np.array(vectors) for name, vectors in point.vectors.items()}
