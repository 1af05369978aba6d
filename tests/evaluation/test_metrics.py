"""Metrics against values made by hand, and intervals against their definition."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.evaluation import Mean, bootstrap, hit, mrr, ndcg, recall
from colpali_integrations.evaluation.metrics import METRICS

RANKING = ["d", "b", "a", "c"]
GRADES = {"a": 1.0, "b": 2.0, "e": 1.0, "d": 0.0}
SOME = st.lists(st.sampled_from("abcdefgh"), unique=True)
GRADED = st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3).map(float), min_size=1)


@pytest.mark.parametrize(
    ("k", "expected"),
    [
        # gains at ranks 2 and 3: 2 / log2(3) + 1 / log2(4); best: 2 / log2(2) + 1 / log2(3) + 1 / log2(4)
        (4, {"ndcg": (2 / math.log2(3) + 0.5) / (2 + 1 / math.log2(3) + 0.5), "recall": 2 / 3, "mrr": 0.5, "hit": 1.0}),
        (2, {"ndcg": 2 / math.log2(3) / (2 + 1 / math.log2(3)), "recall": 1 / 3, "mrr": 0.5, "hit": 1.0}),
        (1, {"ndcg": 0.0, "recall": 0.0, "mrr": 0.0, "hit": 0.0}),
    ],
)
def test_values_made_by_hand(k: int, expected: dict[str, float]) -> None:
    assert {name: metric(RANKING, GRADES, k) for name, metric in METRICS.items()} == pytest.approx(expected)


@pytest.mark.parametrize("metric", [ndcg, recall, mrr, hit])
def test_nothing_found_or_nothing_right_is_zero(metric: object) -> None:
    assert callable(metric)
    assert metric([], {"a": 1}, 5) == metric(["a"], {}, 5) == metric(["a"], {"a": 0.0}, 5) == 0


@given(SOME, GRADED, st.integers(1, 9))
def test_metrics_are_shares(ranking: list[str], grades: dict[str, float], k: int) -> None:
    for metric in METRICS.values():
        assert 0 <= metric(ranking, grades, k) <= 1 + 1e-12


@given(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3).map(float), min_size=1), st.integers(1, 4))
def test_no_order_beats_the_order_of_grades(grades: dict[str, float], k: int) -> None:
    best = max(ndcg(order, grades, k) for order in permutations("abcd"))
    assert best == pytest.approx(1) == ndcg(sorted(grades, key=lambda id_: -grades[id_]), grades, k)


def test_an_interval_is_that_of_its_draws() -> None:
    values = np.array([[0.0, 1.0], [1.0, 0.5], [1.0, 0.0], [0.0, 0.25]])
    draws = np.random.default_rng(3).multinomial(4, [0.25] * 4, size=500)
    expected = np.quantile(draws @ values / 4, [0.025, 0.975], axis=0)
    found = bootstrap(values, resamples=500, seed=3)
    assert [one.mean for one in found] == [0.5, 0.4375]
    assert [(one.low, one.high) for one in found] == [pytest.approx(tuple(column)) for column in expected.T]


def test_groups_are_drawn_as_wholes() -> None:
    values = np.array([[1.0], [1.0], [1.0], [0.0]])
    [single], [grouped] = bootstrap(values), bootstrap(values, groups=["a", "a", "a", "b"])
    assert single.mean == grouped.mean == 0.75
    assert (grouped.low, grouped.high) == (0.0, 1.0), "of two groups all draws of one are likely"
    assert single.low > 0
    [one] = bootstrap(values, groups=["a"] * 4)
    assert tuple(one) == (0.75, 0.75, 0.75)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20), st.integers(0, 5))
def test_a_mean_lies_between_the_extremes_of_its_interval_s_draws(values: list[float], seed: int) -> None:
    [found] = bootstrap([[value] for value in values], resamples=50, seed=seed)
    slack = 1e-9
    assert min(values) - slack <= found.low <= found.high <= max(values) + slack


def test_the_difference_of_a_system_from_itself_is_zero_without_doubt() -> None:
    table = np.random.default_rng(0).random((30, 1))
    _, change = bootstrap(np.hstack([table, table - table]))
    assert tuple(change) == (0.0, 0.0, 0.0)
    assert str(Mean(0.25, 0.0, 1.0)) == ".250 [.000, 1.000]"


def test_wrong_input_is_refused() -> None:
    for wrong in ([], [0.5], np.zeros((0, 2))):
        with pytest.raises(InputError, match=r"expected values \(n, m\)"):
            bootstrap(wrong)
    with pytest.raises(InputError, match="2 rows but 1 groups"):
        bootstrap([[0.0], [1.0]], groups=["a"])
    with pytest.raises(ConfigurationError, match="resamples must be a whole number"):
        bootstrap([[0.0]], resamples=0)
