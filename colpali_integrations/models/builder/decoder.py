"""The language models of ColPali, ColSmol and ColQwen: Gemma, Llama and Qwen, with grouped heads and a gated MLP.

(transformers `GemmaModel`, `LlamaModel`, `Qwen2VLTextModel`, `Qwen3VLTextModel`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    AngleInputs,
    angle_feed,
    angle_inputs,
    attention,
    causal_attention,
    gated_mlp,
    head_norm,
    linear,
    norm_weight,
    repeat_heads,
    rms_norm,
    rotary,
)
from colpali_integrations.models.builder.positions import Angles, angles, frequencies
from colpali_integrations.runtime.arrays import Feed

__all__ = ["DecoderConfig", "Mixer", "decoder", "decoder_layers", "token_feed", "token_inputs", "turned_feed"]

Mixer: TypeAlias = Callable[[str, str, int], str]
"""What lets the tokens of a layer see each other: from (batch, tokens, width), the layer's name and its number."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A text_config; the defaults are those of PaliGemma's Gemma.

    Attributes:
        attention_bias: whether all projections of attention have a bias.
        qkv_bias: whether those of queries, keys and values have one.
        qk_norm: whether every head of queries and keys is normalised before it is rotated, as from Qwen3 on.
    """

    vocab_size: int = 257216
    hidden_size: int = 2048
    num_hidden_layers: int = 18
    num_attention_heads: int = 8
    num_key_value_heads: int = 1
    head_dim: int = 256
    hidden_act: str = "gelu_pytorch_tanh"
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10_000.0
    attention_bias: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False

    @classmethod
    def read(cls, config: Mapping[str, Any], **defaults: Any) -> DecoderConfig:
        """Read a text_config.

        Args:
            config: the text_config.
            defaults: of another model than Gemma.

        Raises:
            ModelLoadError: a value is invalid or not supported.
        """
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        if (rule := rope.get("rope_type", rope.get("type", "default"))) not in (None, "default"):
            raise ModelLoadError(f"config.json: rope_type {rule!r} is not supported, only 'default'")
        theta = {} if rope.get("rope_theta") is None else {"rope_theta": float(rope["rope_theta"])}
        return cls(**{**defaults, **read_fields(cls, config, "text_config"), **theta})


def token_inputs(g: GraphBuilder, head_dim: int) -> tuple[str, str, AngleInputs]:
    """Declare ids, positions and angles."""
    ids, positions = (g.input(name, np.int64, ["batch", "tokens"]) for name in ("input_ids", "position_ids"))
    return ids, positions, angle_inputs(g, "angles", head_dim // 2)


def token_feed(ids: NDArray[np.int64], *, first: int, theta: float, head_dim: int) -> Feed:
    """The arrays of `token_inputs` for sequences that count their tokens.

    Args:
        ids: int64 (batch, n_tokens).
        first: the number of the first token.
        theta: base of the rotary frequencies.
        head_dim: numbers of a head.
    """
    places = first + np.arange(ids.shape[1])[:, None]
    return turned_feed(ids, angles(places, frequencies(theta, head_dim)))


def turned_feed(ids: NDArray[np.int64], turned: Angles) -> Feed:
    """The arrays of `token_inputs` for sequences whose tokens have these angles."""
    positions = np.broadcast_to(np.arange(ids.shape[1]), ids.shape)
    return {"input_ids": ids, "position_ids": positions, **angle_feed("angles", turned)}


def decoder(
    g: GraphBuilder,
    x: str,
    name: str,
    config: DecoderConfig,
    positions: str,
    turn: AngleInputs,
    *,
    causal: bool,
    stored_less_one: bool,
    added: Sequence[Callable[[str], str]] = (),
    last_norm: bool = True,
) -> str:
    """The layers and the last norm.

    Args:
        g: the graph.
        x: (batch, tokens, hidden_size), the embeddings.
        name: of the model; its layers are `name`.layers.0 and so on.
        config: the configuration.
        positions: int64 (batch, tokens).
        turn: the angles.
        causal: whether a token sees only those before it.
        stored_less_one: whether norms store their weights less 1, as Gemma's do.
        added: what adds features to the result of each of the first layers, as DeepStack does.
        last_norm: whether the result is normalised.
    """

    def mix(y: str, layer: str, number: int) -> str:
        return _attention(g, y, f"{layer}.self_attn", config, positions, turn, causal=causal)

    return decoder_layers(g, x, name, config, mix, stored_less_one=stored_less_one, added=added, last_norm=last_norm)


def decoder_layers(
    g: GraphBuilder,
    x: str,
    name: str,
    config: DecoderConfig,
    mix: Mixer,
    *,
    stored_less_one: bool,
    added: Sequence[Callable[[str], str]] = (),
    last_norm: bool = True,
) -> str:
    """`decoder` with any kind of attention.

    Args:
        g: the graph.
        x: as for `decoder`.
        name: as for `decoder`.
        config: as for `decoder`.
        mix: what a layer does between its two norms; all else of a layer acts on tokens alone.
        stored_less_one: as for `decoder`.
        added: as for `decoder`.
        last_norm: as for `decoder`.
    """

    def norm(x: str, which: str) -> str:
        gamma = norm_weight(g, f"{name}.{which}", stored_less_one=stored_less_one)
        return rms_norm(g, x, gamma, config.rms_norm_eps)

    for i in range(config.num_hidden_layers):
        layer = f"{name}.layers.{i}"
        x = g.op("Add", x, mix(norm(x, f"layers.{i}.input_layernorm"), layer, i))
        y = norm(x, f"layers.{i}.post_attention_layernorm")
        x = g.op("Add", x, gated_mlp(g, y, f"{layer}.mlp", config.hidden_act, bias=False))
        if i < len(added):
            x = added[i](x)
    return norm(x, "norm") if last_norm else x


def _attention(
    g: GraphBuilder, x: str, name: str, config: DecoderConfig, positions: str, turn: AngleInputs, *, causal: bool
) -> str:
    heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    bias = config.attention_bias or config.qkv_bias
    q, k, v = (linear(g, x, f"{name}.{part}_proj", bias=bias) for part in "qkv")
    if config.qk_norm:
        q = head_norm(g, q, f"{name}.q_norm", config.rms_norm_eps, heads=heads, size=size)
        k = head_norm(g, k, f"{name}.k_norm", config.rms_norm_eps, heads=groups, size=size)
    q, k = (rotary(g, part, turn, positions, heads=n, rotated=size, size=size) for part, n in ((q, heads), (k, groups)))
    if causal:
        y = causal_attention(g, q, k, v, heads=heads, groups=groups, size=size)
    else:
        k, v = (repeat_heads(g, part, groups=groups, times=heads // groups, size=size) for part in (k, v))
        y = attention(g, q, k, v, heads=heads, size=size)
    return linear(g, y, f"{name}.o_proj", bias=config.attention_bias)
