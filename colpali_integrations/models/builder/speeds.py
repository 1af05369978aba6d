"""How fast the matrix products of each precision are on this machine."""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from colpali_integrations.models.builder.files import WEIGHTS_FILE
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.quantization import quantization_of
from colpali_integrations.models.builder.quantized import write_tensors
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.models.builder.writing import Source, write_file
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.graph import Graph
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.session import ModelSessions

__all__ = ["LayerSpeed", "precision_speeds"]

# The product of 512 tokens with a layer of 1024 inputs and outputs: 1 GFLOP, as in a small model.
_TOKENS, _WIDTH = 512, 1024
_ROUNDS = 9
_PRECISIONS = ("float32", "int8", "int8-dynamic")  # int4 is unproven, and float16 is for GPUs


class LayerSpeed(NamedTuple):
    """The matrix product of a layer at one precision.

    Attributes:
        ratio: how many times as fast as in float32.
        error: relative error of the product of the largest numbers. Processors without instructions for products of
            bytes add some of them up in 16 bits, which overflows there.
    """

    ratio: float
    error: float


def precision_speeds() -> dict[str, LayerSpeed]:
    """Measure the matrix product of a layer on the CPU, at each precision.

    The shortest of nine runs each, which take turns, on all cores of this process; together less than a second. A whole
    model gains less, because its attention computes in float32 at every precision.

    Example:
        >>> precision_speeds()["float32"]
        LayerSpeed(ratio=1.0, error=0.0)
    """
    random = np.random.default_rng(0)
    x, weight = (random.standard_normal((rows, _WIDTH), np.float32) for rows in (_TOKENS, _WIDTH))
    weight[0] = 1
    largest = np.ones((1, _WIDTH), np.float32)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        write_file(folder / WEIGHTS_FILE, [Source({"weight": ("F32", weight.shape)}, lambda: {"weight": weight})])
        layers = {precision: _Layer(folder, precision).sessions() for precision in _PRECISIONS}
        rounds = [{precision: _seconds(layer, x) for precision, layer in layers.items()} for _ in range(_ROUNDS)]
        products = {precision: layer.queries({"x": largest})["product"] for precision, layer in layers.items()}
        for layer in layers.values():
            layer.close()
    least = {precision: min(one[precision] for one in rounds) for precision in _PRECISIONS}
    return {
        precision: LayerSpeed(least["float32"] / seconds, abs(float(products[precision][0, 0]) / _WIDTH - 1))
        for precision, seconds in least.items()
    }


@dataclass(frozen=True)
class _Layer:
    """The graph of one matrix product, a `runtime.arrays.BuiltGraph`."""

    folder: Path
    precision: str

    @property
    def name(self) -> str:
        return f"a layer in {self.precision}"

    def read(self, cache_dir: str | os.PathLike[str] | None = None) -> Graph:
        quantization = quantization_of(self.precision)
        g = GraphBuilder(Checkpoint(self.folder), quantization)
        product = g.product(g.input("x", np.float32, ["tokens", _WIDTH]), "weight")
        g.output(product, "product", ["tokens", _WIDTH])
        return g.build(write_tensors(self.folder / f"{self.precision}.safetensors", [g], quantization))

    def sessions(self) -> ModelSessions:
        sessions = ModelSessions(self, SessionConfig(providers=("CPUExecutionProvider",)))
        sessions.load()
        return sessions


def _seconds(layer: ModelSessions, x: Float32) -> float:
    start = time.perf_counter()
    layer.queries({"x": x})
    return time.perf_counter() - start
