"""The family of a bare folder is recognised by its files; if it is not, the error names the files."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ModelLoadError, ModelNotFoundError
from colpali_integrations.models import content
from colpali_integrations.models.content import content_revision
from colpali_integrations.models.folder import describe_folder
from colpali_integrations.models.hub import bundled_folder
from colpali_integrations.models.registry import find_model
from colpali_integrations.models.shared import release_shared_models, shared_model
from tests.models.builder.checkpoints import save

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
COLPALI, MODERN = "Qdrant/colpali-v1.3-fp16", "Qdrant/colmodernvbert"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to fill, with an ONNX file that is not read."""
    (tmp_path / "model.onnx").write_bytes(b"graph")
    yield tmp_path


def write(folder: Path, name: str, content: Any) -> None:
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("folder", "like", "model_file"),
    [
        (FIXTURES / "paligemma", COLPALI, "model.onnx"),
        (FIXTURES / "paligemma-fp16", COLPALI, "model.onnx"),
        (FIXTURES / "colmodernvbert", MODERN, "model_v2.onnx"),
        (FIXTURES / "colsmol", MODERN, "model.onnx"),
        (bundled_folder(find_model("coltiny")), "coltiny", "image.onnx"),
    ],
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_real_folders(folder: Path, like: str, model_file: str) -> None:
    described, base = describe_folder(folder), find_model(like)
    assert described.name == folder.name
    assert described.family == base.family
    assert described.repository is None
    assert described.model_file == model_file
    assert described.dim == base.dim
    assert (described.query_prefix, described.query_suffix) == (base.query_prefix, base.query_suffix)
    assert described.unit_length == base.unit_length
    assert all((folder / name).is_file() for name in described.files)
    # Published figures are those of other checkpoints.
    assert (described.vidore, described.license, described.parameters) == ((), "", 0)


@pytest.mark.parametrize("name", ["neomme-float32", "neomme", "colqwen2_5", "pplx_late"])
def test_a_checkpoint_s_folder_lists_each_file_once(name: str) -> None:
    base = FIXTURES / "colqwen2_5-base" if name == "colqwen2_5" else None
    files = describe_folder(FIXTURES / name, base=base).files
    assert len(files) == len(set(files))
    assert {path.name for path in (FIXTURES / name).glob("*.safetensors")} <= set(files)


def test_page_prompts_of_the_two_idefics3_kinds() -> None:
    modern = describe_folder(FIXTURES / "colmodernvbert").image_prompt
    smol = describe_folder(FIXTURES / "colsmol").image_prompt
    assert modern.startswith("<|begin_of_text|>User:<image>")
    assert smol == modern.replace("<|begin_of_text|>", "<|im_start|>")


@pytest.mark.parametrize("name", ["paligemma", "colsmol"])
def test_a_folder_is_enough_to_embed(name: str) -> None:
    with ColPali.from_pretrained(FIXTURES / name) as model:
        [query] = model.embed_queries(["a question"])
        [page] = model.embed_images([np.full((40, 30), 200, dtype=np.uint8)])
    assert query.shape[1] == page.shape[1] == model.dim
    np.testing.assert_allclose(np.linalg.norm(page, axis=1), 1, atol=1e-5)


def test_the_bundled_model_as_a_folder_is_the_bundled_model() -> None:
    with ColPali.from_pretrained(bundled_folder(find_model("coltiny"))) as folder, ColPali.from_pretrained() as bundled:
        [one], [other] = folder.embed_queries("how tall is it"), bundled.embed_queries("how tall is it")
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("config", "family"),
    [
        ({"model_type": "colpali"}, "paligemma"),
        ({"architectures": ["ColPaliForRetrieval"]}, "paligemma"),
        ({"model_type": "x", "vlm_config": {"model_type": "paligemma"}}, "paligemma"),
        ({"model_type": "idefics3"}, "idefics3"),
        ({"model_type": "modernvbert"}, "idefics3"),
        ({"_name_or_path": "vidore/colSmol-256M"}, "idefics3"),
        ({"family": "coltiny"}, "coltiny"),
    ],
)
def test_configuration_files_identify_the_family(folder: Path, config: dict[str, Any], family: str) -> None:
    write(folder, "config.json", config)
    assert describe_folder(folder).family == family


def test_the_processor_identifies_the_family_where_config_json_does_not(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "custom"})
    write(folder, "processor_config.json", {"processor_class": "ColIdefics3Processor"})
    described = describe_folder(folder)
    assert described.family == "idefics3"
    assert described.image_prompt.startswith("<|im_start|>")


