"""What a passage is about, as a vector that plain dot-product MaxSim compares beside ColTiny's word vectors.

A trial, not part of the model: see README.md, "Meaning".

A word's sense is a short vector out of a table (`training/senses.py`); that of a passage or of a query is the sum over
its words, rare words weighing more (smooth inverse frequency; Arora, Liang and Ma 2017), at length 1. On a page the
words are those of the table whose spelling vectors its word vectors come near; passages are runs of them, line by line.

Sense vectors share the 128 dimensions with word vectors. They lie in the last of the 127 coordinates, and the hinge
dimension keeps the two kinds apart::

    page   word  len [v, 1]     sense  [0 .. s', gamma]           query  word  w [t, -h]     sense  alpha [0 .. s, -c]

    sense by sense  alpha (s s' - c gamma)      a hinge of c gamma on the cosine of senses
    sense by word   alpha len (s v - c)         below 0, as unrelated directions have cosines far below c
    word by sense   w (t s' - h gamma)          about 0 or less, likewise

and the zero vector of the page stops each at 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.core.errors import ModelLoadError
from colpali_integrations.core.families.base import Float32

__all__ = ["SenseScale", "Senses", "page_rows", "query_row", "read_words"]


@dataclass(frozen=True)
class SenseScale:
    """Constants of sense vectors; chosen on the documents of "dev".

    Attributes:
        weight: alpha, of the sense beside the words, whose weights are about 1.
        query_floor: c.
        page_floor: gamma.
        passage: words of a passage.
        least_cosine: a page vector further from every word of the table is no word of it.
        least_margin: by how much the best word must lead the second.
        rarity: what a word's cosine loses for each e-fold of its rank in frequency beyond the thousandth.
    """

    weight: float = 0.5
    query_floor: float = 0.4
    page_floor: float = 0.5
    passage: int = 60
    least_cosine: float = 0.5
    least_margin: float = 0.015
    rarity: float = 0.01


class Senses:
    """The table of words and their senses.

    Args:
        words: folded as in `coltiny_words`, each once, the most frequent first.
        vectors: float32 (n_words, dims); their lengths are the words' weights, 0 for words that say nothing.
    """

    def __init__(self, words: Sequence[str], vectors: Float32) -> None:
        self.words = tuple(words)
        self.vectors = vectors
        self._place = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path) -> Senses:
        """Read what `training/senses.py` wrote.

        The file is an .npz of `words` (uint8, UTF-8 joined by newlines), `codes` (int8 (n, dims)) and `scales`
        (float16 (n,)), such that a vector is its codes times its scale.

        Raises:
            ModelLoadError: it is missing, or no such file.
        """
        try:
            with np.load(path) as stored:
                words = stored["words"].tobytes().decode().split("\n")
                vectors = stored["codes"] * stored["scales"].astype(np.float32)[:, None]
            if len(words) != len(vectors):
                raise ValueError(f"{len(words)} words, {len(vectors)} vectors")
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(
                f"{path}: not a table of senses ({type(error).__name__}: {error}); make it by python -m training.senses"
            ) from error
        return cls(words, vectors)

    def passage(self, words: Sequence[str]) -> Float32:
        """The sense of some words: float32 (dims,) of length 1, or 0 where the table knows none of them."""
        return _unit(self.vectors[[self._place[word] for word in words if word in self._place]].sum(axis=0))


def query_row(sense: Float32, dim: int, scale: SenseScale) -> Float32:
    """The one more vector of a query: float32 (1, dim), or (0, dim) where its sense is 0."""
    row = np.zeros((1, dim), np.float32)
    row[0, dim - 1 - len(sense) : dim - 1] = sense
    row[0, -1] = -scale.query_floor
    rows: Float32 = row[: int(bool(sense.any()))] * np.float32(scale.weight)
    return rows


def page_rows(
    found: NDArray[np.intp], places: NDArray[np.int32], senses: Senses, dim: int, scale: SenseScale
) -> Float32:
    """The senses of a page's passages.

    Args:
        found: intp (n,), which word of the table each printed word is, -1 for none.
        places: int32 (n, 2), row and column of the cell that each is centred in.
        senses: the table.
        dim: of the rows.
        scale: passage length and floor.

    Returns:
        float32 (n_passages, dim); passages whose words say nothing have no row.
    """
    order = np.lexsort((places[:, 1], places[:, 0]))
    said = np.where(found[:, None] >= 0, senses.vectors[found], 0)[order]
    rows = []
    for start in range(0, len(said), scale.passage):
        sense = _unit(said[start : start + scale.passage].sum(axis=0))
        if sense.any():
            row = np.zeros(dim, np.float32)
            row[dim - 1 - len(sense) : dim - 1] = sense
            row[-1] = scale.page_floor
            rows.append(row)
    return np.stack(rows) if rows else np.zeros((0, dim), np.float32)


def read_words(vectors: Float32, vocabulary: Float32, scale: SenseScale) -> NDArray[np.intp]:
    """Which word of the table each vector is.

    Args:
        vectors: float32 (n, dim - 1), unit length, as the page encoder gives them.
        vocabulary: float32 (n_words >= 2, dim - 1), the text encoder's vectors of `Senses.words`, in that order.
        scale: thresholds.

    Returns:
        intp (n,), index into the vocabulary, -1 where no word is near enough or two are equally near.
    """
    rank = np.arange(1, len(vocabulary) + 1, dtype=np.float32)
    near = vectors @ vocabulary.T - np.float32(scale.rarity) * np.maximum(0, np.log(rank / 1000))
    at = np.arange(len(near))
    best = near.argmax(axis=1)
    first = near[at, best]
    near[at, best] = -np.inf
    sure = (first >= scale.least_cosine) & (first - near.max(axis=1) >= scale.least_margin)
    return np.where(sure, best, -1)


def _unit(vector: Float32) -> Float32:
    length = np.linalg.norm(vector)
    unit: Float32 = (vector / length if length > 0 else vector).astype(np.float32)
    return unit
