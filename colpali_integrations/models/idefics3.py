"""ColModernVBERT and ColSmol: Idefics3's tiling, where a page becomes tiles of 512 x 512 and a small view of the whole.

    page:   prompt with, for each tile, <fake_token_around_image><row_r_col_c><image> x 64, a newline a row,
            then newline <fake_token_around_image><global-img><image> x 64 <fake_token_around_image>
    query:  "...", <end_of_utterance> x 10

A page is scaled so that its longest edge has 2048 pixels (upwards too), then both edges to multiples of 512; the
picture returns to 8 bits between the two steps, as in the reference (transformers `Idefics3ImageProcessorPil`,
`Idefics3Processor`; colpali-engine `ColModernVBertProcessor`, `ColIdefics3Processor`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models._tokenizer import PixelScale, QueryCodec, resize, stack, unit_rows
from colpali_integrations.models.family import Codec, PageCodec, Prepared
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.prompt import QueryPrompt, Vocabulary
from colpali_integrations.models.registry import ModelDescription
from colpali_integrations.runtime.arrays import Feed, Float32, GraphFiles, Outputs

__all__ = ["Idefics3Family", "Idefics3Pages", "image_text", "tiled_size", "token_grid"]

# The reference never lets an edge grow beyond this, whatever its configuration says.
_LONGEST_EDGE_ALLOWED = 4096


class Idefics3Family:
    """Idefics3 tiling bound to the files of one model."""

    queries: Codec[str]
    texts: Codec[str]
    pages: PageCodec

    def __init__(self, description: ModelDescription, directory: Path) -> None:
        config = read_json(directory, "preprocessor_config.json")
        processor = read_json(directory, "processor_config.json", optional=True)
        # transformers 5 keeps the image processor's settings inside processor_config.json.
        config = {**processor.get("image_processor", {}), **config}
        tile = int(config.get("max_image_size", {}).get("longest_edge", 512))
        vocabulary = Vocabulary(directory)
        self.graphs = GraphFiles(directory / description.model_file, directory / description.model_file)
        self.pages = Idefics3Pages(
            vocabulary,
            prompt=description.image_prompt,
            image_seq_len=int(processor.get("image_seq_len", 64)),
            scale=PixelScale(config, directory / "preprocessor_config.json"),
            longest_edge=int(config.get("size", {}).get("longest_edge", 2048)),
            tile=tile,
            split=bool(config.get("do_image_splitting", True)),
            resample=int(config.get("resample", Image.Resampling.LANCZOS)),
            dim=description.dim,
        )
        self._prompt = QueryPrompt(
            vocabulary,
            prefix=description.query_prefix,
            suffix=description.query_suffix,
            max_tokens=description.max_query_tokens,
            template=True,
        )
        self.queries = QueryCodec(self._prompt, blank_pixels=(1, 3, tile, tile), dim=description.dim)
        self.texts = self.queries  # these models have no other encoder of text

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of tokens of a query, after truncation."""
        return self._prompt.count(text, include_special=include_special)

    def query_tokens(self, text: str) -> list[str | None]:
        """The piece of `text` that each query vector stands for; None for the prompt and the augmentation."""
        return self._prompt.pieces(text)


class Idefics3Pages:
    """Pages: as many tiles as the shape asks for; pages with equal rows and columns share a run.

    Args:
        vocabulary: the model's tokenizer.
        prompt: the page prompt, with `<image>` where the picture stands.
        image_seq_len: tokens a tile.
        scale: from uint8 to floats.
        longest_edge: pixels of the longest edge before tiling.
        tile: pixels of a tile's edge.
        split: whether to tile at all.
        resample: Pillow's number of the filter.
        dim: length of a vector.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        prompt: str,
        image_seq_len: int,
        scale: PixelScale,
        longest_edge: int,
        tile: int,
        split: bool,
        resample: int,
        dim: int,
    ) -> None:
        self._vocabulary = vocabulary
        self._prompt = prompt
        self._image_seq_len = image_seq_len
        self._scale = scale
        self._longest_edge = min(longest_edge, _LONGEST_EDGE_ALLOWED)
        self._tile = tile
        self._split = split
        self._resample = resample
        self._dim = dim
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
            self._ids[grid] = np.array(self._vocabulary.prompt_ids(text, template=True), dtype=np.int64)
        pixels = np.stack([self._scale(tile) for tile in tiles])
        return Prepared(grid, {"input_ids": self._ids[grid], "pixel_values": pixels}, extra=grid)

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """(batch, n_tokens) ids and (batch, tiles, 3, tile, tile) pixels."""
        return stack(batch)

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One (n_tokens, dim) array a page, prompt tokens included, as the reference gives."""
        return unit_rows(outputs, batch, self._dim)

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the grid that the tiles' tokens make when the tiles are put back in place."""
        found = []
        for item, vectors in zip(batch, self.vectors(outputs, batch), strict=True):
            if item.extra not in self._grids:
                self._grids[item.extra] = token_grid(
                    item.ids == self._image_id,
                    rows=item.extra[0],
                    columns=item.extra[1],
                    image_seq_len=self._image_seq_len,
                )
            found.append(PageEmbedding(vectors, self._grids[item.extra]))
        return found

    def _tiles(self, image: Image.Image) -> tuple[list[Image.Image], tuple[int, int]]:
        side = self._tile
        image = resize(image, *edge_size(*image.size, self._longest_edge), self._resample)
        if not self._split:
            return [resize(image, side, side, self._resample)], (0, 0)
        width, height = tiled_size(*image.size, side)
        image = resize(image, width, height, self._resample)
        rows, columns = height // side, width // side
        if rows * columns == 1:
            return [image], (0, 0)
        tiles = [
            image.crop((column * side, row * side, (column + 1) * side, (row + 1) * side))
            for row in range(rows)
            for column in range(columns)
        ]
        return [*tiles, resize(image, side, side, self._resample)], (rows, columns)


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
    """Where on the page the tokens of a page's prompt stand.

    The tokens of a tile are its square grid row by row: the connector merges neighbouring patches and keeps their
    order (transformers `Idefics3Connector.pixel_shuffle`). The view of the whole has no cells where there are tiles,
    which see the same in more detail; where it is all there is, it has them.

    Args:
        pictures: bool (n_tokens,), which tokens of the prompt stand for the picture.
        rows: of tiles; 0 where the page is not tiled.
        columns: likewise.
        image_seq_len: tokens a tile.

    Example: two tiles of 2 x 2 tokens side by side, then the view of the whole.
        >>> token_grid(np.array([False] + [True] * 12), rows=1, columns=2, image_seq_len=4).cells.tolist()
        [-1, 0, 1, 4, 5, 2, 3, 6, 7, -1, -1, -1, -1]
    """
    tile_rows, tile_columns = max(rows, 1), max(columns, 1)
    side = math.isqrt(image_seq_len)
    if side * side != image_seq_len:  # of no Idefics3 that we know: then a tile is one cell
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
    """What `<image>` in a page prompt stands for: the tiles row by row, then the view of the whole.

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
