"""What Qwen's vision models have in common as retrievers: two graphs, and the inputs that both need.

tower:  the patches of a page to features, one per 2 x 2 patches (`qwen_tower`)
text:   token ids, with features in the places of image tokens, to vectors; positions are those of M-RoPE
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.decoder import DecoderConfig, decoder, token_inputs, turned_feed
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import AngleInputs, multi_vector_head, place_features
from colpali_integrations.models.builder.positions import angles, frequencies, mrope_positions
from colpali_integrations.models.builder.qwen_tower import Tower, TowerConfig, tower_feed
from colpali_integrations.runtime.arrays import Feed

__all__ = ["LANGUAGE_MODEL", "QwenVL", "QwenVLConfig", "read_decoder", "rope_settings"]

LANGUAGE_MODEL = "language_model"
"""What the names of the decoder's tensors begin with."""


@dataclass(frozen=True, kw_only=True)
class QwenVLConfig:
    """The configuration of a checkpoint.

    Attributes:
        text: the sizes of the decoder.
        vision: the sizes of the tower.
        axes: per frequency of the decoder, the axis of M-RoPE that it counts.
        image_token_id: the token that stands for a feature.
        causal: whether a token sees only those before it.
    """

    text: DecoderConfig
    vision: TowerConfig
    axes: tuple[int, ...]
    image_token_id: int
    causal: bool = True


def rope_settings(text: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of M-RoPE in a text_config, under the names of several versions.

    Raises:
        ModelLoadError: the positions are extended by a rule that is not supported.
    """
    rope: Mapping[str, Any] = text.get("rope_parameters") or text.get("rope_scaling") or {}
    if (rule := rope.get("rope_type", rope.get("type", "default"))) not in ("default", "mrope"):
        raise ModelLoadError(f"config.json: rope_type {rule!r} is not supported, only 'default' and 'mrope'")
    return rope


def read_decoder(text: Mapping[str, Any], sections: Sequence[int], **defaults: Any) -> DecoderConfig:
    """Read a text_config.

    Args:
        text: the text_config.
        sections: numbers of frequencies for time, row and column.
        defaults: those of the model's class.

    Raises:
        ModelLoadError: a value is invalid or not supported.
    """
    if text.get("use_sliding_window"):
        raise ModelLoadError("config.json has use_sliding_window, which is not supported for this family")
    values = {**defaults, **read_fields(DecoderConfig, text, "text_config")}
    if (theta := rope_settings(text).get("rope_theta")) is not None:
        values["rope_theta"] = float(theta)
    values.setdefault("head_dim", values["hidden_size"] // values["num_attention_heads"])
    if sum(sections) != values["head_dim"] // 2:
        raise ModelLoadError(
            f"config.json: mrope_section {sections} must add up to {values['head_dim'] // 2}, half of a head"
        )
    return DecoderConfig(**values)


class QwenVL(ABC):
    """The graphs of a checkpoint and their inputs.

    Args:
        config: its config.json.
        dim: length of a vector.

    Attributes:
        config: its configuration.
        prefix: as in `weights.canonical_name`; files of 2024 do not nest the language model.
        permitted: beginnings of the names of tensors that need not be read.

    Raises:
        ModelLoadError: the configuration is invalid or not supported.
    """

    prefix = LANGUAGE_MODEL
    permitted: tuple[str, ...] = ("lm_head",)

    def __init__(self, config: Mapping[str, Any], dim: int) -> None:
        self.config = self.read(config)
        self._dim = dim
        self._steps = frequencies(self.config.text.rope_theta, 2 * len(self.config.axes))

    @staticmethod
    @abstractmethod
    def read(config: Mapping[str, Any]) -> QwenVLConfig:
        """Read a config.json, of the model or of a class that wraps it.

        Raises:
            ModelLoadError: a value is missing, invalid or not supported.
        """

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """From pixel_values to features, and from ids and features to embeddings."""
        return {"tower": lambda g: Tower(g, self.config.vision).build(), "text": self._build_text}

    def tower_feed(self, pixels: NDArray[np.float32], rows: int, columns: int) -> Feed:
        """The inputs of the tower, as of `qwen_tower.tower_feed`."""
        return tower_feed(self.config.vision, pixels, rows, columns)

    def text_feed(self, ids: NDArray[np.int64], positions: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph, but for the features.

        Args:
            ids: int64 (batch, n_tokens).
            positions: int64 (3, n_tokens), of `positions.mrope_positions`.
        """
        return turned_feed(ids, angles(positions[list(self.config.axes)].T, self._steps))

    def query_feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph for texts, int64 (batch, n_tokens), which have no features."""
        empty = np.zeros((0, self.config.text.hidden_size), np.float32)
        features = dict.fromkeys(self.config.vision.features, empty)
        return {**self.text_feed(ids, mrope_positions(ids.shape[1])), **features}

    def _build_text(self, g: GraphBuilder) -> None:
        text = self.config.text
        ids, positions, turn = token_inputs(g, 2 * len(self.config.axes))
        table = g.table(f"{LANGUAGE_MODEL}.embed_tokens.weight")
        x = place_features(g, ids, self.config.image_token_id, table, width=text.hidden_size)
        self._head(g, self._decode(g, x, ids, positions, turn))

    def _decode(self, g: GraphBuilder, x: str, ids: str, positions: str, turn: AngleInputs) -> str:
        """The decoder's layers and its last norm, from embeddings, (batch, tokens, hidden_size)."""
        text, causal = self.config.text, self.config.causal
        return decoder(g, x, LANGUAGE_MODEL, text, positions, turn, causal=causal, stored_less_one=False)

    def _head(self, g: GraphBuilder, x: str) -> None:
        """Add the output "embeddings"."""
        multi_vector_head(g, x, self._dim)
