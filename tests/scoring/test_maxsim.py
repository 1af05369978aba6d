"""MaxSim against its definition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations import ColPali, max_sim, pdf_pages
from colpali_integrations.errors import InputError
from colpali_integrations.explain import PageEmbedding, PageGrid
from colpali_integrations.models import find_model
from colpali_integrations.scoring.maxsim import relevance


def by_definition(query: NDArray[Any], page: NDArray[Any]) -> float:
    return sum(max(float(np.dot(q.astype(np.float64), p.astype(np.float64))) for p in page) for q in query)


def multi_vectors(rng: np.random.Generator, sizes: list[int], dim: int) -> list[NDArray[np.float32]]:
    return [rng.normal(size=(size, dim)).astype(np.float32) for size in sizes]


sizes = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(seed=st.integers(0, 2**32 - 1), queries=sizes, pages=sizes, dim=st.integers(1, 20))
@settings(max_examples=80, deadline=None)
def test_ragged_inputs_score_by_the_definition(seed: int, queries: list[int], pages: list[int], dim: int) -> None:
    rng = np.random.default_rng(seed)
    many, corpus = multi_vectors(rng, queries, dim), multi_vectors(rng, pages, dim)
    expected = [[by_definition(query, page) for page in corpus] for query in many]
    scores = max_sim(many, corpus)
    assert scores.shape == (len(many), len(corpus))
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected, rtol=1e-4, atol=1e-4)


def test_a_negative_best_match_stays_negative_beside_a_longer_page() -> None:
    query = np.array([[1.0, 0.0]])
    short, long = np.array([[-1.0, 0.0]]), np.array([[0.5, 0.0], [0.0, 1.0], [0.2, 0.0]])
    assert max_sim(query, [short, long]).tolist() == [-1.0, 0.5]


def test_many_pages_cross_the_blocks_without_a_seam() -> None:
    rng = np.random.default_rng(0)
    pages = multi_vectors(rng, [1030, 1, 9000, 700, 8192, 3] * 3, 16)
    [query] = multi_vectors(rng, [20], 16)
    alone = [float(max_sim(query, page)) for page in pages]
    np.testing.assert_allclose(max_sim(query, pages), alone, rtol=1e-5)


def test_shapes_follow_the_inputs() -> None:
    one = np.ones((2, 3), np.float32)
    assert max_sim(one, one).shape == ()
    assert max_sim(one, [one, one]).shape == (2,)
    assert max_sim([one], one).shape == (1,)
    assert max_sim([one, one], [one]).shape == (2, 1)
    assert max_sim(one, np.stack([one, one, one])).shape == (3,)
    assert max_sim(one, []).shape == (0,)
    assert max_sim([], [one]).shape == (0, 1)


def test_any_iterable_of_arrays_is_accepted() -> None:
    query, pages = np.eye(2), [np.eye(2), -np.eye(2)]
    expected = max_sim([query], pages)
    np.testing.assert_array_equal(max_sim(iter([query]), (page for page in pages)), expected)
    np.testing.assert_array_equal(max_sim(query, iter(pages)), expected[0])
    np.testing.assert_array_equal(max_sim(np.stack([query]), np.stack(pages)), expected)
    assert max_sim(iter([]), pages).shape == (0, 2)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("a question", "queries: expected an array .* got str; ColPali.embed_query"),
        (3, "queries: expected .* got int"),
        ([PageEmbedding(np.eye(2, dtype=np.float32), PageGrid(1, 2, np.arange(2)))], r"pass its \.vectors"),
        (iter([np.eye(2), np.ones(2)]), r"queries\[1\]: expected"),
    ],
)
def test_other_types_are_named_in_the_error(wrong: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        max_sim(wrong, np.eye(2))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8])
def test_other_number_types_are_converted(dtype: Any) -> None:
    query = np.array([[1, 0], [0, 1]], dtype)
    assert float(max_sim(query, np.array([[3, 4], [5, 2]], dtype))) == 9.0


def test_the_longest_row_wins_by_length_too() -> None:
    assert float(max_sim(np.array([[2.0, 0.0]]), np.array([[0.9, 0.0], [3.0, 0.0]]))) == 6.0


def test_different_dims_are_refused_with_both_named() -> None:
    with pytest.raises(
        InputError, match=r"queries\[0\] has dim 2, pages\[1\] has dim 3; were all embedded by the same"
    ):
        max_sim(np.ones((1, 2)), [np.ones((1, 2)), np.ones((4, 3))])


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones((0, 3)), np.ones((2, 0)), np.array([["a"]]), [[]]])
def test_other_shapes_than_a_multi_vector_s_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"pages\[0\]: expected an array \(n_vectors, dim\)"):
        max_sim(np.ones((1, 3)), [wrong])


@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 9), best_match=st.floats(0.1, 5))
@settings(max_examples=60, deadline=None)
def test_relevance_is_the_part_of_the_highest_possible(seed: int, n: int, best_match: float) -> None:
    rng = np.random.default_rng(seed)
    query = rng.normal(size=(n, 4)).astype(np.float32)
    lengths = np.linalg.norm(query.astype(np.float64), axis=1)
    # The page that has the best possible match for each query vector has all of it.
    perfect = query / lengths[:, None] * best_match
    [page] = multi_vectors(rng, [6], 4)
    pages = [perfect, page / np.linalg.norm(page, axis=1).max() * best_match]
    scores = max_sim(query, pages)
    found = relevance(scores, query, best_match=best_match)
    assert found[0] == pytest.approx(1, abs=1e-5)
    assert ((found >= 0) & (found <= 1)).all()
    assert found[1] == pytest.approx(max(0.0, scores[1] / (best_match * lengths.sum())), abs=1e-9)
    assert relevance(float(scores[1]), query, best_match=best_match) == pytest.approx(found[1])
    assert relevance(1.0, query, best_match=10**30) < 1e-29  # an integer of more than 64 bits


def test_relevance_of_unit_vectors_is_the_mean_best_cosine() -> None:
    query = np.eye(4, dtype=np.float16)
    assert relevance(3.0, query) == 0.75
    assert isinstance(relevance(np.float32(3), query), float)
    assert relevance(np.array([[4.2, -1.0]]), query).tolist() == [[1.0, 0.0]]
    assert relevance(np.array([], np.float32), query).shape == (0,)
    assert relevance(1.0, np.zeros((2, 4))) == 0.0


@pytest.mark.parametrize("best_match", [0.0, -1.0, float("nan"), float("inf"), 10**400])
def test_no_relevance_of_an_impossible_bound(best_match: float) -> None:
    with pytest.raises(InputError, match="best_match"):
        relevance(1.0, np.eye(2), best_match=best_match)
    with pytest.raises(InputError, match="query_vectors"):
        relevance(1.0, np.ones(3))


def test_coltiny_s_scores_stay_below_its_best_match(coltiny: ColPali) -> None:
    """On real pages, where a word that is printed on a page over and over comes closest."""
    pdf = Path(__file__).parents[2] / "demo" / "pdfs" / "hcl-colors.pdf"
    pages = list(coltiny.embed_images(pdf_pages(pdf, dpi=100, pages=[1, 2, 3, 12])))
    often = "color " * 60 + "palettes hcl function"
    texts = ["color", "hcl colors", often, "What is the postal address in Innsbruck?", "mitochondria", "東京"]
    best = find_model("coltiny").best_match
    for text, query in zip(texts, coltiny.embed_queries(texts), strict=True):
        scores = max_sim(query, pages)
        assert (scores <= best * np.linalg.norm(query, axis=1).sum()).all()
        assert scores.max() <= np.linalg.norm(np.concatenate(pages), axis=1).max() * np.linalg.norm(query, axis=1).sum()
        found = relevance(scores, query, best_match=best)
        assert ((found >= 0) & (found < 1)).all()
        if text in ("color", "hcl colors"):
            assert found.max() > 0.3
        if text in ("mitochondria", "東京"):
            assert found.max() < 0.1
