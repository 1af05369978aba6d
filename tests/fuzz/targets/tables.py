"""Targets that read what Ray reads: rows of a dataset, and Parquet files. They need no cluster."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.identity import page_id
from tests.fuzz.choices import Choices, json_text
from tests.fuzz.engine import SEEDS, Target
from tests.fuzz.mutators import changed_bytes
from tests.fuzz.targets.models import work
from tests.stores.backends import DIM, MODEL

_KIND = {"dtype": "float16", "pooled": False}
_KEYS = ("id", "key", "page", "page_count", "vectors", "grid", "metadata", "run", "source")


def _row(number: int) -> dict[str, Any]:
    hashes = {"content_hash": "0" * 64, "text_hash": "text:1"}
    size = {"width": 612.0, "height": 792.0, "dpi": 150.0}
    return {
        **{"id": page_id("a.pdf", number), "key": "0@150", "document_id": "a.pdf", "source": "a.pdf"},
        **{"file_path": "/a.pdf", "file_name": "a.pdf", "page": number, "page_label": str(number), "page_count": 2},
        **{**size, **hashes, "text": "low tide", "metadata": json.dumps({"tenant": "north"}), "model": "fake"},
        "missing_fonts": ["Absent"],
        "vectors": [[0.5] * DIM] * 3,
        "grid": json.dumps(PageGrid(2, 3, np.array([0, 5, -1])).to_json()),
        "run": 1,
    }


def parquet(data: bytes) -> None:
    """A folder of Parquet files of which rows, the manifest or bytes were changed: listed, and read for a store."""
    import pyarrow as pa
    import pyarrow.parquet

    from colpali_integrations.ray.outputs import MANIFEST, ParquetFolder, parquet_pages

    choices = Choices(data)
    place = work() / "parquet"
    shutil.rmtree(place, ignore_errors=True)
    ParquetFolder(place, MODEL, _KIND).make()
    kind = choices.byte() % 4
    rows = [_row(1), _row(2)]
    if kind < 2:
        rows = choices.changed(rows, _KEYS)
    file = place / "part-1.parquet"
    try:
        pa.parquet.write_table(pa.Table.from_pylist(rows), file)
    except Exception:  # no table has such rows
        return
    if kind == 2:
        manifest = json.loads((place / MANIFEST).read_text())
        (place / MANIFEST).write_text(json_text(choices.changed(manifest, ("model", "dim", "fingerprint"))))
    elif kind == 3:
        file.write_bytes(changed_bytes(choices, file.read_bytes()))
    for entry, vectors in parquet_pages(place, model=MODEL):
        entry.to_payload()
        assert vectors.dtype == np.float32
    ParquetFolder(place, MODEL, _KIND).keys()


@cache
def _files() -> list[bytes]:
    return [path.read_bytes() for path in sorted(Path(SEEDS, "image").glob("*"))]


def _value(choices: Choices) -> Any:
    kind = choices.byte() % 8
    if kind < 4:
        return changed_bytes(choices, choices.pick(_files()))
    if kind == 4:
        shape = [choices.byte() % 4 for _ in range(choices.byte() % 5)]
        return np.zeros(shape, choices.pick(("uint8", "float32", "bool", "object")))
    return choices.value(2)


def rows(data: bytes) -> None:
    """Rows of a dataset of files: each becomes pages, or one row with an error."""
    from colpali_integrations.ray.pages import _draw

    choices = Choices(data)
    names = [name for name in ("bytes", "image", "path") if choices.byte() % 3] or ["bytes"]
    values = {name: choices.text() if name == "path" and choices.flag() else _value(choices) for name in names}
    values["tenant"] = choices.value(2)
    batch: dict[str, Any] = {}
    for name, value in values.items():
        batch[name] = np.empty(1, object)
        batch[name][0] = value
    tables = list(_draw(batch, reading={"dpi": 20}, known=None, metadata=("tenant",)))
    for row in (row for table in tables for row in table.to_pylist()):
        assert row["error"] is not None or len(row["pixels"]) == 3 * row["columns"] * row["rows"]


TARGETS = [Target("parquet", parquet), Target("rows", rows)]
