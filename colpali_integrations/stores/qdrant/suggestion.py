"""The error about a collection that another program has made: what is in it, and the `Layout` that fits."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from qdrant_client import QdrantClient, models

from colpali_integrations._options import shown
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.payload_paths import Path, path_of, written_path
from colpali_integrations.stores.qdrant.filters import storable_path
from colpali_integrations.stores.qdrant.foreign_payloads import OWN
from colpali_integrations.stores.qdrant.vectors import described, vector_params

__all__ = ["not_ours", "sampled_keys", "suggested_layout"]

_SAMPLE = 50
_LONG = 20_000  # characters, more than a page of text has
# Names in public projects, the likeliest first.
_FULL = ("original", "colpali", "colqwen", "full", "initial", "multivector", "late", "image")
_FIRST = ("mean_pool", "row", "column", "pooled", "mean")
_SOURCE = ("source", "document", "doc_id", "document_id", "filename", "file_name", "pdf_name", "file", "pdf", "doc")
_PAGE = ("page", "page_number", "page_num", "page_idx", "page_index", "page_id", "page_no")
_TEXT = ("text", "page_text", "ocr", "markdown", "content", "page_content")
_IMAGE = ("image", "page_image", "image_base64", "image_data", "img", "picture", "image_path", "image_url")
_ENCODED = ("muvera", "fde")  # of one vector per page that a transform has made
_LEVELS = 3  # of objects whose keys are looked at


def not_ours(client: QdrantClient, collection: str, where: str) -> StoreError:
    """The error about opening a collection of another program without a layout.

    Args:
        client: of the server.
        collection: its name.
        where: the collection and its server, for the message.
    """
    params = vector_params(client.get_collection(collection))
    payloads = _sample(client, collection, _SAMPLE)
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
    encoded = [name for name, one in params.items() if one.multivector_config is None and _has(name, _ENCODED)]
    if encoded:
        otherwise = (
            f"add {encoded[0]!r} to its first, and muvera= with the arguments of fastembed's Muvera that made it, to "
            f"choose the candidates by it; {otherwise}"
        )
    return StoreError(
        f"{facts}. To search it, pass layout={layout!r} and model= with the model that made its vectors; {otherwise}",
        command=f'{facts}. To search it, add "layout": {written} and the "model" that made its vectors to the file; '
        + otherwise,
    )


def sampled_keys(client: QdrantClient, collection: str, pages: int) -> dict[str, str]:
    """The keys of some pages, as a layout names them, with the kinds of their values."""
    return _kinds(_sample(client, collection, pages))


def _sample(client: QdrantClient, collection: str, pages: int) -> list[Mapping[str, Any]]:
    """The payloads of some pages; long texts, such as pictures in base64, of the first one alone."""
    first, following = client.scroll(collection, limit=1, with_payload=True, with_vectors=False)
    payloads: list[Mapping[str, Any]] = [record.payload or {} for record in first]
    if following is None or pages == 1:
        return payloads
    long = [
        written_path((key,))
        for key, value in payloads[0].items()
        if isinstance(value, str) and len(value) > _LONG and storable_path(key)
    ]
    others, _ = client.scroll(
        collection,
        limit=pages - 1,
        offset=following,
        with_payload=models.PayloadSelectorExclude(exclude=long) if long else True,
        with_vectors=False,
    )
    return [*payloads, *(record.payload or {} for record in others)]


def suggested_layout(params: Mapping[str, models.VectorParams], payloads: Sequence[Mapping[str, Any]]) -> Layout | None:
    """The layout that the names in a collection suggest; None without vectors for late interaction."""
    several = [name for name, one in params.items() if one.multivector_config is not None]
    first = [name for name in several if _has(name, _FIRST)]
    first.sort(key=lambda name: ("column" in name.lower(), name))  # rows before columns, as in the tutorial
    candidates = [name for name in several if name not in first] or several
    if not candidates:
        return None
    full = min(candidates, key=lambda name: next((at for at, part in enumerate(_FULL) if part in name.lower()), 99))
    found = [dict(_values(payload)) for payload in payloads]
    paths = {path for values in found for path in values}
    page = _likely(_PAGE, paths)
    numbers = [] if page is None else [str(values.get(path_of(page))) for values in found]
    return Layout(
        full=full,
        first=[name for name in first if name != full and params[name].size == params[full].size],
        source=_likely(_SOURCE, paths),
        page=page,
        page_base=0 if "0" in numbers else 1,
        text=_likely(_TEXT, paths),
        image=_likely(_IMAGE, {path for values in found for path, value in values.items() if isinstance(value, str)}),
    )


def _has(name: str, parts: Sequence[str]) -> bool:
    return any(part in name.lower() for part in parts)


def _likely(names: Sequence[str], paths: Collection[Path]) -> str | None:
    """The key with the likeliest name, of those in the fewest objects."""
    for depth in range(1, _LEVELS + 1):
        by_name = {path[-1].lower(): path for path in sorted(paths, reverse=True) if len(path) == depth}
        if (name := next((name for name in names if name in by_name), None)) is not None:
            return _written(by_name[name])
    return None


def _written(path: Path) -> str:
    """A path as a layout names it; a key without a dot stands for itself."""
    return path[0] if path_of(path[0]) == path else written_path(path)


def _values(payload: Mapping[str, Any], above: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values of a payload, and of the objects in it, by their paths."""
    for key, value in payload.items():
        if key == OWN and not above:
            continue  # of pages that this package has added
        path = (*above, str(key))
        yield path, value
        if isinstance(value, Mapping) and len(path) < _LEVELS:
            yield from _values(value, path)


def _kinds(payloads: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The keys with the kinds of their values, those that most pages have first."""
    found: dict[str, list[Any]] = {}
    for payload in payloads:
        for path, value in _values(payload):
            found.setdefault(_written(path), []).append(value)
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
