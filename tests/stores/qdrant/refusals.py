"""What a Qdrant server refuses, in its own words: those of Qdrant 1.18.3, recorded in exchanges.jsonl."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

__all__ = [
    *("LIMIT", "MOST_NUMBERS", "Access", "Cluster", "Refusal"),
    *("check_body", "check_limit", "check_points", "check_query", "check_vectors", "exists_already", "missing"),
]

LIMIT = 32 << 20
"""Bytes of a request over REST."""
MOST_NUMBERS = 1 << 20
"""Numbers of a multivector, of which a server takes less."""

_LEVELS = 128  # of JSON, in which the body itself is one


class Refusal(Exception):
    """An answer that is an error.

    Attributes:
        status: of HTTP.
        retry_after: seconds of the header; None without.
        is_json: whether the message is wrapped in JSON.
    """

    def __init__(
        self, message: str, status: int = 400, retry_after: int | None = None, *, is_json: bool = True
    ) -> None:
        super().__init__(message)
        self.status, self.retry_after, self.is_json = status, retry_after, is_json


def missing(name: str) -> Refusal:
    return Refusal(f"Not found: Collection `{name}` doesn't exist!", 404)


def exists_already(name: str) -> Refusal:
    return Refusal(f"Wrong input: Collection `{name}` already exists!", 409)


def check_body(body: bytes) -> None:
    """Refuse a body that is too large, or has too many levels."""
    if len(body) > LIMIT:
        raise Refusal(f"JSON payload ({len(body)} bytes) is larger than allowed (limit: {LIMIT} bytes).")
    if not body:
        return
    text = np.frombuffer(body, np.uint8)
    opened = np.isin(text, [ord("["), ord("{")]).astype(np.int32) - np.isin(text, [ord("]"), ord("}")])
    deep = np.flatnonzero(np.cumsum(opened) >= _LEVELS)
    # Brackets in texts count here too, but not enough of them stand in the tests.
    if len(deep):
        raise Refusal(f"Format error in JSON body: recursion limit exceeded at line 1 column {deep[0] + 1}")


def check_points(points: Any) -> None:
    """Refuse points that are none, before their collection is looked at."""
    for position, point in enumerate(points):
        if not _is_point_id(point["id"]):
            raise Refusal(
                f"Format error in JSON body: value {point['id']} is not a valid point ID, valid values are either an "
                "unsigned integer or a UUID"
            )
        for rows in _multivectors(point.get("vector")):
            if not rows:
                raise _invalid(f"points[{position}].vector.?.vector: dense vector must not be empty")
            if (numbers := sum(map(len, rows))) >= MOST_NUMBERS:
                raise _invalid(f"points[{position}].vector.?.data: {_too_many(numbers)}")


def check_grpc_points(points: Any) -> None:
    """As `check_points`, of messages; their position is not told."""
    for point in points:
        for vector in point.vectors.vectors.vectors.values():
            if (numbers := sum(len(row.data) for row in vector.multi_dense.vectors)) >= MOST_NUMBERS:
                path = "points[0].vectors.vectors_options.vectors.[].data"
                raise Refusal(f"Validation error in body: [{path}: {_too_many(numbers)}]", 422)


def check_vectors(vectors: Any, dims: Mapping[str, int], sparse: Mapping[str, Any]) -> None:
    """Refuse the vectors of a point that its collection does not have."""
    for name, value in vectors.items() if isinstance(vectors, dict) else ():
        if name not in dims and name not in sparse:
            raise Refusal(f"Wrong input: Not existing vector name error: {name}")
        if name in dims:
            for row in value if isinstance(value[0], list | tuple) else [value]:
                if len(row) != dims[name]:
                    raise Refusal(
                        f"Wrong input: Vector dimension error: expected dim: {dims[name]}, got {len(row)} for vector "
                        f"'{name}'"
                    )


def check_limit(limit: int | None) -> None:
    """Refuse a search for no points."""
    if limit == 0:
        raise _invalid("internal.limit: value 0 invalid, must be 1 or larger")


def check_query(query: Any, dim: int | None) -> None:
    """Refuse a search by nothing."""
    if query == [] and dim is not None:
        raise Refusal(f"Wrong input: Vector dimension error: expected dim: {dim}, got 0")


class Access:
    """Who may do what, by API key or token.

    Args:
        roles: by key: "admin", "read", "expired", or the name of the one collection that it may read, or, with " rw"
            after it, write.
    """

    def __init__(self, roles: Mapping[str, str]) -> None:
        self._roles = roles

    def check(self, key: str | None, method: str, path: str) -> None:
        """Refuse a request that the key does not allow."""
        if path == "/":
            return
        if key is None:
            raise Refusal("Must provide an API key or an Authorization bearer token", 401, is_json=False)
        role = self._roles.get(key)
        if role is None:
            raise Refusal("Invalid API key or JWT", 401, is_json=False)
        if role == "expired":
            raise Refusal("ExpiredSignature", 403, is_json=False)
        if role == "admin":
            return
        _, _, name, *rest = path.split("/")
        writes = role == f"{name} rw"
        if role not in ("read", name) and not writes:
            raise Refusal(f"Forbidden: Access to collection {name} is required", 403)
        if not rest and method != "GET":
            raise Refusal("Forbidden: Global manage access is required", 403)
        if writes:
            return
        if method in ("PUT", "PATCH", "DELETE") or rest in (["points", "delete"], ["points", "batch"]):
            raise Refusal(f"Forbidden: Write access to collection {name} is required", 403)


class Cluster:
    """Three nodes with six shards and two replicas each, of which this one answers.

    Attributes:
        lost: number of other nodes that are gone.
    """

    ports = (7312, 7322)

    def __init__(self) -> None:
        self.lost = 0

    def check(self, method: str, path: str, query: Mapping[str, str], *, confirmed: int) -> None:
        """Fail where the lost nodes are needed.

        Args:
            method: of HTTP.
            path: of the URL.
            query: of the URL.
            confirmed: `write_consistency_factor` of the collection.
        """
        parts = path.strip("/").split("/")
        kind = "/".join(parts[2:])
        if not self.lost or method == "GET":
            return
        if self.lost == 2 and len(parts) == 2:
            raise Refusal(
                "Service internal error: Waiting for consensus operation commit failed. Timeout set at: "
                f"{query.get('timeout', 60)} seconds",
                500,
            )
        if kind.startswith("points/query") or kind in ("points/scroll", "points/count", "facet"):
            if self.lost == 2:
                reads = "".join(f"\n  {_unreachable(port)}" for port in self.ports)
                raise Refusal(f"Service internal error: 2 of 2 read operations failed:{reads}", 500)
            if query.get("consistency") == "all":
                read = _unreachable(self.ports[1])
                raise Refusal(f"Service internal error: 1 of 2 read operations failed:\n  {read}", 500)
        elif kind.startswith("points"):
            if self.lost == 2:
                raise Refusal(_unreachable(self.ports[1]), 500)
            if confirmed > 1:
                raise Refusal(
                    "Service internal error: 4 out of 6 shards failed to apply operation. First error captured: "
                    f"{_unreachable(self.ports[1])}",
                    500,
                )


def _unreachable(port: int) -> str:
    return (
        "Service internal error: Tonic status error: code: 'The service is currently unavailable', message: "
        '"tcp connect error", source: tonic::transport::Error(Transport, ConnectError(ConnectError("tcp connect '
        f'error", 127.0.0.1:{port}, Os {{ code: 111, kind: ConnectionRefused, message: "Connection refused" }})))'
    )


def _invalid(fault: str) -> Refusal:
    return Refusal(f"Validation error in JSON body: [{fault}]", 422)


def _too_many(numbers: int) -> str:
    return f"Total size of all vectors ({numbers}) must be less than {MOST_NUMBERS}"


def _is_point_id(value: Any) -> bool:
    if isinstance(value, int):
        return value >= 0
    try:
        uuid.UUID(value)
    except ValueError:
        return False
    return True


def _multivectors(vectors: Any) -> Iterator[Any]:
    for value in vectors.values() if isinstance(vectors, dict) else ():
        if isinstance(value, list) and (not value or isinstance(value[0], list)):
            yield value


def parsed(body: bytes) -> Any:
    """The JSON of a body; None for an empty one."""
    return json.loads(body) if body else None
