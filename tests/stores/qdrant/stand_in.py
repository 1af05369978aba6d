"""A stand-in for a Qdrant server: its REST interface before qdrant-client's own imitation of the engine.

With it the whole way over the wire is tested where no server can be had: what is sent must be valid requests, small
enough, and what comes back must be read. Refusals are those of a real one: see `refusals` and `test_exchanges.py`.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote

import numpy as np
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

from tests.stores.qdrant import refusals
from tests.stores.qdrant.profiles import StrictModes, shown_path
from tests.stores.qdrant.refusals import Access, Cluster, Refusal

VERSION = "1.20.0"


class StandIn(ThreadingHTTPServer):
    """Answers on a port of this machine's loopback.

    Attributes:
        asked: (method, path, body's size) of every request.
        strict: the indexes and the strict mode of the collections.
        read_only: whether the clients' key may only read.
        version: what it calls itself; before 1.16 it forgets the metadata of collections, as such servers do.
        thresholds: of collections, from which on segments are indexed; 0 for never.
        statuses: of a collection, the next ones; green afterwards.
        queries: of the paths of requests that ask for a consistency.
        changes: of collections, as they were asked for.
        searches: of all requests, as they were asked for.
        refuse: if set, a status and words with which every request is refused.
        proxy: if set, the status with which a proxy before the server answers every request, by a page of HTML.
        access: what the keys allow; None without keys.
        cluster: the other nodes, which may be lost; None without.
        aliases: the collections of further names.
    """

    daemon_threads = True

    def __init__(
        self,
        version: str = VERSION,
        host: str = "127.0.0.1",
        port: int = 0,
        profile: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__((host, port), _Handler)
        self.asked: list[tuple[str, str, int]] = []
        self.strict, self.read_only = StrictModes(profile, clock), False
        self.thresholds: dict[str, int] = {}
        self.statuses: list[str] = []
        self.queries: list[str] = []
        self.changes: list[models.UpdateCollection] = []
        self.searches: list[models.QueryRequest] = []
        self.keys: set[str | None] = set()
        self.version = version
        self.refuse: tuple[int, str] | None = None
        self.proxy: int | None = None
        self.access: Access | None = None
        self.cluster: Cluster | None = None
        self.aliases: dict[str, str] = {}
        self.confirmed: dict[str, int] = {}  # write_consistency_factor
        self.client = QdrantClient(":memory:")
        self.lock = threading.Lock()
        self._answering, self._changed = 0, threading.Condition()  # requests that have come

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{self.server_address[0]!s}:{self.server_address[1]}"

    def start(self) -> None:
        """Answer, at the address of before."""
        if self.socket.fileno() == -1:  # it was stopped
            self.socket = socket.socket(self.address_family, self.socket_type)
            self.server_bind()
            self.server_activate()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.02,))
        self._thread.start()

    def stop(self) -> None:
        """Answer the requests that have come, and refuse others, also over open connections; collections stay."""
        if self.socket.fileno() != -1:
            self.shutdown()
            self._thread.join()
            with self._changed:
                self.server_close()
                self._changed.wait_for(lambda: not self._answering)

    def begin(self) -> bool:
        """Count a request that is to be answered; False for none, once this is stopped."""
        with self._changed:
            runs = self.socket.fileno() != -1
            self._answering += runs
            return runs

    def end(self) -> None:
        """Count an answer."""
        with self._changed:
            self._answering -= 1
            self._changed.notify_all()

    def respond(self, method: str, target: str, key: str | None, body: bytes) -> tuple[int, dict[str, str], bytes]:
        """The status, the headers and the body of the answer to a request."""
        path, _, query = target.partition("?")
        self.queries += [query] if "consistency" in query else []
        self.asked.append((method, path, len(body)))
        self.keys.add(key)
        if self.proxy is not None:
            page = f"<html><head><title>{self.proxy}</title></head><body><h1>nginx</h1></body></html>"
            return _refused(Refusal(page, self.proxy, is_json=False))
        if self.refuse is not None:
            return _refused(Refusal(self.refuse[1], self.refuse[0]))
        try:
            if self.access is not None:
                self.access.check(key, method, path)
            if path == "/":
                return _answered(200, {"title": "qdrant - vector search engine", "version": self.version})
            with self.lock:
                self.check(method, path, dict(parse_qsl(query)), body)
                result = self.answer(method, path, body)
        except Refusal as refusal:
            return _refused(refusal)
        except ValueError as error:
            return _refused(Refusal(str(error)))
        return _answered(200, {"result": result, "status": "ok", "time": 0.0})

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """What a server would say in `result`."""
        if path == "/cluster":
            return {"status": "enabled" if self.cluster else "disabled"}
        if (method, path) == ("POST", "/collections/aliases"):
            return self._alias(body)
        if not path.startswith("/collections/"):
            raise Refusal("", 404, is_json=False)
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert found is not None, path
        name, rest = unquote(self.aliases.get(found[1], found[1])), (found[2] or "").strip("/")
        if (rest or method in ("GET", "PATCH")) and rest != "exists" and not self.client.collection_exists(name):
            raise refusals.missing(name)
        if self.read_only and (method in ("PUT", "PATCH", "DELETE") or rest in ("points/batch", "points/delete")):
            raise Refusal(f"Forbidden: Write access to collection {name} is required", 403)
        if self.strict.holds(name):
            self.strict.check(name, method, rest, body, self.client.get_collection(name).config.params.vectors)
        return getattr(self, f"_{method.lower()}_{rest.replace('/', '_') or 'collection'}")(name, body)

    def check(self, method: str, path: str, query: dict[str, str], body: bytes) -> None:
        """Refuse what a server refuses without looking at a collection, or at its own."""
        refusals.check_body(body)
        if path.endswith("/points") and method == "PUT":
            refusals.check_points(json.loads(body)["points"])
        if path.endswith(("/points/query", "/points/query/groups")):
            refusals.check_limit(json.loads(body).get("limit"))
        if self.cluster is not None:
            self.cluster.check(method, path, query, confirmed=self.confirmed.get("".join(path.split("/")[2:3]), 1))

    def _alias(self, body: bytes) -> bool:
        for action in json.loads(body)["actions"]:
            made = action["create_alias"]
            self.aliases[made["alias_name"]] = made["collection_name"]
        return True

    def _get_cluster(self, name: str, _: bytes) -> Any:
        return {"peer_id": 1, "shard_count": 6, "local_shards": [], "remote_shards": [], "shard_transfers": []}

    def _get_exists(self, name: str, _: bytes) -> Any:
        return {"exists": self.client.collection_exists(name)}

    def _get_collection(self, name: str, _: bytes) -> Any:
        info = self.client.get_collection(name).model_dump(mode="json")
        self.strict.show(name, info)
        info["config"]["optimizer_config"]["indexing_threshold"] = self.thresholds.get(name, 10_000)
        info["status"] = self.statuses.pop(0) if self.statuses else "green"
        if self.version < "1.16":
            info["config"]["metadata"] = None
        return info

    def _put_collection(self, name: str, body: bytes) -> Any:
        asked = models.CreateCollection.model_validate_json(body)
        if self.client.collection_exists(name):
            raise refusals.exists_already(name)
        self.confirmed[name] = asked.write_consistency_factor or 1
        made = self.client.create_collection(
            name, asked.vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
        )
        self.strict.made(name, asked.strict_mode_config)
        return made

    def _patch_collection(self, name: str, body: bytes) -> Any:
        asked = models.UpdateCollection.model_validate_json(body)
        self.strict.changed(name, asked)
        self.changes.append(asked)
        if asked.optimizers_config is not None and asked.optimizers_config.indexing_threshold is not None:
            self.thresholds[name] = asked.optimizers_config.indexing_threshold
        return asked.metadata is None or self.client.update_collection(name, metadata=asked.metadata)

    def _delete_collection(self, name: str, _: bytes) -> Any:
        if not self.client.collection_exists(name):
            return False
        self.strict.forget(name)
        return self.client.delete_collection(name)

    def _put_index(self, name: str, body: bytes) -> Any:
        asked = models.CreateFieldIndex.model_validate_json(body)
        self.strict.indexes[name][shown_path(asked.field_name)] = asked.field_schema
        return {"operation_id": 0, "status": "completed"}

    def _put_points(self, name: str, body: bytes) -> Any:
        points = models.PointsList.model_validate_json(body).points
        params = self.client.get_collection(name).config.params
        dims = {vector: one.size for vector, one in params.vectors.items()} if isinstance(params.vectors, dict) else {}
        for point in points:
            refusals.check_vectors(point.vector, dims, params.sparse_vectors or {})
        self.client.upsert(name, [self._rounded(point, params.vectors) for point in points])
        return {"operation_id": 0, "status": "completed"}

    def _rounded(self, point: models.PointStruct, params: Any) -> models.PointStruct:
        """The point with the numbers that a server keeps of it."""
        kept: Any = point.vector
        for vector, numbers in kept.items() if isinstance(kept, dict) else ():
            if vector in params and params[vector].datatype == models.Datatype.FLOAT16:
                kept[vector] = np.array(numbers, np.float32).astype(np.float16).tolist()
        return point

    def _post_points(self, name: str, body: bytes) -> Any:
        asked = models.PointRequest.model_validate_json(body)
        return self.client.retrieve(
            name, asked.ids, with_payload=asked.with_payload or False, with_vectors=asked.with_vector or False
        )

    def _post_points_batch(self, name: str, body: bytes) -> Any:
        asked = models.UpdateOperations.model_validate_json(body)
        return self.client.batch_update_points(name, asked.operations)

    def _post_points_delete(self, name: str, body: bytes) -> Any:
        asked: Any = TypeAdapter(models.PointIdsList).validate_json(body)
        self.client.delete(name, asked)
        return {"operation_id": 0, "status": "completed"}

    def _post_points_count(self, name: str, body: bytes) -> Any:
        asked = models.CountRequest.model_validate_json(body)
        return self.client.count(name, asked.filter, exact=True)

    def _post_facet(self, name: str, body: bytes) -> Any:
        asked = models.FacetRequest.model_validate_json(body)
        key = shown_path(asked.key)
        if self.strict.kinds(name).get(key) != "keyword":
            raise Refusal(
                f"Wrong input: No appropriate index for faceting: `{key}`. Please create one to facet on this "
                "field. Check https://qdrant.tech/documentation/concepts/indexing/#payload-index to see which payload "
                "schemas support Match conditions"
            )
        return {"hits": facet_hits(self.client, name, key, asked.filter, asked.limit or 10)}

    def _post_points_scroll(self, name: str, body: bytes) -> Any:
        asked = models.ScrollRequest.model_validate_json(body)
        records, after = self.client.scroll(
            name,
            asked.filter,
            limit=asked.limit or 10,
            offset=asked.offset,
            with_payload=asked.with_payload or False,
            with_vectors=asked.with_vector or False,
        )
        return {"points": records, "next_page_offset": after}

    def _post_points_query_batch(self, name: str, body: bytes) -> Any:
        asked = models.QueryRequestBatch.model_validate_json(body)
        self.searches += [search.model_copy(deep=True) for search in asked.searches]
        for search in asked.searches:  # the imitation warns of parameters, which it ignores
            search.params = None
            if isinstance(search.prefetch, models.Prefetch):
                search.prefetch.params = None
        return self.client.query_batch_points(name, asked.searches)

    def _post_points_query(self, name: str, body: bytes) -> Any:
        vectors: Any = self.client.get_collection(name).config.params.vectors
        asked = json.loads(body)
        refusals.check_query(asked.get("query"), vectors[asked["using"]].size)
        return self._post_points_query_batch(name, json.dumps({"searches": [asked]}).encode())[0]

    def _post_points_query_groups(self, name: str, body: bytes) -> Any:
        asked = models.QueryGroupsRequest.model_validate_json(body)
        return self.client.query_points_groups(
            name,
            asked.group_by,
            query=asked.query,
            using=asked.using,
            limit=asked.limit or 3,
            group_size=asked.group_size or 3,
            with_payload=asked.with_payload or False,
        )


def facet_hits(client: QdrantClient, name: str, key: str, where: models.Filter | None, limit: int) -> list[Any]:
    """The values of a field of text and the number of points of each, as a server counts them; the most frequent first.

    Not by `QdrantClient.facet`, whose imitation changes values that look like a UUID.
    """
    records, _ = client.scroll(name, where, limit=1 << 20, with_payload=True)
    counts: Counter[str] = Counter()
    for record in records:
        value: Any = record.payload or {}
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        counts.update({one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str)})
    best = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:limit]
    return [models.FacetValueHit(value=value, count=count) for value, count in best]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        if not self.server.begin():
            self.close_connection = True
            return
        try:
            self._respond()
        finally:
            self.server.end()

    def _respond(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        status, headers, content = self.server.respond(self.command, self.path, self.headers.get("api-key"), body)
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve


def _answered(status: int, answer: Any, retry_after: int | None = None) -> tuple[int, dict[str, str], bytes]:
    """The status, the headers and the body of an answer."""
    is_json = not isinstance(answer, str)
    text = json.dumps(answer, default=lambda model: model.model_dump(mode="json")) if is_json else answer
    headers = {} if retry_after is None else {"retry-after": str(retry_after)}
    return status, {**headers, **({"content-type": "application/json"} if is_json else {})}, text.encode()


def _refused(refusal: Refusal) -> tuple[int, dict[str, str], bytes]:
    answer: Any = {"status": {"error": str(refusal)}, "time": 0.0} if refusal.is_json else str(refusal)
    return _answered(refusal.status, answer, refusal.retry_after)


@contextmanager
def stand_in(version: str = VERSION, **options: Any) -> Iterator[StandIn]:
    """A running stand-in, stopped afterwards; `options` are those of `StandIn`."""
    server = StandIn(version, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()
        server.client.close()
