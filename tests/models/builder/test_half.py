"""Graphs in float16, run by ONNX Runtime's CPU provider, which converts where it has no operator for float16."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, ModelLoadError
from colpali_integrations.models.builder.checkpoint_graph import CheckpointGraph
from colpali_integrations.models.builder.half import check_range
from colpali_integrations.models.builder.weights import read_header
from colpali_integrations.models.exporting import export_model
from colpali_integrations.models.loading import find_files
from colpali_integrations.models.options import ModelOptions
from tests.parity.test_checkpoints import compose

from .checkpoints import bfloat16, save

FIXTURES = Path(__file__).parents[2] / "parity" / "fixtures"
PAGE = np.random.default_rng(0).integers(0, 256, (300, 200, 3), dtype=np.uint8)
ON_GPU = ModelOptions(providers=["CUDAExecutionProvider"])


@pytest.mark.parametrize("name", ["neomme", "colqwen2", "colqwen2_5", "paligemma", "colmodernvbert", "colsmol"])
def test_vectors_are_close_to_those_in_float32(name: str, tmp_path: Path) -> None:
    folder, options = FIXTURES / name, {}
    if name == "colqwen2_5":
        options = {"base": FIXTURES / "colqwen2_5-base"}
    elif not (folder / "config.json").exists() or list(folder.glob("*.onnx")):
        folder = compose(name, tmp_path / name)
    found = []
    for precision in ("float32", "float16"):
        with ColPali.from_pretrained(folder, precision=precision, threads=1, **options) as model:  # type: ignore[arg-type]
            found.append(np.concatenate([model.embed_query("what is the revenue"), *model.embed_images(PAGE)]))
    single, half = found
    assert half.dtype == np.float32
    cosines = (single * half).sum(axis=1)
    assert 0.999 < cosines.mean() < 1
    assert cosines.min() > 0.97
    np.testing.assert_allclose(np.linalg.norm(half, axis=1), 1, atol=2e-3)


def test_weights_stay_as_they_are_stored_and_only_the_arithmetic_is_in_float16() -> None:
    graph = find_files(FIXTURES / "neomme", ModelOptions(precision="float16")).family().graphs
    assert isinstance(graph, CheckpointGraph)
    built = graph.read().model.graph
    kinds = {tensor.data_type for tensor in built.initializer if tensor.external_data}
    assert kinds == {16}  # bfloat16, of the file
    assert {value.type.tensor_type.elem_type for value in built.output} == {1}


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_weights_beyond_float16_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    for value, inside in ((65504.0, True), (1e5, False), (-1e5, False), (np.inf, False), (np.nan, False)):
        array = np.array([[1.0, value]], np.float32)
        if kind == "bfloat16" and inside:
            array[0, 1] = 65280.0  # the largest of bfloat16 below
        path = save(tmp_path / "a.safetensors", {"layer.weight": bfloat16(array) if kind == "bfloat16" else array})
        tensors = read_header(path).values()
        if inside:
            check_range(tensors)
        else:
            with pytest.raises(ModelLoadError, match=r'layer\.weight .*beyond the range of float16.*"float32"'):
                check_range(tensors)


def test_float16_is_the_default_of_checkpoints_on_gpus(tmp_path: Path) -> None:
    def precision(**options: Any) -> str | None:
        return find_files(FIXTURES / "neomme", ModelOptions(**options)).description.precision

    cuda = ["CUDAExecutionProvider"]
    assert precision(providers=cuda) == precision(device_ids=[0, 1]) == "float16"
    assert precision(providers=cuda, precision="float32") == "float32"
    assert precision(providers=cuda, precision="int8") == "int8"
    assert precision() is precision(providers=["CPUExecutionProvider"]) is None
    with pytest.raises(ConfigurationError, match="'int8-dynamic' is for CPUs; on a GPU use 'float16'"):
        precision(providers=cuda, precision="int8-dynamic")
    assert find_files("coltiny", ON_GPU).description.precision is None
    assert find_files(FIXTURES / "paligemma", ON_GPU).description.precision is None  # an ONNX export
    export_model(FIXTURES / "neomme", tmp_path / "out")
    assert find_files(tmp_path / "out", ON_GPU).description.precision is None
