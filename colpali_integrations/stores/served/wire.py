"""Points, searches and their results as JSON: arrays as base64 of little-endian numbers, filters as callers write them.

Reading takes what any caller may have sent, and refuses all else by an `InputError`.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_number, checked_whole, shown
from colpali_integrations._text import is_unicode
from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.engine import FULL, WORDS, Point, Scored, Search, VectorSpec
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import And, Condition, Filter, Not, Operator, Or, parse_filter
from colpali_integrations.stores.limits import MAX_VECTORS

__all__ = [
    *("MOST_RECORDS", "MOST_SEARCHES", "checked_payload", "known_ids", "packed", "packed_filter", "packed_point"),
    *("packed_scored", "packed_search", "read_filter", "read_point", "read_scored", "read_search", "reading"),
    *("strings_of", "unpacked"),
]

Schema = Mapping[str, VectorSpec]
Result = TypeVar("Result")

MOST_SEARCHES = 64
"""Searches of one call: those of 32 questions by the pages' looks and by words."""
MOST_RECORDS = 4096
"""Points, payloads or ids of one call."""

_DTYPES = ("<f2", "<f4", "<u4")
_LARGEST = 65504.0  # of a stored number, which is kept as float16
_MOST = 2**31 - 1  # results; no store has more entries
_MOST_OVERSAMPLING = 1e6
_FAULTS = (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError)


def reading(read: Callable[[], Result], what: str) -> Result:
    """Read something that a caller has sent.

    Args:
        read: reads it.
        what: is read, for the message.

    Raises:
        InputError: it has another form.
    """
    try:
        return read()
    except ColPaliError:
        raise
    except _FAULTS as error:
        reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) and error.args else f"{error}"
        raise InputError(f"{what} is not as expected: {reason}") from error


def packed(array: NDArray[Any]) -> dict[str, Any]:
    """An array as JSON.

    >>> packed(np.array([[1.0, -2.0]], np.float16))
    {'dtype': '<f2', 'shape': [1, 2], 'data': 'ADwAwA=='}
    """
    dtype = array.dtype.newbyteorder("<")
    data = base64.b64encode(array.astype(dtype, copy=False).tobytes())
    return {"dtype": dtype.str, "shape": list(array.shape), "data": data.decode()}


def unpacked(value: Any) -> NDArray[Any]:
    """The array of `packed`, in this machine's order of bytes."""
    if value["dtype"] not in _DTYPES:
        raise InputError(f"an array's dtype must be one of {', '.join(_DTYPES)}, got {shown(value['dtype'])}")
    array: NDArray[Any] = np.frombuffer(base64.b64decode(value["data"], validate=True), value["dtype"])
    native: NDArray[Any] = array.reshape(value["shape"]).astype(array.dtype.newbyteorder("="))
    return native


def packed_point(point: Point) -> dict[str, Any]:
    """A point as JSON."""
    vectors = {name: packed(array) for name, array in point.vectors.items()}
    words = None if point.words is None else _packed_words(point.words)
    return {"id": point.id, "vectors": vectors, "words": words, "payload": point.payload}


def read_point(value: Any, schema: Schema) -> Point:
    """The point of `packed_point`, for a store with these vectors.

    Raises:
        InputError: it has another form, or vectors that are not those of the store.
        StoreError: it is beyond the limits of a store.
    """

    def read() -> Point:
        payload = checked_payload(value["payload"], value["id"])
        vectors = {name: unpacked(array) for name, array in value["vectors"].items()}
        if vectors.keys() != schema.keys():
            raise InputError(f"vectors must be {', '.join(schema)}, got {', '.join(map(shown, vectors))}")
        for name, array in vectors.items():
            _check(array, schema[name], f"the vectors {name!r}")
        grid = None if payload.get("grid") is None else PageGrid.from_json(payload["grid"])
        if grid is not None and grid.n_stored != len(vectors[FULL]):
            raise InputError(f"a grid of {grid.n_stored} positions came with {len(vectors[FULL])} vectors")
        words = None if value.get("words") is None else _read_words(value["words"])
        return Point(value["id"], vectors, words, payload)

    return reading(read, "a point")


def checked_payload(value: Any, id_: Any) -> dict[str, Any]:
    """The payload of an entry with an id, as a caller has sent it.

    Raises:
        InputError: it has another form or another id.
        StoreError: it is beyond the limits of a store.
    """

    def read() -> dict[str, Any]:
        entry = Entry.from_payload(value)
        if entry.id != id_:
            raise InputError(f"the id is {shown(id_)}, and that of the payload {shown(entry.id)}")
        return entry.to_payload()

    return reading(read, "a payload")


def known_ids(ids: Iterable[object]) -> list[str]:
    """The ids that an entry can have: others, such as a half of a character (a lone surrogate), are unknown anyway.

    >>> known_ids(["a", 3, chr(0xD800)])
    ['a']
    """
    return [id_ for id_ in ids if isinstance(id_, str) and is_unicode(id_)]


