"""Checks, copies and repairs of a store in a folder.

A check compares everything with the checksums that were stored with it: settings, entries, the rows of every file of
vectors, the words for BM25, and the numbers of rows per file. A repair keeps what is intact, in a new database; a store
without problems stays as it is.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from colpali_integrations._text import parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.blocks import BlockFiles, flush, sync_folder
from colpali_integrations.stores.embedded.check import Schema, check_database, check_store
from colpali_integrations.stores.embedded.connections import READ_ERRORS, connect
from colpali_integrations.stores.embedded.database import make_file
from colpali_integrations.stores.embedded.forks import fork_lock
from colpali_integrations.stores.embedded.layers import layers_of
from colpali_integrations.stores.embedded.lock import locked, write_lock
from colpali_integrations.stores.embedded.manifest import require_store, stored_manifest
from colpali_integrations.stores.embedded.repair import Rebuild, Repair
from colpali_integrations.stores.embedded.reports import RepairReport, VerifyReport
from colpali_integrations.stores.embedded.schema import DATABASE
from colpali_integrations.stores.embedded.segments import SEGMENTS

__all__ = ["backup_folder", "find_manifest", "repair_folder", "verify_folder"]

_SETTINGS, _LONGEST = b'{"format": ', 4096


def verify_folder(folder: Path, schema: Schema) -> VerifyReport:
    """Check everything that the store in a folder holds.

    Of a sound store only the check of its database keeps writers waiting; see `_sound`. Where the folder cannot be
    written, they are kept out by a transaction instead of a lock.

    Raises:
        StoreError: there is no store in the folder, or another process has kept it locked for too long.
    """
    require_store(folder)
    if (report := _sound(folder, schema, required=False)) is not None:
        return report
    with _locked(folder, required=False) as writable:
        return check_store(folder, schema, "rw" if writable else "ro")


def repair_folder(folder: Path, schema: Schema, rebuild: Rebuild, manifest: Mapping[str, Any]) -> RepairReport:
    """Make the store in a folder sound again, with all entries that are intact.

    Args:
        folder: of the store.
        schema: of its manifest.
        rebuild: makes the first stage and the words of an entry.
        manifest: of the store; see `find_manifest`.

    Raises:
        StoreError: there is no store, or its disk cannot be written; the store is then as it was before.
    """
    require_store(folder)
    with _errors(folder):
        if (report := _sound(folder, schema, required=True)) is not None:
            return RepairReport(kept=report.entries)
        with _locked(folder, required=True):
            before = check_store(folder, schema, "rw")
            if before.ok:
                return RepairReport(kept=before.entries)
            return Repair(folder, layers_of(schema(manifest)), rebuild).run(manifest, before.problems)


def backup_folder(folder: Path, target: Path, schema: Schema) -> VerifyReport:
    """Copy the store in a folder, in the state of its last change, and check the copy.

    Most of it is copied while others may write; writers wait for the copy of the database, and of the rows that were
    added since.

    Args:
        folder: of the store.
        target: a folder that is made, or an empty one.
        schema: of the manifest.

    Raises:
        StoreError: the target is not empty or cannot be written, or the copy has problems.
    """
    require_store(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise StoreError(f"{target} is not an empty folder; a backup needs a new or an empty one")
    with _errors(folder):
        mode = (folder / DATABASE).stat().st_mode & 0o666
        target.mkdir(0o700, parents=True, exist_ok=True)
        with fork_lock, contextlib.closing(connect(folder, "rw")) as connection:
            sizes = _sizes(connection, folder, schema)
        for name, size in sizes.items():
            with contextlib.suppress(FileNotFoundError):  # a writer has given it up since
                _copy(folder / name, target / name, size, mode)
        with _locked(folder, required=True), contextlib.closing(connect(folder, "rw")) as connection:
            now = _sizes(connection, folder, schema)
            for name in sizes.keys() - now.keys():
                (target / name).unlink(missing_ok=True)
            for name, size in now.items():
                _copy(folder / name, target / name, size, mode)
            # Last, because a folder with vectors and without a database is refused.
            make_file(target / DATABASE, mode)
            with contextlib.closing(connect(target, "rw")) as copy:
                connection.backup(copy)
            sync_folder(target)
            sync_folder(target.parent)
    report = verify_folder(target, schema)
    if not report.ok:
        raise StoreError(
            f"the backup in {target} has {len(report.problems)} problems, the first: {report.problems[0]}; the store "
            f"{folder} is damaged: repair it, or index the named entries anew, and make another backup"
        )
    return report


def find_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a store, from any of its two places in the database that is intact.

    Raises:
        StoreError: none is.
    """
    require_store(folder)
    with (
        contextlib.suppress(StoreError, *READ_ERRORS),
        fork_lock,
        contextlib.closing(connect(folder, "rw")) as connection,
    ):
        if (intact := stored_manifest(connection, folder)) is not None:
            return intact
    data = (folder / DATABASE).read_bytes()
    decoder = json.JSONDecoder()
    found: list[bytes] = []
    start = data.find(_SETTINGS)
    while start >= 0:
        with contextlib.suppress(ValueError):
            _, length = decoder.raw_decode(data[start : start + _LONGEST].decode("latin-1"))
            end = start + length
            # SQLite writes the columns of a row one after another: the checksum follows, in as few bytes as it needs.
            expected = zlib.crc32(data[start:end])
            if expected in (int.from_bytes(data[end : end + size], "big") for size in (3, 4, 6)):
                found.append(data[start:end])
        start = data.find(_SETTINGS, start + 1)
    if found:
        # The file may still hold an earlier one; a change of the manifest only adds revisions to it.
        return dict(parse_json(max(found, key=len)))
    raise StoreError(
        f"both copies of the settings in {folder / DATABASE} are damaged; repair the store with its settings: "
        "repair_store(path, settings=Settings(...)), or restore it from a backup"
    )


