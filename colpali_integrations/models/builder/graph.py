"""`GraphBuilder`: an ONNX graph made node by node, whose weights stay in the files of a checkpoint.

Sequences are (batch, tokens, width) throughout. Nothing is padded (see `models.family`), so no attention needs a mask
for padding, and ONNX Runtime may take its fastest operators.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from colpali_integrations.models.builder.quantization import Quantization
from colpali_integrations.models.builder.weights import DATA_TYPES, Checkpoint, StoredTensor, Weight
from colpali_integrations.runtime.graph import Graph

__all__ = ["GraphBuilder", "QuantizedWeight"]

# Gelu and Split's num_outputs need 20 and 18; onnxruntime 1.22 knows up to 22. IR 9 goes with opset 20.
_OPSET, _IR = 20, 9
_MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class QuantizedWeight:
    """A weight to quantize.

    Attributes:
        weight: the weight of a linear layer.
        factor: what it is multiplied by before.
    """

    weight: Weight
    factor: float


class GraphBuilder:
    """Nodes and weights of one graph.

    Args:
        checkpoint: where the weights are.
        quantization: how linear layers store their weights; None for float32.

    Attributes:
        stored: the tensors that the graph reads from files as they are, by the name of their initializer.
        quantized: the weights whose quantized parts the graph reads, by the name of the weight.
    """

    def __init__(self, checkpoint: Checkpoint, quantization: Quantization | None = None) -> None:
        self._checkpoint = checkpoint
        self._quantization = quantization
        self._nodes: list[NodeProto] = []
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []
        self._constants: dict[tuple[Any, ...], TensorProto] = {}
        self._floats: dict[str, str] = {}
        self.stored: dict[str, StoredTensor] = {}
        self.quantized: dict[str, QuantizedWeight] = {}

    # -- nodes ----------------------------------------------------------------------------------------------------

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node of the standard operators.

        Args:
            kind: the operator.
            inputs: names of its inputs; "" for an optional one that is absent.
            attributes: its attributes.

        Returns:
            The name of its first output.
        """
        [output] = self._node(kind, inputs, 1, "", attributes)
        return output

    def microsoft(self, kind: str, *inputs: str, n_outputs: int = 1, **attributes: Any) -> str:
        """Add a node of ONNX Runtime's own operators, as `op`; some must have more outputs than their first."""
        return self._node(kind, inputs, n_outputs, _MICROSOFT, attributes)[0]

    def split(self, x: str, parts: int | Sequence[int]) -> list[str]:
        """Split the last axis into a number of equal parts, or into parts of these lengths."""
        if isinstance(parts, int):
            return self._node("Split", [x], parts, "", {"axis": -1, "num_outputs": parts})
        return self._node("Split", [x, self.constant(parts)], len(parts), "", {"axis": -1})

    def constant(self, value: Any, dtype: type[np.generic] = np.int64) -> str:
        """A small constant; equal ones share a name."""
        array = np.asarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        name: str = self._constants[key].name
        return name

    def floats(self, value: Any) -> str:
        """A small constant of float32."""
        return self.constant(value, np.float32)

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declare an input; a string names an axis whose length differs between runs."""
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, value: str, name: str, shape: Sequence[int | str]) -> None:
        """Declare a float32 output."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    # -- weights --------------------------------------------------------------------------------------------------

    def table(self, name: str) -> str:
        """A tensor in the data type in which it is stored; an adapter may replace it, but not change it."""
        return self._stored(name, self._checkpoint.weight(name).base)

    def first_layer(self, *layers: str) -> str:
        """The first layer whose weight the checkpoint holds, else the first name.

        For layers with several names, and for those that share a weight, which is saved once.
        """
        return next((layer for layer in layers if self.holds(f"{layer}.weight")), layers[0])

    def holds(self, name: str) -> bool:
        """Whether the checkpoint has a tensor."""
        return name in self._checkpoint

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape in which a tensor is stored."""
        return self._checkpoint.weight(name).base.shape

    def weight(self, name: str) -> str:
        """A tensor in float32, with the adapter merged. ONNX Runtime computes it once, when it loads the graph."""
        if name not in self._floats:
            weight = self._checkpoint.weight(name)
            value = self._as_float(name, weight.base, weight.matrix_shape)
            if weight.low_rank is not None:
                down, up, scale = weight.low_rank
                parts = (self._as_float(f"{name}.{part.name}", part, part.shape) for part in (up, down))
                change = self.op("Mul", self.op("MatMul", *parts), self.floats(scale))
                value = self.op("Add", value, change)
            self._floats[name] = value
        return self._floats[name]

    def product(self, x: str, name: str, *, factor: float = 1.0, quantize: bool = True) -> str:
        """Multiply by a transposed weight: ``factor * x W^T``.

        Args:
            x: (..., inputs).
            name: the weight, (outputs, inputs).
            factor: folded into the weight.
            quantize: follow the graph's precision; False keeps float32.
        """
        if self._quantization is not None and quantize:
            weight = self._checkpoint.weight(name)
            outputs, inputs = weight.matrix_shape
            self.quantized[name] = QuantizedWeight(weight, factor)
            parts = {part: f"{name}.{part}" for part in self._quantization.parts(outputs, inputs)}
            return self._quantization.product(self, x, parts, outputs, inputs)
        value = self.weight(name)
        if factor != 1.0:
            value = self.op("Mul", value, self.floats(factor))
        # Reads the weight as it is stored, (outputs, inputs), where MatMul would need a transposed copy of it.
        return self.microsoft("FusedMatMul", x, value, transB=1)

    # -- the result -----------------------------------------------------------------------------------------------

    def build(self, tensors: dict[str, StoredTensor]) -> Graph:
        """Make the graph.

        Args:
            tensors: where the tensors of `stored`, and the parts of `quantized`, are; others are left out.
        """
        tensors = {name: tensors[name] for name in self._tensors}
        # ONNX Runtime takes one folder for all files, and refuses links out of it; these files are links' targets.
        folder = Path(os.path.commonpath([tensor.file.parent for tensor in tensors.values()]))
        initializers = [*self._constants.values(), *(_external(name, one, folder) for name, one in tensors.items())]
        graph = helper.make_graph(self._nodes, "built", self._inputs, self._outputs, initializers)
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return Graph(helper.make_model(graph, opset_imports=opsets, ir_version=_IR), folder)

    @property
    def _tensors(self) -> list[str]:
        """The initializers that the graph reads from files."""
        way = self._quantization
        parts = () if way is None else way.parts(1, 1)
        return [*self.stored, *(f"{name}.{part}" for name in self.quantized for part in parts)]

    def _node(
        self, kind: str, inputs: Sequence[str], outputs: int, domain: str, attributes: dict[str, Any]
    ) -> list[str]:
        names = [f"{kind}_{len(self._nodes)}" + (f"_{index}" if index else "") for index in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, domain=domain, **attributes))
        return names

    def _stored(self, name: str, tensor: StoredTensor) -> str:
        self.stored[name] = tensor
        return name

    def _as_float(self, name: str, tensor: StoredTensor, shape: tuple[int, ...]) -> str:
        value = self._stored(name, tensor)
        if shape != tensor.shape:
            value = self.op("Reshape", value, self.constant(shape))
        return value if tensor.dtype == "F32" else self.op("Cast", value, to=TensorProto.FLOAT)


def _external(name: str, tensor: StoredTensor, folder: Path) -> TensorProto:
    """An initializer whose bytes are in a file below `folder`."""
    proto = TensorProto(
        name=name,
        data_type=DATA_TYPES[tensor.dtype].onnx,
        dims=tensor.shape,
        data_location=TensorProto.EXTERNAL,
    )
    place = {"location": tensor.file.relative_to(folder).as_posix(), "offset": tensor.offset, "length": tensor.length}
    for key, value in place.items():
        proto.external_data.add(key=key, value=str(value))
    return proto
