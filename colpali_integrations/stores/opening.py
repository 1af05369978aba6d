"""Opening of stores: the choice of an engine by the place, and the check of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

from colpali_integrations._options import checked_flag, unknown_option
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import Connection, is_server
from colpali_integrations.stores.collection_options import checked_options
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.manifest import read_manifest
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.layout import Layout, LayoutLike
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.model_choice import ModelLike, stored_model
from colpali_integrations.stores.qdrant.index_kinds import checked_indexes
from colpali_integrations.stores.served.engine import ServedEngine
from colpali_integrations.stores.settings import LAYOUT, FirstStage, Settings, StoredModel

__all__ = ["OPTIONS", "open_engine", "settings_at", "stored_settings"]


def stored_settings(
    path: str | os.PathLike[str], *, api_key_file: str | os.PathLike[str] | None = None
) -> Settings | None:
    """The settings of the store in a folder, read without opening it; None for a folder without a store.

    Args:
        path: the folder, or the URL of a server.
        api_key_file: for a server; see `ColPali.from_pretrained`.

    Raises:
        StoreError: it cannot be read.

    Example:
        >>> settings = stored_settings("my-index")
        >>> settings.model.name, settings.first_stage
        ('coltiny', 'exact')
        >>> stored_settings("no-such-folder") is None
        True
    """
    if is_server(path):
        engine = ServedEngine(Connection(os.fspath(path), api_key_file))
        try:
            return Settings.from_dict(engine.manifest, where=engine.where)
        finally:
            engine.close()
    manifest = read_manifest(user_path(path, StoreError))
    return None if manifest is None else Settings.from_dict(manifest, where=f"the store {path}")


def settings_at(
    *,
    path: str | os.PathLike[str] | None = None,
    url: str | Sequence[str] | None = None,
    client: Any = None,
    collection_name: str = "pages",
    layout: LayoutLike | None = None,
    **options: Any,
) -> tuple[Settings | None, str]:
    """The settings of the store at a place, read before its model is loaded, and the name of the place for messages.

    Args:
        path: a folder, or the URL of a server of this package.
        url: of a Qdrant server, or several of a cluster's nodes.
        client: a ready `QdrantClient`.
        collection_name: of the collection on the server.
        layout: of a collection that another program has made, which keeps no settings.
        **options: those of `MultiVectorStore.open`; only those for `QdrantClient` count.

    Returns:
        None for the settings where there is no store yet, as in memory, and with a layout.

    Raises:
        StoreError: it cannot be read.
        ConfigurationError: an option is invalid.

    Example:
        >>> settings, where = settings_at(path="my-index")
        >>> settings.model.name, where
        ('coltiny', 'the store my-index')
    """
    if path is not None:
        return stored_settings(path, api_key_file=options.get(_KEY_OPTION)), f"the store {path}"
    if url is None and client is None:
        return None, MemoryEngine.where
    if layout is not None:
        return None, f"the collection {collection_name!r}"
    from colpali_integrations.stores.qdrant import server as qdrant_server

    client_options = {name: value for name, value in options.items() if name not in OPTIONS}
    connection = _connection(url, client, client_options)
    try:
        where = f"the collection {collection_name!r}"
        manifest = qdrant_server.read_manifest(connection, collection_name)
        return None if manifest is None else Settings.from_dict(manifest, where=where), where
    finally:
        if client is None:
            connection.close()


def open_engine(
    path: str | os.PathLike[str] | None,
    url: str | Sequence[str] | None,
    client: Any,
    collection_name: str,
    options: Mapping[str, Any],
    folder_options: Mapping[str, Any],
    collection_options: Mapping[str, Any] | None,
    client_options: Mapping[str, Any],
    index_options: Mapping[str, Any] = MappingProxyType({}),
    *,
    layout: Layout | None = None,
    writable: bool = False,
) -> tuple[Engine, Settings]:
    """Open the engine of an existing store, after checking its settings, or create it.

    A new store stays bound to its model. So a `ColPali` is loaded before a folder or collection is made for it, and one
    that cannot be loaded leaves nothing behind.

    Args:
        path: a folder, or the URL of a server of this package.
        url: of a Qdrant server, or several of a cluster's nodes.
        client: a ready `QdrantClient`.
        collection_name: of the collection on the server.
        options: `model` and the other fields of `Settings`; None for those that were not passed.
        folder_options: `read_only` and `file_mode`; None for those that were not passed.
        collection_options: see `CollectionOptions`.
        client_options: for `QdrantClient`; or `api_key_file`, for a server of this package.
        index_options: `indexes` and `auto_index`, for a collection on a server; None for those that were not passed.
        layout: of a collection that another program has made.
        writable: with a layout.

    Raises:
        ConfigurationError: more than one place, an unknown option, or a store that was made with other options.
        FingerprintError: the store was made by a model of another space.
        StoreError: it cannot be opened, or does not exist and there is no model to create it for.
        ModelError: the model of a new store cannot be loaded.
    """
    requested, in_folder, indexing = map(_passed, (options, folder_options, index_options))
    on_server = url is not None or client is not None
    if sum(place is not None for place in (path, url, client)) > 1:
        raise ConfigurationError("a store is in one place: pass path= or url= or client=, or none for memory")
    if client is None:
        _check_client_options(url, client_options, served=is_server(path))
    checked_options(collection_options)
    if not on_server:
        _refuse_server_options(collection_options, indexing)
    if in_folder and (path is None or is_server(path)):
        raise ConfigurationError(f"{' and '.join(in_folder)}: for a store in a folder (path=)")
    if requested.get("first_stage") == LAYOUT:
        raise ConfigurationError(
            "the first stage 'layout' is that of collections that exist already, which are opened by a layout"
        )
    if layout is not None or writable:
        _check_foreign(layout, {**requested, **indexing}, collection_options, in_server=on_server, writable=writable)
    if on_server:
        if "indexes" in indexing:
            indexing["indexes"] = checked_indexes(indexing["indexes"])
        connection = _connection(url, client, client_options)
        owned = {"owns_client": client is None}
        if layout is not None:
            owned["writable"] = writable
            return _open_foreign(connection, collection_name, layout, stored_model(requested["model"]), owned)
        kept = {"options": collection_options, **owned, **indexing}
        engine, settings = _open_collection(connection, collection_name, requested, kept)
    elif path is None:
        settings = _settings(None, requested, MemoryEngine.where, default="exact")
        engine = MemoryEngine(schema=settings.schema, manifest=settings.to_dict())
    elif is_server(path):
        engine = ServedEngine(Connection(os.fspath(path), client_options.get(_KEY_OPTION)))
        settings = _settings(engine.manifest, requested, engine.where, default="exact")
    else:
        engine, settings = _open_folder(path, requested, in_folder)
    # Two processes may create the store at the same time; the second one must accept the settings of the first.
    requested["model"] = settings.model
    return engine, _settings(engine.manifest, requested, engine.where, default="exact")


def _passed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _refuse_server_options(collection_options: Mapping[str, Any] | None, indexing: Mapping[str, Any]) -> None:
    if collection_options:
        raise ConfigurationError("collection_options are for a collection on a server: they need url= or client=")
    if indexing:
        raise ConfigurationError(f"{' and '.join(indexing)}: for a collection on a Qdrant server (url= or client=)")


def _open_folder(
    path: str | os.PathLike[str], requested: dict[str, Any], options: Mapping[str, Any]
) -> tuple[Engine, Settings]:
    folder = user_path(path, StoreError)
    manifest = read_manifest(folder)
    settings = _settings(manifest, requested, f"the store {path}", default="ward")
    if manifest is None and not options.get("read_only"):
        _load(requested["model"])
    kept: dict[str, Any] = {"schema": settings.schema, "manifest": settings.to_dict()}
    return FolderEngine(folder, **kept, packed=settings.is_compressed, **options), settings


def _open_collection(
    client: Any, collection: str, requested: dict[str, Any], options: Mapping[str, Any]
) -> tuple[Engine, Settings]:
    from colpali_integrations.stores.qdrant import server as qdrant_server

    where = qdrant_server.describe(client, collection)
    manifest = qdrant_server.read_manifest(client, collection)
    settings = _settings(manifest, requested, where, default="ward")
    if manifest is None:
        _load(requested["model"])
    kept: dict[str, Any] = {"schema": settings.schema, "manifest": settings.to_dict()}
    return qdrant_server.QdrantServerEngine(client, collection, **kept, **options), settings


def _connection(url: str | Sequence[str] | None, client: Any, options: Mapping[str, Any]) -> Any:
    """The client of a Qdrant server: that of a URL, or the caller's, which takes no option but `retry_seconds`."""
    from colpali_integrations.stores.qdrant import server as qdrant_server

    if url is not None:
        _check_client_options(url, options)
        return qdrant_server.connect(url, **options)
    _check_client_options(url, {name: value for name, value in options.items() if name != _RETRY_OPTION})
    qdrant_server.check_client(client)
    return qdrant_server.retrying(client, options.get(_RETRY_OPTION))


