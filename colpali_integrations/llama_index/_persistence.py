"""Save a vector store in the folder of a `StorageContext`, and load it again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from numpy.typing import NDArray

from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ColPaliError, ConfigurationError, StoreError
from colpali_integrations.models.connection import is_server
from colpali_integrations.models.registry import list_supported_models
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.stores import Entry, MultiVectorStore, Settings, stored_settings

__all__ = ["copied_records", "load_store", "save_store", "store_like"]

# `StorageContext` reads every file with this ending as a SimpleVectorStore.
_LLAMA_INDEX = "vector_store.json"
_FILE, _PAGES = "colpali_store.json", "colpali_pages"
# Options of a model that let more be fetched or opened, and their defaults.
_PERMISSIONS = {"allow_urls": False, "allow_private_urls": False, "max_pixels": MAX_PIXELS, "image_formats": None}


def save_store(
    fields: Mapping[str, Any], store: MultiVectorStore, persist_path: str, fs: fsspec.AbstractFileSystem | None
) -> None:
    """Write the data that `ColPaliVectorStore.from_persist_path` needs.

    Args:
        fields: of the vector store, JSON-safe.
        store: copied, if it is in memory.
        persist_path: the path that `StorageContext` passes.
        fs: None for the local one.

    Raises:
        ConfigurationError: the store is in memory, and the file system is not local.
    """
    path, saved = _file(persist_path), dict(fields)
    if saved.get("path") is not None and not is_server(saved["path"]):
        saved["path"] = os.path.abspath(saved["path"])  # noqa: PTH100 - Path.resolve would follow symlinks
    elif saved.get("path") is None and saved.get("url") is None:
        if not (fs is None or isinstance(fs, LocalFileSystem)):
            raise ConfigurationError("a store in memory is persisted to a local folder; give the store a path or a url")
        _save_pages(store, _pages(path))
    system = fs or fsspec.filesystem("file")
    system.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH120 - of any file system
    with system.open(path, "w", encoding="utf-8") as file:
        json.dump(saved, file, indent=1)


def load_store(
    persist_path: str, fs: fsspec.AbstractFileSystem | None, fields: Mapping[str, Any]
) -> tuple[dict[str, Any], Path | None]:
    """Read the data that `save_store` wrote.

    Args:
        persist_path: as for `save_store`.
        fs: as for `save_store`.
        fields: of the caller, in place of those in the file.

    Returns:
        The fields of the vector store, and the folder with the pages of a store in memory.

    Raises:
        StoreError: no store was written there, the file is damaged, or it names a place that the caller has to name.
        ConfigurationError: the file names a model that would have to be downloaded.
    """
    saved, pages = _read(persist_path, fs)
    if "embed_model" not in fields:
        _check_saved_model(saved.get("embed_model"), where=persist_path)
    options = {**saved, **fields}
    path = options.get("path")
    if pages is None and "path" not in fields and path is not None:
        if is_server(path):  # the API key goes only where the caller says
            raise StoreError(f"{persist_path} names the store on the server {path}; pass it as path= to open it")
        if stored_settings(path) is None:  # a file makes no folder
            raise StoreError(f"{persist_path} names the store {path}, where there is none; pass path= if it moved")
    return options, pages


def _read(persist_path: str, fs: fsspec.AbstractFileSystem | None) -> tuple[dict[str, Any], Path | None]:
    path, system = _file(persist_path), fs or fsspec.filesystem("file")
    if not system.exists(path):
        raise StoreError(f"no ColPaliVectorStore was persisted at {path}")
    try:
        with system.open(path, "r", encoding="utf-8") as file:
            fields: dict[str, Any] = parse_json(file.read())
        in_memory = fields.get("path") is None and fields.get("url") is None
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return fields, _pages(path) if in_memory else None


def _check_saved_model(saved: object, *, where: str) -> None:
    """Refuse the name of a model, or of an adapter's base, that merely stands in a file and would be downloaded.

    Args:
        saved: the fields of an embedding, as `save_store` wrote them.
        where: the file, for the message.

    Raises:
        ConfigurationError: a name is neither registered nor that of a folder, or an option lets more be fetched or
            opened than by default.
    """
    fields = saved if isinstance(saved, Mapping) else {}
    options = fields.get("options")
    options = options if isinstance(options, Mapping) else {}
    base = options.get("base")
    if widened := [name for name, default in _PERMISSIONS.items() if (options.get(name) or default) != default]:
        raise ConfigurationError(
            f"{where} sets {' and '.join(widened)}, which only the caller may; pass embed_model=ColPaliEmbedding(...) "
            "with these options"
        )
    registered = {model.name.lower() for model in list_supported_models()}
    for name in (fields.get("model_name"), base):
        if name is not None and str(name).lower() not in registered and not _is_folder(name):
            raise ConfigurationError(
                f"{where} names the model {name!r}, which is neither registered here nor a folder; pass "
                "embed_model=ColPaliEmbedding(model_name=...)"
            )


def _is_folder(name: object) -> bool:
    """Whether a name in a file, which may be anything, is that of a folder here."""
    try:
        return user_path(str(name)).is_dir()
    except ColPaliError:
        return False


def copied_records(store: MultiVectorStore) -> Iterator[tuple[Entry, NDArray[Any]]]:
    """Every entry of a store with its vectors."""
    for entry in store.scroll():
        [vectors] = store.vectors([entry.id])
        if vectors is not None:
            yield entry, vectors


def store_like(settings: Settings, folder: Path | None = None) -> MultiVectorStore:
    """A store in a folder, or an empty one in memory, with the settings of another store."""
    return MultiVectorStore.open(
        folder,
        model=settings.model,
        first_stage=settings.first_stage,
        first_vectors=settings.first_vectors,
        datatype=settings.datatype,
        pool_factor=settings.pool_factor,
        language=settings.language or "none",
    )


def _save_pages(store: MultiVectorStore, folder: Path) -> None:
    """Bring the copy of a store in a folder up to date."""
    with store_like(store.settings, folder) as copy:
        copy.add(copied_records(store))
        copy.delete(copy.hashes().keys() - store.hashes().keys())


def _file(persist_path: str) -> str:
    path = os.fspath(persist_path)
    return path.removesuffix(_LLAMA_INDEX) + _FILE if path.endswith(_LLAMA_INDEX) else path


def _pages(path: str) -> Path:
    file = Path(path)
    return file.with_name(file.name.removesuffix(_FILE).removesuffix(".json") + _PAGES)
