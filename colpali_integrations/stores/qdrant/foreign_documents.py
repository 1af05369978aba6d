"""The documents of a collection that another program has made, counted by its server where it has an index of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any

from colpali_integrations.stores.qdrant.collection import QdrantClient, models
from colpali_integrations.stores.qdrant.facets import Facets
from colpali_integrations.stores.qdrant.foreign_payloads import OWN, ForeignDialect

__all__ = ["counted_documents"]


def counted_documents(
    using: Callable[[], AbstractContextManager[QdrantClient]],
    facets: Facets,
    dialect: ForeignDialect,
    count: Callable[[models.Filter], int],
    added: Callable[[models.Filter], Iterable[str | None]],
    conditions: models.Filter | None,
) -> dict[str, int] | None:
    """The ids of documents and their numbers of points, by a facet of the layout's `source`.

    Pages that this package has added may have other ids than their source: they are read.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        facets: of the collection.
        dialect: writes the conditions.
        count: the exact number of the points that fit.
        added: reads the ids of the documents of points that this package has added.
        conditions: only points that fit; None for all.

    Returns:
        None where the source has no index of texts, or the index does not hold all of its values: numbers and lists.
    """
    key, own = dialect.source_key, f"{OWN}.id"
    if key is None or not dialect.has_texts(key) or not dialect.serves(own, "any", make=False):
        return None
    also = [] if conditions is None else [conditions]
    others = dialect.combine(must=[*also, dialect.empty(own)])
    with using() as client:
        counts = facets.counts(client, key, others)
    if counts is None or sum(counts.values()) + count(_without(dialect, others, key)) != count(others):
        return None
    counts.pop("", None)
    for document in added(dialect.combine(must=also, must_not=[dialect.empty(own)])):
        if document is not None:
            counts[document] = counts.get(document, 0) + 1
    return counts


def _without(dialect: ForeignDialect, conditions: models.Filter, key: str) -> Any:
    return dialect.combine(must=[conditions, dialect.empty(key)])
