"""The SQLite database of a store in a folder: its schema, connections and transactions.

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
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from colpali_integrations._forks import keep_for_ever, renew_after_forks
from colpali_integrations._logs import package_logger
from colpali_integrations._text import parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.blocks import sync_folder
from colpali_integrations.stores.embedded.swap import refuse_between

__all__ = [
    "DATABASE",
    "LOCK",
    "SCHEMA",
    "Database",
    "connect",
    "fill_settings",
    "locked",
    "make_file",
    "read_manifest",
    "require_store",
    "stored_manifest",
    "write_lock",
]

logger = package_logger(__name__)

DATABASE, LOCK = "store.db", "store.lock"
READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Raised while a database is read; the latter by Python for SQLite's message about a damaged name."""
_FORMER = "store.json"  # of the engine of versions before 0.1.0
_APPLICATION, _VERSION = 0x436F6C50, 3
# A commit waits for readers, and a writer for another one. Compaction takes the longest, about a second per GB.
_PATIENCE = 60.0


SCHEMA = f"""
CREATE TABLE settings (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE files (
    number INTEGER PRIMARY KEY AUTOINCREMENT, layer TEXT NOT NULL, rows INTEGER NOT NULL, live INTEGER NOT NULL
);
CREATE TABLE entries (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document TEXT, content TEXT,
    metadata TEXT NOT NULL, rest TEXT NOT NULL, words BLOB, checksum INTEGER NOT NULL
);
CREATE INDEX entries_by_document ON entries (document);
CREATE INDEX entries_by_content ON entries (content);
CREATE TABLE places (
    entry INTEGER NOT NULL, layer INTEGER NOT NULL, file INTEGER NOT NULL, start INTEGER NOT NULL,
    length INTEGER NOT NULL, checksum INTEGER NOT NULL, PRIMARY KEY (entry, layer)
) WITHOUT ROWID;
CREATE TABLE segments (
    file INTEGER PRIMARY KEY, first INTEGER NOT NULL, last INTEGER NOT NULL, vectors INTEGER NOT NULL,
    length INTEGER NOT NULL, checksum INTEGER NOT NULL
);
CREATE TABLE words (word INTEGER NOT NULL, entry INTEGER NOT NULL, value REAL NOT NULL, PRIMARY KEY (word, entry))
    WITHOUT ROWID;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_VERSION};
"""


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
        _opened.add(self)
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
    def refuses_changes(self) -> str | None:
        """The message about a change with `read_only`; else None."""
        if not self.read_only:
            return None
        return f"the store {self.folder} was opened with read_only=True; open it again to change it"

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
                    with _transaction(self._reader, "BEGIN"):
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
                    with _transaction(self._writer, "BEGIN IMMEDIATE"):
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
            raise StoreError(f"the store {self.folder} is closed")

    def _renew(self) -> None:
        # Closing the inherited connections, or releasing the lock, would take the parent's locks away.
        for inherited in (self._reader, self._writer, self._lock):
            keep_for_ever(inherited)
        self._begin_process()

    def _require_same(self) -> None:
        """Check that the folder still holds the database that was opened: SQLite would go on with a removed one."""
        if self._is_other():
            raise StoreError(
                f"the store {self.folder} has been removed, renamed or replaced since it was opened; nothing was "
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
            raise StoreError(f"the store {self.folder}: {_explained(error)}") from error
        except OSError as error:
            raise StoreError(f"the store {self.folder} cannot be read or written: {error}") from error

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


def write_lock(folder: Path, mode: int) -> FileLock:
    """The lock of a store's writers, whose file gets the permissions `mode`."""
    # filelock refuses a lock that its owner could not write, such as that of a store whose files were made read-only.
    return FileLock(folder / LOCK, timeout=_PATIENCE, mode=mode | 0o600, thread_local=False)


@contextlib.contextmanager
def locked(lock: FileLock, folder: Path) -> Iterator[None]:
    """Hold the lock of the writers of the store in a folder.

    Raises:
        StoreError: another process has held it for too long.
        OSError: the folder cannot be written.
    """
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"another process has kept the store {folder} locked for {lock.timeout:.0f} s; nothing was changed. It may "
            "be optimizing or repairing the store, which takes as long as the disk needs for all of its files. Try "
            "again when it has finished, or end it if it hangs"
        ) from error
    try:
        yield
    finally:
        lock.release()


