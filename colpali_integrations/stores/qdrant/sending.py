"""Points in requests to a Qdrant server.

Most of a request is the vectors. They are written at once, REST's decimals from a table of all float16 numbers: the
client's own way, by a list of Python's floats for every vector, takes five times as long.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import MissingExtraError
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import WORDS, Payload, Point
from colpali_integrations.stores.qdrant.collection import QdrantClient, is_local, models
from colpali_integrations.stores.qdrant.filters import point_id

try:
    from qdrant_client import grpc
    from qdrant_client.conversions.conversion import RestToGrpc
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a store on a Qdrant server") from error

__all__ = [
    "FLOAT_BYTES",
    "REQUEST_BYTES",
    "payload_size",
    "point_json",
    "point_message",
    "point_size",
    "point_struct",
    "send_points",
    "sparse",
]

REQUEST_BYTES = 24 << 20
"""The most bytes of a request; a server takes 32 MiB by default."""

PointId: TypeAlias = Callable[[str], str | int]
"""The server's id of an entry's point."""

# As JSON: "-0.01234567890123456," and "-1.2345e-05,".
FLOAT_BYTES, _HALF_BYTES = 22, 12
_UNNAMED = ""  # of the vector of a collection that names none


def send_points(
    client: QdrantClient, collection: str, points: Sequence[Point], half: Collection[str], ids: PointId = point_id
) -> None:
    """Store points, in place of those with the same ids, by one request, and wait until they can be found.

    Args:
        client: of the server.
        collection: its name.
        points: no more than fit into a request. The only vector may have the name "", of a collection whose vector
            has none.
        half: the names of the vectors that the server keeps as float16, or as integers.
        ids: the server's ids.

    Raises:
        Exception: those of the client.
    """
    if is_local(client):
        client.upsert(collection, [point_struct(point, half, ids) for point in points], wait=True)
        return
    if client.init_options.get("prefer_grpc"):
        messages = [point_message(point, half, ids) for point in points]
        request = grpc.UpsertPoints(collection_name=collection, wait=True, points=messages)
        client.grpc_points.Upsert(request, timeout=client.init_options.get("timeout"))
        return
    body: Any = b'{"points":[%s]}' % b",".join(point_json(point, half, ids) for point in points)
    client.http.points_api.upsert_points(collection, wait=True, point_insert_operations=body)


def point_struct(point: Point, half: Collection[str], ids: PointId = point_id) -> models.PointStruct:
    """A point for the client; `half` are the vectors that the server stores as float16."""
    vectors: dict[str, Any] = {}
    for name, array in point.vectors.items():
        vectors[name] = np.asarray(array, np.float16 if name in half else np.float32).astype(np.float32).tolist()
    if point.words is not None and len(point.words):
        vectors[WORDS] = sparse(point.words)
    vector: Any = vectors.get(_UNNAMED, vectors)
    return models.PointStruct(id=ids(point.id), vector=vector, payload=dict(point.payload))


def point_message(point: Point, half: Collection[str], ids: PointId = point_id) -> Any:
    """A point for the client over gRPC; `half` are the vectors that the server stores as float16."""
    message = RestToGrpc.convert_point_struct(point_struct(replace(point, vectors={}), half, ids))
    for name, array in point.vectors.items():
        vector = message.vectors.vectors.vectors[name] if name != _UNNAMED else message.vectors.vector
        rows = np.asarray(array, np.float16 if name in half else np.float32).astype("<f4")
        if rows.ndim == 1:
            vector.dense.MergeFromString(_fields(rows.view(np.uint8)[None]))
        else:
            vector.multi_dense.MergeFromString(_fields(_fields_of(rows.view(np.uint8))))
    return message


def point_json(point: Point, half: Collection[str], ids: PointId = point_id) -> bytes:
    """A point in the body of a request; `half` are the vectors that the server stores as float16.

    Raises:
        UnicodeEncodeError: a text in the payload has a half of a surrogate pair.
    """
    written = {name: _halves(array) if name in half else _floats(array) for name, array in point.vectors.items()}
    vectors = [b"%s:%s" % (json.dumps(name).encode(), numbers) for name, numbers in written.items()]
    if point.words is not None and len(point.words):
        words = {"indices": point.words.indices.tolist(), "values": point.words.values.tolist()}
        vectors.append(b"%s:%s" % (json.dumps(WORDS).encode(), _compact(words)))
    whole = written[_UNNAMED] if _UNNAMED in written else b"{%s}" % b",".join(vectors)
    return b'{"id":%s,"vector":%s,"payload":%s}' % (_compact(ids(point.id)), whole, _compact(point.payload))


def point_size(point: Point, half: Collection[str]) -> int:
    """Upper bound of the bytes of a point in a request."""
    vectors = (array.size * (_HALF_BYTES if name in half else FLOAT_BYTES) for name, array in point.vectors.items())
    words = 0 if point.words is None else 2 * len(point.words) * FLOAT_BYTES
    return sum(vectors) + words + payload_size(point.payload)


def payload_size(payload: Payload) -> int:
    """Upper bound of the bytes of a payload and its id in a request."""
    return len(json.dumps(payload)) + 1024


def sparse(words: SparseVector) -> models.SparseVector:
    """A sparse vector for the client."""
    return models.SparseVector(indices=words.indices.tolist(), values=words.values.tolist())


def _compact(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _floats(array: NDArray[Any]) -> bytes:
    return _compact(np.asarray(array, np.float32).tolist())


def _halves(array: NDArray[Any]) -> bytes:
    """The JSON of float16 numbers (n, dim) or (dim,): the cells of the table, without the spaces that fill them."""
    rows = np.asarray(array, np.float16)
    table = _decimals()
    n, dim = rows.reshape(-1, rows.shape[-1]).shape
    lines = np.empty((n, dim * table.shape[1] + 2), np.uint8)  # "[" number "," ... number "]" ","
    lines[:, 0], lines[:, -1] = ord("["), ord(",")
    lines[:, 1:-1] = table[rows.view(np.uint16).reshape(n, dim)].reshape(n, -1)
    lines[:, -2] = ord("]")  # in place of a comma
    listed = lines.tobytes().translate(None, b" ")[:-1]
    return b"[%s]" % listed if rows.ndim > 1 else listed


def _fields(rows: NDArray[np.uint8]) -> bytes:
    """Rows of bytes as Protocol Buffers' first field, one after the other."""
    return _fields_of(rows).tobytes()


