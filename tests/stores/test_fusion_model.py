"""`fuse` against its definition, written slowly and without NumPy, with extreme scores of all kinds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from colpali_integrations.stores import MultiVectorStore, SearchOptions
from colpali_integrations.stores.fusion import fuse
from tests.stores.backends import BACKENDS, DIM, entry, opening, page

WEIGHTS: list[Any] = [None, "rrf", 0.0, 0.3, 1.0]
# The range of float32, in which engines score: both zeros, denormal numbers, neighbours, and the largest.
SIGHT = [
    0.0,
    -0.0,
    5e-324,
    1e-310,
    1e-45,
    1e-12,
    1.0,
    math.nextafter(1.0, 2),
    1 + 1e-7,
    1 + 2e-6,
    8.0,
    -3.0,
    1e20,
    3e38,
]
SIGHT += [-3e38, -1e-45]
WORDS = [0.0, -0.0, 5e-324, 1e-45, 0.002, 0.25, 1.0, 1 + 1e-7, 1 + 2e-6, 7.0, 7.0, 30.0, 1e20, 3e38]


def plain(
    sight: Mapping[str, float], words: Mapping[str, float], weight: Any, textless: set[str], depth: int
) -> tuple[dict[str, float], dict[str, int]]:
    """The fused scores of the module's definition, and the depth that brings each entry in.

    The scores are those before the last step, by which none of a deeper level is above those before it.
    """
    said = {id_: words.get(id_, 0.0) for id_ in sight}
    best_seen, best_said = sorted(sight.values(), reverse=True), sorted(words.values(), reverse=True)
    levels = {id_: _level(sight[id_], said[id_], best_seen, best_said, depth) for id_ in sight}
    if not best_said or best_said[0] <= 0:
        shares = _ranked(sight, levels) if weight == "rrf" else _by_share(sight, best_seen[:100], _least(best_seen))[0]
        return shares, levels
    if weight == "rrf":
        by_sight, positive = _ranked(sight, levels), {id_: one for id_, one in said.items() if one > 0}
        by_words = dict.fromkeys(sight, 0.0) | _ranked(positive, levels)
        weight, stand_in = 0.5, 1.0
    else:
        by_sight, of_sight = _by_share(sight, best_seen[:100], _least(best_seen))
        scale = best_said[:100] + [0.0] * max(0, min(100, len(sight)) - len(best_said))
        shares, of_words = _by_share({**said, "\0": 0.0}, scale, 0.25)
        lowest = shares.pop("\0")
        by_words = {id_: (one - lowest) / (1 - lowest) if lowest < 1 else one for id_, one in shares.items()}
        stand_in = 1.0
        if weight is None:
            prior = 0.1 + 0.2 * min(1.0, len(sight) / 100)
            weight = prior * of_words / (prior * of_words + (1 - prior) * of_sight)
            stand_in = min(1.0, of_sight / of_words)
        weight *= min(1.0, best_said[0] / 0.25)
    by_words |= {id_: stand_in * by_sight[id_] for id_ in textless & sight.keys()}
    return {id_: (1 - weight) * by_sight[id_] + weight * by_words[id_] for id_ in sight}, levels


def _level(seen: float, said: float, best_seen: Sequence[float], best_said: Sequence[float], depth: int) -> int:
    """Of the halves' 100 best, 200 best and so on, the first that have the entry; a group that is cut is not in."""
    level, size = 0, 100
    while True:
        if _is_in(seen, best_seen, size) or (said > 0 and _is_in(said, best_said, size)):
            return level
        level, size, last = level + 1, 2 * size, size >= depth
        if last:
            return level


def _is_in(score: float, best: Sequence[float], size: int) -> bool:
    return len(best) <= size or score > best[size] + 1e-6 * abs(best[size])


def _least(best: Sequence[float]) -> float:
    return max(1e-5 * abs(best[0]), 1e-12) if best else 1.0


def _by_share(scores: Mapping[str, float], best: Sequence[float], least: float) -> tuple[dict[str, float], float]:
    """exp(-(best - score) / spread), and one part of their sum over the best."""
    if not best:
        return {}, 1.0
    mean = fmean(best)
    spread = max(math.sqrt(math.fsum((one - mean) ** 2 for one in best) / len(best)), least)
    shares = {id_: _exp((one - best[0]) / spread) for id_, one in scores.items()}
    return shares, 1 / math.fsum(_exp((one - best[0]) / spread) for one in best)


