"""The error about a collection that another program has made: what is in it, and the `Layout` that fits."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from colpali_integrations._options import shown
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.qdrant.vectors import described, vector_params

__all__ = ["not_ours", "suggested_layout"]

_SAMPLE = 50
# Names in public projects, the likeliest first.
_FULL = ("original", "colpali", "colqwen", "full", "initial", "multivector", "late", "image")
_FIRST = ("mean_pool", "row", "column", "pooled", "mean")
_SOURCE = ("source", "document", "doc_id", "document_id", "filename", "file_name", "pdf_name", "file", "pdf", "doc")
_PAGE = ("page", "page_number", "page_num", "page_idx", "page_index", "page_id", "page_no")
_TEXT = ("text", "page_text", "ocr", "markdown", "content", "page_content")


def not_ours(client: QdrantClient, collection: str, where: str) -> StoreError:
    """The error about opening a collection of another program without a layout.

    Args:
        client: of the server.
        collection: its name.
        where: the collection and its server, for the message.
    """
    params = vector_params(client.get_collection(collection))
    records, _ = client.scroll(collection, limit=_SAMPLE, with_payload=True, with_vectors=False)
    payloads = [record.payload or {} for record in records]
    layout = suggested_layout(params, payloads)
    keys = ", ".join(f"{key!r} ({kind})" for key, kind in _kinds(payloads).items()) or "none"
    facts = (
        f"{where} was not made by colpali-integrations. Its vectors are {described(params)}; the keys of its payload "
        f"are {keys}"
    )
    otherwise = "for a new store choose another collection name"
    if layout is None:
        return StoreError(f"{facts}. It has no vector of several per page for late interaction; {otherwise}")
    written = json.dumps(layout.to_dict())
    return StoreError(
        f"{facts}. To search it, pass layout={layout!r} and model= with the model that made its vectors; {otherwise}",
        command=f'{facts}. To search it, add "layout": {written} and the "model" that made its vectors to the file; '
        + otherwise,
    )


def suggested_layout(params: Mapping[str, models.VectorParams], payloads: Sequence[Mapping[str, Any]]) -> Layout | None:
    """The layout that the names in a collection suggest; None without vectors for late interaction."""
    several = [name for name, one in params.items() if one.multivector_config is not None]
    first = [name for name in several if any(part in name.lower() for part in _FIRST)]
    first.sort(key=lambda name: ("column" in name.lower(), name))  # rows before columns, as in the tutorial
    candidates = [name for name in several if name not in first] or several
    if not candidates:
        return None
    full = min(candidates, key=lambda name: next((at for at, part in enumerate(_FULL) if part in name.lower()), 99))
    keys = {key for payload in payloads for key in payload}
    page = _likely(_PAGE, keys)
    numbers = [] if page is None else [str(payload[page]) for payload in payloads if page in payload]
    return Layout(
        full=full,
        first=[name for name in first if name != full and params[name].size == params[full].size],
        source=_likely(_SOURCE, keys),
        page=page,
        page_base=0 if "0" in numbers else 1,
        text=_likely(_TEXT, keys),
    )


def _likely(names: Sequence[str], keys: Collection[str]) -> str | None:
    by_name = {key.lower(): key for key in sorted(keys, reverse=True)}
    return next((by_name[name] for name in names if name in by_name), None)


def _kinds(payloads: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The keys with the kinds of their values, those that most pages have first."""
    found: dict[str, list[Any]] = {}
    for payload in payloads:
        for key, value in payload.items():
            found.setdefault(key, []).append(value)
    ordered = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return {key: _kind(values) for key, values in ordered}


def _kind(values: Sequence[Any]) -> str:
    names = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        list: "list",
        dict: "object",
        type(None): "null",
    }
    kinds = sorted({names.get(type(value), type(value).__name__) for value in values})
    example = next((value for value in values if isinstance(value, str | int | float)), None)
    short = shown(example) if example is not None and len(str(example)) <= 40 else None
    return " or ".join(kinds) + ("" if short is None else f", such as {short}")
