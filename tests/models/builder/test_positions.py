"""Window plans and positions against plain definitions, for lengths around every border; angles in float64."""

from __future__ import annotations

import numpy as np
import pytest

from colpali_integrations.models.builder.positions import (
    WindowPlan,
    angles,
    frequencies,
    group_plan,
    merged_order,
    mrope_positions,
    window_plan,
)


def pairs(plan: WindowPlan, n_tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """How often each token, the first axis, attends to each other one."""
    seen = np.zeros((n_tokens, n_tokens), np.int64)
    for block, (queries, keys) in enumerate(zip(plan.queries, plan.keys, strict=True)):
        for row, query in enumerate(queries):
            flat = block * plan.queries.shape[1] + row
            if plan.back[query] == flat:  # not a repetition
                np.add.at(seen[query], keys, plan.bias[block, 0, row] == 0)
    return seen


@pytest.mark.parametrize("reach", [1, 20, 70, 256])
@pytest.mark.parametrize("n_tokens", [1, 2, 63, 64, 65, 129, 257, 513, 770, 1000, 1487])
def test_every_token_sees_exactly_those_in_reach(n_tokens: int, reach: int) -> None:
    plan = window_plan(n_tokens, reach)
    seen = pairs(plan, n_tokens)
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


@pytest.mark.parametrize("n_groups", [1, 2, 5])
@pytest.mark.parametrize("n_tokens", [1, 2, 17, 64])
def test_every_token_sees_exactly_its_group(n_tokens: int, n_groups: int) -> None:
    groups = np.random.default_rng(n_tokens).integers(0, n_groups, n_tokens) * 3
    plan = group_plan(groups)
    np.testing.assert_array_equal(pairs(plan, n_tokens), groups[:, None] == groups)
    assert (plan.bias == 0).any(axis=-1).all()
    np.testing.assert_array_equal(group_plan(groups, batch=2).bias, np.concatenate([plan.bias, plan.bias]))


def test_patches_that_merge_stand_together() -> None:
    order = merged_order(3, 5, 2)
    assert len({tuple(place) for place in order.tolist()}) == len(order) == 60
    cells = (order // 2).reshape(15, 4, 2)
    assert (cells == cells[:, :1]).all()
    assert cells[:, 0].tolist() == [[row, column] for row in range(3) for column in range(5)]
    assert order[4:8].tolist() == [[0, 2], [0, 3], [1, 2], [1, 3]]


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 7), (7, 2)])
def test_text_behind_an_image_goes_on_after_its_longer_edge(rows: int, columns: int) -> None:
    places = mrope_positions(3 + rows * columns + 2, first=3, rows=rows, columns=columns)
    image = places[:, 3:-2]
    assert (places[:, :3] == [0, 1, 2]).all()
    assert (image[0] == 3).all()
    assert set(zip(*(image[1:] - 3).tolist(), strict=True)) == {(r, c) for r in range(rows) for c in range(columns)}
    assert (places[:, -2:] == image.max() + np.array([1, 2])).all()
