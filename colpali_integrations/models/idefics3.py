"""ColModernVBERT and ColSmol: Idefics3's tiling, where a page becomes tiles of 512 x 512 and a small view of the whole.

    page:   prompt with <fake_token_around_image><row_r_col_c><image> x 64 per tile, a newline per row,
            then newline <fake_token_around_image><global-img><image> x 64 <fake_token_around_image>
    query:  "...", <end_of_utterance> x 10

A page is scaled so that its longest edge has 2048 pixels (upwards too), then both edges to multiples of 512; the
picture returns to 8 bits between the two steps, as in the reference (transformers `Idefics3ImageProcessorPil`,
`Idefics3Processor`; colpali-engine `ColModernVBertProcessor`, `ColIdefics3Processor`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

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

__all__ = ["Idefics3Family", "Idefics3Pages", "edge_size", "image_text", "tiled_size", "token_grid"]

# The reference never lets an edge grow beyond this, whatever its configuration holds.
_LONGEST_EDGE_ALLOWED = 4096
# The page prompt of ColSmol and ColIdefics3 begins with another token; only the class of the processor tells.
_IM_START = ("colidefics3", "colsmol", "smolvlm")


class Idefics3Family(TransformerFamily):
    """Idefics3 tiling bound to the files of one model."""

    def __init__(self, description: ModelDescription, directory: Path, *, base: Path | None = None) -> None:
        vocabulary = Vocabulary(directory)
        inputs = built = None
        if description.is_checkpoint:
            from colpali_integrations.models.builder.checkpoint_graph import checkpoint_graphs
            from colpali_integrations.models.builder.idefics3 import Idefics3

            architecture = Idefics3(read_json(base or directory, "config.json"), description.dim)
            inputs, built = architecture.feed, checkpoint_graphs(architecture, directory, description, base)
        pages = Idefics3Pages(description, directory, vocabulary, inputs)
        blank = (1, 3, pages.tile, pages.tile)
        queries = QueryCodec(vocabulary, description, blank_pixels=blank, template=True, inputs=inputs)
        super().__init__(description, directory, queries=queries, pages=pages, built=built)

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Choose the page prompt of ColSmol and ColIdefics3 or of ColModernVBERT."""
        if not any(word in hints for word in _IM_START):
            return base
        return replace(base, image_prompt=base.image_prompt.replace("<|begin_of_text|>", "<|im_start|>"))


class Idefics3Pages(TransformerCodec):
    """Pages: as many tiles as the shape asks for; pages with equal rows and columns share a run.

    Args:
        description: the page prompt, with `<image>` where the picture stands.
        directory: the folder with preprocessor_config.json and processor_config.json.
        vocabulary: the model's tokenizer.
        inputs: as of `TransformerCodec`.
        kept: as of `TransformerCodec`.
        template: as of `QueryCodec`.

    Attributes:
        tile: pixels of a tile's edge.
        defaults: settings of the image processor that its files need not hold.
        fused: as of `PixelScale`.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"size": {"longest_edge": 2048}}
    fused: ClassVar[bool] = False

    def __init__(
        self,
        description: ModelDescription,
        directory: Path,
        vocabulary: Vocabulary,
        inputs: Callable[[NDArray[np.int64]], Feed] | None = None,
        *,
        kept: Callable[[NDArray[np.int64]], NDArray[np.bool_]] | None = None,
        template: bool = True,
    ) -> None:
        super().__init__(description.dim, inputs, kept)
        processor = read_json(directory, "processor_config.json", optional=True)
        found, path = image_settings(directory)
        config = {**self.defaults, **found}
        self.tile = int(config.get("max_image_size", {}).get("longest_edge", 512))
        self._vocabulary = vocabulary
        self._prompt = description.image_prompt
        self._image_seq_len = int(processor.get("image_seq_len", 64))
        self._template = template
        self._scale = PixelScale(config, path, fused=self.fused)
        longest = config["size"].get("longest_edge", self.defaults["size"]["longest_edge"])
        self._longest_edge = min(int(longest), _LONGEST_EDGE_ALLOWED)
        self._split = bool(config.get("do_image_splitting", True))
        self._resample = Image.Resampling(int(config.get("resample", Image.Resampling.LANCZOS)))
        self._image_id = vocabulary.token_id("<image>")
        self._ids: dict[tuple[int, int], np.ndarray[tuple[int], np.dtype[np.int64]]] = {}
        self._grids: dict[tuple[int, int], PageGrid] = {}

    def prepare(self, item: Image.Image) -> Prepared:
        """Resize twice, cut into tiles, add the view of the whole, scale.

        The result's `extra` is (rows, columns) of tiles, (0, 0) when the page is one tile.
        """
        tiles, grid = self._tiles(item)
        if grid not in self._ids:
            text = self._prompt.replace("<image>", image_text(*grid, self._image_seq_len))
            self._ids[grid] = np.array(self._vocabulary.prompt_ids(text, template=self._template), dtype=np.int64)
        pixels = np.stack([self._scale(tile) for tile in tiles])
        return Prepared(grid, {"input_ids": self._ids[grid], "pixel_values": pixels}, extra=grid)

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid that the tiles' tokens make when the tiles are put back in place."""
        tiles = batch[0].extra
        if tiles not in self._grids:
            pictures = batch[0].ids == self._image_id
            grid = token_grid(pictures, rows=tiles[0], columns=tiles[1], image_seq_len=self._image_seq_len)
            self._grids[tiles] = replace(grid, cells=grid.cells[self.kept(batch[0].ids)])
        return [PageEmbedding(rows, self._grids[tiles]) for rows in self.vectors(outputs, batch)]

    def resized(self, image: Image.Image, size: tuple[int, int]) -> Image.Image:
        """The picture at another width and height."""
        return image.resize(size, self._resample)

    def longest_edge(self, width: int, height: int) -> int:
        """The longest edge to which a page of this size is scaled before it is cut, in pixels."""
        return self._longest_edge

    def _tiles(self, image: Image.Image) -> tuple[list[Image.Image], tuple[int, int]]:
        side, square = self.tile, (self.tile, self.tile)
        longest = self.longest_edge(*image.size) if self._split else self._longest_edge
        image = self.resized(image, edge_size(*image.size, longest))
        if not self._split:
            return [self.resized(image, square)], (0, 0)
        image = self.resized(image, tiled_size(*image.size, side))
        rows, columns = image.height // side, image.width // side
        if rows * columns == 1:
            return [image], (0, 0)
        tiles = [
            image.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
            for row in range(rows)
            for column in range(columns)
        ]
        return [*tiles, self.resized(image, square)], (rows, columns)