def test_a_known_origin_decides_the_prompt(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = find_model("akshayballal/colpali-v1.2-merged-onnx")
    write(folder, "config.json", {"model_type": "colpali", "_name_or_path": old.repository})
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        assert describe_folder(folder).query_prefix == "<bos>Question: "
    assert not caplog.records
    write(folder, "config.json", {"model_type": "colpali", "_name_or_path": "somebody/else"})
    with caplog.at_level(logging.WARNING, "colpali_integrations"):
        for _ in range(2):
            assert describe_folder(folder).query_prefix == "<bos>Query: "
    assert caplog.text.count("do not record the query prompt") == 1


@pytest.mark.parametrize(("config", "dim"), [({}, 128), ({"embedding_dim": 320}, 320), ({"dim": 64}, 64)])
@pytest.mark.parametrize("nonsense", [{}, {"architectures": 7, "vlm_config": "text"}])
def test_dimensions(folder: Path, config: dict[str, Any], dim: int, nonsense: dict[str, Any]) -> None:
    write(folder, "config.json", {"model_type": "colpali", **config, **nonsense})
    assert describe_folder(folder).dim == dim


@pytest.mark.parametrize("dim", [0, -3, "128", None, 1.5])
def test_dimensions_that_are_none_are_passed_over(folder: Path, dim: Any) -> None:
    write(folder, "config.json", {"model_type": "colpali", "embedding_dim": dim})
    assert describe_folder(folder).dim == 128


def test_which_onnx_file(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "modernvbert"})
    assert describe_folder(folder).model_file == "model.onnx"
    (folder / "model_v2.onnx").write_bytes(b"graph")
    assert describe_folder(folder).model_file == "model_v2.onnx", "the family's own name comes first"
    (folder / "model_v2.onnx").unlink()
    (folder / "model.onnx").rename(folder / "int8.onnx")
    assert describe_folder(folder).model_file == "int8.onnx", "the only one there is"
    (folder / "fp16.onnx").write_bytes(b"graph")
    with pytest.raises(ModelLoadError, match=r"should hold model_v2\.onnx; ONNX files there: fp16\.onnx, int8\.onnx"):
        describe_folder(folder)
    for file in folder.glob("*.onnx"):
        file.unlink()
    with pytest.raises(ModelLoadError, match="none"):
        describe_folder(folder)
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"graph")
    assert describe_folder(folder).model_file == "onnx/model.onnx"


def test_a_model_in_a_subfolder_finds_its_weights(tmp_path: Path) -> None:
    """The layout of exports made by optimum: onnx/model.onnx, its weights beside it, the rest one up."""
    folder = tmp_path / "export"
    shutil.copytree(FIXTURES / "paligemma", folder, ignore=shutil.ignore_patterns("golden*", "*.onnx*"))
    (folder / "onnx").mkdir()
    for name in ("model.onnx", "model.onnx_data"):
        shutil.copy(FIXTURES / "paligemma" / name, folder / "onnx")
    with ColPali.from_pretrained(folder) as moved, ColPali.from_pretrained(FIXTURES / "paligemma") as model:
        [one], [other] = moved.embed_queries("text"), model.embed_queries("text")
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("content", ["{", "[]", "null", '"text"', "\x00"])
def test_a_damaged_config(folder: Path, content: str) -> None:
    (folder / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ModelLoadError, match=r"config\.json"):
        describe_folder(folder)


def test_folders_that_do_not_tell(folder: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"has no config\.json.*colpali_integrations\.json.*adding_a_model\.md"):
        describe_folder(folder)
    write(folder, "config.json", {"model_type": "bert"})
    with pytest.raises(
        ModelLoadError, match=r"model_type 'bert', architectures none\) is not supported\. Supported are"
    ):
        describe_folder(folder)
    with pytest.raises(ModelNotFoundError, match="no folder at"):
        describe_folder(folder / "missing")
    with pytest.raises(ModelNotFoundError, match="no folder at"):
        describe_folder(folder / "model.onnx")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("config.json", 0),
        ("preprocessor_config.json", 0),
        ("tokenizer.json", 1000),
        ("model.onnx", 100),
        ("model.onnx_data", 0),
        ("model.onnx_data", -1),
    ],
)
def test_one_byte_of_a_file_makes_another_fingerprint(tmp_path: Path, name: str, place: int) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(FIXTURES / "paligemma", copy, ignore=shutil.ignore_patterns("golden*"))
    original, same = describe_folder(FIXTURES / "paligemma"), describe_folder(copy)
    assert same.revision == original.revision, "copies are one model, whatever else lies beside it"
    assert same.fingerprint == original.fingerprint
    content = bytearray((copy / name).read_bytes())
    if name.endswith("config.json"):
        place = content.index(b"\n")  # it must stay one that can be read
        content[place] = ord(" ")
    else:
        content[place] ^= 1
    (copy / name).write_bytes(content)
    changed = describe_folder(copy)
    assert changed.revision != original.revision
    assert changed.fingerprint != original.fingerprint


