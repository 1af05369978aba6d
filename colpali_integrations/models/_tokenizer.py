"""What the families with a transformer share: pixels, ids, and cutting outputs into multi-vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from colpali_integrations.errors import EncodingError, ModelLoadError
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.prompt import QueryPrompt
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs

__all__ = ["PixelScale", "QueryCodec", "resize", "stack", "unit_rows"]


class PixelScale:
    """Scale uint8 pixels to the floats a model was trained on: ``(x * rescale_factor - mean) / std``, per channel.

    There are only 256 values per channel, so they are computed once, in the reference's order of operations (float64
    product, rounded to float32, then float32 arithmetic; transformers `image_transforms.rescale` and `normalize`),
    and looked up. The result equals the reference's bit for bit and costs one pass over the pixels.

    Args:
        config: a preprocessor_config.json.
        path: where it was read, for messages.

    Raises:
        ModelLoadError: `image_mean` or `image_std` is not a number or three of them.
    """

    def __init__(self, config: dict[str, Any], path: Path) -> None:
        values = np.arange(256, dtype=np.float64)
        if config.get("do_rescale", True):
            values = values * config.get("rescale_factor", 1 / 255)
        table = np.tile(values.astype(np.float32)[:, None], (1, 3))
        if config.get("do_normalize", True):
            try:
                mean = np.broadcast_to(np.asarray(config.get("image_mean", 0.5), dtype=np.float32), (3,))
                std = np.broadcast_to(np.asarray(config.get("image_std", 0.5), dtype=np.float32), (3,))
            except ValueError as error:
                raise ModelLoadError(
                    f"{path}: image_mean and image_std must hold one number or three: {error}"
                ) from error
            table = (table - mean) / std
        self._table = np.ascontiguousarray(table.T)

    def __call__(self, image: Image.Image) -> Float32:
        """An RGB image as (3, height, width) float32."""
        pixels = np.asarray(image)
        scaled = np.empty((3, *pixels.shape[:2]), dtype=np.float32)
        for channel in range(3):
            np.take(self._table[channel], pixels[:, :, channel], out=scaled[channel])
        return scaled


class QueryCodec:
    """Queries of a merged transformer export: ids of one length per batch, and blank pixels where the graph needs them.

    Args:
        prompt: makes the ids.
        blank_pixels: (…) shape of one item's pixel_values for a text query.
        dim: length of a vector.
    """

    def __init__(self, prompt: QueryPrompt, *, blank_pixels: tuple[int, ...], dim: int) -> None:
        self._prompt = prompt
        self._blank = blank_pixels
        self._dim = dim

    def prepare(self, item: str) -> Prepared:
        """Tokenize. Queries of equal length share a run, so that none needs padding."""
        ids = self._prompt.ids(item)
        return Prepared(len(ids), {"input_ids": ids})

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids, mask and types, and a blank image that a split graph ignores."""
        feed = stack(batch)
        # Broadcast, not allocated: a split graph never touches it.
        feed["pixel_values"] = np.broadcast_to(np.float32(0), (len(batch), *self._blank))
        return feed

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One (n_tokens, dim) array per query."""
        return unit_rows(outputs, batch, self._dim)


def resize(image: Image.Image, width: int, height: int, resample: int) -> Image.Image:
    """Pillow's resize, which filters when it shrinks; it equals transformers' PIL backend bit for bit."""
    return image.resize((width, height), Image.Resampling(resample))


def stack(batch: Sequence[Prepared]) -> Feed:
    """The items' arrays with a batch axis, plus the attention mask and the token types of unpadded rows."""
    feed = {name: np.stack([item.arrays[name] for item in batch]) for name in batch[0].arrays}
    feed["attention_mask"] = np.ones_like(feed["input_ids"])
    # Some exports ask for them; PaliGemma's mean "part of the prefix", which sees itself in both directions.
    feed["token_type_ids"] = np.zeros_like(feed["input_ids"])
    return feed


def unit_rows(outputs: Outputs, batch: Sequence[Prepared], dim: int) -> list[Float32]:
    """Cut a graph's first output (batch, n_tokens, dim) into one array per item.

    Half-precision rows are scaled to length 1 again after the conversion, which rounding has moved by up to 1e-3.

    Raises:
        EncodingError: the output has another shape.
    """
    name, embeddings = next(iter(outputs.items()))
    expected = (len(batch), len(batch[0].ids), dim)
    if embeddings.shape != expected:
        raise EncodingError(
            f"output {name!r} has shape {embeddings.shape}, expected {expected} (batch, tokens, dim); does the "
            "description's dim fit the model?"
        )
    rows = embeddings.astype(np.float32, copy=False)
    if embeddings.dtype == np.float16:
        rows = rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), np.finfo(np.float32).tiny)
    # A view would keep the whole batch in memory for as long as one of its items lives.
    return [row.copy() for row in rows]
