"""ColQwen3.5 and its kin, and pplx-embed-v2-late, on Qwen3.5; a token stands for 32 x 32 pixels.

              ColQwen3.5                                          pplx-embed-v2-late
    page:     <|im_start|>user newline PICTURE                    [D] PICTURE
              Describe the image.<|im_end|><|endoftext|>
    text:     as a query                                          [D] text, without the vectors of punctuation
    query:    text <|endoftext|> x 10                             [Q] text

PICTURE is <|vision_start|>, <|image_pad|> x rows x columns and <|vision_end|>; "[D] " and "[Q] " are tokens.
(colpali-engine 0.3.18 `ColQwen3_5Processor`; sentence-transformers 6.2 `MultiVectorEncoder`.)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from colpali_integrations.models.builder.qwen3_5 import Qwen3_5
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.qwen_vl import AUGMENTATION, QWEN3_IMAGE_DEFAULTS, QwenVLFamily
from colpali_integrations.models.unsupported import describe_by_hand

__all__ = ["Qwen3_5Family"]

_PICTURE = "<|vision_start|><image><|vision_end|>"
_IMAGE_PROMPT = f"<|im_start|>user\n{_PICTURE}Describe the image.<|im_end|><|endoftext|>"
# The class of a backbone, which sentence-transformers saves; the words around a picture are those of its prompts.
_BACKBONE = "Qwen3_5Model"


class Qwen3_5Family(QwenVLFamily):
    """Qwen3.5 bound to the files of one checkpoint."""

    architecture = Qwen3_5
    image_defaults: ClassVar[Mapping[str, Any]] = QWEN3_IMAGE_DEFAULTS

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Choose the prompts of colpali-engine's class, or none for a backbone.

        Raises:
            ModelLoadError: the repository has code of its own for the model, which may have other prompts.
        """
        if "auto_map" in config:
            raise describe_by_hand(
                f"the class {config.get('architectures')} is code in the model's repository, which is not run, so the "
                "prompts of its training are unknown",
                "register_model(ModelDescription(name=..., family='qwen3_5', repository=..., "
                f"dim={config.get('embedding_dim', base.dim)}, model_file={base.model_file!r}, "
                f"additional_files={base.additional_files!r}, query_suffix={AUGMENTATION!r}, "
                f"image_prompt={_IMAGE_PROMPT!r})), whose prompts are those of colpali-engine's class",
            )
        backbone = config.get("architectures") == [_BACKBONE]
        return replace(
            base,
            query_prefix="",
            query_suffix="" if backbone else AUGMENTATION,
            image_prompt=_PICTURE if backbone else _IMAGE_PROMPT,
            dim=128,  # of colpali-engine's class, where config.json has no other
            max_query_tokens=ModelDescription.max_query_tokens,
        )
