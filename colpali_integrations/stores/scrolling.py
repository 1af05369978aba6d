"""Reading all points of an engine, batch by batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from typing import Any, Protocol

from colpali_integrations.stores.engine import Payload
from colpali_integrations.stores.entries import field_of
from colpali_integrations.stores.filters import Filter

__all__ = ["Scrolling", "documents_by_scrolling", "scrolled"]


class Scrolling(Protocol):
    """What is read: an `Engine`."""

    def scroll(
        self, where: Filter | None = None, *, limit: int = 256, after: Any = None, fields: Collection[str] | None = None
    ) -> tuple[list[Payload], Any]:
        """Read one batch of payloads, with the value of `after` for the next batch."""
        ...


def scrolled(
    engine: Scrolling, where: Filter | None = None, fields: Collection[str] | None = None
) -> Iterator[Payload]:
    """The payloads of all points that fit a filter, or the given fields of them."""
    after = None
    while True:
        payloads, after = engine.scroll(where, after=after, fields=fields)
        yield from payloads
        if after is None:
            return


def documents_by_scrolling(engine: Scrolling, where: Filter | None = None) -> dict[str, int]:
    """The answer of `Engine.documents`, for engines that cannot count by document."""
    counts = Counter(field_of(payload, "document_id") for payload in scrolled(engine, where, ("document_id",)))
    return {document: number for document, number in counts.items() if document is not None}
