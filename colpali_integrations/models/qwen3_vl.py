"""ColQwen3 (Tomoro, Ops, Sauerkraut) and Nemotron ColEmbed, on Qwen3-VL; a token stands for 32 x 32 pixels.

    page:   <|im_start|>user newline <|vision_start|> <|image_pad|> x rows x columns <|vision_end|>
            Describe the image.<|im_end|><|endoftext|>
    query:  "...", <|endoftext|> x 10        classes differ in what stands around both, see `_prompts`

(colpali-engine 0.3.18 `ColQwen3Processor`; for the other classes the processors in their repositories.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.qwen3_vl import COLQWEN3, NEMOTRON, OPS, Qwen3VL
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.qwen_vl import AUGMENTATION, IMAGE_TOKEN, QWEN3_IMAGE_DEFAULTS, QwenVLFamily

__all__ = ["Qwen3VLFamily"]

_PICTURE = "<|im_start|>user\n<|vision_start|><image><|vision_end|>"
_ANSWER = "<|im_start|>assistant\n"
# Tomoro's processor has this limit unless another is given, whatever its files say.
_TOMORO_TOKENS = 1280


class Qwen3VLFamily(QwenVLFamily):
    """Qwen3-VL bound to the files of one checkpoint."""

    architecture = Qwen3VL
    image_defaults: ClassVar[Mapping[str, Any]] = QWEN3_IMAGE_DEFAULTS

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Choose the prompts of the checkpoint's class.

        Vectors have 320 numbers where config.json does not say it: those of colpali-engine's class, and of Tomoro's
        models, which stand first in the registry.
        """
        kind = config.get("model_type")
        prefix, suffix, image_prompt = _prompts(kind, processor)
        return replace(
            base,
            query_prefix=prefix,
            query_suffix=suffix,
            image_prompt=image_prompt,
            dim=part_of(config, "text_config").get("hidden_size", base.dim) if kind == NEMOTRON else base.dim,
            max_num_visual_tokens=_TOMORO_TOKENS if kind == COLQWEN3 and "embed_dim" in config else None,
        )


def _prompts(kind: Any, processor: Mapping[str, Any]) -> tuple[str, str, str]:
    """Query prefix, query suffix and image prompt of a class, with what its processor_config.json replaces."""
    if kind == NEMOTRON:
        query, page = (
            f"{word} " if (word := processor.get(key, default)) else ""
            for key, default in (("query_prefix", "query:"), ("passage_prefix", "passage:"))
        )
        end = f"<|im_end|>\n{_ANSWER}"
        return f"<|im_start|>user\nQuery: {query}", end, f"{_PICTURE}{page}{end}"
    end = f"<|im_end|>{_ANSWER}<|endoftext|>" if kind == OPS else "<|im_end|><|endoftext|>"
    before, after = processor.get("visual_prompt_prefix"), processor.get("visual_prompt_suffix")
    prompt = f"{before or ''}{after or ''}".replace(IMAGE_TOKEN, "<image>")
    prefix = processor.get("query_prefix", "Query: " if kind == OPS else "")
    return prefix or "", AUGMENTATION, prompt or f"{_PICTURE}Describe the image.{end}"
