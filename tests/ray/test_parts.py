"""The parts of the pipeline, without a running Ray."""

from __future__ import annotations

import hashlib
import itertools
import json
import pickle
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image
from qdrant_client import QdrantClient

from colpali_integrations import pdf_pages
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    FingerprintError,
    InputError,
    MissingExtraError,
    ProviderError,
    StoreError,
)
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models import find_model, register_model
from colpali_integrations.pages import load_image
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.ray import PageEncoder, QdrantServer, draw_pages, embed_pages, parquet_pages
from colpali_integrations.ray.cluster import plan_workers
from colpali_integrations.ray.outputs import MANIFEST, ParquetFolder, QdrantWriter, _entry, _with_errors
from colpali_integrations.ray.pages import _draw, _hashes, _present, _tags
from colpali_integrations.ray.pipeline import _cause, _for_workers, _report
from colpali_integrations.stores import MultiVectorStore, StoredModel
from colpali_integrations.stores.items import page_entry
from colpali_integrations.stores.qdrant import server
from tests.fuzz.targets.tables import _row
from tests.pages.strangers import frames, tiff
from tests.pages.test_pdf import encrypted, write_pdf
from tests.pages.test_viewer import HINDI
from tests.stores.backends import DIM
from tests.stores.stored_models import made_up

COLTINY = StoredModel.of(find_model("coltiny"))
MADE = COLTINY.fingerprint
DPI = 60
BLANK = PageGrid(1, 1, np.array([0]))
KIND = {"dtype": "float16", "pooled": False}


def drawn(batch: dict[str, list[Any]], metadata: tuple[str, ...] = (), **reading: Any) -> list[dict[str, Any]]:
    arrays: dict[str, Any] = {}
    for name, values in batch.items():
        arrays[name] = np.empty(len(values), object)
        arrays[name][:] = values
    tables = _draw(arrays, reading={"dpi": 36, **reading}, known=None, metadata=metadata)
    return [row for table in tables for row in table.to_pylist()]


@settings(deadline=None)  # thousands of placements take longer on a busy machine
@given(
    nodes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), min_size=1, max_size=3),
    threads=st.one_of(st.none(), st.integers(1, 4)),
    gpus=st.sampled_from([0, 0, 0.5, 1]),
)
def test_a_cpu_is_left_wherever_ray_places_the_encoders(
    nodes: list[tuple[int, int]], threads: int | None, gpus: float
) -> None:
    try:
        plan = plan_workers(nodes, threads=threads, gpus=gpus)
    except ConfigurationError:
        threads = threads or min(4, *(cores for cores, _ in nodes), 1)
        assert not any(cards >= gpus > 0 or (not gpus and cores >= threads > 0) for cores, cards in nodes)
        return
    assume(any(cores > 0 for cores, _ in nodes))
    slots = range(plan.most + 1)
    for placed in itertools.product(slots, repeat=len(nodes)):
        fits = all(
            number * plan.cpus <= cores and number * plan.gpus <= cards
            for number, (cores, cards) in zip(placed, nodes, strict=True)
        )
        if sum(placed) == plan.most and fits:
            left = [cores - number * plan.cpus for number, (cores, _) in zip(placed, nodes, strict=True)]
            assert max(left) >= 1, placed


def test_the_plan_has_the_requested_workers_or_is_an_error() -> None:
    assert plan_workers([(16, 0)], count=2, threads=8).cpus == 7.5
    assert plan_workers([(1, 0)]).cpus == 0
    growing = plan_workers([(4, 0)], count=(1, 8), gpus=1)
    assert (growing.least, growing.most, growing.gpus) == (1, 8, 1)
    assert plan_workers([(8, 1)], gpus=0.25).most == 4
    with pytest.raises(ConfigurationError, match=r"workers=3 is impossible: 1 node\(s\) of 8 CPUs have room for 2"):
        plan_workers([(8, 0)], count=3)
    with pytest.raises(ConfigurationError, match=r"an encoder with gpus=1 is impossible.*workers=\(least, most\)"):
        plan_workers([(8, 0)], gpus=1)
    with pytest.raises(ConfigurationError, match="an encoder of 9 threads is impossible"):
        plan_workers([(8, 0)], threads=9)
    for bad in (0, -1, (0, 2), (3, 2)):
        with pytest.raises(ConfigurationError, match="workers"):
            plan_workers([(8, 0)], count=bad)
    for options in ({"threads": 0}, {"gpus": -1}):
        with pytest.raises(ConfigurationError, match="at least"):
            plan_workers([(8, 0)], **options)


