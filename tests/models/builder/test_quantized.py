"""Quantized weights: their rounding, and a cache that is made once, appears whole, and changes with its contents."""

from __future__ import annotations

import logging
import multiprocessing
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import linear
from colpali_integrations.models.builder.quantization import Quantization, quantization_of
from colpali_integrations.models.builder.quantized import CACHE_VARIABLE, quantized_tensors
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.runtime.arrays import Float32

from .checkpoints import read, save

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.standard_normal((48, 400), dtype=np.float32)
BIAS = RANDOM.standard_normal(48, dtype=np.float32)
EACH = pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int4"])


def way(precision: str) -> Quantization:
    found = quantization_of(precision)
    assert found is not None
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    save(checkpoint / "model.safetensors", {"layer.weight": WEIGHT, "layer.bias": BIAS})
    return checkpoint


def layer(folder: Path, precision: str, *, factor: float = 1.0) -> GraphBuilder:
    g = GraphBuilder(Checkpoint(folder), quantization_of(precision))
    x = g.input("x", np.float32, ["batch", "tokens", 400])
    g.output(linear(g, x, "layer", bias=True, factor=factor), "y", ["batch", "tokens", 48])
    return g


def made(folder: Path, precision: str, cache: Path, **more: float) -> Path:
    [tensor, *_] = quantized_tensors([layer(folder, precision, **more)], way(precision), cache).values()
    return tensor.file


def run(g: GraphBuilder, precision: str, cache: Path, x: Float32) -> Float32:
    graph = g.build(quantized_tensors([g], way(precision), cache))
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.weights))
    session = ort.InferenceSession(graph.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    y: Float32 = session.run(None, {"x": x})[0]
    return y


@EACH
@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_a_quantized_layer_is_close_to_the_exact_one(
    folder: Path, tmp_path: Path, precision: str, factor: float
) -> None:
    x = RANDOM.standard_normal((2, 3, 400), dtype=np.float32)
    y = run(layer(folder, precision, factor=factor), precision, tmp_path, x)
    exact = factor * (x @ WEIGHT.T + BIAS)
    bound = 0.3 if precision == "int4" else 0.03
    assert 0 < np.abs(y - exact).max() < bound * factor * np.abs(exact / factor).max()


@EACH
def test_a_token_is_rounded_by_itself(folder: Path, tmp_path: Path, precision: str) -> None:
    x = RANDOM.standard_normal((2, 3, 400), dtype=np.float32)
    alone = run(layer(folder, precision), precision, tmp_path, x[:1, :2])
    x[0, 2], x[1, 0] = x[0, 2] * 1e4, 0  # trained models have tokens as large as this, and padding
    y = run(layer(folder, precision), precision, tmp_path, x)
    np.testing.assert_array_equal(y[:1, :2], alone)
    np.testing.assert_array_equal(y[1, 0], BIAS)


@EACH
def test_levels_times_scales_are_the_weight_to_half_a_step(precision: str) -> None:
    parts = way(precision).quantize(WEIGHT)
    shapes = {name: (array.dtype.name, array.shape) for name, array in parts.items()}
    kinds = {"F32": "float32", "U8": "uint8", "I8": "int8"}
    assert shapes == {name: (kinds[kind], shape) for name, (kind, shape) in way(precision).parts(48, 400).items()}
    if precision != "int8-dynamic":
        levels, block, middle = parts["levels"], 256, 128
        if precision == "int4":
            levels, block, middle = np.stack([levels & 15, levels >> 4], axis=-1).reshape(48, -1, 32), 32, 8
        values = ((levels.astype(np.float32) - middle) * parts["scales"][..., None]).reshape(48, -1)[:, :400]
        bound = np.repeat(parts["scales"], block, axis=1)[:, :400] / 2
    else:
        values = parts["levels"].T * parts["scales"][:, None]
        bound = np.broadcast_to(parts["scales"][:, None] / 2, (48, 400))
    assert (np.abs(values - WEIGHT) <= bound * 1.001).all()


@EACH
def test_a_row_of_zeros_stays_zero(precision: str) -> None:
    parts = way(precision).quantize(np.zeros((2, 300), np.float32))
    assert np.isfinite(parts["scales"]).all()
    assert not parts["scales"].any()


@EACH
def test_the_file_holds_all_that_the_graph_reads_and_is_found_again(
    folder: Path, tmp_path: Path, precision: str
) -> None:
    path = made(folder, precision, tmp_path)
    assert path.parent == tmp_path / "colpali-integrations"
    assert sorted(read(path)) == ["layer.bias", "layer.weight.levels", "layer.weight.scales"]
    np.testing.assert_array_equal(read(path)["layer.bias"], BIAS)
    before = path.stat().st_mtime_ns
    assert made(folder, precision, tmp_path) == path
    assert path.stat().st_mtime_ns == before
    assert [one.suffix for one in sorted(path.parent.iterdir())] == [".safetensors", ".lock"]


def test_each_tensor_is_aligned_to_its_type(folder: Path, tmp_path: Path) -> None:
    tensors = quantized_tensors([layer(folder, "int8")], way("int8"), tmp_path)
    assert all(tensor.offset % 4 == 0 for tensor in tensors.values() if tensor.dtype == "F32")


def test_other_contents_settings_and_precisions_have_other_files(folder: Path, tmp_path: Path) -> None:
    paths = {made(folder, "int8", tmp_path), made(folder, "int8-dynamic", tmp_path)}
    paths.add(made(folder, "int8", tmp_path, factor=0.5))
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    assert made(copy, "int8", tmp_path) in paths  # equal contents
    other = WEIGHT.copy()
    other[0, 0] += 1
    save(copy / "model.safetensors", {"layer.weight": other, "layer.bias": BIAS})
    paths.add(made(copy, "int8", tmp_path))  # the same header
    assert len(paths) == 4


def test_a_file_of_the_hub_s_cache_is_known_by_its_name(folder: Path, tmp_path: Path) -> None:
    blob = tmp_path / ("a" * 64)
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    one = made(folder, "int8", tmp_path)
    other = tmp_path / ("b" * 64)
    shutil.copy(blob, other)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(other)
    assert made(folder, "int8", tmp_path) != one


def test_a_complete_cache_may_be_read_only(folder: Path, tmp_path: Path) -> None:
    path = made(folder, "int8", tmp_path)
    Path(f"{path}.lock").unlink()
    path.parent.chmod(0o500)
    try:
        assert made(folder, "int8", tmp_path) == path
        assert not Path(f"{path}.lock").exists()
    finally:
        path.parent.chmod(0o700)


def test_a_folder_that_cannot_be_written_gives_a_warning_and_a_temporary_one(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("")
    with caplog.at_level(logging.WARNING):
        path = made(folder, "int8", occupied)
    assert path.is_file()
    assert "made anew" in caplog.text
    assert occupied not in path.parents


def test_the_environment_names_the_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "named"))
    [tensor, *_] = quantized_tensors([layer(folder, "int8")], way("int8"), None).values()
    assert tensor.file.parent == tmp_path / "named"


