"""Fusion of two rankings of the same entries: MaxSim, by the look of a page, and BM25, by its text.

Each half scores its entries by a share of its best, in [0, 1]::

    share(entry)   = exp(-(best - score) / spread)     spread: standard deviation of the half's 100 highest scores
    peak of a half = 1 / (sum of the shares of its 100 best)
    weight         = w peak(words) / (w peak(words) + (1 - w) peak(sight)),  w = 0.1 + 0.2 candidates / 100
    fused          = weight * share by words + (1 - weight) * share by sight

A peak is the highest probability in the softmax of the half's z-scores: near 1 for a half that finds one page far
better than all others, and 1/100 for one that finds a hundred alike. So each question decides how much each half
counts, and the order is that of the mean of the two softmaxes. Among fewer than 100 entries w is smaller, because they
tell little about how rare a word is. A number as the weight is the same for all questions.

- Shares by words are scaled so that an entry without any word of the question has 0. A spread of words below 0.25
  counts as 0.25, and a best BM25 below 0.25 lessens the weight in proportion, also that of a number: such scores are
  those of words that nearly all texts have, and differ by the lengths of the texts.
- Pages without a text, or without a word in it, have no BM25: sight stands in, with sight's own peak if that is the
  lower one. So they stay in sight's order, and a text that has nothing of the question moves a page up in no case.
- Only the 100 best of each half decide, whatever the number of results, and an entry that one of them brought in counts
  with its true score in both. A group of equal scores that the end of the 100 cuts through is not brought in by that
  half, because which of them an engine returns is chance. After these follow the further entries of the 200 best, then
  those of the 400 best, and so on: so a larger number of results begins with those of a smaller one.

Reciprocal rank fusion, "rrf": ``sum over halves of 1 / (60 + rank)``, rank from 1 (Cormack, Clarke and Buettcher, SIGIR
2009), as a share of the score of an entry that leads both. Equal scores share a rank.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import ConfigurationError

__all__ = ["CANDIDATES", "Fusion", "Halves", "Hybrid", "above", "checked_fusion", "depths", "fuse"]

Hybrid: TypeAlias = bool | Literal["auto", "rrf"] | float
Numbers: TypeAlias = NDArray[np.float64]

CANDIDATES = 100
"""The best entries of each half that are fused. Engines are asked for one more, to see a cut through equal ones."""

# Chosen on the choosing halves of the sets of `benchmarks/fusion.py`.
_WORDS_WEIGHT, _WORDS_WEIGHT_OF_FEW = 0.3, 0.1
_LEAST_SPREAD_OF_WORDS = 0.25
_LEAST_SPREAD_OF_SIGHT = 1e-5  # of the best score: what rounding makes of equal pages
_EQUAL = 1e-6  # relative difference of scores that rounding can make
_K = 60


@dataclass(frozen=True, kw_only=True)
class Halves:
    """What the two halves of a hybrid search make of an entry.

    Attributes:
        sight: its share by look, in [0, 1]; 1 for the best of all.
        words: its share by text, in [0, 1]; 1 for the best of all, 0 for a text without a word of the question. For an
            entry without a text it is what stands in.
        weight: of the words for this question, in [0, 1]. The fused score is `(1 - weight) * sight + weight * words`;
            for an entry beyond the candidates it is no higher than the score before it.
    """

    sight: float
    words: float
    weight: float

    def to_dict(self) -> dict[str, float]:
        """The attributes as JSON.

        >>> Halves(sight=1.0, words=0.5, weight=0.4).to_dict()
        {'sight': 1.0, 'words': 0.5, 'weight': 0.4}
        """
        return dict(vars(self))


@dataclass(frozen=True)
class Fusion:
    """Fused scores of the entries of a question.

    Attributes:
        scores: by id, the best first, in [0, 1].
    """

    scores: dict[str, float]
    _rows: Mapping[str, int]
    _sight: Numbers
    _words: Numbers
    _weight: float

    def halves(self, id_: str) -> Halves:
        """What the two halves make of an entry."""
        row = self._rows[id_]
        return Halves(sight=float(self._sight[row]), words=float(self._words[row]), weight=self._weight)


def checked_fusion(hybrid: Hybrid) -> Literal["rrf"] | float | None:
    """The way to fuse that a hybrid search asks for: "rrf", the weight of the words, or None where questions decide.

    Raises:
        ConfigurationError: neither True, "rrf" nor a weight between 0 and 1. False and "auto" are no ways to fuse,
            and are decided before.
    """
    if hybrid is True:
        return None
    if isinstance(hybrid, str) and hybrid == "rrf":
        return "rrf"
    with suppress(ConfigurationError):
        return checked_number(hybrid, "hybrid", 0, 1)
    raise ConfigurationError(
        f"hybrid must be True, the weight of the text between 0 and 1, 'rrf' for reciprocal rank fusion, 'auto' or "
        f"False, got {shown(hybrid)}"
    )


def fuse(
    sight: Mapping[str, float],
    words: Mapping[str, float],
    *,
    weight: Literal["rrf"] | float | None = None,
    textless: Collection[str] = (),
    depth: int = CANDIDATES,
) -> Fusion:
    """Fuse two rankings.

    Args:
        sight: MaxSim of each entry.
        words: BM25 of the entries that share a word with the question, and of others that count as candidates of the
            words although they are not fused.
        weight: of the words; "rrf" for reciprocal ranks; None for a weight that is decided by the scores.
        textless: entries that have no text, or none with a word.
        depth: to which both rankings are complete, the last one of some `depths`; both have one entry more, where there
            are more.

    Returns:
        The fused score of every entry of `sight`, in [0, 1], the best first; of equal scores, the higher MaxSim first.

    Example:
        >>> sure, unsure = {"a": 9.0, "b": 4.0, "c": 4.0, "d": 3.9}, {"b": 5.0, "a": 4.9, "c": 4.8, "d": 4.8}
        >>> list(fuse(sure, unsure).scores), round(fuse(sure, unsure).halves("a").weight, 2)
        (['a', 'b', 'c', 'd'], 0.06)
        >>> {id_: round(score, 3) for id_, score in fuse({"a": 8.0, "b": 6.0}, {"b": 7.0}, weight=0.5).scores.items()}
        {'b': 0.568, 'a': 0.5}
    """
    ids = sorted(sight)  # so that nothing depends on the order in which engines return equal scores
    seen = np.array([sight[id_] for id_ in ids], np.float64)
    said = np.array([words.get(id_, 0.0) for id_ in ids], np.float64)
    best_seen = -np.sort(-seen)
    best_said = -np.sort(-np.fromiter(words.values(), np.float64, len(words)))
    sizes = depths(depth)
    level = np.full(len(ids), len(sizes))  # the entries of each depth follow after those of the lower one
    for number, size in reversed([*enumerate(sizes)]):
        level[(seen > above(best_seen, size)) | ((said > 0) & (said > above(best_said, size)))] = number
    is_head = level == 0
    without = frozenset(textless)
    blank = np.fromiter((id_ in without for id_ in ids), bool, len(ids))
    if weight == "rrf":
        by_sight, by_words = _ranks(seen, is_head), np.where(said > 0, _ranks(said, is_head & (said > 0)), 0.0)
        weight, stand_in = 0.5, 1.0
    else:
        by_sight, of_sight = _shares(seen, best_seen[:CANDIDATES], _least_of_sight(best_seen))
        missing = np.zeros(max(0, min(CANDIDATES, len(ids)) - len(best_said)))
        calibrating = np.concatenate([best_said[:CANDIDATES], missing])
        by_words, of_words = _shares(said, calibrating, _LEAST_SPREAD_OF_WORDS)
        lowest, _ = _shares(np.zeros(1), calibrating, _LEAST_SPREAD_OF_WORDS)
        by_words = (by_words - lowest) / (1 - lowest) if lowest < 1 else by_words
        stand_in = 1.0
        if weight is None:
            prior = _words_weight(len(best_seen))
            parts = prior * of_words, (1 - prior) * of_sight
            weight, stand_in = parts[0] / sum(parts), min(1.0, of_sight / of_words)
        weight *= min(1.0, float(best_said[:1].sum()) / _LEAST_SPREAD_OF_WORDS)
    if not len(best_said) or best_said[0] <= 0:
        weight, by_words, stand_in = 0.0, np.zeros(len(ids)), 0.0  # no text has a word of the question
    by_words = np.where(blank, stand_in * by_sight, by_words)
    fused = np.clip((1 - weight) * by_sight + weight * by_words, 0.0, 1.0)
    order = np.lexsort((-seen, -fused, level))
    falling = np.minimum.accumulate(fused[order])
    scores = {ids[row]: score for row, score in zip(order.tolist(), falling.tolist(), strict=True)}
    return Fusion(scores, {id_: row for row, id_ in enumerate(ids)}, by_sight, by_words, weight)


def depths(number: int) -> list[int]:
    """How far each half is ranked for a number of results: the 100 best, and doubled until they are enough.

    >>> depths(1), depths(100), depths(250)
    ([100], [100], [100, 200, 400])
    """
    sizes = [CANDIDATES]
    while sizes[-1] < number:
        sizes.append(2 * sizes[-1])
    return sizes


def above(scores: Sequence[float] | Numbers, limit: int = CANDIDATES) -> float:
    """The score above which entries are candidates: that of a group of equal scores that the limit cuts through.

    Args:
        scores: descending; more than `limit` where there are more entries.
        limit: number of candidates.

    Example:
        >>> above([3.0, 2.0, 1.0, 1.0], 3) >= 1.0, above([3.0, 2.0, 1.0], 3)
        (True, -inf)
    """
    if len(scores) <= limit:
        return -math.inf
    return float(scores[limit] + _EQUAL * abs(scores[limit]))


def _words_weight(entries: int) -> float:
    """The weight of the words where both halves are equally sure."""
    return _WORDS_WEIGHT_OF_FEW + (_WORDS_WEIGHT - _WORDS_WEIGHT_OF_FEW) * min(1.0, entries / CANDIDATES)


def _least_of_sight(scores: Numbers) -> float:
    return float(max(_LEAST_SPREAD_OF_SIGHT * np.abs(scores[:1]).max(initial=0.0), 1e-12))


def _shares(scores: Numbers, best: Numbers, least: float) -> tuple[Numbers, float]:
    """The shares of scores by the formula above, and the peak of their half, whose `best` scores are these."""
    if not len(best):
        return np.zeros(len(scores)), 1.0
    spread = max(float(best.std()), least)
    return np.exp((scores - best[0]) / spread), float(1 / np.exp((best - best[0]) / spread).sum())


def _ranks(scores: Numbers, is_head: NDArray[np.bool_]) -> Numbers:
    """The parts of reciprocal ranks among the entries of the head, as shares of the best; equal scores share a rank."""
    ascending = np.sort(scores[is_head])
    better = len(ascending) - np.searchsorted(ascending, scores + _EQUAL * np.abs(scores), side="right")
    shares: Numbers = (_K + 1) / (_K + 1 + better)
    return shares
