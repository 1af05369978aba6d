"""Reading the payloads of a collection, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any

from colpali_integrations.stores.qdrant import answers
from colpali_integrations.stores.qdrant.collection import QdrantClient, models

__all__ = ["scrolled_records"]


def scrolled_records(
    using: Callable[[], AbstractContextManager[QdrantClient]],
    collection: str,
    where: str,
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
        where: the collection and its server, for messages.
        conditions: only points that fit; None for all.
        limit: the most records.
        after: of the batch before; None for the first.
        keys: the paths of the payload that are read; True for all.
        reading: arguments of the client's methods that read.

    Raises:
        StoreError: the server cannot be reached, or its listing does not go on, so that it would never end.
    """
    with using() as client:
        records, following = client.scroll(
            collection,
            scroll_filter=conditions,
            limit=limit,
            offset=after,
            with_payload=keys,
            with_vectors=False,
            **reading,
        )
    return records, answers.following(after, following, where)