def edge_size(width: int, height: int, longest: int) -> tuple[int, int]:
    """The size with the longest edge at `longest` pixels, the other scaled alike and made even.

    Example:
        >>> edge_size(1000, 700, 2048)
        (2048, 1434)
    """
    ratio = width / height
    if width >= height:
        short = int(longest / ratio)
        return longest, max(short + short % 2, 1)
    short = int(longest * ratio)
    return max(short + short % 2, 1), longest


def tiled_size(width: int, height: int, tile: int) -> tuple[int, int]:
    """Both edges up to multiples of a tile: the longer first, the shorter scaled with it before it is rounded up.

    Example:
        >>> tiled_size(2048, 1434, 512)
        (2048, 1536)
    """
    ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        return width, math.ceil(int(width / ratio) / tile) * tile
    height = math.ceil(height / tile) * tile
    return math.ceil(int(height * ratio) / tile) * tile, height


def token_grid(
    pictures: np.ndarray[tuple[int], np.dtype[np.bool_]], *, rows: int, columns: int, image_seq_len: int
) -> PageGrid:
    """The cells of the page that the tokens of its prompt stand for.

    The tokens of a tile are its square grid row by row: the connector merges neighbouring patches and keeps their
    order (transformers `Idefics3Connector.pixel_shuffle`). The view of the whole has no cells where there are tiles,
    which show the same in more detail; alone, it has them.

    Args:
        pictures: bool (n_tokens,), True for tokens of the prompt that stand for the picture.
        rows: rows of tiles; 0 where the page is not tiled.
        columns: columns of tiles.
        image_seq_len: tokens per tile.

    Example: two tiles of 2 x 2 tokens side by side, then the view of the whole.
        >>> token_grid(np.array([False] + [True] * 12), rows=1, columns=2, image_seq_len=4).cells.tolist()
        [-1, 0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1]
    """
    tile_rows, tile_columns = max(rows, 1), max(columns, 1)
    side = math.isqrt(image_seq_len)
    if side * side != image_seq_len:  # true of no known Idefics3; a tile is then one cell
        side = 1
    token = np.arange(tile_rows * tile_columns * image_seq_len)
    tile, inner = np.divmod(token, image_seq_len)
    row, column = np.divmod(tile, tile_columns)
    inner_row, inner_column = np.divmod(inner if side > 1 else np.zeros_like(inner), side)
    placed = np.full(int(pictures.sum()), -1, np.int32)
    width = tile_columns * side
    placed[: len(token)] = (row * side + inner_row) * width + column * side + inner_column
    cells = np.full(len(pictures), -1, np.int32)
    cells[pictures] = placed
    return PageGrid(tile_rows * side, width, cells)


def image_text(rows: int, columns: int, image_seq_len: int) -> str:
    """The tokens that replace `<image>` in a page prompt: the tiles row by row, then the view of the whole.

    Example:
        >>> image_text(0, 0, 2)
        '<fake_token_around_image><global-img><image><image><fake_token_around_image>'
    """
    tokens = "<image>" * image_seq_len
    whole = f"<fake_token_around_image><global-img>{tokens}<fake_token_around_image>"
    if not rows:
        return whole
    lines = (
        "".join(f"<fake_token_around_image><row_{row}_col_{column}>{tokens}" for column in range(1, columns + 1)) + "\n"
        for row in range(1, rows + 1)
    )
    return "".join(lines) + "\n" + whole
