"""ColTiny's constants, and its text side: queries to one vector a word, texts to what a page that prints them has.

A query's vectors have other lengths and another last dimension than a page's (see `coltiny`). A text that is to be
found beside pages gets a page's.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ModelLoadError, QueryError
from colpali_integrations.models.coltiny.senses import Senses, page_rows, passages, query_row
from colpali_integrations.models.coltiny.words import MAX_WORD_FEATURES, query_words, word_features
from colpali_integrations.models.family import Prepared
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs

__all__ = ["ColTinyConfig", "ColTinyQueries", "ColTinyTexts", "best_match", "occurrence_lengths", "with_passages"]

_logger = logging.getLogger(__name__)
# A page of small print has about a thousand; more than this is not one page.
_MOST_TEXT_WORDS = 4096


def best_match(k1: float, hinge: float) -> float:
    """The highest possible dot product of a page vector with a query vector of length 1.

    A query vector ``w [t, -h]`` has length ``w sqrt(1 + h^2)``; with a page vector ``len [v, 1]`` it makes at most
    ``w len (1 - h)``, and ``len`` stays below ``k1 + 1``, however often the page says the word.

    Example:
        >>> round(best_match(0.6, 0.25), 4)
        1.1642
    """
    return (k1 + 1) * (1 - hinge) / math.sqrt(1 + hinge**2)


@dataclass(frozen=True)
class ColTinyConfig:
    """Constants of ``config.json``, fixed when the model was exported.

    Attributes:
        dim: length of a vector, hinge dimension included.
        feature_padding: feature id whose embedding is zero.
        longest_side: pixels of a page's longer side before encoding.
        cell: side of the square, in those pixels, that one vector of the grid stands for.
        salience_threshold: cells above it count as "a word is centred here".
        occurrence_cosine: neighbouring cells closer than this see the same printed word.
        cluster_cosine: cells closer than this, anywhere on the page, say the same word.
        k1: saturation of a word's count.
        b: share of the normalisation by page length.
        mean_occurrences: printed words on an average page.
        hinge: cosine at or below which a page says nothing about a word.
    """

    dim: int
    feature_padding: int
    longest_side: int
    cell: int
    salience_threshold: float
    occurrence_cosine: float
    cluster_cosine: float
    k1: float
    b: float
    mean_occurrences: float
    hinge: float

    @property
    def best_match(self) -> float:
        """See :func:`best_match`."""
        return best_match(self.k1, self.hinge)

    @classmethod
    def read(cls, path: Path) -> ColTinyConfig:
        """Read ``config.json``.

        Raises:
            ModelLoadError: it is missing, is not JSON, or lacks a constant.
        """
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return cls(**{field.name: found[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{path}: not a ColTiny configuration ({type(error).__name__}: {error})") from error


def occurrence_lengths(config: ColTinyConfig, counts: NDArray[Any], words: int) -> Float32:
    """How much a page says each of its words: float32 (n, 1), by BM25's saturation.

    Args:
        config: k1, b and the mean number of words.
        counts: (n,), how often the page says each.
        words: how many it has in all.
    """
    norm = config.k1 * (1 - config.b + config.b * words / config.mean_occurrences)
    return (counts * (config.k1 + 1) / (counts + norm)).astype(np.float32)[:, None]


def with_passages(words: Float32, about: Float32) -> Float32:
    """A page's rows: those of its words, of what its passages are about, and the zero vector."""
    dim = words.shape[1]
    return np.concatenate([words, page_rows(about, dim), np.zeros((1, dim), np.float32)])


class ColTinyQueries:
    """Query text to one vector a word, and one of what they are about where the table of senses knows any of them.

    Words do not see each other, so any queries may share a run.
    """

    def __init__(self, config: ColTinyConfig, senses: Senses, *, max_words: int, kind: str = "query") -> None:
        self._config, self._senses = config, senses
        self._max_words, self._kind = max_words, kind
        self._warned = False

    def words(self, text: str) -> list[str]:
        """The words that get a vector, in order: see `words.query_words`.

        Raises:
            QueryError: `text` is empty or only whitespace.
        """
        if not text.strip():
            raise QueryError(f"the query is empty ({text!r}); ask for at least one word")
        found = query_words(text)
        if len(found) > self._max_words and not self._warned:
            self._warned = True
            _logger.warning(
                "a %s of %d words is cut to %d (said once); hand in less, or in several pieces",
                self._kind,
                len(found),
                self._max_words,
            )
        return found[: self._max_words]

    def tokens(self, text: str) -> list[str | None]:
        """What the vectors of a query stand for: its words, then None for their sense, where they have one.

        Raises:
            QueryError: as `words`.
        """
        found = self.words(text)
        return [*found, *([None] * int(self._senses.of_question(found).any()))]

    def prepare(self, item: str) -> Prepared:
        """Spell the words: int64 ids (n_words, longest possible), padded so that no batch changes a shape."""
        found = self.words(item)
        ids = np.full((len(found), MAX_WORD_FEATURES), self._config.feature_padding, np.int64)
        for row, word in zip(ids, found, strict=True):
            features = word_features(word)
            row[: len(features)] = features
        return Prepared(key="words", arrays={"features": ids}, extra=found)

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """All words of all queries, one after the other."""
        return {"features": np.concatenate([item.arrays["features"] for item in batch])}

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_words or n_words + 1, dim) a query: weight times unit vector, the hinge's share; the sense."""
        weights = outputs["weights"].astype(np.float32)[:, None]
        rows = np.concatenate([outputs["vectors"] * weights, -self._config.hinge * weights], axis=1, dtype=np.float32)
        ends = np.cumsum([len(item.arrays["features"]) for item in batch])
        found = []
        for part, own, item in zip(np.split(rows, ends[:-1]), np.split(weights, ends[:-1]), batch, strict=True):
            sense = self._senses.of_question(item.extra)
            found.append(np.concatenate([part, query_row(sense, self._config.dim, float(own.sum()))]))
        return found


class ColTinyTexts(ColTinyQueries):
    """A text to the vectors that a page with its words has: words, what passages are about, zero as the last."""

    def __init__(self, config: ColTinyConfig, senses: Senses) -> None:
        super().__init__(config, senses, max_words=_MOST_TEXT_WORDS, kind="text")

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_distinct_words + n_passages + 1, dim) a text, words in the order in which they come first."""
        ends = np.cumsum([len(item.arrays["features"]) for item in batch])
        parts = np.split(outputs["vectors"].astype(np.float32), ends[:-1])
        return [self._page(part, item.extra) for part, item in zip(parts, batch, strict=True)]

    def _page(self, vectors: Float32, words: Sequence[str]) -> Float32:
        number: dict[str, int] = {}
        printed = np.array([number.setdefault(word, len(number)) for word in words])
        _, first, counts = np.unique(printed, return_index=True, return_counts=True)
        length = occurrence_lengths(self._config, counts, len(words))
        rows = np.concatenate([vectors[first] * length, length], axis=1)
        return with_passages(rows, passages(self._senses.of_words(list(number)), printed))
