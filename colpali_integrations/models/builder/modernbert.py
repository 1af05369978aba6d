"""ModernBERT: layers that attend to a window or to all tokens (transformers `ModernBertModel`; arXiv:2412.13663)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layer_kinds import FULL, LOCAL, KindInputs, LayerKinds
from colpali_integrations.models.builder.layers import activation, layer_norm, linear, place_features
from colpali_integrations.runtime.arrays import Feed

__all__ = ["ModernBert", "ModernBertConfig"]


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
        self._config = text = ModernBertConfig(**read_fields(ModernBertConfig, config, "text_config"))
        self._name = name
        self.width, heads = text.hidden_size, text.num_attention_heads
        every, layers = text.global_attn_every_n_layers, text.num_hidden_layers
        kinds: list[str] = list(config.get("layer_types") or [LOCAL if i % every else FULL for i in range(layers)])
        rope = config.get("rope_parameters") or {}
        defaults = {FULL: text.global_rope_theta, LOCAL: text.local_rope_theta}
        thetas = {kind: float((rope.get(kind) or {}).get("rope_theta") or theta) for kind, theta in defaults.items()}
        self._layers = LayerKinds(kinds, thetas, reach=text.local_attention // 2, heads=heads, size=self.width // heads)

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of `build` for sequences that count their tokens, int64 (batch, n_tokens)."""
        return self._layers.feed(ids)

    def build(self, g: GraphBuilder, image_id: int) -> str:
        """Add the nodes from ids and features to hidden states."""
        config, name = self._config, self._name
        inputs = self._layers.inputs(g)
        table = g.table(f"{name}.embeddings.tok_embeddings.weight")
        x = self._norm(g, place_features(g, inputs.ids, image_id, table, width=self.width), f"{name}.embeddings.norm")
        for i, kind in enumerate(self._layers.kinds):
            layer = f"{name}.layers.{i}"
            y = self._norm(g, x, f"{layer}.attn_norm") if i else x  # the embeddings are normed already
            x = g.op("Add", x, self._attention(g, y, f"{layer}.attn", kind, inputs))
            y = linear(g, self._norm(g, x, f"{layer}.mlp_norm"), f"{layer}.mlp.Wi", bias=config.mlp_bias)
            up, gate = g.split(y, 2)
            y = g.op("Mul", activation(g, up, config.hidden_activation), gate)
            x = g.op("Add", x, linear(g, y, f"{layer}.mlp.Wo", bias=config.mlp_bias))
        return self._norm(g, x, f"{name}.final_norm")

    def _norm(self, g: GraphBuilder, x: str, name: str) -> str:
        return layer_norm(g, x, name, self._config.norm_eps, bias=self._config.norm_bias)

    def _attention(self, g: GraphBuilder, x: str, name: str, kind: str, inputs: KindInputs) -> str:
        bias, heads = self._config.attention_bias, self._config.num_attention_heads
        q, k, v = g.split(linear(g, x, f"{name}.Wqkv", bias=bias), 3)
        q, k = (self._layers.turn(g, part, kind, inputs, heads=heads) for part in (q, k))
        return linear(g, self._layers.attend(g, q, k, v, kind, inputs), f"{name}.Wo", bias=bias)
