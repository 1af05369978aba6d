"""Pages through a local Ray: the same vectors as without Ray, once per page, in files and on a server."""

from __future__ import annotations

import gc
import json
import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import ray
import ray.data
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, ProviderError
from colpali_integrations.models import find_model, register_model
from colpali_integrations.models.hub import bundled_folder
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.ray import QdrantServer, embed_pages, parquet_pages
from colpali_integrations.scoring import mean_pool
from colpali_integrations.stores import Entry, MultiVectorStore, index_documents
from tests.stores.documents import draw, save_pdf
from tests.stores.qdrant.stand_in import stand_in

DPI = 60
pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("local_ray"),
    # Ray's context warns about its own fields, which it sets itself.
    pytest.mark.filterwarnings("ignore:`use_:DeprecationWarning:ray.data.context"),
    # It counts blocks: a test has one, and one encoder is idle.
    pytest.mark.filterwarnings("ignore:The minimum number of concurrent actors:UserWarning"),
]


def files(folder: Path) -> Any:
    return ray.data.read_binary_files(str(folder), include_paths=True)


def parts(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}


def stored(folder: Path, model: ColPali) -> dict[str, tuple[Entry, NDArray[np.float32]]]:
    return {entry.id: (entry, vectors) for entry, vectors in parquet_pages(folder, model=model)}


def test_pages_equal_those_of_a_store_and_failures_are_named(folder: Path, tmp_path: Path, coltiny: ColPali) -> None:
    report = embed_pages(files(folder), output=tmp_path / "out", dpi=DPI, pooled=True)
    assert (report.added, report.present) == (3, 0)
    assert sorted(Path(failure.name).name for failure in report.failures) == ["torn.pdf", "words.png, page 1"]
    assert all("is not a" in failure.reason for failure in report.failures)

    store = MultiVectorStore.open(model=coltiny)
    index_documents([folder], model=coltiny, store=store, dpi=DPI)
    written = stored(tmp_path / "out", coltiny)
    assert len(written) == len(store) == 3
    for entry in store.scroll():
        result, vectors = written[entry.id]
        assert result == entry
        np.testing.assert_array_equal(vectors, store.vectors([entry.id])[0])

    # Without this package: a page is a list of lists of 128 numbers.
    table = pa.parquet.read_table(tmp_path / "out")
    assert json.loads(table.schema.metadata[b"colpali_integrations"])["model"]["name"] == "coltiny"
    for row in table.to_pylist():
        vectors = np.array(row["vectors"], np.float32)
        np.testing.assert_array_equal(vectors, written[row["id"]][1])
        mean = mean_pool(vectors, normalize=coltiny.description.unit_length)
        np.testing.assert_allclose(row["pooled"], mean, atol=2e-3 * np.abs(mean).max())
        assert row["model"] == f"coltiny@{coltiny.description.revision}"


def test_only_missing_pages_are_embedded_after_an_interruption(folder: Path, tmp_path: Path, coltiny: ColPali) -> None:
    out = tmp_path / "out"
    assert embed_pages(files(folder), output=out, dpi=DPI, workers=1, pages_per_file=1).added == 3
    before = parts(out)
    assert len(before) == 3
    # The state after a killed run: a page is missing, and there is an unfinished file.
    [lost] = [path for path in out.glob("*.parquet") if pa.parquet.read_table(path).column("page")[0].as_py() == 2]
    lost.rename(out / "_0123.unfinished")
    (folder / "words.png").unlink()
    Image.new("RGB", (40, 40), "white").save(folder / "new.png")

    report = embed_pages(files(folder), output=out, dpi=DPI, workers=1, pages_per_file=1)
    assert (report.added, report.present) == (2, 2)
    assert [Path(failure.name).name for failure in report.failures] == ["torn.pdf"]
    after = parts(out)
    assert len(after) == 4
    assert {name: after[name] for name in before if name != lost.name}.items() <= before.items()
    assert sorted(entry.name for entry, _ in stored(out, coltiny).values()) == [
        "new.png, page 1",
        "paper.pdf, page 1",
        "paper.pdf, page 2",
        "stripes.png, page 1",
    ]


def test_a_model_that_is_named_again_goes_on_with_the_settings_of_the_output(
    folder: Path, tmp_path: Path, one_space: tuple[Path, Path]
) -> None:
    model, out = one_space[0], tmp_path / "out"
    options: dict[str, Any] = {"output": out, "model": model, "dpi": DPI, "workers": 1, "cache_dir": str(tmp_path)}
    assert embed_pages(files(folder / "stripes.png"), precision="int8", **options).added == 1
    report = embed_pages(files(folder), **options)
    assert (report.added, report.present) == (2, 1)
    assert len(list(parquet_pages(out, model=model))) == 3
    with MultiVectorStore.open(model=ColPali.from_pretrained(model, precision="int8", cache_dir=tmp_path)) as store:
        assert store.add(parquet_pages(out, model=store.model)) == 3
    with pytest.raises(FingerprintError, match="precision int8"):
        embed_pages(files(folder), precision="float32", **options)