def _sound(folder: Path, schema: Schema, *, required: bool) -> VerifyReport | None:
    """The report about a sound store; None if it has to be checked while writers wait.

    Writers wait while the database is read, and not while the files of vectors are: rows never change. If some are not
    those that the database named, they are damaged, or a writer has given up their file since.
    """
    with _locked(folder, required=required) as writable:
        report, stored = check_database(folder, schema, "rw" if writable else "ro")
    return report if report.ok and stored.are_intact(folder) else None


@contextlib.contextmanager
def _locked(folder: Path, *, required: bool) -> Iterator[bool]:
    """Keep writers out; yields whether the lock could be taken."""
    lock = write_lock(folder, (folder / DATABASE).stat().st_mode & 0o666)
    with contextlib.ExitStack() as held:
        writable = True
        try:
            held.enter_context(locked(lock, folder))
        except OSError:
            if required:
                raise
            writable = False
        held.enter_context(fork_lock)
        yield writable


@contextlib.contextmanager
def _errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (*READ_ERRORS, OSError) as error:
        raise StoreError(f"the store {folder} cannot be read or written: {error}") from error


def _sizes(connection: sqlite3.Connection, folder: Path, schema: Schema) -> dict[str, int]:
    """Bytes by name of the files that a database names."""
    layers = layers_of(schema(stored_manifest(connection, folder) or {}))
    layers[SEGMENTS.name] = SEGMENTS
    files = BlockFiles(folder)
    rows = connection.execute("SELECT number, layer, rows FROM files")
    return {files.path(layers[layer], number).name: count * layers[layer].row_bytes for number, layer, count in rows}


def _copy(source: Path, target: Path, size: int, mode: int) -> None:
    """Copy the first `size` bytes of a file, or those that the copy lacks, and flush them to disk."""
    with source.open("rb") as reader:
        make_file(target, mode)
        with target.open("ab") as writer:
            reader.seek(writer.tell())
            while (left := size - writer.tell()) > 0 and (data := reader.read(min(left, 1 << 20))):
                writer.write(data)
            writer.flush()
            flush(writer.fileno())
