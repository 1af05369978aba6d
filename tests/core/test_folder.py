"""A bare folder tells its family by its files, and says so when it does not."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.core.errors import ModelLoadError, ModelNotFoundError
from colpali_integrations.core.folder import describe_folder
from colpali_integrations.core.hub import BUNDLED
from colpali_integrations.core.registry import find_model

FIXTURES = Path(__file__).parents[1] / "parity" / "fixtures"
COLPALI, MODERN = "Qdrant/colpali-v1.3-fp16", "Qdrant/colmodernvbert"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder to fill, with an ONNX file that nobody reads."""
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
        (BUNDLED / "coltiny", "coltiny", "image.onnx"),
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
    # Nothing is claimed about a checkpoint that nobody looked at.
    assert (described.vidore, described.licence, described.parameters) == ((), "", 0)


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
    with ColPali.from_pretrained(BUNDLED / "coltiny") as folder, ColPali.from_pretrained() as bundled:
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
def test_telltales(folder: Path, config: dict[str, Any], family: str) -> None:
    write(folder, "config.json", config)
    assert describe_folder(folder).family == family


def test_the_processor_may_tell_what_the_config_does_not(folder: Path) -> None:
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
        assert describe_folder(folder).query_prefix == "<bos>Query: "
    assert "does not say which query prompt" in caplog.text


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
    with pytest.raises(ModelLoadError, match=r"cannot read .*config\.json"):
        describe_folder(folder)
    write(folder, "config.json", {"model_type": "bert"})
    with pytest.raises(ModelLoadError, match=r"cannot tell the family.*'bert'.*register_model"):
        describe_folder(folder)
    with pytest.raises(ModelNotFoundError, match="no folder at"):
        describe_folder(folder / "missing")
    with pytest.raises(ModelNotFoundError, match="no folder at"):
        describe_folder(folder / "model.onnx")
