"""UltraBERT: an encoder in the form of Llama, whose layers attend to a window or to all tokens.

(transformers 5.24 `UltrabertModel`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layer_kinds import FULL, LOCAL, KindInputs, LayerKinds
from colpali_integrations.models.builder.layers import gated_mlp, linear, place_features, repeat_heads, rms_norm
from colpali_integrations.runtime.arrays import Feed

__all__ = ["UltraBert", "UltraBertConfig"]

_THETAS = {LOCAL: 10_000.0, FULL: 2_560_000.0}


@dataclass(frozen=True, kw_only=True)
class UltraBertConfig:
    """A text_config, with the defaults of its class.

    Attributes:
        num_key_value_heads: heads of keys; 0 for as many as of queries.
        head_dim: numbers of a head; 0 for an equal share of the width.
        sliding_window: how many tokens on either side a layer with a window attends to.
    """

    hidden_size: int = 4096
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 0
    head_dim: int = 0
    hidden_act: str = "silu"
    rms_norm_eps: float = 1e-6
    attention_bias: bool = False
    mlp_bias: bool = False
    sliding_window: int = 128

    @property
    def groups(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def size(self) -> int:
        """Numbers of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


class UltraBert:
    """A text model between embeddings of tokens and features, and hidden states.

    Args:
        config: the text_config; as transformers writes it, or with `attention_windows` and a list `rope_theta`, one
            value per layer, as the first checkpoints have it.
        name: what its tensors' names begin with.

    Attributes:
        width: of hidden states.

    Raises:
        ModelLoadError: a value is invalid or not supported.
    """

    def __init__(self, config: Mapping[str, Any], name: str) -> None:
        self.config = text = UltraBertConfig(**read_fields(UltraBertConfig, config, "text_config"))
        self._name = name
        self.width = text.hidden_size
        windows = config.get("attention_windows")
        reach = text.sliding_window if windows is None else next((one for one in windows if one), text.sliding_window)
        kinds = _kinds(config, text.num_hidden_layers)
        thetas = _thetas(config, kinds)
        self._layers = LayerKinds(kinds, thetas, reach=reach, heads=text.num_attention_heads, size=text.size)

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of `build` for sequences that count their tokens, int64 (batch, n_tokens)."""
        return self._layers.feed(ids)

    def build(self, g: GraphBuilder, image_id: int) -> str:
        """Add the nodes from ids and features to hidden states."""
        config, name = self.config, self._name
        inputs = self._layers.inputs(g)
        table = g.table(f"{name}.embed_tokens.weight")
        x = place_features(g, inputs.ids, image_id, table, width=self.width)
        for i, kind in enumerate(self._layers.kinds):
            layer = f"{name}.layers.{i}"
            y = self._norm(g, x, f"{layer}.input_layernorm")
            x = g.op("Add", x, self._attention(g, y, f"{layer}.self_attn", kind, inputs))
            y = self._norm(g, x, f"{layer}.post_attention_layernorm")
            x = g.op("Add", x, gated_mlp(g, y, f"{layer}.mlp", config.hidden_act, bias=config.mlp_bias))
        return self._norm(g, x, f"{name}.norm")

    def _norm(self, g: GraphBuilder, x: str, name: str) -> str:
        return rms_norm(g, x, g.weight(f"{name}.weight"), self.config.rms_norm_eps)

    def _attention(self, g: GraphBuilder, x: str, name: str, kind: str, inputs: KindInputs) -> str:
        config = self.config
        heads, groups, bias = config.num_attention_heads, config.groups, config.attention_bias
        q, k, v = (linear(g, x, f"{name}.{part}_proj", bias=bias) for part in "qkv")
        q, k = (self._layers.turn(g, part, kind, inputs, heads=count) for part, count in ((q, heads), (k, groups)))
        k, v = (repeat_heads(g, part, groups=groups, times=heads // groups, size=config.size) for part in (k, v))
        return linear(g, self._layers.attend(g, q, k, v, kind, inputs), f"{name}.o_proj", bias=bias)


def _kinds(config: Mapping[str, Any], layers: int) -> list[str]:
    """The kind of each layer: every third sees all tokens, unless the configuration says otherwise."""
    if (windows := config.get("attention_windows")) is not None:
        default = [LOCAL if window else FULL for window in windows]
    else:
        default = [LOCAL if (i + 1) % 3 else FULL for i in range(layers)]
    kinds = list(config.get("layer_types") or default)
    if len(kinds) != layers:
        raise ModelLoadError(f"config.json: the kinds of {len(kinds)} layers are given, num_hidden_layers is {layers}")
    return kinds


def _thetas(config: Mapping[str, Any], kinds: list[str]) -> dict[str, float]:
    """The base of the rotary frequencies of each kind."""
    rope, listed = config.get("rope_parameters"), config.get("rope_theta")
    if rope is None and isinstance(listed, list) and len(listed) == len(kinds):
        rope = {kind: {"rope_theta": theta} for kind, theta in zip(kinds, listed, strict=True)}
    elif rope is None and listed is not None:
        raise ModelLoadError(f"config.json: rope_theta must be a list of {len(kinds)}, one per layer; got {listed!r}")
    return {**_THETAS, **{kind: _theta(kind, values) for kind, values in (rope or {}).items()}}


def _theta(kind: str, values: Any) -> float:
    if not isinstance(values, Mapping) or not isinstance(theta := values.get("rope_theta"), int | float):
        raise ModelLoadError(f"config.json: rope_parameters must hold a rope_theta for {kind!r}; got {values!r}")
    if (rule := values.get("rope_type", "default")) != "default":
        raise ModelLoadError(f"config.json: rope_type {rule!r} is not supported, only 'default'")
    return float(theta)