def packed_search(search: Search) -> dict[str, Any]:
    """A search as JSON."""
    query = search.query
    return {
        "query": _packed_words(query) if isinstance(query, SparseVector) else packed(np.asarray(query, np.float32)),
        "using": search.using,
        "limit": search.limit,
        "where": packed_filter(search.where),
        "ids": None if search.ids is None else known_ids(search.ids),
        "prefetch": None if search.prefetch is None else packed_search(search.prefetch),
        "oversampling": search.oversampling,
        "scores_only": search.scores_only,
    }


def read_search(value: Any, schema: Schema, *, inner: bool = False) -> Search:
    """The search of `packed_search`, for a store with these vectors.

    Args:
        value: as JSON.
        schema: of the store.
        inner: whether it chooses the candidates for another one, and so has none that does so for it.

    Raises:
        InputError: it has another form, or a query that does not fit the vectors of the store.
    """

    def read() -> Search:
        using = value["using"]
        if using == WORDS:
            query: Any = _read_words(value["query"])
        elif using in schema:
            query = unpacked(value["query"]).astype(np.float32)
            _check(query, schema[using], "the query")
        else:
            raise InputError(f"using must be one of {', '.join([*schema, WORDS])}, got {shown(using)}")
        prefetch, ids, oversampling = value["prefetch"], value["ids"], value["oversampling"]
        if prefetch is not None and inner:
            raise InputError("a prefetch has no prefetch of its own")
        return Search(
            query=query,
            using=using,
            limit=min(checked_whole(value["limit"], "limit", 0), _MOST),
            where=read_filter(value["where"]),
            ids=None if ids is None else strings_of(ids, "ids"),
            prefetch=None if prefetch is None else read_search(prefetch, schema, inner=True),
            oversampling=None if oversampling is None else _oversampling(oversampling),
            scores_only=value["scores_only"] is True,
        )

    return reading(read, "a search")


def packed_scored(scored: Scored) -> list[Any]:
    """A result as JSON."""
    return [scored.id, float(scored.score), scored.payload]


def read_scored(value: Any) -> Scored:
    """The result of `packed_scored`."""
    id_, score, payload = value
    return Scored(str(id_), float(score), dict(payload))


def packed_filter(where: Filter | None) -> str | None:
    """A filter as a text of JSON: it may compare with halves of characters, which JSON of a request may not hold."""
    return None if where is None else json.dumps(where.to_dict())


def read_filter(value: Any) -> Filter | None:
    """The filter of `packed_filter`.

    Unlike `parse_filter` it takes the levels that reading a caller's filter adds.

    Raises:
        InputError: it is no such filter.

    Example:
        >>> where = parse_filter({"page": {"$gte": 3}, "source": "a.pdf"})
        >>> read_filter(packed_filter(where)) == where
        True
    """
    if value is None:
        return None
    return parse_filter(reading(lambda: _filter(json.loads(value)), "a filter"))


def strings_of(value: Any, name: str) -> list[str]:
    """A list of strings that a caller has sent.

    Raises:
        InputError: it is none.
    """
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise InputError(f"{name} must be a list of strings, got {shown(value)}")
    return value


def _filter(value: Any) -> Filter:
    [(key, inside)] = value.items()
    if key == "$not":
        return Not(_filter(inside))
    if key in ("$and", "$or"):
        return (And if key == "$and" else Or)(tuple(map(_filter, inside)))
    [(op, operand)] = inside.items()
    return Condition(key, Operator(op), operand)


def _check(array: NDArray[Any], spec: VectorSpec, what: str) -> None:
    shape: Sequence[int] = array.shape
    fits = len(shape) == (2 if spec.multi else 1) and shape[-1] == spec.dim and array.dtype.kind == "f"
    if not fits or (spec.multi and not 1 <= shape[0] <= MAX_VECTORS):
        expected = f"(n, {spec.dim})" if spec.multi else f"({spec.dim},)"
        raise InputError(f"{what} must be floats {expected}, got {array.dtype} {tuple(shape)}")
    _check_numbers(array, what)


def _check_numbers(array: NDArray[Any], what: str) -> None:
    """Refuse numbers that make scores infinite, which would end every search that meets them."""
    if not (np.abs(array) <= _LARGEST).all():  # NaN is not, either
        raise InputError(f"{what} must be finite in float16 (at most {_LARGEST:.0f})")


def _oversampling(value: object) -> float:
    return min(checked_number(value, "oversampling", 1), _MOST_OVERSAMPLING)


def _packed_words(words: SparseVector) -> dict[str, Any]:
    return {"indices": packed(words.indices), "values": packed(words.values)}


def _read_words(value: Any) -> SparseVector:
    indices, values = unpacked(value["indices"]), unpacked(value["values"])
    is_sparse = indices.ndim == 1 and indices.shape == values.shape and indices.dtype.kind == "u"
    if not is_sparse or (np.diff(indices.astype(np.int64)) <= 0).any():
        raise InputError("words must have ascending indices, each once, and a value for each")
    if values.dtype.kind != "f":
        raise InputError(f"the values of words must be floats, got {values.dtype}")
    _check_numbers(values, "the values of words")
    return SparseVector(indices.astype(np.uint32), values.astype(np.float32))