def test_rows_are_drawn_one_by_one(folder: Path) -> None:
    paper, stripes = (folder / "paper.pdf").read_bytes(), np.asarray(load_image(folder / "stripes.png"))
    first, second = drawn({"bytes": [paper]})
    assert (first["page"], second["page"], second["page_count"]) == (1, 2, 2)
    assert first["source"] == second["source"]
    assert first["source"].startswith("sha256:")  # the row has no path
    assert len(first["pixels"]) == first["columns"] * first["rows"] * 3
    assert first["key"].endswith("@36")
    assert first["document_id"] == f"sha256:{hashlib.sha256(paper).hexdigest()}"
    assert first["file_path"] is None

    [picture, wrong] = drawn({"image": [stripes, stripes / 255], "path": ["a.png", "b.png"]})
    assert picture["pixels"] == stripes.tobytes()
    assert (wrong["source"], wrong["id"]) == ("b.png", None)
    assert (picture["document_id"], picture["file_path"]) == ("a.png", None)  # no such file here
    assert "uint8 pixels, got float64" in wrong["error"]

    batch = {"path": [str(folder / "stripes.png")] * 2, "tenant": [np.int64(7), object()]}
    [accepted, refused] = drawn(batch, metadata=("tenant",))
    assert json.loads(accepted["metadata"]) == {"tenant": 7}
    assert "JSON cannot hold" in refused["error"]


def test_rows_equal_the_entries_of_other_entry_points(folder: Path) -> None:
    paper = folder / "paper.pdf"
    link = folder / "link.pdf"
    link.symlink_to(paper)
    ways: list[dict[str, list[Any]]] = [
        {"path": [str(paper)]},
        {"path": [str(paper)], "bytes": [paper.read_bytes()]},
        {"path": [str(link)], "bytes": [paper.read_bytes()]},
    ]
    with PagedDocument(paper, metadata={"tenant": 7}, dpi=36) as document:
        expected = [page_entry(page) for page in document.pages()]
    for way in ways:
        for row, entry in zip(drawn({**way, "tenant": [np.int64(7)]}, metadata=("tenant",)), expected, strict=True):
            result = _entry({**row, "grid": json.dumps(BLANK.to_json())})
            names = {} if way["path"] == [str(paper)] else {"source": str(link), "file_name": "link.pdf"}
            assert replace(result, grid=None) == replace(entry, metadata={**entry.metadata, **names})
    [other, _] = drawn({"path": ["bucket/paper.pdf"], "bytes": [paper.read_bytes()]})
    assert (other["document_id"], other["file_path"], other["key"]) == (
        "bucket/paper.pdf",
        None,
        expected[0].content_hash,
    )


def test_damaged_and_encrypted_documents_become_rows_with_an_error(folder: Path) -> None:
    page = b"<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 100]>>"
    pages = b"<</Type/Pages/Kids[3 0 R 9 0 R]/Count 2>>"  # there is no object 9
    [well, torn] = drawn({"bytes": [write_pdf([b"<</Type/Catalog/Pages 2 0 R>>", pages, page])], "path": ["a.pdf"]})
    assert (well["page"], well["error"]) == (1, None)
    assert (torn["id"], torn["page"], torn["document_id"]) == (None, 2, "a.pdf")
    assert "page 2 cannot be drawn" in torn["error"]
    locked = {"bytes": [encrypted(user=b"sesame", owner=b"owner")]}
    assert "encrypted" in drawn(locked)[0]["error"]
    assert drawn(locked, password="sesame")[0]["text"] == "Secret"
    assert "neither bytes nor image nor path" in drawn({"path": [None]})[0]["error"]