def _check_foreign(
    layout: Layout | None,
    requested: Mapping[str, Any],
    collection_options: object,
    *,
    in_server: bool,
    writable: object = False,
) -> None:
    """Refuse options that contradict a layout."""
    checked_flag(writable, "writable")
    if layout is None:
        raise ConfigurationError("writable is for a collection that another program has made: pass its layout too")
    if not in_server:
        raise ConfigurationError("a layout is for a collection on a Qdrant server: pass its url, or a client")
    others = [name for name in requested if name != "model"]
    if others := others + ["collection_options"] * (collection_options is not None):
        raise ConfigurationError(
            f"{', '.join(others)}: for a new store; a collection with a layout stays as it was made"
        )
    if "model" not in requested:
        raise ConfigurationError(
            "a layout needs the model that made the collection's vectors, which it does not record: pass model= "
            "(embedding= in LangChain, embed_model= in LlamaIndex)",
            command="a layout needs the model that made the collection's vectors: pass it by --model",
        )


def _open_foreign(
    client: Any, collection: str, layout: Layout, model: StoredModel, options: Mapping[str, Any]
) -> tuple[Engine, Settings]:
    """Open a collection that another program has made."""
    from colpali_integrations.stores.qdrant.foreign import ForeignEngine, checked_settings

    settings = checked_settings(client, collection, layout, model, writable=bool(options.get("writable")))
    return ForeignEngine(client, collection, layout=layout, manifest=settings.to_dict(), **options), settings


