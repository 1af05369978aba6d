"""The interface between `MultiVectorStore` and the engines: memory, a folder, a Qdrant server.

An engine keeps points of several named vectors and a JSON payload, and scores them by dot product: MaxSim for
multi-vectors, the plain product for single vectors, BM25's sum for sparse ones. Pages, models, fusion and frameworks
are no part of it. A new engine is one class with these methods and a line in `opening`; `tests/stores/test_store.py`
runs the same assertions over every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, TypeVar

from numpy.typing import NDArray

from colpali_integrations._options import checked_several
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.stores.filters import Filter

__all__ = [
    "FIRST",
    "FULL",
    "WORDS",
    "Engine",
    "OnOptimized",
    "Payload",
    "Point",
    "Scored",
    "Search",
    "VectorSpec",
    "in_order",
    "pieces",
    "several_ids",
    "strings",
]

# Names of the vectors of a point.
FULL = "full"
"""Every vector of the page, for MaxSim."""
FIRST = "first"
"""Fewer vectors of the same page, or a single one, for the first stage."""
WORDS = "words"
"""The page's text for BM25: a sparse vector, whose dimensions the engine weighs by their IDF.

A word that all points with words have weighs nothing (0); on several shards of a server, the rule is each shard's."""

OnOptimized: TypeAlias = Callable[[int, int], object]
"""Called with the number of vectors that a server has indexed so far, and that of all vectors."""
Payload: TypeAlias = dict[str, Any]
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """The format of one named vector.

    Attributes:
        dim: length of a vector.
        multi: whether a point has several vectors of this name, compared by MaxSim, or one.
        quantization: "int8", "int4", "int2" or "binary" for a smaller copy that is scanned first, "centroids" for an
            index.
        coarse: whether an engine may round the vectors to 8 bits, because they only choose candidates.
        code: by which the vectors are kept, or its bits alone count (`Engine.has_own_codes`); None for float16.
        longest: for a single vector: a length that hardly any one exceeds, if their lengths differ.
    """

    dim: int
    multi: bool = True
    quantization: str | None = None
    coarse: bool = False
    code: VectorCode | None = None
    longest: float | None = None


