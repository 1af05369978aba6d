"""The figures that the benchmarks report."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.ranking import first, interval, ndcg, order, ratio_interval


def test_order_leaves_out_what_was_not_found() -> None:
    assert order([0.0, 2.0, -1.0, 3.0, 2.0]) == [3, 1, 4]
    assert order([1.0, 2.0, 3.0], limit=2) == [2, 1]
    assert order([-3.0, -1.0, 0.0], above=-np.inf) == [2, 1, 0]


def test_ndcg_by_hand() -> None:
    assert ndcg([7, 3], {3}, 5) == pytest.approx(1 / math.log2(3))
    assert ndcg([7, 3, 1], {3, 1, 9}, 2) == pytest.approx((1 / math.log2(3)) / (1 + 1 / math.log2(3)))
    assert ndcg([], {3}, 5) == 0
    assert ndcg([1, 2, 3, 4, 5, 6], {6}, 5) == 0


def test_first() -> None:
    assert first([4, 2], {4}) == 1
    assert first([2, 4], {4}) == 0
    assert first([], {4}) == 0


@given(ranking=st.permutations(range(8)), relevant=st.sets(st.integers(0, 7), min_size=1), k=st.integers(1, 8))
def test_ndcg_is_a_share_and_best_with_the_relevant_ones_first(ranking: list[int], relevant: set[int], k: int) -> None:
    best = sorted(ranking, key=lambda index: index not in relevant)
    assert 0 <= ndcg(ranking, relevant, k) <= ndcg(best, relevant, k) + 1e-12
    assert ndcg(best, relevant, k) == pytest.approx(1)


def test_intervals_hold_the_mean_and_pair_their_draws() -> None:
    rng = np.random.default_rng(1)
    values = rng.random(200)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low < 0.15
    # The same questions are drawn for both: half of each value is half of it in every draw.
    assert ratio_interval(values / 2, values) == pytest.approx((0.5, 0.5, 0.5))
    ratio, low, high = ratio_interval(rng.permutation(values), values)
    assert ratio == pytest.approx(1)
    assert low < 1 < high
