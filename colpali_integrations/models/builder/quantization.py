"""Precisions: weights of 8 or 4 bits, and the ONNX Runtime operators that multiply by them.

| precision | weights | inputs of a product | operator |
|---|---|---|---|
| float32 | as stored, exactly | float32 | FusedMatMul |
| int8 | 8 bits, a scale per 256 of them | rounded to 8 bits per block | MatMulNBits |
| int8-dynamic | 8 bits, a scale per output | rounded to 8 bits per token | MatMulIntegerToFloat |
| int4 | 4 bits, a scale per 32 of them | rounded to 8 bits per block | MatMulNBits |
| float16 | as stored, rounded | float16 | FusedMatMul; for GPUs, see `half` |
"""

from __future__ import annotations

from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.runtime.arrays import Float32

__all__ = ["PRECISIONS", "Precision", "Quantization", "quantization_of"]

Precision: TypeAlias = Literal["float32", "float16", "int8", "int8-dynamic", "int4"]
"""How a built graph computes its matrix products."""

PRECISIONS: tuple[str, ...] = get_args(Precision)


class Nodes(Protocol):
    """Adds nodes and constants to a graph, as `graph.GraphBuilder`."""

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of the standard operators; the name of its output."""

    def microsoft(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of ONNX Runtime's own operators; the name of its output."""

    def constant(self, value: Any, dtype: type[np.generic] = np.int64) -> str:
        """A small constant."""

    def floats(self, value: Any) -> str:
        """A small constant of float32."""


class Quantization(Protocol):
    """A way to quantize the weight of a linear layer.

    Attributes:
        name: the precision that selects it.
    """

    name: str

    def parts(self, outputs: int, inputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """The tensors that replace a weight (outputs, inputs): suffix to safetensors' data type and shape."""

    def quantize(self, weight: Float32) -> dict[str, NDArray[Any]]:
        """The values of `parts` for a weight, float32 (outputs, inputs)."""

    def product(self, g: Nodes, x: str, parts: dict[str, str], outputs: int, inputs: int) -> str:
        """Multiply `x` (..., inputs) by the transposed weight.

        Args:
            g: adds the nodes.
            x: the name of the factor.
            parts: the initializers' names of `parts`, by suffix.
            outputs: outputs of the layer.
            inputs: inputs of the layer.
        """


class Blocks:
    """Blocks of weights along the inputs share a scale; a level q stands for ``(q - middle) * scale``.

    Args:
        name: as of `Quantization`.
        bits: of a level: 8, or 4 with two levels per byte, the first in the lower half.
        block: weights per scale.
    """

    # MatMulNBits' accuracy level at which it rounds its inputs to 8 bits, to multiply integers.
    _LEVEL = 4

    def __init__(self, name: str, bits: int, block: int) -> None:
        self.name = name
        self._bits, self._block = bits, block
        self._middle = 2 ** (bits - 1)

    def parts(self, outputs: int, inputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """As `Quantization.parts`; the last block is padded."""
        blocks = -(-inputs // self._block)
        return {
            "scales": ("F32", (outputs, blocks)),
            "levels": ("U8", (outputs, blocks, self._block * self._bits // 8)),
        }

    def quantize(self, weight: Float32) -> dict[str, NDArray[Any]]:
        """As `Quantization.quantize`."""
        outputs, inputs = weight.shape
        blocks = -(-inputs // self._block)
        padded = np.zeros((outputs, blocks * self._block), np.float32)
        padded[:, :inputs] = weight
        grouped = padded.reshape(outputs, blocks, self._block)
        scales = np.abs(grouped).max(axis=-1) / (self._middle - 1)
        steps = np.rint(grouped / np.where(scales > 0, scales, 1)[..., None])
        levels = (steps + self._middle).astype(np.uint8)
        if self._bits == 4:
            levels = levels[..., ::2] | levels[..., 1::2] << 4
        return {"scales": scales, "levels": levels}

    def product(self, g: Nodes, x: str, parts: dict[str, str], outputs: int, inputs: int) -> str:
        """As `Quantization.product`."""
        sizes = {
            "N": outputs,
            "K": inputs,
            "bits": self._bits,
            "block_size": self._block,
            "accuracy_level": self._LEVEL,
        }
        return g.microsoft("MatMulNBits", x, parts["levels"], parts["scales"], **sizes)


class RowInt8:
    """The weights of an output share a scale, and so do the numbers of a token. For CPUs only.

    With one scale per tensor (DynamicQuantizeMatMul), a single large token would coarsen all others, and a page's
    vectors would depend on its batch. Levels of inputs are unsigned, with 128 for zero: ONNX Runtime's products of
    signed inputs take ten times as long on processors without instructions for them.
    """

    name = "int8-dynamic"
    _TINY = np.finfo(np.float32).tiny

    def parts(self, outputs: int, inputs: int) -> dict[str, tuple[str, tuple[int, ...]]]:
        """As `Quantization.parts`; the levels are transposed."""
        return {"scales": ("F32", (outputs,)), "levels": ("I8", (inputs, outputs))}

    def quantize(self, weight: Float32) -> dict[str, NDArray[Any]]:
        """As `Quantization.quantize`."""
        scales = np.abs(weight).max(axis=1) / 127
        steps = np.rint(weight / np.where(scales > 0, scales, 1)[:, None])
        return {"scales": scales, "levels": np.ascontiguousarray(steps.astype(np.int8).T)}

    def product(self, g: Nodes, x: str, parts: dict[str, str], outputs: int, inputs: int) -> str:
        """As `Quantization.product`. ONNX Runtime merges the rounding of an `x` that several layers read."""
        one, zero = g.floats(1), g.constant(128, np.uint8)
        rows = g.op("Reshape", x, g.constant([-1, inputs]))  # QuantizeLinear takes scales along one axis
        scale = self._scales(g, rows)
        zeros = g.op("Expand", zero, g.op("Shape", scale))
        levels = g.op("QuantizeLinear", rows, scale, zeros, axis=0)
        product = g.microsoft("MatMulIntegerToFloat", levels, parts["levels"], one, parts["scales"], zero)
        product = g.op("Mul", product, g.op("Unsqueeze", scale, g.constant([1])))
        return g.op("Reshape", product, g.op("Concat", g.op("Shape", x, end=-1), g.constant([outputs]), axis=0))

    def _scales(self, g: Nodes, rows: str) -> str:
        """The largest size of each row, over 127; not 0, so that a token of zeros stays one."""
        last = g.constant([-1])
        least = g.op("Neg", g.op("ReduceMin", rows, last, keepdims=0))
        largest = g.op("Max", g.op("ReduceMax", rows, last, keepdims=0), least, g.floats(self._TINY * 127))
        return g.op("Div", largest, g.floats(127))


def quantization_of(precision: str) -> Quantization | None:
    """The quantization of a precision; None for float32 and float16."""
    # With blocks of 128 a product takes 17% more CPU time. Its results are 7% closer to float32 with random weights,
    # and a third closer with trained ones (vectors of SmolLM2-135M: 1 - cosine is 0.0012 instead of 0.0019).
    ways: tuple[Quantization, ...] = (Blocks("int8", 8, 256), RowInt8(), Blocks("int4", 4, 32))
    return next((way for way in ways if way.name == precision), None)
