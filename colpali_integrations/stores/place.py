"""The place of a store: the arguments by which another process opens it, which a pickle may hold."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.models.connection import is_server
from colpali_integrations.stores.collection_options import checked_options

__all__ = ["place_of", "with_secrets", "without_secrets"]

_IMITATION = ":memory:"  # the URL of qdrant-client's own imitation of a server
_API_KEY, _KEY_VARIABLE = "api_key", "QDRANT_API_KEY"
# Options of `QdrantClient` and of its HTTP client.
_SECRETS = ("auth_token_provider", "headers", "auth", "cookies", "cert", "metadata")


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