def _make(folder: Path, cache: Path) -> int:
    return made(folder, "int8", cache).stat().st_ino


def test_processes_that_start_together_make_one_file(folder: Path, tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        nodes = pool.starmap(_make, [(folder, tmp_path)] * 6)
    assert len(set(nodes)) == 1
    assert len(list((tmp_path / "colpali-integrations").glob("*.safetensors*"))) == 2  # and the lock


def test_a_process_that_is_killed_leaves_no_half_file(folder: Path, tmp_path: Path) -> None:
    """It dies between the levels of a weight and its rename; the next process makes the file."""
    code = """
        import os
        from pathlib import Path
        import numpy as np
        from tests.models.builder.test_quantized import layer, way
        from colpali_integrations.models.builder.quantized import quantized_tensors

        class Dying(type(way("int8"))):
            def quantize(self, weight):
                os._exit(9)

        quantized_tensors([layer(Path(FOLDER), "int8")], Dying("int8", 8, 256), CACHE)
    """
    code = textwrap.dedent(code).replace("FOLDER", repr(str(folder))).replace("CACHE", repr(str(tmp_path)))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert not list((tmp_path / "colpali-integrations").glob("*.safetensors"))
    assert made(folder, "int8", tmp_path).is_file()


def test_a_full_disk_is_an_error_that_names_the_way_out(folder: Path, tmp_path: Path) -> None:
    class Full(type(way("int8"))):  # type: ignore[misc]
        def quantize(self, weight: np.ndarray) -> dict[str, np.ndarray]:
            raise OSError(28, os.strerror(28))

    with pytest.raises(ModelLoadError, match=rf"cannot write .*No space left.*{CACHE_VARIABLE}"):
        quantized_tensors([layer(folder, "int8")], Full("int8", 8, 256), tmp_path)
    assert not list((tmp_path / "colpali-integrations").glob("*.part"))
