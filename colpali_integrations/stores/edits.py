"""Changes of stored entries: which ones a caller means, and what may change."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from colpali_integrations.errors import InputError
from colpali_integrations.pages.identity import READER_KEYS
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Filter, FilterLike, always, parse_filter

__all__ = ["criteria_of", "refuse_fixed_keys", "with_metadata"]


def criteria_of(ids: Sequence[str] | None, where: FilterLike, document_id: str | None) -> Filter:
    """The filter of the entries that match all criteria of a deletion; see `MultiVectorStore.delete`.

    Raises:
        InputError: no criterion, or a filter that fits every possible entry.
    """
    condition = parse_filter(where)
    if condition is not None and always(condition):
        raise InputError(
            f"delete: the filter {where!r} fits every entry; to remove everything, pass where={{'$id': "
            "{'$exists': True}}"
        )
    by_id = None if ids is None else parse_filter({ID: {"$in": [*ids]}})
    by_document = None if document_id is None else parse_filter({DOCUMENT: document_id})
    criteria = [one for one in (condition, by_id, by_document) if one is not None]
    if not criteria:
        raise InputError("delete: pass ids, where or document_id; nothing was given")
    return And(tuple(criteria))


def refuse_fixed_keys(metadata: Mapping[str, Any], own_keys: Collection[str]) -> None:
    """Refuse a change of metadata that describe a page.

    Args:
        metadata: the change.
        own_keys: those of a collection's layout.

    Raises:
        InputError: it has such a key.
    """
    if fixed := sorted(READER_KEYS.union(own_keys) & metadata.keys()):
        raise InputError(f"update_metadata: {', '.join(fixed)} describe the page and cannot be changed")


def with_metadata(entry: Entry, metadata: Mapping[str, Any]) -> Entry:
    """The entry with other values in its metadata; None removes a key."""
    removed = {key for key, value in metadata.items() if value is None}
    values = {key: value for key, value in {**entry.metadata, **metadata}.items() if key not in removed}
    return replace(entry, metadata=values, grid=entry.grid)
