"""ColTiny, the bundled model: reads the words of a page from its pixels, looks words of a query up by dot product.

A page becomes one vector for each distinct word that the model makes out on it; a query one vector for each word. There
is one more for what each passage of the page is about, and one for the query (`senses`), so that near meanings
count too. Ranking wants three things that unit vectors cannot say, so here lengths and one extra dimension carry them:

- a query vector's length is the word's learned weight w (rare words weigh more);
- a page vector's length is how much the page says the word: its number of occurrences n, saturated and normalised by
  the page's number of words L as in BM25 (Robertson and Zaragoza 2009),
  ``len = n (k1 + 1) / (n + k1 (1 - b + b L / mean))``;
- the last dimension subtracts a hinge h from every cosine, and one zero vector per page stops sums at zero:
  query ``[w t, -w h]``, page ``[len v, len]``, hence ``max(0, max_p w len (cos - h))`` by plain dot-product MaxSim.

A score is therefore at least 0 and at most ``1.1 (k1 + 1) (1 - h)`` (1.23 with the shipped constants) a query word,
and at most 1.2 more for the sense. Rows are not of unit length, and every page ends with the zero vector; compare
them by dot product, not by cosine.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.coltiny.pixels import look
from colpali_integrations.models.coltiny.senses import Senses, passages
from colpali_integrations.models.coltiny.texts import (
    ColTinyConfig,
    ColTinyQueries,
    ColTinyTexts,
    best_match,
    occurrence_lengths,
    with_passages,
)
from colpali_integrations.models.coltiny.word_boxes import word_boxes
from colpali_integrations.models.family import Prepared
from colpali_integrations.models.registry import ModelDescription
from colpali_integrations.runtime.arrays import Feed, Float32, GraphFiles, Outputs
from colpali_integrations.scoring._kernels import products

__all__ = ["ColTinyConfig", "ColTinyFamily", "ColTinyPages", "ColTinyQueries", "PageLayout", "best_match"]

_logger = logging.getLogger(__name__)
_MOST_CELLS = 2048  # of about 3,700 on A4: bounds the time for noise that looks like text everywhere


@dataclass(frozen=True)
class PageLayout:
    """A page's vectors and the cells they come from.

    Attributes:
        vectors: float32 (n, dim): the words, what the passages are about, and the zero vector.
        cells: int32 (n, 2), row and column of the cell that each vector was read in (of a word's most salient
            occurrence), counted from the edges of what the model saw; (-1, -1) for passages and the zero vector.
        counts: int32 (n,), how often the page prints the word; 0 for those.
    """

    vectors: Float32
    cells: NDArray[np.int32]
    counts: NDArray[np.int32]


class ColTinyPages:
    """Page image to one vector per distinct word, one for what each passage is about, and the zero vector."""

    def __init__(self, config: ColTinyConfig, senses: Senses) -> None:
        self._config, self._senses = config, senses

    def prepare(self, item: Image.Image) -> Prepared:
        """The ink of the page, float32 (1, height, width); `extra` is its `Sight`."""
        sight = look(item, self._config.longest_side)
        return Prepared(key=sight.pixels.shape, arrays={"page": sight.pixels[None]}, extra=sight)

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """Pages of one size: float32 (batch, 1, height, width)."""
        return {"page": np.stack([item.arrays["page"] for item in batch])}

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_distinct_words + n_passages + 1, dim) per page."""
        return [layout.vectors for layout in self.layouts(outputs, batch)]

    def layouts(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageLayout]:
        """As `vectors`, with the cell of each vector, for highlighting and citations."""
        height, width = batch[0].extra.pixels.shape
        rows, columns = height // self._config.cell, width // self._config.cell
        number, cells = np.divmod(outputs["cells"], rows * columns)
        found = []
        for index in range(len(batch)):
            own = number == index
            place = np.stack(np.divmod(cells[own], columns), axis=1).astype(np.int32)
            found.append(self.layout(outputs["vectors"][own], outputs["salience"][own], place))
        return found

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the boxes of the words' most salient occurrences."""
        return [
            PageEmbedding(layout.vectors, word_boxes(item.extra, layout.cells, self._config.cell))
            for item, layout in zip(batch, self.layouts(outputs, batch), strict=True)
        ]

    def layout(self, vectors: Float32, salience: Float32, cells: NDArray[np.int32]) -> PageLayout:
        """Gather the cells of one page into words.

        Args:
            vectors: float32 (n, dim - 1), unit length.
            salience: float32 (n,), logits.
            cells: int32 (n, 2), row and column of each.

        Returns:
            Words in the order of their most salient occurrence, passages from top to bottom, the zero vector.
        """
        config = self._config
        order = np.argsort(-salience, kind="stable")[:_MOST_CELLS]
        order = order[salience[order] > config.salience_threshold]
        found, place = vectors[order].astype(np.float32), cells[order]
        cosine = products(found, found)

        # A printed word that straddles cells is seen by several of them: the most salient one speaks for it.
        row, column = place.T
        near = (np.abs(row[:, None] - row) <= 1) & (np.abs(column[:, None] - column) <= 1)
        first = ~np.tril(near & (cosine > config.occurrence_cosine), -1).any(axis=1)
        found, place, cosine = found[first], place[first], cosine[np.ix_(first, first)]

        # The most salient cell that is still free takes every free cell that says the same word.
        same, free = cosine > config.cluster_cosine, np.ones(len(found), bool)
        label = np.zeros(len(found), np.intp)
        leaders: list[int] = []
        for index in range(len(found)):
            if free[index]:
                members = same[index] & free
                members[index] = True
                label[members] = len(leaders)
                leaders.append(index)
                free &= ~members
        if not leaders:
            alone = np.zeros((1, config.dim), np.float32)
            return PageLayout(alone, np.full((1, 2), -1, np.int32), np.zeros(1, np.int32))
        count = np.bincount(label).astype(np.int32)
        total = np.zeros((len(leaders), found.shape[1]), np.float32)
        np.add.at(total, label, found)
        spellings = total / np.linalg.norm(total, axis=1, keepdims=True)
        length = occurrence_lengths(config, count, len(found))
        words = np.concatenate([spellings * length, length], axis=1)
        in_order = label[np.lexsort(place.T[::-1])]
        rows = with_passages(words, passages(self._senses.of_spellings(spellings), in_order))
        others = len(rows) - len(words)
        nowhere, never = np.full((others, 2), -1, np.int32), np.zeros(others, np.int32)
        return PageLayout(rows, np.concatenate([place[leaders], nowhere]), np.concatenate([count, never]))


class ColTinyFamily:
    """ColTiny bound to the files of one folder: ``image.onnx``, ``text.onnx``, ``senses.npz`` and ``config.json``."""

    def __init__(self, description: ModelDescription, directory: Path) -> None:
        self.config = ColTinyConfig.read(directory / "config.json")
        if self.config.dim != description.dim:
            raise ModelLoadError(
                f"{directory}: its config.json says dim {self.config.dim}, the description of {description.name!r}"
                f" {description.dim}; describe the model with its own dim"
            )
        self.graphs = GraphFiles(pages=directory / description.model_file, queries=directory / "text.onnx")
        senses = Senses.read(directory / "senses.npz")
        self.queries = ColTinyQueries(self.config, senses, max_words=description.max_query_tokens)
        self.texts = ColTinyTexts(self.config, senses)
        self.pages = ColTinyPages(self.config, senses)

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of words of a query, after truncation; the special token is what they are about."""
        return len(self.queries.tokens(text)) if include_special else len(self.queries.words(text))

    def query_tokens(self, text: str) -> list[str | None]:
        """The words that the query vectors stand for, folded to the model's alphabet; None for what they are about."""
        return self.queries.tokens(text)