@dataclass(frozen=True)
class Point:
    """A record of an engine.

    Attributes:
        id: any string.
        vectors: by name: float16 (n, dim) for a multi-vector, float32 (dim,) for a single one.
        words: the sparse vector of its text; None for a point without text.
        payload: JSON-safe.
    """

    id: str
    vectors: Mapping[str, NDArray[Any]]
    words: SparseVector | None = None
    payload: Payload = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search, among the points that have the vector `using`.

    Attributes:
        query: float32 (n, dim) for a multi-vector, (dim,) for a single one, or a sparse vector.
        using: name of the vector that it is compared with.
        limit: number of points, the best first.
        where: only points whose payload fits.
        ids: only these points.
        prefetch: a search that chooses the candidates for this one. Its own `where` and `ids` are ignored: those of
            the outer search hold for both stages.
        oversampling: for a quantised vector, the scan of the small copies passes `oversampling * limit` points on to
            exact scoring, and the index of centroids at least so many; None scores all points exactly.
        scores_only: leave the payloads out of the results.
    """

    query: Float32 | SparseVector
    using: str = FULL
    limit: int
    where: Filter | None = None
    ids: Collection[str] | None = None
    prefetch: Search | None = None
    oversampling: float | None = None
    scores_only: bool = False


@dataclass(frozen=True)
class Scored:
    """A result of a search.

    Attributes:
        id: of the point.
        score: dot product, MaxSim or BM25, depending on the vector that was searched.
        payload: as stored; empty with `scores_only`.
    """

    id: str
    score: float
    payload: Payload = field(default_factory=dict)


class Engine(Protocol):
    """Storage and search of points.

    Methods may be called from any thread. When `upsert`, `update` and `delete` return, their changes are visible to
    later searches, and on disk for an engine that persists. A batch is stored whole or not at all. Ids that are not
    strings are unknown.

    Raises:
        StoreError: from every method, when the engine fails.
    """

    @property
    def where(self) -> str:
        """The kind and place of the store, for messages: "the store my-index"."""
        ...

    @property
    def max_numbers(self) -> int | None:
        """The most numbers that all vectors of a page may have; None for no limit."""
        ...

    @property
    def has_own_codes(self) -> bool:
        """Whether vectors of a `VectorSpec.code` are kept by a code of the engine's own, of as many bits per number."""
        ...

    @property
    def refuses_exact(self) -> str | None:
        """The message about an exact search where the engine refuses these, as some servers do; else None."""
        ...

    @property
    def refuses_changes(self) -> str | None:
        """The message about a change where the engine was opened for reading alone; else None.

        An engine on a server may have to ask for it, once.
        """
        ...

    @property
    def indexes(self) -> Mapping[str, str]:
        """The kinds of the indexes by metadata field, of a collection on a Qdrant server; none elsewhere."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Of a collection that another program has made: its layout and how it keeps the vectors; else empty."""
        ...

    @property
    def batches_at_once(self) -> int:
        """How many calls of `upsert` at once save time: several for a server, which works while others are sent."""
        ...

    @property
    def manifest(self) -> Mapping[str, Any]:
        """The mapping that was stored when the collection was created, or by `change_manifest`, JSON-safe."""
        ...

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the stored manifest by what a function makes of it, and return it; the same writes nothing.

        The function may be called again, where another process has changed the manifest meanwhile; its errors leave the
        manifest as it is.
        """
        ...

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids.

        Raises:
            PointsRefusedError: the engine refuses some of them, and has stored the others.
        """
        ...

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id; their vectors and words stay, so the text must be the same.

        Points that are gone are ignored, and so are those whose `content_hash` is another one: they were replaced after
        the payload was read.
        """
        ...

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        ...

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        ...

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        ...

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, with the value of `after` for the next batch; None at the end.

        `fields` restricts each payload to these top-level keys and the id; None reads all.
        """
        ...

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        ...

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that; asked before every search.

        An engine on a server may remember it for a minute, in which it does not see what other processes change.
        """
        ...

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each."""
        ...

    def has_words(self) -> bool:
        """Whether any point has words; remembered as `holds_more_than`."""
        ...

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches: for each its points by falling score, equal scores in any order."""
        ...

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Reorganise the files on disk after many changes. It may take long; searches go on meanwhile.

        `progress` is called by an engine that waits for a server.
        """
        ...

    def loading(self) -> AbstractContextManager[None]:
        """A block in which many points are added: what they need for searches may be made at its end, at once."""
        ...

    def close(self) -> None:
        """Release files and connections. Calling it twice does nothing."""
        ...


def several_ids(ids: Iterable[str] | str) -> list[str]:
    """Ids as a list: a generator's, or a single one.

    Raises:
        InputError: something else.

    Example:
        >>> several_ids("a"), several_ids(iter(["a", "b"]))
        (['a'], ['a', 'b'])
    """
    return [ids] if isinstance(ids, str) else list(checked_several(ids, "an id or several"))


def strings(ids: Iterable[object]) -> list[str]:
    """The ids that are strings; callers without type checks may pass other values."""
    return [id_ for id_ in ids if isinstance(id_, str)]


def in_order(ids: Iterable[object], found: Mapping[str, T]) -> list[T | None]:
    """Values by id in the order of `ids`, None for an unknown one.

    >>> in_order(["a", "b", 3], {"a": 1})
    [1, None, None]
    """
    return [found.get(id_) if isinstance(id_, str) else None for id_ in ids]


def pieces(items: Iterable[T], limit: int, size: Callable[[T], int] = lambda _: 1) -> Iterator[list[T]]:
    """Split items into lists whose sizes add up to at most `limit`; a larger item gets a list of its own.

    >>> list(pieces("abc", 2))
    [['a', 'b'], ['c']]
    """
    piece: list[T] = []
    total = 0
    for item in items:
        added = size(item)
        if piece and total + added > limit:
            yield piece
            piece, total = [], 0
        piece.append(item)
        total += added
    if piece:
        yield piece
