"""Where on stored pages the answer to a question is: regions and similarity maps by the ids of entries."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal

from colpali_integrations._options import checked_number
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.explain.regions import regions
from colpali_integrations.explain.similarity import SimilarityMaps, similarity_maps
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.stores.entries import Entry

__all__ = ["maps_of_pages", "regions_of_pages"]


def regions_of_pages(
    records: Iterable[tuple[Entry, Float32]], query: Float32, tokens: Sequence[str | None] | None
) -> dict[str, list[dict[str, Any]]]:
    """See `MultiVectorStore.regions`.

    Args:
        records: entries and their vectors.
        query: (n, dim).
        tokens: the words that the vectors of the query stand for.
    """
    boxes: dict[str, list[dict[str, Any]]] = {}
    for entry, vectors in records:
        matches = [] if entry.grid is None else regions(query, vectors, entry.grid, tokens=tokens)
        width, height = (_length(entry.metadata.get(side)) for side in ("width", "height"))
        unit: Literal["points", "pixels"] = "points" if "dpi" in entry.metadata else "pixels"
        boxes[entry.id] = [region.to_dict(width, height, unit) for region in matches]
    return boxes


def maps_of_pages(
    records: Iterable[tuple[Entry, Float32]], query: Float32, tokens: Sequence[str | None] | None
) -> dict[str, SimilarityMaps]:
    """See `MultiVectorStore.similarity_maps`; the arguments are those of `regions_of_pages`."""
    return {
        entry.id: similarity_maps(query, vectors, entry.grid, tokens=tokens)
        for entry, vectors in records
        if entry.grid is not None
    }


def _length(value: object) -> float:
    """The side of a page; 1 where an entry of another program does not have it."""
    with suppress(ConfigurationError):
        return checked_number(value, "side", 0, above=True)
    return 1.0
