"""MMR against a slow implementation of its definition, and the properties of page similarity."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.mmr import _Page, diverse, mmr_select, page_similarity

SEEDS = st.integers(0, 2**32 - 1)


def page(rng: np.random.Generator, n: int, dim: int = 8) -> NDArray[np.float32]:
    return rng.normal(size=(n, dim)).astype(np.float32)


def by_definition(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Loops over pairs, in float64."""

    def found_again(a: NDArray[Any], b: NDArray[Any]) -> float:
        total = weights = 0.0
        for x in a.astype(float):
            cosines = [float(x @ y) / (np.linalg.norm(x) * np.linalg.norm(y)) for y in b.astype(float)]
            total += np.linalg.norm(x) * max(0.0, *cosines)
            weights += np.linalg.norm(x)
        return float(total / weights)

    return (found_again(one, other) + found_again(other, one)) / 2


@given(SEEDS, st.integers(1, 6), st.integers(1, 6))
def test_page_similarity_is_its_formula(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = page(rng, n), page(rng, m)
    assert page_similarity(one, other) == pytest.approx(by_definition(one, other), abs=1e-5)


@given(SEEDS, st.integers(1, 300), st.integers(1, 300))
def test_page_similarity_is_symmetric_bounded_and_one_for_the_same(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = page(rng, n), page(rng, m)
    assert 0 <= page_similarity(one, other) <= 1
    assert page_similarity(one, other) == pytest.approx(page_similarity(other, one), abs=1e-6)
    assert page_similarity(one, one) == pytest.approx(1, abs=1e-5)
    assert page_similarity(one * 7, other) == pytest.approx(page_similarity(one, other), abs=1e-5)


@given(SEEDS, st.integers(1, 20))
def test_repeated_vectors_are_the_same_page_and_opposite_ones_share_nothing(seed: int, n: int) -> None:
    one = page(np.random.default_rng(seed), n)
    assert page_similarity(one, np.concatenate([one, one])) == pytest.approx(1, abs=1e-5)
    assert page_similarity(np.abs(one), -np.abs(one)) == 0


def test_zero_vectors_have_no_weight() -> None:
    one, nothing = np.array([[1.0, 0.0]]), np.zeros((1, 2))
    assert page_similarity(np.concatenate([one, nothing]), one) == 1
    assert page_similarity(nothing, one) == page_similarity(nothing, nothing) == 0


def test_pooling_of_large_pages_keeps_the_order_of_similarities() -> None:
    """Pages of 1030 vectors that vary smoothly, as patches in a row do: some share half of what they show."""
    rng = np.random.default_rng(0)
    parts = [np.repeat(page(rng, 35, 128), 15, axis=0)[:515] + 0.3 * page(rng, 515, 128) for _ in range(6)]
    pages = [np.concatenate([parts[i], parts[j]]) for i, j in [(0, 1), (0, 2), (3, 4), (1, 0), (5, 4)]]
    pooled = np.array([[page_similarity(a, b) for b in pages] for a in pages])
    names = ("01", "02", "34", "10", "54")
    share = np.array([[len({*one} & {*other}) for other in names] for one in names])
    for some, more in ((0, 1), (1, 2)):
        assert pooled[share == some].max() < pooled[share == more].min()


@given(SEEDS, st.integers(1, 6), st.integers(1, 8), st.floats(0, 1))
def test_each_choice_is_the_best_by_the_formula(seed: int, n: int, k: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.random(n).tolist()
    vectors = [page(rng, int(rng.integers(1, 5))) for _ in range(n)]
    found = mmr_select(relevance, vectors, k, lambda_mult=weight)
    for place, chosen in enumerate(found):
        gains = {
            index: weight * relevance[index]
            - (1 - weight) * max(by_definition(vectors[index], vectors[other]) for other in found[:place])
            if place
            else relevance[index]
            for index in range(n)
            if index not in found[:place]
        }
        assert gains[chosen] >= max(gains.values()) - 1e-5


@given(SEEDS, st.integers(0, 8), st.integers(1, 10), st.floats(0, 1))
def test_some_indices_each_once_the_most_relevant_first(seed: int, n: int, k: int, weight: float) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.random(n).tolist()
    found = mmr_select(relevance, [page(rng, 3) for _ in range(n)], k, lambda_mult=weight)
    assert len(found) == len(set(found)) == min(n, k)
    assert found[:1] == ([int(np.argmax(relevance))] if n else [])


@given(SEEDS, st.integers(1, 8))
def test_relevance_alone_is_the_ranking(seed: int, n: int) -> None:
    rng = np.random.default_rng(seed)
    relevance = rng.random(n).tolist()
    expected = sorted(range(n), key=lambda index: -relevance[index])
    assert mmr_select(relevance, [page(rng, 2) for _ in range(n)], n, lambda_mult=1) == expected


@given(SEEDS, st.integers(1, 1100))
@settings(max_examples=20, deadline=None)
def test_large_pages_are_pooled_and_stay_similar_to_themselves(seed: int, rows: int) -> None:
    """A hundred pages of ColPali's 1030 vectors would otherwise be compared by ten billion products."""
    pooled = _Page(page(np.random.default_rng(seed), rows, 16))
    assert min(rows, 64) <= len(pooled.weights) <= 128
    assert pooled.weights.sum() == pytest.approx(1, abs=1e-4)
    assert pooled.similarity(pooled) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"k": 0}, ConfigurationError, "k must be a whole number of at least 1"),
        ({"lambda_mult": 1.1}, ConfigurationError, "from 0 to 1, got 1.1"),
        ({"lambda_mult": float("nan")}, ConfigurationError, "lambda_mult"),
        ({"relevance": [1.0]}, InputError, "1 relevances but 2"),
        ({"vectors": [np.ones((1, 2)), np.ones((1, 3))]}, InputError, "dims 2 and 3"),
        ({"vectors": [np.ones(2), np.ones(2)]}, InputError, "n_vectors, dim"),
    ],
)
def test_invalid_arguments_are_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"relevance": [1.0, 0.5], "vectors": [np.ones((1, 2))] * 2, "k": 2, **arguments}
    with pytest.raises(error, match=message):
        mmr_select(**given)


def test_hits_of_a_store_are_chosen_without_those_removed_meanwhile() -> None:
    unit = np.eye(128, dtype=np.float32)
    with MultiVectorStore.open(model="coltiny") as store:
        vectors = {"first": unit[:2], "same": unit[:2], "other": unit[1:3]}
        store.add((Entry(id=name), array) for name, array in vectors.items())
        hits = store.search(unit[:2])
        chosen = diverse(store, hits, 2, lambda_mult=0.3)
        assert [hit.id for hit in chosen] == [hits[0].id, "other"]
        store.delete([hits[0].id])
        assert hits[0].id not in {hit.id for hit in diverse(store, hits, 3, lambda_mult=0.3)}