def test_known_pages_are_recognised_by_id_and_key() -> None:
    pages = [(f"{number:032x}", f"{number:064x}@150") for number in range(200)]
    hashes = np.sort(_hashes(pages[::2]))
    assert _present(hashes, pages) == [True, False] * 100
    assert not any(_present(hashes, [(id_, f"{key}0") for id_, key in pages]))
    assert not any(_present(_hashes([]), pages))


def test_columns_and_options_are_checked_before_the_run() -> None:
    class Dataset:
        def columns(self, fetch_if_missing: bool) -> list[str]:
            return ["path", "size"]

    for options, message in (
        ({"dpi": 0}, "dpi must be a positive number"),
        ({"metadata": ["tenant"]}, "has no column tenant; it has path, size"),
        ({"metadata": ["path"]}, "pages have path already"),
        ({"metadata": ["file_size"]}, "pages have file_size already"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            draw_pages(Dataset(), **options)


def test_an_invalid_option_writes_no_files(tmp_path: Path) -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"dtype": "int8"}, "dtype must be one of 'float16', 'float32', got 'int8'"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, got 0"),
        ({"pages_per_file": 0}, "pages_per_file must be a whole number of at least 1, got 0"),
        ({"pooled": True, "output": QdrantServer("http://qdrant:6333")}, "pooled is a column of Parquet files"),
    ]
    for options, message in cases:
        with pytest.raises(ConfigurationError, match=message):
            embed_pages(None, **{"output": tmp_path / "out", **options})
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("own_registry")
def test_workers_load_the_same_commit_as_the_driver(tmp_path: Path) -> None:
    mine = register_model(replace(find_model("Qdrant/colmodernvbert"), name="mine"))
    for commits in ({"revision": "0123abcd"}, {"revision": "0123abcd", "base_revision": "4567cdef"}):
        opened = replace(mine, **commits)  # type: ignore[arg-type]
        assert _for_workers("mine", opened, {}) == opened
    assert _for_workers("mine", replace(mine, revision="sha256:00"), {"local_dir": tmp_path}) == mine


class Damaged:
    """A codec whose vectors are multiplied by one factor per page."""

    def __init__(self, codec: Any, factors: list[float]) -> None:
        self._codec, self._factors = codec, factors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._codec, name)

    def embeddings(self, outputs: Any, batch: Any) -> list[PageEmbedding]:
        [page] = self._codec.embeddings(outputs, batch)
        return [PageEmbedding(page.vectors * np.float32(self._factors.pop(0)), page.grid)]


def test_a_page_that_cannot_be_encoded_leaves_the_others_intact(folder: Path) -> None:
    [table, _] = _draw({"path": np.array([str(folder / "paper.pdf")])}, reading={"dpi": DPI}, known=None, metadata=())
    encode = PageEncoder(threads=1)
    encode.model.family.pages = Damaged(encode.model.family.pages, [np.nan, 1e6, 1])
    bad, large, good = encode(pa.concat_tables([table] * 3)).to_pylist()
    assert "not finite" in bad["error"]
    assert "too much for float16; use dtype='float32'" in large["error"]
    assert bad["vectors"] is large["vectors"] is bad["grid"] is None
    assert good["error"] is None
    [expected] = encode.model.embed_images(pdf_pages(folder / "paper.pdf", dpi=DPI, pages=[1]))
    np.testing.assert_array_equal(np.array(good["vectors"]), expected.astype(np.float16))


