"""Two rankings become one by the published formulas, and keep the promises of the documentation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import zscore

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores.fusion import CANDIDATES, Fusion, above, checked_fusion, fuse

WEIGHTS: list[Any] = [None, "rrf", 0.0, 0.4, 1.0]
SEEDS = st.integers(0, 2**32 - 1)


class Question:
    """Made-up scores of both halves, with many equal ones, of up to 250 entries, some of them without text.

    Args:
        seed: decides all of it.
    """

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        number = int(self.random.choice([1, 2, 5, 40, 99, 100, 101, 102, 150, 250]))
        self.ids = [f"{one:x}" for one in self.random.permutation(10 * number)[:number]]
        steps = int(self.random.choice([1, 3, 20, 10**6]))
        self.sight = self._levels(number, steps) * 10 - 2
        blank = self.random.random(number) < self.random.choice([0, 0.2, 0.9])
        self.textless = {id_ for id_, is_blank in zip(self.ids, blank, strict=True) if is_blank}
        said = self.random.random(number) < self.random.choice([0, 0.1, 0.95])
        self.words = self._levels(number, steps) * self.random.choice([0.002, 1, 12]) * said * ~blank

    def _levels(self, number: int, steps: int) -> NDArray[Any]:
        return np.asarray(np.ceil(self.random.random(number) ** 2 * steps) / steps)

    def fused(self, weight: Any, ids: list[str] | None = None, **changes: Any) -> Fusion:
        """The scores, with other names for the entries, or other arguments."""
        names = dict(zip(self.ids, ids or self.ids, strict=True))
        given: dict[str, Any] = {"sight": self.sight, "words": self.words, **changes}
        sight = {names[id_]: float(score) for id_, score in zip(self.ids, given["sight"], strict=True)}
        words = {names[id_]: float(score) for id_, score in zip(self.ids, given["words"], strict=True) if score > 0}
        textless = given.get("textless", self.textless)
        return fuse(sight, words, weight=weight, textless={names[id_] for id_ in textless})

    def row(self, id_: str) -> int:
        return self.ids.index(id_)


def test_the_order_is_that_of_the_mean_of_two_softmaxes_of_z_scores() -> None:
    """By the definition: of pages that all share a word of the question, so that no scale begins at another place."""
    random = np.random.default_rng(3)
    sight, words = random.normal(8, 2, 100), random.normal(20, 2, 100)
    by_sight, by_words = softmax(zscore(sight)), softmax(zscore(words))
    mean = 0.7 * by_sight + 0.3 * by_words
    fused = fuse({f"{n:02}": one for n, one in enumerate(sight)}, {f"{n:02}": one for n, one in enumerate(words)})
    expected = [f"{row:02}" for row in np.argsort(-mean)]
    assert list(fused.scores) == expected
    best = 0.7 * by_sight.max() + 0.3 * by_words.max()
    assert list(fused.scores.values()) == pytest.approx(np.sort(mean)[::-1] / best, rel=1e-3), "a share of leading both"


def test_a_sure_half_decides() -> None:
    """By hand: one half finds one of 100 pages far better than all others, the other one finds all alike."""
    sure = {f"{number}": 1.0 + (number == 7) for number in range(100)}
    unsure = {f"{number}": 1.0 + 0.5 * (number % 3) + 0.01 * (number == 2) for number in range(100)}
    by_sight, by_words = fuse(sure, unsure), fuse(unsure, sure)
    assert next(iter(by_sight.scores)) == next(iter(by_words.scores)) == "7"
    assert by_sight.halves("7").weight < 0.15
    assert by_words.halves("7").weight > 0.7
    # The peak: 99 pages are 1 / sqrt(.99 * .01) deviations from the best.
    peak = 1 / (1 + 99 * math.exp(-1 / math.sqrt(0.99 * 0.01)))
    assert fuse(sure, {id_: 4 * score for id_, score in sure.items()}).halves("7").weight == pytest.approx(0.3)
    shares = [fuse(sure, {}).halves(id_).sight for id_ in sure]
    assert 1 / sum(shares) == pytest.approx(peak)


@pytest.mark.parametrize(("pages", "weight"), [(5, 0.11), (50, 0.2), (100, 0.3), (200, 0.3)])
def test_words_weigh_less_among_few_pages(pages: int, weight: float) -> None:
    """Of two halves that are equally sure."""
    sight = {f"{number}": float(number) for number in range(pages)}
    words = {id_: 5 + score for id_, score in sight.items()}
    assert fuse(sight, words).halves("0").weight == pytest.approx(weight)


def test_reciprocal_ranks_by_hand() -> None:
    fused = fuse({"a": 0.9, "b": 0.8, "c": 0.1}, {"c": 3.0, "b": 2.0}, weight="rrf").scores
    assert fused == pytest.approx({"b": 61 / 62, "c": (61 / 63 + 1) / 2, "a": 1 / 2})
    assert list(fused) == ["c", "b", "a"]
    tied = fuse({"a": 2.0, "b": 2.0, "c": 1.0}, {"a": 5.0, "c": 5.0, "b": 4.0}, weight="rrf").scores
    assert tied == pytest.approx({"a": 1.0, "b": (1 + 61 / 63) / 2, "c": (61 / 63 + 1) / 2}), "ties share a rank"


def test_fixed_weights_by_hand() -> None:
    """The deviation of 8, 6 and 4 is the root of 8/3, that of 7, 0 and 0 is seven thirds of the root of 2."""
    sight, words = {"a": 8.0, "b": 6.0, "c": 4.0}, {"b": 7.0}
    step = math.exp(-2 / math.sqrt(8 / 3))
    fused = fuse(sight, words, weight=0.25).scores
    assert fused == pytest.approx({"a": 0.75, "b": 0.75 * step + 0.25, "c": 0.75 * step**2})
    fused = fuse(sight, words, weight=0.25, textless=["c"]).scores
    assert fused["c"] == pytest.approx(step**2), "sight stands in"
    fused = fuse(sight, {"b": 7.0, "c": 3.5}, weight=1.0).scores
    spread = np.std([7, 3.5, 0])
    lowest = math.exp(-7 / spread)
    assert fused["c"] == pytest.approx((math.exp(-3.5 / spread) - lowest) / (1 - lowest))


@given(seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_scores_are_bounded_and_ordered(seed: int) -> None:
    question = Question(seed)
    for weight in WEIGHTS:
        fused = question.fused(weight)
        assert fused.scores.keys() == set(question.ids)
        values = list(fused.scores.values())
        assert values == sorted(values, reverse=True)
        assert all(0 <= value <= 1 for value in values)
        for id_ in question.ids:
            halves = fused.halves(id_)
            assert all(0 <= part <= 1 for part in (halves.sight, halves.words, halves.weight))
            parts = (1 - halves.weight) * halves.sight + halves.weight * halves.words
            assert fused.scores[id_] <= parts + 1e-12, "entries beyond the candidates follow after them"


@given(seed=SEEDS)
@settings(max_examples=100, deadline=None)
def test_names_decide_nothing(seed: int) -> None:
    question = Question(seed)
    for weight in WEIGHTS:
        fused = question.fused(weight)
        names = dict(zip(question.ids, question.random.permutation(question.ids).tolist(), strict=True))
        renamed = question.fused(weight, [names[id_] for id_ in question.ids])
        assert {names[id_]: score for id_, score in fused.scores.items()} == pytest.approx(renamed.scores, rel=1e-12)
        order = [round(question.sight[question.row(id_)], 9) for id_ in fused.scores]
        back = {name: id_ for id_, name in names.items()}
        assert order == [round(question.sight[question.row(back[name])], 9) for name in renamed.scores]


@given(seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_the_first_of_both_halves_is_first(seed: int) -> None:
    question = Question(seed)
    if not question.words.any():
        return
    best = int(question.random.choice(np.flatnonzero(question.words)))
    question.sight[best], question.words[best] = question.sight.max(), question.words.max()
    for weight in WEIGHTS:
        fused = question.fused(weight)
        assert fused.scores[question.ids[best]] == max(fused.scores.values())
    question.sight[best] += 0.5
    for weight in [None, "rrf", 0.1]:
        assert next(iter(question.fused(weight).scores)) == question.ids[best]


@given(seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_pages_without_text_stay_in_sights_order_and_no_text_is_worth_nothing(seed: int) -> None:
    question = Question(seed)
    for weight in WEIGHTS:
        fused = question.fused(weight)
        blank = [question.sight[question.row(id_)] for id_ in fused.scores if id_ in question.textless]
        assert blank == sorted(blank, reverse=True)
        for id_ in sorted(question.textless)[:3]:
            with_text = question.fused(weight, textless=question.textless - {id_})
            assert with_text.scores[id_] <= fused.scores[id_] + 1e-12, "a text without a word of the question"
            others = [one for one in fused.scores if one != id_]
            assert [one for one in with_text.scores if one != id_] == others


@given(seed=SEEDS)
@settings(max_examples=150, deadline=None)
def test_more_words_and_a_better_look_move_a_page_up(seed: int) -> None:
    question = Question(seed)
    for weight in WEIGHTS:
        ranked = list(question.fused(weight).scores)
        for _ in range(20):
            one, other = question.random.integers(0, len(question.ids), 2)
            is_better = question.sight[one] > question.sight[other] and question.words[one] >= question.words[other]
            if is_better and not {question.ids[one], question.ids[other]} & question.textless:
                assert ranked.index(question.ids[one]) < ranked.index(question.ids[other])


@given(seed=SEEDS)
@settings(max_examples=50, deadline=None)
def test_without_words_max_sim_decides(seed: int) -> None:
    question = Question(seed)
    for weight in WEIGHTS:
        fused = question.fused(weight, words=np.zeros(len(question.ids)))
        seen = [question.sight[question.row(id_)] for id_ in fused.scores]
        assert seen == sorted(seen, reverse=True)
        assert {fused.halves(id_).weight for id_ in fused.scores} == {0.0}


def test_entries_beyond_the_candidates_follow_in_the_same_order_of_the_first() -> None:
    """With the scores of more entries the first ones stay, because the best hundred of each half decide."""
    random = np.random.default_rng(5)
    sight = {f"{n:03}": float(score) for n, score in enumerate(-np.sort(-random.normal(0, 1, 400)))}
    words = {
        f"{n:03}": float(score) for n, score in zip(random.permutation(400)[:200], random.gamma(1, 2, 200), strict=True)
    }
    best_by_words = sorted(words, key=lambda id_: -words[id_])
    for weight in (*WEIGHTS[:2], 0.3):
        full = fuse(sight, words, weight=weight).scores
        known = {*list(sight)[: CANDIDATES + 1], *best_by_words[: CANDIDATES + 1]}
        part = fuse({id_: sight[id_] for id_ in known}, words, weight=weight).scores
        head = {*list(sight)[:CANDIDATES], *best_by_words[:CANDIDATES]}
        assert list(full)[: len(head)] == list(part)[: len(head)]
        assert {*list(full)[: len(head)]} == head
        assert list(full.values())[: len(head)] == pytest.approx(list(part.values())[: len(head)], rel=1e-12)


def test_equal_scores_at_the_end_of_the_candidates_do_not_come_in() -> None:
    assert above([2.0] * 60 + [1.0] * 60) == pytest.approx(1.0, rel=1e-5)
    assert above([2.0] * 60 + [1.0] * 60) >= 1.0
    assert above([2.0] * CANDIDATES) == -math.inf
    sight = {f"{n:03}": 500.0 - n for n in range(300)}
    words = {"007": 10.0} | {f"{n:03}": 0.5 for n in range(100, 300)}
    for weight in (*WEIGHTS[:2], 0.3):
        assert {*list(fuse(sight, words, weight=weight).scores)[:CANDIDATES]} == {f"{n:03}" for n in range(100)}


def test_differences_that_are_rounding_say_nothing() -> None:
    """Equal pages whose scores differ in the last bits, and words that nearly all texts have."""
    random = np.random.default_rng(1)
    sight = {f"{n}": 20 * (1 + 1e-7 * random.random()) for n in range(50)}
    fused = fuse(sight, {"3": 2.0, "4": 2.5})
    assert list(fused.scores)[:2] == ["4", "3"]
    assert all(fused.halves(id_).sight > 0.98 for id_ in sight)
    trifles = fuse({f"{n}": 5.0 - n for n in range(50)}, {f"{n}": 0.002 * n for n in range(50)})
    assert list(trifles.scores)[:20] == [f"{n}" for n in range(20)]


def test_a_word_that_nearly_all_texts_have_leaves_the_order_to_sight() -> None:
    """BM25 of a word of 599 of 600 texts, which differs by their lengths; weights by hand."""
    random = np.random.default_rng(3)
    sight = {f"{n}": float(8 - 0.01 * n) for n in range(600)}
    words = {f"{n}": float(score) for n, score in enumerate(random.uniform(0.002, 0.004, 599))} | {"80": 0.005}
    for weight in (None, 0.3, 1.0):
        fused = fuse(sight, words, weight=weight)
        assert list(fused.scores)[:10] == [f"{n}" for n in range(10)]
        if weight is not None:
            assert fused.halves("0").weight == pytest.approx(weight * 0.005 / 0.25)
    assert fuse(sight, {"80": 0.25}, weight=0.3).halves("0").weight == pytest.approx(0.3)


def test_pages_without_text_neither_fall_behind_nor_get_ahead() -> None:
    seen = {"scan": 9.0, "text": 8.0, "other": 4.0}
    for weight in WEIGHTS:
        assert list(fuse(seen, {}, weight=weight, textless=["scan"]).scores) == ["scan", "text", "other"]
    for weight in (*WEIGHTS[:2], 0.5):
        assert next(iter(fuse(seen, {"text": 5.0, "other": 4.5}, weight=weight, textless=["scan"]).scores)) == "scan"
        if weight is not None:
            assert next(iter(fuse(seen, {"text": 5.0, "other": 4.5}, weight=weight).scores)) == "text"


def test_nothing_is_fused_of_nothing() -> None:
    for weight in WEIGHTS:
        assert fuse({}, {}, weight=weight).scores == {}
        assert fuse({"a": 0.0}, {}, weight=weight).scores == {"a": 1.0}
        assert fuse({"a": 0.0, "b": 0.0}, {"b": 1.0}, weight=weight).scores["b"] == 1.0


def test_ways_to_fuse() -> None:
    assert (checked_fusion(True), checked_fusion("rrf")) == (None, "rrf")
    assert [checked_fusion(weight) for weight in (0, 0.25, 1)] == [0.0, 0.25, 1.0]
    for wrong in (False, "auto", "sum", -0.1, 1.1, math.nan):
        with pytest.raises(ConfigurationError, match="hybrid"):
            checked_fusion(wrong)  # type: ignore[arg-type]
