"""The strict mode of a collection: the limits that its server sets, and requests that keep within them.

Qdrant Cloud makes collections in strict mode: no filter on a field without an index, at most 100 indexes. An
administrator may limit more: the points of a request, the results of a search, the requests per minute, exact searches.
The limits are read when a store is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores.engine import FIRST, FULL, Scored, Search, VectorSpec, pieces, strings
from colpali_integrations.stores.qdrant.graph import hnsw_ef

__all__ = ["NO_LIMITS", "StrictMode", "divided", "in_rounds", "largest"]

_T = TypeVar("_T")
_R = TypeVar("_R")

_IDS = 1024  # per request
_SCORED = 256  # ids per request that are scored: few enough for the server to scan instead of walking the graph
_DEARER = "larger than rate limiter capacity"


@dataclass(frozen=True, kw_only=True)
class StrictMode:
    """The limits of a collection; each None where there is none.

    Attributes:
        indexed_only: whether filters may only use fields with an index.
        indexes: the most indexes of a collection.
        limit: the most results of a search, and of a page of a listing.
        points: the most points of a request.
        searches: the most searches of a request.
        reads: tokens per minute for reading.
        writes: tokens per minute for writing; a point costs one.
        exact: whether exact searches are permitted.
        ef: the most candidates of a search by graph.
        oversampling: the most oversampling of a search.
        operands: the most values of a condition.

    Example:
        >>> mode = StrictMode(limit=100, points=10, writes=8)
        >>> mode.batch, mode.page(256), StrictMode().page(256)
        (8, 100, 256)
    """

    indexed_only: bool = False
    indexes: int | None = None
    limit: int | None = None
    points: int | None = None
    searches: int | None = None
    reads: int | None = None
    writes: int | None = None
    exact: bool = True
    ef: int | None = None
    oversampling: float | None = None
    operands: int | None = None

    @classmethod
    def of(cls, info: Any) -> StrictMode:
        """The limits in a `qdrant_client.models.CollectionInfo`; none of them where strict mode is off."""
        stored = getattr(info.config, "strict_mode_config", None)
        if stored is None or not stored.enabled:
            return cls()
        filters = (stored.unindexed_filtering_retrieve, stored.unindexed_filtering_update)
        return cls(
            indexed_only=False in filters,
            indexes=getattr(stored, "max_payload_index_count", None),
            limit=stored.max_query_limit,
            points=stored.upsert_max_batchsize,
            searches=getattr(stored, "search_max_batchsize", None),
            reads=stored.read_rate_limit,
            writes=stored.write_rate_limit,
            exact=stored.search_allow_exact is not False,
            ef=stored.search_max_hnsw_ef,
            oversampling=stored.search_max_oversampling,
            operands=stored.condition_max_size,
        )

    @property
    def batch(self) -> int:
        """The most points of a request that writes: one dearer than the tokens of a minute would never be taken."""
        return _least(_IDS, self.points, self.writes)

    @property
    def removed(self) -> int:
        """The most ids of a request that removes points."""
        return _least(_IDS, self.writes)

    @property
    def retrieved(self) -> int:
        """The most ids of a request that reads points."""
        return _least(_IDS, self.reads)

    def page(self, limit: int) -> int:
        """A number of results that a request may ask for."""
        return _least(limit, self.limit)

    def parts(self, search: Search, first: VectorSpec | None, where: str) -> list[Search]:
        """The searches that answer one, as far as exact searches are forbidden.

        Scores of given ids then need a first stage among these ids, and an exact search is an error.

        Args:
            search: with an answer.
            first: the vectors of the first stage; None in a store without.
            where: the collection, for messages.

        Raises:
            ConfigurationError: an exact search, and the collection's strict mode forbids it.
        """
        if self.exact or search.using != FULL or search.prefetch is not None:
            return [search]
        if search.ids is None or first is None:
            raise ConfigurationError(self.refusal(where))
        query = search.query if first.multi else np.ones(first.dim, np.float32)
        size = self.page(_SCORED)
        return [
            replace(search, ids=some, limit=len(some), prefetch=Search(query=query, using=FIRST, limit=len(some)))
            for some in pieces(strings(search.ids), size)
        ]

    def refusal(self, where: str) -> str:
        """The message about an exact search where these are forbidden."""
        return (
            f"{where} forbids exact searches (strict mode, search_allow_exact=false). Search with mode='two_stage' or "
            "'auto' in a store with first_stage='ward', 'rows' or 'muvera', or have its administrator set "
            "search_allow_exact=true"
        )

    def oversampled(self, oversampling: float) -> float:
        """The oversampling of a search, as far as the collection permits it."""
        return oversampling if self.oversampling is None else min(oversampling, self.oversampling)

    def candidates(self, limit: int) -> int:
        """The candidates of a graph for `limit` results (hnsw_ef): more of them miss fewer results."""
        return _least(hnsw_ef(limit), self.ef)


NO_LIMITS = StrictMode()
"""Of a collection without a strict mode."""


def largest(search: Search) -> int:
    """The largest number of results that a search asks for in any of its stages."""
    return search.limit if search.prefetch is None else max(search.limit, search.prefetch.limit)


def _least(limit: int, *others: int | None) -> int:
    return max(1, min([limit, *(one for one in others if one is not None)]))


def divided(items: Sequence[_T], send: Callable[[Sequence[_T]], Sequence[_R]]) -> list[_R]:
    """The answers to items, by halves as long as a request is dearer than the tokens of a minute.

    Such a request would be refused for good, and a refused one costs nothing.

    Args:
        items: of a request.
        send: sends a request and returns an answer per item, or none at all.

    Raises:
        StoreError: of `send`.

    Example:
        >>> divided("abc", lambda some: [one.upper() for one in some])
        ['A', 'B', 'C']
    """
    try:
        return list(send(items))
    except StoreError as error:
        if len(items) < 2 or _DEARER not in str(error):
            raise
    half = len(items) // 2
    return [*divided(items[:half], send), *divided(items[half:], send)]


def in_rounds(search: Search, limit: int, ask: Callable[[Search, Collection[str]], list[Scored]]) -> list[Scored]:
    """The results of a search for more candidates than a request may ask for.

    Each round leaves out those that earlier rounds have found, so that together they find the same as one request.

    Args:
        search: for any number of results.
        limit: the most of a request.
        ask: answers a search, without the points of some ids.

    Example:
        >>> numbers = [Scored(str(number), -number) for number in range(9)]
        >>> def ask(search, but):
        ...     return [one for one in numbers if one.id not in but][: search.limit]
        >>> [one.id for one in in_rounds(Search(query=np.ones((1, 8)), limit=5), 2, ask)]
        ['0', '1', '2', '3', '4']
    """
    wanted = search.limit if search.prefetch is None else search.prefetch.limit
    found: dict[str, Scored] = {}
    while len(found) < wanted:
        size = min(limit, wanted - len(found))
        inner = None if search.prefetch is None else replace(search.prefetch, limit=size)
        some = ask(replace(search, limit=size, prefetch=inner), [*found])
        found |= {one.id: one for one in some}
        if len(some) < size:
            break
    return sorted(found.values(), key=lambda one: -one.score)[: search.limit]
