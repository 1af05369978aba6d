"""A stand-in for a Qdrant server: its REST interface before qdrant-client's own imitation of the engine.

With it the whole way over the wire is tested where no server can be had: what is sent must be valid requests, small
enough, and what comes back must be read.
"""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models

LIMIT = 32 << 20


class StandIn(ThreadingHTTPServer):
    """Answers on a port of this machine's loopback.

    Attributes:
        asked: (method, path, body's size) of every request.
        indexes: fields with an index.
        version: what it calls itself; before 1.16 it forgets the metadata of collections, as such servers do.
        refuse: if set, a status and words with which every request is refused.
    """

    daemon_threads = True

    def __init__(self, version: str = "1.20.0") -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[tuple[str, str, int]] = []
        self.indexes: dict[str, Any] = {}
        self.keys: set[str | None] = set()
        self.version = version
        self.refuse: tuple[int, str] | None = None
        self.client = QdrantClient(":memory:")
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, method: str, path: str, body: bytes) -> Any:
        """What a server would say in `result`."""
        if path == "/":
            return None
        found = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        assert found is not None, path
        name, rest = found[1], (found[2] or "").strip("/")
        return getattr(self, f"_{method.lower()}_{rest.replace('/', '_') or 'collection'}")(name, body)

    def _get_exists(self, name: str, _: bytes) -> Any:
        return {"exists": self.client.collection_exists(name)}

    def _get_collection(self, name: str, _: bytes) -> Any:
        info = self.client.get_collection(name).model_dump(mode="json")
        info["payload_schema"] = {key: {"data_type": kind, "points": 0} for key, kind in self.indexes.items()}
        if self.version < "1.16":
            info["config"]["metadata"] = None
        return info

    def _put_collection(self, name: str, body: bytes) -> Any:
        asked = models.CreateCollection.model_validate_json(body)
        return self.client.create_collection(
            name, asked.vectors, sparse_vectors_config=asked.sparse_vectors, metadata=asked.metadata
        )

    def _patch_collection(self, name: str, body: bytes) -> Any:
        asked = models.UpdateCollection.model_validate_json(body)
        return self.client.update_collection(name, metadata=asked.metadata)

    def _delete_collection(self, name: str, _: bytes) -> Any:
        return self.client.delete_collection(name)

    def _put_index(self, _: str, body: bytes) -> Any:
        asked = models.CreateFieldIndex.model_validate_json(body)
        self.indexes[asked.field_name] = asked.field_schema
        return {"operation_id": 0, "status": "completed"}

    def _put_points(self, name: str, body: bytes) -> Any:
        self.client.upsert(name, models.PointsList.model_validate_json(body).points)
        return {"operation_id": 0, "status": "completed"}

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
        if asked.key not in self.indexes:
            raise ValueError(f"Wrong input: No appropriate index for faceting: `{asked.key}`.")
        return {"hits": facet_hits(self.client, name, asked.key, asked.filter, asked.limit or 10)}

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
        for search in asked.searches:  # the imitation warns of parameters, which it ignores
            search.params = None
            if isinstance(search.prefetch, models.Prefetch):
                search.prefetch.params = None
        return self.client.query_batch_points(name, asked.searches)


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
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        self.server.asked.append((self.command, path, len(body)))
        self.server.keys.add(self.headers.get("api-key"))
        if self.server.refuse is not None:
            self._send(self.server.refuse[0], {"status": {"error": self.server.refuse[1]}})
        elif len(body) > LIMIT:
            self._send(413, {"status": {"error": f"JSON payload is larger than allowed (limit: {LIMIT} bytes)."}})
        elif path == "/":
            self._send(200, {"title": "qdrant - vector search engine", "version": self.server.version})
        else:
            try:
                with self.server.lock:
                    result = self.server.answer(self.command, path, body)
            except ValueError as error:
                status = 404 if "not found" in str(error) else 409 if "already exists" in str(error) else 400
                self._send(status, {"status": {"error": str(error)}, "time": 0.0})
            else:
                self._send(200, {"result": result, "status": "ok", "time": 0.0})

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = _serve

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer, default=lambda model: model.model_dump(mode="json")).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def stand_in(version: str = "1.20.0") -> Iterator[StandIn]:
    """A running stand-in, stopped afterwards."""
    server = StandIn(version)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.client.close()
