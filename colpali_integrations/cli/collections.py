"""Where the store of a command is: a folder, or a collection on a Qdrant server that a JSON file names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeGuard

from colpali_integrations._options import shown, unknown_option
from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models.registry import find_model
from colpali_integrations.stores import MultiVectorStore, Settings, stored_settings
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.model_choice import ModelLike
from colpali_integrations.stores.opening import OPTIONS, settings_at
from colpali_integrations.stores.qdrant.place import shown_place

__all__ = ["described", "has_layout", "is_collection", "named_model", "opened_store", "place_settings"]

_TEXTS = ("collection_name", "model")
_KINDS = {"layout": Mapping, "indexes": Mapping, "options": Mapping, "writable": bool, "auto_index": bool}
_KEYS = ("url", *_TEXTS, *_KINDS)
_VARIABLE = "QDRANT_API_KEY"


def is_collection(store: StorePlace) -> TypeGuard[Path]:
    """Whether a place is a file that names a collection, and no folder or URL."""
    return isinstance(store, Path) and store.suffix.lower() == ".json" and not store.is_dir()


def named_model(store: StorePlace) -> str | None:
    """The model that the file of a collection names; None for a folder, and where it names none.

    Raises:
        ConfigurationError: it would have to be downloaded, which only the caller may ask for.
    """
    name: str | None = _read(store).get("model") if is_collection(store) else None
    if name is None or user_path(name, ConfigurationError, "model").is_dir():
        return name
    try:
        return find_model(name).name
    except ModelNotFoundError as error:
        raise ConfigurationError(
            f"{store} names the model {name!r}, which is neither registered here nor a folder; pass it by --model"
        ) from error


def described(store: Path) -> str:
    """The collection of a file, for messages."""
    values = _read(store)
    name, place = values.get("collection_name", "pages"), shown_place(values.get("url", ""))
    return f"the Qdrant collection {name!r} at {place}, which {store} names,"


def has_layout(store: StorePlace) -> bool:
    """Whether the store is a collection that another program has made."""
    return is_collection(store) and "layout" in _read(store)


def place_settings(store: StorePlace) -> Settings | None:
    """The settings of a store, read without opening it; None where there is none, and with a layout.

    Raises:
        StoreError: they cannot be read.
        ConfigurationError: the file of a collection is damaged.
    """
    return settings_at(**_place(store))[0] if is_collection(store) else stored_settings(store)


def opened_store(store: StorePlace, model: ModelLike | None = None, **options: Any) -> MultiVectorStore:
    """Open the store of a command.

    Args:
        store: its folder, or the file of a collection.
        model: that encodes questions, or has made the vectors; None for that of the file, else of the store.
        **options: of `MultiVectorStore.open`. Those for folders, such as `read_only`, have no effect on a collection.

    Raises:
        ColPaliError: as `MultiVectorStore.open`.
    """
    if not is_collection(store):
        return MultiVectorStore.open(store, model=model, **options)
    kept = {name: value for name, value in options.items() if name not in ("read_only", "file_mode")}
    place = _place(store)
    given: ModelLike | None = named_model(store) if model is None else model
    if given is None and "layout" in place:
        raise ConfigurationError(
            f'{store} has a layout and no "model"; add the name or folder of the one that made the collection'
        )
    if "indexes" in kept:
        kept["indexes"] = {**place.get("indexes", {}), **kept["indexes"]}
    return MultiVectorStore.open(model=given, **{**place, **kept})


def _place(store: Path) -> dict[str, Any]:
    """The arguments of `MultiVectorStore.open` for the collection of a file."""
    values = _read(store)
    place = {
        name: values[name] for name in ("url", "collection_name", "writable", "indexes", "auto_index") if name in values
    }
    if "layout" in values:
        place["layout"] = Layout.of(values["layout"])
    if key := os.environ.get(_VARIABLE):
        place["api_key"] = key
    return {**values.get("options", {}), **place}


def _read(store: Path) -> Mapping[str, Any]:
    try:
        values = parse_json(store.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigurationError(
            f'there is no file {store}; write {{"url": "http://localhost:6333", "collection_name": "pages"}} into it, '
            "or name a folder"
        ) from error
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{store} cannot be read as JSON: {error}") from error
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"{store} must be a JSON object with the keys {', '.join(_KEYS)}, got {shown(values)}")
    if unknown := [name for name in values if name not in _KEYS]:
        raise unknown_option(str(store), unknown, _KEYS)
    if "url" not in values:
        raise ConfigurationError(f'{store} names no server; add "url": "http://<host>:6333"')
    urls = values["url"]
    if not isinstance(urls, str) and not (isinstance(urls, list) and all(isinstance(one, str) for one in urls)):
        raise ConfigurationError(f"{store}: url must be a text, or a list of texts, got {shown(urls)}")
    if wrong := [name for name in _TEXTS if not isinstance(values.get(name, ""), str)]:
        raise ConfigurationError(f"{store}: {wrong[0]} must be a text, got {shown(values[wrong[0]])}")
    for name, kind in _KINDS.items():
        if name in values and not isinstance(values[name], kind):
            expected = "true or false" if kind is bool else "an object"
            raise ConfigurationError(f"{store}: {name} must be {expected}, got {shown(values[name])}")
    if wrong := [name for name in values.get("options", {}) if name in (*_KEYS, *OPTIONS)]:
        place = "a key of its own" if wrong[0] in _KEYS else "none of them"
        raise ConfigurationError(f"{store}: options are arguments of QdrantClient, and {wrong[0]!r} is {place}")
    return values
