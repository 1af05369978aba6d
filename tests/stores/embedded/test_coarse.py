"""Rows of the first stage: small, equal to the vectors up to a rounding, and scored as their rounded vectors are."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations import max_sim
from colpali_integrations.errors import InputError
from colpali_integrations.stores.embedded.coarse import coarse_matches, coarse_rows, coarse_vectors
from colpali_integrations.stores.embedded.engine import FolderEngine
from colpali_integrations.stores.engine import FIRST, FULL, Point, Search, VectorSpec


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 40),
    dim=st.integers(1, 140),
    factor=st.sampled_from([0.0, 1e-30, 1e-3, 1.0, 3e4]),
    seed=st.integers(0, 99),
)
def test_a_row_is_off_by_half_a_scale(rows: int, dim: int, factor: float, seed: int) -> None:
    vectors = (factor * np.random.default_rng(seed).standard_normal((rows, dim))).astype(np.float32)
    small = coarse_rows(vectors)
    assert small.dtype == np.int8
    assert small.shape == (rows, dim + 4)
    scale = np.abs(vectors).max() / 127
    np.testing.assert_allclose(coarse_vectors(small), vectors, rtol=0, atol=scale * 0.5001)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
    seed=st.integers(0, 99),
)
def test_matches_are_those_of_the_rounded_vectors(lengths: list[int], cuts: set[int], seed: int) -> None:
    random = np.random.default_rng(seed)
    # Scales differ between entries by up to a thousand times.
    pages = [random.standard_normal((length, 24)) * 10.0 ** random.uniform(-3, 0) for length in lengths]
    small = [coarse_rows(page) for page in pages]
    bounds = [0, *sorted(cut for cut in cuts if cut < len(small)), len(small)]
    runs = [np.concatenate(small[first:last]) for first, last in pairwise(bounds)]
    query = (random.integers(-63, 64, (5, 24)) / 63).astype(np.float32)
    query[:, 0] = 1  # these queries are not rounded, so the scores can be compared exactly
    firsts = np.stack([page[0] for page in small])
    found = coarse_matches(query, runs, np.array(lengths), firsts)
    truth = np.stack([(query.astype(np.float64) @ coarse_vectors(page).T.astype(np.float64)).max(1) for page in small])
    np.testing.assert_allclose(found, truth.T, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(wrong: float) -> None:
    with pytest.raises(InputError, match="NaN or infinity"):
        coarse_rows(np.array([[1.0, wrong]]))


def test_a_folder_rounds_the_first_stage_alone(tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    pages = [(vectors / np.linalg.norm(vectors)).astype(np.float16) for vectors in random.standard_normal((40, 9, 16))]
    schema = {FULL: VectorSpec(dim=16), FIRST: VectorSpec(dim=16, coarse=True)}
    engine = FolderEngine(tmp_path, schema=schema, manifest={})
    engine.upsert([Point(str(number), {FULL: page, FIRST: page[:3]}) for number, page in enumerate(pages)])
    [size] = [path.stat().st_size for path in tmp_path.glob("first-*.block")]
    assert size == 40 * 3 * (16 + 4)
    [full, first] = [engine.vectors(["7"], name)[0] for name in (FULL, FIRST)]
    np.testing.assert_array_equal(full, pages[7])
    assert first is not None
    np.testing.assert_allclose(first, pages[7][:3], atol=np.abs(pages[7]).max() / 250)
    query = random.standard_normal((4, 16)).astype(np.float32)
    [exact] = engine.search([Search(query=query, limit=40)])
    [scan] = engine.search([Search(query=query, limit=40, using=FIRST)])
    truth = max_sim(query, pages)
    assert [one.score for one in exact] == pytest.approx(sorted(truth, reverse=True), rel=1e-5)
    firsts = max_sim(query, [page[:3] for page in pages])
    assert {one.id: one.score for one in scan} == pytest.approx(
        {str(number): score for number, score in enumerate(firsts)}, abs=0.02
    )
    engine.close()
