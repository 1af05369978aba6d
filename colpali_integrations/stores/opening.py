"""Opening of stores: the choice of an engine by the place, and the check of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any, TypeAlias

from colpali_integrations._options import checked_flag, unknown_option
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError, StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import Connection, is_server
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.fingerprint import same_identity
from colpali_integrations.models.loading import describe
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import find_model
from colpali_integrations.models.shared import shared_model
from colpali_integrations.stores.collection_options import checked_options
from colpali_integrations.stores.embedded.database import read_manifest
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.layout import Layout, LayoutLike
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.qdrant.index_kinds import checked_indexes
from colpali_integrations.stores.served.engine import ServedEngine
from colpali_integrations.stores.settings import LAYOUT, FirstStage, Settings, StoredModel

__all__ = [
    *("OPTIONS", "ModelLike", "continued", "continued_options", "open_engine", "open_model", "place_of"),
    *("question_model", "refuse_other_model", "registered_options", "settings_at", "stored_model", "stored_settings"),
    *("with_secrets", "without_secrets"),
]

ModelLike: TypeAlias = "ColPali | ModelDescription | StoredModel | str | os.PathLike[str]"


def stored_model(model: ModelLike, *, beside: StoredModel | None = None) -> StoredModel:
    """The record of a model, of its description, or of the model of a name or folder.

    Args:
        model: any of these.
        beside: the model of a store, with whose settings a name or folder goes on; see `continued_options`.

    Raises:
        ConfigurationError: it is none of these.
        ModelNotFoundError: the name is unknown and there is no such folder.
        ModelLoadError: the files of the folder cannot be described.
    """
    if isinstance(model, StoredModel):
        return model
    if isinstance(model, str | os.PathLike):
        options = {} if beside is None else continued_options(beside, model)
        model, _ = describe(model, ModelOptions(**options))
    elif isinstance(model, ColPali):
        model = model.description
    if not isinstance(model, ModelDescription):
        raise ConfigurationError(
            f"model must be a ColPali, a ModelDescription, or the name or folder of a model, got {type(model).__name__}"
        )
    return StoredModel.of(model)


def registered_options(model: StoredModel, *, where: str, advice: str) -> dict[str, Any]:
    """The options that make a store's pages, of a model that is registered under the name that the store records.

    Only a registered name is opened, because opening it may download it: a store is a file that anybody may have made.

    Args:
        model: of the store.
        where: the store, for the message.
        advice: for the message: how the caller names the model.

    Raises:
        ConfigurationError: no model is registered by that name.
    """
    try:
        description = find_model(model.name)
    except ModelNotFoundError as error:
        raise ConfigurationError(
            f"{where} was made by the model {model.name!r}, which is not registered here; {advice}"
        ) from error
    return _settings_of_pages(model, description)


def continued_options(
    model: StoredModel, name_or_path: str | os.PathLike[str], options: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The caller's options for a model, and beside them those that make a store's pages, if it is the store's model.

    So a store goes on with its settings, whether its model is named again or not. Another model of the same space, and
    one of another space, gets the caller's options alone.

    Args:
        model: of the store.
        name_or_path: that the caller gives for a model.
        options: that the caller gives, which count more.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`, of a name or folder that cannot be described.
    """
    if is_server(name_or_path):  # it decides the settings, and checks compare them with those of the store
        return dict(options)
    described, _ = describe(name_or_path, ModelOptions(**options))
    settings = _settings_of_pages(model, described)
    weights = replace(described, **settings).fingerprint.pages.weights
    if not same_identity(weights, model.fingerprint.pages.weights):
        return dict(options)
    own = described.fingerprint.pages.options
    return {**{name: value for name, value in settings.items() if value != own.get(name)}, **options}


def continued(model: StoredModel, name_or_path: str | os.PathLike[str], options: ModelOptions) -> ModelOptions:
    """The options of an adapter's encoder for a store: those that the caller left out go on with the store's.

    Args:
        model: of the store.
        name_or_path: of the encoder's model.
        options: of the encoder.

    Raises:
        ColPaliError: as `continued_options`.
    """
    given = {one.name: value for one in fields(options) if (value := getattr(options, one.name)) != one.default}
    return replace(options, **continued_options(model, name_or_path, given))


