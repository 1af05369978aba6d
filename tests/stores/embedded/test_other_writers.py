"""Databases whose checksums fit, but which this package did not write."""

from __future__ import annotations

import sqlite3
import zlib
from contextlib import closing
from pathlib import Path

import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore, stored_settings
from colpali_integrations.stores.embedded.rows import row_checksum
from colpali_integrations.stores.embedded.schema import DATABASE
from tests.stores.backends import MODEL, entry, page


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    with MultiVectorStore.open(tmp_path, model=MODEL) as store:
        store.add([(entry(0), page(0))])
    return tmp_path


@pytest.mark.parametrize("text", ["[]", "null", "7", "{", "[" * 100_000], ids=lambda text: text[:4])
def test_settings_that_are_no_json_object(folder: Path, text: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        change = (text, zlib.crc32(text.encode()))
        database.execute("UPDATE settings SET value = ?, checksum = ? WHERE name = 'manifest'", change)
    for read in (stored_settings, MultiVectorStore.open):
        with pytest.raises(StoreError, match="are no JSON object"):
            read(folder)


@pytest.mark.parametrize("column", ["metadata", "rest"])
def test_an_entry_of_too_many_levels(folder: Path, column: str) -> None:
    with closing(sqlite3.connect(folder / DATABASE)) as database, database:
        database.execute(f"UPDATE entries SET {column} = ?", ("[" * 100_000,))
        [row] = database.execute("SELECT number, id, document, content, metadata, rest FROM entries").fetchall()
        database.execute("UPDATE entries SET checksum = ?", (row_checksum(row),))
    with MultiVectorStore.open(folder) as store, pytest.raises(StoreError, match="is damaged"):
        list(store.scroll())
