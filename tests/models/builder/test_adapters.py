"""LoRA adapters: the merged weight is PEFT's formula, and other kinds are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.adapters import merge_adapter
from colpali_integrations.models.builder.weights import Checkpoint

from .checkpoints import save

RANDOM = np.random.default_rng(0)
BASE, DOWN, UP = (RANDOM.standard_normal(shape, dtype=np.float32) for shape in ((6, 5), (2, 5), (6, 2)))
MODULE = "base_model.model.model.layers.0.q_proj"


def merged(tmp_path: Path, tensors: dict[str, Any] | None = None, **config: Any) -> Checkpoint:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save(base / "model.safetensors", {"model.layers.0.q_proj.weight": BASE, "custom_text_proj.weight": BASE})
    halves = {f"{MODULE}.lora_A.weight": DOWN, f"{MODULE}.lora_B.weight": UP}
    save(adapter / "adapter_model.safetensors", halves if tensors is None else tensors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, **config}
    (adapter / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    checkpoint = Checkpoint(base)
    merge_adapter(checkpoint, adapter)
    return checkpoint


@pytest.mark.parametrize(
    ("config", "scale"),
    [
        ({}, 3.0),
        ({"use_rslora": True}, 6 / 2**0.5),
        ({"alpha_pattern": {"q_proj": 1}}, 0.5),
        ({"alpha_pattern": {"other": 1}}, 3.0),
    ],
)
def test_the_merged_weight(tmp_path: Path, config: dict[str, Any], scale: float) -> None:
    weight = merged(tmp_path, **config).weight("layers.0.q_proj.weight")
    np.testing.assert_allclose(weight.array(), BASE + scale * (UP @ DOWN), rtol=1e-6, atol=1e-6)


def test_modules_that_were_trained_whole_replace_the_base_s(tmp_path: Path) -> None:
    tensors = {"base_model.model.custom_text_proj.modules_to_save.weight": BASE * 2}
    np.testing.assert_array_equal(merged(tmp_path, tensors).weight("custom_text_proj.weight").array(), BASE * 2)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"peft_type": "IA3"}, "type 'IA3'"),
        ({"use_dora": True}, "use_dora=True"),
        ({"bias": "all"}, "bias='all'"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
    ],
)
def test_other_kinds_are_refused(tmp_path: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        merged(tmp_path, **config)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{MODULE}.lora_A.weight": DOWN}, "one half of the adapter of 'layers.0.q_proj'"),
        ({f"{MODULE}.lora_embedding_A": DOWN}, "kind of adapter that is not supported"),
        ({f"{MODULE}x.lora_A.weight": DOWN, f"{MODULE}x.lora_B.weight": UP}, "adapts 'layers.0.q_projx.weight'"),
        ({f"{MODULE}.lora_A.weight": DOWN[:, :3], f"{MODULE}.lora_B.weight": UP}, r"shape \(6, 3\).*\(6, 5\)"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(tmp_path: Path, tensors: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelLoadError, match=message):
        merged(tmp_path, tensors)


def test_a_pickled_adapter_is_refused(tmp_path: Path) -> None:
    merged(tmp_path)
    adapter = tmp_path / "adapter"
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    with pytest.raises(ModelLoadError, match="a pickle"):
        merge_adapter(Checkpoint(tmp_path / "base"), adapter)
