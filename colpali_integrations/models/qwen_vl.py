"""Base of the families on Qwen's vision models: a page becomes as many tokens as its shape and a budget allow.

A page is resized to multiples of a token's edge (28 pixels; 32 from Qwen3-VL on), bicubic, close to its own size and
aspect, within the limits of pixels; tokens stand row by row. (transformers 5.24 `Qwen2VLImageProcessorPil`.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.builder.checkpoint_graph import checkpoint_graphs
from colpali_integrations.models.builder.positions import mrope_positions
from colpali_integrations.models.builder.qwen_vl import QwenVL
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.models.resizing import smart_resize
from colpali_integrations.models.sentence_transformers import Modules
from colpali_integrations.models.transformer import (
    PixelScale,
    QueryCodec,
    TransformerCodec,
    TransformerFamily,
    image_settings,
)
from colpali_integrations.runtime.arrays import Feed, Outputs

__all__ = ["AUGMENTATION", "IMAGE_TOKEN", "QWEN3_IMAGE_DEFAULTS", "QwenVLFamily", "QwenVLPages"]

IMAGE_TOKEN = "<|image_pad|>"
"""The token that stands for one feature of a page."""

AUGMENTATION = "<|endoftext|>" * 10
"""What colpali-engine and its kin put behind a query; attended to, and vectors of the query."""

QWEN3_IMAGE_DEFAULTS: Mapping[str, Any] = {
    "image_mean": 0.5,
    "image_std": 0.5,
    "size": {"shortest_edge": 256 * 256, "longest_edge": 4096 * 4096},
}
"""The settings of an image processor from Qwen3-VL on that its files need not hold."""


class QwenVLFamily(TransformerFamily):
    """A family bound to the files of one checkpoint; a subclass names its architecture.

    Args:
        description: the model.
        directory: the folder of its tokenizer and image processor, and of its weights, which may be an adapter's.
        base: the folder of the checkpoint that an adapter adapts; None for weights without an adapter.

    Attributes:
        architecture: makes its graphs from a config.json and the length of a vector.
        image_defaults: the settings of its image processor that its files need not hold.
    """

    architecture: ClassVar[type[QwenVL]]
    image_defaults: ClassVar[Mapping[str, Any]]

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        model = self.architecture(read_json(base or directory, "config.json"), description.dim)
        vocabulary = Vocabulary(directory)
        modules = Modules.read(directory)
        kept = {} if modules is None else {task: modules.kept(task, vocabulary) for task in ("query", "document")}

        def texts(described: ModelDescription, task: str, kind: str = "query") -> QueryCodec:
            settings: dict[str, Any] = {"blank_pixels": (), "template": False, "kind": kind}
            return QueryCodec(vocabulary, described, **settings, inputs=model.query_feed, kept=kept.get(task))

        super().__init__(
            description,
            directory,
            queries=texts(description if modules is None else modules.query(description, vocabulary), "query"),
            pages=QwenVLPages(description, directory, vocabulary, model, self.image_defaults, kept.get("document")),
            built=checkpoint_graphs(model, directory, description, base),
        )
        if modules is not None:
            self.texts = texts(modules.text(description, vocabulary), "document", "text")


class QwenVLPages(TransformerCodec):
    """Pages: as many tokens as the shape asks for; pages with equal rows and columns share a run.

    The vectors of a page are those of the prompt's tokens, with its own between them, row by row.

    Args:
        description: the page prompt, with `<image>` where the picture stands; the budget of tokens, where it is not
            that of the files.
        directory: the folder with preprocessor_config.json or processor_config.json.
        vocabulary: the model's tokenizer.
        model: the architecture.
        defaults: settings that the files need not hold.
        kept: as of `TransformerCodec`.
    """

    def __init__(
        self,
        description: ModelDescription,
        directory: Path,
        vocabulary: Vocabulary,
        model: QwenVL,
        defaults: Mapping[str, Any],
        kept: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
    ) -> None:
        super().__init__(description.dim, kept=kept)
        found, path = image_settings(directory)
        settings = {**defaults, **found}
        self._model = model
        self._patch, self._merge = model.config.vision.patch_size, model.config.vision.merge
        self._factor = self._patch * self._merge
        self._limits = _pixel_limits(settings, path)
        if description.max_num_visual_tokens is not None:
            self._limits = self._limits[0], description.max_num_visual_tokens * self._factor**2
        self._scale = PixelScale(settings, path)
        self._resample = Image.Resampling(int(settings.get("resample", Image.Resampling.BICUBIC)))
        self._image = model.config.image_token_id
        self._before, self._after = self._prompt(description, vocabulary)

    def prepare(self, item: Image.Image) -> Prepared:
        """Resize, scale and cut into patches; the result's `extra` is rows and columns of tokens.

        Raises:
            ImageError: the page is more than 200 times as long as wide, or as wide as long.
        """
        width, height = smart_resize(*item.size, factor=self._factor, limits=self._limits)
        rows, columns = height // self._factor, width // self._factor
        pixels = _patches(self._scale(item.resize((width, height), self._resample)), self._patch, self._merge)
        ids = np.array([*self._before, *[self._image] * (rows * columns), *self._after], np.int64)
        return Prepared((rows, columns), {"input_ids": ids, "pixel_values": pixels}, extra=(rows, columns))

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """The inputs of both graphs."""
        ids, pixels = (np.stack([item.arrays[name] for item in batch]) for name in ("input_ids", "pixel_values"))
        rows, columns = batch[0].extra
        places = mrope_positions(ids.shape[1], first=len(self._before), rows=rows, columns=columns)
        return {**self._model.tower_feed(pixels, rows, columns), **self._model.text_feed(ids, places)}

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid of tokens that the page is stretched over."""
        rows, columns = batch[0].extra
        cells = np.full(len(batch[0].ids), -1, np.int32)
        cells[len(self._before) : len(self._before) + rows * columns] = np.arange(rows * columns)
        grid = PageGrid(rows, columns, cells[self.kept(batch[0].ids)])
        return [PageEmbedding(vectors, grid) for vectors in self.vectors(outputs, batch)]

    def _prompt(self, description: ModelDescription, vocabulary: Vocabulary) -> tuple[list[int], list[int]]:
        """Ids before and after those of the image."""
        parts = description.image_prompt.split("<image>")
        if len(parts) != 2:
            raise ModelLoadError(
                f"{description.name}: the image prompt must contain <image> once, got {description.image_prompt!r}"
            )
        before, after = map(vocabulary.prompt_ids, parts)
        if vocabulary.prompt_ids(IMAGE_TOKEN.join(parts)) != [*before, self._image, *after]:
            raise ModelLoadError(
                f"{description.name}: the tokenizer makes other ids of {IMAGE_TOKEN!r} in the image prompt than "
                f"{self._image}, the image_token_id of config.json; do the files belong to one checkpoint?"
            )
        return before, after


def _pixel_limits(settings: Mapping[str, Any], path: Path) -> tuple[int, int]:
    """The least and the largest number of pixels; files of 2024 and 2025 call them min_pixels and max_pixels."""
    size = settings["size"]
    try:
        least, most = (
            int(settings.get(old) or size.get(new) or size[old])
            for old, new in (("min_pixels", "shortest_edge"), ("max_pixels", "longest_edge"))
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"{path}: size must hold shortest_edge and longest_edge, got {size!r}") from error
    return least, most


def _patches(pixels: NDArray[np.float32], patch: int, merge: int) -> NDArray[np.float32]:
    """(3, height, width) to (n_patches, 3 * patch * patch), each (colour, row, column), in `positions.merged_order`."""
    _, height, width = pixels.shape
    cut = pixels.reshape(3, height // patch // merge, merge, patch, width // patch // merge, merge, patch)
    patches: NDArray[np.float32] = cut.transpose(1, 4, 2, 5, 0, 3, 6).reshape(-1, 3 * patch * patch)
    return patches
