"""MUVERA against its definition, spelt out in loops, against fastembed's on the same matrices, and against MaxSim."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.scoring.muvera import Muvera


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def unit(vectors: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), dtype=np.float32)


def by_definition(muvera: Muvera, vectors: NDArray[Any], *, page: bool) -> NDArray[np.float64]:
    """Section 2 of the paper, one bucket at a time."""
    encoding = []
    for repetition in range(muvera.repetitions):
        planes = muvera._planes.reshape(muvera.k_sim, muvera.repetitions, muvera.dim)[:, repetition]
        buckets = [sum(1 << i for i, plane in enumerate(planes) if plane @ row > 0) for row in vectors]
        for bucket in range(2**muvera.k_sim):
            members = [row for row, position in zip(vectors, buckets, strict=True) if position == bucket]
            value = np.sum(members, axis=0, dtype=np.float64) if members else np.zeros(muvera.dim)
            if page and members:
                value = value / len(members)
            elif page:
                away = [(bin(position ^ bucket).count("1"), position, row) for row, position in enumerate(buckets)]
                value = vectors[min(away)[2]].astype(np.float64)
            if muvera._matrix is not None:
                start = repetition * muvera.d_proj
                value = value @ muvera._matrix[:, start : start + muvera.d_proj].astype(np.float64)
            encoding.append(value if page else value / muvera.repetitions)
    return np.concatenate(encoding)


@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(1, 60),
    k_sim=st.integers(0, 6),
    d_proj=st.integers(1, 12),
    repetitions=st.integers(1, 5),
)
@settings(max_examples=60, deadline=None)
def test_encodings_are_those_of_the_definition(seed: int, n: int, k_sim: int, d_proj: int, repetitions: int) -> None:
    muvera = Muvera(12, k_sim=k_sim, d_proj=d_proj, repetitions=repetitions, seed=seed)
    vectors = normal(seed, n, 12)
    page, query = muvera.document(vectors), muvera.query(vectors)
    assert page.dtype == query.dtype == np.float32
    assert page.shape == query.shape == (muvera.size,) == (repetitions * 2**k_sim * d_proj,)
    np.testing.assert_allclose(page, by_definition(muvera, vectors, page=True), atol=1e-5)
    np.testing.assert_allclose(query, by_definition(muvera, vectors, page=False), atol=1e-5)


@pytest.mark.parametrize("n", [1, 7, 300])
def test_encodings_are_fastembed_s_on_fastembed_s_matrices(n: int) -> None:
    from fastembed.postprocess.muvera import Muvera as Peer

    muvera, peer = Muvera(64, k_sim=4, d_proj=8, repetitions=6), Peer(64, 4, 8, 6)
    planes = np.stack([projection.simhash_vectors for projection in peer.simhash_projections])  # (reps, dim, k)
    muvera._planes = planes.transpose(2, 0, 1).reshape(-1, 64).astype(np.float32)
    matrices = peer.dim_reduction_projections.transpose(1, 0, 2).reshape(64, -1)
    muvera._matrix = (matrices / np.sqrt(8)).astype(np.float32)
    vectors = normal(n, n, 64)
    np.testing.assert_allclose(muvera.document(vectors), peer.process_document(vectors), atol=1e-5)
    np.testing.assert_allclose(muvera.query(vectors) * 6, peer.process_query(vectors), atol=1e-4)


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 40), k_sim=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_without_reduction_the_estimate_is_never_above_max_sim(seed: int, n: int, k_sim: int) -> None:
    # A mean of products, or the product with one vector, is at most the greatest product.
    muvera = Muvera(8, k_sim=k_sim, d_proj=8, repetitions=3, seed=seed)
    page, query = normal(seed, n, 8), normal(seed + 1, 5, 8)
    exact = float(max_sim(query, page))
    assert muvera.query(query) @ muvera.document(page) <= exact + 1e-4
    np.testing.assert_allclose(muvera.query(query) @ muvera.document(page[:1]), max_sim(query, page[:1]), atol=1e-4)


def pages_of_topics(count: int) -> list[NDArray[np.float32]]:
    """Pages of 200 unit vectors around 10 of 100 topics."""
    topics = unit(normal(7, 100, 64))
    rng = np.random.default_rng(8)
    return [unit(topics[rng.choice(100, 10)].repeat(20, 0) + 0.08 * normal(100 + i, 200, 64)) for i in range(count)]


@pytest.mark.parametrize(("final_dim", "least"), [(None, 0.8), (2560, 0.6)])
def test_the_estimate_finds_the_best_pages_of_max_sim(final_dim: int | None, least: float) -> None:
    muvera = Muvera(64, final_dim=final_dim)
    pages = pages_of_topics(200)
    encodings = np.stack([muvera.document(page) for page in pages])
    correlations, found = [], 0
    for asked in range(40):
        query = unit(pages[asked][::12] + 0.1 * normal(asked, 17, 64))
        exact, estimate = max_sim(query, pages), encodings @ muvera.query(query)
        correlations.append(np.corrcoef(exact, estimate)[0, 1])
        found += int(exact.argmax() in np.argsort(-estimate)[:5])
    # Seen: .85 and 40 in full, .67 and 40 folded to a quarter; chance is 0 and 1.
    assert np.mean(correlations) > least
    assert found >= 36


def test_a_count_sketch_keeps_products_on_average() -> None:
    page, query = unit(normal(1, 50, 16)), unit(normal(2, 8, 16))
    folded = []
    for seed in range(60):
        full = Muvera(16, k_sim=3, d_proj=4, repetitions=4, seed=seed)
        short = Muvera(16, k_sim=3, d_proj=4, repetitions=4, seed=seed, final_dim=64)
        assert short.size == len(short.query(query)) == 64
        folded.append(short.query(query) @ short.document(page) - full.query(query) @ full.document(page))
    assert abs(np.mean(folded)) < 3 * np.std(folded) / np.sqrt(len(folded))
    assert np.std(folded) > 0


@given(seed=st.integers(0, 2**32 - 1), zeros=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_zero_vectors_change_nothing(seed: int, zeros: int) -> None:
    muvera = Muvera(16, k_sim=3, d_proj=4, repetitions=4)
    vectors = normal(seed, 10, 16) * np.linspace(0.1, 3, 10, dtype=np.float32)[:, None]
    among = np.insert(vectors, np.random.default_rng(seed).integers(0, 11, zeros), 0, axis=0)
    np.testing.assert_allclose(muvera.document(among), muvera.document(vectors), atol=1e-6)
    np.testing.assert_allclose(muvera.query(among), muvera.query(vectors), atol=1e-6)
    np.testing.assert_array_equal(muvera.document(np.zeros((3, 16))), np.zeros(muvera.size))


@given(seed=st.integers(0, 2**32 - 1), factor=st.floats(0.25, 4))
@settings(max_examples=30, deadline=None)
def test_lengths_scale_the_encoding_and_leave_the_buckets(seed: int, factor: float) -> None:
    muvera = Muvera(16, k_sim=3, d_proj=4, repetitions=4)
    vectors = normal(seed, 10, 16)
    np.testing.assert_allclose(
        muvera.document(vectors * np.float32(factor)), muvera.document(vectors) * factor, rtol=1e-4, atol=1e-4
    )


def test_random_numbers_are_the_same_on_every_machine() -> None:
    muvera = Muvera(128, final_dim=1000)
    assert muvera._matrix is not None
    digest = hashlib.sha256()
    for array in (muvera._planes, muvera._matrix, muvera._sketch_sign):
        digest.update(array.astype("<f4").tobytes())
    digest.update(muvera._sketch_index.astype("<i8").tobytes())
    assert digest.hexdigest()[:16] == "02cebbcd51840890"
    np.testing.assert_array_equal(muvera._planes, Muvera(128, final_dim=1000)._planes)
    assert not np.array_equal(muvera._planes, Muvera(128, seed=43)._planes)


def test_hyperplanes_are_normal_and_signs_fair() -> None:
    muvera = Muvera(128, repetitions=100)
    planes, matrix = muvera._planes, muvera._matrix
    assert matrix is not None
    # 64,000 numbers: three standard errors of mean, variance and fourth moment
    assert abs(planes.mean()) < 3 / np.sqrt(planes.size)
    assert abs(planes.var() - 1) < 3 * np.sqrt(2 / planes.size)
    assert abs((planes**4).mean() - 2.85) < 0.1  # eight uniforms: 3 - 1.2 / 8
    assert abs(np.corrcoef(planes[::2].ravel(), planes[1::2].ravel())[0, 1]) < 3 / np.sqrt(planes.size / 2)
    assert set(np.unique(matrix * 4)) == {-1, 1}
    assert abs((matrix > 0).mean() - 0.5) < 1.5 / np.sqrt(matrix.size)


def test_float16_pages_are_encoded_as_their_float32_copies() -> None:
    muvera, vectors = Muvera(128), normal(3, 50, 128).astype(np.float16)
    np.testing.assert_array_equal(muvera.document(vectors), muvera.document(vectors.astype(np.float32)))


@pytest.mark.parametrize(
    "options",
    [
        {"dim": 0},
        {"k_sim": -1},
        {"k_sim": 9},
        {"d_proj": 0},
        {"d_proj": 17},
        {"repetitions": 0},
        {"final_dim": 0},
        {"final_dim": 10**6},
        {"seed": -1},
    ],
)
def test_arguments_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="Muvera"):
        Muvera(**{"dim": 16, **options})


@pytest.mark.parametrize("vectors", [np.ones(16), np.ones((0, 16)), np.ones((3, 15))])
def test_other_shapes_than_a_multi_vector_s_are_refused(vectors: NDArray[Any]) -> None:
    with pytest.raises(InputError):
        Muvera(16).document(vectors)
