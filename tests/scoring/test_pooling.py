"""Pooling against its definitions (parity with colpali-engine is tested in tests/parity)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from colpali_integrations.scoring import grid_pool, hierarchical_pool, mean_pool
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.pooling import group_means, hierarchical_groups, ward_pool


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 50), dim=st.integers(1, 16))
def test_the_mean_is_of_length_one_and_in_the_mean_s_direction(seed: int, n: int, dim: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    pooled, plain = mean_pool(vectors), mean_pool(vectors, normalize=False)
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(plain, vectors.astype(np.float64).mean(0), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(pooled), 1, atol=1e-5)
    np.testing.assert_allclose(pooled * np.linalg.norm(plain), plain, atol=1e-5)


def test_opposite_vectors_pool_to_zero_and_not_to_nan() -> None:
    assert mean_pool(np.array([[1.0, 0.0], [-1.0, 0.0]])).tolist() == [0.0, 0.0]


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(1, 6), columns=st.integers(1, 6), rest=st.integers(0, 4))
def test_the_grid_is_averaged_along_one_axis_and_the_rest_kept(seed: int, rows: int, columns: int, rest: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(rows * columns + rest, 5)).astype(np.float32)
    by_row = grid_pool(vectors, rows, columns, normalize=False)
    by_column = grid_pool(vectors, rows, columns, over="rows", normalize=False)
    assert by_row.shape == (rows + rest, 5)
    assert by_column.shape == (columns + rest, 5)
    for row in range(rows):
        np.testing.assert_allclose(by_row[row], vectors[row * columns : (row + 1) * columns].mean(0), atol=1e-6)
    for column in range(columns):
        np.testing.assert_allclose(by_column[column], vectors[: rows * columns][column::columns].mean(0), atol=1e-6)
    np.testing.assert_array_equal(by_row[rows:], vectors[rows * columns :])


def test_colpali_pages_become_38_vectors() -> None:
    page = np.random.default_rng(0).normal(size=(1030, 128)).astype(np.float32)
    pooled = grid_pool(page)
    assert pooled.shape == (38, 128)
    np.testing.assert_allclose(np.linalg.norm(pooled[:32], axis=1), 1, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(2, 40), factor=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_hierarchical_pooling_gives_at_most_a_factor_th_of_the_vectors(seed: int, n: int, factor: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pooled = hierarchical_pool(vectors, factor)
    assert 1 <= len(pooled) <= max(n // factor, 1)
    np.testing.assert_allclose(np.linalg.norm(pooled, axis=1), 1, atol=1e-5)


def test_hierarchical_pooling_takes_a_number_of_clusters() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.eye(4, 16, dtype=np.float32), 5, axis=0) + 0.01 * rng.normal(size=(20, 16)).astype(np.float32)
    assert hierarchical_pool(groups, n_clusters=4).shape == (4, 16)
    assert hierarchical_pool(groups, n_clusters=99).shape == (20, 16)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 60), dim=st.integers(2, 20), factor=st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_hierarchical_pooling_is_that_of_the_rows_of_cosines(seed: int, n: int, dim: int, factor: int) -> None:
    """By the definition: Ward's linkage of the rows of 1 - X X^T, n numbers each."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    vectors = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[1] = vectors[0]  # as blank patches are
    exact = vectors.astype(np.float64)
    labels = fcluster(linkage(pdist(1 - exact @ exact.T), "ward"), max(n // factor, 1), "maxclust")
    expected = np.stack([vectors[labels == label].mean(axis=0) for label in range(1, labels.max() + 1)])
    np.testing.assert_array_equal(hierarchical_pool(vectors, factor, normalize=False), expected)


@given(seed=st.integers(0, 2**32 - 1), groups=st.integers(1, 8), spread=st.floats(0.001, 0.02))
@settings(max_examples=40, deadline=None)
def test_ward_pooling_finds_groups_far_apart_and_averages_them(seed: int, groups: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 9, groups)
    centres = np.eye(8, 16, dtype=np.float32)[:groups] * rng.uniform(0.5, 2, (groups, 1)).astype(np.float32)
    owner = rng.permutation(np.repeat(np.arange(groups), sizes))
    vectors = centres[owner] + spread * rng.normal(size=(len(owner), 16)).astype(np.float32)
    pooled = ward_pool(vectors, groups, normalize=False)
    expected = np.stack([vectors[owner == group].mean(0) for group in range(groups)])
    assert pooled.dtype == np.float32
    np.testing.assert_allclose(pooled[np.lexsort(pooled.T)], expected[np.lexsort(expected.T)], atol=1e-5)
    unit = ward_pool(np.concatenate([vectors, vectors]), groups)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1, atol=1e-5)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), zeros=st.integers(1, 3), most=st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_ward_pooling_keeps_one_zero_vector_apart(seed: int, n: int, zeros: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, 6)).astype(np.float32)
    page = np.insert(vectors, rng.integers(0, n + 1, zeros), 0, axis=0)
    pooled = ward_pool(page, most, normalize=False)
    if n + zeros <= most:
        np.testing.assert_array_equal(pooled, page)
        return
    assert len(pooled) <= most
    assert not pooled[-1].any()
    np.testing.assert_array_equal(pooled[:-1], ward_pool(vectors, most - 1, normalize=False))
    # Hence no best match falls below 0, and with plain means none rises above the page's own.
    query = rng.normal(size=(1, 6)).astype(np.float32)
    assert 0 <= max_sim(query, pooled) <= max_sim(query, page) + 1e-5