def _exp(value: float) -> float:
    return math.exp(value) if value > -700 else 0.0


def _ranked(scores: Mapping[str, float], levels: Mapping[str, int]) -> dict[str, float]:
    """61 / (60 + rank); the rank counts the better ones among those of the first level."""
    heads = [one for id_, one in scores.items() if levels[id_] == 0]
    return {id_: 61 / (61 + sum(head > one + 1e-6 * abs(one) for head in heads)) for id_, one in scores.items()}


@st.composite
def questions(draw: st.DrawFn) -> tuple[dict[str, float], dict[str, float], set[str], int]:
    """Scores of up to 230 entries, from a few values or any; entries without text and words of no entry."""
    number = draw(st.sampled_from([1, 2, 3, 8, 99, 100, 101, 102, 230]))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(SIGHT), min_size=1, max_size=6))
    said = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=6))
    seen = random.choice(kinds, number) if draw(st.booleans()) else random.normal(8, 2, number)
    spoken = random.choice(said, number) if draw(st.booleans()) else random.gamma(1, 3, number)
    ids = [f"{one:x}" for one in random.permutation(10 * number)[:number]]
    has_words = random.random(number) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    blank = random.random(number) < draw(st.sampled_from([0.0, 0.3, 1.0]))
    words = {id_: float(one) for id_, one, has, no in zip(ids, spoken, has_words, blank, strict=True) if has and not no}
    words |= {f"other {at}": float(one) for at, one in enumerate(spoken[: draw(st.sampled_from([0, 0, 3, 120]))])}
    textless = {id_ for id_, no in zip(ids, blank, strict=True) if no}
    sight = {id_: float(one) for id_, one in zip(ids, seen, strict=True)}
    return sight, words, textless, draw(st.sampled_from([1, 100, 200, 400]))


@given(question=questions())
@settings(max_examples=120, deadline=None)
def test_scores_and_order_are_those_of_the_definition(
    question: tuple[dict[str, float], dict[str, float], set[str], int],
) -> None:
    sight, words, textless, depth = question
    for weight in WEIGHTS:
        expected, levels = plain(sight, words, weight, textless, depth)
        fused = fuse(sight, words, weight=weight, textless=textless, depth=depth)
        assert fused.scores.keys() == sight.keys()
        assert [levels[id_] for id_ in fused.scores] == sorted(levels.values())
        lowest = 1.0
        for (id_, score), following in zip(fused.scores.items(), [*fused.scores, ""][1:], strict=True):
            lowest = min(lowest, expected[id_])
            assert score == pytest.approx(lowest, abs=1e-9), (weight, id_)
            if following and levels[following] == levels[id_]:
                assert expected[following] <= expected[id_] + 1e-9
                if expected[following] == expected[id_] and sight[following] > sight[id_]:
                    assert fused.halves(id_).sight != fused.halves(following).sight, "of equal scores, sight decides"


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 65520.0, 1e300])
@pytest.mark.parametrize("backend", BACKENDS)
def test_questions_whose_scores_could_not_be_compared_are_refused(backend: str, number: float, tmp_path: Any) -> None:
    """NaN once gave pages in any order, infinity none, and the folder's error advised to repair the store."""
    query = np.full((2, DIM), 0.5)
    query[1, 3] = number
    with opening(backend, tmp_path) as open_, open_() as store:
        store.add((entry(one), page(one, rows=3)) for one in range(3))
        for ask in _ways(store, query):
            with pytest.raises(InputError, match=r"finite in float16 \(at most 65504\)"):
                ask()
        query[1, 3] = 65504
        [hits] = store.search_batch([query], SearchOptions(hybrid=True), texts=["text of page 1"])
        assert all(math.isfinite(hit.score) and math.isfinite(hit.max_sim) for hit in hits) and len(hits) == 3


def _ways(store: MultiVectorStore, query: Any) -> list[Any]:
    return [
        lambda: store.search(query, 2),
        lambda: store.search_batch([query], SearchOptions(hybrid=True), texts=["text of page 1"]),
        lambda: store.score(query, ["page 1"]),
        lambda: store.rank_batch([query], SearchOptions(hybrid=False)),
    ]
