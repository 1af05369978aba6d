"""Qwen2-VL and Qwen2.5-VL with a retrieval head: ColQwen2, ColQwen2.5 and their kin. Two graphs.

    tower:  the patches of a page (14 x 14 pixels) to features, one per 2 x 2 patches
    text:   token ids, with features in the places of image tokens, to vectors; causal, with M-RoPE

                norms         MLP            attention of the tower
    Qwen2-VL    layer norm    quick GELU     all patches of a page
    Qwen2.5-VL  RMS norm      gated SiLU     windows of 8 x 8 patches, and all in a few layers

(transformers 5.24 `ColQwen2ForRetrieval`, `Qwen2_5_VLModel`; colpali-engine 0.3.18 `ColQwen2`, `ColQwen2_5`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import part_of, read_fields
from colpali_integrations.models.builder.decoder import DecoderConfig, decoder, token_inputs, turned_feed
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    activation,
    angle_feed,
    angle_inputs,
    attention,
    gated_mlp,
    layer_norm,
    linear,
    multi_vector_head,
    place_features,
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
    mrope_positions,
)
from colpali_integrations.runtime.arrays import Feed

__all__ = ["Qwen2VL", "Qwen2VLConfig"]

_LANGUAGE_MODEL = "language_model"
_TOWER_THETA = 10_000.0
_TOWER_EPSILON = 1e-6
# The defaults of transformers' classes: a file of some versions holds only values that differ from them.
_TEXT = {
    **{"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
    **{"rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 1_000_000.0},
}
_SECTIONS = (16, 24, 24)
_VISION = {"depth": 32, "num_heads": 16, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
_VISION_OF = {
    "qwen2_vl": {**_VISION, "embed_dim": 1280, "hidden_act": "quick_gelu"},
    "qwen2_5_vl": {
        **{**_VISION, "hidden_size": 3584, "hidden_act": "silu"},
        **{"window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31]},
    },
}


@dataclass(frozen=True, kw_only=True)
class VisionConfig:
    """The sizes of a tower.

    Attributes:
        width: numbers of a patch in the layers.
        merge: patches per feature along each edge.
        frames: how often a page stands in the input of the patch embedding, which is made for videos.
        window: the edge of a window, in features; None where every layer attends to all patches.
        full_layers: the layers that attend to all patches.
    """

    depth: int
    num_heads: int
    hidden_act: str
    patch_size: int
    width: int
    merge: int
    frames: int
    window: int | None
    full_layers: frozenset[int]

    @property
    def head_dim(self) -> int:
        """Numbers of a head."""
        return self.width // self.num_heads


@dataclass(frozen=True, kw_only=True)
class Qwen2VLConfig:
    """The configuration of a checkpoint.

    Attributes:
        text: the sizes of the decoder.
        vision: the sizes of the tower.
        axes: per frequency of the decoder, the axis of M-RoPE that it counts.
        image_token_id: the token that stands for a feature.
    """

    text: DecoderConfig
    vision: VisionConfig
    axes: tuple[int, ...]
    image_token_id: int

    @classmethod
    def read(cls, config: Mapping[str, Any]) -> Qwen2VLConfig:
        """Read a config.json, of the model or of a class that wraps it.

        Raises:
            ModelLoadError: a value is missing, invalid or not supported.
        """
        whole = part_of(config, "vlm_config")
        kind = whole.get("model_type")
        if kind not in _VISION_OF:
            raise ModelLoadError(f"config.json has model_type {kind!r}, expected one of {', '.join(_VISION_OF)}")
        try:
            text = part_of(whole, "text_config")  # files of 2024 have its values at the top
            rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
            decoder_config = _decoder(text, rope)
            return cls(
                text=decoder_config,
                vision=_vision({**_VISION_OF[kind], **part_of(whole, "vision_config")}, windows=kind == "qwen2_5_vl"),
                axes=_axes(rope.get("mrope_section") or _SECTIONS, decoder_config.head_dim),
                image_token_id=int(whole.get("image_token_id") or 151655),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"config.json is not that of a {kind} model: {error!r}") from error


def _decoder(text: Mapping[str, Any], rope: Mapping[str, Any]) -> DecoderConfig:
    if text.get("use_sliding_window"):
        raise ModelLoadError("config.json has use_sliding_window, which is not supported for this family")
    if (rule := rope.get("rope_type", rope.get("type", "default"))) not in ("default", "mrope"):
        raise ModelLoadError(f"config.json: rope_type {rule!r} is not supported, only 'default' and 'mrope'")
    values = {**_TEXT, **read_fields(DecoderConfig, text, "text_config"), "qkv_bias": True}
    if rope.get("rope_theta") is not None:
        values["rope_theta"] = float(rope["rope_theta"])
    values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    return DecoderConfig(**values)


def _axes(sections: Sequence[int], size: int) -> tuple[int, ...]:
    if sum(sections) != size // 2:
        raise ModelLoadError(f"config.json: mrope_section {sections} must add up to {size // 2}, half of a head")
    return tuple((np.repeat(np.arange(len(sections)), sections) % 3).tolist())


def _vision(vision: Mapping[str, Any], *, windows: bool) -> VisionConfig:
    names = ("depth", "num_heads", "hidden_act", "patch_size")
    merge, patch = int(vision["spatial_merge_size"]), int(vision["patch_size"])
    return VisionConfig(
        **{name: vision[name] for name in names},
        width=int(vision["hidden_size" if windows else "embed_dim"]),
        merge=merge,
        frames=int(vision["temporal_patch_size"]),
        window=int(vision["window_size"]) // merge // patch if windows else None,
        full_layers=frozenset(vision["fullatt_block_indexes"] if windows else range(int(vision["depth"]))),
    )


class Qwen2VL:
    """The graphs of a checkpoint and their inputs.

    Args:
        config: its config.json.
        dim: length of a vector.

    Attributes:
        prefix: as in `weights.canonical_name`; files of 2024 do not nest the language model.
        permitted: beginnings of the names of tensors that need not be read.

    Raises:
        ModelLoadError: the configuration is invalid or not supported.
    """

    prefix = _LANGUAGE_MODEL
    permitted: tuple[str, ...] = ("lm_head",)

    def __init__(self, config: Mapping[str, Any], dim: int) -> None:
        self.config = Qwen2VLConfig.read(config)
        self._dim = dim
        self._text_steps = frequencies(self.config.text.rope_theta, self.config.text.head_dim)
        self._patch_steps = frequencies(_TOWER_THETA, self.config.vision.head_dim // 2)

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """From pixel_values to features, and from ids and features to embeddings."""
        return {"tower": lambda g: _Tower(g, self.config.vision).build(), "text": self._build_text}

    def tower_feed(self, pixels: NDArray[np.float32], rows: int, columns: int) -> Feed:
        """The inputs of the tower for pages of equal shape.

        Args:
            pixels: float32 (batch, n_patches, 3 * patch_size ** 2), patches in `positions.merged_order`.
            rows: rows of features of a page.
            columns: columns of features of a page.
        """
        batch, n_patches, _ = pixels.shape
        feed: Feed = {
            "pixel_values": pixels,
            "patch_ids": np.broadcast_to(np.arange(n_patches), (batch, n_patches)),
        }
        merge, window = self.config.vision.merge, self.config.vision.window
        # The first half of the frequencies counts rows, the other columns.
        places = np.repeat(merged_order(rows, columns, merge), len(self._patch_steps), axis=1)
        feed |= angle_feed("patch", angles(places, np.tile(self._patch_steps, 2)))
        return feed if window is None else feed | plan_feed("window", _window_plan(rows, columns, merge, window, batch))

    def text_feed(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph, but for the features.

        Args:
            ids: int64 (batch, n_tokens).
            positions: int64 (3, n_tokens), of `positions.mrope_positions`.
        """
        return turned_feed(ids, angles(positions[list(self.config.axes)].T, self._text_steps))

    def query_feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph for texts, int64 (batch, n_tokens), which have no features."""
        features = np.zeros((0, self.config.text.hidden_size), np.float32)
        return {**self.text_feed(ids, mrope_positions(ids.shape[1])), "features": features}

    def _build_text(self, g: GraphBuilder) -> None:
        text = self.config.text
        ids, positions, turn = token_inputs(g, text.head_dim)
        table = g.table(f"{_LANGUAGE_MODEL}.embed_tokens.weight")
        x = place_features(g, ids, self.config.image_token_id, table, width=text.hidden_size)
        x = decoder(g, x, _LANGUAGE_MODEL, text, positions, turn, causal=True, stored_less_one=False)
        multi_vector_head(g, x, self._dim)


@lru_cache(maxsize=8)  # pages of a document have the same shape
def _window_plan(rows: int, columns: int, merge: int, window: int, batch: int) -> WindowPlan:
    row, column = merged_order(rows, columns, merge).T // (merge * window)
    return group_plan(row * columns + column, batch=batch)


class _Tower:
    """The nodes of the tower's graph."""

    def __init__(self, g: GraphBuilder, config: VisionConfig) -> None:
        self._g, self._config = g, config
        self._pixels = g.input("pixel_values", np.float32, ["batch", "patches", 3 * config.patch_size**2])
        self._positions = g.input("patch_ids", np.int64, ["batch", "patches"])
        self._angles = angle_inputs(g, "patch", config.head_dim // 2)
        self._plan = None if config.window is None else plan_inputs(g, "window")

    def build(self) -> None:
        g, config = self._g, self._config
        x = self._patches()
        for layer in range(config.depth):
            name = f"visual.blocks.{layer}"
            x = g.op("Add", x, self._attention(layer, self._norm(x, f"{name}.norm1"), f"{name}.attn"))
            x = g.op("Add", x, self._mlp(self._norm(x, f"{name}.norm2"), f"{name}.mlp"))
        x = self._norm(x, "visual.merger.ln_q")
        x = g.op("Reshape", x, g.constant([-1, config.width * config.merge**2]))
        x = activation(g, linear(g, x, "visual.merger.mlp.0", bias=True), "gelu")
        g.output(linear(g, x, "visual.merger.mlp.2", bias=True), "features", ["features", "width"])

    def _patches(self) -> str:
        """The patch embedding. A page stands in every frame, so the weights of the frames are added up."""
        g, config = self._g, self._config
        name, pixels = "visual.patch_embed.proj.weight", config.patch_size**2
        weight = g.op("Reshape", g.weight(name), g.constant([config.width, 3, config.frames, pixels]))
        weight = g.op("ReduceSum", weight, g.constant([2]), keepdims=0)
        weight = g.op("Reshape", weight, g.constant([config.width, 3 * pixels]))
        return g.microsoft("FusedMatMul", self._pixels, weight, transB=1)

    def _norm(self, x: str, name: str) -> str:
        g = self._g
        if self._config.window is None:
            return layer_norm(g, x, name, _TOWER_EPSILON)
        return rms_norm(g, x, g.weight(f"{name}.weight"), _TOWER_EPSILON)

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
        g, kind = self._g, self._config.hidden_act
        if self._config.window is None:
            return linear(g, activation(g, linear(g, x, f"{name}.fc1", bias=True), kind), f"{name}.fc2", bias=True)
        return gated_mlp(g, x, name, kind, bias=True)
