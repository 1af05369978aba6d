"""Linear attention by a gated delta rule, of which three layers in four of Qwen3.5 consist.

Each head keeps a matrix instead of the scores of all pairs of tokens. A token scales it by its decay, moves what the
matrix holds under the token's key towards its value, and reads it by its query:

    S = exp(g) S + b k (v - exp(g) S^T k)^T        y = S^T q / sqrt(size of a key)

Queries, keys and values come from a causal convolution of each channel over the last few tokens. (Gated DeltaNet,
arXiv:2412.06464; transformers 5.24 `Qwen3_5GatedDeltaNet`.)
"""

from __future__ import annotations

from dataclasses import dataclass

from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    activation,
    join_heads,
    linear,
    repeat_heads,
    rms_norm,
    split_heads,
    unit_length,
)

__all__ = ["DeltaConfig", "gated_delta_net"]

# Of transformers' `l2norm`: x / sqrt(sum(x^2) + epsilon).
_LENGTH_EPSILON = 1e-6
# Tokens per step of the operator's chunked algorithm. It moves the rounding only, within 1e-7.
_CHUNK = 64


@dataclass(frozen=True, kw_only=True)
class DeltaConfig:
    """The sizes of the layers with linear attention, as a text_config names them.

    Each head of keys serves `linear_num_value_heads / linear_num_key_heads` heads of values in a row.
    """

    linear_conv_kernel_dim: int = 4
    linear_key_head_dim: int = 128
    linear_value_head_dim: int = 128
    linear_num_key_heads: int = 16
    linear_num_value_heads: int = 32

    @property
    def key_width(self) -> int:
        """Numbers of all heads of keys."""
        return self.linear_num_key_heads * self.linear_key_head_dim

    @property
    def value_width(self) -> int:
        """Numbers of all heads of values."""
        return self.linear_num_value_heads * self.linear_value_head_dim


def gated_delta_net(g: GraphBuilder, x: str, name: str, config: DeltaConfig, *, hidden_act: str, epsilon: float) -> str:
    """One layer of linear attention.

    Args:
        g: the graph.
        x: (batch, tokens, hidden_size), normalized.
        name: of the layer; its tensors are `name`.in_proj_qkv.weight and so on.
        config: the sizes.
        hidden_act: the activation behind the convolution.
        epsilon: of the norm of the result.

    Returns:
        (batch, tokens, hidden_size).
    """
    heads, tall = config.linear_num_value_heads, config.linear_value_head_dim
    mixed = activation(g, _convolution(g, linear(g, x, f"{name}.in_proj_qkv", bias=False), name, config), hidden_act)
    q, k, v = g.split(mixed, (config.key_width, config.key_width, config.value_width))
    decay, rate = _gates(g, x, name)
    sizes = {"q_num_heads": heads, "kv_num_heads": heads, "scale": float(config.linear_key_head_dim**-0.5)}
    inputs = (_keys(g, q, config), _keys(g, k, config), v, "", decay, rate)
    y = g.microsoft("LinearAttention", *inputs, n_outputs=2, update_rule="gated_delta", chunk_size=_CHUNK, **sizes)
    y = rms_norm(g, split_heads(g, y, heads, tall), g.weight(f"{name}.norm.weight"), epsilon)
    gate = activation(g, linear(g, x, f"{name}.in_proj_z", bias=False), "silu")
    return linear(g, g.op("Mul", join_heads(g, y, heads * tall), gate), f"{name}.out_proj", bias=False)


def _convolution(g: GraphBuilder, x: str, name: str, config: DeltaConfig) -> str:
    """Each channel over its own last `linear_conv_kernel_dim` values.

    Between two Transposes: half the time of CausalConvWithState, and a fifth of that with channels last.
    """
    taps, width = config.linear_conv_kernel_dim, 2 * config.key_width + config.value_width
    kernel = g.op("Reshape", g.weight(f"{name}.conv1d.weight"), g.constant([width, 1, taps]))
    x = g.op("Transpose", x, perm=[0, 2, 1])
    x = g.op("Conv", x, kernel, group=width, kernel_shape=[taps], pads=[taps - 1, 0])
    return g.op("Transpose", x, perm=[0, 2, 1])


def _keys(g: GraphBuilder, x: str, config: DeltaConfig) -> str:
    """Heads of unit length, each as often as heads of values share it."""
    heads, size = config.linear_num_key_heads, config.linear_key_head_dim
    x = join_heads(g, unit_length(g, split_heads(g, x, heads, size), size, _LENGTH_EPSILON), heads * size)
    return repeat_heads(g, x, groups=heads, times=config.linear_num_value_heads // heads, size=size)


def _gates(g: GraphBuilder, x: str, name: str) -> tuple[str, str]:
    """The logarithm of the decay and the rate of the update, (batch, tokens, heads of values) each.

    Their layers keep float32 at every precision: they are a thousandth of the weights, and a decay acts on all tokens
    that follow.
    """
    step = linear(g, x, f"{name}.in_proj_a", bias=False, quantize=False)
    step = g.op("Softplus", g.op("Add", step, g.weight(f"{name}.dt_bias")))
    decay = g.op("Mul", step, g.op("Neg", g.op("Exp", g.weight(f"{name}.A_log"))))
    return decay, g.op("Sigmoid", linear(g, x, f"{name}.in_proj_b", bias=False, quantize=False))
