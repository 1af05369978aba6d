"""The limits of entries: on every engine, and through the frameworks, nothing is written beyond them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import ColPaliError, ConfigurationError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.stores import Entry, MultiVectorStore, Settings
from colpali_integrations.stores.limits import MAX_BYTES, MAX_DEPTH, MAX_DIM, MAX_ID_LENGTH, MAX_VECTORS
from colpali_integrations.stores.points import PointMaker
from colpali_integrations.stores.refused import RefusedError
from tests.stores.backends import DIM, MODEL, Open, entry, page


def nested(levels: int) -> dict[str, Any]:
    """Metadata of so many levels."""
    values: dict[str, Any] = {}
    for _ in range(levels - 1):
        values = {"a": values}
    return values


def loop() -> dict[str, Any]:
    values: dict[str, Any] = {}
    values["self"] = [values]
    return values


VECTORS = page(1)
BEYOND: list[tuple[str, Callable[[], tuple[Entry, Any]]]] = [
    ("may have 30 levels", lambda: (Entry(id="x", metadata=nested(MAX_DEPTH + 1)), VECTORS)),
    ("may have 30 levels", lambda: (Entry(id="x", metadata=nested(5000)), VECTORS)),
    ("may have 30 levels", lambda: (Entry(id="x", metadata=loop()), VECTORS)),
    ("may have 30 levels", lambda: (Entry(id="x", extra=nested(MAX_DEPTH + 9)), VECTORS)),
    ("id may have 4096 characters", lambda: (Entry(id="x" * (MAX_ID_LENGTH + 1)), VECTORS)),
    ("may take 16 MB.*'text'", lambda: (Entry(id="x", text="x" * MAX_BYTES), VECTORS)),
    ("may take 16 MB.*'metadata'", lambda: (Entry(id="x", metadata={"a": "é" * (MAX_BYTES // 2)}), VECTORS)),
    ("may have 65536 vectors", lambda: (Entry(id="x"), np.ones((MAX_VECTORS + 1, DIM), np.float32))),
]


@pytest.mark.parametrize(("message", "record"), BEYOND)
def test_entries_beyond_a_limit_are_refused(
    open_store: Open, message: str, record: Callable[[], tuple[Entry, Any]]
) -> None:
    store = open_store()
    with pytest.raises(StoreError, match=message):
        store.add([(entry(1), page(1)), record(), (entry(2), page(2))])
    assert [one.id for one in store.scroll()] == ["page 1"], "the records before it are stored"
    assert store.add([(entry(2), page(2))]) == 1


def test_entries_within_the_limits_are_stored(open_store: Open) -> None:
    store = open_store()
    record = entry(1, id="é" * MAX_ID_LENGTH, metadata=nested(MAX_DEPTH), extra=nested(MAX_DEPTH))
    assert store.add([(record, page(1))]) == 1
    assert store.get([record.id]) == [record]
    assert [hit.entry for hit in store.search(page(1), 1)] == [record]


@pytest.mark.parametrize("dim", [0, MAX_DIM + 1])
def test_models_of_other_dims_are_refused(tmp_path: Path, dim: int) -> None:
    model = replace(MODEL, dim=dim)
    with pytest.raises(ConfigurationError, match="vectors may have 1 to 65536 numbers"):
        Settings(model=model)
    with pytest.raises(ConfigurationError, match="vectors may have 1 to 65536 numbers"):
        MultiVectorStore.open(tmp_path / "store", model=model)
    assert not (tmp_path / "store").exists()


DEEP = {"a": nested(MAX_DEPTH + 1)}


def test_langchain_refuses_metadata_beyond_a_limit(tmp_path: Path) -> None:
    from colpali_integrations.langchain import ColPaliVectorStore

    with ColPaliVectorStore(path=tmp_path) as store:
        store.add_texts(["low tide"], [nested(MAX_DEPTH)], ids=["within"])
        for metadata, ids in ((DEEP, ["x"]), (nested(5000), ["x"]), ({}, ["x" * (MAX_ID_LENGTH + 1)])):
            with pytest.raises(ColPaliError, match=r"30 levels|4096 characters"):
                store.add_texts(["high tide"], [metadata], ids=ids)
    with ColPaliVectorStore(path=tmp_path, read_only=True) as store:
        assert [one.id for one in store.similarity_search("tide", k=5)] == ["within"]
        with pytest.raises(StoreError, match="read_only=True"):
            store.add_texts(["high tide"])


def test_llama_index_refuses_metadata_beyond_a_limit(tmp_path: Path) -> None:
    from llama_index.core.schema import TextNode
    from llama_index.core.vector_stores.types import VectorStoreQuery

    from colpali_integrations.llama_index import ColPaliVectorStore

    store = ColPaliVectorStore(path=tmp_path)
    store.add([TextNode(id_="within", text="low tide", metadata=nested(MAX_DEPTH))])
    for metadata, id_ in ((DEEP, "x"), (nested(5000), "x"), ({}, "x" * (MAX_ID_LENGTH + 1))):
        with pytest.raises(ColPaliError, match=r"30 levels|4096 characters"):
            store.add([TextNode(id_=id_, text="high tide", metadata=metadata)])
    store.close()
    reader = ColPaliVectorStore(path=tmp_path, read_only=True)
    assert reader.query(VectorStoreQuery(query_str="tide", similarity_top_k=5)).ids == ["within"]
    with pytest.raises(StoreError, match="read_only=True"):
        reader.add([TextNode(id_="y", text="high tide")])
    reader.close()


@pytest.mark.parametrize("framework", ["langchain", "llama_index"])
def test_frameworks_refuse_folders_of_the_former_engine(tmp_path: Path, framework: str) -> None:
    import importlib

    (tmp_path / "store.json").write_text('{"format": 3}')
    with pytest.raises(StoreError, match=r"earlier engine.*colpali-integrations index"):
        importlib.import_module(f"colpali_integrations.{framework}").ColPaliVectorStore(path=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["store.json"]


ALONE = """
import sys
from pathlib import Path

