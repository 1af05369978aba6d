"""Pages of int8 and packed pages: exact integers, and scores against their definition in float64."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.scoring import Int8Pages, PackedPages, quantize_int8, top_pages
from colpali_integrations.scoring._blocks import Limits
from colpali_integrations.scoring.int8 import PAGE_LEVELS, QUERY_LEVELS, quantize_queries
from colpali_integrations.scoring.maxsim import PreparedPages, limited_max_sim
from tests.scoring.test_kernels import oracle, unequal, unit

sizes = st.lists(st.integers(1, 16), min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 1)


# At most 7 vectors or 2,000 bytes together, queries 16 at a time: every seam is crossed.
SMALL = Limits(rows=7, products=100, packed=2000, matches=100)


class SmallInt8(Int8Pages):
    _limits = SMALL


class SmallPacked(PackedPages):
    _limits = SMALL


def small_int8(pages: Iterable[NDArray[Any]]) -> Int8Pages:
    made = quantize_int8(pages)
    return SmallInt8(made.values, made.lengths, made.scales, made.centres)


def whole_products(queries: NDArray[np.int8], pages: Int8Pages) -> NDArray[np.int64]:
    exact = queries.astype(np.int64)
    found = [(exact @ pages.page(index).astype(np.int64).T).max(axis=1) for index in range(len(pages))]
    return np.stack(found, axis=1)


def packed_products(queries: NDArray[np.int8], pages: Int8Pages) -> NDArray[Any]:
    """The same by packed pages. A query whose greatest number is QUERY_LEVELS has a scale of 1."""
    return SmallPacked(whole(pages.values, pages.lengths)).best_matches(queries)


def whole(values: NDArray[np.int8], lengths: NDArray[Any]) -> Int8Pages:
    return SmallInt8(values, lengths, np.ones(len(lengths)), np.zeros((len(lengths), values.shape[1])))


@given(seed=seeds, rows=st.integers(1, 40), pages=sizes, dim=st.integers(1, 70), threads=st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_products_of_integers_are_exact(seed: int, rows: int, pages: list[int], dim: int, threads: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-PAGE_LEVELS, PAGE_LEVELS + 1, (sum(pages), dim), np.int8)
    queries = rng.integers(-QUERY_LEVELS, QUERY_LEVELS + 1, (rows, dim), np.int8)
    queries[:, 0] = QUERY_LEVELS
    corpus = whole(values, np.array(pages))
    expected = whole_products(queries, corpus)
    np.testing.assert_array_equal(corpus.best_products(queries, threads=threads), expected)
    np.testing.assert_array_equal(packed_products(queries, corpus), expected)


@pytest.mark.parametrize("rows", [16, 17, 20, 31, 32, 33, 52])
def test_products_of_as_many_vectors_as_a_question_has_are_exact(rows: int) -> None:
    # onnxruntime before 1.26 multiplies 17 to 31 columns wrongly on processors with AMX.
    rng = np.random.default_rng(rows)
    queries = rng.integers(-QUERY_LEVELS, QUERY_LEVELS + 1, (rows, 128), np.int8)
    for lengths in ([200, 40], [rows]):
        values = rng.integers(-PAGE_LEVELS, PAGE_LEVELS + 1, (sum(lengths), 128), np.int8)
        pages = Int8Pages(values, np.array(lengths), np.ones(len(lengths)), np.zeros((len(lengths), 128)))
        expected = whole_products(queries, pages)
        np.testing.assert_array_equal(pages.best_products(queries), expected)
        found = PackedPages(pages).best_matches(queries)
        np.testing.assert_allclose(found, pages.best_matches(queries), rtol=1e-12)


@pytest.mark.parametrize("dim", [1, 2, 3, 31, 32, 33, 64, 127, 128, 320])
@pytest.mark.parametrize("rows", [1, 4, 20, 23])
def test_the_greatest_numbers_do_not_saturate(dim: int, rows: int) -> None:
    # In every kernel two neighbouring products must fit 16 bits; here all are as large as they can be, of equal sign.
    assert np.iinfo(np.int16).max >= 2 * (128 + PAGE_LEVELS) * QUERY_LEVELS
    assert np.iinfo(np.int16).max >= 2 * (64 + QUERY_LEVELS) * PAGE_LEVELS
    signs = np.array([[1], [-1]], np.int8)
    alternating = np.where(np.arange(dim) % 2, 1, -1).astype(np.int8)
    page = np.concatenate([signs * np.ones(dim, np.int8), signs * alternating]) * np.int8(PAGE_LEVELS)
    queries = np.resize(np.concatenate([signs * np.ones(dim, np.int8), signs * alternating]), (rows, dim))
    queries = queries * np.int8(QUERY_LEVELS)
    for only in ([0], [1], [2], [3], [0, 1, 2, 3]):
        corpus = whole(np.tile(page[only], (9, 1)), np.array([len(only)] * 9))
        expected = whole_products(queries, corpus)
        np.testing.assert_array_equal(corpus.best_products(queries), expected)
        np.testing.assert_array_equal(packed_products(queries, corpus), expected)


@given(seed=seeds, pages=sizes, dim=st.integers(1, 40), size=st.floats(1e-3, 1e3), dtype=st.sampled_from("efd"))
@settings(max_examples=40, deadline=None)
def test_a_number_is_off_by_at_most_half_a_scale(
    seed: int, pages: list[int], dim: int, size: float, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    floats = [(page * size).astype(dtype) for page in unequal(rng, pages, dim, [np.float64] * len(pages))]
    corpus = quantize_int8(page for page in floats)
    assert corpus.lengths.tolist() == pages
    for index, page in enumerate(floats):
        scale = float(corpus.scales[index])
        differs = np.ptp(page.astype(np.float32), axis=0).any()  # equal vectors are their own mean, and nothing is left
        assert np.abs(corpus.page(index).astype(int)).max() == (PAGE_LEVELS if differs else 0)
        assert np.abs(corpus.dequantize(index) - page.astype(np.float64)).max() <= scale * 0.5001 + size * 1e-6
    values, scales = quantize_queries(floats[0])
    assert np.abs(values * scales[:, None] - floats[0].astype(np.float64)).max() <= scales.max() * 0.5001


@given(seed=seeds, queries=sizes, pages=sizes, dim=st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_scores_are_max_sim_of_the_rounded_numbers(seed: int, queries: list[int], pages: list[int], dim: int) -> None:
    rng = np.random.default_rng(seed)
    asked = unequal(rng, queries, dim, [np.float32] * len(queries))
    corpus = small_int8(unequal(rng, pages, dim, [np.float32] * len(pages)))
    exact = [corpus.page(index) * corpus.scales[index].astype(np.float64) for index in range(len(pages))]
    expected = []
    for query in asked:
        values, scales = quantize_queries(query)
        common = (query.astype(np.float64) @ corpus.centres.astype(np.float64).T).sum(axis=0)
        expected.append(oracle(values * scales[:, None], exact).sum(axis=0) + common)
    scores = max_sim(asked, corpus)
    assert scores.shape == (len(queries), len(pages))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-6, atol=1e-6)  # one rounding to float32
    np.testing.assert_array_equal(max_sim(asked, SmallPacked(corpus)), scores)


@given(seed=seeds, queries=sizes, pages=sizes, dim=st.integers(1, 40), dtype=st.sampled_from("efd"))
@settings(max_examples=40, deadline=None)
def test_packed_floats_score_by_the_definition(
    seed: int, queries: list[int], pages: list[int], dim: int, dtype: str
) -> None:
    rng = np.random.default_rng(seed)
    asked = unequal(rng, queries, dim, [np.float32] * len(queries))
    corpus = [page.astype(dtype) for page in unequal(rng, pages, dim, [np.float64] * len(pages))]
    prepared = SmallPacked(page for page in corpus)
    assert len(prepared) == len(pages)
    expected = [oracle(query, corpus).sum(axis=0) for query in asked]
    np.testing.assert_allclose(max_sim(asked, prepared), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("prepare", [small_int8, SmallPacked, lambda pages: SmallPacked(quantize_int8(pages))])
def test_prepared_pages_take_the_place_of_arrays(prepare: Callable[[Any], PreparedPages]) -> None:
    rng = np.random.default_rng(1)
    pages = unequal(rng, [5, 1, 30, 7, 7, 2] * 4, 16, [np.float32] * 24)
    queries = unequal(rng, [3, 20, 1, 9], 16, [np.float32] * 4)
    prepared = prepare(pages)
    assert (len(prepared), prepared.dim) == (24, 16)
    assert "24 pages" in repr(prepared)
    exact = max_sim(queries, pages)
    np.testing.assert_allclose(limited_max_sim(queries, prepared, SMALL), exact, atol=0.02 * 20)
    assert max_sim(queries[0], prepared).shape == (24,)
    assert max_sim([queries[0]], prepared).shape == (1, 24)
    assert max_sim([], prepared).shape == (0, 24)
    assert max_sim(queries[0], prepare(pages[:1])).shape == (1,)
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda query: max_sim(query, prepared), queries * 5))
    for scores, expected in zip(together, list(max_sim(queries, prepared)) * 5, strict=True):
        np.testing.assert_array_equal(scores, expected)
    with pytest.raises(InputError, match=r"queries\[1\] has dim 8, the pages have dim 16; were all embedded by"):
        max_sim([queries[0], queries[0][:, :8]], prepared)
    with pytest.raises(InputError, match="NaN"):
        max_sim(np.full((2, 16), np.nan), prepared)
    with pytest.raises(InputError, match=r"pages\[1\].*NaN"):
        prepare([pages[0], np.full((2, 16), np.inf)])
    with pytest.raises(InputError, match=r"pages\[1\] has dim 8; were all embedded by the same model"):
        prepare([pages[0], pages[0][:, :8]])
    with pytest.raises(InputError, match="at least one page"):
        prepare([])
    with pytest.raises(InputError, match=r"pages\[0\]: expected an array"):
        prepare([np.ones(3)])


def test_int8_ranks_nearly_as_floats_and_a_rerank_restores_their_order() -> None:
    rng = np.random.default_rng(2)
    topics = unit(rng, 40, 128) + 0.75 * unit(rng, 1, 128)  # a direction that all vectors share, as models' do
    pages = [unit(rng, 60, 128) * 0.4 + topics[rng.choice(40, 3)].repeat(20, axis=0) for _ in range(300)]
    pages = [(page / np.linalg.norm(page, axis=1, keepdims=True)).astype(np.float16) for page in pages]
    small = quantize_int8(pages)
    agreed = []
    for asked in range(60):
        query = unit(rng, 12, 128) * 0.3 + pages[asked][::5].astype(np.float32)
        exact = top_pages(max_sim(query, pages), 10)
        near = top_pages(max_sim(query, small), 20)
        agreed.append(np.isin(exact, near[:10]).mean())
        again = near[top_pages(max_sim(query, [pages[index] for index in near]), 10)]
        np.testing.assert_array_equal(again, exact)
    assert np.mean(agreed) >= 0.985


def test_int8_pages_are_their_four_arrays() -> None:
    rng = np.random.default_rng(3)
    pages = quantize_int8(unequal(rng, [4, 1, 9, 2], 8, [np.float32] * 4))
    assert pages.nbytes == 16 * 8 + 4 * (8 + 4 + 8 * 4)
    query = unit(rng, 5, 8)
    scores = max_sim(query, pages)
    names = ("values", "lengths", "scales", "centres")
    np.testing.assert_array_equal(max_sim(query, Int8Pages(**{name: getattr(pages, name) for name in names})), scores)
    for first, last in ((0, 4), (1, 3), (2, 2), (-1, None), (3, 1)):
        part = pages[first:last]
        np.testing.assert_array_equal(max_sim(query, part), scores[first:last])
        assert part.values.base is not None
    for wrong in (0, slice(None, None, 2)):
        with pytest.raises(TypeError, match="slices"):
            pages[wrong]  # type: ignore[index]


def test_pages_and_queries_of_zeros_and_of_numbers_that_underflow() -> None:
    for value in (0.0, 1e-45):
        pages = quantize_int8([np.full((2, 4), value, np.float32), np.eye(4, dtype=np.float32)])
        assert max_sim(np.eye(4), pages).tolist() == pytest.approx([0.0, 4.0], rel=1e-6)
        assert max_sim(np.full((1, 4), value), pages).tolist() == pytest.approx([0.0, 0.0])
        assert max_sim(np.eye(4), PackedPages(pages)).tolist() == pytest.approx([0.0, 4.0], rel=1e-6)


good = (np.ones((3, 2), np.int8), np.array([1, 2]), np.ones(2, np.float32), np.zeros((2, 2), np.float32))


@pytest.mark.parametrize(
    ("position", "wrong"),
    [
        (0, np.ones((3, 2), np.uint8)),
        (0, np.ones(3, np.int8)),
        (0, np.full((3, 2), -128, np.int8)),
        (1, np.array([1, 1])),
        (1, np.array([0, 3])),
        (1, np.array([1.0, 2.0])),
        (2, np.ones(3)),
        (2, np.array([1.0, np.nan])),
        (2, np.array([1.0, -1.0])),
        (3, np.zeros((2, 3))),
        (3, np.full((2, 2), np.inf)),
    ],
)
def test_arrays_that_do_not_fit_are_refused(position: int, wrong: NDArray[Any]) -> None:
    Int8Pages(*good)
    parts: list[Any] = list(good)
    parts[position] = wrong
    with pytest.raises(InputError, match="Int8Pages: expected int8 values"):
        Int8Pages(*parts)


@given(
    scores=st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.5, float("nan"), float("inf"), -float("inf")]), max_size=30),
    k=st.integers(1, 35),
)
@settings(max_examples=100, deadline=None)
def test_top_pages_are_those_of_a_stable_sort(scores: list[float], k: int) -> None:
    array = np.array(scores, np.float32)
    expected = sorted(range(len(scores)), key=lambda i: (np.isnan(array[i]), 0 if np.isnan(array[i]) else -array[i]))
    assert top_pages(array, k).tolist() == expected[:k]
    assert top_pages(np.stack([array, array]), k).tolist() == [expected[:k]] * 2


@pytest.mark.parametrize("k", [1, 40, 500, 2000])
def test_top_pages_rank_many_equal_scores_in_the_order_of_the_pages(k: int) -> None:
    scores = np.random.default_rng(7).integers(0, 3, 2000).astype(np.float32)  # more ties than an insertion sort takes
    np.testing.assert_array_equal(top_pages(scores, k), np.argsort(-scores, kind="stable")[:k])


def test_top_pages_refuses_invalid_arguments() -> None:
    with pytest.raises(ConfigurationError, match="k must be a whole number of at least 1, got 0"):
        top_pages(np.ones(3), 0)
    with pytest.raises(InputError, match="top_pages"):
        top_pages(np.float32(1), 1)


def _score_in_child(pages: PreparedPages, answers: Any) -> None:
    answers.put(max_sim(np.eye(4, dtype=np.float32), pages))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("small", [False, True])
def test_a_forked_child_scores_packed_pages_while_the_parent_does(small: bool) -> None:
    rng = np.random.default_rng(6)
    pages = unequal(rng, [800] * 20, 4, [np.float32] * 20)
    prepared = SmallPacked(quantize_int8(pages) if small else pages)
    expected = max_sim(np.eye(4, dtype=np.float32), prepared)
    context = multiprocessing.get_context("fork")
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            prepared.best_matches(np.eye(4, dtype=np.float32), threads=1)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(4):
            answers = context.SimpleQueue()
            child = context.Process(target=_score_in_child, args=(prepared, answers))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            np.testing.assert_array_equal(answers.get(), expected)
    finally:
        over.set()
        thread.join()


@pytest.mark.parametrize(
    "lengths", [[16] * 200, [16] * 70 + [17] + [16] * 3, [1024] * 3, [1030, 1030, 2, 2], [1, 1, 1]]
)
def test_packed_neighbours_of_one_length_share_a_product(lengths: list[int]) -> None:
    rng = np.random.default_rng(3)
    pages = unequal(rng, lengths, 24, [np.float32] * len(lengths))
    [query] = unequal(rng, [20], 24, [np.float32])
    small = quantize_int8(pages)
    np.testing.assert_array_equal(max_sim(query, PackedPages(small)), max_sim(query, small))
    np.testing.assert_allclose(max_sim(query, PackedPages(pages)), max_sim(query, pages), rtol=1e-5)
