"""ColTiny, the bundled model: reads the words of a page from its pixels, and matches query words by dot product.

A page becomes one vector per distinct word that the model recognises on it, a query one vector per word. One more
vector per passage of the page, and one of the query, hold their senses (`senses`), so that near meanings count too.
Ranking needs three quantities that unit vectors do not have; lengths and one extra dimension carry them:

- a query vector's length is the word's learned weight w (rare words weigh more);
- a page vector's length is the word's frequency on the page: its number of occurrences n, saturated and normalised by
  the page's number of words L as in BM25 (Robertson and Zaragoza 2009),
  ``len = n (k1 + 1) / (n + k1 (1 - b + b L / mean))``;
- the last dimension subtracts a hinge h from every cosine, and one zero vector per page stops sums at zero:
  query ``[w t, -w h]``, page ``[len v, len]``, hence ``max(0, max_p w len (cos - h))`` by plain dot-product MaxSim.

A score is therefore at least 0 and at most ``1.1 (k1 + 1) (1 - h)`` (1.23 with the shipped constants) per query word,
and at most 1.2 more for the sense. Rows are not of unit length, and every page ends with the zero vector; compare
them by dot product, not by cosine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.coltiny.pixels import look
from colpali_integrations.models.coltiny.senses import Senses
from colpali_integrations.models.coltiny.texts import (
    ColTinyConfig,
    ColTinyQueries,
    ColTinyTexts,
    best_match,
    page_vectors,
)
from colpali_integrations.models.coltiny.word_boxes import word_boxes
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.family import Prepared
from colpali_integrations.runtime.arrays import Feed, Float32, GraphFiles, Outputs
from colpali_integrations.scoring._kernels import products

__all__ = ["ColTinyConfig", "ColTinyFamily", "ColTinyPages", "ColTinyQueries", "PageLayout"]

_MOST_CELLS = 2048  # of about 3,700 on A4: bounds the time for a page of noise, which looks like text everywhere
# A page is little read if fewer than this share of its words are near a word of the table of senses. On pages in Latin
# script more are, also in German, French and Spanish, which share words with English. The constants were chosen on the
# half "dev" of benchmarks/unread.py.
_LITTLE, _NEAR = 0.13, 0.6
_FEWEST_WORDS = 40  # on a page with fewer, the share says little
_SAMPLE = 96  # words of a page that are compared; all would take 4% of the page's time


@dataclass(frozen=True)
class PageLayout:
    """A page's vectors and the cells they come from.

    Attributes:
        vectors: float32 (n, dim): the words, the senses of the passages, and the zero vector.
        cells: int32 (n, 2), row and column of the cell that each vector was read in (of a word's most salient
            occurrence), counted from the edges of the prepared picture; (-1, -1) for passages and the zero vector.
    """

    vectors: Float32
    cells: NDArray[np.int32]


class ColTinyPages:
    """Encodes a page to one vector per distinct word, one per passage for its sense, and the zero vector."""

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
        """As `vectors`, with the cell of each vector."""
        height, width = batch[0].extra.pixels.shape
        rows, columns = height // self._config.cell, width // self._config.cell
        page, cells = np.divmod(outputs["cells"], rows * columns)
        layouts = []
        for index in range(len(batch)):
            here = page == index
            places = np.stack(np.divmod(cells[here], columns), axis=1).astype(np.int32)
            layouts.append(self.layout(outputs["vectors"][here], outputs["salience"][here], places))
        return layouts

    def embeddings(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[PageEmbedding]:
        """As `vectors`, each with the boxes of the words' most salient occurrences."""
        return [
            PageEmbedding(layout.vectors, word_boxes(item.extra, layout.cells, self._config.cell))
            for item, layout in zip(batch, self.layouts(outputs, batch), strict=True)
        ]

    def reads_little(self, page: PageEmbedding) -> bool:
        """Whether the page has print of which few words are near a known word, such as print in another script.

        Args:
            page: of `embeddings`.
        """
        words = page.vectors[page.grid.cells >= 0]
        if len(words) < _FEWEST_WORDS:
            return False
        some = words[np.linspace(0, len(words) - 1, min(_SAMPLE, len(words))).astype(np.intp)]
        near = self._senses.nearest(some[:, :-1] / some[:, -1:]) > _NEAR  # without the lengths
        return bool(near.mean() < _LITTLE)

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
        spellings, place = vectors[order].astype(np.float32), cells[order]
        cosine = products(spellings, spellings)

        # A printed word that straddles cells is read in several of them: keep the most salient one.
        first = _most_salient(place, cosine > config.occurrence_cosine)
        spellings, place, cosine = spellings[first], place[first], cosine[np.ix_(first, first)]

        # The most salient cell without a word gets one, together with every such cell that shows the same word.
        leaders, label = _clusters(cosine > config.cluster_cosine)
        if not len(leaders):
            return PageLayout(np.zeros((1, config.dim), np.float32), np.full((1, 2), -1, np.int32))
        total = spellings[leaders] + np.float32(0)
        for index in np.setdiff1d(np.arange(len(label)), leaders, assume_unique=True).tolist():
            total[label[index]] += spellings[index]
        spellings = total / np.linalg.norm(total, axis=1, keepdims=True)
        in_order = label[np.lexsort(place.T[::-1])]
        senses = self._senses.of_spellings(spellings)
        rows = page_vectors(config, spellings, np.bincount(label), in_order, senses)
        nowhere = np.full((len(rows) - len(leaders), 2), -1, np.int32)
        return PageLayout(rows, np.concatenate([place[leaders], nowhere]))