EXTRAS = {"langchain_core", "llama_index", "qdrant_client", "qdrant_edge", "rich", "typer", "matplotlib", "ray"}


class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"{name} belongs to an extra", name=name)


sys.meta_path.insert(0, Blocked())
from colpali_integrations import ColPali, MultiVectorStore
from colpali_integrations.stores import Entry, verify_store

model = ColPali.from_pretrained()
for stage in ("exact", "ward", "int8"):
    with MultiVectorStore.open(Path(sys.argv[1]) / stage, model=model, first_stage=stage) as store:
        store.add([(Entry(id=text, text=text), next(model.embed_texts(text))) for text in ("low tide", "rates of tax")])
        mode = "auto" if stage == "exact" else "two_stage"
        assert store.search("tide", 1, hybrid=True, mode=mode)[0].id == "low tide"
    assert verify_store(Path(sys.argv[1]) / stage).ok
print(*sorted(EXTRAS & sys.modules.keys()), "done")
"""


def test_a_folder_needs_no_extra(tmp_path: Path) -> None:
    import subprocess
    import sys

    command = [sys.executable, "-c", ALONE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert result.stdout == "done\n", result.stderr


def test_the_numbers_of_a_page_count_as_they_are_stored() -> None:
    settings = Settings(model=MODEL, first_stage="exact", pool_factor=2)
    maker = PointMaker(settings, "the collection", max_numbers=6 * DIM)
    array = np.random.default_rng(0).standard_normal((14, DIM)).astype(np.float32)
    pooled = maker.point(Entry(id="x", grid=PageGrid(2, 6, np.arange(12))), array[:12])
    assert pooled.vectors["full"].shape == (6, DIM)
    with pytest.raises(RefusedError, match=r"x: 7 vectors of 8 numbers are too many .*takes 48 numbers.*pool_factor="):
        maker.point(Entry(id="x", grid=PageGrid(2, 7, np.arange(14))), array)
