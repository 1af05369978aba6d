"""Similarity maps of a question and a page: the arrays behind heatmaps.

>>> grid = PageGrid(rows=2, columns=2, cells=np.array([0, 1, 2, 3]))
>>> maps = similarity_maps(np.array([[1.0, 0.0]]), np.array([[0.1, 0], [0.9, 0], [0.2, 0], [0.3, 0]]), grid)
>>> (10 * maps.maps[0]).round().astype(int).tolist()
[[1, 9], [2, 3]]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import InputError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.explain.regions import is_word, match_vectors

__all__ = ["SimilarityMaps", "similarity_maps"]


@dataclass(frozen=True, eq=False)
class SimilarityMaps:
    """The matches of each vector of a question with each cell of a page's grid.

    Attributes:
        maps: float32 (n_query_vectors, rows, columns), dot products; row 0 is the top of the page, column 0 its left.
            NaN in cells without a vector.
        tokens: the token of each query vector, as in `ColPali.query_tokens`; None where it is unknown or not from the
            user's text.
        filled: the fractions of the grid's width and height that the page fills; the rest is padding on the right and
            at the bottom. 1, 1 except for ColTiny, where the page's edge can cut the last row and column.
    """

    maps: NDArray[np.float32]
    tokens: tuple[str | None, ...]
    filled: tuple[float, float] = (1.0, 1.0)

    @property
    def words(self) -> list[int]:
        """Indices of the maps of the user's words, without prompt and punctuation; all, where no token is known."""
        if all(token is None for token in self.tokens):
            return list(range(len(self.maps)))
        return [index for index, token in enumerate(self.tokens) if is_word(token)]

    @property
    def total(self) -> NDArray[np.float32]:
        """Sum of the maps of `words`, float32 (rows, columns)."""
        return np.asarray(self.maps[self.words].sum(axis=0))

    def of(self, word: int | str | None = None) -> NDArray[np.float32]:
        """Get one map, float32 (rows, columns).

        Args:
            word: an index into `tokens`, or a token (the maximum of its maps, where the question repeats it); None for
                `total`.

        Raises:
            InputError: the question does not have the word.
        """
        if word is None:
            return self.total
        if isinstance(word, str):
            if word not in self.tokens:
                tokens = ", ".join(repr(self.tokens[index]) for index in self.words)
                raise InputError(f"the question has no token {word!r}; it has: {tokens}")
            return np.asarray(self.maps[[token == word for token in self.tokens]].max(axis=0))
        if not -len(self.maps) <= word < len(self.maps):
            raise InputError(f"the question has {len(self.maps)} vectors, but word is {word}")
        return np.asarray(self.maps[word])

    def on_page(self, word: int | str | None = None, *, size: tuple[int, int]) -> NDArray[np.float32]:
        """Get one map at the resolution of a picture of the page, without padding, interpolated between cell centres.

        Args:
            word: as in `of`.
            size: width and height of the picture, in pixels.

        Returns:
            float32 (height, width). Cells without a value get the lowest value of the map.

        Example:
            >>> grid = PageGrid(rows=1, columns=2, cells=np.array([0, 1]), filled=(0.5, 1.0))
            >>> similarity_maps(np.ones((1, 1)), np.array([[0.5], [0.9]]), grid).on_page(size=(2, 2)).shape
            (2, 2)
        """
        cells = self.of(word)
        finite = np.isfinite(cells)
        filled = np.where(finite, cells, cells[finite].min() if finite.any() else 0).astype(np.float32)
        rows, columns = cells.shape
        box = (0, 0, self.filled[0] * columns, self.filled[1] * rows)
        # Bilinear, because bicubic would overshoot: it gives negative values beside a word.
        picture = Image.fromarray(filled).resize(size, Image.Resampling.BILINEAR, box=box)
        return np.asarray(picture, np.float32)


def similarity_maps(
    query_vectors: NDArray[Any],
    page_vectors: NDArray[Any],
    grid: PageGrid,
    *,
    tokens: Sequence[str | None] | None = None,
) -> SimilarityMaps:
    """Compute the match of each vector of a question with each cell of a page.

    A map has the geometry of the page: ColPali's 32 x 32 patches, Idefics3's tiles put together without the view of the
    whole page, ColTiny's cells. In ColTiny, a word fills the cells of its box (the most salient occurrence, of a word
    printed several times), and other cells are 0, the match of the vector that ends each of ColTiny's pages.

    So the maximum of a map is its query vector's part of MaxSim, unless the best page vector has no cell (a token of
    the prompt, the view of the whole page).

    Args:
        query_vectors: float (n_query_vectors, dim).
        page_vectors: float (n_vectors, dim), the page's vectors, or the means of `grid.groups`.
        grid: the page's grid, from `ColPali.embed_pages`.
        tokens: the token of each query vector (`ColPali.query_tokens`), which names its map and selects the maps that
            `SimilarityMaps.total` sums.

    Returns:
        The maps, float32 (n_query_vectors, rows, columns).

    Raises:
        InputError: the arrays do not fit each other.

    Example:
        >>> from colpali_integrations import ColPali, pdf_pages
        >>> model = ColPali.from_pretrained()
        >>> page = next(pdf_pages("report.pdf"))
        >>> [embedded] = model.embed_pages([page])
        >>> [query] = model.embed_queries("diverging palettes")
        >>> maps = similarity_maps(query, *embedded, tokens=model.query_tokens("diverging palettes"))
        >>> maps.of("palettes").shape == (embedded.grid.rows, embedded.grid.columns)
        True
    """
    matches = match_vectors(query_vectors, page_vectors, grid, tokens)
    with_cell = np.flatnonzero(grid.cells >= 0)
    flat = np.full((grid.rows * grid.columns, len(matches)), -np.inf, np.float32)
    if grid.margins is None:
        np.maximum.at(flat, grid.cells[with_cell], matches[:, with_cell].T)
        flat[np.isneginf(flat)] = np.nan
    else:
        flat[:] = 0
        for vector in with_cell.tolist():
            cells = grid.cells_of(vector)
            flat[cells] = np.maximum(flat[cells], matches[:, vector])
    maps = np.ascontiguousarray(flat.T).reshape(-1, grid.rows, grid.columns)
    return SimilarityMaps(maps, tuple(tokens) if tokens is not None else (None,) * len(maps), grid.filled)
