"""SigLIP's vision tower, which PaliGemma and Idefics3 share (transformers `SiglipVisionTransformer`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colpali_integrations.models.builder.config import read_fields
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.layers import activation, attention, layer_norm, linear

__all__ = ["SiglipConfig", "siglip"]


@dataclass(frozen=True, kw_only=True)
class SiglipConfig:
    """A vision_config; the defaults are those of PaliGemma's tower."""

    hidden_size: int = 1152
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    image_size: int = 448
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @classmethod
    def read(cls, config: Mapping[str, Any], **defaults: Any) -> SiglipConfig:
        """Read a vision_config.

        Args:
            config: the vision_config.
            defaults: of another tower than PaliGemma's.

        Raises:
            ModelLoadError: a value has an invalid type.
        """
        return cls(**{**defaults, **read_fields(cls, config, "vision_config")})

    @property
    def side(self) -> int:
        """Patches per edge of a picture."""
        return self.image_size // self.patch_size


def siglip(g: GraphBuilder, pixels: str, name: str, config: SiglipConfig) -> str:
    """Encode pictures, (n, 3, image_size, image_size), to the hidden states of their patches, (n, patches, hidden)."""
    x = linear(g, _patches(g, pixels, config), f"{name}.embeddings.patch_embedding", bias=True)
    x = g.op("Add", x, g.weight(f"{name}.embeddings.position_embedding.weight"))
    heads, epsilon = config.num_attention_heads, config.layer_norm_eps
    size = config.hidden_size // heads
    for i in range(config.num_hidden_layers):
        layer = f"{name}.encoder.layers.{i}"
        y = layer_norm(g, x, f"{layer}.layer_norm1", epsilon)
        q, k, v = (linear(g, y, f"{layer}.self_attn.{part}_proj", bias=True) for part in "qkv")
        y = attention(g, q, k, v, heads=heads, size=size)
        x = g.op("Add", x, linear(g, y, f"{layer}.self_attn.out_proj", bias=True))
        y = linear(g, layer_norm(g, x, f"{layer}.layer_norm2", epsilon), f"{layer}.mlp.fc1", bias=True)
        x = g.op("Add", x, linear(g, activation(g, y, config.hidden_act), f"{layer}.mlp.fc2", bias=True))
    return layer_norm(g, x, f"{name}.post_layernorm", epsilon)


def _patches(g: GraphBuilder, pixels: str, config: SiglipConfig) -> str:
    """(n, 3, size, size) to (n, patches, 3 * patch * patch), in the order of a convolution's weights."""
    side, patch = config.side, config.patch_size
    x = g.op("Reshape", pixels, g.constant([-1, 3, side, patch, side, patch]))
    x = g.op("Transpose", x, perm=[0, 2, 4, 1, 3, 5])
    return g.op("Reshape", x, g.constant([0, side * side, 3 * patch * patch]))
