"""ColModernVBERT, ColSmol, ColUltraVBERT: tiles through SigLIP, 4 x 4 patches as one token, then the text model.

That is ModernBERT, Llama or UltraBERT. (transformers `ColModernVBertForRetrieval`, `UltraVBertModel`; colpali-engine
`ColModernVBert`, `ColIdefics3`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.models.builder.config import part_of
from colpali_integrations.models.builder.decoder import DecoderConfig, decoder, token_feed, token_inputs
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import (
    first_numbers,
    multi_vector_head,
    output_vectors,
    place_features,
    rms_norm,
)
from colpali_integrations.models.builder.modernbert import ModernBert
from colpali_integrations.models.builder.ultrabert import UltraBert
from colpali_integrations.models.builder.vision import SiglipConfig, siglip
from colpali_integrations.runtime.arrays import Feed

__all__ = ["Idefics3"]

_TEXT = "text_model"
_LLAMA = {"hidden_act": "silu", "num_key_value_heads": 32, "num_attention_heads": 32, "hidden_size": 4096}
# Defaults of the classes of the two towers, which their configurations leave out.
_SIGLIP = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 224, "patch_size": 16}
_IDEFICS3_TOWER = {"hidden_size": 1152, "num_hidden_layers": 12, "image_size": 224, "patch_size": 32}


class _TextModel(Protocol):
    width: int

    def feed(self, ids: NDArray[np.int64]) -> Feed: ...

    def build(self, g: GraphBuilder, image_id: int) -> str: ...


class Idefics3:
    """The graphs of a ColModernVBERT, ColSmol or ColUltraVBERT checkpoint, and their inputs.

    Args:
        config: its config.json.
        dim: length of a vector.

    Attributes:
        prefix: as in `weights.canonical_name`.
        permitted: beginnings of the names of tensors that need not be read.
        width: of the text model's hidden states.

    Raises:
        ModelLoadError: the configuration is invalid or not supported.
    """

    prefix = _TEXT
    # Heads of pre-training, in the names of transformers and of the first UltraVBERT.
    permitted: tuple[str, ...] = ("lm_head", "vision_model.head", f"{_TEXT}.lm_head", "head", "projection_head")

    def __init__(self, config: Mapping[str, Any], dim: int) -> None:
        whole = part_of(config, "vlm_config")
        text, vision = part_of(whole, "text_config"), part_of(whole, "vision_config")
        kind = str(text.get("model_type", whole.get("model_type", "")))
        encoder = "modern" in kind or "ultra" in kind
        self._text: _TextModel = _text_model(kind, text)
        self._vision = SiglipConfig.read(vision, **(_SIGLIP if encoder else _IDEFICS3_TOWER))
        self._shuffle = int(whole.get("pixel_shuffle_factor") or whole.get("scale_factor") or (4 if encoder else 2))
        self._image_id = int(whole.get("image_token_id") or whole.get("image_token_index") or _image_token(kind))
        self._dim = dim
        self.width = self._text.width

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        """The inputs of the text graph, but for the features of pictures: none, as a query has it."""
        return {**self._text.feed(ids), "features": np.zeros((0, self.width), np.float32)}

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """From pixel_values (batch, tiles, 3, size, size) to features, and from ids and features to embeddings."""
        return {"tower": self._build_tower, "text": self._build_text}

    def _build_tower(self, g: GraphBuilder) -> None:
        vision, times = self._vision, self._shuffle
        size, side = vision.image_size, vision.side // times
        pixels = g.input("pixel_values", np.float32, ["batch", "tiles", 3, size, size])
        x = siglip(g, pixels, "vision_model", vision)
        x = g.op("Reshape", x, g.constant([0, side, times, side, times, vision.hidden_size]))
        x = g.op("Transpose", x, perm=[0, 1, 3, 2, 4, 5])
        x = g.op("Reshape", x, g.constant([-1, times * times * vision.hidden_size]))
        connector = "connector.modality_projection"
        x = g.product(x, f"{g.first_layer(f'{connector}.proj', connector)}.weight")
        if isinstance(self._text, UltraBert):  # it has no norm of its own behind the embeddings
            x = rms_norm(g, x, g.weight("connector.norm.weight"), self._text.config.rms_norm_eps)
        g.output(x, "features", ["features", self.width])

    def _build_text(self, g: GraphBuilder) -> None:
        x = self._text.build(g, self._image_id)
        if isinstance(self._text, UltraBert) and not g.holds("linear.weight"):
            output_vectors(g, first_numbers(g, x, self._dim), self._dim)
        else:
            multi_vector_head(g, x, self._dim, cuttable=isinstance(self._text, UltraBert))


def _text_model(kind: str, config: Mapping[str, Any]) -> _TextModel:
    if "modern" in kind:
        return ModernBert(config, _TEXT)
    return UltraBert(config, _TEXT) if "ultra" in kind else _Llama(config)


def _image_token(kind: str) -> int:
    """The default of the class."""
    return 49191 if "ultra" in kind else 50407


class _Llama:
    """ColSmol's text model, in which a token sees only those before it."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        text = DecoderConfig.read(config, **_LLAMA)
        # Llama's heads divide its width unless a configuration says otherwise.
        size = config.get("head_dim") or text.hidden_size // text.num_attention_heads
        groups = config.get("num_key_value_heads") or text.num_attention_heads
        self._config = DecoderConfig.read(config, **{**_LLAMA, "head_dim": size, "num_key_value_heads": groups})
        self.width = text.hidden_size

    def feed(self, ids: NDArray[np.int64]) -> Feed:
        return token_feed(ids, first=0, theta=self._config.rope_theta, head_dim=self._config.head_dim)

    def build(self, g: GraphBuilder, image_id: int) -> str:
        ids, positions, turn = token_inputs(g, self._config.head_dim)
        table = g.table(f"{g.first_layer(f'{_TEXT}.embed_tokens', 'lm_head')}.weight")
        x = place_features(g, ids, image_id, table, width=self.width)
        return decoder(g, x, _TEXT, self._config, positions, turn, causal=True, stored_less_one=False)
