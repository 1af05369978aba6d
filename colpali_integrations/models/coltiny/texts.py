"""ColTiny's constants and text encoders: one vector per word of a query; texts get the vectors of a page.

A query's vectors have other lengths and another last dimension than a page's (see `coltiny.family`). A text that is
searched beside pages gets the vectors of a page that prints it.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._logs import package_logger
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.coltiny.senses import Senses, page_rows, passages, query_row
from colpali_integrations.models.coltiny.words import MAX_WORD_FEATURES, query_words, word_features
from colpali_integrations.models.family import Prepared
from colpali_integrations.runtime.arrays import Feed, Float32, Outputs

__all__ = ["ColTinyConfig", "ColTinyQueries", "ColTinyTexts", "best_match", "page_vectors"]

_logger = package_logger(__name__)
# A page of small print has about a thousand words; a longer text is not one page.
_MOST_TEXT_WORDS = 4096


def best_match(k1: float, hinge: float) -> float:
    """The highest possible dot product of a page vector with a query vector of length 1.

    A query vector ``w [t, -h]`` has length ``w sqrt(1 + h^2)``; with a page vector ``len [v, 1]`` it makes at most
    ``w len (1 - h)``, and ``len`` stays below ``k1 + 1``, however often the page has the word.

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
        cell: side in pixels of the square that one vector of the grid stands for.
        salience_threshold: salience above which a cell counts as the centre of a word.
        occurrence_cosine: cosine above which neighbouring cells show the same printed word.
        cluster_cosine: cosine above which two cells of a page show the same word.
        k1: saturation of a word's count.
        b: share of the normalisation by page length.
        mean_occurrences: printed words on an average page.
        hinge: cosine at or below which a page vector does not match a word.
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

    @classmethod
    def read(cls, path: Path) -> ColTinyConfig:
        """Read ``config.json``.

        Raises:
            ModelLoadError: the file is missing, is not JSON, or lacks a constant.
        """
        try:
            constants = parse_json(path.read_text(encoding="utf-8"))
            return cls(**{field.name: constants[field.name] for field in fields(cls)})
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelLoadError(f"{path}: not a ColTiny configuration ({type(error).__name__}: {error})") from error


def page_vectors(
    config: ColTinyConfig, spellings: Float32, counts: NDArray[Any], printed: NDArray[np.integer], senses: Float32
) -> Float32:
    """The vectors of a page: its words with lengths by BM25's saturation, senses of passages, and the zero vector.

    Args:
        config: k1, b and the mean number of words.
        spellings: float32 (n, dim - 1), one unit vector per distinct word.
        counts: (n,), occurrences of each word on the page.
        printed: (n_printed,), the row of each printed word in `spellings`, in the page's order.
        senses: float32 (n, n_sense), the sense of each word.

    Returns:
        float32 (n + n_passages + 1, dim).
    """
    norm = config.k1 * (1 - config.b + config.b * len(printed) / config.mean_occurrences)
    length = (counts * (config.k1 + 1) / (counts + norm)).astype(np.float32)[:, None]
    return page_rows(np.concatenate([spellings * length, length], axis=1), passages(senses, printed))


def _has_script(text: str) -> bool:
    """Whether a text has Latin letters, or no letters at all."""
    letters = [one for one in text if one.isalpha()]
    return not letters or any(unicodedata.name(one, "").startswith("LATIN") for one in letters)


class ColTinyQueries:
    """Encodes a query to one vector per word, and one of its sense where the table of senses has its words.

    Words are encoded independently of each other, so any queries may share a run.
    """

    def __init__(self, config: ColTinyConfig, senses: Senses, *, max_words: int, kind: str = "query") -> None:
        self._config, self._senses = config, senses
        self._max_words, self._kind = max_words, kind
        self._warned = self._warned_of_script = False

    def words(self, text: str) -> list[str]:
        """The words that get a vector, in order: see `words.query_words`."""
        words = query_words(text)
        if len(words) > self._max_words and not self._warned:
            self._warned = True
            _logger.warning(
                "a %s of %d words is cut to %d (reported once); pass shorter ones",
                self._kind,
                len(words),
                self._max_words,
            )
        return words[: self._max_words]

    def tokens(self, text: str) -> list[str | None]:
        """The word of each query vector; None for the vector of the query's sense, if it has one."""
        words = self.words(text)
        return [*words, *([None] * int(self._senses.of_question(words).any()))]

    def prepare(self, item: str) -> Prepared:
        """Spell the words: int64 ids (n_words, longest possible), padded so that no batch changes a shape."""
        if not (self._warned_of_script or _has_script(item)):
            self._warned_of_script = True
            _logger.warning(
                "ColTiny reads Latin script, and the %s %r has no letter of it (reported once). Hybrid search finds "
                "such words in text layers; other models read other scripts",
                self._kind,
                item[:80],
            )
        words = self.words(item)
        ids = np.full((len(words), MAX_WORD_FEATURES), self._config.feature_padding, np.int64)
        for row, word in zip(ids, words, strict=True):
            features = word_features(word)
            row[: len(features)] = features
        return Prepared(key="words", arrays={"features": ids}, extra=words)

    def feed(self, batch: Sequence[Prepared]) -> Feed:
        """All words of all queries, one after the other."""
        return {"features": np.concatenate([item.arrays["features"] for item in batch])}

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_words or n_words + 1, dim) array per query.

        The vector of a word is its weight times its unit vector and the hinge's share; the vector of the sense is last.
        """
        weights = outputs["weights"].astype(np.float32)[:, None]
        rows = np.concatenate([outputs["vectors"] * weights, -self._config.hinge * weights], axis=1, dtype=np.float32)
        ends = np.cumsum([len(item.extra) for item in batch])[:-1]
        queries = []
        for words, weight, item in zip(np.split(rows, ends), np.split(weights, ends), batch, strict=True):
            sense = self._senses.of_question(item.extra)
            queries.append(np.concatenate([words, query_row(sense, self._config.dim, float(weight.sum()))]))
        return queries


class ColTinyTexts(ColTinyQueries):
    """Encodes a text to the vectors of a page with its words: words, senses of passages, and the zero vector."""

    def __init__(self, config: ColTinyConfig, senses: Senses) -> None:
        super().__init__(config, senses, max_words=_MOST_TEXT_WORDS, kind="text")

    def vectors(self, outputs: Outputs, batch: Sequence[Prepared]) -> list[Float32]:
        """One float32 (n_distinct_words + n_passages + 1, dim) array per text, words in order of first occurrence."""
        ends = np.cumsum([len(item.extra) for item in batch])[:-1]
        parts = np.split(outputs["vectors"].astype(np.float32), ends)
        return [self._page(part, item.extra) for part, item in zip(parts, batch, strict=True)]

    def _page(self, vectors: Float32, words: Sequence[str]) -> Float32:
        number: dict[str, int] = {}
        printed = np.array([number.setdefault(word, len(number)) for word in words])
        _, first, counts = np.unique(printed, return_index=True, return_counts=True)
        return page_vectors(self._config, vectors[first], counts, printed, self._senses.of_words(list(number)))
