"""Pages by centroids: estimates of MaxSim, and the pages that they choose."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import InputError
from colpali_integrations.scoring import CentroidPages, cluster_pages, top_pages


def words(pages: int, seed: int, *, dim: int = 16, kinds: int = 300) -> list[NDArray[np.float16]]:
    """Pages whose vectors are those of words, with a little noise each."""
    rng = np.random.default_rng(seed)
    book = np.random.default_rng(0).normal(size=(kinds, dim))
    made = []
    for _ in range(pages):
        rows = book[rng.integers(kinds, size=rng.integers(5, 60))]
        made.append((rows + 0.1 * rng.normal(size=rows.shape)).astype(np.float16))
    return made


def plain_estimate(query: NDArray[np.float32], few: CentroidPages, opened: int) -> NDArray[np.float64]:
    """The definition, page by page."""
    lists = np.split(few.pages, few.ends[:-1])
    total = np.zeros(len(few))
    for vector in query.astype(np.float64):
        near = few.centroids.astype(np.float64) @ vector
        chosen = np.argsort(-near)[:opened]
        for page in range(len(few)):
            total[page] += max([near[one] for one in chosen if page in lists[one]], default=near[chosen].min())
    return total


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 80))
def test_estimates_are_those_of_the_definition(seed: int, pages: int) -> None:
    few = cluster_pages(words(pages, seed))
    query = np.random.default_rng(seed).normal(size=(3, 16)).astype(np.float32)
    opened = min(len(few.centroids), max(32, -(-len(few.centroids) // 256)))
    np.testing.assert_allclose(max_sim(query, few), plain_estimate(query, few, opened), rtol=1e-4, atol=1e-4)


def test_estimates_are_exact_where_every_vector_is_a_centroid() -> None:
    pages = [np.eye(8, dtype=np.float32)[rows] for rows in ([0, 0], [2], [5, 5, 5])]
    few = cluster_pages(pages)
    assert len(few.centroids) == 3
    query = np.eye(8, dtype=np.float32)[[5]]
    assert max_sim(query, few).tolist() == max_sim(query, pages).tolist() == [0, 0, 1]


def test_the_best_pages_are_among_the_best_by_estimate() -> None:
    pages = words(3000, 1, kinds=2000)
    few = cluster_pages(pages)
    found = 0
    for number in range(20):
        query = pages[number * 100][:6].astype(np.float32)
        best = set(top_pages(max_sim(query, pages), 10).tolist())
        found += len(best & set(top_pages(max_sim(query, few), 150).tolist()))
    assert found / 200 >= 0.95


def test_every_page_stands_in_the_lists_of_its_vectors() -> None:
    pages = words(200, 2)
    few = cluster_pages(pages)
    assert sorted(set(few.pages.tolist())) == list(range(200))
    for start, end in zip([0, *few.ends[:-1]], few.ends, strict=True):
        assert len(set(few.pages[start:end].tolist())) == end - start, "a page stands in a list once"
    assert few.nbytes < sum(page.nbytes for page in pages) / 2


def test_one_seed_gives_one_result() -> None:
    pages = words(300, 3)
    first, again, other = (cluster_pages(pages, seed=seed, threads=seed + 1) for seed in (0, 0, 1))
    assert np.array_equal(first.pages, again.pages)
    assert np.array_equal(first.centroids, again.centroids)
    assert not np.array_equal(first.centroids, other.centroids)


def test_saved_arrays_make_the_pages_again() -> None:
    few = cluster_pages(words(20, 4))
    again = CentroidPages(few.n_pages, few.centroids, few.ends, few.pages)
    query = np.ones((2, 16), np.float32)
    assert np.array_equal(max_sim(query, again), max_sim(query, few))
    assert repr(few).startswith("CentroidPages(20 pages, ")


def test_pages_of_equal_vectors() -> None:
    few = cluster_pages([np.ones((5, 4), np.float32)] * 30)
    np.testing.assert_allclose(max_sim(np.ones((1, 4), np.float32), few), 4)


@pytest.mark.parametrize(
    ("pages", "message"),
    [
        ([], "at least one page"),
        ([np.ones((2, 4)), np.ones((2, 5))], "dim"),
        ([np.ones((2, 4)), np.full((2, 4), np.nan)], "NaN or infinity"),
        ([np.ones((2, 4)), np.ones((0, 4))], "expected"),
        ([np.ones(4)], "expected"),
    ],
)
def test_bad_pages_are_refused(pages: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_pages(pages)


def test_bad_arrays_and_queries_are_refused() -> None:
    few = cluster_pages(words(20, 5))
    for change in (
        {"n_pages": 3},
        {"centroids": few.centroids[1:]},
        {"ends": few.ends[::-1]},
        {"pages": few.pages[1:]},
        {"ends": few.ends[:0], "centroids": few.centroids[:0]},
    ):
        arrays: dict[str, Any] = {"n_pages": 20, "centroids": few.centroids, "ends": few.ends, "pages": few.pages}
        with pytest.raises(InputError, match="do not fit"):
            CentroidPages(**{**arrays, **change})
    with pytest.raises(InputError, match="NaN or infinity"):
        max_sim(np.full((1, 16), np.inf, np.float32), few)
