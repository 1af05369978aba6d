"""The engine of a Qdrant collection that another program has made, read and searched by its `Layout`."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from colpali_integrations.errors import ConfigurationError, StoreError
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
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.limits import MAX_SERVER_NUMBERS
from colpali_integrations.stores.qdrant import answers
from colpali_integrations.stores.qdrant.collection import (
    QdrantClient,
    describe,
    is_local,
    is_ours,
    models,
    server_version,
)
from colpali_integrations.stores.qdrant.errors import MADE_ELSEWHERE, reaching
from colpali_integrations.stores.qdrant.facets import Facets
from colpali_integrations.stores.qdrant.filters import translate
from colpali_integrations.stores.qdrant.foreign_documents import counted_documents
from colpali_integrations.stores.qdrant.foreign_payloads import (
    ForeignDialect,
    ForeignPayloads,
    fields_of,
    known_point,
)
from colpali_integrations.stores.qdrant.foreign_points import ForeignPoints
from colpali_integrations.stores.qdrant.indexes import Indexes
from colpali_integrations.stores.qdrant.loading import wait_until_indexed
from colpali_integrations.stores.qdrant.named_keys import check_keys
from colpali_integrations.stores.qdrant.narrowing import send_narrowing
from colpali_integrations.stores.qdrant.records import scrolled_records
from colpali_integrations.stores.qdrant.retries import calling
from colpali_integrations.stores.qdrant.rights import WriteRight
from colpali_integrations.stores.qdrant.sending import REQUEST_BYTES, payload_size, point_size, send_points
from colpali_integrations.stores.qdrant.strict import StrictMode, divided
from colpali_integrations.stores.qdrant.vectors import check_muvera, check_vectors, collection_facts, vector_params
from colpali_integrations.stores.refused import PointsRefusedError
from colpali_integrations.stores.remembered import KnownSize
from colpali_integrations.stores.scrolling import documents_by_scrolling
from colpali_integrations.stores.settings import LAYOUT, Settings, StoredModel

__all__ = ["ForeignEngine", "checked_settings"]

_REQUEST_NUMBERS = 1 << 20  # about 22 MB of decimals; the default limit of a server is 32 MiB
_RECORDS, _VECTORS = 1024, 16
_PICTURES = 16  # records with a picture of some MB each
_BATCHES_AT_ONCE = 3  # as to a collection of our own
# The client's imitation of a server is not thread-safe.
_LOCAL = threading.RLock()


def checked_settings(
    client: QdrantClient, collection: str, layout: Layout, model: StoredModel, *, writable: bool = False
) -> Settings:
    """The settings of a collection that another program has made, once it fits a layout and a model.

    Raises:
        StoreError: it does not exist, or `vectors.check_vectors`, or `named_keys.check_keys`.
        FingerprintError: its vectors are of another length than the model's.
        ConfigurationError: this package has made it, and records its settings there.
    """
    where = describe(client, collection)
    with reaching(where, missing=MADE_ELSEWHERE):
        if not client.collection_exists(collection):
            raise StoreError(f"{where} does not exist, and a layout makes none; check its name")
        info = client.get_collection(collection)
    if is_ours(info):
        raise ConfigurationError(f"{where} was made by colpali-integrations: open it without a layout")
    params = vector_params(info)
    is_cosine = check_vectors(params, layout, model, where)
    check_muvera(client, collection, layout, params, where)
    check_keys(client, collection, layout, StrictMode.of(info), where, writable=writable)
    if not is_cosine:
        return Settings(model=model, first_stage=LAYOUT)
    return Settings(model=replace(model, best_match=1.0), first_stage=LAYOUT, distance="cosine")


class ForeignEngine:
    """Points in a collection that another program has made on a Qdrant server.

    Nothing is written but with `writable`, and indexes are never made. Threads and processes may use it at once.

    Args:
        client: see `collection.connect`.
        collection: its name.
        layout: where it keeps what. Its vectors were checked, see `vectors.check_vectors`.
        manifest: of the store; the collection does not keep it.
        writable: whether points may be added, changed and removed.
        owns_client: whether closing this closes the client.

    Raises:
        StoreError: the server cannot be reached, or refuses.
    """

    has_own_codes = True

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        layout: Layout,
        manifest: Mapping[str, Any],
        writable: bool = False,
        owns_client: bool = False,
    ) -> None:
        self._client: QdrantClient | None = client
        self._collection, self._owns_client, self._writable = collection, owns_client, writable
        self.where = describe(client, collection)
        self._local = is_local(client)
        self.batches_at_once = 1 if self._local else _BATCHES_AT_ONCE
        self.max_numbers = None if self._local else MAX_SERVER_NUMBERS
        self._lock: contextlib.AbstractContextManager[Any] = _LOCAL if self._local else contextlib.nullcontext()
        self.manifest: Mapping[str, Any] = dict(manifest)
        self._layout = layout
        self._size = KnownSize(self.count)
        with self._using():
            info = client.get_collection(collection)
            [*sample], _ = client.scroll(collection, limit=1, with_payload=True, with_vectors=False)
        self._params, self._strict = vector_params(info), StrictMode.of(info)
        self._right = WriteRight(self._using, collection, self.where)
        self._indexes = Indexes(
            self._using,
            collection,
            self.where,
            strict=self._strict,
            schema=info.payload_schema,
            auto=False,  # it is another program's
            sample=lambda limit: (),
            ours=False,
        )
        whole_ids = any(isinstance(record.id, int) for record in sample)
        self._facets = Facets(collection, self._strict.limit)
        self._payloads = ForeignPayloads(
            layout, whole_ids=whole_ids, sample=(sample[0].payload or {}) if sample else {}
        )
        self._records_at_once = _RECORDS if layout.image is None else _PICTURES
        self._points = ForeignPoints(layout, self._params, self._payloads, self.where)
        self._dialect = ForeignDialect(
            self._payloads,
            self._read,
            substring=server_version(client) >= (1, 20),
            served=self._indexes,
            most=self._strict.operands,
        )

    @property
    def refuses_exact(self) -> str | None:
        """The message about exact searches, where the collection's strict mode forbids them."""
        if self._strict.exact:
            return None
        return (
            f"{self.where} forbids exact searches (strict mode, search_allow_exact=false). Search with "
            "mode='two_stage' or 'auto', and a layout whose first names vectors with a graph"
        )

    @property
    def refuses_changes(self) -> str | None:
        """The message about a change, where the caller has not asked for it, or the API key may only read."""
        if self._writable:
            return self._right.refusal()
        return (
            f"{self.where} was made by another program and is open for reading; pass writable=True to change it in "
            "its own layout, or copy it into a store of this package (copy_store)"
        )

    @property
    def indexes(self) -> Mapping[str, str]:
        """The kinds of the collection's indexes by the path of their key; this package makes none."""
        return self._indexes.all()

    @property
    def facts(self) -> Mapping[str, Any]:
        """The layout, and how the collection keeps the vectors."""
        return {"layout": self._layout.to_dict(), **collection_facts(self._params, self._layout)}

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest for this object: a collection of another program keeps none."""
        self.manifest = dict(change(self.manifest))
        return self.manifest

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points in the collection's own layout, in place of those with the same ids, but for refused ones."""
        self._require_writable()
        refused: dict[str, StoreError] = {}
        made = [self._points.point(point) for point in points]
        by_size = pieces(made, REQUEST_BYTES, lambda point: point_size(point, self._points.half))
        for some in (part for several in by_size for part in pieces(several, self._strict.batch)):
            with self._using() as client:
                lost = send_narrowing(some, partial(self._send, client), self.where)
            self._size.added(len(some) - len(lost))
            refused |= lost
        if refused:
            raise PointsRefusedError.of(refused)

    def _send(self, client: QdrantClient, points: Sequence[Point]) -> None:
        half, ids = self._points.half, self._payloads.point
        calling(client, lambda node: send_points(node, self._collection, points, half, ids))

    def update(self, payloads: Mapping[str, Payload]) -> None:
        """Replace the payloads of points, by id, unless their content has changed."""
        self._require_writable()
        by_size = pieces(strings(payloads), REQUEST_BYTES, lambda id_: payload_size(payloads[id_]))
        for some in (part for several in by_size for part in pieces(several, self._strict.batch)):
            stored = self._by_id(some, self._records_at_once, lambda one: one, with_payload=True)
            operations = [
                self._replacement(id_, payloads[id_], before.payload or {})
                for id_, before in stored.items()
                if (self._payload(before).get("content_hash") or "") == payloads[id_].get("content_hash", "")
            ]
            if operations:
                with self._using() as client:
                    client.batch_update_points(self._collection, operations, wait=True)

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are ignored."""
        self._require_writable()
        for some in pieces(map(self._payloads.point, strings(ids)), self._strict.removed):
            with self._using() as client:
                client.delete(self._collection, models.PointIdsList(points=[*some]), wait=True)
            self._size.removed(len(some))

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        return in_order(ids, self._by_id(ids, self._records_at_once, self._payload, with_payload=True))

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[Float32 | None]:
        """All vectors of each point, in the order of `ids`; None for an unknown one."""
        full = self._layout.full
        read = partial(_array, name=full, dim=self._params[full].size, where=self.where)
        found = self._by_id(ids, _VECTORS, read, with_vectors=[full] if full else True)
        return in_order(ids, {id_: array for id_, array in found.items() if array is not None})

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, in the order of the server's own ids."""
        keys = self._payloads.keys(fields)
        limit = min(limit, self._records_at_once) if keys is True else limit
        records, following = self._scroll(self._conditions(where), limit, after, keys)
        payloads = [self._payload(record) for record in records]
        if fields is not None:
            wanted = {*fields, "id"}
            payloads = [{key: one[key] for key in one if key in wanted} for one in payloads]
        return payloads, following

    def count(self, where: Filter | None = None) -> int:
        """Number of points, which the server estimates where its strict mode forbids exact answers."""
        return self._count(self._conditions(where))

    def _count(self, conditions: models.Filter | None) -> int:
        with self._using() as client:
            found = client.count(self._collection, count_filter=conditions, exact=self._strict.exact)
        return answers.counted(found.count, self.where)

    def holds_more_than(self, number: int) -> bool:
        """Whether there are more points than that; remembered for a minute."""
        return self._size.holds_more_than(number)

    def documents(self, where: Filter | None = None) -> dict[str, int]:
        """The ids of the documents of the points that fit, and the number of these points of each; see `Facets`."""
        counts = None
        if self._strict.exact:
            asked = self._using, self._facets, self._dialect, self._count, self._added
            counts = counted_documents(*asked, self._conditions(where))
        return documents_by_scrolling(self, where) if counts is None else counts

    def _added(self, conditions: models.Filter) -> Iterator[str | None]:
        """The documents of the pages that this package has added."""
        return (one.get("document_id") for one in self._all(conditions, self._payloads.keys(("document_id",))))

    def has_words(self) -> bool:
        """No: the layout has no vector of words."""
        return False

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches in as few requests as their sizes allow.

        Raises:
            ConfigurationError: a search by words.
        """
        if any(isinstance(search.query, SparseVector) for search in searches):
            raise ConfigurationError(
                f"{self.where} has no vector of words for a hybrid search: pass hybrid=False, or copy it into a store "
                "of this package (copy_store), which makes words of the pages' texts"
            )
        filters = {search.where: self._conditions(search.where) for search in searches}
        found: list[list[Scored]] = [[] for _ in searches]
        positions = [at for at, search in enumerate(searches) if len(search.query) and search.limit > 0]
        by_size = pieces(positions, _REQUEST_NUMBERS, lambda at: self._numbers_of(searches[at]))
        for some in (part for several in by_size for part in pieces(several, self._strict.searches or len(several))):
            requests = [self._request(searches[at], filters[searches[at].where]) for at in some]
            responses = divided(requests, self._asked)
            for at, response in answers.paired(some, responses, self.where):
                found[at] = sorted(self._scored(response, searches[at]), key=lambda one: -one.score)
        return found

    def _scored(self, response: models.QueryResponse, search: Search) -> Iterator[Scored]:
        for point in response.points:
            payload = self._payload(point)
            score = answers.scored(point.score, self.where)
            yield Scored(payload["id"], score, {} if search.scores_only else payload)

    def _asked(self, requests: Sequence[models.QueryRequest]) -> list[models.QueryResponse]:
        with self._using() as client:
            return client.query_batch_points(self._collection, requests)

    def optimize(self, progress: OnOptimized | None = None) -> None:
        """Wait until the server has reorganised its files, which it does by itself; no setting of it is changed."""
        if not self._local:
            wait_until_indexed(self._using, self._collection, self.where, progress, is_ours=False)

    def loading(self) -> contextlib.AbstractContextManager[None]:
        """Put nothing off: how the server indexes the collection is for the program that made it to say."""
        return contextlib.nullcontext()

    def close(self) -> None:
        """Release the client, and close it if it was made for this engine."""
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            client.close()

    # -- requests -----------------------------------------------------------------------------------------------------

    def _request(self, search: Search, conditions: models.Filter | None) -> models.QueryRequest:
        """A search in a request, with the layout's first stages where it has two."""
        if search.ids is not None:
            must = [] if conditions is None else [conditions]
            conditions = models.Filter(must=[*must, self._dialect.ids(set(map(self._payloads.point, search.ids)))])
        query = np.asarray(search.query, np.float32)
        prefetch = [
            models.Prefetch(
                query=self._points.query(query, name),
                using=name,
                limit=self._strict.page(_candidates(search)),
                filter=conditions,
            )
            for name in (self._layout.first if self._is_staged(search) else ())
        ]
        return models.QueryRequest(
            query=query.tolist(),
            using=self._layout.full or None,
            limit=search.limit,
            params=None if self._local else self._search_params(search, has_stage=bool(prefetch)),
            filter=conditions,
            prefetch=prefetch or None,
            with_payload=self._payloads.keys(()) if search.scores_only else True,
            with_vector=False,
        )

    def _search_params(self, search: Search, *, has_stage: bool) -> models.SearchParams:
        """Exact scores of all points, or of the candidates; without a first stage, the server's graph and copies."""
        if has_stage:
            return models.SearchParams(quantization=models.QuantizationSearchParams(ignore=True))
        if search.oversampling is None:
            return models.SearchParams(exact=True, quantization=models.QuantizationSearchParams(ignore=True))
        oversampling = self._strict.oversampled(search.oversampling)
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling),
            hnsw_ef=self._strict.candidates(_candidates(search)),
        )

    def _numbers_of(self, search: Search) -> int:
        """Upper bound of the numbers of a search in a request, without its filter; an id takes the bytes of two."""
        query = search.query
        if isinstance(query, SparseVector):
            return 0
        stages = [query.size]
        if self._is_staged(search):
            stages += [self._points.query_size(query, name) for name in self._layout.first]
        return sum(stages) + len(stages) * (2 * len(search.ids or ()) + 64)

    def _is_staged(self, search: Search) -> bool:
        return search.oversampling is not None or not self._strict.exact

    def _replacement(self, id_: str, payload: Payload, before: Payload) -> models.OverwritePayloadOperation:
        where = models.Filter(must=[self._dialect.ids([self._payloads.point(id_)])])  # by id alone a removed one fails
        changed = models.SetPayload(payload=self._payloads.raw(payload, before), filter=where)
        return models.OverwritePayloadOperation(overwrite_payload=changed)

    def _require_writable(self) -> None:
        if (refusal := self.refuses_changes) is not None:
            raise StoreError(refusal)

    # -- the server ---------------------------------------------------------------------------------------------------

    def _conditions(self, where: Filter | None) -> models.Filter | None:
        if where is None:
            return None
        fields = fields_of(where)
        return models.Filter(must=[translate(where, self._dialect, lambda among: self._read(among, fields))])

    def _read(self, among: Any, fields: Collection[str]) -> Iterator[Payload]:
        """Read the payloads for the part of a filter that Qdrant cannot express."""
        return self._all(among, self._payloads.filtered_keys(fields), fields)

    def _all(self, conditions: Any, keys: list[str] | bool, fields: Collection[str] | None = None) -> Iterator[Payload]:
        after = None
        while True:
            records, after = self._scroll(conditions, _RECORDS, after, keys)
            yield from (self._payloads.payload(one.id, one.payload or {}, fields=fields) for one in records)
            if after is None:
                return

    def _scroll(self, conditions: Any, limit: int, after: Any, keys: list[str] | bool) -> tuple[list[Any], Any]:
        page = self._strict.page(limit)
        return scrolled_records(self._using, self._collection, self.where, conditions, page, after, keys)

    def _by_id(self, ids: Sequence[str], most: int, read: Callable[[Any], Any], **parts: Any) -> dict[str, Any]:
        """What the points of some entries hold, by the ids of the caller, several of which may be one point's."""
        points = {id_: self._payloads.point(id_) for id_ in strings(ids)}
        found: dict[str | int, Any] = {}
        options = {"with_payload": False, "with_vectors": False, **parts}
        for some in pieces(dict.fromkeys(points.values()), min(most, self._strict.retrieved)):
            records = divided(some, partial(self._records, options))
            with answers.reading(self.where):
                found |= {known_point(record.id): read(record) for record in records}
        return {id_: found[point] for id_, point in points.items() if point in found}

    def _records(self, options: Mapping[str, Any], points: Sequence[str | int]) -> list[Any]:
        with self._using() as client:
            return client.retrieve(self._collection, points, **options)

    def _payload(self, record: Any) -> Payload:
        return self._payloads.payload(record.id, record.payload or {})

    @contextlib.contextmanager
    def _using(self) -> Iterator[QdrantClient]:
        client = self._client
        if client is None:
            raise StoreError(f"{self.where} was closed; open it again")
        with reaching(self.where, missing=MADE_ELSEWHERE), self._lock:
            yield client


def _array(record: Any, name: str, dim: int, where: str) -> Float32 | None:
    vector = record.vector.get(name) if isinstance(record.vector, dict) else record.vector
    return None if vector is None else answers.vectors(vector, dim, where)


def _candidates(search: Search) -> int:
    return max(search.limit, round((search.oversampling or 1) * search.limit))
