"""The Qdrant engine as a server or cluster, through qdrant-client: many processes and machines on one collection.

Sharding and replication are Qdrant's. Over REST the vectors travel as decimals with just the digits that a float16
needs (9 bytes a number, where float32's own digits take 21), over gRPC (`prefer_grpc=True`) in 4 bytes.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.engine import FULL, Payload, Point, Scored, Search, VectorSpec
from colpali_integrations.stores.filters import RESERVED, Filter
from colpali_integrations.stores.qdrant.collection import (
    QdrantClient,
    connect,
    describe,
    is_local,
    models,
    open_collection,
    read_manifest,
    server_version,
)
from colpali_integrations.stores.qdrant.errors import reaching
from colpali_integrations.stores.qdrant.filters import ClientDialect, point_id, translate
from colpali_integrations.stores.qdrant.requests import (
    answerable,
    pieces,
    point_size,
    point_struct,
    query_request,
    scored,
    search_size,
)

__all__ = ["QdrantServerEngine", "connect", "read_manifest"]

# A server takes requests of up to 32 MiB, unless it is told otherwise.
_REQUEST_BYTES = 24 << 20
_RECORDS, _VECTORS = 1024, 16
# The client's imitation of a server is not thread-safe.
_LOCAL = threading.RLock()


class QdrantServerEngine:
    """Points in a collection on a Qdrant server.

    Safe to use from several threads, and by several processes at once. A batch of points that does not fit into one
    request (about 24 MiB, 15 to 20 pages of a thousand vectors) goes in several: each is stored whole or not at all,
    and storing the batch again does no harm. With replicas, what was written may be missing for a moment where it is
    read from another replica: `options={"write_consistency_factor": ...}` says how many must have it first.

    Args:
        client: see `connect`.
        collection: made if there is none.
        schema: the points' vectors.
        manifest: kept in the collection's metadata when it is made; afterwards the collection's own holds.
        options: of `QdrantClient.create_collection`, for a collection that is made: `shard_number`,
            `replication_factor`, ...
        owns_client: whether closing this closes the client.

    Raises:
        StoreError: the server cannot be reached or refused, is older than 1.16, or the collection is not of this kind.
    """

    def __init__(
        self,
        client: QdrantClient,
        collection: str,
        *,
        schema: Mapping[str, VectorSpec],
        manifest: Mapping[str, Any],
        options: Mapping[str, Any] | None = None,
        owns_client: bool = False,
    ) -> None:
        self._client: QdrantClient | None = client
        self._collection, self._owns_client = collection, owns_client
        self._where = describe(client, collection)
        self._local = local = is_local(client)
        # It keeps float32.
        self._half = frozenset[str]() if local else frozenset(name for name, spec in schema.items() if spec.multi)
        self._lock: contextlib.AbstractContextManager[Any] = _LOCAL if local else contextlib.nullcontext()
        self.manifest: Mapping[str, Any] = open_collection(
            client, collection, schema=schema, manifest=manifest, options=options or {}
        )
        self._dialect = ClientDialect(substring=server_version(client) >= (1, 20))

    @property
    def where(self) -> str:
        """The collection and its server."""
        return self._where

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        piece: list[models.PointStruct] = []
        size = 0
        for point in points:
            made, bytes_ = point_struct(point, self._half), point_size(point, self._half)
            if piece and size + bytes_ > _REQUEST_BYTES:
                self._upsert(piece)
                piece, size = [], 0
            piece.append(made)
            size += bytes_
        self._upsert(piece)

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are passed over."""
        for some in pieces([point_id(id_) for id_ in ids], _RECORDS):
            with self._using() as client:
                client.delete(self._collection, models.PointIdsList(points=list(some)), wait=True)

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        found: dict[str, Payload] = {}
        for some in pieces([point_id(id_) for id_ in ids], _RECORDS):
            with self._using() as client:
                records = client.retrieve(self._collection, list(some), with_payload=True, with_vectors=False)
            found |= {str(record.id): record.payload or {} for record in records}
        return [found.get(point_id(id_)) for id_ in ids]

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[NDArray[np.float32] | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        found: dict[str, NDArray[np.float32]] = {}
        for some in pieces([point_id(id_) for id_ in ids], _VECTORS):
            with self._using() as client:
                records = client.retrieve(self._collection, list(some), with_payload=False, with_vectors=[name])
            for record in records:
                if isinstance(record.vector, dict) and name in record.vector:
                    found[str(record.id)] = np.array(record.vector[name], np.float32)
        return [found.get(point_id(id_)) for id_ in ids]

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Payloads, a piece at a time, in the order of the server's own ids."""
        return self._scroll(self._filter(where), limit, after, fields)

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        conditions = self._filter(where)
        with self._using() as client:
            return int(client.count(self._collection, count_filter=conditions, exact=True).count)

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches by as few requests as fit."""
        translated: dict[Filter, Any] = {}
        for search in searches:
            if search.where is not None and search.where not in translated:
                translated[search.where] = translate(search.where, self._dialect, self._payloads)
        asked = [position for position, search in enumerate(searches) if answerable(search)]
        answers: list[list[Scored]] = [[] for _ in searches]
        groups: list[list[int]] = [[]]
        size = 0
        for position in asked:
            bytes_ = search_size(searches[position])
            if groups[-1] and size + bytes_ > _REQUEST_BYTES:
                groups.append([])
                size = 0
            groups[-1].append(position)
            size += bytes_
        for group in filter(None, groups):
            requests = [self._request(searches[position], translated) for position in group]
            with self._using() as client:
                responses = client.query_batch_points(self._collection, requests)
            for position, response in zip(group, responses, strict=True):
                answers[position] = scored(searches[position], response.points)
        return answers

    def optimize(self) -> None:
        """Nothing to do: a server reorganises its files by itself."""

    def close(self) -> None:
        """Let go of the client, and close it if it was made for this engine."""
        client, self._client = self._client, None
        if client is not None and self._owns_client:
            client.close()

    # -- translation --------------------------------------------------------------------------------------------

    def _request(self, search: Search, translated: Mapping[Filter, Any]) -> models.QueryRequest:
        native = None if search.where is None else translated[search.where]
        return query_request(search, self._conditions(native, search.ids), local=self._local)

    def _filter(self, where: Filter | None) -> models.Filter | None:
        return self._conditions(None if where is None else translate(where, self._dialect, self._payloads), None)

    def _conditions(self, native: Any, ids: Collection[str] | None) -> models.Filter | None:
        must = [] if native is None else [native]
        if ids is not None:
            must.append(self._dialect.ids({point_id(id_) for id_ in ids}))
        return models.Filter(must=must) if must else None

    def _payloads(self, conditions: Any) -> Iterator[Payload]:
        """What the part of a filter that Qdrant cannot express is decided by."""
        after = None
        while True:
            found, after = self._scroll(conditions, _RECORDS, after, (*RESERVED.values(), "metadata"))
            yield from found
            if after is None:
                return

    # -- the server ---------------------------------------------------------------------------------------------

    def _scroll(
        self, conditions: Any, limit: int, after: Any, fields: Collection[str] | None
    ) -> tuple[list[Payload], Any]:
        wanted: Any = True if fields is None else [*{*fields, "id"}]
        with self._using() as client:
            records, following = client.scroll(
                self._collection,
                scroll_filter=conditions,
                limit=limit,
                offset=after,
                with_payload=wanted,
                with_vectors=False,
            )
        return [record.payload or {} for record in records], following

    def _upsert(self, points: list[models.PointStruct]) -> None:
        if points:
            with self._using() as client:
                client.upsert(self._collection, points, wait=True)

    @contextlib.contextmanager
    def _using(self) -> Iterator[QdrantClient]:
        client = self._client
        if client is None:
            raise StoreError(f"{self.where} was closed; open it again")
        with reaching(self.where), self._lock:
            yield client
