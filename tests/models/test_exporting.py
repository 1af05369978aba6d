"""Exported folders open without their checkpoint, and give its vectors bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from colpali_integrations import ColPali
from colpali_integrations.cli.app import run as run_command
from colpali_integrations.errors import ConfigurationError, FingerprintError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.builder.checkpoint_graph import CheckpointGraph
from colpali_integrations.models.exporting import export_model
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.loading import find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.stores import MultiVectorStore, index_documents
from tests.models.hub_server import COMMIT, Hub, serve
from tests.models.narrow_products import ARE_WRONG, REASON
from tests.models.test_hub import run
from tests.parity.test_checkpoints import compose
from tests.stores.documents import draw, save_pdf

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
PAGE = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
QUESTION = "what is the revenue"
PRECISIONS = ["float32", "float16", "int8", "int8-dynamic", "int4"]
NAMES = ["neomme", "neomme-float32", "colqwen2", "colqwen2_5", "paligemma", "colmodernvbert", "colsmol"]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[str], tuple[Path, dict[str, Any]]]:
    """Copies a checkpoint, and gives its folder and the options that it needs."""

    def copied(name: str) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "checkpoint" / name
        if not (FIXTURES / name / "golden.json").exists() or name in ("paligemma", "colmodernvbert", "colsmol"):
            return compose(name, folder), {}
        shutil.copytree(FIXTURES / name, folder)
        if name != "colqwen2_5":
            return folder, {}
        return folder, {"base": shutil.copytree(FIXTURES / "colqwen2_5-base", tmp_path / "checkpoint" / "base")}

    return copied


def vectors(model: ColPali) -> list[np.ndarray]:
    return [model.embed_query(QUESTION), *model.embed_texts(["A text."]), *model.embed_images([PAGE])]


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", NAMES)
def test_vectors_are_equal_without_the_checkpoint(
    name: str, precision: Any, checkpoint: Callable[[str], tuple[Path, dict[str, Any]]], tmp_path: Path
) -> None:
    if precision == "int8-dynamic" and ARE_WRONG:
        pytest.skip(REASON)
    folder, options = checkpoint(name)
    options |= {"precision": precision, "cache_dir": tmp_path / "cache"}
    made = export_model(folder, tmp_path / "out", **options)
    with ColPali.from_pretrained(folder, threads=1, **options) as original:
        expected, fingerprint = vectors(original), original.description.fingerprint
    shutil.rmtree(tmp_path / "checkpoint")
    with ColPali.from_pretrained(tmp_path / "out", threads=1) as model:
        for found, right in zip(vectors(model), expected, strict=True):
            np.testing.assert_array_equal(found, right)
        assert model.description.fingerprint == fingerprint
        assert model.splits_graph
    assert (made.checkpoint, made.precision) == (name, precision)
    graphs = [file for kind in ("*.onnx", "*.safetensors") for file in made.folder.glob(kind)]
    assert made.size_in_bytes == sum(file.stat().st_size for file in graphs)


def test_the_side_of_questions_works_alone(tmp_path: Path) -> None:
    export_model(FIXTURES / "colqwen2", tmp_path / "out", precision="int8")
    with ColPali.from_pretrained(tmp_path / "out", threads=1) as whole:
        expected = whole.embed_query(QUESTION)
    for file in tmp_path.glob("out/tower.*"):
        file.unlink()
    with ColPali.from_pretrained(tmp_path / "out", threads=1, lazy_load=True) as model:
        np.testing.assert_array_equal(model.embed_query(QUESTION), expected)
        with pytest.raises(ModelLoadError, match=r"lacks tower\.onnx; copy it and tower\.safetensors"):
            list(model.embed_images([PAGE]))
    with pytest.raises(ModelLoadError, match=r"lacks tower\.onnx.*lazy_load=True"):
        ColPali.from_pretrained(tmp_path / "out")
    (tmp_path / "out" / "text.onnx").unlink()
    with pytest.raises(ModelNotFoundError, match=r"lacks text\.onnx"):
        ColPali.from_pretrained(tmp_path / "out", lazy_load=True)


def test_another_program_opens_the_graph(tmp_path: Path) -> None:
    export_model(FIXTURES / "neomme", tmp_path / "out")
    session = ort.InferenceSession(tmp_path / "out" / "encoder.onnx", providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["embeddings", "dense_embeddings"]


def test_an_exported_folder_keeps_the_options_of_pages(tmp_path: Path) -> None:
    export_model(FIXTURES / "neomme", tmp_path / "out", precision="int8")
    options: dict[str, Any] = {"max_side": 64, "precision": "int8", "threads": 1}
    with (
        ColPali.from_pretrained(FIXTURES / "neomme", cache_dir=tmp_path, **options) as original,
        ColPali.from_pretrained(tmp_path / "out", **options) as model,
    ):
        for found, right in zip(vectors(model), vectors(original), strict=True):
            np.testing.assert_array_equal(found, right)
        [dense], [expected] = (list(one.embed_queries_dense(QUESTION)) for one in (model, original))
        np.testing.assert_array_equal(dense, expected)
        assert model.description.fingerprint == original.description.fingerprint
    assert describe_folder(tmp_path / "out").fingerprint != original.description.fingerprint


@pytest.mark.parametrize("options", [{"precision": "float32"}, {"allow_unused": ["rest"]}])
def test_what_the_export_fixed_cannot_be_changed(options: dict[str, Any], tmp_path: Path) -> None:
    export_model(FIXTURES / "neomme", tmp_path / "out", precision="int8")
    with pytest.raises(ConfigurationError, match=r"exported from neomme with precision='int8'.*export the checkpoint"):
        ColPali.from_pretrained(tmp_path / "out", **options)
    with pytest.raises(ConfigurationError, match="base: out is not an adapter"):
        ColPali.from_pretrained(tmp_path / "out", base="somebody/base")


def test_the_length_of_the_vectors_is_that_of_the_graph(tmp_path: Path) -> None:
    folder = FIXTURES / "colqwen3"
    with pytest.raises(ModelLoadError, match=r"makes vectors of 320 numbers, .*77; pass dim=320"):
        export_model(folder, tmp_path / "out", dim=77)
    assert list(tmp_path.iterdir()) == []
    export_model(folder, tmp_path / "out", dim=320)
    for dim in (77, 128):
        with pytest.raises(ConfigurationError, match=r"was exported from colqwen3 with .*dim=320, which cannot be"):
            ColPali.from_pretrained(tmp_path / "out", dim=dim, lazy_load=True)
    with ColPali.from_pretrained(tmp_path / "out", dim=320, lazy_load=True) as model:
        assert model.dim == 320


def test_prompts_that_are_changed_after_the_export_change_the_fingerprint(tmp_path: Path) -> None:
    export_model(FIXTURES / "colqwen2", tmp_path / "out")
    exported = describe_folder(tmp_path / "out")
    assert exported.origin is not None
    path = tmp_path / "out" / "colpali_integrations.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["description"]["query_prefix"] = "Question: "
    path.write_text(json.dumps(content), encoding="utf-8")
    assert describe_folder(tmp_path / "out").fingerprint != exported.fingerprint
    assert replace(exported, origin=None).fingerprint != exported.fingerprint
    content["description"]["origin"]["nmae"] = "a"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ModelLoadError, match="nmae"):
        describe_folder(tmp_path / "out")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported folder, to be copied."""
    return export_model(FIXTURES / "colqwen2", tmp_path_factory.mktemp("exported") / "out").folder


