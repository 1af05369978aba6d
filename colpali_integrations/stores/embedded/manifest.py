"""The manifest of the store in a folder, and folders that hold something else."""

from __future__ import annotations

import contextlib
import sqlite3
import zlib
from pathlib import Path
from typing import Any

from colpali_integrations._text import parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.connections import READ_ERRORS, connect, explained
from colpali_integrations.stores.embedded.forks import fork_lock
from colpali_integrations.stores.embedded.schema import APPLICATION, DATABASE, VERSION
from colpali_integrations.stores.embedded.swap import refuse_between

__all__ = ["read_manifest", "require_store", "stored_manifest"]

_FORMER = "store.json"  # of the engine of versions before 0.1.0


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of the store in a folder; None for a folder without a store.

    Raises:
        StoreError: it cannot be read, the folder's store was made by another engine, or its database is gone.
    """
    try:
        return _read_manifest(folder)
    except READ_ERRORS as error:
        raise StoreError(f"the store {folder}: {explained(error)}") from error
    except OSError as error:
        raise StoreError(f"cannot read the store {folder}: {error}") from error


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    _refuse_others(folder)
    found = None
    if (folder / DATABASE).exists():
        with fork_lock, contextlib.closing(connect(folder, "rw")) as connection:
            found = stored_manifest(connection, folder)
    if found is None:
        refuse_between(folder)
    if found is None and any(folder.glob("*.block")):
        if (folder / DATABASE).exists():  # another process has made the store since the first look
            with fork_lock, contextlib.closing(connect(folder, "rw")) as connection:
                if (found := stored_manifest(connection, folder)) is not None:
                    return found
        raise StoreError(
            f"{folder} holds the vectors of a store, and its database {DATABASE} is missing or empty; nothing was "
            "changed. Put the database back, or restore the folder from a backup"
        )
    return found


def require_store(folder: Path) -> None:
    """Check that a folder holds a store, which may be damaged.

    Raises:
        StoreError: it does not.
    """
    _refuse_others(folder)
    if not (folder / DATABASE).exists() or not (folder / DATABASE).stat().st_size:
        _read_manifest(folder)
        raise StoreError(f"there is no store in {folder}")


def _refuse_others(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise StoreError(f"{folder} is a file; a store is a folder")
    if (folder / _FORMER).exists():
        raise StoreError(
            f"{folder} holds a store of an earlier engine, which this version does not read; nothing was changed. "
            "Index its documents into a new folder: colpali-integrations index DOCUMENTS --store NEW_FOLDER"
        )


def stored_manifest(connection: sqlite3.Connection, folder: Path) -> dict[str, Any] | None:
    """The manifest that a database holds; None for an empty database.

    Raises:
        StoreError: it is damaged, or of another version or program.
    """
    if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        return None  # its creation was interrupted
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if (application, version) != (APPLICATION, VERSION):
        raise StoreError(
            f"{folder / DATABASE} is no database of this package, or of another version (application {application}, "
            f"version {version}; this one reads {VERSION}); index its documents into a new folder"
        )
    row = connection.execute("SELECT value, checksum FROM settings WHERE name = 'manifest'").fetchone()
    if row is None or not isinstance(row[0], str) or zlib.crc32(row[0].encode()) != row[1]:
        raise StoreError(f"the settings in {folder / DATABASE} are damaged; restore the store from a backup")
    try:
        manifest = parse_json(row[0])
    except ValueError:
        manifest = None
    if not isinstance(manifest, dict):
        raise StoreError(
            f"the settings in {folder / DATABASE} are no JSON object: another program wrote them; restore the store "
            "from a backup"
        )
    return manifest