def test_an_encoder_refuses_a_wrong_dtype_provider_or_model() -> None:
    with pytest.raises(ConfigurationError, match="dtype must be 'float16' or 'float32', got 'int8'"):
        PageEncoder(dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(ProviderError):
        PageEncoder(providers=["CUDAExecutionProvider"])
    with pytest.raises(FingerprintError, match="must be the same on every node"):
        PageEncoder(expected=made_up("another"))
    with pytest.raises(FingerprintError, match="precision int8"):
        PageEncoder(expected=replace(COLTINY, fingerprint=replace(MADE, pages=replace(MADE.pages, precision="int8"))))


def test_a_folder_holds_vectors_of_one_model_and_kind(tmp_path: Path) -> None:
    output = ParquetFolder(tmp_path / "out", COLTINY, KIND)
    assert output.keys() == {}
    assert not (tmp_path / "out").exists(), "a model that cannot be loaded leaves nothing behind"
    output.make()
    output.make()
    assert [path.name for path in (tmp_path / "out").iterdir()] == [MANIFEST]
    assert ParquetFolder(tmp_path / "out", COLTINY, KIND).keys() == {}
    with pytest.raises(FingerprintError, match="another-model"):
        ParquetFolder(tmp_path / "out", made_up("another-model"), KIND)
    small = replace(COLTINY, fingerprint=replace(MADE, pages=replace(MADE.pages, max_side=9)))
    with pytest.raises(FingerprintError, match="max_side 9"):
        ParquetFolder(tmp_path / "out", small, KIND)
    with pytest.raises(ConfigurationError, match="dtype='float16', pooled=False, not with dtype='float32'"):
        ParquetFolder(tmp_path / "out", COLTINY, {**KIND, "dtype": "float32"})
    for other in (made_up("another"), small):
        with pytest.raises(FingerprintError):
            list(parquet_pages(tmp_path / "out", model=other))


def test_a_store_refuses_pages_of_other_settings_before_they_are_encoded(tmp_path: Path) -> None:
    options = {"path": str(tmp_path / "store")}
    output = QdrantWriter(options, COLTINY)
    assert output.keys() == {}
    assert not (tmp_path / "store").exists(), "a model that cannot be loaded leaves nothing behind"
    with pytest.raises(ConfigurationError, match="first_stage must be one of"):
        QdrantWriter({**options, "first_stage": "none"}, COLTINY).keys()
    output.make()
    small = replace(COLTINY, fingerprint=replace(MADE, pages=replace(MADE.pages, max_side=9)))
    with pytest.raises(FingerprintError, match="max_side 9"):
        QdrantWriter(options, small).keys()


def test_errors_name_the_file_that_cannot_be_read(tmp_path: Path) -> None:
    pa.parquet.write_table(pa.table({"a": [1]}), tmp_path / "theirs.parquet")
    with pytest.raises(ConfigurationError, match="holds Parquet files of another origin"):
        ParquetFolder(tmp_path, COLTINY, KIND)
    with pytest.raises(StoreError, match=f"it has no {MANIFEST}"):
        next(parquet_pages(tmp_path, model=COLTINY))
    output = ParquetFolder(tmp_path / "out", COLTINY, KIND)
    output.make()
    (tmp_path / "out" / "part-1.parquet").write_bytes(b"half")
    with pytest.raises(StoreError, match=r"part-1.parquet.*Remove it and run again"):
        output.keys()
    (tmp_path / "out" / MANIFEST).write_text("{")
    with pytest.raises(StoreError, match=f"damaged {MANIFEST}"):
        ParquetFolder(tmp_path / "out", COLTINY, KIND)


def test_a_place_where_no_folder_can_be_made_is_refused_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(StoreError, match="file is a file and not a folder"):
            ParquetFolder(place, COLTINY, KIND)


def test_rows_of_another_kind_are_errors_that_name_their_file(tmp_path: Path) -> None:
    made_by = made_up("fake", dim=DIM)
    ParquetFolder(tmp_path / "out", made_by, KIND).make()
    file = tmp_path / "out" / "part-1.parquet"
    changes: list[dict[str, Any]] = [
        *(
            {"vectors": "text"},
            {"vectors": None},
            {"vectors": [[0.5], [0.5, 1.0]]},
            {"grid": None},
            {"grid": "[" * 9999},
        ),
        *({"metadata": "{"}, {"metadata": "[1]"}, {"run": "now"}, {"page": "one"}),
    ]
    for change in changes:
        pa.parquet.write_table(pa.Table.from_pylist([{**_row(1), **change}]), file)
        with pytest.raises(StoreError, match=r"part-1\.parquet"):
            list(parquet_pages(tmp_path / "out", model=made_by))
    pa.parquet.write_table(pa.Table.from_pylist([_row(1), _row(2)]), file)
    entries = [entry for entry, _ in parquet_pages(tmp_path / "out", model=made_by)]
    assert [(entry.page, entry.metadata["missing_fonts"]) for entry in entries] == [(1, "Absent"), (2, "Absent")]


NESTED: list[Any] = []
for _ in range(5000):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("row", "source"),
    [
        ({"bytes": 10**13}, "sha256:"),  # `bytes` would make a terabyte of it
        ({"bytes": [1, 2]}, "sha256:"),
        ({"image": {"a": 1}}, "sha256:"),
        ({"path": "a\udcff.pdf"}, "a?.pdf"),
        ({"path": 7}, "a path of type int"),
        ({"path": NESTED}, "a path of type list"),  # too deep for `str`
    ],
)
def test_rows_of_wrong_types_become_rows_with_an_error(row: dict[str, Any], source: str) -> None:
    [refused] = drawn({name: [value] for name, value in row.items()})
    assert refused["error"]
    assert refused["source"].startswith(source)


