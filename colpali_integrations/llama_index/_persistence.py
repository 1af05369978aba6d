"""A vector store to and from the folder of a `StorageContext`."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import fsspec  # type: ignore[import-untyped]
from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import Entry, MultiVectorStore

__all__ = ["copied_records", "load_store", "save_store"]

# `StorageContext` reads every file that ends so as a SimpleVectorStore.
_THEIRS, _OURS, _PAGES = "vector_store.json", "colpali_store.json", "colpali_pages"


def save_store(
    fields: Mapping[str, Any], store: MultiVectorStore, persist_path: str, fs: fsspec.AbstractFileSystem | None
) -> None:
    """Write down what `ColPaliVectorStore.from_persist_path` needs.

    Args:
        fields: of the vector store, JSON-safe.
        store: copied, if it is in memory.
        persist_path: the name that `StorageContext` has for it.
        fs: None for the local one.

    Raises:
        ConfigurationError: a store in memory and a file system that is not local.
    """
    path, written = _file(persist_path), dict(fields)
    local = fs is None or isinstance(fs, LocalFileSystem)
    if written.get("path") is not None:
        written["path"] = os.path.abspath(written["path"])  # noqa: PTH100 - Path.resolve would follow symlinks
    elif written.get("url") is None:
        if not local:
            raise ConfigurationError("a store in memory is persisted to a local folder; give the store a path or a url")
        _save_pages(store, _pages(path))
    system = fs or fsspec.filesystem("file")
    system.makedirs(os.path.dirname(path) or ".", exist_ok=True)  # noqa: PTH120 - of any file system
    with system.open(path, "w", encoding="utf-8") as file:
        json.dump(written, file, indent=1)


def load_store(persist_path: str, fs: fsspec.AbstractFileSystem | None) -> tuple[dict[str, Any], Path | None]:
    """What `save_store` wrote.

    Returns:
        The fields, and the folder with the pages of a store in memory.

    Raises:
        StoreError: nothing was written there, or it is damaged.
    """
    path, system = _file(persist_path), fs or fsspec.filesystem("file")
    if not system.exists(path):
        raise StoreError(f"no ColPaliVectorStore was persisted at {path}")
    try:
        with system.open(path, "r", encoding="utf-8") as file:
            fields: dict[str, Any] = json.load(file)
        in_memory = fields.get("path") is None and fields.get("url") is None
    except (ValueError, AttributeError) as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    return fields, _pages(path) if in_memory else None


def copied_records(store: MultiVectorStore) -> Iterator[tuple[Entry, NDArray[Any]]]:
    """Every entry of a store with its vectors."""
    for entry in store.scroll():
        [vectors] = store.vectors([entry.id])
        if vectors is not None:
            yield entry, vectors


def _save_pages(store: MultiVectorStore, folder: Path) -> None:
    """A copy of the store as it is now, in place of an earlier one."""
    settings = store.settings
    with MultiVectorStore.open(
        folder, model=settings.model, first_stage=settings.first_stage, language=settings.language
    ) as copy:
        copy.add(copied_records(store))
        copy.delete(copy.hashes().keys() - store.hashes().keys())


def _file(persist_path: str) -> str:
    text = os.fspath(persist_path)
    return text.removesuffix(_THEIRS) + _OURS if text.endswith(_THEIRS) else text


def _pages(path: str) -> Path:
    given = Path(path)
    return given.with_name(given.name.removesuffix(_OURS).removesuffix(".json") + _PAGES)
