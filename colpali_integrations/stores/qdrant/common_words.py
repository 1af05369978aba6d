"""Words that all points of a collection with words have: they weigh nothing, but a server gives them an IDF above 0.

A server does not tell how many points have a word. So a few points are read, and what they have in common is compared
with the IDF by which the server scores one of them::

    idf(n) = ln(1 + (N - n + 0.5) / (n + 0.5)):  ln(1 + 0.5 / (N + 0.5)) for n = N, ln(1 + 1.5 / (N - 0.5)) for N - 1

That takes two requests, and one more for words of questions that all of these points have and no question had before.
What was found holds for a minute, and until this process writes points. Over several shards, which count for
themselves, the IDFs are those of fewer points, and no word is found.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import WORDS, Scored, Search, pieces
from colpali_integrations.stores.qdrant import answers
from colpali_integrations.stores.qdrant.collection import QdrantClient, models
from colpali_integrations.stores.qdrant.strict import StrictMode

__all__ = ["CommonWords"]

_READ, _TOGETHER = 8, 256  # points, words
_SECONDS = 60.0


@dataclass(frozen=True)
class _Sample:
    """What some of the points have in common.

    Attributes:
        until: when it is read anew, by `time.monotonic`.
        count: number of all points with words.
        point: the id of one of them, on the server.
        values: of that point, for the words that all points of the sample have.
        common: whether all points have a word, as far as known.
    """

    until: float
    count: int
    point: Any = None
    values: dict[int, float] = field(default_factory=dict)
    common: dict[int, bool] = field(default_factory=dict)


class CommonWords:
    """The words that all points with words have. Threads can share it.

    Args:
        using: lends the client.
        collection: its name.
        where: the collection and its server, for messages.
        found: answers searches with their conditions.
        strict: limits of the collection.
    """

    def __init__(
        self,
        using: Callable[[], AbstractContextManager[QdrantClient]],
        collection: str,
        where: str,
        *,
        found: Callable[[Sequence[tuple[Search, models.Filter | None]]], list[list[Scored]]],
        strict: StrictMode,
    ) -> None:
        self._using, self._collection, self._where = using, collection, where
        self._found, self._read_together, self._exact = found, strict.page(_READ), strict.exact
        self._sample: _Sample | None = None

    def forget(self) -> None:
        """Read all anew at the next search, because points were written."""
        self._sample = None

    def without(self, searches: Sequence[Search]) -> list[Search]:
        """The searches, those by words without common ones."""
        queries = [search.query for search in searches if isinstance(search.query, SparseVector)]
        words = {word for query in queries for word in query.indices.tolist()}
        common = self._common(words) if words else set()
        return [_reduced(search, [*common]) for search in searches] if common else list(searches)

    def _common(self, words: set[int]) -> set[int]:
        sample = self._sample
        if sample is None or time.monotonic() > sample.until:
            self._sample = sample = self._read()
        unknown = [word for word in words if word in sample.values and word not in sample.common]
        if unknown:
            sample.common.update(self._compared(sample, unknown))
        return {word for word in words if sample.common.get(word)}

    def _read(self) -> _Sample:
        condition = models.Filter(must=[models.HasVectorCondition(has_vector=WORDS)])
        with self._using() as client:
            found = client.count(self._collection, count_filter=condition, exact=self._exact)
            records, _ = client.scroll(
                self._collection,
                scroll_filter=condition,
                limit=self._read_together,
                with_payload=False,
                with_vectors=[WORDS],
            )
        count = answers.counted(found.count, self._where)
        with answers.reading(self._where):
            vectors: list[Any] = [record.vector[WORDS] for record in records if isinstance(record.vector, dict)]
            points = [dict(zip(vector.indices, vector.values, strict=True)) for vector in vectors]
        sample = _Sample(time.monotonic() + _SECONDS, count)
        if not points:
            return sample
        first, *others = points
        shared = {word: value for word, value in first.items() if all(word in other for other in others)}
        common = dict.fromkeys(shared, True) if len(points) < self._read_together else {}  # these are all points
        return replace(sample, point=records[0].id, values=shared, common=common)

    def _compared(self, sample: _Sample, words: Sequence[int]) -> dict[int, bool]:
        """Whether all points have some words; nothing where the point of the sample is gone."""
        condition = models.Filter(must=[models.HasIdCondition(has_id=[sample.point])])
        one = np.ones(1, np.float32)
        searches = [
            Search(query=SparseVector(np.array([word], np.uint32), one), using=WORDS, limit=1, scores_only=True)
            for word in words
        ]
        scores: dict[int, float] = {}
        for some in pieces(zip(words, searches, strict=True), _TOGETHER):
            found = self._found([(search, condition) for _, search in some])
            scores |= {word: results[0].score for (word, _), results in zip(some, found, strict=True) if results}
        # Between the IDF of all points and that of all but one, also where the count is an estimate, as long as it is
        # between two thirds of the points and twice as many.
        highest = np.log1p(1 / (sample.count + 0.5))
        return {word: bool(score <= highest * sample.values[word]) for word, score in scores.items()}


def _reduced(search: Search, common: Sequence[int]) -> Search:
    query = search.query
    if not isinstance(query, SparseVector):
        return search
    kept = ~np.isin(query.indices, common)
    return replace(search, query=SparseVector(query.indices[kept], query.values[kept]))
