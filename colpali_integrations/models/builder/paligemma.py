"""ColPali: SigLIP's tower, then Gemma, in which the tokens of page and prompt see each other in both directions.

(transformers `ColPaliForRetrieval`, colpali-engine `ColPali`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.decoder import DecoderConfig, decoder, token_feed, token_inputs
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import linear, multi_vector_head, place_features
from colpali_integrations.models.builder.vision import SiglipConfig, siglip
from colpali_integrations.runtime.arrays import Feed

__all__ = ["PaliGemma"]

_TEXT = "language_model"


class PaliGemma:
    """The graphs of a ColPali checkpoint, and their inputs.

    Args:
        config: its config.json: of the whole model, or of the PaliGemma in it, as colpali-engine saves it.
        dim: length of a vector.

    Attributes:
        prefix: as in `weights.canonical_name`.
        permitted: beginnings of the names of tensors that need not be read.

    Raises:
        ModelLoadError: the configuration is invalid or not supported.
    """

    prefix = _TEXT
    permitted: tuple[str, ...] = ("lm_head", f"{_TEXT}.lm_head", "vision_tower.head")

    def __init__(self, config: Mapping[str, Any], dim: int) -> None:
        whole = part_of(config, "vlm_config")
        self._text = DecoderConfig.read(part_of(whole, "text_config"))
        self._vision = SiglipConfig.read(part_of(whole, "vision_config"))
        self._image_id = int(whole.get("image_token_id") or whole.get("image_token_index") or 257152)
        self._dim = dim

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph, but for the features of pictures: none, as a query has it."""
        text = self._text
        feed = token_feed(ids, first=1, theta=text.rope_theta, head_dim=text.head_dim)  # PaliGemma counts from 1
        return {**feed, "features": np.zeros((0, text.hidden_size), np.float32)}

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """From pixel_values (batch, 3, size, size) to features, and from ids and features to embeddings."""
        return {"tower": self._build_tower, "text": self._build_text}

    def _build_tower(self, g: GraphBuilder) -> None:
        size, width = self._vision.image_size, self._text.hidden_size
        pixels = g.input("pixel_values", np.float32, ["batch", 3, size, size])
        x = linear(g, siglip(g, pixels, "vision_tower", self._vision), "multi_modal_projector.linear", bias=True)
        g.output(g.op("Reshape", x, g.constant([-1, width])), "features", ["features", width])

    def _build_text(self, g: GraphBuilder) -> None:
        text = self._text
        ids, positions, turn = token_inputs(g, text.head_dim)
        # Gemma scales its embeddings; the pictures' features go on as they are.
        factor = float(np.float32(text.hidden_size**0.5))
        table = g.table(f"{g.first_layer(f'{_TEXT}.embed_tokens', 'lm_head', f'{_TEXT}.lm_head')}.weight")
        x = place_features(g, ids, self._image_id, table, factor=factor, width=text.hidden_size)
        x = decoder(g, x, _TEXT, text, positions, turn, causal=False, stored_less_one=True)
        multi_vector_head(g, x, self._dim)
