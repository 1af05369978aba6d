"""Window plans against the plain definition, for lengths around every border; angles in float64."""

from __future__ import annotations

import numpy as np
import pytest

from colpali_integrations.models.builder.positions import angles, frequencies, window_plan


@pytest.mark.parametrize("reach", [1, 20, 70, 256])
@pytest.mark.parametrize("n_tokens", [1, 2, 63, 64, 65, 129, 257, 513, 770, 1000, 1487])
def test_every_token_sees_exactly_those_in_reach(n_tokens: int, reach: int) -> None:
    plan = window_plan(n_tokens, reach)
    seen = np.zeros((n_tokens, n_tokens), np.int64)
    for block, (queries, keys) in enumerate(zip(plan.queries, plan.keys, strict=True)):
        assert len(set(keys.tolist())) == len(keys)  # a repeated key would count twice in a softmax
        for row, query in enumerate(queries):
            flat = block * plan.queries.shape[1] + row
            if plan.back[query] == flat:  # not the repetition of the last token
                seen[query, keys] += plan.bias[block, 0, row] == 0
    places = np.arange(n_tokens)
    np.testing.assert_array_equal(seen, np.abs(places[:, None] - places) <= reach)


@pytest.mark.parametrize("n_tokens", [5, 700, 1300])
def test_no_row_of_scores_is_blocked_as_a_whole(n_tokens: int) -> None:
    assert (window_plan(n_tokens, 100).bias == 0).any(axis=-1).all()


def test_the_plan_of_a_batch_repeats_the_bias(n_tokens: int = 1300) -> None:
    one, two = window_plan(n_tokens, 100), window_plan(n_tokens, 100, batch=2)
    np.testing.assert_array_equal(two.bias, np.concatenate([one.bias, one.bias]))
    np.testing.assert_array_equal(two.queries, one.queries)


def test_long_sequences_cost_far_less_than_all_pairs() -> None:
    assert window_plan(3010, 256).bias.size < 0.25 * 3010**2
    assert window_plan(300, 256).bias.size == 300**2  # not cut where it would save nothing


def test_angles() -> None:
    steps = frequencies(10_000.0, 64)
    exact = 10_000.0 ** (-2 * np.arange(32) / 64)
    np.testing.assert_allclose(steps, exact, rtol=3e-7)
    positions = np.array([[0], [1], [999]])
    found = angles(positions, steps)
    np.testing.assert_allclose(found.cos, np.cos(positions * steps.astype(np.float64)), atol=4e-5)
    np.testing.assert_allclose(found.sin, np.sin(positions * steps.astype(np.float64)), atol=4e-5)
