"""Changes of stored entries: which ones a caller means, and what may change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from colpali_integrations.errors import InputError
from colpali_integrations.pages.identity import READER_KEYS
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Filter, FilterLike, always, parse_filter
from colpali_integrations.stores.layout import Layout

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


def refuse_fixed_keys(metadata: Mapping[str, Any], layout: Layout | None) -> None:
    """Refuse a change of metadata that describe a page.

    Args:
        metadata: the change.
        layout: of a collection that another program has made, whose keys describe the page too.

    Raises:
        InputError: it has such a key.
    """
    given = Layout() if layout is None else layout
    own = READER_KEYS | given.own_keys
    if fixed := sorted(key for key in metadata if key in own or given.reaches(key)):
        describe = "describes" if len(fixed) == 1 else "describe"
        raise InputError(f"update_metadata: {', '.join(fixed)} {describe} the page and cannot be changed")


def with_metadata(entry: Entry, metadata: Mapping[str, Any]) -> Entry:
    """The entry with other values in its metadata; None removes a key."""
    removed = {key for key, value in metadata.items() if value is None}
    values = {key: value for key, value in {**entry.metadata, **metadata}.items() if key not in removed}
    return replace(entry, metadata=values, grid=entry.grid)
