"""The graphs of exports: token ids, pixels and mask in, multi-vectors out, as the original classes compute them.

Both wrappers have the inputs and outputs of the public ONNX exports. The fixtures are exported with them, and the model
of `benchmarks/make_replica.py`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["PaliGemmaGraph", "TiledGraph", "graph_of", "image_token"]


class PaliGemmaGraph(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
    """ColPali: the vision tower always runs; the package cuts it off for queries when it loads the graph.

    Args:
        model: transformers' `ColPaliForRetrieval` or colpali-engine's `ColPali`.
    """

    inputs = ("input_ids", "pixel_values", "attention_mask")

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, pixel_values: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed.

        Args:
            input_ids: int64 (batch, tokens).
            pixel_values: float32 (batch, 3, 448, 448).
            attention_mask: int64 (batch, tokens).

        Returns:
            (batch, tokens, 128) of the weights' type.
        """
        # All tokens are prefix (token type 0), so attention is bidirectional, as it was in training; only padding is
        # masked.
        outputs = self.model(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            token_type_ids=torch.zeros_like(input_ids),
            use_cache=False,
        )
        embeddings: Tensor = outputs if isinstance(outputs, Tensor) else outputs.embeddings
        return embeddings


class TiledGraph(nn.Module):  # type: ignore[misc]
    """ColModernVBERT and ColIdefics3 (ColSmol): pixels of tiles, blank tiles dropped.

    The classes' own forward cannot be traced (it splits the tiles by a Python list of counts and unfolds a mask of
    ones), so the same modules are called in the same order here. As in the public export the batch of tiles may be
    empty: the one blank tile of a query is dropped.

    Args:
        model: colpali-engine's `ColIdefics3` or `ColModernVBert`, or transformers' `ColModernVBertForRetrieval`.
    """

    inputs = ("input_ids", "attention_mask", "pixel_values")

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.inner = model.vlm if hasattr(model, "vlm") else model.model
        names = ("embedding_proj_layer", "custom_text_proj", "linear")
        self.projection = next(getattr(model, name) for name in names if hasattr(model, name))
        self.image_token = image_token(model)

    def forward(self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor) -> Tensor:
        """Embed.

        Args:
            input_ids: int64 (batch, tokens).
            attention_mask: int64 (batch, tokens).
            pixel_values: float32 (batch, tiles, 3, 512, 512).

        Returns:
            (batch, tokens, 128) of the weights' type.
        """
        tiles = pixel_values.reshape(-1, 3, pixel_values.shape[3], pixel_values.shape[4])
        tiles = tiles[(tiles != 0.0).any(dim=3).any(dim=2).any(dim=1)].to(self.projection.weight.dtype)
        features = self.inner.connector(self.inner.vision_model(pixel_values=tiles).last_hidden_state)
        embedded = self.inner.text_model.get_input_embeddings()(input_ids)
        holes = (input_ids == self.image_token).unsqueeze(-1)
        embedded = embedded.masked_scatter(holes, features.reshape(-1, embedded.shape[-1]))
        hidden = self.inner.text_model(inputs_embeds=embedded, attention_mask=attention_mask)[0]
        vectors = self.projection(hidden)
        vectors = vectors / vectors.norm(dim=-1, keepdim=True)
        masked: Tensor = vectors * attention_mask.unsqueeze(-1)
        return masked


def graph_of(family: str, model: Any) -> PaliGemmaGraph | TiledGraph:
    """Wrap a model of a family; changes the parts of the model that cannot be exported."""
    if family == "idefics3":
        return TiledGraph(model)
    _without_check(model)
    return PaliGemmaGraph(model)


def image_token(model: Any) -> int:
    """Id of `<image>`, which has two names in configurations."""
    config = model.config
    for part in (config, getattr(config, "vlm_config", None)):
        for name in ("image_token_id", "image_token_index"):
            if getattr(part, name, None) is not None:
                return int(getattr(part, name))
    raise AttributeError(f"no image token in {type(config).__name__}")


def _without_check(model: Any) -> None:
    """Leave out PaliGemma's check that the numbers of image tokens and features are equal.

    torch.export turns it into an operator that ONNX lacks, and a query, which has no image tokens, fails it.
    """
    token = image_token(model)

    def mask(input_ids: Tensor, **_: Any) -> Tensor:
        return (input_ids == token).unsqueeze(-1)

    for module in model.modules():
        if hasattr(module, "get_placeholder_mask"):
            module.get_placeholder_mask = mask
