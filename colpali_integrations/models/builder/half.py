"""Graphs in float16, for GPUs: the arithmetic of a float32 graph with half the memory.

What ONNX Runtime computes once, when it loads a graph (weights converted from bfloat16, adapters added to them), stays
in float32 and is rounded at its end. The inputs are rounded at the beginning, and the outputs are float32 again.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.weights import StoredTensor

__all__ = ["check_range", "to_half"]

_LARGEST = float(np.finfo(np.float16).max)
# Sign cut off, bfloat16's bits from here on are larger than float16's largest number.
_TOO_LARGE = 0x4780


def check_range(tensors: Iterable[StoredTensor]) -> None:
    """Refuse weights beyond the range of float16, which would become infinite.

    Raises:
        ModelLoadError: a weight has a magnitude above 65,504, or is not finite.
    """
    for tensor in tensors:
        values = tensor.stored()
        if tensor.dtype == "BF16":
            inside = int((values & 0x7FFF).max()) < _TOO_LARGE
        else:
            inside = tensor.dtype != "F32" or bool(np.abs(values).max() <= _LARGEST)
        if not inside:
            raise ModelLoadError(
                f"{tensor.file}: {tensor.name} has numbers beyond the range of float16 ({_LARGEST:,.0f}); pass "
                'precision="float32"'
            )


def to_half(model: ModelProto) -> ModelProto:
    """A float32 graph in float16, with float32 inputs and outputs.

    Args:
        model: the graph, which changes.
    """
    graph = model.graph
    kinds = {tensor.name: tensor.data_type for tensor in graph.initializer}
    kinds |= {value.name: value.type.tensor_type.elem_type for value in graph.input}
    at_run = {value.name for value in graph.input}
    outputs = {value.name for value in graph.output}
    nodes: list[NodeProto] = []
    rounded: set[str] = set()
    for node in graph.node:
        if at_run.isdisjoint(node.input):
            kinds.update(dict.fromkeys(node.output, _kind(node, kinds)))
            nodes.append(node)
            continue
        for position, name in enumerate(node.input):
            if kinds.get(name) == TensorProto.FLOAT:
                if name not in rounded:
                    nodes.append(helper.make_node("Cast", [name], [_half(name)], to=TensorProto.FLOAT16))
                    rounded.add(name)
                node.input[position] = _half(name)
        _cast_to_half(node)
        at_run.update(node.output)
        if node.output[0] in outputs:  # an Identity, which gives the output its name
            node = helper.make_node("Cast", node.input, node.output, to=TensorProto.FLOAT)
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return model


def _half(name: str) -> str:
    return f"{name}.float16"


def _kind(node: NodeProto, kinds: dict[str, int]) -> int:
    """The type of the outputs of a node that is computed when the graph is loaded."""
    to = next((attribute.i for attribute in node.attribute if attribute.name == "to"), None)
    return TensorProto.INT64 if node.op_type == "Shape" else to or kinds[node.input[0]]


def _cast_to_half(node: NodeProto) -> None:
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.i == TensorProto.FLOAT:
            attribute.i = TensorProto.FLOAT16