def test_a_loaded_folder_has_its_content_in_its_fingerprint(tmp_path: Path) -> None:
    shutil.copytree(bundled_folder(find_model("coltiny")), tmp_path / "mine")
    with ColPali.from_pretrained(tmp_path / "mine", lazy_load=True) as one:
        first = one.description.fingerprint
    assert shared_model(tmp_path / "mine").description.fingerprint == first == find_model("coltiny").fingerprint
    release_shared_models()
    config = json.loads((tmp_path / "mine" / "config.json").read_text(encoding="utf-8"))
    write(tmp_path / "mine", "config.json", {**config, "k1": 1.2})
    with ColPali.from_pretrained(tmp_path / "mine", lazy_load=True) as other:
        assert other.description.fingerprint != first
        hinge = config["hinge"]
        assert other.description.best_match == pytest.approx(2.2 * (1 - hinge) / (1 + hinge**2) ** 0.5)


@pytest.mark.parametrize("where", [0, 5, 2**20 - 1, 75 * 2**20, -(2**20), -1])
def test_large_files_count_at_their_ends_and_by_samples(tmp_path: Path, where: int) -> None:
    """Of a sparse file, whose untouched pages cost nothing."""
    size = 150 * 2**20
    path = tmp_path / "weights"
    with path.open("wb") as file:
        file.truncate(size)
    before = content_revision(tmp_path, ["weights"])
    with path.open("r+b") as file:
        # Somewhere in the middle a change of a few MiB is seen by one of the samples.
        file.seek(where, 2 if where < 0 else 0)
        file.write(b"x" * (1 if where != 75 * 2**20 else 5 * 2**20))
    assert path.stat().st_size == size
    assert content_revision(tmp_path, ["weights"]) != before


def test_every_tensor_of_a_large_file_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that lies between the samples of other files, such as a head that alone was trained further."""
    arrays = {f"layer {number}": np.zeros((2**18,), np.float32) for number in range(4)}
    arrays["head"] = np.zeros((2**15,), np.float32)
    path = save(tmp_path / "model.safetensors", arrays)
    monkeypatch.setattr(content, "_WHOLE_FILE", 2**20)
    before = content_revision(tmp_path, [path.name])
    read = sum(map(len, content.samples(path)))
    assert read < path.stat().st_size / 20, "large files are not read in full"
    for name, array in arrays.items():
        save(path, {**arrays, name: array + 1})
        assert content_revision(tmp_path, [path.name]) != before, name
    save(path, arrays)
    assert content_revision(tmp_path, [path.name]) == before
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelLoadError, match="cut off or damaged"):
        content_revision(tmp_path, [path.name])


def test_a_content_revision_depends_on_names_sizes_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12")
    (tmp_path / "b").write_bytes(b"3")
    one = content_revision(tmp_path, ["a", "b"])
    assert re.fullmatch("sha256:[0-9a-f]{12}", one)
    assert content_revision(tmp_path, ["b", "a", "a", "missing"]) == one
    assert content_revision(tmp_path, ["a"]) != one
    (tmp_path / "a").write_bytes(b"1")
    (tmp_path / "b").write_bytes(b"23")
    assert content_revision(tmp_path, ["a", "b"]) != one, "the same bytes, divided otherwise"
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelLoadError, match="cannot read"):
        content_revision(tmp_path, ["folder"])


def test_weights_beside_the_graph_count_under_any_name(folder: Path) -> None:
    write(folder, "config.json", {"model_type": "modernvbert"})
    found = {describe_folder(folder).revision}
    for name in ("model.onnx_data", "model.onnx.data", "model.onnx_data_1"):
        (folder / name).write_bytes(b"weights")
        found.add(describe_folder(folder).revision)
    (folder / "notes.txt").write_text("not of the model")
    found.add(describe_folder(folder).revision)
    assert len(found) == 4
