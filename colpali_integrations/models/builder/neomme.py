"""NeoMME: one encoder of text tokens and of patches of 32 x 32 pixels. One graph serves pages, texts and queries.

A page is ``<doc> <img>``, then per row of patches an ``<img>`` for each patch and a ``<row>``. The embedding of a patch
takes the place of its ``<img>``. Layers attend to a window, of one of two lengths, or to all; tokens of a page have a
row and a column, whose frequencies alternate. (transformers 5.24 `NeoMMEForRetrieval`; arXiv:2609.01657.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    activation,
    angle_feed,
    angle_inputs,
    attention,
    embedding,
    exact_layer_norm,
    folded_window_attention,
    join_heads,
    linear,
    plan_feed,
    plan_inputs,
    repeat_heads,
    rms_norm,
    rotary,
    scatter_rows,
    split_heads,
    unit_length,
    window_attention,
)
from colpali_integrations.models.builder.positions import WindowPlan, angles, frequencies, window_plan
from colpali_integrations.runtime.arrays import Feed

__all__ = ["NeoMME", "NeoMMEConfig", "page_positions"]

_FULL, _SLIDING = "full_attention", "sliding_attention"
_THETA = {_FULL: 1_000_000.0, _SLIDING: 10_000.0}
_ROTATED = {_FULL: 0.25, _SLIDING: 1.0}
_LONG_WINDOW = 1024
# Windows up to this reach fold the heads that share keys; in longer ones the scores of all heads are too large.
_FOLDED_REACH = 512
# torch's LayerNorm, which the patch embedding uses without an option.
_LAYER_NORM_EPSILON = 1e-5


@dataclass(frozen=True, kw_only=True)
class NeoMMEConfig:
    """The configuration of a checkpoint; a file holds only values that differ from these defaults.

    Attributes:
        reaches: per layer, the farthest distance of a token that it attends to; None for all tokens.
        rotations: per kind of layer, how many numbers of a head are rotated, and the base of their frequencies.
        residual: the factor of every branch that is added to the residual stream.
    """

    hidden_size: int = 1024
    num_hidden_layers: int = 17
    num_attention_heads: int = 16
    num_key_value_heads: int = 4
    head_dim: int = 64
    max_position_embeddings: int = 16384
    norm_eps: float = 1e-6
    hidden_act: str = "relu2"
    attention_bias: bool = False
    mlp_bias: bool = False
    patch_size: int = 32
    embedding_dim: int = 128
    pad_token_id: int = 0
    document_token_id: int = 5
    image_token_id: int = 6
    reaches: tuple[int | None, ...] = ()
    rotations: Mapping[str, tuple[int, float]]
    residual: float = 1.0

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> NeoMMEConfig:
        """Read a config.json.

        Raises:
            ModelLoadError: a value is missing, invalid or not supported.
        """
        values = read_fields(cls, config, "NeoMME")
        layers = values.get("num_hidden_layers", cls.num_hidden_layers)
        try:
            return cls(
                **values,
                reaches=_reaches(config, _layer_types(config, layers)),
                rotations=_rotations(config, values.get("head_dim", cls.head_dim)),
                residual=config.get("residual_multiplier") or (2 * layers) ** -0.5,
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"config.json is not that of a NeoMME model: {error!r}") from error

    @property
    def heads_per_key(self) -> int:
        """Heads of queries that share a head of keys."""
        return self.num_attention_heads // self.num_key_value_heads

    @property
    def patch_width(self) -> int:
        """Numbers of a patch: its pixels in 3 colours."""
        return 3 * self.patch_size**2


def _layer_types(config: Mapping[str, Any], layers: int) -> list[str]:
    given = config.get("layer_types")
    types = given or [_FULL if (i + 1) % 6 == 0 or i == layers - 1 else _SLIDING for i in range(layers)]
    if len(types) != layers or not {_FULL} <= set(types) <= {_FULL, _SLIDING}:
        raise ModelLoadError(f"config.json: layer_types must name {layers} layers, {_FULL} or {_SLIDING}; got {types}")
    return list(types)


def _reaches(config: Mapping[str, Any], types: list[str]) -> tuple[int | None, ...]:
    """The window of each layer: its own, or the common one. Without any of their own, every second one is long."""
    common = int(config.get("sliding_window") or 256)
    given = config.get("per_layer_config")
    if given is None:
        sliding = [i for i, kind in enumerate(types) if kind == _SLIDING]
        given = {str(i): {"sliding_window": _LONG_WINDOW} for i in sliding[1::2]}
    # A key is the number of a layer, with a leading zero where there are more than ten layers.
    own = {int(i): entry.get("sliding_window") for i, entry in given.items()}
    return tuple(None if kind == _FULL else int(own.get(i) or common) for i, kind in enumerate(types))


def _rotations(config: Mapping[str, Any], head_dim: int) -> dict[str, tuple[int, float]]:
    rotations = {}
    for kind in (_FULL, _SLIDING):
        rope = (config.get("rope_parameters") or {}).get(kind) or {}
        if (rule := rope.get("rope_type", "default")) != "default":
            raise ModelLoadError(f"config.json: rope_type {rule!r} of {kind} layers is not supported, only 'default'")
        theta = rope.get("rope_theta") or config.get("rope_theta") or _THETA[kind]
        rotations[kind] = int(head_dim * rope.get("partial_rotary_factor", _ROTATED[kind])), float(theta)
    return rotations


class NeoMME:
    """The graph of a NeoMME checkpoint and its inputs.

    Args:
        config: its config.json.

    Attributes:
        prefix: as in `weights.canonical_name`; no version names its layers otherwise.
        permitted: beginnings of the names of tensors that need not be read.

    Raises:
        ModelLoadError: the configuration is invalid or not supported.
    """

    prefix = ""
    permitted: tuple[str, ...] = ("lm_head", "unembedding_projection")

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = NeoMMEConfig.read(config)
        self._steps = {kind: frequencies(theta, size) for kind, (size, theta) in self.config.rotations.items()}

    def feed(self, ids: NDArray[np.int64], pixels: NDArray[np.float32], places: NDArray[np.int64]) -> Feed:
        """The inputs of a run of sequences of equal length and places.

        Args:
            ids: int64 (batch, n_tokens).
            pixels: float32 (n_patches, patch_width), the patches of all pages in order; (0, patch_width) for texts.
            places: int64 (2, n_tokens), row and column of each token.
        """
        batch, n_tokens = ids.shape
        feed: Feed = {
            "input_ids": ids,
            "pixel_values": pixels,
            "position_ids": np.broadcast_to(np.arange(n_tokens), (batch, n_tokens)),
        }
        for kind, steps in self._steps.items():
            # Even frequencies count the row, odd ones the column.
            feed |= angle_feed(kind, angles(places[np.arange(len(steps)) % 2].T, steps))
        for reach in self._windows:
            folded = self.config.heads_per_key if reach <= _FOLDED_REACH else 1
            feed |= plan_feed(f"window_{reach}", _window_plan(n_tokens, reach, batch, folded))
        return feed

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """One graph: outputs "embeddings" (batch, tokens, dim) and "dense_embeddings" (batch, hidden_size)."""
        return {"encoder": lambda g: _Encoder(g, self.config, self._steps, self._windows).build()}

    @property
    def _windows(self) -> list[int]:
        return sorted({reach for reach in self.config.reaches if reach is not None})


@lru_cache(maxsize=8)  # pages of a document have the same shape
def _window_plan(n_tokens: int, reach: int, batch: int, folded: int) -> WindowPlan:
    return window_plan(n_tokens, reach, batch=batch, folded=folded)


class _Encoder:
    """The nodes of one graph."""

    def __init__(
        self, g: GraphBuilder, config: NeoMMEConfig, steps: Mapping[str, NDArray[np.float32]], windows: list[int]
    ) -> None:
        self._g, self._config = g, config
        self._ids = g.input("input_ids", np.int64, ["batch", "tokens"])
        self._pixels = g.input("pixel_values", np.float32, ["patches", config.patch_width])
        self._positions = g.input("position_ids", np.int64, ["batch", "tokens"])
        self._angles = {kind: angle_inputs(g, kind, len(one)) for kind, one in steps.items()}
        self._plans = {reach: plan_inputs(g, f"window_{reach}") for reach in windows}

    def build(self) -> None:
        g, config = self._g, self._config
        x = first = self._norm(self._embeddings(), config.hidden_size)
        full = [i for i, reach in enumerate(config.reaches) if reach is None]
        values = embedding(g, self._ids, "value_embeddings.weight")
        for layer in range(config.num_hidden_layers):
            x = self._layer(layer, x, first, values if layer in (full[0], full[-1]) else None)
        x = self._norm(x, config.hidden_size)
        # The last product decides every component of a vector and is a thousandth of all: it stays float32.
        rows = linear(g, x, "multi_vector_head.proj", bias=False, quantize=False)
        g.output(unit_length(g, rows, config.embedding_dim), "embeddings", ["batch", "tokens", config.embedding_dim])
        mean = g.op("ReduceMean", x, g.constant([1]), keepdims=0)
        g.output(unit_length(g, mean, config.hidden_size), "dense_embeddings", ["batch", config.hidden_size])

    def _embeddings(self) -> str:
        """Embeddings of the tokens, with those of the patches in their places."""
        g = self._g
        words = embedding(g, self._ids, "embed_tokens.word_embeddings.weight")
        words = linear(g, words, "embed_tokens.embedding_projection", bias=False)
        patches = exact_layer_norm(g, self._pixels, "patch_embeddings.norm", _LAYER_NORM_EPSILON)
        # A fortieth of the work, in float32 at every precision. The norm turns a speck of ink on blank paper into a
        # value of up to 55, and one scale for a page of such values leaves nothing of the others: with these products
        # in int8-dynamic, vectors of some pages had a cosine of 0.06 to float32.
        patches = linear(g, patches, "patch_embeddings.up_proj", bias=False, quantize=False)
        patches = linear(g, activation(g, patches, "gelu"), "patch_embeddings.down_proj", bias=True, quantize=False)
        return scatter_rows(g, words, self._patch_mask(), patches)

    def _patch_mask(self) -> str:
        """Where the patches go: an image token, but for the one behind the document token, which announces them."""
        g, config = self._g, self._config
        image = g.op("Equal", self._ids, g.constant(config.image_token_id))
        shorter = g.op("Slice", self._ids, g.constant([0]), g.constant([-1]), g.constant([1]))
        before = g.op("Pad", shorter, g.constant([0, 1, 0, 0]), g.constant(config.pad_token_id))
        announced = g.op("Equal", before, g.constant(config.document_token_id))
        return g.op("And", image, g.op("Not", announced))

    def _layer(self, layer: int, x: str, first: str, values: str | None) -> str:
        """One layer: attention sees a mixture of the stream and the first embeddings, the stream itself goes on."""
        g, config, name = self._g, self._config, f"layers.{layer}"
        lambdas = g.weight(f"{name}.lambdas")
        ours, theirs = (g.op("Slice", lambdas, g.constant([i]), g.constant([i + 1])) for i in (0, 1))
        mixed = self._norm(g.op("Add", g.op("Mul", x, ours), g.op("Mul", first, theirs)), config.hidden_size)
        x = g.op("Add", x, self._attention(layer, mixed, values))
        y = linear(g, self._norm(x, config.hidden_size), f"{name}.mlp.up_proj", bias=config.mlp_bias)
        y = activation(g, y, config.hidden_act)
        return g.op("Add", x, linear(g, y, f"{name}.mlp.down_proj", bias=config.mlp_bias, factor=config.residual))

    def _attention(self, layer: int, x: str, values: str | None) -> str:
        g, config, name = self._g, self._config, f"layers.{layer}.self_attn"
        heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        reach, bias, times = config.reaches[layer], config.attention_bias, config.heads_per_key
        q = self._rotated(linear(g, x, f"{name}.q_proj", bias=bias), heads, reach)
        k = self._rotated(linear(g, x, f"{name}.k_proj", bias=bias), groups, reach)
        v = linear(g, x, f"{name}.v_proj", bias=bias)
        if values is not None:
            v = g.op("Add", v, values)
        if reach is not None and reach <= _FOLDED_REACH:
            y = folded_window_attention(g, q, k, v, self._plans[reach], heads=heads, groups=groups, size=size)
        else:
            k, repeated = (repeat_heads(g, part, groups=groups, times=times, size=size) for part in (k, v))
            if reach is None:
                y = attention(g, q, k, repeated, heads=heads, size=size)
            else:
                y = window_attention(g, q, k, repeated, self._plans[reach], heads=heads, size=size)
        y = self._without_own_value(y, v, f"{name}.exclusive_self_attention.alpha")
        gate = g.op("Sigmoid", linear(g, x, f"{name}.output_projection.gate_proj", bias=False))
        gated = g.op("Mul", y, gate)
        return linear(g, gated, f"{name}.output_projection.o_proj", bias=bias, factor=config.residual)

    def _rotated(self, x: str, heads: int, reach: int | None) -> str:
        """Heads of length sqrt(size) each, rotated by the angles of their kind of layer."""
        g, size = self._g, self._config.head_dim
        kind = _FULL if reach is None else _SLIDING
        x = join_heads(g, self._norm(split_heads(g, x, heads, size), size), heads * size)
        rotated, _ = self._config.rotations[kind]
        return rotary(g, x, self._angles[kind], self._positions, heads=heads, rotated=rotated, size=size)

    def _without_own_value(self, y: str, v: str, alpha: str) -> str:
        """Exclusive attention: ``y - tanh(alpha) (y . u) u`` per head, with u the token's own value at length 1."""
        g, config = self._g, self._config
        heads, groups, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
        unit = unit_length(g, split_heads(g, v, groups, 1, size), size)
        y = split_heads(g, y, groups, heads // groups, size)
        along = g.op("ReduceSum", g.op("Mul", y, unit), g.constant([-1]), keepdims=1)
        factor = g.op("Reshape", g.op("Tanh", g.weight(alpha)), g.constant([groups, heads // groups, 1]))
        return join_heads(g, g.op("Sub", y, g.op("Mul", g.op("Mul", along, factor), unit)), heads * size)

    def _norm(self, x: str, width: int) -> str:
        """An RMS norm without weights."""
        return rms_norm(self._g, x, self._g.floats(np.ones(width)), self._config.norm_eps)


def page_positions(rows: int, columns: int) -> NDArray[np.int64]:
    """Places of the tokens of a page of rows x columns patches, for `NeoMME.feed`.

    Returns:
        int64 (2, 2 + rows * (columns + 1)): the document token and the image token count up on both axes, and the grid
        goes on from there, with a row token after each row.

    Example:
        >>> page_positions(2, 1).tolist()
        [[0, 1, 2, 2, 3, 3], [0, 1, 2, 3, 2, 3]]
    """
    grid = 2 + np.indices((rows, columns + 1)).reshape(2, -1)
    return np.concatenate([[[0, 1], [0, 1]], grid], axis=1)
