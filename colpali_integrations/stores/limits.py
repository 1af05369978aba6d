"""The largest entries that a store takes, on every engine; they are refused before anything is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.refused import RefusedError

__all__ = [
    *("MAX_BYTES", "MAX_DEPTH", "MAX_DIM", "MAX_ID_LENGTH", "MAX_SERVER_NUMBERS", "MAX_VECTORS"),
    *("check_depth", "check_numbers", "check_size", "is_deep"),
]

MAX_ID_LENGTH = 4096
"""Characters of an entry's id."""
MAX_DEPTH = 30
"""Levels of dicts and lists in an entry's metadata. (A Qdrant server takes 32 over gRPC.)"""
MAX_BYTES = 16 << 20
"""Bytes of an entry's text, metadata and data of its adapter, as JSON. (A Qdrant server takes requests of 32 MiB.)"""
MAX_VECTORS = 65_536
"""Vectors per page."""
MAX_DIM = 65_536
"""Numbers per vector."""
MAX_SERVER_NUMBERS = (1 << 20) - 1
"""Numbers of all vectors of a page on a Qdrant server: 8,191 vectors of 128 numbers, 409 of 2,560. (Qdrant 1.18.3.)"""

# Adapters wrap a caller's metadata in their own.
_WRAPPING = 8


def check_depth(name: str, values: Mapping[str, Any], *, wrapped: bool = False) -> None:
    """Refuse values with too many levels; a loop, of a value that contains itself, has too many too.

    Args:
        name: of the entry, for the message.
        values: metadata, or data of an adapter.
        wrapped: whether an adapter has wrapped a caller's metadata.

    Raises:
        StoreError: they have more than `MAX_DEPTH` levels.
    """
    if _is_deeper(values, MAX_DEPTH + wrapped * _WRAPPING):
        raise StoreError(f"{name}: metadata may have {MAX_DEPTH} levels of dicts and lists, and these have more")


def is_deep(values: Mapping[str, Any]) -> bool:
    """Whether values have more levels than a Qdrant server takes, as an adapter's data may; `to_payload` writes text.

    >>> is_deep({"metadata": {"year": 2024}})
    False
    """
    return _is_deeper(values, MAX_DEPTH)


def _is_deeper(values: Mapping[str, Any], levels: int) -> bool:
    level: list[Any] = [values]
    for _ in range(levels):
        level = [one for value in level for one in _inside(value)]
        if not level:
            return False
    return True


def _inside(value: Any) -> list[Any]:
    """The dicts and lists in one, each once."""
    parts = value.values() if isinstance(value, Mapping) else value
    return list({id(one): one for one in parts if isinstance(one, (Mapping, list, tuple))}.values())


def check_size(name: str, payload: Mapping[str, Any], size: int) -> None:
    """Refuse a payload that is too large.

    Raises:
        StoreError: `size`, the number of its bytes as JSON, is above `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        largest = max(payload, key=lambda key: len(json.dumps(payload[key])))
        raise StoreError(
            f"{name}: text and metadata may take {MAX_BYTES >> 20} MB as JSON, and these take {size / (1 << 20):.1f} "
            f"MB, most of it in {largest!r}"
        )


def check_numbers(name: str, shape: tuple[int, ...], most: int | None, where: str) -> None:
    """Refuse a page with more numbers than its store takes.

    Args:
        name: of the page, for the message.
        shape: (n_vectors, dim) of its vectors, as they are stored.
        most: the numbers per page that the store takes; None for no limit.
        where: the kind and place of the store, for the message.

    Raises:
        RefusedError: the page has more numbers.
    """
    count, dim = shape
    if most is not None and count * dim > most:
        raise RefusedError(
            f"{name}: {count:,} vectors of {dim:,} numbers are too many for {where}, which takes {most:,} numbers per "
            f"page, {most // dim:,} such vectors. Store means of similar vectors (pool_factor=, in a new store), "
            "or make shorter vectors (dim=, where the model allows it) or smaller pictures (max_num_visual_tokens=, "
            "max_side=, dpi=); or take a store in a folder (path=), which has no such limit"
        )
