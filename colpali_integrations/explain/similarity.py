"""How well each place on a page matches each word of a question: the arrays behind heatmaps.

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
from colpali_integrations.explain.regions import match_vectors, says_something

__all__ = ["SimilarityMaps", "similarity_maps"]


@dataclass(frozen=True, eq=False)
class SimilarityMaps:
    """For each vector of a question how well it matches each cell of a page's grid.

    Attributes:
        maps: float32 (n_query_vectors, rows, columns), dot products; row 0 is the top of the page, column 0 its left.
            NaN where no vector of the page stands.
        tokens: what each query vector stands for, as in `ColPali.query_tokens`; None where that is not known, or where
            it is nothing of the user's text.
        filled: the part (of the width, of the height) of the grid that the page fills; the rest is padding on the right
            and at the bottom. 1, 1 but for ColTiny, whose last row and column may be cut by the page's margin.
    """

    maps: NDArray[np.float32]
    tokens: tuple[str | None, ...]
    filled: tuple[float, float] = (1.0, 1.0)

    @property
    def words(self) -> list[int]:
        """Which maps are of the user's own words: no prompt, no punctuation. All, where no token is known."""
        if all(token is None for token in self.tokens):
            return list(range(len(self.maps)))
        return [index for index, token in enumerate(self.tokens) if says_something(token)]

    @property
    def total(self) -> NDArray[np.float32]:
        """float32 (rows, columns): the sum of the maps of `words`."""
        return np.asarray(self.maps[self.words].sum(axis=0))

    def of(self, word: int | str | None = None) -> NDArray[np.float32]:
        """One map, float32 (rows, columns).

        Args:
            word: an index into `tokens`, or a token itself (the best of its maps, where the question says it more
                than once); None for `total`.

        Raises:
            InputError: there is no such word.
        """
        if word is None:
            return self.total
        if isinstance(word, str):
            if word not in self.tokens:
                known = ", ".join(repr(self.tokens[index]) for index in self.words)
                raise InputError(f"the question has no token {word!r}; it has: {known}")
            return np.asarray(self.maps[[token == word for token in self.tokens]].max(axis=0))
        if not -len(self.maps) <= word < len(self.maps):
            raise InputError(f"the question has {len(self.maps)} vectors, number {word} was asked for")
        return np.asarray(self.maps[word])

    def on_page(self, word: int | str | None = None, *, size: tuple[int, int]) -> NDArray[np.float32]:
        """One map at the resolution of a picture of the page, padding cut off, smooth between the cells' centres.

        Args:
            word: as for `of`.
            size: width and height of the picture, in pixels.

        Returns:
            float32 (height, width). Cells without a value have the lowest of the map.

        Example:
            >>> grid = PageGrid(rows=1, columns=2, cells=np.array([0, 1]), filled=(0.5, 1.0))
            >>> similarity_maps(np.ones((1, 1)), np.array([[0.5], [0.9]]), grid).on_page(size=(2, 2)).shape
            (2, 2)
        """
        found = self.of(word)
        known = np.isfinite(found)
        filled = np.where(known, found, found[known].min() if known.any() else 0).astype(np.float32)
        rows, columns = found.shape
        box = (0, 0, self.filled[0] * columns, self.filled[1] * rows)
        # Bilinear: bicubic would overshoot, and show less than nothing beside a word.
        picture = Image.fromarray(filled).resize(size, Image.Resampling.BILINEAR, box=box)
        return np.asarray(picture, np.float32)


def similarity_maps(
    query_vectors: NDArray[Any],
    page_vectors: NDArray[Any],
    grid: PageGrid,
    *,
    tokens: Sequence[str | None] | None = None,
) -> SimilarityMaps:
    """Compute for each vector of a question how well it matches each cell of a page.

    A map has the page's own geometry: ColPali's 32 x 32 patches, Idefics3's tiles put back in place without the view
    of the whole, ColTiny's cells. There a word of the page fills the cells that its box contains (the most salient
    occurrence, of a word printed several times), and what says nothing of the query's word is 0, the match of the
    vector that ends every page of ColTiny's.

    The maximum of a map is therefore what its query vector adds to MaxSim, unless the page vector that matches best has
    no cell (a token of the prompt, the view of the whole).

    Args:
        query_vectors: float (n_query_vectors, dim).
        page_vectors: float (n_vectors, dim), the page's own and not pooled ones.
        grid: the grid of the page, as `ColPali.embed_pages` gives them.
        tokens: what each query vector stands for (`ColPali.query_tokens`); it names the maps, and decides which of
            them `SimilarityMaps.total` sums.

    Returns:
        Maps, float32 (n_query_vectors, rows, columns).

    Raises:
        InputError: arrays that do not fit each other.

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
    placed = np.flatnonzero(grid.cells >= 0)
    flat = np.full((grid.rows * grid.columns, len(matches)), -np.inf, np.float32)
    if grid.margins is None:
        np.maximum.at(flat, grid.cells[placed], matches[:, placed].T)
        flat[np.isneginf(flat)] = np.nan
    else:
        flat[:] = 0
        for vector in placed.tolist():
            cells = grid.cells_of(vector)
            flat[cells] = np.maximum(flat[cells], matches[:, vector])
    maps = np.ascontiguousarray(flat.T).reshape(-1, grid.rows, grid.columns)
    return SimilarityMaps(maps, tuple(tokens) if tokens is not None else (None,) * len(maps), grid.filled)
