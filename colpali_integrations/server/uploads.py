"""The folder of uploads: files that the server names, and the jobs that store their pages.

    <store>.uploads/          0700
      jobs.sqlite             one row per upload; a row is written once its file is on the disk
      server.lock             held by the one server of the store
      <32 hex digits>.pdf     an uploaded file; the names that callers give are in the rows alone

A file without a row is of a request that was not answered, and is removed at the next start.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from secrets import token_hex
from typing import IO, Any

from filelock import FileLock, Timeout

from colpali_integrations._text import parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.server.errors import RequestError
from colpali_integrations.stores.embedded.blocks import sync_folder

__all__ = ["Job", "Uploads"]

_CREATE = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, document_id TEXT NOT NULL, file TEXT NOT NULL,
    name TEXT NOT NULL, metadata TEXT NOT NULL, state TEXT NOT NULL, created REAL NOT NULL, updated REAL NOT NULL,
    pages INTEGER NOT NULL, tries INTEGER NOT NULL DEFAULT 0, report TEXT NOT NULL, error TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_document ON jobs (document_id);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state);
"""
_PIECE = 2**20
_MOST_ENDED_WITHOUT_FILE = 1000  # failed jobs that are kept for their callers to read


@dataclass(frozen=True, kw_only=True)
class Job:
    """An upload and what has become of it.

    Attributes:
        id: of the job.
        document_id: of the document, for later changes.
        file: its name in the folder.
        name: of the caller's file.
        metadata: of the caller.
        state: "queued" until it ends, then "done" or "failed"; "deleting" while its document is deleted.
        created: seconds since 1970.
        updated: seconds since 1970, of the last change.
        pages: number of pages.
        tries: how often the store could not be written.
        report: of the ingestion.
        error: why it has failed, or why it is tried again; "" otherwise.
    """

    id: str
    document_id: str
    file: str
    name: str
    metadata: Mapping[str, Any]
    state: str
    created: float
    updated: float
    pages: int
    tries: int = 0
    report: Mapping[str, Any] = field(default_factory=dict)
    error: str = ""


_NAMES = tuple(one.name for one in fields(Job))
_JSON = ("metadata", "report")


