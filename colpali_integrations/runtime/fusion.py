"""Operators of an export that are one operator of onnxruntime, and faster as that.

torch writes GELU by the tanh formula as nine operators, each a pass over the widest tensors of a model, and
onnxruntime's own optimizer does not recognise them: an eighth of a page's time on a ColPali of a quarter of the real
width. Results differ by the rounding of the last digit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import numpy as np
from onnx import ModelProto, NodeProto, helper, numpy_helper

__all__ = ["fuse_gelu"]

_DOMAIN = "com.microsoft"
_SLOPE, _CUBIC = math.sqrt(2 / math.pi), 0.044715  # 0.5 x (1 + tanh(slope (x + cubic x^3))): arXiv:1606.08415
_TOLERANCE = 1e-3  # of constants, which may be in half precision


def fuse_gelu(model: ModelProto) -> int:
    """Replace each GELU by the tanh formula in a graph by the operator FastGelu of onnxruntime.

    Args:
        model: the graph, which changes.

    Returns:
        The number of places.
    """
    graph = _Graph(model)
    parts = [found for node in model.graph.node if node.op_type == "Tanh" and (found := graph.gelu(node)) is not None]
    last = {id(part[-1]): part for part in parts}
    gone = {id(node) for part in parts for node in part[:-1]}
    nodes = []
    for node in model.graph.node:
        if id(node) in last:
            x = graph.cubed(last[id(node)][2])
            node = helper.make_node("FastGelu", [x or ""], node.output, node.name, domain=_DOMAIN)
        if id(node) not in gone:
            nodes.append(node)
    if parts:
        kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del model.graph.node[:]
        model.graph.node.extend(kept)
        if _DOMAIN not in {entry.domain for entry in model.opset_import}:
            model.opset_import.append(helper.make_opsetid(_DOMAIN, 1))
    return len(parts)


class _Graph:
    """A graph whose operators are asked for their inputs."""

    def __init__(self, model: ModelProto) -> None:
        graph = model.graph
        self._makers = {output: node for node in graph.node for output in node.output}
        self._readers: dict[str, NodeProto] = {name: node for node in graph.node for name in node.input}
        self._uses = Counter(name for node in graph.node for name in node.input)
        self._uses.update(value.name for value in graph.output)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}

    def gelu(self, tanh: NodeProto) -> list[NodeProto] | None:
        """The nodes of a GELU around its Tanh, the last one last; None for another use of Tanh."""
        scaled = self._makers.get(tanh.input[0])
        inner = self._beside(scaled, "Mul", _SLOPE)
        total = self._makers.get(inner or "")
        if scaled is None or total is None or total.op_type != "Add":
            return None
        for x, cube in _both(total):
            weighted = self._makers.get(cube)
            power = self._makers.get(self._beside(weighted, "Mul", _CUBIC) or "")
            if weighted is None or power is None or self.cubed(power) != x:
                continue
            nodes = [scaled, total, power, weighted, tanh, *self._square(power)]
            ends = self._end(tanh, x)
            if ends and all(self._uses[node.output[0]] == 1 for node in [*nodes, *ends[:-1]]):
                return [*nodes, *ends]
        return None

    def cubed(self, node: NodeProto) -> str | None:
        """What a node makes the third power of; None for another node."""
        if node.op_type == "Pow":
            return node.input[0] if self._is(node.input[1], 3.0) else None
        if node.op_type == "Mul":
            for x, square in _both(node):
                maker = self._makers.get(square)
                if maker is not None and maker.op_type == "Mul" and set(maker.input) == {x}:
                    return x
        return None

    def _square(self, power: NodeProto) -> list[NodeProto]:
        made = [self._makers[name] for name in power.input if name in self._makers]
        return (
            []
            if power.op_type == "Pow"
            else [node for node in made if node.op_type == "Mul" and node.input[0] == node.input[1]][:1]
        )

    def _end(self, tanh: NodeProto, x: str) -> list[NodeProto]:
        """The nodes that add 1 to a Tanh, and multiply by x and one half."""
        plus = self._readers.get(tanh.output[0])
        if self._beside(plus, "Add", 1.0) != tanh.output[0] or plus is None:
            return []
        times = self._readers.get(plus.output[0])
        if times is None or times.op_type != "Mul" or x not in times.input:
            return []
        half = self._readers.get(times.output[0])
        return [plus, times, half] if half is not None and self._beside(half, "Mul", 0.5) == times.output[0] else []

    def _beside(self, node: NodeProto | None, kind: str, constant: float) -> str | None:
        """The input of an operator beside a constant."""
        if node is None or node.op_type != kind:
            return None
        return next((other for other, name in _both(node) if self._is(name, constant)), None)

    def _is(self, name: str, number: float) -> bool:
        """Whether a tensor is a constant of one number."""
        tensor, maker = self._tensors.get(name), self._makers.get(name)
        if tensor is None and maker is not None and maker.op_type == "Constant":
            tensor = next((one.t for one in maker.attribute if one.name == "value"), None)
        if tensor is None or math.prod(tensor.dims) != 1 or tensor.external_data:
            return False
        return math.isclose(float(np.ravel(numpy_helper.to_array(tensor))[0]), number, rel_tol=_TOLERANCE)


def _both(node: NodeProto) -> Iterator[tuple[str, str]]:
    """The two inputs of an operator, in both orders."""
    first, second = node.input
    yield first, second
    yield second, first
