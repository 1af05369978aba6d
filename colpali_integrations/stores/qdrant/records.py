"""Reading the payloads of a collection, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from colpali_integrations.stores.qdrant.collection import QdrantClient, models

__all__ = ["scrolled_records"]


def scrolled_records(
    using: Callable[[], AbstractContextManager[QdrantClient]],
    collection: str,
    conditions: models.Filter | None,
    limit: int,
    after: Any,
    keys: list[str] | bool,
    reading: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[list[models.Record], Any]:
    """One batch of records, in the order of the server's ids, and the value of `after` for the next; None at the end.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        collection: its name.
        conditions: only points that fit; None for all.
        limit: the most records.
        after: of the batch before; None for the first.
        keys: the paths of the payload that are read; True for all.
        reading: arguments of the client's methods that read.
    """
    with using() as client:
        return client.scroll(
            collection,
            scroll_filter=conditions,
            limit=limit,
            offset=after,
            with_payload=keys,
            with_vectors=False,
            **reading,
        )