@given(
    seed=st.integers(0, 2**32 - 1),
    shape=st.tuples(st.integers(5, 150), st.integers(1, 40)),
    decades=st.integers(0, 7),
    length=st.sampled_from([0.01, 1.0, 2.8, 40.0]),
    half=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_ward_pooling_is_scipy_s_linkage_to_the_last_bit(
    seed: int, shape: tuple[int, int], decades: int, length: float, half: bool
) -> None:
    """Also for copies and multiples of vectors, whose distances are equal, and for numbers of very different sizes."""
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import pdist

    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=shape) * 10.0 ** rng.uniform(-decades, 0, shape)
    vectors *= length / np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[: len(vectors) // 3] = vectors[-(len(vectors) // 3) :] * rng.choice([1, 0.5, -1], (len(vectors) // 3, 1))
    vectors = vectors.astype(np.float16 if half else np.float32).astype(np.float32)
    vectors = vectors[vectors.any(axis=1)]
    target = max(1, len(vectors) // 3)
    if len(vectors) < 2:
        return
    labels = fcluster(linkage(pdist(vectors.astype(np.float64)), "ward"), target, "maxclust") - 1
    np.testing.assert_array_equal(
        ward_pool(vectors, target, normalize=False), group_means(vectors, labels, normalize=False)
    )


def test_ward_pooling_of_zeros_alone() -> None:
    assert ward_pool(np.zeros((5, 4)), 1).tolist() == [[0.0] * 4]
    assert ward_pool(np.zeros((5, 4)), 3).tolist() == [[0.0] * 4]


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_pool(np.ones(3)),
        lambda: mean_pool(np.ones((0, 3))),
        lambda: grid_pool(np.ones((5, 3)), 2, 3),
        lambda: grid_pool(np.ones((6, 3)), 0, 3),
        lambda: grid_pool(np.ones((6, 3)), 2, 3, over="pages"),  # type: ignore[arg-type]
        lambda: hierarchical_pool(np.ones((6, 3)), 0),
        lambda: hierarchical_pool(np.ones((6, 3)), n_clusters=0),
        lambda: hierarchical_pool(np.ones(6)),
        lambda: ward_pool(np.ones((6, 3)), 0),
        lambda: ward_pool(np.concatenate([np.eye(3), np.zeros((1, 3))]), 1),
        lambda: ward_pool(np.ones(6)),
    ],
)
def test_invalid_vectors_and_options_are_refused(call: Any) -> None:
    with pytest.raises(InputError):
        call()


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), factor=st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_the_means_of_hierarchical_groups_are_the_pooled_vectors(seed: int, n: int, factor: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(n, 8)).astype(np.float32)
    groups = hierarchical_groups(vectors, factor)
    # Numbers in the order of first vectors: each is at most one above all before it.
    assert groups[0] == 0 and (groups[1:] <= np.maximum.accumulate(groups)[:-1] + 1).all()
    means, pooled = group_means(vectors, groups), hierarchical_pool(vectors, factor, normalize=True)
    expected = pooled if factor > 1 and n > 1 else vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    assert sorted(map(tuple, means.round(4).tolist())) == sorted(map(tuple, expected.round(4).tolist()))


def test_vectors_of_zero_are_a_group_of_their_own() -> None:
    vectors = np.array([[0.0, 0.0], [1.0, 0.1], [0.0, 0.0], [1.0, -0.1], [0.0, 1.0], [0.1, 1.0]])
    groups = hierarchical_groups(vectors, 2)
    assert groups.tolist() == [0, 1, 0, 1, 2, 2]
    np.testing.assert_allclose(
        group_means(vectors, groups, normalize=False), np.array([[0.0, 0.0], [1.0, 0.0], [0.05, 1.0]]), atol=1e-6
    )
    assert hierarchical_groups(np.zeros((3, 2)), 2).tolist() == [0, 0, 0]
    for wrong in (0, -1):
        with pytest.raises(InputError, match="pool_factor"):
            hierarchical_groups(vectors, wrong)
