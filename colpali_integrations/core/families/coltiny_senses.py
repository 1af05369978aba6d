"""What a page or a question is about: one more vector beside ColTiny's words, so that near meanings count a little.

A word's sense is a short vector out of a table, distilled from all-MiniLM-L6-v2 (`training/senses.py`). That of a page
or a question is the sum over its words, frequent ones weighing less (smooth inverse frequency; Arora, Liang and Ma
2017), at length 1. On a page the words are those of the table that its word vectors spell: near one of them, and
clearly nearer than to the next, by degrees, so that a small change of a vector is a small change of the sense.

Sense vectors share the dimensions with word vectors. They lie in the last of the coordinates before the hinge's, in
which words differ least, and the hinge dimension keeps the two kinds apart::

    page   word  len [v, 1]     sense  [0 .. s', g]           question  word  w [t, -h]     sense  a [0 .. s, -c]

    sense by sense  a (s s' - c g)      a hinge of c g on the cosine of senses
    sense by word   a len (s v - c)     below 0, as unrelated directions have cosines far below c
    word by sense   w (t s' - h g)      about 0 or less, likewise

and the zero vector of the page stops each at 0. What it gives is in benchmarks/results/coltiny_quality.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from colpali_integrations.core.errors import ModelLoadError
from colpali_integrations.core.families.base import Float32

__all__ = ["Senses", "page_row", "query_row"]

# Chosen on the half "dev" of benchmarks/coltiny_set; retrieval hardly depends on any of them.
_WEIGHT = 0.5  # a: of the question's sense beside its words, whose weights are 0.05 to 1.1
_SHARE = 0.15  # but no more than this part of the words' weights: one or two words are looked for, not guessed about
_QUERY_FLOOR, _PAGE_FLOOR = 0.4, 0.5  # c, g
_COSINE, _CERTAIN = (
    0.45,
    0.1,
)  # a vector this far from every word is none of them; from there on it counts more and more
_LEAD = 0.03  # by so much the nearest word must lead the next to count in full
_ROWS = 256  # vectors compared with the table at a time, 14 MB of cosines


class Senses:
    """The table of words, how they are spelt and what they mean. Read only, so any number of threads may use it.

    Args:
        words: folded as in `coltiny_words`, each once.
        spellings: float32 (n_words, dim - 1), the text encoder's vectors of them, of length 1.
        vectors: float32 (n_words, n_senses), their senses; lengths are weights, 0 for words that say nothing.
    """

    def __init__(self, words: Sequence[str], spellings: Float32, vectors: Float32) -> None:
        self.words = tuple(words)
        self._spellings = np.ascontiguousarray(spellings.T)
        self._vectors = vectors
        self._place = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path) -> Senses:
        """Read ``senses.npz``.

        It holds `words` (uint8, UTF-8 joined by newlines), and as `spellings` and `senses` whole numbers (int8, a row
        a word) with a scale for each row (float16), `spelling_scales` and `sense_scales`.

        Raises:
            ModelLoadError: it is missing, or no such file.
        """
        try:
            with np.load(path) as stored:
                words = stored["words"].tobytes().decode().split("\n")
                spellings, vectors = (
                    stored[f"{name}s"] * stored[f"{name}_scales"].astype(np.float32)[:, None]
                    for name in ("spelling", "sense")
                )
            if not len(words) == len(spellings) == len(vectors):
                raise ValueError(f"{len(words)} words, {len(spellings)} spellings, {len(vectors)} senses")
        except (OSError, ValueError, KeyError) as error:
            raise ModelLoadError(
                f"{path}: not ColTiny's table of senses ({type(error).__name__}: {error}); take all files of the model "
                "from one place"
            ) from error
        return cls(words, spellings, vectors)

    def of_words(self, words: Sequence[str]) -> Float32:
        """The sense of words, each as often as it stands there: float32 (n_senses,) of length 1, or zeros."""
        return _unit(self._vectors[[self._place[word] for word in words if word in self._place]].sum(axis=0))

    def of_spellings(self, vectors: Float32) -> Float32:
        """The sense of the words that some vectors spell: float32 (n_senses,) of length 1, or zeros.

        Args:
            vectors: float32 (n, dim - 1) of length 1, as the page encoder reads them.
        """
        total = np.zeros(self._vectors.shape[1], np.float32)
        for start in range(0, len(vectors), _ROWS):
            near = vectors[start : start + _ROWS] @ self._spellings
            rows = np.arange(len(near))
            word = near.argmax(axis=1)
            best = near[rows, word]
            near[rows, word] = -1
            sure = ((best - _COSINE) / _CERTAIN).clip(0, 1) * ((best - near.max(axis=1)) / _LEAD).clip(0, 1)
            total += sure @ self._vectors[word]
        return _unit(total)


def query_row(sense: Float32, dim: int, words: float) -> Float32:
    """The one more vector of a question: float32 (1, dim), or (0, dim) where its sense is 0.

    Args:
        sense: of its words.
        dim: of a vector.
        words: the sum of its words' weights.
    """
    row: Float32 = _row(sense, dim, -_QUERY_FLOOR) * np.float32(min(_WEIGHT, _SHARE * words))
    return row


def page_row(sense: Float32, dim: int) -> Float32:
    """The one more vector of a page: float32 (1, dim), or (0, dim) where its sense is 0."""
    return _row(sense, dim, _PAGE_FLOOR)


def _row(sense: Float32, dim: int, hinge: float) -> Float32:
    row = np.zeros((int(bool(sense.any())), dim), np.float32)
    row[:, dim - 1 - len(sense) : dim - 1] = sense
    row[:, -1] = hinge
    return row


def _unit(vector: Float32) -> Float32:
    length = np.linalg.norm(vector)
    unit: Float32 = (vector / length if length > 1e-6 else np.zeros_like(vector)).astype(np.float32)
    return unit