def flip(path: Path, place: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "text.safetensors": flip,
    "tower.safetensors": flip,
    "text.onnx": flip,
    "tower.onnx": flip,
    "tokenizer.json": lambda path: path.write_bytes(path.read_bytes() + b" "),
    "tokenizer_config.json": Path.unlink,
    "special_tokens_map.json": lambda path: path.write_text("{}"),  # which the checkpoint lacks
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_file_makes_a_model_of_its_own(
    name: str, exported: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    original = describe_folder(FIXTURES / "colqwen2").fingerprint
    folder = shutil.copytree(exported, tmp_path / "mine")
    assert describe_folder(folder).fingerprint == original
    assert not caplog.records
    CHANGES[name](folder / name)
    changed = describe_folder(folder)
    assert not changed.fingerprint.same_space(original)
    assert not changed.fingerprint.pages.matches(original.pages)
    assert describe_folder(folder) == changed
    [record] = caplog.records  # once, however often the folder is opened
    assert f"is not as it was exported from colqwen2 ({name}); it has a fingerprint of its own" in record.getMessage()
    assert describe_folder(shutil.copytree(folder, tmp_path / "copy")).fingerprint == changed.fingerprint


def test_a_folder_that_was_trained_further_opens_and_stores_of_the_checkpoint_refuse_it(
    exported: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(exported, tmp_path / "mine")
    with ColPali.from_pretrained(exported, threads=1) as model:
        MultiVectorStore.open(tmp_path / "store", model=model).close()
    flip(folder / "text.safetensors", -2)
    with ColPali.from_pretrained(folder, threads=1) as model:
        assert len(model.embed_query(QUESTION))
        with pytest.raises(FingerprintError, match=r"was made by out .*the model at hand is mine"):
            MultiVectorStore.open(tmp_path / "store", model=model)
        with MultiVectorStore.open(tmp_path / "its own", model=model) as store:
            assert store.model.fingerprint == describe_folder(folder).fingerprint


def test_the_side_of_questions_alone_keeps_the_fingerprint(exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "questions", ignore=shutil.ignore_patterns("tower.*"))
    assert describe_folder(folder).fingerprint == describe_folder(exported).fingerprint
    flip(folder / "text.safetensors")
    assert not describe_folder(folder).fingerprint.same_space(describe_folder(exported).fingerprint)


def test_a_space_that_the_export_took_over_is_not_that_of_changed_files(
    one_space: tuple[Path, Path], tmp_path: Path
) -> None:
    large, small = one_space
    folder = export_model(small, tmp_path / "out").folder
    assert describe_folder(folder).fingerprint.same_space(describe_folder(large).fingerprint)
    flip(folder / "text.safetensors")
    assert not describe_folder(folder).fingerprint.same_space(describe_folder(large).fingerprint)


@pytest.mark.parametrize("recorded", [None, [], {"text.onnx": 3}])
def test_files_without_a_record_are_of_a_model_of_its_own(recorded: Any, exported: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(exported, tmp_path / "mine")
    path = folder / "colpali_integrations.json"
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), "files": recorded}))
    assert not describe_folder(folder).fingerprint.same_space(describe_folder(exported).fingerprint)


