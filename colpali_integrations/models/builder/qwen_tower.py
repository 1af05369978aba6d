"""The vision tower of Qwen's models: the patches of a page to features, one per 2 x 2 patches.

                norms        MLP                  positions of patches     attention
    Qwen2-VL    layer norm   quick GELU           angles                   all patches of a page
    Qwen2.5-VL  RMS norm     gated SiLU           angles                   windows of 8 x 8, and all in a few layers
    Qwen3-VL    layer norm   GELU                 angles, learned table    all; DeepStack: features of three layers more
    Qwen3.5     layer norm   GELU                 angles, learned table    all

(transformers 5.24 `Qwen2VisionTransformerPretrainedModel`, `Qwen2_5_VisionTransformerPretrainedModel`,
`Qwen3VLVisionModel`, `Qwen3_5VisionModel`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import isqrt
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    activation,
    angle_feed,
    angle_inputs,
    attention,
    embedding,
    gated_mlp,
    layer_norm,
    linear,
    plan_feed,
    plan_inputs,
    rms_norm,
    rotary,
    window_attention,
)
from colpali_integrations.models.builder.positions import (
    WindowPlan,
    angles,
    frequencies,
    group_plan,
    merged_order,
    table_taps,
)
from colpali_integrations.runtime.arrays import Feed

__all__ = ["Tower", "TowerConfig", "square_side", "tower_feed"]

_THETA = 10_000.0
_EPSILON = 1e-6


class _Names(NamedTuple):
    """Names of layers that differ between versions."""

    mlp: tuple[str, str]
    merger_norm: str
    merger: tuple[str, str]


_QWEN2_NAMES = _Names(("fc1", "fc2"), "ln_q", ("mlp.0", "mlp.2"))
_QWEN3_NAMES = _Names(("linear_fc1", "linear_fc2"), "norm", ("linear_fc1", "linear_fc2"))


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """The sizes of a tower.

    Attributes:
        depth: number of layers.
        num_heads: heads of attention.
        hidden_act: the activation of the MLP.
        patch_size: edge of a patch in pixels.
        width: numbers of a patch in the layers.
        merge: patches per feature along each edge.
        frames: how often a page stands in the input of the patch embedding, which is made for videos.
        window: the edge of a window, in features; None where every layer attends to all patches.
        full_layers: the layers that attend to all patches, where there are windows.
        side: the edge of the table of learned positions, from Qwen3-VL on; None for a tower without one.
        deep_layers: the layers after which DeepStack takes features too.
    """

    depth: int
    num_heads: int
    hidden_act: str
    patch_size: int
    width: int
    merge: int
    frames: int
    window: int | None = None
    full_layers: frozenset[int] = frozenset()
    side: int | None = None
    deep_layers: tuple[int, ...] = ()

    @classmethod
    def read(cls, vision: Mapping[str, Any], *, width: str = "hidden_size", **more: Any) -> TowerConfig:
        """Read a vision_config with all its values.

        Args:
            vision: the vision_config.
            width: the name of its width.
            more: the fields that not every version has.
        """
        return cls(
            depth=int(vision["depth"]),
            num_heads=int(vision["num_heads"]),
            hidden_act=str(vision["hidden_act"]),
            patch_size=int(vision["patch_size"]),
            width=int(vision[width]),
            merge=int(vision["spatial_merge_size"]),
            frames=int(vision["temporal_patch_size"]),
            **more,
        )

    @property
    def head_dim(self) -> int:
        """Numbers of a head."""
        return self.width // self.num_heads

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the outputs: the features, and those of DeepStack's layers in their order."""
        return ("features", *(f"deep_features.{index}" for index in range(len(self.deep_layers))))


def square_side(n_positions: int) -> int:
    """The edge of a square table of learned positions.

    Raises:
        ModelLoadError: the number is not a square.
    """
    side = isqrt(n_positions)
    if side * side != n_positions:
        raise ModelLoadError(f"config.json: num_position_embeddings {n_positions} must be a square number")
    return side


