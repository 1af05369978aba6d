"""What passages and questions are about: more vectors beside ColTiny's words, so that near meanings count.

A word's sense is a vector out of a table, distilled from all-MiniLM-L6-v2 (`training/senses.py`). That of a question,
or of a passage of a page, is the sum over its words, frequent ones weighing less (smooth inverse frequency; Arora,
Liang and Ma 2017), at length 1. A page's passages are runs of 20 of its words that have a sense, from top to bottom
and from left to right, each beginning about half of one after the last: a whole page says too many things to be about
any. The words are those of the table that the page's word vectors spell: near one of them, and clearly nearer
than to the next, by degrees, so that a small change of a vector is a small change of the sense.

Sense vectors share the dimensions with word vectors. Senses differ most in the last coordinates before the hinge's, in
which words differ least, and the hinge dimension keeps the two kinds apart::

    page   word  len [v, 1]     sense  [0 .. s', g]           question  word  w [t, -h]     sense  a [0 .. s, -c]

    sense by sense  a (s s' - c g)      a hinge of c g on the cosine of senses
    sense by word   a len (s v - c)     below 0, as unrelated directions have cosines far below c
    word by sense   w (t s' - h g)      about 0 or less, likewise

and the zero vector of the page stops each at 0. MaxSim takes the passage that is nearest. What it gives is in
benchmarks/results/coltiny_quality.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.scoring._kernels import products

__all__ = ["Senses", "page_rows", "passages", "query_row"]

# Chosen on the half "dev" of benchmarks/coltiny_set; retrieval hardly depends on any of them.
_WEIGHT = 1.5  # a: of the question's sense beside its words, whose weights are 0.05 to 1.1
_SHARE = 0.4  # but no more than this part of the words' weights: one or two words are looked for, not guessed about
_QUERY_FLOOR, _PAGE_FLOOR = 0.35, 0.7  # c, g: high enough that words and senses hardly meet
_KNOWN = 0.5  # of a question's words: with less it is in another language, and false friends would speak for it
_PASSAGE = 20  # words of a passage, some 40 of running text
# A vector that is further from every word is none of them; from there on it counts more and more.
_COSINE, _CERTAIN = 0.45, 0.1
_LEAD = 0.03  # by so much the nearest word must lead the next to count in full
_ROWS = 256  # vectors compared with the table at a time, 14 MB of cosines


class Senses:
    """The table of words, how they are spelt and what they mean. Read only, so any number of threads may use it.

    Args:
        words: folded as in `words`, each once.
        spellings: float32 (n_words, dim - 1), the text encoder's vectors of them, of length 1.
        vectors: float32 (n_words, n_senses), their senses; lengths are weights, 0 for words that say nothing.
    """

    def __init__(self, words: Sequence[str], spellings: Float32, vectors: Float32) -> None:
        self.words = tuple(words)
        self._spellings = np.ascontiguousarray(spellings)
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
        """The senses of words: float32 (n, n_senses), zeros for those that the table lacks."""
        found = np.zeros((len(words), self._vectors.shape[1]), np.float32)
        for row, word in zip(found, words, strict=True):
            if word in self._place:
                row[:] = self._vectors[self._place[word]]
        return found

    def of_question(self, words: Sequence[str]) -> Float32:
        """What a question is about, each word as often as it stands there: float32 (n_senses,), length 1 or 0.

        It is 0 for one of whose words the table lacks more than half.
        """
        known = [word for word in words if word in self._place]
        return _unit(self.of_words(known if len(known) >= _KNOWN * len(words) else []).sum(axis=0))

    def of_spellings(self, vectors: Float32) -> Float32:
        """The senses of the words that some vectors spell, the shorter the less sure: float32 (n, n_senses).

        Args:
            vectors: float32 (n, dim - 1) of length 1, as the page encoder reads them.
        """
        found = np.zeros((len(vectors), self._vectors.shape[1]), np.float32)
        for start in range(0, len(vectors), _ROWS):
            near = products(vectors[start : start + _ROWS], self._spellings)
            rows = np.arange(len(near))
            word = near.argmax(axis=1)
            best = near[rows, word]
            near[rows, word] = -1
            sure = ((best - _COSINE) / _CERTAIN).clip(0, 1) * ((best - near.max(axis=1)) / _LEAD).clip(0, 1)
            found[start : start + _ROWS] = self._vectors[word] * sure[:, None]
        return found


def passages(senses: Float32, printed: NDArray[np.integer]) -> Float32:
    """What the passages of a page are about: float32 (n_passages, n_senses) of length 1.

    Args:
        senses: float32 (n_words, n_senses), those of the distinct words; 0 for a word that says nothing.
        printed: (n,), which of them stands at each place, in reading order. A passage counts each word once.

    Example:
        >>> passages(np.eye(2, 4, dtype=np.float32), np.array([0, 0, 1])).round(2)
        array([[0.71, 0.71, 0.  , 0.  ]], dtype=float32)
    """
    says: NDArray[np.bool_] = np.any(senses, axis=1)
    telling = printed[says[printed]]
    if not len(telling):
        return np.zeros((0, senses.shape[1]), np.float32)
    beyond = max(0, len(telling) - _PASSAGE)
    starts = np.linspace(0, beyond, 1 - -beyond // (_PASSAGE // 2)).round().astype(int)
    return np.stack([_unit(senses[np.unique(telling[start : start + _PASSAGE])].sum(axis=0)) for start in starts])


def query_row(sense: Float32, dim: int, words: float) -> Float32:
    """The one more vector of a question: float32 (1, dim), or (0, dim) where its sense is 0.

    Args:
        sense: what it is about, (n_senses,).
        dim: of a vector.
        words: the sum of its words' weights.
    """
    rows: Float32 = _rows(sense[None][: int(sense.any())], dim, -_QUERY_FLOOR)
    rows *= min(_WEIGHT, _SHARE * words)
    return rows


def page_rows(about: Float32, dim: int) -> Float32:
    """The vectors of a page's :func:`passages`: float32 (n_passages, dim)."""
    return _rows(about, dim, _PAGE_FLOOR)


def _rows(senses: Float32, dim: int, hinge: float) -> Float32:
    rows = np.zeros((len(senses), dim), np.float32)
    rows[:, dim - 1 - senses.shape[1] : dim - 1] = senses
    rows[:, -1] = hinge
    return rows


def _unit(vector: Float32) -> Float32:
    length = np.linalg.norm(vector)
    unit: Float32 = (vector / length if length > 1e-6 else np.zeros_like(vector)).astype(np.float32)
    return unit
