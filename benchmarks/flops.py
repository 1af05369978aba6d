"""Floating-point operations of a graph, counted from its nodes and the shapes of its inputs, without reading weights.

A multiplication and an addition are two operations. Matrix products, convolutions and attention count, with the causal
half where attention is causal; norms, activations and rotations, below 2% of the work, do not. Padding inside a window
of attention counts, because it is computed.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from colpali_integrations.runtime.graph import plain_session

Shape: TypeAlias = Sequence[int]
Array: TypeAlias = np.ndarray[Any, Any]
PRODUCTS = ("MatMul", "FusedMatMul", "Gemm")
_OF_SHAPES = frozenset({"Slice", "Concat", "Gather", "Squeeze", "Unsqueeze", "Mul", "Div", "Sub", "Add"})


def count(model: ModelProto, inputs: Mapping[str, Shape]) -> Counter[str]:
    """Operations by operator.

    Args:
        model: a graph whose large weights are external.
        inputs: the shape of each input of the graph.

    Raises:
        ValueError: the shape of a counted node follows from values, so that it cannot be known without a run.
    """
    shapes = _shapes(model, inputs)
    total: Counter[str] = Counter()
    at_run = {value.name for value in model.graph.input}
    for node in model.graph.node:
        if at_run.isdisjoint(node.input):  # computed when the graph is loaded, such as the sum of weight and adapter
            continue
        at_run.update(node.output)
        if node.op_type in _COUNTED:
            total[node.op_type] += _COUNTED[node.op_type](node, [shapes.get(name, ()) for name in node.input])
    return total


def _shapes(model: ModelProto, inputs: Mapping[str, Shape]) -> dict[str, Shape]:
    """The shapes of all values: onnxruntime infers them, again after each round that finds constant values."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer if not _external(tensor)}
    while True:
        shapes = _inferred(model, inputs, values)
        found = _constants(model.graph.node, shapes, values)
        if found.keys() <= values.keys():
            return shapes
        values |= found


def _inferred(model: ModelProto, inputs: Mapping[str, Shape], values: Mapping[str, Array]) -> dict[str, Shape]:
    """Infer the shapes, with inputs in the place of the weights and initializers in that of the known values."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    given = {name: (kind, inputs[name]) for name, kind in kinds.items()}
    weights = [tensor for tensor in model.graph.initializer if _external(tensor)]
    given |= {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in weights}
    nodes = [node for node in model.graph.node if node.output[0] not in values]
    graph = onnx.helper.make_graph(
        nodes,
        "shapes",
        [onnx.helper.make_tensor_value_info(name, *rest) for name, rest in given.items()],
        [ValueInfoProto(name=name) for node in nodes for name in node.output if name],
        [numpy_helper.from_array(value, name) for name, value in values.items()],
    )
    bare = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    shapes: dict[str, Shape] = {name: shape for name, (_, shape) in given.items()}
    shapes |= {name: value.shape for name, value in values.items()}
    return shapes | {value.name: tuple(value.shape) for value in plain_session(bare).get_outputs()}


def _constants(
    nodes: Iterable[NodeProto], shapes: Mapping[str, Shape], values: Mapping[str, Array]
) -> dict[str, Array]:
    """The values that follow from shapes alone."""
    known = dict(values)
    for node in nodes:
        if node.op_type == "Shape" and _is_known(shapes.get(node.input[0], (None,))):
            part = {attribute.name: attribute.i for attribute in node.attribute}
            known[node.output[0]] = np.array(shapes[node.input[0]], np.int64)[part.get("start", 0) : part.get("end")]
        elif node.op_type in _OF_SHAPES and all(name in known for name in node.input if name):
            results: Any = ReferenceEvaluator(node).run(None, {name: known[name] for name in node.input})
            known[node.output[0]] = results[0]
    return known


def _is_known(shape: Sequence[object]) -> bool:
    return all(isinstance(size, int) for size in shape)


def _external(tensor: TensorProto) -> bool:
    return bool(tensor.data_location == TensorProto.EXTERNAL)


def _product(node: NodeProto, shapes: Sequence[Shape]) -> int:
    x, weight = shapes[:2]
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 2 * _size(node, x) * weight[-2 if transposed else -1]


def _convolution(node: NodeProto, shapes: Sequence[Shape]) -> int:
    """Of a convolution whose stride is its kernel, as in patch embeddings, or of one that keeps the length."""
    x, weight = shapes[:2]
    strides: tuple[int, ...] = next((tuple(one.ints) for one in node.attribute if one.name == "strides"), (1,))
    places = _size(node, x[2:]) // math.prod(strides)
    return 2 * x[0] * places * _size(node, weight)


def _attention(node: NodeProto, shapes: Sequence[Shape]) -> int:
    """Two products of queries (batch, tokens, width) with keys (batch, tokens, ...)."""
    queries, keys = shapes[:2]
    causal = node.op_type == "GroupQueryAttention"
    return 4 * _size(node, queries) * keys[1] // (2 if causal else 1)


def _linear_attention(node: NodeProto, shapes: Sequence[Shape]) -> int:
    """The delta rule: per token and head three products with a state of (size of a key, size of a value)."""
    queries, _, values = shapes[:3]
    heads: int = next(one.i for one in node.attribute if one.name == "q_num_heads")
    return 6 * _size(node, values) * queries[-1] // heads


def _size(node: NodeProto, shape: Shape) -> int:
    if not shape or not _is_known(shape):
        raise ValueError(f"{node.op_type} {node.output[0]}: shape {shape} follows from values")
    return math.prod(shape)


_COUNTED: dict[str, Callable[[NodeProto, Sequence[Shape]], int]] = {
    **dict.fromkeys(PRODUCTS, _product),
    "Conv": _convolution,
    "MultiHeadAttention": _attention,
    "GroupQueryAttention": _attention,
    "LinearAttention": _linear_attention,
}