def open_model(model: ColPali | str | os.PathLike[str], stored: StoredModel) -> ColPali:
    """The model itself; of a name or folder the process's model, which goes on with the settings of a store's pages.

    Args:
        model: of the caller.
        stored: the model of the store.

    Raises:
        ConfigurationError: it is neither a `ColPali` nor a name or folder.
        ColPaliError: as `ColPali.from_pretrained`, of a name or folder.
    """
    if isinstance(model, ColPali):
        return model
    if not isinstance(model, str | os.PathLike):
        raise ConfigurationError(
            f"model must be a ColPali, or the name or folder of a model, got {type(model).__name__}"
        )
    return shared_model(model, ModelOptions(**continued_options(stored, model)))


def _settings_of_pages(model: StoredModel, description: ModelDescription) -> dict[str, Any]:
    """The options by which a model makes a store's pages, as far as they are options of its family."""
    settings = {**model.fingerprint.pages.options, "dim": model.dim}
    if description.origin is not None:
        settings.pop("precision", None)  # an exported folder has its own
    names = FAMILIES[description.family].settings if description.is_checkpoint else ()
    chosen = {name: value for name, value in settings.items() if name in (*names, "drop_blank")}
    if chosen.get("dim") == description.dim:
        del chosen["dim"]
    return chosen


def question_model(stored: StoredModel, named: str | os.PathLike[str] | None, *, where: str) -> ColPali:
    """The process's model for a store that was opened without a `ColPali`.

    Args:
        stored: the model of the store.
        named: the name or folder that the store was opened with; None for the registered model of the store's name.
        where: the store, for the message.

    Raises:
        ConfigurationError: nothing was named, and the store's model is not registered here.
    """
    if named is not None:
        return open_model(named, stored)
    options = registered_options(stored, where=where, advice="open it with model=<the folder of the model>")
    return shared_model(stored.name, ModelOptions(**options))


def refuse_other_model(stored: StoredModel | None, model: ModelDescription | None, *, where: str) -> None:
    """Refuse a model of another space than a store's before it is loaded, which may download it.

    Args:
        stored: the store's; None where there is none yet.
        model: a registered model; None for another, whose files decide.
        where: the store, for the message.

    Raises:
        FingerprintError: it is of another space.
    """
    if stored is not None and model is not None and model.name.lower() != stored.name.lower():
        stored.require_space(StoredModel.of(model), where=where)


