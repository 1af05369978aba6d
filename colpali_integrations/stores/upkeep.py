"""Care for stores in folders, also for those that are too damaged to be opened: `verify_store` and `repair_store`."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.pages.identity import real_path
from colpali_integrations.stores.embedded.care import backup_folder, find_manifest, repair_folder, verify_folder
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.embedded.reports import RepairReport, VerifyReport
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.points import PointMaker
from colpali_integrations.stores.settings import Settings

__all__ = ["StoreInfo", "backup_store", "folder_engine", "gone", "repair_store", "size_of", "verify_store"]


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """The facts of a store.

    Attributes:
        where: its kind and place.
        settings: its model, first stage and language.
        entries: number of entries.
        documents: number of documents.
        bytes: size of its files; None for a store without files of its own.
        indexes: kinds of the indexes by metadata field, for a collection on a Qdrant server; see
            `MultiVectorStore.open`.
        facts: of a collection that another program has made: its `layout`, and the `distance`, `datatype` and
            `quantization` of its vectors; else empty.

    Example:
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> with MultiVectorStore.open("my-index") as store:
        ...     info = store.info()
        >>> info.settings.model.name, info.entries, info.documents
        ('coltiny', 2, 1)
    """

    where: str
    settings: Settings
    entries: int
    documents: int
    bytes: int | None
    indexes: dict[str, str] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields: model, space, first_stage, datatype, pool_factor, language, format, and counts.

        The counts are entries, documents and bytes. On a Qdrant server there are the indexes too.

        And those settings of pages that are not left to the model's files: precision, max_side, max_num_visual_tokens,
        drop_blank. Of a collection that another program has made only what is known: `facts` in the place of settings.
        """
        settings, model = self.settings.to_dict(), self.settings.model
        made_by = {"model": model.name, "space": model.fingerprint.space, **model.fingerprint.pages.options}
        counts = {"entries": self.entries, "documents": self.documents, "bytes": self.bytes}
        indexes = {"indexes": self.indexes} if self.indexes else {}
        if self.facts:
            known = {"model": model.name, "space": model.fingerprint.space, "first_stage": settings["first_stage"]}
            return {**known, **self.facts, **counts, **indexes}
        names = ("first_stage", "datatype", "pool_factor", "language", "format")
        return {**made_by, **{name: settings[name] for name in names}, **counts, **indexes}


def verify_store(path: str | os.PathLike[str]) -> VerifyReport:
    """Check everything that the store in a folder holds against the checksums that were stored with it.

    Reading takes as long as the disk needs for all of the store's files. Writers wait while the database is read; if
    there is damage, everything is read a second time, and writers wait for that.

    Args:
        path: the folder.

    Raises:
        StoreError: there is no store in it, or another process has kept it locked for too long.

    Example:
        >>> verify_store("my-index").ok
        True
    """
    return verify_folder(_folder(path), _schema)


def repair_store(path: str | os.PathLike[str], *, settings: Settings | None = None) -> RepairReport:
    """Make a damaged store sound again, with all entries that are intact.

    The first stage and the words for BM25 are made again from the vectors and texts. Entries whose vectors, text or
    metadata are damaged are dropped and reported, so that their documents can be indexed again. A damaged database is
    kept under another name. A store without problems stays as it is. Other processes that have the store open
    get a StoreError until they open it again.

    Args:
        path: the folder.
        settings: of the store, if both copies of them in the database are damaged; None reads them.

    Raises:
        StoreError: there is no store in the folder, its settings cannot be read, its disk cannot be written, or another
            process has kept it locked for too long.

    Example:
        >>> repair_store("my-index").problems
        []
    """
    folder = _folder(path)
    where = f"the store {path}"
    try:
        settings = Settings.from_dict(find_manifest(folder), where=where)
    except StoreError:
        if settings is None:
            raise
    points = PointMaker(settings, where)
    return repair_folder(
        folder,
        _schema,
        lambda payload, vectors: points.point(Entry.from_payload(payload), vectors),
        settings.to_dict(),
    )


def backup_store(path: str | os.PathLike[str], target: str | os.PathLike[str]) -> VerifyReport:
    """Copy the store in a folder, and check the copy; see `MultiVectorStore.backup`."""
    return backup_folder(_folder(path), _folder(target), _schema)


def folder_engine(engine: Engine, action: str, *, writes: bool = True) -> FolderEngine:
    """The engine of a store in a folder.

    Args:
        engine: of a store.
        action: for the message.
        writes: whether the action needs a store that can be changed.

    Raises:
        ConfigurationError: it is another engine.
        StoreError: the store was opened with `read_only=True`.
    """
    if not isinstance(engine, FolderEngine):
        raise ConfigurationError(f"{action} is for a store in a folder (path=), and this is {engine.where}")
    if writes and engine.read_only:
        raise StoreError(f"{engine.where} was opened with read_only=True; open it without to {action} it")
    return engine


def gone(root: str | os.PathLike[str], entries: Callable[[], Iterable[Entry]]) -> dict[str, int]:
    """The documents recorded under a folder whose files are gone, with their numbers of entries.

    Args:
        root: the folder.
        entries: returns those of a store.

    Raises:
        StoreError: the folder is missing or empty, as that of a disk that is not mounted.
    """
    folder = Path(real_path(root))
    if not folder.is_dir() or not any(folder.iterdir()):
        raise StoreError(
            f"{root} is {'an empty' if folder.is_dir() else 'no'} folder, perhaps that of a disk that is not mounted; "
            "nothing was removed"
        )
    paths: dict[str, list[str | None]] = defaultdict(list)
    for entry in entries():
        if entry.document_id is not None:
            paths[entry.document_id].append(_text(entry.metadata.get("file_path")))
    missing = {path: _is_missing(path) for path in {path for all_ in paths.values() for path in all_} if path}
    return {
        document: len(all_)
        for document, all_ in paths.items()
        if all(path is not None and Path(path).is_relative_to(folder) and missing[path] for path in all_)
    }


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _is_missing(path: str) -> bool:
    """Whether there is certainly no such file: one that cannot be looked at may be there."""
    try:
        os.stat(path)  # noqa: PTH116 - a string of the metadata
    except (FileNotFoundError, NotADirectoryError):
        return True
    except (OSError, ValueError):
        return False
    return False


def _folder(path: str | os.PathLike[str]) -> Path:
    return user_path(path, StoreError)


def _schema(manifest: Any) -> Any:
    return Settings.from_dict(manifest, where="the store").schema