def make_file(path: Path, mode: int) -> None:
    """Make an empty file with these permissions, unless there is one."""
    with contextlib.suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        path.chmod(mode)  # despite the umask


def fill_settings(connection: sqlite3.Connection, manifest: str, layout: int) -> None:
    """Write the settings of a new database; the manifest twice, for a repair of damaged ones."""
    values = {"manifest": manifest, "layout": str(layout), "updates": "0", "manifest again": manifest}
    for name, value in values.items():
        connection.execute("INSERT INTO settings VALUES (?, ?, ?)", (name, value, zlib.crc32(value.encode())))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of the store in a folder; None for a folder without a store.

    Raises:
        StoreError: it cannot be read, the folder's store was made by another engine, or its database is gone.
    """
    try:
        return _read_manifest(folder)
    except READ_ERRORS as error:
        raise StoreError(f"the store {folder}: {_explained(error)}") from error
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
    if (application, version) != (_APPLICATION, _VERSION):
        raise StoreError(
            f"{folder / DATABASE} is no database of this package, or of another version (application {application}, "
            f"version {version}; this one reads {_VERSION}); index its documents into a new folder"
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


def _required_manifest(connection: sqlite3.Connection, folder: Path) -> dict[str, Any]:
    if (found := stored_manifest(connection, folder)) is None:
        raise StoreError(f"the database {folder / DATABASE} is empty; restore the store from a backup")
    return found


def connect(folder: Path, mode: str, name: str = DATABASE) -> sqlite3.Connection:
    """Open a database file of a folder, "ro" or "rw"."""
    connection = sqlite3.connect(
        f"{(folder / name).absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=_PATIENCE,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        for pragma in (
            "journal_mode = TRUNCATE",
            "synchronous = EXTRA",
            "fullfsync = ON",
            "cache_spill = OFF",
            "cache_size = -8000",
        ):
            if mode == "rw" or not pragma.startswith("journal"):
                connection.execute(f"PRAGMA {pragma}")
    except READ_ERRORS:
        connection.close()
        raise
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _identity(folder: Path) -> tuple[int, int]:
    status = (folder / DATABASE).stat()
    return status.st_dev, status.st_ino


def _explained(error: Exception) -> str:
    text = "malformed schema" if isinstance(error, UnicodeDecodeError) else str(error)
    if "locked" in text:
        return f"another process has been using it for {_PATIENCE:.0f} s ({text}); try again when it has finished"
    if "full" in text:
        return f"the disk is full ({text}); nothing of this batch was stored, and the earlier ones are kept"
    if "malformed" in text or "not a database" in text:
        return f"its database is damaged ({text}); repair the store, or restore it from a backup"
    return f"SQLite reports: {text}"


_opened: weakref.WeakSet[Database] = weakref.WeakSet()
_waiting: list[Database] = []  # for the end of a fork
fork_lock = threading.RLock()
"""Held by a thread that opens a connection of its own to a store: a fork waits for it."""


def _before_fork() -> None:
    """Wait for the transactions of this process.

    SQLite counts a process's locks in the process's memory. A child forked during a transaction would believe for ever
    that it holds that lock: it would read without one, and could not write. A thread that opens a store holds
    `fork_lock` too.
    """
    fork_lock.acquire()
    _waiting.extend(_opened)
    for database in _waiting:
        database.hold()


def _after_fork() -> None:
    while _waiting:
        _waiting.pop().release()
    fork_lock.release()


def _in_child() -> None:
    _waiting.clear()  # they have new locks
    fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