def test_pixels_of_a_large_picture_pass_through_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    stripes = np.arange(30 * 40 * 3, dtype=np.uint8).reshape(30, 40, 3)
    [kept] = drawn({"image": [stripes]})
    monkeypatch.setattr("colpali_integrations.ray.pages._IN_MEMORY", 100)
    [passed] = drawn({"image": [stripes]})
    assert passed == kept and passed["pixels"] == stripes.tobytes()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_row_of_the_largest_picture_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    Image.new("RGB", (13_000, 12_300), "red").save(tmp_path / "large.png", compress_level=1)
    code = """if True:
        import re, sys
        from pathlib import Path
        import numpy as np
        from colpali_integrations.ray.pages import _draw
        [table] = _draw({"path": np.array([sys.argv[1]], object)}, reading={"dpi": 36}, known=None, metadata=())
        assert table.nbytes > 3 * 13_000 * 12_300
        print(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])
    """
    command = [sys.executable, "-c", code, str(tmp_path / "large.png")]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(process.stdout) < 1e6  # kB; 4 bytes per pixel of the picture alone are 640 MB


def test_without_ray_the_error_names_the_extra_to_install() -> None:
    code = "import sys; sys.modules['ray'] = None; import colpali_integrations.ray"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "MissingExtraError: Embedding with Ray needs ray, which is not installed" in process.stderr
    assert 'pip install "colpali-integrations[ray]"' in process.stderr


def test_an_error_can_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(MissingExtraError("matplotlib", "plot", "Plotting")))
    assert str(error) == str(MissingExtraError("matplotlib", "plot", "Plotting"))


def test_frames_of_a_tiff_are_rows_and_limits_hold(tmp_path: Path) -> None:
    path = tmp_path / "scan.tif"
    path.write_bytes(tiff(frames(3)))
    rows = drawn({"path": [str(path)]})
    assert [(row["page"], row["page_count"], row["pixels"][0]) for row in rows] == [(1, 3, 20), (2, 3, 60), (3, 3, 100)]
    assert len({row["id"] for row in rows}) == 3
    [refused, *_] = drawn({"path": [str(path)]}, max_pixels=10)
    assert "max_pixels=43" in refused["error"]
    with pytest.raises(ConfigurationError, match="image_formats"):
        draw_pages(None, image_formats=["NONE"])


