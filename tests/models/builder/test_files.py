"""Adapters are told from whole checkpoints by what their files hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import adapter_file, check_adapter_file, is_adapter, weight_names

from .checkpoints import save

WHOLE, LORA = "model.layers.0.q_proj.weight", "base_model.model.model.layers.0.q_proj.lora_A.weight"
UNMERGED = "base_model.model.model.layers.0.q_proj.base_layer.weight"


def fill(folder: Path, **files: list[str]) -> Path:
    """Write safetensors files with tensors of these names, beside an adapter_config.json."""
    (folder / "adapter_config.json").write_text("{}")
    for file, names in files.items():
        save(folder / f"{file}.safetensors", {name: np.zeros((1, 1), np.float32) for name in names})
    return folder


@pytest.mark.parametrize(
    ("files", "file"),
    [
        ({"adapter_model": [LORA]}, "adapter_model.safetensors"),
        ({"model": [LORA]}, "model.safetensors"),
        ({"model": [WHOLE], "adapter_model": [LORA]}, "adapter_model.safetensors"),
    ],
    ids=["PEFT's", "a trainer's", "beside the base"],
)
def test_adapters(tmp_path: Path, files: dict[str, list[str]], file: str) -> None:
    folder = fill(tmp_path, **files)
    assert is_adapter(folder)
    assert adapter_file(folder) == file


@pytest.mark.parametrize("names", [[WHOLE], [WHOLE, LORA, UNMERGED]], ids=["merged", "unmerged"])
def test_a_whole_checkpoint_beside_a_configuration_left_over_is_no_adapter(tmp_path: Path, names: list[str]) -> None:
    assert not is_adapter(fill(tmp_path, model=names))
    (tmp_path / "model.safetensors").rename(tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "model.safetensors.index.json").write_text("{}")
    assert not is_adapter(tmp_path)


def test_no_configuration_no_adapter(tmp_path: Path) -> None:
    (fill(tmp_path, adapter_model=[LORA]) / "adapter_config.json").unlink()
    assert not is_adapter(tmp_path)


def test_a_damaged_file_is_left_to_the_reader_of_the_weights(tmp_path: Path) -> None:
    (fill(tmp_path) / "model.safetensors").write_bytes(b"no header")
    assert not is_adapter(tmp_path)


def test_an_adapter_without_tensors_is_named(tmp_path: Path) -> None:
    assert is_adapter(fill(tmp_path))
    with pytest.raises(ModelLoadError, match=r"lacks adapter_model\.safetensors"):
        check_adapter_file(tmp_path)
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match="a pickle"):
        adapter_file(tmp_path)


def test_a_shard_whose_name_no_file_can_have_is_missing(tmp_path: Path) -> None:
    index = {"weight_map": {WHOLE: "0" * 300}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelLoadError, match="lacks 000"):
        weight_names(tmp_path)
