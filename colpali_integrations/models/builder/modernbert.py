"""ModernBERT: layers that attend to a window or to all tokens (transformers `ModernBertModel`; arXiv:2412.13663)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    AngleInputs,
    PlanInputs,
    activation,
    angle_feed,
    angle_inputs,
    attention,
    layer_norm,
    linear,
    place_features,
    plan_feed,
    plan_inputs,
    rotary,
    window_attention,
)
from colpali_integrations.models.builder.positions import angles, frequencies, window_plan
from colpali_integrations.runtime.arrays import Feed

__all__ = ["ModernBert", "ModernBertConfig"]

_FULL, _LOCAL = "full_attention", "sliding_attention"


@dataclass(frozen=True, kw_only=True)
class ModernBertConfig:
    """A text_config, with the defaults of its class."""

    hidden_size: int = 768
    num_hidden_layers: int = 22
    num_attention_heads: int = 12
    hidden_activation: str = "gelu"
    norm_eps: float = 1e-5
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    local_attention: int = 128
    global_attn_every_n_layers: int = 3
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0


class ModernBert:
    """A text model between embeddings of tokens and features, and hidden states.

    Args:
        config: the text_config.
        name: what its tensors' names begin with.

    Raises:
        ModelLoadError: a value is invalid.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self._config = ModernBertConfig(**read_fields(ModernBertConfig, config, "text_config"))
        self._name = name
        self.width = self._config.hidden_size
        every, layers = self._config.global_attn_every_n_layers, self._config.num_hidden_layers
        given = config.get("layer_types")
        self._kinds: list[str] = list(given or [_LOCAL if i % every else _FULL for i in range(layers)])
        rope = config.get("rope_parameters") or {}
        theta = {_FULL: self._config.global_rope_theta, _LOCAL: self._config.local_rope_theta}
        self._size = self.width // self._config.num_attention_heads
        self._steps = {
            kind: frequencies(float((rope.get(kind) or {}).get("rope_theta") or theta[kind]), self._size)
            for kind in dict.fromkeys(self._kinds)
        }

    @property
    def _reach(self) -> int:
        return self._config.local_attention // 2

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of `build` for sequences that count their tokens, int64 (batch, n_tokens)."""
        batch, n_tokens = ids.shape
        feed: Feed = {"input_ids": ids, "position_ids": np.broadcast_to(np.arange(n_tokens), ids.shape)}
        for kind, steps in self._steps.items():
            feed |= angle_feed(kind, angles(np.arange(n_tokens)[:, None], steps))
        if _LOCAL in self._steps:
            feed |= plan_feed("window", window_plan(n_tokens, self._reach, batch=batch))
        return feed

    def build(self, g: GraphBuilder, image_id: int) -> str:
        """Add the nodes from ids and features to hidden states."""
        config, name = self._config, self._name
        ids, positions = (g.input(one, np.int64, ["batch", "tokens"]) for one in ("input_ids", "position_ids"))
        turns = {kind: angle_inputs(g, kind, self._size // 2) for kind in self._steps}
        plan = plan_inputs(g, "window") if _LOCAL in self._steps else None
        table = g.table(f"{name}.embeddings.tok_embeddings.weight")
        x = self._norm(g, place_features(g, ids, image_id, table, width=self.width), f"{name}.embeddings.norm")
        for i, kind in enumerate(self._kinds):
            layer = f"{name}.layers.{i}"
            y = self._norm(g, x, f"{layer}.attn_norm") if i else x  # the embeddings are normed already
            y = self._attention(g, y, f"{layer}.attn", positions, turns[kind], plan if kind == _LOCAL else None)
            x = g.op("Add", x, y)
            y = linear(g, self._norm(g, x, f"{layer}.mlp_norm"), f"{layer}.mlp.Wi", bias=config.mlp_bias)
            up, gate = g.split(y, 2)
            y = g.op("Mul", activation(g, up, config.hidden_activation), gate)
            x = g.op("Add", x, linear(g, y, f"{layer}.mlp.Wo", bias=config.mlp_bias))
        return self._norm(g, x, f"{name}.final_norm")

    def _norm(self, g: GraphBuilder, x: str, name: str) -> str:
        return layer_norm(g, x, name, self._config.norm_eps, bias=self._config.norm_bias)

    def _attention(
        self, g: GraphBuilder, x: str, name: str, positions: str, turn: AngleInputs, plan: PlanInputs | None
    ) -> str:
        heads, size, bias = self._config.num_attention_heads, self._size, self._config.attention_bias
        q, k, v = g.split(linear(g, x, f"{name}.Wqkv", bias=bias), 3)
        q, k = (rotary(g, part, turn, positions, heads=heads, rotated=size, size=size) for part in (q, k))
        if plan is None:
            y = attention(g, q, k, v, heads=heads, size=size)
        else:
            y = window_attention(g, q, k, v, plan, heads=heads, size=size)
        return linear(g, y, f"{name}.Wo", bias=bias)