def _check_client_options(url: str | Sequence[str] | None, options: Mapping[str, Any], *, served: bool = False) -> None:
    """Refuse options that are neither of a store nor of a server's client, or have no server."""
    misspelt = [name for name in options if name in _GUESSES or (url is None and get_close_matches(name, OPTIONS))]
    if misspelt:
        raise unknown_option("MultiVectorStore.open", misspelt, OPTIONS, _GUESSES)
    if served and options.keys() <= {_KEY_OPTION}:
        return
    if options and url is None:
        raise ConfigurationError(f"{', '.join(options)}: options of a server's client need url=")


def _load(model: ModelLike) -> None:
    """Load a model; a name, a folder or a description tells only which model it is."""
    if isinstance(model, ColPali):
        model.load()


def _settings(
    manifest: Mapping[str, Any] | None, requested: dict[str, Any], where: str, *, default: FirstStage
) -> Settings:
    model: ModelLike | None = requested.get("model")
    if manifest is not None:
        settings = Settings.from_dict(manifest, where=where)
        record = settings.model if model is None else stored_model(model, beside=settings.model)
        settings.require(replace(settings, **{**requested, "model": record}), where=where)
        return settings
    if model is None:
        raise StoreError(f"there is no such store yet: {where}; pass model= to make it, or index documents into it")
    record = stored_model(model)
    if not record.unit_length:
        default = "exact"  # few vectors per page, and averaging them discards the weights in their lengths
    return Settings(**{"first_stage": default, **requested, "model": record})


_KEY_OPTION = "api_key_file"  # of a server of this package
_RETRY_OPTION = "retry_seconds"  # for a Qdrant server, also for a client that the caller has made
OPTIONS = (
    *("client", "collection_name", "collection_options", "datatype", "first_stage", "first_vectors", "language"),
    *("model", "path", "pool_factor", "url", "read_only", "file_mode", "indexes", "auto_index", "layout", "writable"),
)
"""Those of `MultiVectorStore.open` that are none of `QdrantClient`."""
_GUESSES = {
    **{"collection": "use collection_name=", "host": "use url='http://<host>:6333'"},
    **dict.fromkeys(
        ("persist_directory", "persist_dir", "location", "folder"),
        "use path= for a folder, or url= for a Qdrant server",
    ),
    **dict.fromkeys(("mode", "permissions"), "use file_mode= for the permissions of a new store's files"),
    **dict.fromkeys(("readonly", "immutable"), "use read_only=True"),
    **dict.fromkeys(("embedding", "embed_model", "embedding_function"), "use model="),
}