def _fields_of(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Each row of bytes as Protocol Buffers' first field: its tag, its length in groups of 7 bits, and the bytes."""
    length, head = rows.shape[1], [0x0A]
    while length > 0x7F:
        head.append(length & 0x7F | 0x80)
        length >>= 7
    head.append(length)
    return np.hstack([np.tile(np.array(head, np.uint8), (len(rows), 1)), rows])


@cache
def _decimals() -> NDArray[np.uint8]:
    """Of every float16 number, by its bits, the shortest decimal that is read as that number, filled up, and a comma.

    Up to five digits: the relative error of such a decimal is at most 5e-5, and the relative distance between
    neighbouring float16 numbers at least 4.8e-4. NaN and infinity, which no store takes, become null.
    """
    with np.errstate(invalid="ignore"):  # of signalling NaN
        exact = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float64)
    finite = np.isfinite(exact)
    numbers = np.where(finite, exact, 0.0)
    size = np.abs(numbers, where=numbers != 0, out=np.ones_like(numbers))
    shortest = numbers.copy()
    open_ = np.ones(len(numbers), bool)
    for digits in range(1, 6):
        scale = 10.0 ** (digits - 1 - np.floor(np.log10(size)))
        rounded = np.rint(numbers * scale) / scale
        with np.errstate(over="ignore"):
            fits = open_ & (rounded.astype(np.float32).astype(np.float16) == numbers)
        shortest[fits], open_ = rounded[fits], open_ & ~fits
    texts = [repr(one) if is_ else "null" for one, is_ in zip(shortest.tolist(), finite, strict=True)]
    width = max(map(len, texts))
    cells = "".join(text.ljust(width) + "," for text in texts).encode()
    table = np.frombuffer(cells, np.uint8).reshape(len(texts), width + 1)
    return table
