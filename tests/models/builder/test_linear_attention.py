"""Linear attention against its recurrence in numpy, token by token."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.linear_attention import DeltaConfig, gated_delta_net
from colpali_integrations.models.builder.weights import Checkpoint
from tests.models.linear_attention import NEEDS_LINEAR_ATTENTION

from .checkpoints import save

WIDTH, EPSILON = 8, 1e-6
Weights = dict[str, NDArray[np.float32]]


def weights(config: DeltaConfig) -> Weights:
    random = np.random.default_rng(5)
    mixed, heads = 2 * config.key_width + config.value_width, config.linear_num_value_heads
    shapes = {
        **{"in_proj_qkv": (mixed, WIDTH), "in_proj_z": (config.value_width, WIDTH)},
        **{"in_proj_a": (heads, WIDTH), "in_proj_b": (heads, WIDTH), "out_proj": (WIDTH, config.value_width)},
        **{"conv1d": (mixed, 1, config.linear_conv_kernel_dim), "norm": (config.linear_value_head_dim,)},
    }
    made = {f"{name}.weight": random.normal(size=shape) / 2 for name, shape in shapes.items()}
    made |= {"A_log": random.normal(size=heads), "dt_bias": random.normal(size=heads) - 2}
    return {name: values.astype(np.float32) for name, values in made.items()}


def recurrence(x: NDArray[np.float64], config: DeltaConfig, w: Weights) -> NDArray[np.float64]:
    """arXiv:2412.06464, equation 10, in float64, for one sequence (tokens, WIDTH)."""

    def silu(values: NDArray[np.float64]) -> NDArray[np.float64]:
        gates: NDArray[np.float64] = 1 / (1 + np.exp(-values))
        return values * gates

    taps, keys = config.linear_conv_kernel_dim, config.linear_num_key_heads
    mixed = x @ w["in_proj_qkv.weight"].T
    padded = np.concatenate([np.zeros((taps - 1, mixed.shape[1])), mixed])
    parts = [padded[tap : tap + len(x)] * w["conv1d.weight"][:, 0, tap] for tap in range(taps)]
    mixed = silu(np.sum(parts, axis=0))
    q, k, v = np.split(mixed, [config.key_width, 2 * config.key_width], axis=1)
    q, k = (part.reshape(len(x), keys, -1) for part in (q, k))
    q, k = (part / np.sqrt((part**2).sum(-1, keepdims=True) + 1e-6) for part in (q, k))
    q, k = (part.repeat(config.linear_num_value_heads // keys, axis=1) for part in (q, k))
    v = v.reshape(len(x), config.linear_num_value_heads, -1)
    decay = np.exp(-np.exp(w["A_log"]) * np.log1p(np.exp(x @ w["in_proj_a.weight"].T + w["dt_bias"])))
    rate = 1 / (1 + np.exp(-(x @ w["in_proj_b.weight"].T)))
    state, read = np.zeros((*q.shape[1:], v.shape[2])), []
    for t in range(len(x)):
        state *= decay[t][:, None, None]
        missing = v[t] - np.einsum("hkv,hk->hv", state, k[t])
        state += np.einsum("hk,hv->hkv", k[t], rate[t][:, None] * missing)
        read.append(np.einsum("hkv,hk->hv", state, q[t]) * config.linear_key_head_dim**-0.5)
    y = np.array(read)
    y = y / np.sqrt((y**2).mean(-1, keepdims=True) + EPSILON) * w["norm.weight"]
    result: NDArray[np.float64] = (y.reshape(len(x), -1) * silu(x @ w["in_proj_z.weight"].T)) @ w["out_proj.weight"].T
    return result


@NEEDS_LINEAR_ATTENTION
@pytest.mark.parametrize("tokens", [1, 3, 64, 65, 200])
@pytest.mark.parametrize(("keys", "values", "wide", "tall"), [(2, 2, 16, 16), (1, 3, 16, 8)])
def test_a_layer_is_its_recurrence(tmp_path: Path, tokens: int, keys: int, values: int, wide: int, tall: int) -> None:
    config = DeltaConfig(
        linear_num_key_heads=keys,
        linear_num_value_heads=values,
        linear_key_head_dim=wide,
        linear_value_head_dim=tall,
        linear_conv_kernel_dim=3,
    )
    stored = weights(config)
    save(tmp_path / "model.safetensors", {f"net.{name}": array for name, array in stored.items()})
    g = GraphBuilder(Checkpoint(tmp_path))
    x = g.input("x", np.float32, ["batch", "tokens", WIDTH])
    g.output(gated_delta_net(g, x, "net", config, hidden_act="silu", epsilon=EPSILON), "y", ["batch", "tokens", WIDTH])
    graph = g.build(g.stored)
    path = tmp_path / "graph.onnx"
    path.write_bytes(graph.model.SerializeToString())
    batch = np.random.default_rng(tokens).normal(size=(2, tokens, WIDTH)).astype(np.float32)
    [found] = onnxruntime.InferenceSession(path).run(None, {"x": batch})
    for item, vectors in zip(batch, found, strict=True):
        np.testing.assert_allclose(vectors, recurrence(item.astype(np.float64), config, stored), rtol=0, atol=2e-5)
