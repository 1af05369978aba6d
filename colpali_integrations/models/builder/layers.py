"""The parts of a transformer as operators of ONNX Runtime.

Each was chosen among alternatives by measured CPU time at the sizes of real models; the reasons stand beside them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from onnx import TensorProto

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.positions import Angles, WindowPlan
from colpali_integrations.runtime.arrays import Feed

__all__ = [
    *("AngleInputs", "PlanInputs", "angle_feed", "angle_inputs", "plan_feed", "plan_inputs"),
    *("activation", "add_rows", "attention", "causal_attention", "embedding", "exact_layer_norm", "first_numbers"),
    *("folded_window_attention", "gated_mlp", "head_norm", "join_heads", "layer_norm", "linear", "multi_vector_head"),
    *("norm_weight", "output_vectors", "place_features", "repeat_heads", "rms_norm", "rotary", "scatter_rows"),
    *("split_heads", "unit_length", "window_attention"),
]

_FLOAT, _INT32 = TensorProto.FLOAT, TensorProto.INT32
# Heads at a time in attention with a bias, as a share of all: the operator holds the scores of all its heads at once.
# A quarter takes the peak of a page of 3,010 tokens from 1,696 to 916 MB, and 1% more time.
_HEAD_PARTS = 4


class AngleInputs(NamedTuple):
    """The graph inputs of `positions.Angles`."""

    cos: str
    sin: str


class PlanInputs(NamedTuple):
    """The graph inputs of a `positions.WindowPlan`."""

    queries: str
    keys: str
    bias: str
    back: str


def angle_inputs(g: GraphBuilder, name: str, n_frequencies: int) -> AngleInputs:
    """Declare the inputs of the angles `name`."""
    return AngleInputs(*(g.input(f"{name}.{part}", np.float32, ["tokens", n_frequencies]) for part in Angles._fields))


def angle_feed(name: str, angles: Angles) -> Feed:
    """The arrays of `angle_inputs`."""
    return {f"{name}.{part}": array for part, array in angles._asdict().items()}


def plan_inputs(g: GraphBuilder, name: str) -> PlanInputs:
    """Declare the inputs of the window plan `name`; one plan may serve many layers."""
    block, keys, blocks = f"{name}_block", f"{name}_keys", f"{name}_blocks"
    return PlanInputs(
        queries=g.input(f"{name}.queries", np.int64, [blocks, block]),
        keys=g.input(f"{name}.keys", np.int64, [blocks, keys]),
        bias=g.input(f"{name}.bias", np.float32, [f"{name}_all", 1, block, keys]),
        back=g.input(f"{name}.back", np.int64, ["tokens"]),
    )


def plan_feed(name: str, plan: WindowPlan) -> Feed:
    """The arrays of `plan_inputs`."""
    return {f"{name}.{part}": array for part, array in plan._asdict().items()}


def embedding(g: GraphBuilder, ids: str, name: str) -> str:
    """Rows of a table in float32. Only the rows that are used are read and converted."""
    return g.op("Cast", g.op("Gather", g.table(name), ids, axis=0), to=_FLOAT)


def linear(g: GraphBuilder, x: str, name: str, *, bias: bool, factor: float = 1.0, quantize: bool = True) -> str:
    """``factor * (x W^T + b)``.

    Args:
        g: the graph.
        x: (..., inputs).
        name: of the layer; its tensors are `name`.weight and `name`.bias.
        bias: whether it has a bias.
        factor: folded into weight and bias.
        quantize: follow the graph's precision; False keeps float32.
    """
    y = g.product(x, f"{name}.weight", factor=factor, quantize=quantize)
    if not bias:
        return y
    shift = g.weight(f"{name}.bias")
    return g.op("Add", y, shift if factor == 1.0 else g.op("Mul", shift, g.floats(factor)))


def rms_norm(g: GraphBuilder, x: str, gamma: str, epsilon: float) -> str:
    """``x / sqrt(mean(x^2) + epsilon) * gamma`` over the last axis.

    Adding the residual in the same operator (SkipSimplifiedLayerNormalization) is slower and less exact.
    """
    return g.op("SimplifiedLayerNormalization", x, gamma, axis=-1, epsilon=epsilon)


def norm_weight(g: GraphBuilder, name: str, *, stored_less_one: bool) -> str:
    """The factors of an RMS norm, `name`.weight; some models store them less 1."""
    gamma = g.weight(f"{name}.weight")
    return g.op("Add", gamma, g.floats(1.0)) if stored_less_one else gamma


def head_norm(
    g: GraphBuilder, x: str, name: str, epsilon: float, *, heads: int, size: int, stored_less_one: bool = False
) -> str:
    """`rms_norm` of each head of (batch, tokens, heads * size), with the `norm_weight` of `name`, (size,)."""
    gamma = norm_weight(g, name, stored_less_one=stored_less_one)
    return join_heads(g, rms_norm(g, split_heads(g, x, heads, size), gamma, epsilon), heads * size)


def unit_length(g: GraphBuilder, x: str, width: int, epsilon: float = 0.0) -> str:
    """``x / sqrt(|x|^2 + epsilon)`` over the last axis of `width`: an RMS norm, times ``width ** -0.5``.

    Zeros stay zeros.
    """
    return rms_norm(g, x, g.floats(np.full(width, width**-0.5)), epsilon / width or 1e-24)


def layer_norm(g: GraphBuilder, x: str, name: str, epsilon: float, *, bias: bool = True) -> str:
    """``(x - mean) / sqrt(variance + epsilon) * weight + bias`` over the last axis."""
    shift = [g.weight(f"{name}.bias")] if bias else []
    return g.op("LayerNormalization", x, g.weight(f"{name}.weight"), *shift, axis=-1, epsilon=epsilon)


def exact_layer_norm(g: GraphBuilder, x: str, name: str, epsilon: float) -> str:
    """`layer_norm` in steps, for inputs that may be nearly constant.

    LayerNormalization is faster, and adds numbers one by one: the variance of thousands of nearly equal ones, such as
    the pixels of blank paper, is lost to rounding (5e-5 of the result in onnxruntime 1.22, 7e-6 in 1.32). ReduceMean
    adds them in a tree.
    """
    axis = g.constant([-1])
    centred = g.op("Sub", x, g.op("ReduceMean", x, axis, keepdims=1))
    variance = g.op("ReduceMean", g.op("Mul", centred, centred), axis, keepdims=1)
    scale = g.op("Sqrt", g.op("Add", variance, g.floats(epsilon)))
    return g.op("Add", g.op("Mul", g.op("Div", centred, scale), g.weight(f"{name}.weight")), g.weight(f"{name}.bias"))


def activation(g: GraphBuilder, x: str, kind: str) -> str:
    """An activation function by its name in transformers.

    Raises:
        ModelLoadError: the name is not known.
    """
    match kind:
        case "relu2":
            y = g.op("Relu", x)
            return g.op("Mul", y, y)
        case "gelu":
            return g.op("Gelu", x)
        case "gelu_pytorch_tanh" | "gelu_new":
            return g.op("Gelu", x, approximate="tanh")
        case "quick_gelu":
            return g.op("Mul", x, g.op("Sigmoid", g.op("Mul", x, g.floats(1.702))))
        case "silu" | "swish":
            return g.op("Mul", x, g.op("Sigmoid", x))
        case _:
            raise ModelLoadError(f"config.json has the activation {kind!r}, which is not supported")


def gated_mlp(g: GraphBuilder, x: str, name: str, kind: str, *, bias: bool) -> str:
    """``down(activation(gate x) * up x)``, with the layers `name`.gate_proj, up_proj and down_proj."""
    gate = activation(g, linear(g, x, f"{name}.gate_proj", bias=bias), kind)
    gated = g.op("Mul", gate, linear(g, x, f"{name}.up_proj", bias=bias))
    return linear(g, gated, f"{name}.down_proj", bias=bias)


def place_features(g: GraphBuilder, ids: str, image_id: int, table: str, *, width: int, factor: float = 1.0) -> str:
    """Embeddings of tokens times a factor, with the rows of the input `features` in the places of image tokens.

    Args:
        g: the graph, which gets the input "features", float32 (n, width): the rows of all image tokens in order.
        ids: int64 (batch, tokens).
        image_id: the image token.
        table: of embeddings, in its stored data type.
        width: of embeddings and features.
        factor: for the embeddings of tokens.

    Returns:
        float32 (batch, tokens, width).
    """
    features = g.input("features", np.float32, ["features", width])
    pictures = g.op("Equal", ids, g.constant(image_id))
    # The image token may lie outside of the table.
    rows = g.op("Gather", table, g.op("Where", pictures, g.constant(0), ids), axis=0)
    rows = g.op("Cast", rows, to=_FLOAT)
    if factor != 1.0:
        rows = g.op("Mul", rows, g.floats(factor))
    return scatter_rows(g, rows, pictures, features)


def multi_vector_head(g: GraphBuilder, x: str, dim: int, *, cuttable: bool = False) -> None:
    """Add the output "embeddings": hidden states projected to vectors of unit length.

    The projection is called otherwise in transformers, colpali-engine and sentence-transformers; some have no bias.

    Args:
        g: the graph.
        x: (batch, tokens, hidden_size).
        dim: length of a vector.
        cuttable: whether the head was trained so that the beginning of its vectors may stand for them.

    Raises:
        ModelLoadError: the head makes vectors of another length, and is not cuttable to `dim`.
    """
    name = g.first_layer("embedding_proj_layer", "custom_text_proj", "linear")
    rows = linear(g, x, name, bias=g.holds(f"{name}.bias"), quantize=False)
    width = g.shape(f"{name}.weight")[0]
    if width != dim:
        if not (cuttable and dim < width):
            may = f"dim={width}" + (" or less, which its training permits" if cuttable else "")
            raise ModelLoadError(
                f"the retrieval head {name} makes vectors of {width} numbers, the model's description says {dim}; "
                f"pass {may}"
            )
        rows = first_numbers(g, rows, dim)
    output_vectors(g, rows, dim)


def output_vectors(g: GraphBuilder, x: str, dim: int) -> None:
    """Add the output "embeddings": (batch, tokens, dim) scaled to unit length."""
    g.output(unit_length(g, x, dim), "embeddings", ["batch", "tokens", dim])


def first_numbers(g: GraphBuilder, x: str, count: int) -> str:
    """The first numbers of each vector of (batch, tokens, width)."""
    return g.op("Slice", x, g.constant([0]), g.constant([count]), g.constant([-1]))


def split_heads(g: GraphBuilder, x: str, *sizes: int) -> str:
    """(batch, tokens, width) to (batch, tokens, *sizes)."""
    return g.op("Reshape", x, g.constant([0, 0, *sizes]))


def join_heads(g: GraphBuilder, x: str, width: int) -> str:
    """(batch, tokens, ...) to (batch, tokens, width)."""
    return g.op("Reshape", x, g.constant([0, 0, width]))


def repeat_heads(g: GraphBuilder, x: str, *, groups: int, times: int, size: int) -> str:
    """(batch, tokens, groups * size) to (batch, tokens, groups * times * size): each group `times` times in a row."""
    if times == 1:
        return x
    expanded = g.op("Expand", split_heads(g, x, groups, 1, size), g.constant([1, 1, 1, times, 1]))
    return join_heads(g, expanded, groups * times * size)


def rotary(g: GraphBuilder, x: str, angles: AngleInputs, positions: str, *, heads: int, rotated: int, size: int) -> str:
    """Rotate each head by the angles of its token: number i with number ``i + rotated / 2``.

    Args:
        g: the graph.
        x: (batch, tokens, heads * size).
        angles: of each token of a sequence.
        positions: int64 (batch, tokens), the row of `angles` of each token.
        heads: number of heads.
        rotated: how many numbers of a head are rotated; the others stay.
        size: numbers of a head.
    """
    partial = {} if rotated == size else {"num_heads": heads, "rotary_embedding_dim": rotated}
    return g.microsoft("RotaryEmbedding", x, positions, angles.cos, angles.sin, **partial)


def attention(g: GraphBuilder, q: str, k: str, v: str, *, heads: int, size: int, bias: str = "") -> str:
    """Softmax attention of (batch, tokens, heads * size) in both directions, scores scaled by ``size ** -0.5``.

    Without a bias it never holds the scores of all pairs of tokens (flash attention).

    Args:
        g: the graph.
        q: queries.
        k: keys.
        v: values.
        heads: number of heads.
        size: numbers of a head.
        bias: float32 (batch, 1, queries, keys), added to the scores; "" for none.
    """
    absent = ("", "", bias) if bias else ()
    return g.microsoft("MultiHeadAttention", q, k, v, *absent, num_heads=heads, scale=float(size**-0.5))


def causal_attention(g: GraphBuilder, q: str, k: str, v: str, *, heads: int, groups: int, size: int) -> str:
    """`attention` of each token to itself and those before it, where `heads // groups` heads share a head of keys.

    GroupQueryAttention leaves out the upper half of the scores, and wants the lengths of a cache that is not there.
    """
    length = g.op("Cast", g.op("Squeeze", g.op("Shape", q, start=1, end=2)), to=_INT32)
    last = g.op("Expand", g.op("Sub", length, g.constant(1, np.int32)), g.op("Shape", q, start=0, end=1))
    sizes = {"num_heads": heads, "kv_num_heads": groups, "scale": float(size**-0.5)}
    return g.microsoft("GroupQueryAttention", q, k, v, "", "", last, length, n_outputs=3, **sizes)


def window_attention(g: GraphBuilder, q: str, k: str, v: str, plan: PlanInputs, *, heads: int, size: int) -> str:
    """`attention` of blocks of queries to the keys that a plan gives each of them, a few heads at a time."""
    blocks = _in_blocks(g, q, k, v, plan)
    parts = _HEAD_PARTS if heads % _HEAD_PARTS == 0 else 1
    if parts == 1:
        y = attention(g, *blocks, heads=heads, size=size, bias=plan.bias)
    else:
        several = zip(*(g.split(x, parts) for x in blocks), strict=True)
        done = [attention(g, *part, heads=heads // parts, size=size, bias=plan.bias) for part in several]
        y = g.op("Concat", *done, axis=-1)
    return _in_order(g, y, q, plan, heads * size)


def folded_window_attention(
    g: GraphBuilder, q: str, k: str, v: str, plan: PlanInputs, *, heads: int, groups: int, size: int
) -> str:
    """`window_attention` where `heads // groups` heads of queries share a head of keys: they become rows of one.

    Keys and values are not repeated, and the products are larger: a third less time than `window_attention` for windows
    of 256. The scores of all heads are held at once, and the bias is larger, so long windows take the other one.

    Args:
        g: the graph.
        q: (batch, tokens, heads * size).
        k: (batch, tokens, groups * size).
        v: as k.
        plan: of a `positions.window_plan` with as many folded rows as heads share keys.
        heads: heads of queries.
        groups: heads of keys.
        size: numbers of a head.
    """
    queries, keys, values = _in_blocks(g, q, k, v, plan)
    shared = [groups, heads // groups, size]
    folded = g.op("Transpose", split_heads(g, queries, *shared), perm=[0, 1, 3, 2, 4])
    folded = g.op("Reshape", folded, g.constant([0, -1, groups * size]))
    y = attention(g, folded, keys, values, heads=groups, size=size, bias=plan.bias)
    shape = g.op("Concat", g.op("Shape", queries, start=0, end=2), g.constant([shared[1], groups, size]), axis=0)
    y = g.op("Transpose", g.op("Reshape", y, shape), perm=[0, 1, 3, 2, 4])
    return _in_order(g, y, q, plan, heads * size)


def _in_blocks(g: GraphBuilder, q: str, k: str, v: str, plan: PlanInputs) -> list[str]:
    """(batch, tokens, width) each to (batch * blocks, length, width)."""
    pairs = ((q, plan.queries), (k, plan.keys), (v, plan.keys))
    return [_block(g, x, index) for x, index in pairs]


def _block(g: GraphBuilder, x: str, index: str) -> str:
    shape = g.op("Concat", g.constant([-1]), g.op("Shape", index, start=1), g.op("Shape", x, start=2), axis=0)
    return g.op("Reshape", g.op("Gather", x, index, axis=1), shape)


def _in_order(g: GraphBuilder, y: str, x: str, plan: PlanInputs, width: int) -> str:
    """Blocks to (batch, tokens, width), in the order of the tokens and with the batch of `x`."""
    batch = g.op("Shape", x, start=0, end=1)
    y = g.op("Reshape", y, g.op("Concat", batch, g.constant([-1, width]), axis=0))
    return g.op("Gather", y, plan.back, axis=1)


def scatter_rows(g: GraphBuilder, x: str, mask: str, rows: str) -> str:
    """Put rows (n, width), in order, where the mask (batch, tokens) of x (batch, tokens, width) is true."""
    return g.op("ScatterND", x, _true_places(g, mask), rows)


def add_rows(g: GraphBuilder, x: str, mask: str, rows: str) -> str:
    """Add rows (n, width), in order, where the mask (batch, tokens) of x (batch, tokens, width) is true.

    ScatterND could add by itself, but not in float16 on a CPU.
    """
    places = _true_places(g, mask)
    return g.op("ScatterND", x, places, g.op("Add", g.op("GatherND", x, places), rows))


def _true_places(g: GraphBuilder, mask: str) -> str:
    return g.op("Transpose", g.op("NonZero", mask), perm=[1, 0])
