"""Headers, shards, names and data types of safetensors checkpoints; and what is refused, by name."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.weights import Checkpoint, canonical_name, read_header

from .checkpoints import bfloat16, save

VALUES = np.arange(-6, 6, dtype=np.float32).reshape(3, 4)


@pytest.mark.parametrize("values", [VALUES, VALUES.astype(np.float16), bfloat16(VALUES)], ids=["f32", "f16", "bf16"])
def test_floats_of_every_width_are_exact(tmp_path: Path, values: np.ndarray) -> None:
    [tensor] = read_header(save(tmp_path / "one.safetensors", {"a": values})).values()
    assert tensor.shape == (3, 4)
    assert tensor.array().dtype == np.float32
    np.testing.assert_array_equal(tensor.array(), VALUES)


def test_integers_are_no_weights(tmp_path: Path) -> None:
    [tensor] = read_header(save(tmp_path / "one.safetensors", {"a": np.arange(3)})).values()
    with pytest.raises(ModelLoadError, match="a holds I64, expected one of F32"):
        tensor.array()


@pytest.mark.parametrize(
    "name",
    [
        "vlm.language_model.model.layers.3.mlp.up_proj.weight",  # transformers 4.51
        "vlm.model.language_model.layers.3.mlp.up_proj.weight",  # 4.52
        "language_model.layers.3.mlp.up_proj.weight",
        "model.layers.3.mlp.up_proj.weight",  # the language model's class alone
        "base_model.model.model.language_model.model.layers.3.mlp.up_proj.weight",  # PEFT
    ],
)
def test_names_of_all_versions_are_one(name: str) -> None:
    assert canonical_name(name, "language_model") == "language_model.layers.3.mlp.up_proj.weight"


def test_a_wrapper_s_name_inside_a_layer_is_kept() -> None:
    assert canonical_name("vision_tower.vision_model.encoder.layers.0.model.weight") == (
        "vision_tower.encoder.layers.0.model.weight"
    )


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    save(tmp_path / "model-1.safetensors", {"model.a": VALUES})
    save(tmp_path / "model-2.safetensors", {"model.b": VALUES + 1})
    index(tmp_path, {"model.a": "model-1.safetensors", "model.b": "model-2.safetensors"})
    checkpoint = Checkpoint(tmp_path)
    assert sorted(checkpoint) == ["a", "b"]
    np.testing.assert_array_equal(checkpoint["b"].array(), VALUES + 1)


def index(folder: Path, names: object) -> None:
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}), encoding="utf-8")


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    index(tmp_path, {"a": "model-1.safetensors"})
    with pytest.raises(ModelLoadError, match=r"lacks model-1\.safetensors; download the rest"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["../other.safetensors", "/etc/passwd", 5])
def test_an_index_that_leaves_the_folder_or_is_damaged_is_refused(tmp_path: Path, name: object) -> None:
    index(tmp_path, {"a": name})
    with pytest.raises(ModelLoadError, match=r"outside its folder|cannot read the names"):
        Checkpoint(tmp_path)


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelLoadError, match=r"pytorch_model\.bin, a pickle"):
        Checkpoint(tmp_path)


def test_files_linked_from_a_cache_are_followed(tmp_path: Path) -> None:
    blob = save(tmp_path / "blob", {"a": VALUES})
    snapshot = tmp_path / "snapshots" / "main"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").symlink_to(blob)
    assert Checkpoint(snapshot)["a"].file == blob.resolve()


@pytest.mark.parametrize("length", [0, 4, 20, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, length: int) -> None:
    path = save(tmp_path / "model.safetensors", {"a": VALUES})
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelLoadError, match="cut off"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]},
        {"dtype": "F32", "shape": [2]},
        {"dtype": "F32", "shape": [-1, -2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [float("inf")], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [0, float("inf")]},
        "F32",
    ],
)
def test_a_damaged_entry_is_refused(tmp_path: Path, entry: object) -> None:
    text = json.dumps({"a": entry}).encode()
    (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(8))
    with pytest.raises(ModelLoadError, match=r"damaged|not a safetensors file"):
        Checkpoint(tmp_path)


def test_other_data_types_are_refused_with_the_way_out(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"a": VALUES.astype(np.int8)}, int8="F8_E4M3")
    with pytest.raises(ModelLoadError, match=r"a has data type F8_E4M3.*precision="):
        Checkpoint(tmp_path)


def test_two_names_of_one_tensor_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"model.a": VALUES, "vlm.a": VALUES})
    with pytest.raises(ModelLoadError, match=r"model\.a and vlm\.a are names of the same tensor"):
        Checkpoint(tmp_path)


def test_an_empty_tensor_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"a": VALUES[:0]})
    with pytest.raises(ModelLoadError, match="a is empty"):
        Checkpoint(tmp_path)


def test_missing_and_unread_tensors_are_named(tmp_path: Path) -> None:
    save(tmp_path / "model.safetensors", {"a": VALUES, "lm_head.weight": VALUES, "model.extra.b": VALUES})
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(ModelLoadError, match="lacks the tensor 'c'"):
        checkpoint.weight("c")
    checkpoint.weight("a")
    with pytest.raises(ModelLoadError, match=r"nothing reads model\.extra\.b, .*allow_unused=\['extra\.b'\]"):
        checkpoint.check_all_read(["lm_head"])
    checkpoint.check_all_read(["lm_head", "extra"])
    with pytest.raises(ModelLoadError, match=r"lm_head\.weight"):
        checkpoint.check_all_read(["extra", "lm"])