def test_a_document_that_cannot_be_read_ends_the_run_on_request(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^\S+/torn\.pdf is not a PDF"):
        embed_pages(files(folder / "torn.pdf"), output=tmp_path / "out", dpi=DPI, on_error="raise")
    with pytest.raises(ConfigurationError, match="on_error must be"):
        embed_pages(files(folder), output=tmp_path / "out", on_error="collect")  # type: ignore[arg-type]


@pytest.mark.usefixtures("own_registry")
def test_a_server_gets_the_entries_of_any_store(folder: Path, coltiny: ColPali) -> None:
    with stand_in() as server:
        output = QdrantServer(server.url, "manuals", {"first_stage": "int8"})
        paths = [{"path": str(path), "tenant": 7} for path in sorted(folder.iterdir())]
        rows = ray.data.from_items([*paths, {"path": str(folder / "gone.pdf"), "tenant": 8}])
        report = embed_pages(rows, output=output, dpi=DPI, workers=1, metadata=["tenant"])
        assert report.added == 3
        names = sorted(Path(failure.name).name for failure in report.failures)
        assert names == ["gone.pdf", "torn.pdf", "words.png, page 1"]

        alone = MultiVectorStore.open(model=coltiny)
        index_documents([folder], model=coltiny, store=alone, dpi=DPI, metadata={"tenant": 7})
        with MultiVectorStore.open(url=server.url, collection_name="manuals", model=coltiny) as store:
            assert {entry.id: entry for entry in store.scroll()} == {entry.id: entry for entry in alone.scroll()}
            assert store.settings.first_stage == "int8"
            assert store.count({"tenant": 7}) == 3
            [query] = coltiny.embed_queries("seats in the German parliament, chroma")  # a word of either page: no tie
            hits, expected = store.search(query, 3, where={"tenant": {"$gte": 7}}), alone.search(query, 3)
            assert [hit.entry.name for hit in hits] == [hit.entry.name for hit in expected]
            assert hits[0].entry.name == "paper.pdf, page 2"
            # `index_documents` does not embed the pages of Ray again.
            again = index_documents([folder], model=coltiny, store=store, dpi=DPI, metadata={"tenant": 7})
            assert (again.added, again.copied, again.present) == (0, 0, 3)
        assert embed_pages(rows, output=output, dpi=DPI, workers=1, metadata=["tenant"]).added == 0
        other = register_model(replace(find_model("coltiny"), name="other", query_prefix="?"))
        with pytest.raises(FingerprintError, match="other"):
            embed_pages(rows, output=output, model=other.name, local_dir=bundled_folder(find_model("coltiny")))


def test_a_changed_file_replaces_its_pages(folder: Path, tmp_path: Path, coltiny: ColPali) -> None:
    paper, out = folder / "paper.pdf", tmp_path / "out"
    rows = ray.data.from_items([{"path": str(paper)}])
    first, second = paper.read_bytes(), tmp_path / "second.pdf"
    save_pdf(second, draw("apples"))

    def names(model: ColPali) -> list[str]:
        return sorted(entry.content_hash for entry, _ in parquet_pages(out, model=model))

    with stand_in() as server:
        outputs = (out, QdrantServer(server.url, "manuals"))
        for output in outputs:
            assert embed_pages(rows, output=output, dpi=DPI, workers=1).added == 2
        before = names(coltiny)
        paper.write_bytes(second.read_bytes())
        for output in outputs:
            report = embed_pages(rows, output=output, dpi=DPI, workers=1)
            assert (report.added, report.replaced) == (1, 1)
        assert report.removed == 1
        with PagedDocument(paper, dpi=DPI) as document:
            keys = [page.key for page in document.pages()]
        assert names(coltiny) == keys
        with MultiVectorStore.open(url=server.url, collection_name="manuals", model=coltiny) as store:
            assert list(store.hashes().values()) == keys

    # The first content comes back: none of its old rows counts as present.
    paper.write_bytes(first)
    report = embed_pages(rows, output=out, dpi=DPI, workers=1)
    assert (report.added, report.replaced) == (2, 1)
    assert names(coltiny) == before
    assert embed_pages(rows, output=out, dpi=DPI, workers=1).added == 0


@pytest.mark.usefixtures("own_registry")
def test_workers_use_a_model_that_only_the_driver_registered(folder: Path, tmp_path: Path, coltiny: ColPali) -> None:
    mine = register_model(replace(find_model("coltiny"), name="me/my-coltiny"))
    images = ray.data.read_images(str(folder / "stripes.png"), include_paths=True)
    options: dict[str, Any] = {
        "model": mine.name,
        "local_dir": bundled_folder(find_model("coltiny")),
        "dtype": "float32",
    }
    report = embed_pages(images, output=tmp_path / "out", workers=1, **options)
    assert report.added == 1
    [(entry, vectors)] = parquet_pages(tmp_path / "out", model=mine)
    [expected] = coltiny.embed_images([folder / "stripes.png"])
    np.testing.assert_array_equal(vectors, expected)
    assert (entry.name, entry.metadata["width"]) == ("stripes.png, page 1", 80)
    assert embed_pages(images, output=tmp_path / "out", workers=1, **options).added == 0


def test_a_gpu_that_fails_to_start_is_an_error(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ray logs its errors, and the capture of logs would keep them, with all frames.
    monkeypatch.setattr(logging.root.manager, "disable", logging.CRITICAL)
    with pytest.raises(ProviderError, match="CUDAExecutionProvider is not in this build") as error:
        embed_pages(files(folder), output=tmp_path / "out", gpus=1)  # Ray counts one, see `local_ray`
    assert not (tmp_path / "out").exists()
    gc.collect()  # as the next call does
    deadline = time.monotonic() + 60
    while ray.available_resources().get("GPU") != 1:
        assert time.monotonic() < deadline, f"the encoder lives as long as {error}"
        time.sleep(0.1)


def test_a_dataset_without_files_is_an_error(tmp_path: Path) -> None:
    unknown = ray.data.range(1).map_batches(lambda _: {"name": np.array(["a"])})
    with pytest.raises(ConfigurationError, match="columns are name; needed are bytes, image or path"):
        embed_pages(unknown, output=tmp_path / "out", workers=1)
