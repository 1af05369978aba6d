"""Qwen3.5 with a retrieval head: ColQwen3.5 and its kin, and pplx-embed-v2-late. Two graphs, as `qwen_vl` builds them.

The tower is that of Qwen3-VL without DeepStack. Most layers of the text graph have linear attention
(`linear_attention`). The others attend to all tokens, or in a causal model to those before: with norms of queries and
keys, angles for a part of each head, and a gate for each number of the result. Norms store their weights less 1.
(transformers 5.24 `Qwen3_5Model`; colpali-engine 0.3.18 `ColQwen3_5`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import part_of, read_fields
from colpali_integrations.models.builder.decoder import DecoderConfig, decoder_layers
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    AngleInputs,
    attention,
    causal_attention,
    head_norm,
    join_heads,
    linear,
    repeat_heads,
    rotary,
    split_heads,
)
from colpali_integrations.models.builder.linear_attention import DeltaConfig, gated_delta_net
from colpali_integrations.models.builder.positions import interleaved_axes
from colpali_integrations.models.builder.qwen_tower import TowerConfig, square_side
from colpali_integrations.models.builder.qwen_vl import LANGUAGE_MODEL, QwenVL, QwenVLConfig, rope_settings

__all__ = ["Qwen3_5", "Qwen3_5Config"]

_LINEAR, _FULL = "linear_attention", "full_attention"
# The defaults of transformers' classes: a file of some versions holds only values that differ from them.
_TEXT = {
    **{"vocab_size": 248320, "hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 16},
    **{"num_key_value_heads": 4, "head_dim": 256, "hidden_act": "silu", "rms_norm_eps": 1e-6},
}
_ROTATED, _SECTIONS = 0.25, (11, 11, 10)
_VISION = {
    **{"depth": 27, "hidden_size": 1152, "num_heads": 16, "hidden_act": "gelu_pytorch_tanh", "patch_size": 16},
    **{"spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304},
}


@dataclass(frozen=True, kw_only=True)
class Qwen3_5Config(QwenVLConfig):
    """The configuration of a checkpoint; `text`, `axes` and `causal` are those of the layers with full attention.

    Attributes:
        delta: the sizes of the layers with linear attention.
        linear_layers: which layers have linear attention.
    """

    delta: DeltaConfig
    linear_layers: frozenset[int]


def _causal(whole: Mapping[str, Any], text: Mapping[str, Any]) -> bool:
    """Whether full attention sees only the tokens before each, as it does where config.json does not say it.

    `is_causal` is transformers' name, `retrieval_attention_contract` that of ColQwen3.5's authors: its checkpoints
    differ, and colpali-engine's class ignores the second one. (vllm-project/vllm#49372.)
    """
    parts = (text, whole)
    said = {bool(value) for part in parts if (value := part.get("is_causal")) is not None}
    for contract in (part.get("retrieval_attention_contract") for part in parts):
        if contract not in (None, "causal", "bidirectional"):
            raise ModelLoadError(
                f"config.json: retrieval_attention_contract {contract!r} must be 'causal' or 'bidirectional'"
            )
        if contract is not None:
            said.add(contract == "causal")
    if len(said) > 1:
        raise ModelLoadError("config.json: is_causal and retrieval_attention_contract contradict each other")
    return said != {False}


def _axes(text: Mapping[str, Any], size: int) -> tuple[int, ...]:
    rope = rope_settings(text)
    rotated = int(size * rope.get("partial_rotary_factor", text.get("partial_rotary_factor", _ROTATED)))
    sections = tuple(rope.get("mrope_section") or _SECTIONS)
    if sum(sections) != rotated // 2:
        raise ModelLoadError(
            f"config.json: mrope_section {list(sections)} must add up to {rotated // 2}, half of the {rotated} numbers "
            "of a head that are rotated"
        )
    return interleaved_axes(sections)


def _delta(text: Mapping[str, Any]) -> DeltaConfig:
    delta = DeltaConfig(**read_fields(DeltaConfig, text, "text_config"))
    if delta.linear_num_value_heads % delta.linear_num_key_heads:
        raise ModelLoadError(
            f"config.json: linear_num_value_heads {delta.linear_num_value_heads} must be a multiple of "
            f"linear_num_key_heads {delta.linear_num_key_heads}"
        )
    return delta


def _linear_layers(text: Mapping[str, Any], layers: int) -> frozenset[int]:
    every = int(text.get("full_attention_interval") or 4)
    types = text.get("layer_types") or [_LINEAR if (i + 1) % every else _FULL for i in range(layers)]
    if len(types) != layers or not set(types) <= {_LINEAR, _FULL}:
        raise ModelLoadError(f"config.json: layer_types must name {layers} layers, {_LINEAR} or {_FULL}; got {types}")
    return frozenset(i for i, kind in enumerate(types) if kind == _LINEAR)


class Qwen3_5(QwenVL):
    """The graphs of a checkpoint and their inputs."""

    permitted: tuple[str, ...] = ("lm_head", "mtp")
    config: Qwen3_5Config

    @staticmethod
    def read(config: Mapping[str, Any]) -> Qwen3_5Config:
        """Read a config.json, of the model or of a class that wraps it.

        Raises:
            ModelLoadError: a value is missing, invalid or not supported.
        """
        whole = part_of(config, "vlm_config")
        if "head_dims" in whole:
            raise ModelLoadError(
                f"config.json has head_dims {whole['head_dims']}, of a fork of colpali-engine whose checkpoints do not "
                "record whether their attention is causal; they are not supported"
            )
        try:
            text, vision = part_of(whole, "text_config"), {**_VISION, **part_of(whole, "vision_config")}
            decoder = DecoderConfig.read(text, **_TEXT)
            return Qwen3_5Config(
                text=decoder,
                vision=TowerConfig.read(vision, side=square_side(vision["num_position_embeddings"])),
                axes=_axes(text, decoder.head_dim),
                image_token_id=int(whole.get("image_token_id") or 248056),
                causal=_causal(whole, text),
                delta=_delta(text),
                linear_layers=_linear_layers(text, decoder.num_hidden_layers),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"config.json is not that of a Qwen3.5 model: {error!r}") from error

    def _decode(self, g: GraphBuilder, x: str, ids: str, positions: str, turn: AngleInputs) -> str:
        config, text = self.config, self.config.text

        def mix(y: str, layer: str, number: int) -> str:
            if number not in config.linear_layers:
                return _full_attention(g, y, f"{layer}.self_attn", config, positions, turn)
            return gated_delta_net(
                g, y, f"{layer}.linear_attn", config.delta, hidden_act=text.hidden_act, epsilon=text.rms_norm_eps
            )

        return decoder_layers(g, x, LANGUAGE_MODEL, text, mix, stored_less_one=True)


def _full_attention(
    g: GraphBuilder, x: str, name: str, config: Qwen3_5Config, positions: str, turn: AngleInputs
) -> str:
    """Attention whose result is gated; the layer of the queries also gives the gates, head by head."""
    text = config.text
    heads, groups, size, bias = text.num_attention_heads, text.num_key_value_heads, text.head_dim, text.attention_bias
    both = split_heads(g, linear(g, x, f"{name}.q_proj", bias=bias), heads, 2 * size)
    q, gate = (join_heads(g, part, heads * size) for part in g.split(both, 2))
    k, v = (linear(g, x, f"{name}.{part}_proj", bias=bias) for part in "kv")

    def placed(part: str, which: str, number: int) -> str:
        sizes = {"heads": number, "size": size}
        part = head_norm(g, part, f"{name}.{which}_norm", text.rms_norm_eps, stored_less_one=True, **sizes)
        return rotary(g, part, turn, positions, rotated=2 * len(config.axes), **sizes)

    q, k = placed(q, "q", heads), placed(k, "k", groups)
    if config.causal:
        y = causal_attention(g, q, k, v, heads=heads, groups=groups, size=size)
    else:
        k, v = (repeat_heads(g, part, groups=groups, times=heads // groups, size=size) for part in (k, v))
        y = attention(g, q, k, v, heads=heads, size=size)
    return linear(g, g.op("Mul", y, g.op("Sigmoid", gate)), f"{name}.o_proj", bias=bias)
