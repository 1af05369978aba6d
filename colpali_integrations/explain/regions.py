"""Find the regions of a page that answer a question: the cells that match its words best.

>>> grid = PageGrid(rows=2, columns=2, cells=np.array([0, 1, 2, 3, -1]))
>>> page = np.eye(5, dtype=np.float32)
>>> [region] = regions(page[2:3], page, grid, tokens=["tide"])
>>> region.token, region.score, region.box
('tide', 1.0, (0.0, 0.5, 0.5, 1.0))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.explain.grid import Box, PageGrid
from colpali_integrations.scoring.maxsim import as_multi_vector

__all__ = ["Region", "regions"]


@dataclass(frozen=True)
class Region:
    """A box on a page that answers a word of the question.

    Attributes:
        token: the word of the question, or a piece of one; None without `tokens`.
        score: dot product of the word's vector and the best page vector in the box.
        share: the score's fraction of the page's MaxSim for the question, from 0 to 1.
        box: left, top, right, bottom as fractions of the page, origin in the top left corner.
    """

    token: str | None
    score: float
    share: float
    box: Box

    def to_dict(self, width: float, height: float, unit: Literal["points", "pixels"] = "points") -> dict[str, Any]:
        """Convert to a JSON-safe dict, with the box in a unit of the page too.

        Args:
            width: width of the page as it is displayed, in the unit.
            height: height of the page, likewise.
            unit: "points" (1/72 inch) for a page of a PDF, "pixels" for an image. The origin of points is the top left
                corner of the displayed page; in PDF user space y is ``height - y``, and a crop box or rotation of the
                page moves it further.

        Returns:
            `token`, `score`, `share`, `box` (fractions) and, under the name of the unit, the box in that unit.

        Example:
            >>> Region("tide", 0.5, 1.0, (0.0, 0.5, 0.25, 1.0)).to_dict(600, 800)["points"]
            [0.0, 400.0, 150.0, 800.0]
        """
        scale = (width, height, width, height)
        return {
            "token": self.token,
            "score": round(self.score, 6),
            "share": round(self.share, 6),
            "box": [round(edge, 5) for edge in self.box],
            unit: [round(edge * length, 2) for edge, length in zip(self.box, scale, strict=True)],
        }


def regions(
    query_vectors: NDArray[Any],
    page_vectors: NDArray[Any],
    grid: PageGrid,
    *,
    tokens: Sequence[str | None] | None = None,
    min_match: float = 0.2,
    grow: float = 0.75,
) -> list[Region]:
    """Find the boxes on a page that answer the words of a question.

    Each word's box is the cell of the page vector that matches it best, among the vectors with a cell. Where a word or
    picture extends over several cells (ColPali's and Idefics3's patches), the box grows over connected neighbours that
    match nearly as well: those above `grow` of the way from the page's median match to the best one, because all
    matches are far from 0 in these models. Where the grid has margins (ColTiny), the box is that of the printed word.

    Args:
        query_vectors: float (n_query_vectors, dim).
        page_vectors: float (n_vectors, dim), the page's vectors before pooling.
        grid: the page's grid, from `ColPali.embed_pages`.
        tokens: the token of each query vector (`ColPali.query_tokens`). Vectors without a piece of the user's text
            (prompts, augmentation) and those of punctuation give no region. None uses all vectors.
        min_match: minimum match of a region: dot product divided by the length of the query vector. In models with
            unit vectors, every patch of a page matches a little. ColTiny matches words, and pages without the word
            have matches of about 0, mostly with similar words. (On the demo's questions 0.2 keeps 62 of the 64 words
            that the pages have by their text layers, and 4 of the 15 that they do not have.)
        grow: from 0 to 1, see above; 1 limits every box to one cell.

    Returns:
        At most one region per query vector, the best match first. Overlapping regions of the same token are merged.

    Raises:
        InputError: the arrays do not fit each other, or an option has an invalid value.

    Example:
        >>> from colpali_integrations import ColPali, pdf_pages
        >>> model = ColPali.from_pretrained()
        >>> page = next(pdf_pages("report.pdf"))
        >>> [embedded] = model.embed_pages([page])
        >>> [query] = model.embed_queries("diverging palettes")
        >>> boxes = regions(query, *embedded, tokens=model.query_tokens("diverging palettes"))
        >>> sorted(region.token for region in boxes)
        ['diverging', 'palettes']
    """
    matches = match_vectors(query_vectors, page_vectors, grid, tokens)
    if not min_match >= 0:
        raise InputError(f"min_match must be at least 0, got {min_match}")
    if not 0 <= grow <= 1:
        raise InputError(f"grow must be from 0 to 1, got {grow}")
    with_cell = np.flatnonzero(grid.cells >= 0)
    if not with_cell.size:
        return []
    weakest = min_match * np.linalg.norm(np.asarray(query_vectors, np.float32), axis=1)
    total = float(matches.max(axis=1).sum())
    boxes = []
    for index, row in enumerate(matches[:, with_cell]):
        token = None if tokens is None else tokens[index]
        if tokens is not None and not is_word(token):
            continue
        best = int(row.argmax())
        score = float(row[best])
        if score <= 0 or score < weakest[index]:
            continue
        vector = int(with_cell[best])
        box = grid.box(vector) if grid.margins is not None else _grown(grid, grid.cells[with_cell], row, best, grow)
        if box is not None and box[0] < box[2] and box[1] < box[3]:
            share = min(max(score / total, 0.0), 1.0) if total > 0 else 0.0
            boxes.append(Region(token, score, share, box))
    return sorted(_merged(boxes), key=lambda region: -region.score)


def match_vectors(
    query_vectors: NDArray[Any],
    page_vectors: NDArray[Any],
    grid: PageGrid,
    tokens: Sequence[str | None] | None,
) -> NDArray[np.float32]:
    """Multiply a question's vectors with a page's, after a check that the arrays belong together.

    Args:
        query_vectors: float (n_query_vectors, dim).
        page_vectors: float (n, dim), the page's vectors or the means of `grid.groups`.
        grid: the page's grid.
        tokens: the token of each query vector, or None.

    Returns:
        float32 (n_query_vectors, n_vectors), one column per cell of the grid.

    Raises:
        InputError: the arrays do not fit each other.
    """
    query, page = as_multi_vector(query_vectors, "query_vectors"), as_multi_vector(page_vectors, "page_vectors")
    if query.shape[1] != page.shape[1]:
        raise InputError(f"query_vectors have dim {query.shape[1]} and page_vectors {page.shape[1]}; same model?")
    page = grid.spread(page)
    if tokens is not None and len(tokens) != len(query):
        raise InputError(f"{len(query)} query vectors but {len(tokens)} tokens; are both of the same text?")
    return np.asarray(query.astype(np.float32, copy=False) @ page.astype(np.float32, copy=False).T)


def is_word(token: str | None) -> bool:
    """Tell whether a token is from the user's text and more than punctuation."""
    return token is not None and any(character.isalnum() for character in token)