def _most_salient(place: NDArray[np.int32], same: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether no earlier cell among the eight around a cell shows the same.

    Args:
        place: int32 (n, 2), row and column of each cell, the most salient first; no place comes twice.
        same: (n, n), whether two cells show the same.

    Returns:
        (n,).
    """
    count = len(place)
    if not count:
        return np.zeros(0, np.bool_)
    row, column = (place - place.min(axis=0) + 1).T
    number = np.full((row.max() + 2, column.max() + 2), count, np.intp)  # a place without a cell comes last
    number[row, column] = np.arange(count)
    first = np.ones(count, np.bool_)
    for down, across in product((-1, 0, 1), repeat=2):
        beside = number[row + down, column + across]
        [earlier] = np.nonzero(beside < np.arange(count))
        first[earlier[same[earlier, beside[earlier]]]] = False
    return first


def _clusters(same: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Put cells that show the same word together: each in the order of salience leads those like it that are left.

    Args:
        same: (n, n), whether two cells show the same word.

    Returns:
        The leaders, ascending, and (n,) the number of each cell's leader.
    """
    leaders: list[int] = []
    label = [-1] * len(same)
    ends = np.cumsum(np.count_nonzero(same, axis=1)).tolist()
    others = np.nonzero(same)[1].tolist()
    begin = 0
    for index, end in enumerate(ends):
        if label[index] < 0:
            for other in (index, *others[begin:end]):
                if label[other] < 0:
                    label[other] = len(leaders)
            leaders.append(index)
        begin = end
    return np.array(leaders, np.intp), np.array(label, np.intp)


class ColTinyFamily:
    """ColTiny bound to the files of one folder: ``image.onnx``, ``text.onnx``, ``senses.npz`` and ``config.json``."""

    def __init__(self, description: ModelDescription, directory: Path) -> None:
        self.config = ColTinyConfig.read(directory / "config.json")
        if self.config.dim != description.dim:
            raise ModelLoadError(
                f"{directory}: config.json has dim {self.config.dim}, the description of {description.name!r} has "
                f"{description.dim}; describe the model with its own dim"
            )
        self.graphs = GraphFiles(pages=directory / description.model_file, queries=directory / "text.onnx")
        senses = Senses.read(directory / "senses.npz")
        self.queries = ColTinyQueries(self.config, senses, max_words=description.max_query_tokens)
        self.texts = ColTinyTexts(self.config, senses)
        self.pages = ColTinyPages(self.config, senses)

    @staticmethod
    def adapt(
        base: ModelDescription, config: Mapping[str, Any], processor: Mapping[str, Any], hints: str
    ) -> ModelDescription:
        """Compute `best_match` from the constants of the folder; the constructor checks them."""
        k1, hinge = config.get("k1"), config.get("hinge")
        if not (isinstance(k1, int | float) and isinstance(hinge, int | float)):
            return base
        return replace(base, best_match=best_match(k1, hinge))

    def token_count(self, text: str, *, include_special: bool = True) -> int:
        """Number of words of a query, after truncation; the special token is the vector of its sense."""
        return len(self.queries.tokens(text)) if include_special else len(self.queries.words(text))

    def query_tokens(self, text: str) -> list[str | None]:
        """The words that the query vectors stand for, folded to the model's alphabet; None for the query's sense."""
        return self.queries.tokens(text)
