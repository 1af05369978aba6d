"""The SQLite database of a store in a folder: its transactions.

The journal is a rollback journal that is truncated and flushed at each commit, not a write-ahead log: a log needs a
shared memory file, which a read-only disk refuses, and versions of SQLite before 3.51.3 can damage it when two
connections write (https://sqlite.org/wal.html). A commit waits for readers at work, so reads are short: vectors are
read from mapped files, outside of transactions.

A process has one connection that reads and one that writes. After a fork the child opens its own: SQLite's connections
and locks do not survive a fork (https://sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from colpali_integrations._forks import keep_for_ever, renew_after_forks
from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.blocks import sync_folder
from colpali_integrations.stores.embedded.connections import READ_ERRORS, connect, explained, transaction
from colpali_integrations.stores.embedded.forks import fork_lock, hold_for_forks
from colpali_integrations.stores.embedded.lock import LOCK, locked, write_lock
from colpali_integrations.stores.embedded.manifest import read_manifest, stored_manifest
from colpali_integrations.stores.embedded.schema import DATABASE, SCHEMA, fill_settings

__all__ = ["Database", "make_file"]

logger = package_logger(__name__)


class Database:
    """The database of a folder.

    Args:
        folder: created if it does not exist.
        manifest: stored in a new database; an existing one has its own.
        read_only: neither create nor change anything.
        file_mode: permissions of the files of a new store; a user who may read them may enter a new folder. An
            existing store keeps its own, and an existing folder too.

    Raises:
        StoreError: the folder holds no store and is not to be made one, or the database cannot be read or written.
    """

    def __init__(
        self, folder: Path, manifest: Mapping[str, Any], *, read_only: bool = False, file_mode: int = 0o600
    ) -> None:
        # An open store stays where it is when the process changes its working directory.
        self.folder, self.read_only, self.file_mode = folder.absolute(), read_only, file_mode
        with contextlib.suppress(OSError):
            self.file_mode = (folder / DATABASE).stat().st_mode & 0o666
        self._reader: sqlite3.Connection | None
        self._writer: sqlite3.Connection | None
        self._closed = False
        self._begin_process()
        renew_after_forks(self)
        hold_for_forks(self)
        stored = read_manifest(self.folder)
        if stored is None:
            if read_only:
                raise StoreError(f"there is no store in {folder}; open it without read_only=True to make one")
            with self._errors():
                stored = self._create(manifest)
        self.manifest: Mapping[str, Any] = stored
        with self._errors():
            self._identity = _identity(self.folder)

    @property
    def where(self) -> str:
        """The store, for messages."""
        return f"the store {self.folder}"

    @property
    def refuses_changes(self) -> str | None:
        """The message about a change with `read_only`; else None."""
        if not self.read_only:
            return None
        return f"{self.where} was opened with read_only=True; open it again to change it"

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """A transaction that sees one state of the store; keep it short, because a commit waits for it.

        Within another one of the same thread it is the same transaction.
        """
        with self._errors():
            self._check()
            with self._read_lock:
                if self._reader is not None and self._reader.in_transaction:
                    yield self._reader
                    return
                self._require_same()
                if self._reader is None:
                    self._reader = connect(self.folder, "ro" if self.read_only else "rw")
                try:
                    with transaction(self._reader, "BEGIN"):
                        yield self._reader
                except READ_ERRORS:
                    # One that could once not be opened for writing would stay read-only for ever.
                    self._reader.close()
                    self._reader = None
                    raise

    @contextlib.contextmanager
    def writing(self, after: Callable[[sqlite3.Connection], None] | None = None) -> Iterator[sqlite3.Connection]:
        """A transaction that changes the store; other writers, also of other processes, wait.

        Args:
            after: called after the commit, before the next writer begins.
        """
        if (refusal := self.refuses_changes) is not None:
            raise StoreError(refusal)
        with self._errors():
            self._check()
            with self._write_lock, self._turn():
                if self._writer is None:
                    self._writer = connect(self.folder, "rw")
                try:
                    with transaction(self._writer, "BEGIN IMMEDIATE"):
                        yield self._writer
                    if after is not None:
                        after(self._writer)
                except READ_ERRORS:
                    self._writer.close()
                    self._writer = None
                    raise

    def change_manifest(self, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> Mapping[str, Any]:
        """Replace the manifest by what a function makes of it, in one transaction; the same writes nothing."""
        with self.reading() as connection:
            self.manifest = _required_manifest(connection, self.folder)
        if change(self.manifest) != self.manifest:
            with self.writing() as connection:
                changed = dict(change(_required_manifest(connection, self.folder)))
                text = json.dumps(changed)
                connection.execute(
                    "UPDATE settings SET value = ?, checksum = ? WHERE name IN ('manifest', 'manifest again')",
                    (text, zlib.crc32(text.encode())),
                )
            self.manifest = changed
        return self.manifest

    def used_bytes(self) -> int:
        """Size that the database's file would have without the space of removed rows."""
        # A copy that SQLite keeps in a temporary file: rows that were removed leave half empty pages too.
        with contextlib.closing(sqlite3.connect("", isolation_level=None)) as copy:
            with self.reading() as connection:
                connection.backup(copy)
            copy.execute("VACUUM")
            pages, size = (int(copy.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("page_count", "page_size"))
        return pages * size

    def vacuum(self) -> None:
        """Give the database's unused space back to the disk."""
        with self._errors():
            self._check()
            with self._write_lock, self._turn():
                if self._writer is not None:
                    self._writer.execute("VACUUM")

    def is_replaced(self) -> bool:
        """Whether the folder no longer holds the database that was opened."""
        with self._errors():
            return self._is_other()

    def close(self) -> None:
        """Close the connections. Calling it twice does nothing."""
        if not self._closed:
            self._closed = True
            with self._read_lock, self._write_lock:
                for connection in (self._reader, self._writer):
                    if connection is not None:
                        connection.close()
                self._reader = self._writer = None

    def hold(self) -> None:
        """Wait until no thread of this process is in a transaction, and let none begin one."""
        self._read_lock.acquire()
        self._write_lock.acquire()

    def release(self) -> None:
        """Let threads begin transactions."""
        self._write_lock.release()
        self._read_lock.release()

    def _begin_process(self) -> None:
        self._reader = self._writer = None
        self._read_lock, self._write_lock = threading.RLock(), threading.RLock()
        self._lock = write_lock(self.folder, self.file_mode)

    def _check(self) -> None:
        if self._closed:
            raise StoreError(f"{self.where} is closed")

    def _renew(self) -> None:
        # Closing the inherited connections, or releasing the lock, would take the parent's locks away.
        for inherited in (self._reader, self._writer, self._lock):
            keep_for_ever(inherited)
        self._begin_process()

    def _require_same(self) -> None:
        """Check that the folder still holds the database that was opened: SQLite would go on with a removed one."""
        if self._is_other():
            raise StoreError(
                f"{self.where} has been removed, renamed or replaced since it was opened; nothing was "
                "changed. Open it again"
            )

    def _is_other(self) -> bool:
        try:
            return _identity(self.folder) != self._identity
        except FileNotFoundError:
            return True

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait until no other process writes to the store."""
        self._require_same()  # here too, because the lock would make a removed folder anew
        with locked(self._lock, self.folder):
            self._require_same()
            yield

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except READ_ERRORS as error:
            raise StoreError(f"{self.where}: {explained(error)}") from error
        except OSError as error:
            raise StoreError(f"{self.where} cannot be read or written: {error}") from error

    def _tell_others(self) -> None:
        """Log that a new store gets its files among others, such as the documents themselves."""
        ours = (DATABASE, LOCK, "lost+found")
        others = [one.name for one in self.folder.iterdir() if one.name not in ours and not one.name.startswith(".")]
        if others:
            logger.warning(
                "a new store is made in %s, among other files (%s%s); a folder of its own keeps them apart",
                *(self.folder, min(others), ", ..." if len(others) > 1 else ""),
            )

    def _create(self, manifest: Mapping[str, Any]) -> dict[str, Any]:
        missing = [path for path in self.folder.parents if not path.exists()]
        if not self.folder.exists():
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(0o700)
                self.folder.chmod(self.file_mode | (self.file_mode & 0o444) >> 2)  # despite the umask
        with locked(self._lock, self.folder):
            if (stored := read_manifest(self.folder)) is not None:
                return stored  # another process was faster
            self._tell_others()
            text = json.dumps(dict(manifest))
            make_file(self.folder / DATABASE, self.file_mode)
            with fork_lock, contextlib.closing(connect(self.folder, "rw")) as connection:
                connection.executescript(f"BEGIN IMMEDIATE; {SCHEMA}")
                fill_settings(connection, text, 0)
                connection.execute("COMMIT")
            sync_folder(self.folder)
            for path in (self.folder, *missing):
                sync_folder(path.parent)
        return dict(json.loads(text))


def make_file(path: Path, mode: int) -> None:
    """Make an empty file with these permissions, unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        path.chmod(mode)  # despite the umask


def _required_manifest(connection: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    if (found := stored_manifest(connection, folder)) is None:
        raise StoreError(f"the database {folder / DATABASE} is empty; restore the store from a backup")
    return found


def _identity(folder: Path) -> tuple[int, int]:
    status = (folder / DATABASE).stat()
    return status.st_dev, status.st_ino
