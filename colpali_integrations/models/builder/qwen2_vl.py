"""Qwen2-VL and Qwen2.5-VL with a retrieval head: ColQwen2, ColQwen2.5 and their kin. The decoder is causal.

(transformers 5.24 `ColQwen2ForRetrieval`, `Qwen2_5_VLModel`; colpali-engine 0.3.18 `ColQwen2`, `ColQwen2_5`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.positions import sectioned_axes
from colpali_integrations.models.builder.qwen_tower import TowerConfig
from colpali_integrations.models.builder.qwen_vl import QwenVL, QwenVLConfig, read_decoder, rope_settings

__all__ = ["Qwen2VL"]

# The defaults of transformers' classes: a file of some versions holds only values that differ from them.
_TEXT = {
    **{"hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64, "num_key_value_heads": 8},
    **{"rms_norm_eps": 1e-5, "hidden_act": "silu", "rope_theta": 1_000_000.0, "qkv_bias": True},
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


class Qwen2VL(QwenVL):
    """The graphs of a checkpoint and their inputs."""

    @staticmethod
    def read(config: Mapping[str, Any]) -> QwenVLConfig:
        """Read a config.json of either version, of a class that wraps the model, or of 2024."""
        whole = part_of(config, "vlm_config")
        kind = whole.get("model_type")
        if kind not in _VISION_OF:
            raise ModelLoadError(f"config.json has model_type {kind!r}, expected one of {', '.join(_VISION_OF)}")
        try:
            text = part_of(whole, "text_config")  # files of 2024 have its values at the top
            sections = rope_settings(text).get("mrope_section") or _SECTIONS
            vision = {**_VISION_OF[kind], **part_of(whole, "vision_config")}
            return QwenVLConfig(
                text=read_decoder(text, sections, **_TEXT),
                vision=_windowed(vision) if kind == "qwen2_5_vl" else TowerConfig.read(vision, width="embed_dim"),
                axes=sectioned_axes(sections),
                image_token_id=int(whole.get("image_token_id") or 151655),
            )
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise ModelLoadError(f"config.json is not that of a {kind} model: {error!r}") from error


def _windowed(vision: Mapping[str, Any]) -> TowerConfig:
    window = int(vision["window_size"]) // int(vision["spatial_merge_size"]) // int(vision["patch_size"])
    return TowerConfig.read(vision, window=window, full_layers=frozenset(vision["fullatt_block_indexes"]))