class Uploads:
    """The folder of uploads of a store. Threads may share it.

    Args:
        folder: made if it does not exist, for this user alone.

    Raises:
        StoreError: it cannot be made or is open to other users, or another server uses it.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        with self._errors():
            self.folder.mkdir(mode=0o700, exist_ok=True)
            self._require_own()
            self._server = FileLock(self.folder / "server.lock", timeout=0, mode=0o600, thread_local=False)
            try:
                self._server.acquire()
            except Timeout:
                raise StoreError(f"another server uses {self.folder}: stop it first, or serve another store") from None
            self._lock = threading.RLock()
            self._sizes: dict[str, int] = {}  # of the files, in bytes
            jobs = self.folder / "jobs.sqlite"
            jobs.touch(0o600)
            for path in (jobs, self.folder / "server.lock"):
                path.chmod(0o600)  # also of an earlier version; SQLite gives its journal the same
            # Every commit waits for the disk.
            self._database = sqlite3.connect(jobs, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_CREATE)
            self._clean_up()

    def path(self, job: Job) -> Path:
        """The path of a job's file."""
        return self.folder / job.file

    def keep(self, content: IO[bytes], suffix: str, *, most: int) -> str:
        """Write an uploaded file to the disk, and return its name in the folder.

        Args:
            content: of the file.
            suffix: of its name, such as ".pdf".
            most: number of bytes that all files may have, with this one.

        Raises:
            RequestError: 507: they would have more.
            StoreError: it cannot be written.
        """
        name = f"{token_hex(16)}{suffix}"
        content.seek(0, os.SEEK_END)
        self._reserve(name, content.tell(), most)
        content.seek(0)
        with self._errors():
            try:
                descriptor = os.open(self.folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    while piece := content.read(_PIECE):
                        file.write(piece)
                    file.flush()
                    os.fsync(file.fileno())
                sync_folder(self.folder)
            except BaseException:
                self.discard(name)
                raise
        return name

    def discard(self, name: str) -> None:
        """Remove a file, if it is there."""
        with suppress(OSError):
            (self.folder / name).unlink(missing_ok=True)
            with self._lock:
                self._sizes.pop(name, None)

    def add(self, job: Job) -> None:
        """Write a job; when this returns, it is on the disk."""
        columns = ", ".join(_NAMES)
        marks = ", ".join("?" * len(_NAMES))
        self._change(f"INSERT INTO jobs ({columns}) VALUES ({marks})", _row(job))

    def update(self, job: Job, **values: Any) -> bool:
        """Change values of a job, unless its state has changed since it was read.

        Returns:
            Whether they were changed.
        """
        values["updated"] = time.time()
        given = {name: json.dumps(value) if name in _JSON else value for name, value in values.items()}
        columns = ", ".join(f"{name} = ?" for name in given)
        return self._change(
            f"UPDATE jobs SET {columns} WHERE id = ? AND state = ?", (*given.values(), job.id, job.state)
        )

    def remove(self, job: Job) -> None:
        """Remove a job and its file; the row goes first, so that no row is without its file."""
        self._change("DELETE FROM jobs WHERE id = ?", (job.id,))
        self.discard(job.file)

    def job(self, id_: str) -> Job | None:
        """A job by its id."""
        return next(self._jobs("WHERE id = ?", id_), None)

    def jobs(self, *, limit: int, before: int | None = None) -> tuple[list[Job], int | None]:
        """The last jobs, the newest first, and what to pass as `before` for those before them; None without any.

        Args:
            limit: the most jobs.
            before: only jobs that were added before this one; jobs are numbered as they are added.
        """
        rest, values = "WHERE number < ? ORDER BY number DESC LIMIT ?", (2**62 if before is None else before, limit + 1)
        with self._lock, self._errors():
            numbers = [row[0] for row in self._database.execute(f"SELECT number FROM jobs {rest}", values)]
            found = list(self._jobs(rest, *values))
        return found[:limit], numbers[limit - 1] if len(numbers) > limit else None

    def of_document(self, document_id: str) -> list[Job]:
        """The jobs of a document, the oldest first."""
        return list(self._jobs("WHERE document_id = ? ORDER BY number", document_id))

    def names(self) -> dict[str, str]:
        """The names of the callers' files by document; of a replaced document that of the last file."""
        with self._lock, self._errors():
            return dict(self._database.execute("SELECT document_id, name FROM jobs ORDER BY number"))

    def next(self, *, but: str | None = None) -> Job | None:
        """The job to do next: the oldest one of those that have failed least often.

        A job that came after the deletion of its document waits until the deletion has ended.

        Args:
            but: a document whose jobs wait too.
        """
        rest = (
            "WHERE state = 'queued' AND document_id IS NOT ? "
            "AND document_id NOT IN (SELECT document_id FROM jobs WHERE state = 'deleting') "
            "ORDER BY tries, number LIMIT 1"
        )
        return next(self._jobs(rest, but), None)

    def mark_deleted(self, document_id: str) -> None:
        """Mark the jobs that a document has now; its deletion does not reach those that come later."""
        self._change("UPDATE jobs SET state = 'deleting' WHERE document_id = ?", (document_id,))

    def marked(self, document_id: str) -> list[Job]:
        """The jobs of a document that its deletion reaches."""
        return list(self._jobs("WHERE document_id = ? AND state = 'deleting'", document_id))

    def deleting(self) -> list[str]:
        """The documents whose deletion has not ended."""
        return list(dict.fromkeys(job.document_id for job in self._jobs("WHERE state = 'deleting'")))

    def counts(self) -> dict[str, int]:
        """Number of jobs by state."""
        with self._lock, self._errors():
            return dict(self._database.execute("SELECT state, count(*) FROM jobs GROUP BY state"))

    def close(self) -> None:
        """Close the database, and let another server use the folder."""
        with self._lock:
            self._database.close()
        self._server.release()

    def _clean_up(self) -> None:
        """Remove files of requests that were never answered, and jobs that failed long ago."""
        self._database.execute(
            "DELETE FROM jobs WHERE state = 'failed' AND number NOT IN "
            "(SELECT number FROM jobs WHERE state = 'failed' ORDER BY number DESC LIMIT ?)",
            (_MOST_ENDED_WITHOUT_FILE,),
        )
        known = {row[0] for row in self._database.execute("SELECT file FROM jobs")}
        for path in self.folder.iterdir():
            if len(path.stem) == 32 and path.name not in known:
                path.unlink()
            elif path.name in known:
                self._sizes[path.name] = path.stat().st_size

    def _reserve(self, name: str, size: int, most: int) -> None:
        """Count a file before it is written, so that several uploads do not exceed the limit together."""
        with self._lock:
            used = sum(self._sizes.values())
            if used + size > most:
                raise RequestError(
                    507,
                    f"the uploaded files have {used:,} bytes, and with this one of {size:,} they would have more than "
                    f"{most:,}; delete documents, or start the server with a larger --max-upload-total",
                    "uploads_full",
                )
            self._sizes[name] = size

    def _require_own(self) -> None:
        status = os.lstat(self.folder)
        own = not hasattr(os, "getuid") or status.st_uid == os.getuid()
        if not stat.S_ISDIR(status.st_mode) or not own or (os.name == "posix" and status.st_mode & 0o077):
            raise StoreError(
                f"{self.folder} must be a folder of this user that no other one may enter; run: chmod 700 {self.folder}"
            )

    def _jobs(self, rest: str, *values: object) -> Iterator[Job]:
        with self._lock, self._errors():
            rows = self._database.execute(f"SELECT {', '.join(_NAMES)} FROM jobs {rest}", values).fetchall()
        return map(_job, rows)

    def _change(self, statement: str, values: tuple[object, ...]) -> bool:
        with self._lock, self._errors():
            return self._database.execute(statement, values).rowcount > 0

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"the folder of uploads {self.folder} cannot be used: {error}") from error


def _row(job: Job) -> tuple[object, ...]:
    values = (getattr(job, name) for name in _NAMES)
    return tuple(json.dumps(value) if name in _JSON else value for name, value in zip(_NAMES, values, strict=True))


def _job(row: tuple[Any, ...]) -> Job:
    read: Callable[[str, Any], Any] = lambda name, value: parse_json(value) if name in _JSON else value  # noqa: E731
    return Job(**{name: read(name, value) for name, value in zip(_NAMES, row, strict=True)})
