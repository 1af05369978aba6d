"""The engine of a store on a server, for other machines."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeVar

from colpali_integrations.errors import ColPaliError, InputError, StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import (
    FULL,
    OnOptimized,
    Payload,
    Point,
    Scored,
    Search,
    in_order,
    pieces,
    strings,
)
from colpali_integrations.stores.filters import Filter
from colpali_integrations.stores.limits import MAX_VECTORS
from colpali_integrations.stores.remembered import KnownSize, KnownWords
from colpali_integrations.stores.served.wire import (
    MOST_RECORDS,
    MOST_SEARCHES,
    known_ids,
    packed_filter,
    packed_point,
    packed_search,
    read_scored,
    reading,
    unpacked,
)

__all__ = ["Caller", "ServedEngine"]

Result = TypeVar("Result")

_PATH = "/v1/engine"
# A server takes bodies of 32 MiB, and one point may be larger than a piece.
_REQUEST_BYTES, _RECORDS, _VECTORS = 8 << 20, 1024, 32
_MOST_NUMBERS = 1 << 22  # of a page's vectors: 11 MiB in base64


class Caller(Protocol):
    """What sends the calls: a `models.connection.Connection`."""

    @property
    def url(self) -> str:
        """Of the server."""

    def post(self, path: str, body: Mapping[str, Any], kind: type[ColPaliError]) -> dict[str, Any]:
        """Send a JSON object, and return the answer."""

    def close(self) -> None:
        """Close the connections."""


class ServedEngine:
    """Points in the store of a server (`colpali-integrations serve`).

    Threads and machines may use it at once. A batch of points that does not fit into one request (about 8 MiB) is
    split: each request is stored whole or not at all, and storing the batch again does no harm.

    Args:
        caller: sends the calls.

    Raises:
        StoreError: the server cannot be reached, or its store cannot be used.
        ConfigurationError: the server refuses the API key, or needs one.
    """

    batches_at_once = 1  # the server writes one after the other

    def __init__(self, caller: Caller) -> None:
        self._caller: Caller | None = caller
        self._url = caller.url
        self._size = KnownSize(self.count)
        self._words = KnownWords(lambda: self._call("has_words", bool))
        self.manifest: Mapping[str, Any]
        opened = self._call("manifest", lambda result: (*_opened(result), dict(result)))
        self.manifest, most, self.has_own_codes, facts = opened
        self.refuses_exact: str | None = facts.get("refuses_exact")  # older servers have none of these
        self.refuses_changes: str | None = facts.get("refuses_changes")
        self.indexes: Mapping[str, str] = facts.get("indexes") or {}
        self.facts: Mapping[str, Any] = facts.get("facts") or {}
        self.max_numbers = _MOST_NUMBERS if most is None else min(_MOST_NUMBERS, most)

    @property
    def where(self) -> str:
        """The server."""
        return f"the store on the server {self._url}"

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest by what a function makes of it, unless another process has changed it meanwhile."""
        self.manifest, *_ = self._call("manifest", _opened)
        while True:
            expected, changed = self.manifest, dict(change(self.manifest))
            if changed == expected:
                return expected
            self.manifest = self._call(
                "change_manifest", lambda one: dict(one["manifest"]), expected=dict(expected), manifest=changed
            )
            if self.manifest == changed:
                return changed

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        for some in pieces(points, _REQUEST_BYTES, _point_size):
            self._call("upsert", _nothing, points=[packed_point(point) for point in some])
            self._size.added(len(some))

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        for some in pieces(known_ids(payloads), _REQUEST_BYTES, lambda id_: _share(len(json.dumps(payloads[id_])))):
            self._call("update", _nothing, payloads={id_: payloads[id_] for id_ in some})

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        for some in pieces(known_ids(ids), _RECORDS):
            self._call("delete", _nothing, ids=some)
            self._size.removed(len(some))
            self._words.forget()

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        found: dict[str, Payload] = {}
        for some in pieces(dict.fromkeys(known_ids(ids)), _RECORDS):
            payloads = self._call("retrieve", lambda ones: [one and dict(one) for one in ones], ids=some)
            found |= self._known(some, payloads)
        return in_order(ids, found)

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        found: dict[str, Float32] = {}
        for some in pieces(dict.fromkeys(known_ids(ids)), _VECTORS):
            arrays = self._call("vectors", lambda ones: [one and unpacked(one) for one in ones], ids=some, name=name)
            found |= self._known(some, arrays)
        return in_order(ids, found)

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order of the server's engine."""
        return self._call(
            "scroll",
            lambda one: ([dict(payload) for payload in one["payloads"]], one["after"]),
            where=packed_filter(where),
            limit=limit,
            after=after,
            fields=None if fields is None else strings(fields),
        )

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        return self._call("count", int, where=packed_filter(where))

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that; remembered for a minute."""
        return self._size.holds_more_than(number)

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each."""
        return self._call("documents", _counts, where=packed_filter(where))

    def has_words(self) -> bool:
        """Whether any point has words; a yes is remembered for a minute."""
        return self._words.has()

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches in as few requests as their sizes allow."""
        answers: list[list[Scored]] = []
        for some in pieces(searches, _REQUEST_BYTES, _search_size):
            found = self._call("search", _scored, searches=[packed_search(search) for search in some])
            self._require(len(found) == len(some))
            answers += found
        return answers

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Let the server's engine reorganise its files."""
        self._call("optimize", _nothing)

    def loading(self) -> AbstractContextManager[None]:
        """Put nothing off."""
        return nullcontext()

    def close(self) -> None:
        """Close the connections; the server's store stays open there."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.close()

    def _call(self, call: str, read: Callable[[Any], Result], **arguments: Any) -> Result:
        if self._caller is None:
            raise StoreError(f"{self.where} was closed; open it again")
        answer = self._caller.post(_PATH, {"call": call, "arguments": arguments}, StoreError)
        self._require("result" in answer)
        try:
            return reading(lambda: read(answer["result"]), "the answer")
        except InputError as error:
            raise self._other_way() from error

    def _known(self, ids: Sequence[str], found: Sequence[Result | None]) -> dict[str, Result]:
        self._require(len(found) == len(ids))
        return {id_: one for id_, one in zip(ids, found, strict=True) if one is not None}

    def _require(self, is_expected: bool) -> None:
        if not is_expected:
            raise self._other_way()

    def _other_way(self) -> StoreError:
        return StoreError(f"{self.where} answers in another way; install one version of this package on both sides")


def _nothing(result: Any) -> None:
    """Calls that change the store have no result."""


def _opened(result: Any) -> tuple[Mapping[str, Any], int | None, bool]:
    most = result["max_numbers"]
    return dict(result["manifest"]), None if most is None else int(most), bool(result["has_own_codes"])


def _counts(result: Any) -> dict[str, int]:
    return {str(document): int(number) for document, number in result.items()}


def _scored(result: Any) -> list[list[Scored]]:
    return [[read_scored(one) for one in results] for results in result]


def _point_size(point: Point) -> int:
    """About the bytes of a point in a request."""
    numbers = sum(array.nbytes for array in point.vectors.values()) + 8 * len(point.words or ())
    return _share(4 * numbers // 3 + len(json.dumps(point.payload)) + 1024)


def _search_size(search: Search) -> int:
    """About the bytes of a search in a request, without its filter."""
    inner = 0 if search.prefetch is None else _search_size(search.prefetch)
    if isinstance(search.query, SparseVector):
        numbers, vectors = 8 * len(search.query), 1
    else:
        numbers, vectors = search.query.nbytes, len(search.query) if search.query.ndim == 2 else 1
    size = 4 * numbers // 3 + 4 * sum(map(len, strings(search.ids or ()))) + inner + 1024
    return max(_share(size, MOST_SEARCHES), _share(0, MAX_VECTORS) * vectors)


def _share(size: int, most: int = MOST_RECORDS) -> int:
    """The bytes of an item, or more, so that at most so many items fit into a request."""
    return max(size, -(-_REQUEST_BYTES // most))
