"""Targets that read stores in folders."""

from __future__ import annotations

import json
import shutil
import sqlite3
import zlib
from contextlib import closing
from functools import cache
from pathlib import Path

from colpali_integrations.stores import MultiVectorStore, SearchOptions, verify_store
from colpali_integrations.stores.embedded.rows import row_checksum
from colpali_integrations.stores.embedded.schema import DATABASE
from tests.fuzz.choices import Choices, json_text
from tests.fuzz.engine import Target
from tests.fuzz.mutators import changed_bytes
from tests.fuzz.targets.models import work
from tests.stores.backends import MODEL, entry, page


@cache
def _whole() -> Path:
    folder = work() / "whole"
    with MultiVectorStore.open(folder, model=MODEL, first_stage="ward", first_vectors=4) as store:
        store.add((entry(number), page(number)) for number in range(4))
    return folder


def store(data: bytes) -> None:
    """A folder of a store with changed bytes, settings or entries: opened, listed, searched and checked."""
    choices = Choices(data)
    place = work() / "store"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(_whole(), place)
    kind = choices.byte() % 4
    database = place / DATABASE
    if kind == 0:
        _change_settings(choices, database)
    elif kind == 1:
        _change_entries(choices, database)
    else:
        file = choices.pick(sorted(path for path in place.iterdir() if path.is_file() and path.stat().st_size))
        file.write_bytes(changed_bytes(choices, file.read_bytes()))
    try:
        with MultiVectorStore.open(place) as opened:
            ids = [one.id for one in opened.scroll()]
            opened.vectors(ids)
            opened.documents()
            [hits] = opened.search_batch([page(0)], SearchOptions(k=3, hybrid=True), texts=["text of page 1"])
            for hit in hits:
                _ = hit.entry.name, hit.entry.page, hit.entry.has_text, hit.entry.grid
    finally:
        verify_store(place)


def _change_settings(choices: Choices, database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        [(value,)] = connection.execute("SELECT value FROM settings WHERE name = 'manifest'").fetchall()
        text = json_text(choices.changed(json.loads(value), ("model", "schema", "revision")))
        connection.execute(
            "UPDATE settings SET value = ?, checksum = ? WHERE name = 'manifest'", (text, zlib.crc32(text.encode()))
        )


def _change_entries(choices: Choices, database: Path) -> None:
    """Change columns of a row, whose checksum then fits: a store that another program has written."""
    with closing(sqlite3.connect(database)) as connection, connection:
        rows = connection.execute("SELECT number, id, document, content, metadata, rest FROM entries").fetchall()
        number, id_, document, content, metadata, rest = choices.pick(rows)
        if choices.byte() % 4 == 0:
            document, content = (choices.pick((text, None, 7, b"\xff", choices.byte())) for text in (document, content))
        metadata, rest = (json_text(choices.changed(json.loads(text), _KEYS)) for text in (metadata, rest))
        row = [number, id_, document, content, metadata, rest]
        connection.execute(
            "UPDATE entries SET document = ?, content = ?, metadata = ?, rest = ?, checksum = ? WHERE number = ?",
            (*row[2:], row_checksum(row), number),
        )


_KEYS = ("id", "text", "metadata", "grid", "exact", "extra", "page", "source", "document_id")


TARGETS = [Target("store", store)]
