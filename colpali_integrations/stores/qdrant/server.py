"""The engine of a Qdrant server or cluster, through qdrant-client: many processes and machines share a collection.

Qdrant does sharding and replication. REST requests hold vectors as decimals with just the digits that a float16 needs
(8 bytes per number, where those of a float32 take 21), gRPC requests (`prefer_grpc=True`) take 4 bytes per number.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

import numpy as np

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.collection_options import checked_options
from colpali_integrations.stores.engine import (
    FIRST,
    FULL,
    WORDS,
    OnOptimized,
    Payload,
    Point,
    Scored,
    Search,
    VectorSpec,
    in_order,
    pieces,
    strings,
)
from colpali_integrations.stores.entries import id_of
from colpali_integrations.stores.filters import CONTENT, DOCUMENT, RESERVED, Condition, Filter, Operator
from colpali_integrations.stores.limits import MAX_SERVER_NUMBERS
from colpali_integrations.stores.qdrant import answers
from colpali_integrations.stores.qdrant.collection import (
    QdrantClient,
    check_client,
    connect,
    describe,
    is_local,
    models,
    open_collection,
    read_manifest,
    server_version,
    vector_sizes,
    write_manifest,
)
from colpali_integrations.stores.qdrant.common_words import CommonWords
from colpali_integrations.stores.qdrant.errors import is_denied, reaching
from colpali_integrations.stores.qdrant.facets import Facets
from colpali_integrations.stores.qdrant.filters import ClientDialect, point_id, translate
from colpali_integrations.stores.qdrant.graph import FirstGraph, check_graph, graph_params
from colpali_integrations.stores.qdrant.index_kinds import IndexKind
from colpali_integrations.stores.qdrant.indexes import Indexes
from colpali_integrations.stores.qdrant.key_order import with_order, without_order
from colpali_integrations.stores.qdrant.lifting import Lifting
from colpali_integrations.stores.qdrant.loading import bulk_load, wait_until_indexed
from colpali_integrations.stores.qdrant.narrowing import send_narrowing
from colpali_integrations.stores.qdrant.records import scrolled_records
from colpali_integrations.stores.qdrant.retries import calling, retrying
from colpali_integrations.stores.qdrant.rights import WriteRight
from colpali_integrations.stores.qdrant.sending import (
    FLOAT_BYTES,
    REQUEST_BYTES,
    payload_size,
    point_size,
    send_points,
    sparse,
)
from colpali_integrations.stores.qdrant.strict import NO_LIMITS, StrictMode, divided, in_rounds, largest
from colpali_integrations.stores.refused import PointsRefusedError
from colpali_integrations.stores.remembered import KnownSize, KnownWords
from colpali_integrations.stores.scrolling import documents_by_scrolling

__all__ = ["QdrantServerEngine", "check_client", "connect", "describe"]
__all__ += ["query_request", "read_manifest", "retrying"]

_logger = package_logger(__name__)

_RECORDS, _VECTORS = 1024, 16
_MANIFEST_ATTEMPTS = 30  # with 4 s of waits together
_BATCHES_AT_ONCE = 3  # the server stores while another batch is written and sent; each takes some 50 MB here
_MOST_VALUES = 1 << 15  # of a field; more are sent back in a filter no faster than points are read
# The client's imitation of a server is not thread-safe.
_LOCAL = threading.RLock()
_T = TypeVar("_T")


class QdrantServerEngine:
    """Points in a collection on a Qdrant server.

    Vectors of a `VectorSpec.code` are kept by the server's own code (TurboQuant) of as many bits per number: 8 or 4.
    The client's local mode, an imitation for tests, keeps all vectors as float32.

    Threads and processes may use it at once. A batch of points that does not fit into one request (about 24 MiB, 15 to
    20 pages of a thousand vectors) is split: each request is stored whole or not at all, and storing the batch again
    does no harm. With replicas, a read from another replica may briefly miss a write:
    `options={"write_consistency_factor": ...}` sets the number of replicas that confirm it, and `read_consistency` the
    number of those that must agree.

    Args:
        client: see `connect`.
        collection: its name; created if there is none.
        schema: the points' vectors.
        manifest: stored in the metadata of a new collection; an existing collection has its own.
        options: see `CollectionOptions`.
        owns_client: whether closing this closes the client.
        indexes: metadata fields that get an index, and its kind; see `indexes.Indexes`.
        auto_index: whether a filter that needs an index in a collection in strict mode makes it.

    Raises:
        StoreError: the server cannot be reached, refuses, or is older than 1.16, or the collection is not of this kind.
    """

    has_own_codes = True
    facts: Mapping[str, Any] = MappingProxyType({})  # the settings have them

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        schema: Mapping[str, VectorSpec],
        manifest: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        owns_client: bool = False,
        indexes: Mapping[str, IndexKind] | None = None,
        auto_index: bool = True,
    ) -> None:
        client = retrying(client)
        self._client: QdrantClient | None = client
        self._collection, self._owns_client = collection, owns_client
        self._where = describe(client, collection)
        self._local, self._is_grpc = is_local(client), bool(client.init_options.get("prefer_grpc"))
        self._size, self._words = KnownSize(self.count), KnownWords(self._has_words)
        self.max_numbers = None if self._local else MAX_SERVER_NUMBERS
        # The local mode stores all vectors as float32.
        self._several = frozenset(name for name, spec in schema.items() if spec.multi)
        self._half = frozenset() if self._local else self._several
        self.batches_at_once = 1 if self._local else _BATCHES_AT_ONCE
        self._lock: contextlib.AbstractContextManager[Any] = _LOCAL if self._local else contextlib.nullcontext()
        chosen = checked_options(options)
        check_graph(schema, chosen.graph, self._where)
        self._reading = {} if self._local else chosen.reading
        self.manifest: Mapping[str, Any]
        self.manifest, info = open_collection(
            client, collection, schema=schema, manifest=manifest, options=chosen.creation, graph=chosen.graph
        )
        self._strict, self._first = StrictMode.of(info), schema.get(FIRST)
        self._facets = Facets(collection, self._strict.limit, self._reading)
        self._sizes = vector_sizes(info)
        self._lifting = Lifting(schema, self._sizes)
        # Where exact searches are forbidden, no other search than by graph is answered.
        wanted = chosen.graph if self._strict.exact else True
        self._graph = FirstGraph(collection, info, wanted=wanted, grows=FIRST in self._lifting and not self._local)
        self._indexes = Indexes(
            self._using,
            collection,
            self._where,
            strict=self._strict,
            schema=info.payload_schema,
            auto=auto_index,
            sample=lambda limit: self._scroll(None, limit, None, ("metadata",))[0],
        )
        self._indexes.make_own()
        self._indexes.make(indexes or {})
        self._adapt_graph()
        self._dialect = ClientDialect(
            substring=server_version(client) >= (1, 20),
            values=self._values,
            served=self._indexes,
            most=self._strict.operands,
        )
        self._right = WriteRight(self._using, collection, self._where)
        self._common = CommonWords(self._using, collection, self._where, found=self._found, strict=self._strict)

    @property
    def where(self) -> str:
        """The collection and its server."""
        return self._where

    @property
    def refuses_exact(self) -> str | None:
        """Why exact searches are refused, for messages: the collection's strict mode; None where they are not."""
        return None if self._strict.exact else self._strict.refusal(self._where)

    @property
    def refuses_changes(self) -> str | None:
        """The message about a change where the API key may only read; None where it may write. It asks the server once.

        Raises:
            StoreError: the server has other reasons not to take a change.
        """
        return self._right.refusal()

    @property
    def indexes(self) -> Mapping[str, str]:
        """The kinds of the indexes by metadata field."""
        return self._indexes.fields()

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest by what a function makes of it.

        A server has no transaction for it: the manifest is read again after it was written, so that of two processes
        that write at the same time one finds the other's. The nodes of a cluster may tell it a moment later.
        """
        for attempt in range(_MANIFEST_ATTEMPTS):
            time.sleep(0.01 * max(0, attempt - 1))
            with self._using() as client:
                if (stored := read_manifest(client, self._collection)) is None:
                    raise StoreError(f"{self.where} has been removed since it was opened")
                self.manifest, changed = stored, change(stored)
                if changed == stored:
                    return stored
                write_manifest(client, self._collection, changed)
        raise StoreError(
            f"{self.where}: the server accepted new metadata of the collection {_MANIFEST_ATTEMPTS} times, and still "
            f"tells others; look at the server's log, and whether another process changes them all the time"
        )

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids; where the server refuses some, the others."""
        refused: dict[str, StoreError] = {}
        for some in self._pieces(points, lambda point: point_size(point, self._half)):
            with self._using() as client:
                lost = send_narrowing(some, partial(self._send, client), self.where)
            self._size.added(len(some) - len(lost))
            self._common.forget()
            for point in some:
                self._indexes.note(point.payload)
            refused |= lost
        if points:
            with self._using() as client:
                self._graph.grow(client, self.holds_more_than)
        if refused:
            raise PointsRefusedError.of(refused)

    def _send(self, client: QdrantClient, points: Sequence[Point]) -> None:
        sent = [self._lifting.point(point) for point in points]
        if self._is_grpc:
            sent = [replace(point, payload=self._sent(point.payload)) for point in sent]
        calling(client, lambda node: send_points(node, self._collection, sent, self._half))

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed; each is replaced whole."""
        for some in self._pieces(strings(payloads), lambda id_: payload_size(payloads[id_])):
            operations = [self._replacement(id_, payloads[id_]) for id_ in some]
            with self._using() as client:
                client.batch_update_points(self._collection, operations, wait=True)

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        for some in pieces(map(point_id, strings(ids)), self._strict.removed):
            with self._using() as client:
                client.delete(self._collection, models.PointIdsList(points=[*some]), wait=True)
            self._size.removed(len(some))
            self._words.forget()
            self._common.forget()

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        names = {point_id(id_): id_ for id_ in strings(ids)}
        payloads: dict[str, Payload] = {}
        for some in pieces(names, self._strict.retrieved):
            records = self._records(some, with_payload=True, with_vectors=False)
            with answers.reading(self.where):
                payloads |= {names[str(record.id)]: without_order(record.payload or {}) for record in records}
        return in_order(ids, payloads)

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        names = {point_id(id_): id_ for id_ in strings(ids)}
        vectors: dict[str, Float32] = {}
        read = partial(answers.vectors, dim=self._sizes[name], where=self.where, several=name in self._several)
        for some in pieces(names, min(_VECTORS, self._strict.retrieved)):
            for record in self._records(some, with_payload=False, with_vectors=[name]):
                if isinstance(record.vector, dict) and name in record.vector:
                    with answers.reading(self.where):
                        id_ = names[str(record.id)]
                    vectors[id_] = self._lifting.vector(name, read(record.vector[name]))
        return in_order(ids, vectors)

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order of the server's own ids."""
        return self._scroll(self._conditions(self._translated(where)), limit, after, fields)

    def count(self, where: Filter | None = None) -> int:
        """Number of points, which the server estimates where its strict mode forbids exact answers."""
        conditions = self._conditions(self._translated(where))
        with self._using() as client:
            found = client.count(self._collection, count_filter=conditions, exact=self._strict.exact)
        return answers.counted(found.count, self.where)

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that; remembered for a minute."""
        return self._size.holds_more_than(number)

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each, by a facet."""
        conditions = self._conditions(self._translated(where))
        with self._using() as client:
            counts = self._facets.counts(client, RESERVED[DOCUMENT], conditions)
        return documents_by_scrolling(self, where) if counts is None else answers.counts(counts, self.where)

    def has_words(self) -> bool:
        """Whether any point has words; a yes is remembered for a minute."""
        return self._words.has()

    def _has_words(self) -> bool:
        condition = models.Filter(must=[models.HasVectorCondition(has_vector=WORDS)])
        return bool(self._scroll(condition, 1, None, ())[0])

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches in as few requests as their sizes and the collection's limits allow.

        Words that all points with words have are left out; see `common_words`.

        Raises:
            ConfigurationError: an exact search, and the collection's strict mode forbids it.
        """
        searches = self._common.without(searches)
        filters = {search.where: self._translated(search.where) for search in searches}
        found: list[list[Scored]] = [[] for _ in searches]
        asked: list[tuple[int, Search, models.Filter | None]] = []
        most = self._strict.limit
        for position, search in enumerate(searches):
            for part in self._strict.parts(search, self._first, self._where) if _answerable(search) else ():
                conditions = self._conditions(filters[search.where], part.ids)
                if most is not None and largest(part) > most:
                    found[position] += in_rounds(part, most, partial(self._round, conditions))
                else:
                    asked.append((position, part, conditions))
        for some in pieces(asked, REQUEST_BYTES, lambda one: _search_size(one[1])):
            requests = [(part, conditions) for _, part, conditions in some]
            for (position, *_), results in zip(some, self._found(requests), strict=True):
                found[position] += results
        return [
            sorted(results, key=lambda one: -one.score)[: search.limit]
            for search, results in zip(searches, found, strict=True)
        ]

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Wait until the server has reorganised its files, which it does by itself, and switch indexing on before."""
        if not self._local:
            wait_until_indexed(self._using, self._collection, self._where, progress)

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """Have the server index nothing until the end of the block."""
        return contextlib.nullcontext() if self._local else bulk_load(self._using, self._collection)

    def close(self) -> None:
        """Release the client, and close it if it was made for this engine."""
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            client.close()

    # -- searching ----------------------------------------------------------------------------------------------

    def _round(self, conditions: models.Filter | None, search: Search, but: Collection[str]) -> list[Scored]:
        """A search that leaves out the points of some ids."""
        if but:
            left_out = self._dialect.ids({point_id(id_) for id_ in but})
            conditions = models.Filter(must=None if conditions is None else [conditions], must_not=[left_out])
        return self._found([(search, conditions)])[0]

    def _found(self, searches: Sequence[tuple[Search, models.Filter | None]]) -> list[list[Scored]]:
        """The results of searches with their conditions, in as many requests as the collection's limits need."""
        found: list[list[Scored]] = []
        for some in pieces(searches, self._strict.searches or len(searches)):
            found += divided(some, self._asked)
        return found

    def _asked(self, searches: Sequence[tuple[Search, models.Filter | None]]) -> list[list[Scored]]:
        staged = any(search.prefetch is not None for search, _ in searches)
        by_graph = staged and self._graph.is_used(self.holds_more_than)
        ways: dict[str, Any] = {"local": self._local, "strict": self._strict, "by_graph": by_graph}
        requests = [query_request(self._lifting.search(search), conditions, **ways) for search, conditions in searches]
        with self._using() as client:
            responses = client.query_batch_points(self._collection, requests, **self._reading)
        found = []
        for (search, _), response in answers.paired(searches, responses, self.where):
            with answers.reading(self.where):
                payloads = [(without_order(point.payload or {}), point.score) for point in response.points]
            found.append(
                [
                    Scored(id_of(one), answers.scored(score, self.where), {} if search.scores_only else one)
                    for one, score in payloads
                ]
            )
        return found

    # -- translation --------------------------------------------------------------------------------------------

    def _translated(self, where: Filter | None) -> Any:
        return None if where is None else translate(where, self._dialect, self._payloads)

    def _conditions(self, native: Any, ids: Collection[str] | None = None) -> models.Filter | None:
        must = [] if native is None else [native]
        if ids is not None:
            must.append(self._dialect.ids({point_id(id_) for id_ in strings(ids)}))
        return models.Filter(must=must) if must else None

    def _sent(self, payload: Payload) -> Payload:
        return with_order(payload) if self._is_grpc else payload

    def _replacement(self, id_: str, payload: Payload) -> models.OverwritePayloadOperation:
        """The replacement of a point's payload if its content is the same; by id alone it fails for a removed point."""
        payload = self._sent(payload)
        content = payload.get("content_hash")
        operator, value = (Operator.EXISTS, False) if content is None else (Operator.EQ, content)
        conditions = self._conditions(self._translated(Condition(CONTENT, operator, value)), [id_])
        return models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, filter=conditions))

    def _values(self, key: str) -> Collection[str] | None:
        """The distinct texts of a field, for filters."""
        if self._indexes.kind(key) not in ("text", "tenant"):
            return None
        with self._using() as client:
            return self._facets.counts(client, key, most=_MOST_VALUES)

    def _adapt_graph(self) -> None:
        try:
            with self._using() as client:
                self._graph.adapt(client)
        except StoreError as error:
            if self._strict.exact or not is_denied(error):
                raise
            _logger.warning("%s; it searches only once the first stage has a graph", error)

    def _payloads(self, conditions: Any) -> Iterator[Payload]:
        """Read the payloads for the part of a filter that Qdrant cannot express."""
        after = None
        while True:
            batch, after = self._scroll(conditions, _RECORDS, after, (*RESERVED.values(), "metadata"))
            for payload in batch:
                self._indexes.note(payload)
                yield payload
            if after is None:
                return

    # -- the server ---------------------------------------------------------------------------------------------

    def _pieces(self, items: Iterable[_T], size: Callable[[_T], int]) -> Iterator[list[_T]]:
        """Split what is written into requests that the server takes."""
        for some in pieces(items, REQUEST_BYTES, size):
            yield from pieces(some, self._strict.batch)

    def _records(self, ids: Sequence[str], **options: Any) -> list[models.Record]:
        def read(some: Sequence[str]) -> list[models.Record]:
            with self._using() as client:
                return client.retrieve(self._collection, some, **options, **self._reading)

        return divided(ids, read)

    def _scroll(
        self, conditions: Any, limit: int, after: Any, fields: Collection[str] | None
    ) -> tuple[list[Payload], Any]:
        selected: Any = True if fields is None else [*{*fields, "id"}]
        records, following = scrolled_records(
            self._using,
            self._collection,
            self.where,
            conditions,
            self._strict.page(limit),
            after,
            selected,
            self._reading,
        )
        with answers.reading(self.where):
            return [without_order(record.payload or {}) for record in records], following

    @contextlib.contextmanager
    def _using(self) -> Iterator[QdrantClient]:
        client = self._client
        if client is None:
            raise StoreError(f"{self.where} was closed; open it again")
        with reaching(self.where), self._lock:
            yield client


