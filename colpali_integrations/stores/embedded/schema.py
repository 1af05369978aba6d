"""The tables of a store's database, and the settings of a new one."""

from __future__ import annotations

import sqlite3
import zlib

__all__ = ["APPLICATION", "DATABASE", "SCHEMA", "VERSION", "fill_settings"]

DATABASE = "store.db"
APPLICATION, VERSION = 0x436F6C50, 3
"""Of the database's header."""
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
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {VERSION};
"""


def fill_settings(connection: sqlite3.Connection, manifest: str, layout: int) -> None:
    """Write the settings of a new database; the manifest twice, for a repair of damaged ones."""
    values = {"manifest": manifest, "layout": str(layout), "updates": "0", "manifest again": manifest}
    for name, value in values.items():
        connection.execute("INSERT INTO settings VALUES (?, ?, ?)", (name, value, zlib.crc32(value.encode())))
