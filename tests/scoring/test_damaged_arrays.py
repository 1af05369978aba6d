"""Arrays that are no multi-vectors or scores are refused by name, and integers rank as their values do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from colpali_integrations.errors import InputError
from colpali_integrations.scoring import PackedPages, hierarchical_pool, max_sim, quantize_int8, top_pages, ward_pool

ONE = np.ones((2, 4), np.float32)


@pytest.mark.parametrize("pages", [None, 7, np.float32(1), np.array(1.0), "pages"])
@pytest.mark.parametrize("take", [lambda pages: max_sim(ONE, pages), PackedPages, quantize_int8])
def test_pages_that_cannot_be_iterated(take: Callable[[Any], Any], pages: Any) -> None:
    with pytest.raises(InputError, match="expected an array"):
        take(pages)


@pytest.mark.parametrize("pool", [lambda rows: ward_pool(rows, 2), lambda rows: hierarchical_pool(rows, n_clusters=2)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pools_of_distances_refuse_what_has_none(pool: Callable[[Any], Any], value: float) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 4))
    rows[3, 1] = value
    with pytest.raises(InputError, match="has NaN or infinity"):
        pool(rows)


@given(arrays(st.sampled_from(["uint8", "int8", "uint64", "int64"]), st.integers(1, 9)), st.integers(1, 9))
def test_integers_rank_as_their_values(scores: Any, k: int) -> None:
    expected = sorted(range(len(scores)), key=lambda page: (-int(scores[page]), page))[:k]
    assert top_pages(scores, k).tolist() == expected


@pytest.mark.parametrize("scores", [np.array([True, False]), np.array([1j, 2]), np.array(["a"]), np.array([None, 1])])
def test_scores_without_an_order_are_refused(scores: Any) -> None:
    with pytest.raises(InputError, match="array of numbers per page"):
        top_pages(scores, 1)