def test_another_registered_model_is_refused_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")  # a download would be an error of another kind
    ParquetFolder(tmp_path / "out", COLTINY, KIND).make()
    client = QdrantClient(":memory:")
    monkeypatch.setattr(server, "connect", lambda url, **options: options == {"api_key": "secret"} and client)
    MultiVectorStore.open(client=client, collection_name="manuals", model=COLTINY)
    options = {"first_stage": "ward", "api_key": "secret"}
    for output in (tmp_path / "out", QdrantServer("http://qdrant:6333", "manuals", options)):
        with pytest.raises(FingerprintError, match="was made by coltiny"):
            embed_pages(None, output=output, model="Hcompany/NeoMME-260M-Retriever")


def test_rows_and_their_errors_have_the_name_of_the_file(caplog: pytest.LogCaptureFixture) -> None:
    """Readers of object storage give bytes, with a path that no node can open."""
    names = ["s3://shelf/poem.pdf", "s3://shelf/torn.pdf", "s3://shelf/locked.pdf", "s3://shelf/a.png"]
    contents = [HINDI, b"%PDF-1.7 torn", encrypted(user=b"sesame", owner=b"owner"), b"no image"]
    poem, *refused = drawn({"bytes": contents, "path": names})
    assert (poem["source"], poem["missing_fonts"], poem["error"]) == (names[0], ["Absent"], None)
    assert f"{names[0]}, page 1: not drawn are characters of Absent" in caplog.text
    for name, row in zip(names[1:], refused, strict=True):
        assert row["source"] == name
        assert row["error"].startswith(name), row["error"]
        assert row["missing_fonts"] is None


def test_a_report_warns_of_missing_fonts_and_names_each_failure_once() -> None:
    page = {"id": "a", "document_id": "d", "page": 1, "error": None, "removed": 0, "missing_fonts": None}
    rows = [
        {**page, "source": "s3://shelf/poem.pdf", "missing_fonts": ["Absent"]},
        {**page, "source": "s3://shelf/poem.pdf", "page": 2},
        {**page, "source": "b.pdf", "page": None, "id": None, "error": "b.pdf is empty (0 bytes)"},
        {**page, "source": "c.pdf", "page": 3, "error": "not finite"},
    ]
    report = _report(iter(rows), {}, "skip")
    assert (report.added, report.documents) == (2, 1)
    [warning] = report.warnings
    assert warning.name == "s3://shelf/poem.pdf"
    assert warning.message.startswith("page 1: not drawn are characters of Absent")
    for row, message in zip(rows[2:], ["b.pdf is empty (0 bytes)", "c.pdf, page 3: not finite"], strict=True):
        with pytest.raises(ColPaliError, match=f"^{re.escape(message)}$"):
            _report(iter([row]), {}, "raise")


def test_metadata_that_json_cannot_hold_name_the_column() -> None:
    values = {"tenant": "north", "read_on": np.datetime64("2024-01-31"), "number": np.int64(7)}
    with pytest.raises(InputError, match=r"JSON cannot hold 'read_on', .*; pass value.isoformat\(\)"):
        _tags(values, list(values))
    assert _tags(values, ["tenant", "number"]) == {"tenant": "north", "number": 7}


def test_refused_pages_are_errors_of_their_rows() -> None:
    batch = pa.table({"id": ["a", "b", None], "error": pa.array([None, None, "torn"], pa.string())})
    changed = _with_errors(batch, {"b": "too many numbers"})
    assert changed.schema == batch.schema
    assert changed.to_pylist() == [
        {"id": "a", "error": None},
        {"id": "b", "error": "too many numbers"},
        {"id": None, "error": "torn"},
    ]


def test_advice_of_ray_is_no_part_of_a_message() -> None:
    advice = "\nFailed to apply UDF transform after 1/1 attempts (total backoff 0.0s).\nTo change retry attempts, ..."
    error = _cause(StoreError(f"the server cannot be reached{advice}"))
    assert str(error) == "the server cannot be reached"
