"""ColPali on PaliGemma: a page is one square picture of 32 x 32 patches, then a short prompt.

    page:   <image> x 1024, <bos>, "Describe the image.", newline      448 x 448 pixels, aspect not kept, bicubic
    query:  <bos>, "Query: ..." (the words differ between checkpoints), <pad> x 10, newline

The ten pads are attended to: they are query augmentation, not padding. The image tokens stand row by row, so vector
`r * 32 + c` of a page sees the patch in row r, column c. (transformers `ColPaliProcessor`; colpali-engine's
`ColPaliProcessor` since 0.3.4, whose page prompt has a second <bos>.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models._tokenizer import PixelScale, QueryCodec, resize, stack, unit_rows
from colpali_integrations.models.family import Codec, PageCodec, Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import QueryPrompt, Vocabulary
from colpali_integrations.models.registry import ModelDescription
from colpali_integrations.runtime.arrays import Feed, Float32, GraphFiles, Outputs

__all__ = ["PaliGemmaFamily", "PaliGemmaPages"]


class PaliGemmaFamily:
    """PaliGemma bound to the files of one model."""

    queries: Codec[str]
    texts: Codec[str]
    pages: PageCodec

    def __init__(self, description: ModelDescription, directory: Path) -> None:
        config = read_json(directory, "preprocessor_config.json")
        vocabulary = Vocabulary(directory)
        size = config.get("size", {})
        try:
            height, width = int(size["height"]), int(size["width"])
        except (KeyError, TypeError) as error:
            raise ModelLoadError(
                f"{directory / 'preprocessor_config.json'}: size must hold height and width, got {size!r}"
            ) from error
        n_image_tokens = int(config.get("image_seq_length", 1024))
        ids = vocabulary.prompt_ids(description.image_prompt.replace("<image>", "<image>" * n_image_tokens))
        image_id = vocabulary.token_id("<image>")
        if ids.count(image_id) != n_image_tokens:
            raise ModelLoadError(f"{description.name}: the image prompt must contain <image> once, as a special token")
        self.graphs = GraphFiles(directory / description.model_file, directory / description.model_file)
        self.pages = PaliGemmaPages(
            np.array(ids, dtype=np.int64),
            image_id=image_id,
            scale=PixelScale(config, directory / "preprocessor_config.json"),
            size=(width, height),
            resample=int(config.get("resample", Image.Resampling.BICUBIC)),
            dim=description.dim,
        )
        self._prompt = QueryPrompt(
            vocabulary,
            prefix=description.query_prefix,
            suffix=description.query_suffix,
            max_tokens=description.max_query_tokens,
        )
        self.queries = QueryCodec(self._prompt, blank_pixels=(3, height, width), dim=description.dim)
        self.texts = self.queries  # these models have no other encoder of text

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens of a query, after truncation."""
        return self._prompt.count(text, include_special=include_special)

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of `text` that each query vector stands for; None for the prompt and the pads."""
        return self._prompt.pieces(text)


class PaliGemmaPages:
    """Pages: one size, one prompt.

    Args:
        ids: (n_tokens,) int64, the same for every page.
        image_id: the id of the tokens that patches take the place of.
        scale: from uint8 to floats.
        size: (width, height) in pixels.
        resample: Pillow's number of the filter.
        dim: length of a vector.
    """

    def __init__(
        self,
        ids: np.ndarray[tuple[int], np.dtype[np.int64]],
        *,
        image_id: int,
        scale: PixelScale,
        size: tuple[int, int],
        resample: int,
        dim: int,
    ) -> None:
        self._ids = ids
        self._scale = scale
        self._size = size
        self._resample = resample
        self._dim = dim
        self._grid = _patch_grid(ids == image_id)

    def prepare(self, item: Image.Image) -> Prepared:
        """Resize, scale; every page has the same shape."""
        pixels = self._scale(resize(item, *self._size, self._resample))
        return Prepared("page", {"input_ids": self._ids, "pixel_values": pixels})

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids and (batch, 3, height, width) pixels."""
        return stack(batch)

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One (n_tokens, dim) array a page: its patches row by row, then the prompt's tokens."""
        return unit_rows(outputs, batch, self._dim)

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid of patches that the page is stretched over."""
        return [PageEmbedding(rows, self._grid) for rows in self.vectors(outputs, batch)]


def _patch_grid(patches: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> PageGrid:
    """The square grid of a page's patches, row by row, given which of its tokens (n_tokens,) are patches.

    SigLIP's encoder cuts the square picture into as many rows as columns, and the projector keeps their order
    (transformers `SiglipVisionEmbeddings`, `PaliGemmaMultiModalProjector`).
    """
    n = int(patches.sum())
    side = math.isqrt(n)
    cells = np.full(len(patches), -1, np.int32)
    # A number of patches that is no square is of no PaliGemma that we know: its page is one cell.
    cells[patches] = np.arange(n) if side * side == n else 0
    return PageGrid(side, side, cells) if side * side == n else PageGrid(1, 1, cells)
