"""Qwen3-VL as a retriever: ColQwen3 of Tomoro, Ops, Sauerkraut and colpali-engine, and Nemotron ColEmbed.

              decoder                              vectors
    ColQwen3  causal                               projected, normalised
    Ops       causal                               the same; the head may be cut to its first numbers
    Nemotron  every token sees all others          the last layer's results without the last norm, normalised

DeepStack adds features of three of the tower's layers to the results of the decoder's first three.

(transformers 5.24 `Qwen3VLModel`; colpali-engine 0.3.18 `ColQwen3`; for the others the code in their repositories.)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.decoder import decoder
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import AngleInputs, add_rows, multi_vector_head, output_vectors
from colpali_integrations.models.builder.positions import interleaved_axes
from colpali_integrations.models.builder.qwen_tower import TowerConfig, square_side
from colpali_integrations.models.builder.qwen_vl import (
    LANGUAGE_MODEL,
    QwenVL,
    QwenVLConfig,
    read_decoder,
    rope_settings,
)

__all__ = ["COLQWEN3", "ENGINE", "NEMOTRON", "OPS", "Qwen3VL"]

ENGINE, COLQWEN3, OPS, NEMOTRON = "qwen3_vl", "colqwen3", "ops_colqwen3", "qwen3_vl_nemotron_embed"
"""The `model_type` of config.json: of colpali-engine's class, Tomoro's, Ops', and Nemotron's."""

_KINDS = (ENGINE, COLQWEN3, OPS, NEMOTRON)
# The defaults of transformers' classes: a file of some versions holds only values that differ from them.
_TEXT = {
    **{"hidden_size": 4096, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32},
    **{"head_dim": 128, "hidden_act": "silu", "rope_theta": 500_000.0, "qk_norm": True},
}
_SECTIONS = (24, 20, 20)
_VISION = {
    **{"depth": 27, "hidden_size": 1152, "hidden_act": "gelu_pytorch_tanh", "num_heads": 16, "patch_size": 16},
    **{"spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304},
    "deepstack_visual_indexes": (8, 16, 24),
}


class Qwen3VL(QwenVL):
    """The graphs of a checkpoint and their inputs."""

    def __init__(self, config: Mapping[str, Any], dim: int) -> None:
        super().__init__(config, dim)
        self._kind = config["model_type"]
        if self._kind == NEMOTRON:
            self.permitted = (*self.permitted, f"{LANGUAGE_MODEL}.norm")  # in the files, and not in its forward pass

    @staticmethod
    def read(config: Mapping[str, Any]) -> QwenVLConfig:
        """Read a config.json of one of the classes on Qwen3-VL."""
        kind = config.get("model_type")
        if kind not in _KINDS:
            raise ModelLoadError(f"config.json has model_type {kind!r}, expected one of {', '.join(_KINDS)}")
        if config.get("mask_non_image_embeddings"):
            raise ModelLoadError("config.json has mask_non_image_embeddings, which is not supported for this family")
        try:
            text = part_of(config, "text_config")
            sections = rope_settings(text).get("mrope_section") or _SECTIONS
            vision = {**_VISION, **part_of(config, "vision_config")}
            return QwenVLConfig(
                text=read_decoder(text, sections, **_TEXT),
                vision=TowerConfig.read(
                    vision,
                    side=square_side(int(vision["num_position_embeddings"])),
                    deep_layers=tuple(map(int, vision["deepstack_visual_indexes"])),
                ),
                axes=interleaved_axes(sections),
                image_token_id=int(config.get("image_token_id") or 151655),
                causal=kind != NEMOTRON,
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"config.json is not that of a {kind} model: {error!r}") from error

    def _decode(self, g: GraphBuilder, x: str, ids: str, positions: str, turn: AngleInputs) -> str:
        text, vision = self.config.text, self.config.vision
        pictures = g.op("Equal", ids, g.constant(self.config.image_token_id))
        rows = [g.input(name, np.float32, ["features", text.hidden_size]) for name in vision.features[1:]]
        return decoder(
            g,
            x,
            LANGUAGE_MODEL,
            text,
            positions,
            turn,
            causal=self.config.causal,
            stored_less_one=False,
            added=[partial(add_rows, g, mask=pictures, rows=one) for one in rows],
            last_norm=self._kind != NEMOTRON,
        )

    def _head(self, g: GraphBuilder, x: str) -> None:
        if self._kind != NEMOTRON:
            multi_vector_head(g, x, self._dim, cuttable=self._kind == OPS)
            return
        if (width := self.config.text.hidden_size) != self._dim:
            raise ModelLoadError(
                f"a {NEMOTRON} model has no retrieval head, its vectors have the {width} numbers of its hidden states; "
                f"the model's description says {self._dim}; pass dim={width}"
            )
        output_vectors(g, x, self._dim)