def query_request(
    search: Search,
    conditions: models.Filter | None,
    *,
    local: bool,
    strict: StrictMode = NO_LIMITS,
    by_graph: bool = False,
) -> models.QueryRequest:
    """A search in a request; the conditions hold for both of its stages. The local mode refuses parameters.

    Args:
        search: the search.
        conditions: its filter.
        local: whether it is for the client's local mode.
        strict: the limits of the collection.
        by_graph: whether the first stage is searched by its graph; among given ids it is scanned all the same.
    """
    inner = search.prefetch
    prefetch = None
    if inner is not None:
        params = _params(inner, local, strict)
        if by_graph and not local and search.ids is None:
            params = graph_params(strict.candidates(inner.limit), filtered=conditions is not None)
        prefetch = models.Prefetch(
            query=_query(inner),
            using=inner.using,
            limit=inner.limit,
            params=params,
            filter=conditions,
        )
    return models.QueryRequest(
        query=_query(search),
        using=search.using,
        limit=search.limit,
        params=_params(search, local, strict),
        filter=conditions,
        prefetch=prefetch,
        with_payload=["id"] if search.scores_only else True,
        with_vector=False,
    )


def _answerable(search: Search | None) -> bool:
    """Whether the search can have results: servers refuse empty queries and a limit of 0."""
    return search is None or (len(search.query) > 0 and search.limit > 0 and _answerable(search.prefetch))


def _search_size(search: Search) -> int:
    """Upper bound of the bytes of a search in a request, without its filter. Each stage has all ids, as UUIDs."""
    query = search.query
    numbers = 2 * len(query) if isinstance(query, SparseVector) else query.size
    ids = 40 * len(search.ids or ())
    return numbers * FLOAT_BYTES + ids + 1024 + (0 if search.prefetch is None else _search_size(search.prefetch) + ids)


def _query(search: Search) -> Any:
    if isinstance(search.query, SparseVector):
        return sparse(search.query)
    return np.asarray(search.query, np.float32).tolist()


def _params(search: Search, local: bool, strict: StrictMode) -> models.SearchParams | None:
    if local or isinstance(search.query, SparseVector):
        return None
    if not strict.exact:
        return None if search.using == FULL else models.SearchParams(hnsw_ef=strict.candidates(search.limit))
    if search.oversampling is None:
        return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
    oversampling = strict.oversampled(search.oversampling)
    return models.SearchParams(
        quantization=models.QuantizationSearchParams(ignore=False, rescore=True, oversampling=oversampling)
    )
