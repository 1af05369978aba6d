"""Tiny random-weight models of the real families, made by the reference libraries' own classes.

The architectures are kept true where the package depends on them (448 x 448 in patches of 14, so 1024 image
tokens; 512 x 512 tiles of 64 tokens; multi-query attention; embeddings of 128) and tiny everywhere else.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from . import torchvision_shim  # noqa: F401  # isort: skip  (must come before the two libraries)

from colpali_engine.models import ColIdefics3, ColModernVBert
from torch import nn
from transformers import (
    ColPaliConfig,
    ColPaliForRetrieval,
    GemmaConfig,
    Idefics3Config,
    LlamaConfig,
    ModernBertConfig,
    ModernVBertConfig,
    PaliGemmaConfig,
    SiglipVisionConfig,
)

SEED = 20240627


def fill(model: nn.Module, seed: int) -> None:
    """Gives every weight a random value on which the output really depends.

    The libraries' own initial values (standard deviation 0.02) make a model this small almost blind: its
    pages all look alike, and a test against it would pass with wrong pixels. Weights are instead drawn so
    that activations keep their size from layer to layer. Every value is rounded to float16, so the float16
    export holds the same weights.

    Args:
        model: Changed in place.
        seed: Seeds a generator of its own.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1:
                gemma = "language_model" in name  # Gemma's norm multiplies by 1 + weight
                centre = 1.0 if "norm" in name and name.endswith("weight") and not gemma else 0.0
                value = centre + 0.05 * noise
            elif "position_embedding" in name:
                value = 0.2 * noise
            elif "embed_tokens" in name or "tok_embeddings" in name:
                value = noise / math.sqrt(parameter.shape[-1]) if "embed_tokens" in name else noise
            else:
                value = noise * math.sqrt(1.5 / parameter[0].numel())
                if "patch_embedding" in name:
                    value = 3.0 * value
            parameter.copy_(value.half().float())


def _vision(image_size: int, patch_size: int, **more: Any) -> dict[str, Any]:
    return {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": image_size,
        "patch_size": patch_size,
        **more,
    }


def colpali(vocabulary: int, image_token: int, *, layers: int = 2) -> ColPaliForRetrieval:
    """Makes a tiny ColPali (transformers' class).

    Args:
        vocabulary: Number of tokens.
        image_token: Id of ``<image>``.
        layers: Of the language model.

    Returns:
        The model, in evaluation mode.
    """
    text = GemmaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=2048,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    config = ColPaliConfig(
        vlm_config=PaliGemmaConfig(
            vision_config=SiglipVisionConfig(**_vision(448, 14, vision_use_head=False, num_hidden_layers=layers)),
            text_config=text,
            image_token_index=image_token,
            vocab_size=vocabulary,
            projection_dim=32,
            hidden_size=32,
        ),
        embedding_dim=128,
    )
    config._attn_implementation = "eager"
    model = ColPaliForRetrieval(config).eval()
    fill(model, SEED)
    return model


def colmodernvbert(vocabulary: int, image_token: int, ids: dict[str, int], *, layers: int = 3) -> ColModernVBert:
    """Makes a tiny ColModernVBert (colpali-engine's class).

    Args:
        vocabulary: Number of tokens.
        image_token: Id of ``<image>``.
        ids: Ids of ``[PAD]``, ``[CLS]`` and ``[SEP]``.
        layers: Of the text model.

    Returns:
        The model, in evaluation mode.
    """
    text = ModernBertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=2048,
        local_attention=128,
        global_attn_every_n_layers=3,
        pad_token_id=ids["[PAD]"],
        bos_token_id=ids["[CLS]"],
        cls_token_id=ids["[CLS]"],
        eos_token_id=ids["[SEP]"],
        sep_token_id=ids["[SEP]"],
    )
    config = ModernVBertConfig(
        text_config=text,
        vision_config=SiglipVisionConfig(**_vision(512, 16)),
        image_token_id=image_token,
        pixel_shuffle_factor=4,
    )
    config._attn_implementation = "eager"
    model = ColModernVBert(config).eval()
    fill(model, SEED + 1)
    return model


def colidefics3(vocabulary: int, image_token: int, end: int, *, layers: int = 2) -> ColIdefics3:
    """Makes a tiny ColIdefics3, the architecture of ColSmol (colpali-engine's class).

    Args:
        vocabulary: Number of tokens.
        image_token: Id of ``<image>``.
        end: Id of ``<|endoftext|>``.
        layers: Of the language model.

    Returns:
        The model, in evaluation mode.
    """
    text = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
    )
    config = Idefics3Config(
        text_config=text,
        vision_config=_vision(512, 16),
        image_token_id=image_token,
        scale_factor=4,
        pad_token_id=end,
    )
    config._attn_implementation = "eager"
    model = ColIdefics3(config).eval()
    fill(model, SEED + 2)
    return model


class MergedByShapeGraph(nn.Module):  # type: ignore[misc]
    """A ColPali whose merge of image and text asks for the shape of the image features.

    Not the class's forward, but the same modules: a graph of another build, at which the splitter finds two tensors
    that pass from the tower to the rest, one of them read for its shape only.
    """

    def __init__(self, model: ColPaliForRetrieval, image_token: int) -> None:
        """Wraps the model.

        Args:
            model: In evaluation mode.
            image_token: Id of ``<image>``.
        """
        super().__init__()
        self.model = model
        self.image_token = image_token

    def forward(
        self, input_ids: torch.Tensor, pixel_values: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Embeds; arguments and result as in `PaliGemmaGraph`."""
        parts = self.model.vlm
        features = parts.multi_modal_projector(parts.vision_tower(pixel_values).last_hidden_state)
        embedded = parts.language_model.get_input_embeddings()(input_ids)
        width = features.shape[2]
        merged = torch.zeros(input_ids.shape[0], input_ids.shape[1], width, dtype=embedded.dtype)
        image = (input_ids == self.image_token).unsqueeze(-1).expand(-1, -1, width)
        merged = torch.where(image, merged, embedded).masked_scatter(image, features / math.sqrt(width))
        blocked = (1.0 - attention_mask[:, None, None, :].to(embedded.dtype)) * torch.finfo(embedded.dtype).min
        positions = torch.arange(input_ids.shape[1]).unsqueeze(0) + 1
        length = input_ids.shape[1]
        hidden = parts.language_model(
            inputs_embeds=merged,
            attention_mask=blocked.expand(-1, 1, length, length),
            position_ids=positions,
            use_cache=False,
        )[0]
        vectors = self.model.embedding_proj_layer(hidden)
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        masked: torch.Tensor = vectors * attention_mask.unsqueeze(-1)
        return masked
