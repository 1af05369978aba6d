"""Senses: ColTiny's vectors of the topics of passages and questions, so that near meanings count beside words.

A word's sense is a vector from a table, distilled from all-MiniLM-L6-v2 (`training/senses.py`). The sense of a question
or of a passage of a page is the sum over its words, with less weight for frequent ones (smooth inverse frequency;
Arora, Liang and Ma 2017), at length 1. A page's passages are runs of 20 of its words that have a sense, from top to
bottom and from left to right, which overlap by about half; a whole page has too many topics for one vector. The words
are those of the table that the page's word vectors spell: near one of them, and clearly nearer than to the next. Both
conditions are gradual, so that a small change of a vector is a small change of the sense.

Sense vectors share the dimensions with word vectors. Senses differ most in the last coordinates before the hinge's,
where words differ least, and the hinge dimension keeps the two kinds apart::

    page   word  len [v, 1]     sense  [0 .. s', g]           question  word  w [t, -h]     sense  a [0 .. s, -c]

    sense by sense  a (s s' - c g)      a hinge of c g on the cosine of senses
    sense by word   a len (s v - c)     below 0, as unrelated directions have cosines far below c
    word by sense   w (t s' - h g)      about 0 or less, likewise

and the zero vector of the page stops each at 0. MaxSim takes the nearest passage. benchmarks/results/coltiny_quality.md
has the gain in quality.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._kernels import products

__all__ = ["Senses", "page_rows", "passages", "query_row"]

# Chosen on the half "dev" of benchmarks/coltiny_set; retrieval hardly depends on any of them.
_WEIGHT = 1.5  # a: weight of the question's sense; its words have weights of 0.05 to 1.1
_SHARE = 0.4  # at most this part of the words' weights: a question of one or two words is searched literally
_QUERY_FLOOR, _PAGE_FLOOR = 0.35, 0.7  # c, g: high enough that words and senses hardly match each other
_LEAST_IN_TABLE = 0.5  # of a question's words; below, it is in another language and only false friends match
_PASSAGE = 20  # words of a passage, some 40 of running text
# A vector counts from this cosine with the nearest word on, and in full from the sum of both on.
_COSINE, _CERTAIN = 0.45, 0.1
_LEAD = 0.03  # lead of the nearest word over the next from which it counts in full
_ROWS = 256  # vectors compared with the table at a time, 14 MB of cosines


class Senses:
    """The table of words, their spellings and senses. Read only, so any number of threads may use it.

    Args:
        words: folded as in `words`, each once.
        spellings: float32 (n_words, dim - 1), the text encoder's vectors of them, of length 1.
        vectors: float32 (n_words, n_senses), their senses; lengths are weights, 0 for words without a sense.
    """

    def __init__(self, words: Sequence[str], spellings: Float32, vectors: Float32) -> None:
        self.words = tuple(words)
        self._spellings = np.ascontiguousarray(spellings)
        self._vectors = vectors
        self._place = {word: index for index, word in enumerate(self.words)}

    @classmethod
    def read(cls, path: Path) -> Senses:
        """Read ``senses.npz``.

        It holds `words` (uint8, UTF-8 joined by newlines), `spellings` and `senses` (int8, one row per word), and the
        scales of their rows (float16), `spelling_scales` and `sense_scales`.

        Raises:
            ModelLoadError: the file is missing or damaged.
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
        """The senses of words: float32 (n, n_senses), zeros for those that the table lacks."""
        senses = np.zeros((len(words), self._vectors.shape[1]), np.float32)
        for row, word in zip(senses, words, strict=True):
            if word in self._place:
                row[:] = self._vectors[self._place[word]]
        return senses

    def of_question(self, words: Sequence[str]) -> Float32:
        """The sense of a question, each word as often as it occurs: float32 (n_senses,), length 1 or 0.

        It is 0 if the table lacks more than half of the words.
        """
        places = [self._place[word] for word in words if word in self._place]
        senses = self._vectors[np.array(places, np.intp)]
        return _unit(senses.sum(axis=0) * (len(places) >= _LEAST_IN_TABLE * len(words)))

    def of_spellings(self, vectors: Float32) -> Float32:
        """The senses of the words that vectors spell, shorter where the word is uncertain: float32 (n, n_senses).

        Args:
            vectors: float32 (n, dim - 1) of length 1, as the page encoder reads them.
        """
        senses = np.zeros((len(vectors), self._vectors.shape[1]), np.float32)
        for some, near in self._cosines(vectors):
            rows = np.arange(len(near))
            word = near.argmax(axis=1)
            best = near[rows, word]
            near[rows, word] = -1
            certainty = ((best - _COSINE) / _CERTAIN).clip(0, 1) * ((best - near.max(axis=1)) / _LEAD).clip(0, 1)
            senses[some] = self._vectors[word] * certainty[:, None]
        return senses

    def nearest(self, vectors: Float32) -> Float32:
        """The cosine of each vector with the nearest word of the table: float32 (n,).

        Args:
            vectors: as for `of_spellings`.
        """
        best = np.zeros(len(vectors), np.float32)
        for some, near in self._cosines(vectors):
            best[some] = near.max(axis=1)
        return best

    def _cosines(self, vectors: Float32) -> Iterator[tuple[slice, Float32]]:
        """Some of the vectors, and their cosines with all words: float32 (n, n_words)."""
        for start in range(0, len(vectors), _ROWS):
            some = slice(start, start + _ROWS)
            yield some, products(vectors[some], self._spellings)


