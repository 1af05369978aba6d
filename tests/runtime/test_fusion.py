"""GELU by the tanh formula becomes one operator, and nothing else does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, parser

from colpali_integrations.runtime.fusion import fuse_gelu
from colpali_integrations.runtime.graph import read_graph

FIXTURES = Path(__file__).parent.parent / "parity" / "fixtures"
# As torch exports it, with the value of each constant in place.
EXPORTED = """
    square = Mul(x, x)
    cube = Mul(x, square)
    weighted = Mul({cubic}, cube)
    total = Add(x, weighted)
    scaled = Mul({slope}, total)
    tanh = Tanh(scaled)
    plus = Add({one}, tanh)
    times = Mul(x, plus)
    y = Mul({half}, times)
"""
POWER = """
    cube = Pow(x, {three})
    weighted = Mul(cube, {cubic})
    total = Add(weighted, x)
    scaled = Mul(total, {slope})
    tanh = Tanh(scaled)
    plus = Add(tanh, {one})
    times = Mul(plus, x)
    y = Mul(times, {half})
"""


def model(body: str, outputs: str = "float[n] z", **constants: float) -> ModelProto:
    values = {"cubic": 0.044715, "slope": 0.7978845608, "one": 1.0, "half": 0.5, "three": 3.0} | constants
    made = "\n".join(f"{name} = Constant <value = float {{{value}}}> ()" for name, value in values.items())
    body = body.format(**{name: name for name in values})
    text = f"""
        <ir_version: 8, opset_import: ["": 17]>
        gelu (float[n] a, float[n] b) => ({outputs}) {{
            {made}
            x = Add(a, b)
            {body}
            z = Sub(y, b)
        }}
    """
    return parser.parse_model(text)


def run(graph: ModelProto, values: Any) -> list[Any]:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"a": values, "b": values[::-1].copy()}))


def kinds(graph: ModelProto) -> list[str]:
    return [node.op_type for node in graph.graph.node if node.op_type != "Constant"]


@pytest.mark.parametrize("body", [EXPORTED, POWER], ids=["products", "a power"])
def test_gelu_is_one_operator_of_equal_results(body: str) -> None:
    graph, values = model(body), np.linspace(-9, 9, 4001, dtype=np.float32)
    [before] = run(graph, values)
    assert fuse_gelu(graph) == 1
    assert kinds(graph) == ["Add", "FastGelu", "Sub"]
    onnx.checker.check_model(graph)
    [after] = run(graph, values)
    np.testing.assert_allclose(after, before, atol=2e-6)


@pytest.mark.parametrize(
    ("change", "constants", "outputs"),
    [
        (("", ""), {"cubic": 0.05}, "float[n] z"),
        (("", ""), {"slope": 0.8}, "float[n] z"),
        (("", ""), {"one": 2.0}, "float[n] z"),
        (("", ""), {"half": 1.0}, "float[n] z"),
        (("cube = Mul(x, square)", "cube = Mul(a, square)"), {}, "float[n] z"),
        (("square = Mul(x, x)", "square = Mul(x, a)"), {}, "float[n] z"),
        (("times = Mul(x, plus)", "times = Mul(a, plus)"), {}, "float[n] z"),
        (("total = Add(x, weighted)", "total = Add(a, weighted)"), {}, "float[n] z"),
        (("scaled = Mul({slope}, total)", "scaled = Add({slope}, total)"), {}, "float[n] z"),
        (("y = Mul({half}, times)", "y = Add({half}, times)"), {}, "float[n] z"),
        (("y = Mul({half}, times)", "y = Mul(square, times)"), {}, "float[n] z"),
        (("y = Mul({half}, times)", "other = Mul({half}, times)\n y = Add(other, cube)"), {}, "float[n] z"),
        (("", ""), {}, "float[n] z, float[n] tanh"),
        (("", ""), {}, "float[n] z, float[n] square"),
        (("", ""), {}, "float[n] z, float[n] times"),
    ],
)
def test_what_is_no_gelu_or_is_read_elsewhere_stays(
    change: tuple[str, str], constants: dict[str, float], outputs: str
) -> None:
    assert change[0] in EXPORTED
    body = EXPORTED.replace(*change) if change[0] else EXPORTED
    graph = model(body, outputs, **constants)
    before = graph.SerializeToString()
    assert fuse_gelu(graph) == 0
    assert graph.SerializeToString() == before


def test_a_power_other_than_the_third_stays() -> None:
    assert fuse_gelu(model(POWER, three=2.0)) == 0


def test_two_gelus_in_a_row() -> None:
    second = EXPORTED.replace("y = ", "w = ").replace("x", "y")
    for name in ("square", "cube", "weighted", "total", "scaled", "tanh", "plus", "times"):
        second = second.replace(name, f"{name}2")
    graph, values = model(EXPORTED + second, "float[n] w"), np.linspace(-3, 3, 101, dtype=np.float32)
    before = run(graph, values)
    assert fuse_gelu(graph) == 2
    np.testing.assert_allclose(run(graph, values)[0], before[0], atol=2e-6)


@pytest.mark.parametrize("file", ["paligemma/model.onnx", "paligemma-fp16/model.onnx"])
def test_the_exports_of_colpali_have_gelus(file: str) -> None:
    graph = read_graph(FIXTURES / file).model
    tanhs = kinds(graph).count("Tanh")
    assert fuse_gelu(graph) == tanhs > 1
    assert "Tanh" not in kinds(graph)
