"""Connections to a store's database: how they are opened, a transaction, and what SQLite's errors mean.

A forked child does not use those of its parent; see `forks`.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from colpali_integrations.stores.embedded.schema import DATABASE

__all__ = ["PATIENCE", "READ_ERRORS", "connect", "explained", "transaction"]

READ_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Raised while a database is read; the latter by Python for SQLite's message about a damaged name."""
PATIENCE = 60.0
"""Seconds: a commit waits for readers, and a writer for another one. Compaction takes about a second per GB."""


def connect(folder: Path, mode: str, name: str = DATABASE) -> sqlite3.Connection:
    """Open a database file of a folder, "ro" or "rw"."""
    connection = sqlite3.connect(
        f"{(folder / name).absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=PATIENCE,
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
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """A transaction that `begin` opens: committed at its end, and rolled back after an error."""
    try:
        connection.execute(begin)
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def explained(error: Exception) -> str:
    """What an error of SQLite means for a store, and what to do."""
    text = "malformed schema" if isinstance(error, UnicodeDecodeError) else str(error)
    if "locked" in text:
        return f"another process has been using it for {PATIENCE:.0f} s ({text}); try again when it has finished"
    if "full" in text:
        return f"the disk is full ({text}); nothing of this batch was stored, and the earlier ones are kept"
    if "malformed" in text or "not a database" in text:
        return f"its database is damaged ({text}); repair the store, or restore it from a backup"
    return f"SQLite reports: {text}"