def passages(senses: Float32, printed: NDArray[np.integer]) -> Float32:
    """The senses of the passages of a page: float32 (n_passages, n_senses) of length 1.

    Args:
        senses: float32 (n_words, n_senses), of the distinct words; 0 for a word without a sense.
        printed: (n,), numbers of the words in reading order. A passage counts each word once.

    Example:
        >>> passages(np.eye(2, 4, dtype=np.float32), np.array([0, 0, 1])).round(2)
        array([[0.71, 0.71, 0.  , 0.  ]], dtype=float32)
    """
    has_sense: NDArray[np.bool_] = np.any(senses, axis=1)
    telling = printed[has_sense[printed]]
    if not len(telling):
        return np.zeros((0, senses.shape[1]), np.float32)
    beyond = max(0, len(telling) - _PASSAGE)
    starts = np.linspace(0, beyond, 1 - -beyond // (_PASSAGE // 2)).round().astype(int)
    return np.stack([_unit(senses[np.unique(telling[start : start + _PASSAGE])].sum(axis=0)) for start in starts])


def query_row(sense: Float32, dim: int, words: float) -> Float32:
    """The vector of a question's sense: float32 (1, dim), or (0, dim) where the sense is 0.

    Args:
        sense: (n_senses,).
        dim: length of a vector.
        words: the sum of its words' weights.
    """
    rows: Float32 = _rows(sense[None][: int(sense.any())], dim, -_QUERY_FLOOR)
    rows *= min(_WEIGHT, _SHARE * words)
    return rows


def page_rows(words: Float32, senses: Float32) -> Float32:
    """The vectors of a page: its words, its :func:`passages`, and the zero vector.

    Args:
        words: float32 (n_words, dim).
        senses: float32 (n_passages, n_senses).
    """
    dim = words.shape[1]
    return np.concatenate([words, _rows(senses, dim, _PAGE_FLOOR), np.zeros((1, dim), np.float32)])


def _rows(senses: Float32, dim: int, hinge: float) -> Float32:
    rows = np.zeros((len(senses), dim), np.float32)
    rows[:, dim - 1 - senses.shape[1] : dim - 1] = senses
    rows[:, -1] = hinge
    return rows


def _unit(vector: Float32) -> Float32:
    length = np.linalg.norm(vector)
    return np.asarray(vector / length if length > 1e-6 else np.zeros_like(vector), np.float32)