def _grown(grid: PageGrid, cells: NDArray[Any], matches: NDArray[np.float32], best: int, grow: float) -> Box:
    """Get the box around the best cell and the cells connected with it that match nearly as well."""
    from scipy.ndimage import label  # slow to import

    median = np.median(matches)
    # Strictly above the median, or a page that matches alike everywhere would be one region.
    near = (matches >= matches[best] - (1 - grow) * (matches[best] - median)) & (matches > median)
    near[best] = True
    page = np.zeros(grid.rows * grid.columns, bool)
    page[cells[near]] = True
    groups = label(page.reshape(grid.rows, grid.columns))[0].reshape(-1)
    return grid.cells_box(np.flatnonzero(groups == groups[cells[best]]))


def _merged(regions: Sequence[Region]) -> list[Region]:
    """Merge overlapping regions of one token: a word that the question repeats gives one region."""
    merged: list[Region] = []
    for region in sorted(regions, key=lambda region: -region.score):
        for index, other in enumerate(merged):
            if region.token == other.token and region.token is not None and _overlap(region.box, other.box):
                box = (*map(min, region.box[:2], other.box[:2]), *map(max, region.box[2:], other.box[2:]))
                share = min(other.share + region.share, 1.0)
                merged[index] = Region(other.token, other.score, share, (box[0], box[1], box[2], box[3]))
                break
        else:
            merged.append(region)
    return merged


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
