"""Whether the payloads of a collection that another program has made have the keys that a layout names."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.payload_paths import Path, path_of, value_at, written_path
from colpali_integrations.stores.qdrant.collection import QdrantClient, models
from colpali_integrations.stores.qdrant.errors import MADE_ELSEWHERE, reaching
from colpali_integrations.stores.qdrant.filters import storable_path
from colpali_integrations.stores.qdrant.strict import StrictMode
from colpali_integrations.stores.qdrant.suggestion import sampled_keys

__all__ = ["check_keys"]

_logger = package_logger(__name__)
_SAMPLE = 16
_OF_PAGES = ("source", "page")  # of all pages; a page may be added with the first text or picture


def check_keys(
    client: QdrantClient, collection: str, layout: Layout, strict: StrictMode, where: str, *, writable: bool = False
) -> None:
    """Refuse a layout with a key that no page has, such as a misspelt one: nothing else would tell of it.

    A few pages are read. A key that none of them has is looked for among all pages, unless the collection's strict
    mode forbids that. A page of the number 0 is told by a warning where the layout counts from 1.

    Args:
        client: of the server.
        collection: its name.
        layout: of the collection.
        strict: the limits of the collection.
        where: the collection, for messages.
        writable: whether pages are added, which may be the first ones with a text or a picture.

    Raises:
        StoreError: no page has such a key, or the server cannot be reached.
    """
    roles = _OF_PAGES if writable else (*_OF_PAGES, "text", "image")
    named = {role: path_of(key) for role in roles if (key := getattr(layout, role)) is not None}
    read = [written_path(path) for role, path in named.items() if role != "image" and _is_askable(path)]
    with reaching(where, missing=MADE_ELSEWHERE):
        [*sample], following = client.scroll(
            collection, limit=strict.page(_SAMPLE), with_payload=read or False, with_vectors=False
        )
        if not sample:
            return
        payloads = [record.payload or {} for record in sample]
        if layout.page_base == 1 and any(_is_zero(value_at(one, named["page"])) for one in payloads if "page" in named):
            _logger.warning(
                "%s has a page of the number 0, and its layout counts from 1: if the first page of a document is 0, "
                "set page_base to 0 in the layout, or all numbers are one too low",
                where,
            )
        for role, path in named.items():
            if not _is_askable(path) or any(_has(one, path) for one in payloads):
                continue
            is_all = following is None and role != "image"
            if is_all or not (strict.indexed_only or _any_has(client, collection, path)):
                raise StoreError(_told(where, role, written_path(path), sampled_keys(client, collection, _SAMPLE)))


def _is_askable(path: Path) -> bool:
    return all(map(storable_path, path))


def _has(payload: Mapping[str, Any], path: Path) -> bool:
    value: Any = payload
    for key in path:
        if not isinstance(value, Mapping) or key not in value:
            return False
        value = value[key]
    return True


def _is_zero(number: Any) -> bool:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    return number == "0" or (is_number and number == 0)


def _any_has(client: QdrantClient, collection: str, path: Path) -> bool:
    """Whether any page has a key, also with the value null."""
    key = written_path(path)
    empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=key))
    null = models.IsNullCondition(is_null=models.PayloadField(key=key))
    found, _ = client.scroll(
        collection,
        scroll_filter=models.Filter(should=[models.Filter(must_not=[empty]), null]),
        limit=1,
        with_payload=False,
        with_vectors=False,
    )
    return bool(found)


def _told(where: str, role: str, key: str, existing: Mapping[str, str]) -> str:
    near = difflib.get_close_matches(key, existing, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else "."
    keys = ", ".join(f"{one!r} ({kind})" for one, kind in existing.items()) or "none"
    return (
        f"{where} has no page with the key {key!r}, which the layout has as {role}{guess} The keys of its payload "
        f"are {keys}. Name one of them as {role}, or leave {role} out of the layout"
    )
