"""As `qdrant_stand_in`, for the gRPC interface."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
from qdrant_client import QdrantClient, models
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc
from qdrant_client.grpc.collections_service_pb2_grpc import CollectionsServicer, add_CollectionsServicer_to_server
from qdrant_client.grpc.points_service_pb2_grpc import PointsServicer, add_PointsServicer_to_server
from qdrant_client.grpc.qdrant_pb2_grpc import QdrantServicer, add_QdrantServicer_to_server

from tests.stores.qdrant import refusals
from tests.stores.qdrant.profiles import StrictModes
from tests.stores.qdrant.refusals import Cluster, Refusal
from tests.stores.qdrant.stand_in import VERSION, StandIn, facet_hits


class GrpcStandIn:
    """Answers on a port of this machine's loopback.

    Args:
        rest: the REST interface of the same server, which has the same collections.

    Attributes:
        port: which.
        received: bytes of all points that were sent.
        indexes: fields with an index.
        refuse: if set, with what every request is refused.
        cluster: the other nodes, which may be lost; None without.
        strict: the strict mode of the collections, for upserts and counts.
    """

    def __init__(self, rest: StandIn | None = None) -> None:
        self.client = QdrantClient(":memory:") if rest is None else rest.client
        self.lock = threading.Lock() if rest is None else rest.lock
        self.version = VERSION if rest is None else rest.version
        self.received = 0
        self.indexes: set[str] = set()
        self.refuse: grpc.StatusCode | None = None
        self.cluster: Cluster | None = None
        self.strict = StrictModes(None, lambda: 0.0)
        self.confirmed: dict[str, int] = {}  # write_consistency_factor
        self.port = 0

    def start(self) -> None:
        """Answer, at the port of before."""
        self.server = grpc.server(
            ThreadPoolExecutor(4), interceptors=[_Refusing(self)], options=[("grpc.max_receive_message_length", -1)]
        )
        self.port = self.server.add_insecure_port(f"127.0.0.1:{self.port}")
        add_CollectionsServicer_to_server(_Collections(self), self.server)  # type: ignore[no-untyped-call]
        add_PointsServicer_to_server(_Points(self), self.server)  # type: ignore[no-untyped-call]
        add_QdrantServicer_to_server(_Root(self), self.server)  # type: ignore[no-untyped-call]
        self.server.start()

    def stop(self) -> None:
        """Refuse connections; collections stay."""
        self.server.stop(None).wait()

    def check(self, method: str, request: Any) -> None:
        """Refuse what a server refuses, in the words that it has over REST too."""
        name = getattr(request, "collection_name", "")
        exists = bool(name) and self.client.collection_exists(name)
        if method == "Create":
            if exists:
                raise refusals.exists_already(name)
            self.confirmed[name] = request.write_consistency_factor or 1
        elif (
            name and not exists and method != "CollectionExists" and not isinstance(request, messages.DeleteCollection)
        ):
            raise refusals.missing(name)
        if method == "Upsert":
            refusals.check_grpc_points(request.points)
            params: Any = self.client.get_collection(name).config.params
            named = params.vectors if isinstance(params.vectors, dict) else {}  # not the one without a name
            dims = {one: vector.size for one, vector in named.items()}
            for point in map(GrpcToRest.convert_point_struct, request.points):
                refusals.check_vectors(point.vector, dims, params.sparse_vectors or {})
        if self.strict.holds(name) and (asked := _as_json(method, request)) is not None:
            vectors = self.client.get_collection(name).config.params.vectors
            self.strict.check(name, "PUT" if method == "Upsert" else "POST", _PATHS[method], asked, vectors)
        if self.cluster is not None and method in _PATHS:
            path = f"/collections/{name or request.query_points[0].collection_name}/{_PATHS[method]}"
            self.cluster.check("POST", path, {}, confirmed=self.confirmed.get(name, 1))


_PATHS = {"Upsert": "points", "UpdateBatch": "points/batch", "Delete": "points/delete", "Count": "points/count"}
_PATHS |= {"QueryBatch": "points/query/batch", "Query": "points/query", "Scroll": "points/scroll", "Facet": "facet"}
_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ALREADY_EXISTS,
    422: grpc.StatusCode.INVALID_ARGUMENT,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    500: grpc.StatusCode.INTERNAL,
}


def _as_json(method: str, request: Any) -> bytes | None:
    """What strict mode looks at, as REST has it; None of other requests."""
    if method == "Upsert":
        return json.dumps({"points": [{}] * len(request.points)}).encode()
    if method == "Count":
        return json.dumps({"exact": request.exact}).encode()
    return None


class _Refusing(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """Answers every call one after another, for the sake of the imitation; or refuses it."""

    def __init__(self, stand_in: GrpcStandIn) -> None:
        self.stand_in = stand_in

    def intercept_service(self, continuation: Any, details: Any) -> Any:
        handler = continuation(details)

        def answer(request: Any, context: Any) -> Any:
            if self.stand_in.refuse is not None:
                context.abort(self.stand_in.refuse, "some words")
            try:
                with self.stand_in.lock:  # the check asks the imitation too
                    self.stand_in.check(details.method.rpartition("/")[2], request)
                    return handler.unary_unary(request, context)
            except Refusal as refusal:
                if refusal.retry_after is not None:
                    context.set_trailing_metadata([("retry-after", str(refusal.retry_after))])
                context.abort(_CODES[refusal.status], str(refusal))
            except ValueError as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))

        return grpc.unary_unary_rpc_method_handler(answer, handler.request_deserializer, handler.response_serializer)


class _Root(QdrantServicer):
    def __init__(self, stand_in: GrpcStandIn) -> None:
        self.version = stand_in.version

    def HealthCheck(self, request: Any, context: Any) -> Any:
        return messages.HealthCheckReply(title="qdrant - vector search engine", version=self.version)


class _Collections(CollectionsServicer):
    def __init__(self, stand_in: GrpcStandIn) -> None:
        self.client = stand_in.client

    def CollectionExists(self, request: Any, context: Any) -> Any:
        exists = messages.CollectionExists(exists=self.client.collection_exists(request.collection_name))
        return messages.CollectionExistsResponse(result=exists)

    def Get(self, request: Any, context: Any) -> Any:
        info = self.client.get_collection(request.collection_name)
        return messages.GetCollectionInfoResponse(result=RestToGrpc.convert_collection_info(info))

    def Create(self, request: Any, context: Any) -> Any:
        made = self.client.create_collection(
            request.collection_name,
            GrpcToRest.convert_vectors_config(request.vectors_config),
            sparse_vectors_config=GrpcToRest.convert_sparse_vector_config(request.sparse_vectors_config),
            metadata=GrpcToRest.convert_payload(request.metadata),
        )
        return messages.CollectionOperationResponse(result=made)

    def Update(self, request: Any, context: Any) -> Any:
        metadata = GrpcToRest.convert_payload(request.metadata)
        changed = self.client.update_collection(request.collection_name, metadata=metadata)
        return messages.CollectionOperationResponse(result=changed)

    def Delete(self, request: Any, context: Any) -> Any:
        return messages.CollectionOperationResponse(result=self.client.delete_collection(request.collection_name))


class _Points(PointsServicer):
    def __init__(self, stand_in: GrpcStandIn) -> None:
        self.stand_in, self.client = stand_in, stand_in.client
        done = messages.UpdateResult(operation_id=0, status=messages.UpdateStatus.Completed)
        self.done = messages.PointsOperationResponse(result=done)

    def CreateFieldIndex(self, request: Any, context: Any) -> Any:
        self.stand_in.indexes.add(request.field_name)
        return self.done

    def Upsert(self, request: Any, context: Any) -> Any:
        self.stand_in.received += request.ByteSize()
        self.client.upsert(request.collection_name, [GrpcToRest.convert_point_struct(one) for one in request.points])
        return self.done

    def UpdateBatch(self, request: Any, context: Any) -> Any:
        self.client.batch_update_points(
            request.collection_name, [GrpcToRest.convert_points_update_operation(one) for one in request.operations]
        )
        return messages.UpdateBatchResponse(result=[self.done.result])

    def Delete(self, request: Any, context: Any) -> Any:
        self.client.delete(request.collection_name, GrpcToRest.convert_points_selector(request.points))
        return self.done

    def Get(self, request: Any, context: Any) -> Any:
        records = self.client.retrieve(
            request.collection_name,
            [GrpcToRest.convert_point_id(one) for one in request.ids],
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return messages.GetResponse(result=[_record(record) for record in records])

    def Count(self, request: Any, context: Any) -> Any:
        found = self.client.count(request.collection_name, _filter(request), exact=True)
        return messages.CountResponse(result=messages.CountResult(count=found.count))

    def Query(self, request: Any, context: Any) -> Any:
        [answer] = self.QueryBatch(messages.QueryBatchPoints(query_points=[request]), context).result
        return messages.QueryResponse(result=answer.result)

    def Facet(self, request: Any, context: Any) -> Any:
        hits = facet_hits(self.client, request.collection_name, request.key, _filter(request), request.limit)
        made = [messages.FacetHit(value=messages.FacetValue(string_value=hit.value), count=hit.count) for hit in hits]
        return messages.FacetResponse(hits=made)

    def Scroll(self, request: Any, context: Any) -> Any:
        records, after = self.client.scroll(
            request.collection_name,
            _filter(request),
            limit=request.limit,
            offset=GrpcToRest.convert_point_id(request.offset) if request.HasField("offset") else None,
            with_payload=GrpcToRest.convert_with_payload_selector(request.with_payload),
            with_vectors=GrpcToRest.convert_with_vectors_selector(request.with_vectors),
        )
        return messages.ScrollResponse(
            result=[_record(record) for record in records],
            next_page_offset=None if after is None else RestToGrpc.convert_extended_point_id(str(after)),
        )

    def QueryBatch(self, request: Any, context: Any) -> Any:
        answers = []
        for asked in request.query_points:
            prefetch = [GrpcToRest.convert_prefetch_query(one) for one in asked.prefetch]
            for one in prefetch:  # the imitation warns of parameters, which it ignores
                one.params = None
            found = self.client.query_points(
                asked.collection_name,
                GrpcToRest.convert_query(asked.query),
                using=asked.using,
                prefetch=prefetch or None,
                query_filter=_filter(asked),
                limit=asked.limit,
                with_payload=GrpcToRest.convert_with_payload_selector(asked.with_payload),
            )
            scored = [RestToGrpc.convert_scored_point(point) for point in found.points]
            answers.append(messages.BatchResult(result=scored))
        return messages.QueryBatchResponse(result=answers)


def _record(record: models.Record) -> Any:
    record.payload = record.payload or {}
    return RestToGrpc.convert_record(record)


def _filter(request: Any) -> models.Filter | None:
    return GrpcToRest.convert_filter(request.filter) if request.HasField("filter") else None


@contextmanager
def grpc_stand_in(rest: StandIn | None = None) -> Iterator[GrpcStandIn]:
    """A running stand-in, stopped afterwards; the other interface of the server whose REST interface `rest` is."""
    made = GrpcStandIn(rest)
    made.start()
    try:
        yield made
    finally:
        made.stop()
        if rest is None:
            made.client.close()
