from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.errors import InputError
from colpali_integrations.scoring._blocks import LIMITS
from colpali_integrations.scoring.codes import VectorCode, _restored, _rotated
from colpali_integrations.scoring.maxsim import max_sim

BITS = (1, 2, 4, 8)
# The relative error of a vector of normal numbers by the rate of the best scalar code of so many bits (Max 1960, table
# I: distortions 0.3634, 0.1175, 0.01154, 0.00004), unbiased: |x - x'|^2 / |x|^2 is D / (1 - D).
WORST = {1: 0.78, 2: 0.40, 4: 0.125, 8: 0.011}


def pages(seed: int, lengths: tuple[int, ...], dim: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((n, dim)).astype(np.float32) + np.float32(0.3) for n in lengths]


def test_a_vector_whose_rotated_numbers_are_alike_is_restored() -> None:
    # Hadamard's transform turns each axis into numbers of one absolute value, which one bit and a scale tell.
    for dim in (1, 2, 4, 128):
        axes = np.eye(dim, dtype=np.float32) * np.arange(1, dim + 1, dtype=np.float32)
        axes = np.concatenate([axes, -axes])  # with a centre of zero
        code = VectorCode(dim, 1)
        # The scale of a vector is a 65,535th of the largest.
        np.testing.assert_allclose(code.decode(code.encode(axes)), axes, atol=dim / 65535)


@pytest.mark.parametrize("dim", [1, 2, 3, 5, 96, 128, 320])
def test_the_rotation_keeps_lengths_and_is_undone(dim: int) -> None:
    rows = np.random.default_rng(dim).standard_normal((5, dim)).astype(np.float32)
    turned = _rotated(rows)
    np.testing.assert_allclose(np.linalg.norm(turned, axis=1), np.linalg.norm(rows, axis=1), rtol=1e-5)
    np.testing.assert_allclose(_restored(turned), rows, atol=1e-5)


@pytest.mark.parametrize("bits", BITS)
def test_the_error_is_that_of_a_scalar_code_of_so_many_bits(bits: int) -> None:
    code = VectorCode(128, bits)
    [page] = pages(1, (400,), 128)
    restored = code.decode(code.encode(page))
    error = np.linalg.norm(restored - page, axis=1) / np.linalg.norm(page - page.mean(axis=0), axis=1)
    assert np.sqrt((error**2).mean()) < WORST[bits]


@pytest.mark.parametrize("bits", BITS)
def test_products_are_neither_too_high_nor_too_low(bits: int) -> None:
    code = VectorCode(64, bits)
    [page] = pages(2, (300,), 64)
    restored = code.decode(code.encode(page))
    # By the choice of the scale, the product of a vector with its code is its own squared length, from the centre.
    centre = page.mean(axis=0, dtype=np.float64).astype(np.float16).astype(np.float32)
    page, restored = page - centre, restored - centre
    np.testing.assert_allclose((restored * page).sum(axis=1), (page * page).sum(axis=1), rtol=2e-3)


@given(
    bits=st.sampled_from(BITS),
    dim=st.integers(1, 40),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    queries=st.integers(1, 5),
    cut=st.integers(0, 6),
    seed=st.integers(0, 999),
)
@settings(max_examples=60, deadline=None)
def test_best_matches_are_those_of_the_restored_vectors(
    bits: int, dim: int, lengths: list[int], queries: int, cut: int, seed: int
) -> None:
    code = VectorCode(dim, bits)
    made = [code.encode(page) for page in pages(seed, tuple(lengths), dim)]
    query = np.random.default_rng(seed).standard_normal((queries, dim)).astype(np.float32)
    groups = [made[:cut], made[cut:]]
    runs = [np.concatenate(group) for group in groups if group]
    found = code.best_matches(
        query, runs, np.array([len(rows) for rows in made]), limits=LIMITS._replace(rows=7, products=40)
    )
    expected = np.stack([(query @ code.decode(rows).T).max(axis=1) for rows in made], axis=1)
    np.testing.assert_allclose(found, expected, atol=2e-4 * max(1.0, float(np.abs(expected).max())))


def test_scores_of_many_pages_and_one_long_one() -> None:
    code = VectorCode(128, 4)
    some = pages(3, (5000, 1, 70, 1030), 128)
    rows = [code.encode(page) for page in some]
    [query] = pages(4, (20,), 128)
    found = code.best_matches(query, [np.concatenate(rows)], np.array([*map(len, rows)]))
    np.testing.assert_allclose(found.sum(axis=0), max_sim(query, [code.decode(one) for one in rows]), rtol=1e-4)


def test_vectors_of_zero_stay_zero() -> None:
    # ColTiny's pages end with one, so that a word that is nowhere has the match 0 and not a negative one.
    for bits in BITS:
        code = VectorCode(8, bits)
        page = np.array([[1.0] * 8, [0.0] * 8], np.float32)
        rows = code.encode(page)
        assert not code.decode(rows)[1].any()
        assert code.best_matches(-page[:1], [rows], np.array([len(rows)])).tolist() == [[0.0]]
        zeros = code.encode(np.zeros((2, 8)))
        assert not code.decode(zeros).any()


def test_one_vector_and_equal_vectors_are_their_centre() -> None:
    code = VectorCode(16, 1)
    page = np.full((3, 16), 0.5, np.float32)
    np.testing.assert_array_equal(code.decode(code.encode(page)), page)


@pytest.mark.parametrize("bits", BITS)
def test_lengths_of_all_sizes(bits: int) -> None:
    code = VectorCode(128, bits)
    for size in (1e-30, 1e-4, 65504.0):
        page = np.full((2, 128), size, np.float32)
        restored = code.decode(code.encode(page))
        assert np.isfinite(restored).all()
        exact = page.astype(np.float64)
        np.testing.assert_allclose((restored * exact).sum(axis=1), (exact**2).sum(axis=1), rtol=1e-2)


def test_the_form_on_disk_stays() -> None:
    """Stores hold these bytes: another rotation, order or scale would make their vectors meaningless."""
    page = np.array([[1.0, 2.0, 3.0, 4.0, 5.0], [-1.0, 0.5, 0.0, 0.25, -2.0]], np.float32)
    made = {bits: VectorCode(5, bits).encode(page).tobytes().hex() for bits in BITS}
    assert made == GOLDEN


@pytest.mark.parametrize("bits", BITS)
def test_coding_again_adds_little_to_the_error(bits: int) -> None:
    """A page whose vectors are copied within a store is coded again.

    Its centre moves by the mean of n independent errors, which is an error over the root of n, and all else stays.
    """
    code = VectorCode(128, bits)
    [page] = pages(5, (50,), 128)
    first = code.decode(code.encode(page))
    again = code.decode(code.encode(first.astype(np.float16)))
    assert np.linalg.norm(again - first) / np.linalg.norm(first - page) == pytest.approx(50**-0.5, rel=0.1)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        VectorCode(2, 4).encode(np.array([[1.0, number]]))


GOLDEN = {
    1: "ddd32c400000003d003e4040003e00a0feff58feff",
    2: "8957813f0000003d003e4040003e0000a010feff5ce0feff",
    4: "1d115d3e0000003d003e4040003e008710a0feff78ef50feff",
    8: "c95f523c0000003d003e4040003e8213a87c00feff7dec5783fffeff",
}
