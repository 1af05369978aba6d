"""The row of an entry in the database, and rows by id or by filter."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from colpali_integrations._text import is_unicode, parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.scoring.bm25 import SparseVector
from colpali_integrations.stores.embedded.conditions import to_sql
from colpali_integrations.stores.engine import Payload, pieces, strings
from colpali_integrations.stores.filters import Filter, matches
from colpali_integrations.stores.limits import MAX_BYTES

__all__ = [
    "HEAD",
    "HEAD_FIELDS",
    "LISTED",
    "ROW",
    "checked_payload",
    "columns_of",
    "of_ids",
    "packed_text",
    "parsed",
    "payload_of",
    "row_checksum",
    "rows_that_fit",
    "words_of",
]

# Bytes of an entry's text and grid as JSON, which escapes a character of a byte as six.
_MOST_TEXT = 6 * MAX_BYTES
HEAD = "number, id, document, content, metadata"
HEAD_FIELDS = {"id", "document_id", "content_hash", "metadata"}
ROW = f"{HEAD}, rest, checksum"
"""The columns of an entry; `HEAD` are those without its text, which give the fields `HEAD_FIELDS` of a payload."""
LISTED = "(SELECT value FROM json_each(?))"
"""The numbers in a JSON list, a query's parameter."""
_ROW_LENGTH = 7


def of_ids(connection: sqlite3.Connection, query: str, ids: Collection[object]) -> list[tuple[Any, ...]]:
    """Rows of the entries with these ids; `query` has no WHERE yet."""
    # Not as JSON in one parameter: SQLite's JSON ends a text at a NUL. Versions before 3.32 take 999 parameters.
    storable = [id_ for id_ in strings(ids) if is_unicode(id_)]
    return [
        row
        for some in pieces(storable, 900)
        for row in connection.execute(f"{query} WHERE id IN ({', '.join('?' * len(some))})", some)
    ]


def words_of(blob: bytes) -> SparseVector:
    """The words of an entry as its row holds them."""
    half = len(blob) // 2
    return SparseVector(np.frombuffer(blob[:half], np.uint32), np.frombuffer(blob[half:], np.float32))


def columns_of(number: int, id_: str, payload: Mapping[str, Any], *, packed: bool) -> list[Any]:
    """The columns of an entry's row that its checksum covers.

    Args:
        number: of the entry.
        id_: of the entry.
        payload: of the entry.
        packed: compress the text and grid.
    """
    rest = dict(payload)
    columns = [number, id_, rest.pop("document_id", None), rest.pop("content_hash", None)]
    metadata, text = json.dumps(rest.pop("metadata", {})), json.dumps(rest)
    return [*columns, metadata, packed_text(text.encode()) if packed else text]


def row_checksum(columns: Sequence[Any]) -> int:
    """CRC-32 of an entry's columns: number, id, document, content, metadata and rest."""
    return zlib.crc32(json.dumps(list(columns), default=repr).encode())  # a damaged row may hold bytes


def checked_payload(row: Sequence[Any], where: str, fields: Collection[str] | None = None) -> Payload:
    """The payload of a row of `ROW`, after a check of its checksum, or of `HEAD`.

    Raises:
        StoreError: the entry of the store `where` is damaged.
    """
    if len(row) == _ROW_LENGTH:
        *row, expected = row
        if row_checksum(row) != expected:
            raise StoreError(f"{where}: the entry {row[1]!r} is damaged; repair the store, or index it anew")
    return payload_of(row, fields)


def payload_of(row: Sequence[Any], fields: Collection[str] | None = None) -> Payload:
    """The payload in an entry's columns: number, id, document, content, metadata and, unless it is left out, rest."""
    _, id_, document, content, metadata, *rest = row
    payload: Payload = {"id": id_, "document_id": document, "content_hash": content}
    if fields is None or "metadata" in fields:
        payload["metadata"] = parsed(metadata, id_) or None
    payload = {key: value for key, value in payload.items() if value is not None}
    if rest:
        payload.update(parsed(rest[0], id_))
    return payload if fields is None else {key: value for key, value in payload.items() if key in {*fields, "id"}}


def parsed(text: str | bytes, id_: str) -> Any:
    """The value of a column of JSON, packed or not, of the entry `id_`."""
    try:
        return parse_json(_unpacked_text(text) if isinstance(text, bytes) else text)
    except (TypeError, ValueError, zlib.error) as error:
        raise StoreError(f"the entry {id_!r} is damaged ({error}); repair the store, or index it anew") from error


def packed_text(text: bytes) -> bytes:
    """A column's text, compressed."""
    return zlib.compress(text, 9)


def _unpacked_text(data: bytes) -> bytes:
    inflate = zlib.decompressobj()
    text = inflate.decompress(data, _MOST_TEXT)
    if not inflate.eof or inflate.unused_data:
        raise ValueError("its text does not end where it should")
    return text


def rows_that_fit(
    connection: sqlite3.Connection, where: Filter | None, columns: str, after: int = 0
) -> Iterator[tuple[Any, ...]]:
    """Rows that fit a filter, with numbers above `after`, ascending; `columns` begin with `HEAD`."""
    clause = to_sql(where)
    query = f"SELECT {columns} FROM entries WHERE number > ? AND ({clause.sql}) ORDER BY number"
    with contextlib.closing(connection.execute(query, [after, *clause.parameters])) as rows:
        for row in rows:
            if clause.exact or where is None or matches(where, payload_of(row[:5])):
                yield row