@pytest.mark.parametrize("changed", [False, True])
def test_the_files_of_an_exported_repository_are_compared(changed: bool, exported: Path, tmp_path: Path) -> None:
    repository = tmp_path / "models--me--exported"
    snapshot = shutil.copytree(exported, repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    if changed:
        flip(snapshot / "text.safetensors")
    options: dict[str, Any] = {"cache_dir": tmp_path, "local_files_only": True, "lazy_load": True}
    found = ColPali.from_pretrained("me/exported", **options).description
    assert found.revision == COMMIT
    assert found.fingerprint.same_space(describe_folder(exported).fingerprint) is not changed


def test_a_store_takes_pages_and_questions_of_both(tmp_path: Path) -> None:
    export_model(FIXTURES / "colqwen2", tmp_path / "out")
    save_pdf(tmp_path / "report.pdf", draw("Harvest of apples"))
    with (
        ColPali.from_pretrained(FIXTURES / "colqwen2", threads=1) as original,
        MultiVectorStore.open(tmp_path / "store", model=original) as store,
    ):
        index_documents([tmp_path / "report.pdf"], model=original, store=store)
    with (
        ColPali.from_pretrained(tmp_path / "out", threads=1) as model,
        MultiVectorStore.open(tmp_path / "store", model=model) as store,
    ):
        assert index_documents([tmp_path / "report.pdf"], model=model, store=store).present == 1
        assert [hit.entry.page for hit in store.search(model.embed_query(QUESTION), 1)] == [1]


def test_a_repository_of_an_exported_folder_needs_no_entry(tmp_path: Path) -> None:
    export_model(FIXTURES / "colqwen2", tmp_path / "out", precision="int8")
    content = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    with serve(Hub("somebody/exported", {**content, "README.md": b"# A model"})) as hub:
        embed = """
        with ColPali.from_pretrained("somebody/exported", cache_dir=CACHE, threads=1) as model:
            result["query"] = model.embed_query("what is the revenue").tolist()
            result["fingerprint"] = repr(model.description.fingerprint)
        """
        result, _ = run(embed, cache=tmp_path, HF_ENDPOINT=hub.url)
        assert result.get("error") is None, result
        assert hub.downloaded() == set(content)
    with ColPali.from_pretrained(tmp_path / "out", threads=1) as model:
        np.testing.assert_array_equal(np.array(result["query"], np.float32), model.embed_query(QUESTION))
        assert result["fingerprint"] == repr(model.description.fingerprint)


@pytest.mark.parametrize("source", ["coltiny", FIXTURES / "paligemma"], ids=str)
def test_an_export_is_not_exported_again(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="is an ONNX export already"):
        export_model(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_exported_folder_is_not_exported_again(tmp_path: Path) -> None:
    export_model(FIXTURES / "neomme", tmp_path / "out")
    with pytest.raises(ModelLoadError, match="out is an ONNX export already"):
        export_model(tmp_path / "out", tmp_path / "second")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigurationError, match="exists already"):
        export_model(FIXTURES / "neomme", tmp_path / "full")


def test_a_link_is_followed_to_the_folder_that_is_written(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in ("empty", "other/new"):
        out = tmp_path / f"link to {target.replace('/', ' ')}"
        out.symlink_to(target)
        made = export_model(FIXTURES / "neomme", out)
        assert made.folder == out
        assert out.is_symlink()
        assert describe_folder(tmp_path / target).family == "neomme"
    assert sorted(path.name for path in tmp_path.iterdir() if not path.is_symlink()) == ["empty", "other"]


def test_a_link_to_something_else_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for target, reason in (("file", "exists already"), ("full", "exists already"), ("link", "cannot be written")):
        link = tmp_path / "link"
        link.symlink_to(target)
        with pytest.raises(ConfigurationError, match=rf"link {reason}"):
            export_model("no such model", link)
        link.unlink()
    with pytest.raises(ConfigurationError, match="out cannot be written"):
        export_model("no such model", tmp_path / "file" / "out")


def test_weights_that_cannot_be_written_are_an_error(tmp_path: Path) -> None:
    graph = find_files(FIXTURES / "neomme", ModelOptions()).family().graphs
    assert isinstance(graph, CheckpointGraph)
    with pytest.raises(ModelLoadError, match=r"cannot write .*encoder\.safetensors"):
        graph.write(tmp_path / "nowhere")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    adapter, base, out = FIXTURES / "colqwen2_5", FIXTURES / "colqwen2_5-base", tmp_path / "out"
    command = ["export", str(adapter), str(out), "--base", str(base), "--precision", "int8"]
    assert run_command([*command, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["folder"], record["precision"]) == (str(out), "int8")
    assert run_command(command) == 1
    assert "exists already" in capsys.readouterr().err
    assert run_command(["export", str(FIXTURES / "neomme"), str(tmp_path / "second")]) == 0
    error = capsys.readouterr().err
    assert f"Use it by --model {tmp_path / 'second'}; in Python by ColPali.from_pretrained('" in error
    assert run_command(["export", str(FIXTURES / "neomme"), str(tmp_path / "third"), "--precision", "int3"]) == 2
    assert "'int3' is not one of" in capsys.readouterr().err