def tower_feed(config: TowerConfig, pixels: NDArray[np.float32], rows: int, columns: int) -> Feed:
    """The inputs of the tower for pages of equal shape.

    Args:
        config: the sizes of the tower.
        pixels: float32 (batch, n_patches, 3 * patch_size ** 2), patches in `positions.merged_order`.
        rows: rows of features of a page.
        columns: columns of features of a page.
    """
    batch, n_patches, _ = pixels.shape
    ids = np.broadcast_to(np.arange(n_patches), (batch, n_patches))
    feed: Feed = {"pixel_values": pixels, "patch_ids": ids}
    steps = frequencies(_THETA, config.head_dim // 2)
    # The first half of the frequencies counts rows, the other columns.
    places = np.repeat(merged_order(rows, columns, config.merge), len(steps), axis=1)
    feed |= angle_feed("patch", angles(places, np.tile(steps, 2)))
    if config.side is not None:
        taps = table_taps(rows, columns, config.merge, config.side)
        feed |= {"taps.rows": taps.rows, "taps.shares": taps.shares}
    if config.window is not None:
        feed |= plan_feed("window", _window_plan(rows, columns, config.merge, config.window, batch))
    return feed


@lru_cache(maxsize=8)  # pages of a document have the same shape
def _window_plan(rows: int, columns: int, merge: int, window: int, batch: int) -> WindowPlan:
    row, column = merged_order(rows, columns, merge).T // (merge * window)
    return group_plan(row * columns + column, batch=batch)


class Tower:
    """The nodes of the tower's graph.

    Args:
        g: the graph, which gets the inputs of `tower_feed` and the outputs `config.features`.
        config: the sizes of the tower.
    """

    def __init__(self, g: GraphBuilder, config: TowerConfig) -> None:
        self._g, self._config = g, config
        self._names = _QWEN2_NAMES if config.side is None else _QWEN3_NAMES
        self._pixels = g.input("pixel_values", np.float32, ["batch", "patches", 3 * config.patch_size**2])
        self._positions = g.input("patch_ids", np.int64, ["batch", "patches"])
        self._angles = angle_inputs(g, "patch", config.head_dim // 2)
        self._plan = None if config.window is None else plan_inputs(g, "window")

    def build(self) -> None:
        """Add the nodes, from the patches to the outputs."""
        g, config = self._g, self._config
        x = self._patches()
        deep = []
        for layer in range(config.depth):
            name = f"visual.blocks.{layer}"
            x = g.op("Add", x, self._attention(layer, self._norm(x, f"{name}.norm1"), f"{name}.attn"))
            x = g.op("Add", x, self._mlp(self._norm(x, f"{name}.norm2"), f"{name}.mlp"))
            if layer in config.deep_layers:
                deep.append(self._deep_features(x, config.deep_layers.index(layer)))
        x = self._joined(self._norm(x, f"visual.merger.{self._names.merger_norm}"))
        for name, features in zip(config.features, [self._merger(x, "visual.merger"), *deep], strict=True):
            g.output(features, name, ["features", "width"])

    def _patches(self) -> str:
        """The patch embedding. A page stands in every frame, so the weights of the frames are added up."""
        g, config = self._g, self._config
        name, pixels = "visual.patch_embed.proj", config.patch_size**2
        weight = g.op("Reshape", g.weight(f"{name}.weight"), g.constant([config.width, 3, config.frames, pixels]))
        weight = g.op("ReduceSum", weight, g.constant([2]), keepdims=0)
        weight = g.op("Reshape", weight, g.constant([config.width, 3 * pixels]))
        x = g.microsoft("FusedMatMul", self._pixels, weight, transB=1)
        if config.side is None:
            return x
        return g.op("Add", g.op("Add", x, g.weight(f"{name}.bias")), self._learned_positions())

    def _learned_positions(self) -> str:
        """(patches, width): per patch, the shares of four rows of the table."""
        g = self._g
        rows = embedding(g, g.input("taps.rows", np.int64, ["patches", 4]), "visual.pos_embed.weight")
        shares = g.input("taps.shares", np.float32, ["patches", 4])
        parts = g.op("Mul", rows, g.op("Unsqueeze", shares, g.constant([2])))
        return g.op("ReduceSum", parts, g.constant([1]), keepdims=0)

    def _norm(self, x: str, name: str) -> str:
        g = self._g
        if self._config.window is None:
            return layer_norm(g, x, name, _EPSILON)
        return rms_norm(g, x, g.weight(f"{name}.weight"), _EPSILON)

    def _attention(self, layer: int, x: str, name: str) -> str:
        g, config = self._g, self._config
        heads, size = config.num_heads, config.head_dim
        q, k, v = g.split(linear(g, x, f"{name}.qkv", bias=True), 3)
        q, k = (rotary(g, part, self._angles, self._positions, heads=heads, rotated=size, size=size) for part in (q, k))
        if self._plan is None or layer in config.full_layers:
            y = attention(g, q, k, v, heads=heads, size=size)
        else:
            y = window_attention(g, q, k, v, self._plan, heads=heads, size=size)
        return linear(g, y, f"{name}.proj", bias=True)

    def _mlp(self, x: str, name: str) -> str:
        if self._config.window is not None:
            return gated_mlp(self._g, x, name, self._config.hidden_act, bias=True)
        return self._two_layers(x, name, self._names.mlp, self._config.hidden_act)

    def _joined(self, x: str) -> str:
        """(batch, patches, width) to (features, width of the patches of a feature)."""
        config = self._config
        return self._g.op("Reshape", x, self._g.constant([-1, config.width * config.merge**2]))

    def _merger(self, x: str, name: str) -> str:
        return self._two_layers(x, name, self._names.merger, "gelu")

    def _deep_features(self, x: str, index: int) -> str:
        """The features of DeepStack (arXiv:2406.04334) after a layer; their norm is over joined patches."""
        name = f"visual.deepstack_merger_list.{index}"
        return self._merger(layer_norm(self._g, self._joined(x), f"{name}.norm", _EPSILON), name)

    def _two_layers(self, x: str, name: str, layers: tuple[str, str], kind: str) -> str:
        g, (first, second) = self._g, layers
        hidden = activation(g, linear(g, x, f"{name}.{first}", bias=True), kind)
        return linear(g, hidden, f"{name}.{second}", bias=True)
