"""NeoMME: pages, texts and queries in one encoder without a vision tower, in many languages.

    page:   <doc><img>, then per row of patches <img> for each and <row>     longest edge 2048, aspect kept, bilinear
    text:   <doc> text
    query:  <query> text <mask> x 10                                         as in the checkpoint's chat template

A page is reduced so that its longest edge has at most `max_side` pixels, padded with black on the right and at the
bottom to whole patches of 32 x 32, and cut into them row by row. The masks are attended to: they are query
augmentation. (transformers 5.24 `NeoMMEImageProcessor`, `NeoMMEProcessor`.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.builder.checkpoint_graph import checkpoint_graph
from colpali_integrations.models.builder.neomme import NeoMME, NeoMMEConfig, page_positions
from colpali_integrations.models.chat_template import Prompt, special_tokens, template_prompts
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import Vocabulary
from colpali_integrations.models.resizing import page_size
from colpali_integrations.models.transformer import PixelScale, QueryCodec, TransformerCodec, image_settings
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs

__all__ = ["NeoMMEFamily", "NeoMMEPages", "NeoMMETexts"]


class NeoMMEFamily:
    """NeoMME bound to the files of one checkpoint."""

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        self._model = NeoMME(read_json(base or directory, "config.json"))
        if self._model.config.embedding_dim != description.dim:
            raise ModelLoadError(
                f"{directory}: config.json has embedding_dim {self._model.config.embedding_dim}, the description of "
                f"{description.name!r} has dim {description.dim}; describe the model with its own"
            )
        vocabulary = Vocabulary(directory)
        self.graphs = checkpoint_graph(self._model, "encoder", directory, description, base)
        query, text = template_prompts(description, directory)
        self.queries = NeoMMETexts(vocabulary, description, self._model, query, kind="query")
        # The document token is all that a text has beside its own.
        longest = replace(description, max_query_tokens=self._model.config.max_position_embeddings - 1)
        self.texts = NeoMMETexts(vocabulary, longest, self._model, text, kind="text")
        self.pages = NeoMMEPages(description, directory, vocabulary, self._model)

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Read the length of the dense vector; the prompts stand in the checkpoint's chat template."""
        return replace(base, dense_dim=NeoMMEConfig.read(config).hidden_size)

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens of a query, after truncation."""
        return self.queries.count(text, include_special=include_special)

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of `text` that each query vector stands for; None for the prompt and the augmentation."""
        return self.queries.pieces(text)


class NeoMMETexts(QueryCodec):
    """Queries, or texts that are searched beside pages.

    Args:
        vocabulary: the model's tokenizer.
        description: the longest user text, in tokens.
        model: the architecture.
        prompt: what stands around a text.
        kind: "query" or "text", for messages.
    """

    def __init__(
        self, vocabulary: Vocabulary, description: ModelDescription, model: NeoMME, prompt: Prompt, *, kind: str
    ) -> None:
        described = replace(description, query_prefix=prompt.prefix, query_suffix=prompt.suffix)
        super().__init__(vocabulary, described, blank_pixels=(), template=True, kind=kind)
        self._model = model
        self.check_seams(description.name)

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids at places 0, 1, 2 ... on both axes, and no patches."""
        ids = np.stack([item.ids for item in batch])
        places = np.tile(np.arange(ids.shape[1]), (2, 1))
        return self._model.feed(ids, np.zeros((0, self._model.config.patch_width), np.float32), places)

    def dense(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (hidden_size,) of unit length per text."""
        return _dense(outputs)


class NeoMMEPages(TransformerCodec):
    """Pages: as many patches as the shape asks for; pages with equal rows and columns share a run.

    The vectors of a page are those of the document token and the image token, then its patches row by row, with that of
    a row token after each row.

    Args:
        description: the longest edge in pixels, where it is not that of the files.
        directory: the folder with processor_config.json or preprocessor_config.json.
        vocabulary: the model's tokenizer.
        model: the architecture.
    """

    def __init__(self, description: ModelDescription, directory: Path, vocabulary: Vocabulary, model: NeoMME) -> None:
        super().__init__(description.dim)
        config, path = image_settings(directory)
        self._model = model
        self._patch = model.config.patch_size
        self._row_id = vocabulary.token_id(special_tokens(directory).get("row_token", "<row>"))
        self._scale = PixelScale(config, path, fused=True)
        self._resize = bool(config.get("do_resize", True))
        self._max_side = description.max_side or config.get("max_side")
        self._size = config.get("size") or {}
        self._resample = Image.Resampling(int(config.get("resample", Image.Resampling.BILINEAR)))

    def prepare(self, item: Image.Image) -> Prepared:
        """Resize, pad, scale and cut into patches.

        The result's `extra` is rows and columns of patches, and the fractions of their width and height that the page
        fills.
        """
        if self._resize:
            least, most = (self._size.get(name) for name in ("min_pixels", "max_pixels"))
            width, height = page_size(*item.size, max_side=self._max_side, min_pixels=least, max_pixels=most)
            # Across first, as torchvision does. Pillow 13 chooses an order, and in the other one rounds a sixth of the
            # pixels to another level; in this one 0.1 to 1.5% differ, by one level.
            item = item.resize((width, item.height), self._resample).resize((width, height), self._resample)
        rows, columns = (-(-edge // self._patch) for edge in (item.height, item.width))
        filled = item.width / (columns * self._patch), item.height / (rows * self._patch)
        if filled != (1.0, 1.0):
            padded = Image.new("RGB", (columns * self._patch, rows * self._patch))
            padded.paste(item)
            item = padded
        arrays: Feed = {"input_ids": self._ids(rows, columns), "pixel_values": _patches(self._scale(item), self._patch)}
        return Prepared((rows, columns), arrays, extra=(rows, columns, filled))

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids, the patches of all pages in order, and the places of one."""
        ids, pixels = np.stack([item.ids for item in batch]), np.concatenate([item.pixels for item in batch])
        rows, columns, _ = batch[0].extra
        return self._model.feed(ids, pixels, page_positions(rows, columns))

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid of its patches."""
        rows, columns, _ = batch[0].extra
        cells = np.full((rows, columns + 1), -1, np.int32)
        cells[:, :columns] = np.arange(rows * columns).reshape(rows, columns)
        several = np.concatenate([[-1, -1], cells.reshape(-1)])
        return [
            PageEmbedding(vectors, PageGrid(rows, columns, several, filled=item.extra[2]))
            for vectors, item in zip(self.vectors(outputs, batch), batch, strict=True)
        ]

    def dense(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (hidden_size,) of unit length per page."""
        return _dense(outputs)

    def _ids(self, rows: int, columns: int) -> NDArray[np.int64]:
        config = self._model.config
        row = [config.image_token_id] * columns + [self._row_id]
        return np.array([config.document_token_id, config.image_token_id, *row * rows], np.int64)


def _dense(outputs: Outputs) -> list[Float32]:
    return list(outputs["dense_embeddings"])


def _patches(pixels: NDArray[np.float32], patch: int) -> NDArray[np.float32]:
    """(3, height, width) to (n_patches, patch * patch * 3): patches row by row, each (row, column, colour)."""
    _, height, width = pixels.shape
    cut = pixels.reshape(3, height // patch, patch, width // patch, patch)
    patches: NDArray[np.float32] = cut.transpose(1, 3, 2, 4, 0).reshape(-1, 3 * patch * patch)
    return patches
