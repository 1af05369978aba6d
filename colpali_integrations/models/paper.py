"""Pages without the vectors of plain paper: a codec around that of a family, for `drop_blank=True`.

A vector goes if its cell lies on plain paper: all pixels of its box have the page's median colour, up to a small
difference. Vectors without a cell, such as those of the prompt, stay. A page that would lose all of its vectors keeps
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.explain.grid import PageEmbedding, PageGrid
from colpali_integrations.models.family import PageCodec, Prepared
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs

__all__ = ["Ink", "InkedPages"]

_CONTRAST = 16  # levels of 255: fainter than the lines of a grid, and than the noise of most scanners
_BLOCK = 8  # pixels of a side; smaller than any model's cell on a page at 100 dpi


class Ink:
    """The places of a page whose pixels differ from its paper, in blocks of 8 x 8 pixels.

    Args:
        image: the page, RGB.

    Example:
        >>> page = Image.new("RGB", (32, 16), "white")
        >>> page.putpixel((20, 3), (0, 0, 0))
        >>> Ink(page).marks(PageGrid(1, 2, np.array([0, 1, -1]))).tolist()
        [False, True, False]
    """

    def __init__(self, image: Image.Image) -> None:
        counts = np.reshape(image.histogram(), (-1, 256))
        papers = [int(np.searchsorted(np.cumsum(channel), channel.sum() / 2)) for channel in counts]
        is_ink = [255 * (abs(level - paper) > _CONTRAST) for paper in papers for level in range(256)]
        # A mean over a block keeps a single pixel: 255 / 64 is more than a half.
        marked = np.asarray(image.point(is_ink).reduce(_BLOCK)).reshape(-(-image.height // _BLOCK), -1, len(papers))
        self._size = image.width / _BLOCK, image.height / _BLOCK
        self._sums = np.pad(marked.any(axis=2).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))

    def marks(self, grid: PageGrid) -> NDArray[np.bool_]:
        """Whether each vector's cell has ink: (n_vectors,), False for a vector without a cell."""
        row, column = np.divmod(grid.cells, grid.columns)
        left, right = (self._block(column + side, grid.columns * grid.filled[0], 0, side) for side in (0, 1))
        top, bottom = (self._block(row + side, grid.rows * grid.filled[1], 1, side) for side in (0, 1))
        sums = self._sums
        inked = sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
        return np.asarray((inked > 0) & (grid.cells >= 0))

    def _block(self, edge: NDArray[np.integer], cells: float, axis: int, side: int) -> NDArray[np.intp]:
        """The number of the block at the edge of a cell, so that blocks which the cell has only a part of count."""
        place = edge / cells * self._size[axis]
        blocks = self._sums.shape[1 - axis] - 1
        return (np.ceil(place) if side else np.floor(place)).clip(0, blocks).astype(np.intp)


class InkedPages:
    """A codec of pages that leaves out the vectors of plain paper.

    Args:
        codec: of a family with a vector per cell of the page, also where the cell is blank.
    """

    def __init__(self, codec: PageCodec) -> None:
        self._codec = codec

    def prepare(self, item: Image.Image) -> Prepared:
        """Do the codec's work, and find the ink of the page."""
        return replace(self._codec.prepare(item), ink=Ink(item))

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """As the codec."""
        return self._codec.feed(batch)

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_vectors, dim) per page."""
        return [page.vectors for page in self.embeddings(outputs, batch)]

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each page with the grid of the vectors that are left."""
        pages = self._codec.embeddings(outputs, batch)
        return [_inked(page, item.ink) for page, item in zip(pages, batch, strict=True)]


def _inked(page: PageEmbedding, ink: Ink) -> PageEmbedding:
    kept = (page.grid.cells < 0) | ink.marks(page.grid)
    if kept.all() or not kept.any():
        return page
    return PageEmbedding(page.vectors[kept], page.grid.select(kept))
