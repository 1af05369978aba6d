"""ColPali on PaliGemma: a page is one square picture of 32 x 32 patches, then a short prompt.

    page:   <image> x 1024, <bos>, "Describe the image.", newline      448 x 448 pixels, aspect not kept, bicubic
    query:  <bos>, "Query: ..." (the words differ between checkpoints), <pad> x 10, newline

The ten pads are attended to: they are query augmentation, not padding. The image tokens stand row by row, so vector
`r * 32 + c` of a page sees the patch in row r, column c. (transformers `ColPaliProcessor`; colpali-engine's
`ColPaliProcessor` since 0.3.4, whose page prompt has a second <bos>.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.models.transformer import (
    PixelScale,
    QueryCodec,
    TransformerCodec,
    TransformerFamily,
    image_settings,
)
from colpali_integrations.runtime.arrays import Feed, Outputs

__all__ = ["PaliGemmaFamily", "PaliGemmaPages"]


class PaliGemmaFamily(TransformerFamily):
    """PaliGemma bound to the files of one model."""

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        vocabulary = Vocabulary(directory)
        inputs = built = None
        if description.is_checkpoint:
            from colpali_integrations.models.builder.checkpoint_graph import checkpoint_graphs
            from colpali_integrations.models.builder.paligemma import PaliGemma

            architecture = PaliGemma(read_json(base or directory, "config.json"), description.dim)
            inputs, built = architecture.feed, checkpoint_graphs(architecture, directory, description, base)
        pages = PaliGemmaPages(description, directory, vocabulary, inputs)
        width, height = pages.size
        blank = (3, height, width)
        queries = QueryCodec(vocabulary, description, blank_pixels=blank, template=False, inputs=inputs)
        super().__init__(description, directory, queries=queries, pages=pages, built=built)


class PaliGemmaPages(TransformerCodec):
    """Pages: one size, one prompt. The vectors of a page are its patches row by row, then the prompt's tokens.

    Args:
        description: the prompt.
        directory: the folder with preprocessor_config.json.
        vocabulary: the model's tokenizer.
        inputs: as of `TransformerCodec`.

    Attributes:
        size: (width, height) in pixels.
    """

    def __init__(
        self,
        description: ModelDescription,
        directory: Path,
        vocabulary: Vocabulary,
        inputs: Callable[[NDArray[np.int64]], Feed] | None = None,
    ) -> None:
        super().__init__(description.dim, inputs)
        config, path = image_settings(directory)
        size = config.get("size", {})
        try:
            self.size = int(size["width"]), int(size["height"])
        except (KeyError, TypeError) as error:
            raise ModelLoadError(f"{path}: size must hold height and width, got {size!r}") from error
        n_patches = int(config.get("image_seq_length", 1024))
        prompt = description.image_prompt.replace("<image>", "<image>" * n_patches)
        self._ids = np.array(vocabulary.prompt_ids(prompt), dtype=np.int64)
        patches = self._ids == vocabulary.token_id("<image>")
        if patches.sum() != n_patches:
            raise ModelLoadError(f"{description.name}: the image prompt must contain <image> once, as a special token")
        self._scale = PixelScale(config, path)
        self._resample = Image.Resampling(int(config.get("resample", Image.Resampling.BICUBIC)))
        self._grid = _patch_grid(patches)

    def prepare(self, item: Image.Image) -> Prepared:
        """Resize and scale; every page has the same shape."""
        pixels = self._scale(item.resize(self.size, self._resample))
        return Prepared("page", {"input_ids": self._ids, "pixel_values": pixels})

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid of patches that the page is stretched over."""
        return [PageEmbedding(rows, self._grid) for rows in self.vectors(outputs, batch)]


def _patch_grid(patches: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> PageGrid:
    """The square grid of a page's patches, row by row, from the mask (n_tokens,) of the tokens that are patches.

    SigLIP's encoder cuts the square picture into as many rows as columns, and the projector keeps their order
    (transformers `SiglipVisionEmbeddings`, `PaliGemmaMultiModalProjector`).
    """
    n = int(patches.sum())
    side = math.isqrt(n)
    cells = np.full(len(patches), -1, np.int32)
    # No PaliGemma has a number of patches that is not a square; the page of such a model is one cell.
    cells[patches] = np.arange(n) if side * side == n else 0
    return PageGrid(side, side, cells) if side * side == n else PageGrid(1, 1, cells)
