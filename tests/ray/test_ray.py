"""Ray Data on a local cluster of two cores: what it writes, what it skips, what it says."""

from __future__ import annotations

import doctest
import json
import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import ray.data
from PIL import Image

from colpali_integrations import ColPali, PageGrid, max_sim, pdf_pages
from colpali_integrations.core.errors import ConfigurationError, FingerprintError, ProviderError, StoreError
from colpali_integrations.ray import PageEncoder, QdrantServer, draw_pages, drawing, embed_pages, embedding, encoder
from colpali_integrations.ray.embedding import Workers
from colpali_integrations.ray.sinks import MANIFEST
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.stores.documents import make_folder
from tests.stores.qdrant_stand_in import stand_in

# Ray's own: a file it leaves to the collector, a wheel of its dependencies. None is raised by what is tested here.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray"),
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    before = dict(os.environ)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=200 * 2**20,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("ray") / "documents")
    (folder / "notes.txt").unlink()
    (folder / "torn.pdf").write_bytes(b"%PDF-1.4 torn")
    (folder / "no-image.png").write_bytes(b"nothing")
    return folder


def files(folder: Path) -> Any:
    return ray.data.read_binary_files(str(folder), include_paths=True)


@pytest.fixture(scope="module")
def written(folder: Path) -> Path:
    """The folder of a first run, in which two files were bad."""
    out = folder.parent / "vectors"
    report = embed_pages(files(folder), output=out, pooled=True, dpi=100, pages_per_file=2)
    assert report.added == 3
    assert {Path(failure.name).name for failure in report.failures} == {"torn.pdf", "no-image.png"}
    assert all(failure.reason for failure in report.failures)
    return out


def test_the_files_hold_what_the_model_gives(folder: Path, written: Path) -> None:
    rows = pq.read_table(written).to_pylist()
    assert len(rows) == 3
    with ColPali.from_pretrained(threads=1) as model:
        for row in rows:
            path = Path(row["source"])
            if path.suffix == ".pdf":
                [drawn] = pdf_pages(path, pages=[row["page"]], dpi=100)
                [page] = model.embed_pages([drawn])
            else:
                [page] = model.embed_pages([path])
            vectors = np.array(row["vectors"], np.float32)
            assert np.abs(vectors - page.vectors).max() < 2e-3  # float16
            assert PageGrid.from_json(json.loads(row["grid"])).cells.tolist() == page.grid.cells.tolist()
            assert len(row["pooled"]) == model.dim
        [query] = model.embed_queries("prices of bananas")
        scores = max_sim(query, [np.array(row["vectors"], np.float32) for row in rows])
    best = rows[int(scores.argmax())]
    assert (Path(best["source"]).name, best["page"]) == ("fruit.pdf", 2)


def test_a_second_run_adds_what_is_new(folder: Path, written: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in written.glob("*.parquet")}
    assert before
    one = sorted(before)[0]
    lost = pq.read_table(one).num_rows
    one.unlink()  # as if the run had been stopped before it
    (written / "_0123.unfinished").write_bytes(b"half a file")
    report = embed_pages(files(folder), output=written, pooled=True, dpi=100, pages_per_file=2)
    assert (report.added, report.present) == (lost, 3 - lost)
    assert pq.read_table(written).num_rows == 3
    assert all(path.stat().st_mtime_ns == before[path] for path in before if path != one)


def test_a_folder_is_of_one_model_and_one_kind(folder: Path, written: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="was made with"):
        embed_pages(files(folder), output=written)
    other = shutil.copytree(written, tmp_path / "other")
    manifest = json.loads((other / MANIFEST).read_text())
    manifest["model"]["revision"] = "sha256:000000000000"
    (other / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FingerprintError, match="sha256:000000000000"):
        embed_pages(files(folder), output=other, pooled=True)
    (other / MANIFEST).unlink()
    with pytest.raises(ConfigurationError, match="not ours"):
        embed_pages(files(folder), output=other, pooled=True)
    torn = shutil.copytree(written, tmp_path / "torn")
    next(torn.glob("*.parquet")).write_bytes(b"torn")
    with pytest.raises(StoreError, match="Remove it"):
        embed_pages(files(folder), output=torn, pooled=True)


def test_a_qdrant_server_is_filled_as_index_documents_fills_it(folder: Path) -> None:
    with stand_in() as server:
        target = QdrantServer(server.url, "manuals")
        report = embed_pages(files(folder), output=target, dpi=100)
        assert (report.added, len(report.failures)) == (3, 2)
        assert embed_pages(files(folder), output=target, dpi=100).added == 0
        with (
            ColPali.from_pretrained(threads=1) as model,
            MultiVectorStore.open(url=server.url, collection="manuals", model=model) as store,
        ):
            assert index_documents([folder], model=model, store=store, dpi=100).present == 3
            [query] = model.embed_queries("prices of bananas")
            hit = store.search(query, 1)[0]
            assert (Path(str(hit.entry.source)).name, hit.entry.page) == ("fruit.pdf", 2)
            assert store.regions(query, [hit.id])


def test_pixels_and_paths_are_documents_too(folder: Path) -> None:
    picture = Image.new("RGB", (120, 80), "white")
    [row] = draw_pages(ray.data.from_items([{"image": np.asarray(picture)}])).take_all()
    assert (row["columns"], row["rows"], row["page"], row["error"]) == (120, 80, 1, None)
    assert row["source"].startswith("sha256:")
    path = str(folder / "fruit.pdf")
    drawn = draw_pages(ray.data.from_items([{"path": path}]), dpi=72).take_all()
    assert [one["page"] for one in drawn] == list(range(1, len(drawn) + 1))
    rest = draw_pages(ray.data.from_items([{"path": path}]), dpi=72, known=frozenset({drawn[0]["id"]})).take_all()
    assert [one["id"] for one in rest] == [one["id"] for one in drawn[1:]]


def test_what_cannot_work_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="columns are text"):
        draw_pages(ray.data.from_items([{"text": "no file"}]))
    with pytest.raises(ConfigurationError, match="dpi"):
        draw_pages(files(folder), dpi=0)
    with pytest.raises(ConfigurationError, match="at most workers=2"):
        embed_pages(files(folder), output=tmp_path, workers=3)
    with pytest.raises(ConfigurationError, match="the cluster has 0"):
        embed_pages(files(folder), output=tmp_path, gpus=1)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        embed_pages(files(folder), output=tmp_path, providers=["CUDAExecutionProvider"])
    with pytest.raises(ConfigurationError, match="dtype"):
        PageEncoder(dtype="float8")  # type: ignore[arg-type]


@pytest.mark.parametrize("cores", [1, 2, 3, 4, 7, 16, 64])
@pytest.mark.parametrize("cards", [0, 1, 8])
def test_a_slot_is_left_for_those_who_read(cores: int, cards: int) -> None:
    plan = Workers.planned(cores, cards, count=None, threads=None, gpus=1 if cards else 0)
    assert 1 <= plan.count <= max(cores, cards)
    assert plan.count * plan.cpus <= cores - 1
    assert not cards or plan.count == cards or plan.count == cores


@pytest.mark.usefixtures("own_registry", "examples_folder")
@pytest.mark.parametrize("module", [drawing, encoder, embedding], ids=lambda module: module.__name__)
def test_examples(module: Any) -> None:
    result = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert result.attempted
    assert result.failed == 0