def place_of(
    path: str | os.PathLike[str] | None,
    url: str | Sequence[str] | None,
    collection_name: str,
    folder_options: Mapping[str, Any],
    client_options: Mapping[str, Any],
    index_options: Mapping[str, Any] = MappingProxyType({}),
    collection_options: Mapping[str, Any] | None = None,
) -> dict[str, Any] | None:
    """The arguments of `MultiVectorStore.open` by which another process opens a store.

    Args:
        path: a folder, or the URL of a server of this package.
        url: of a Qdrant server, or several of a cluster's nodes.
        collection_name: on the server.
        folder_options: `read_only` counts.
        client_options: for `QdrantClient`, or `api_key_file`.
        index_options: `auto_index` counts; `indexes` are made by now.
        collection_options: those that hold for a store object count; see `CheckedOptions.of_object`.

    Returns:
        None for a store in memory, on a server or not, or of a client that the caller has made.
    """
    if path is not None and is_server(path):
        return {"path": os.fspath(path), **client_options}
    if path is not None:
        return {"path": str(user_path(path, StoreError).absolute()), "read_only": bool(folder_options.get("read_only"))}
    if url is None or url == _IMITATION:
        return None
    auto = {} if index_options.get("auto_index") is None else {"auto_index": index_options["auto_index"]}
    chosen = checked_options(collection_options).of_object
    kept = {"collection_options": chosen} if chosen else {}
    return {"url": url, "collection_name": collection_name, **auto, **kept, **client_options}


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a store that a pickle may hold: None in the place of the API key.

    Args:
        options: of `MultiVectorStore.open`, with those of `QdrantClient`.

    Raises:
        ConfigurationError: an option that may hold a secret, and has no place outside of a pickle.

    Example:
        >>> without_secrets({"url": "https://qdrant:6333", "api_key": "secret"})
        {'url': 'https://qdrant:6333', 'api_key': None}
    """
    if secret := [name for name in options if name in _SECRETS]:
        raise ConfigurationError(f"a store with {secret[0]}= cannot be pickled: it may hold a secret. Open it anew")
    if "@" in str(options.get("url") or ""):
        raise ConfigurationError("a store whose url= has a password cannot be pickled; pass api_key=, or open it anew")
    return {name: None if name == _API_KEY else value for name, value in options.items()}


def with_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that `without_secrets` returned, with the API key of this process's environment.

    Raises:
        ConfigurationError: there is no such variable.
    """
    if _API_KEY not in options or options[_API_KEY] is not None:
        return dict(options)
    if not (key := os.environ.get(_KEY_VARIABLE)):
        raise ConfigurationError(
            f"a pickled store holds no API key: set {_KEY_VARIABLE} where it is unpickled, or open the store anew"
        )
    return {**options, _API_KEY: key}


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
    if sum(place is not None for place in (path, url, client)) > 1:
        raise ConfigurationError("a store is in one place: pass path= or url= or client=, or none for memory")
    served = is_server(path)
    if client is None:
        _check_client_options(url, client_options, served=served)
    checked_options(collection_options)
    if collection_options and url is None and client is None:
        raise ConfigurationError("collection_options are for a collection on a server: they need url= or client=")
    indexing = {key: value for key, value in index_options.items() if value is not None}
    if indexing and url is None and client is None:
        raise ConfigurationError(f"{' and '.join(indexing)}: for a collection on a Qdrant server (url= or client=)")
    in_folder = {key: value for key, value in folder_options.items() if value is not None}
    if in_folder and (path is None or served):
        raise ConfigurationError(f"{' and '.join(in_folder)}: for a store in a folder (path=)")
    requested = {key: value for key, value in options.items() if value is not None}
    if requested.get("first_stage") == LAYOUT:
        raise ConfigurationError(
            "the first stage 'layout' is that of collections that exist already, which are opened by a layout"
        )
    engine: Engine
    if layout is not None or writable:
        _check_foreign(
            layout,
            {**requested, **indexing},
            collection_options,
            in_server=url is not None or client is not None,
            writable=writable,
        )
    if path is not None and served:
        engine = ServedEngine(Connection(os.fspath(path), client_options.get(_KEY_OPTION)))
        settings = _settings(engine.manifest, requested, engine.where, default="exact")
    elif path is not None:
        folder = user_path(path, StoreError)
        manifest = read_manifest(folder)
        settings = _settings(manifest, requested, f"the store {path}", default="ward")
        if manifest is None and not in_folder.get("read_only"):
            _load(requested["model"])
        kept: dict[str, Any] = {"schema": settings.schema, "manifest": settings.to_dict()}
        engine = FolderEngine(folder, **kept, packed=settings.is_compressed, **in_folder)
    elif url is not None or client is not None:
        from colpali_integrations.stores.qdrant import server as qdrant_server

        if "indexes" in indexing:
            indexing["indexes"] = checked_indexes(indexing["indexes"])
        connection = _connection(url, client, client_options)
        where = qdrant_server.describe(connection, collection_name)
        if layout is not None:
            owned = {"owns_client": client is None, "writable": writable}
            return _open_foreign(connection, collection_name, layout, stored_model(requested["model"]), owned)
        manifest = qdrant_server.read_manifest(connection, collection_name)
        settings = _settings(manifest, requested, where, default="ward")
        if manifest is None:
            _load(requested["model"])
        engine = qdrant_server.QdrantServerEngine(
            connection,
            collection_name,
            schema=settings.schema,
            manifest=settings.to_dict(),
            options=collection_options,
            owns_client=client is None,
            **indexing,
        )
    else:
        settings = _settings(None, requested, MemoryEngine.where, default="exact")
        engine = MemoryEngine(schema=settings.schema, manifest=settings.to_dict())
    # Two processes may create the store at the same time; the second one must accept the settings of the first.
    requested["model"] = settings.model
    return engine, _settings(engine.manifest, requested, engine.where, default="exact")


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

    settings = checked_settings(client, collection, layout, model)
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


_IMITATION = ":memory:"  # the URL of qdrant-client's own imitation of a server
_API_KEY, _KEY_VARIABLE = "api_key", "QDRANT_API_KEY"
_KEY_OPTION = "api_key_file"  # of a server of this package
_RETRY_OPTION = "retry_seconds"  # for a Qdrant server, also for a client that the caller has made
# Options of `QdrantClient` and of its HTTP client.
_SECRETS = ("auth_token_provider", "headers", "auth", "cookies", "cert", "metadata")
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
