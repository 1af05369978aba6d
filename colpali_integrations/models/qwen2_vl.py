"""ColQwen2, ColQwen2.5 and their kin, on Qwen2-VL and Qwen2.5-VL; a token stands for 28 x 28 pixels.

    page:   <|im_start|>user newline <|vision_start|> <|image_pad|> x rows x columns <|vision_end|>
            Describe the image.<|im_end|><|endoftext|>
    query:  "...", <|endoftext|> x 10        checkpoints differ in what stands around it, see `_PROMPTS`

(transformers 5.24 `ColQwen2Processor`; colpali-engine 0.3.18 `ColQwen2Processor`, `ColQwen2_5_Processor`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from colpali_integrations.models.builder.qwen2_vl import Qwen2VL
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.qwen_vl import AUGMENTATION, IMAGE_TOKEN, QwenVLFamily

__all__ = ["Qwen2VLFamily"]

_IMAGE_PROMPT = "<|im_start|>user\n<|vision_start|><image><|vision_end|>Describe the image.<|im_end|><|endoftext|>"
# The query strings of the two libraries: of transformers' class, and of colpali-engine since 0.3.13. Checkpoints that
# were trained with an earlier colpali-engine have "Query: " and no newline, which no file records.
_PROMPTS = {True: ("Query: ", f"{AUGMENTATION}\n"), False: ("", AUGMENTATION)}


class Qwen2VLFamily(QwenVLFamily):
    """Qwen2-VL or Qwen2.5-VL bound to the files of one checkpoint."""

    architecture = Qwen2VL
    # CLIP's colours, and limits of pixels.
    image_defaults: ClassVar[Mapping[str, Any]] = {
        "image_mean": (0.48145466, 0.4578275, 0.40821073),
        "image_std": (0.26862954, 0.26130258, 0.27577711),
        "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
    }

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Choose the prompts of transformers' class, which its files may replace, or those of colpali-engine's."""
        prefix, suffix = _PROMPTS[config.get("model_type") == "colqwen2"]
        image_prompt = str(processor.get("visual_prompt_prefix") or "").replace(IMAGE_TOKEN, "<image>")
        return replace(
            base,
            query_prefix=processor.get("query_prefix") or prefix,
            query_suffix=suffix,
            image_prompt=image_prompt or _IMAGE_PROMPT,
        )
