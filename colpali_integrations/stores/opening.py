"""Where a store is, and what it was made with -> an engine and its settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.registry import ModelDescription, find_model
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.settings import Fingerprint, FirstStage, Settings

__all__ = ["ModelLike", "fingerprint", "open_engine", "stored_settings"]

ModelLike: TypeAlias = "ColPali | ModelDescription | Fingerprint | str"


def fingerprint(model: ModelLike) -> Fingerprint:
    """Of a model, its description, or the name of a registered one.

    Raises:
        ModelNotFoundError: no model is registered by that name.
    """
    if isinstance(model, Fingerprint):
        return model
    if isinstance(model, str):
        model = find_model(model)
    return Fingerprint.of(model.description if isinstance(model, ColPali) else model)


def stored_settings(path: str | os.PathLike[str]) -> Settings | None:
    """How the store in a folder was made, without opening it; None where there is none.

    Args:
        path: the folder.

    Raises:
        StoreError: it cannot be read.

    Example:
        >>> settings = stored_settings("my-index")
        >>> settings.model.name, settings.first_stage
        ('coltiny', 'exact')
        >>> stored_settings("no-such-folder") is None
        True
    """
    from colpali_integrations.stores.qdrant.shards import read_manifest

    manifest = read_manifest(Path(path).expanduser())
    return None if manifest is None else Settings.from_dict(manifest, where=f"the store {path}")


def open_engine(
    path: str | os.PathLike[str] | None,
    url: str | None,
    client: Any,
    collection_name: str,
    wanted: dict[str, Any],
    collection_options: Mapping[str, Any] | None,
    client_options: dict[str, Any],
) -> tuple[Engine, Settings]:
    """Open what is there, after checking that it is what is `wanted`, or make it.

    Args:
        path: a folder.
        url: of a Qdrant server.
        client: a ready `QdrantClient`.
        collection_name: of the collection on the server.
        wanted: `model` (a Fingerprint or None) and the other fields of `Settings`, those that were given.
        collection_options: for the making of a collection.
        client_options: for `QdrantClient`.

    Raises:
        ConfigurationError: more than one place; or a store that was made in another way.
        FingerprintError: a store that was made by another model.
        StoreError: it cannot be opened, or there is none and no model to make it for.
    """
    if sum(place is not None for place in (path, url, client)) > 1:
        raise ConfigurationError("a store is in one place: pass path= or url= or client=, or none for memory")
    if client_options and url is None:
        raise ConfigurationError(f"{', '.join(client_options)}: options of a server's client need url=")
    if collection_options and url is None and client is None:
        raise ConfigurationError("collection_options are for a collection on a server: they need url= or client=")
    manifest: dict[str, Any] | None
    if path is not None:
        from colpali_integrations.stores.qdrant.edge import EdgeEngine
        from colpali_integrations.stores.qdrant.shards import read_manifest

        folder, where = Path(path).expanduser(), f"the store {path}"
        manifest = read_manifest(folder)
        settings = _settings(manifest, wanted, where, default="ward")
        engine: Engine = EdgeEngine(folder, schema=settings.schema, manifest=settings.to_dict())
    elif url is not None or client is not None:
        from colpali_integrations.stores.qdrant import server as qdrant_server

        connection = client if url is None else qdrant_server.connect(url, **client_options)
        where = f"the collection {collection_name!r} at {url or 'the given client'}"
        manifest = qdrant_server.read_manifest(connection, collection_name)
        settings = _settings(manifest, wanted, where, default="ward")
        engine = qdrant_server.QdrantServerEngine(
            connection,
            collection_name,
            schema=settings.schema,
            manifest=settings.to_dict(),
            options=collection_options,
            owns_client=client is None,
        )
    else:
        settings = _settings(None, wanted, MemoryEngine.where, default="exact")
        engine = MemoryEngine(schema=settings.schema, manifest=settings.to_dict())
    # Two processes may create the store at the same time; the one that comes second accepts the settings of the first.
    return engine, _settings(dict(engine.manifest), wanted, engine.where, default="exact")


def _settings(manifest: dict[str, Any] | None, wanted: dict[str, Any], where: str, *, default: FirstStage) -> Settings:
    given = {key: value for key, value in wanted.items() if value is not None}
    if manifest is None:
        if "model" not in given:
            raise StoreError(f"there is no such store yet: {where}; pass model= to make it, or index documents into it")
        if not given["model"].unit_length:
            default = "exact"  # few vectors a page, and means of them lose what their lengths say
        return Settings(**{"first_stage": default, **given})
    found = Settings.from_dict(manifest, where=where)
    found.require(Settings(**{**_ways(found), **given}), where=where)
    return found


def _ways(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}
