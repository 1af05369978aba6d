"""The benchmark of fusions: its rankings are those of a store, and its choice is made without the questions judged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.fusion import by_sight, by_words, crossed, fused, gains, rankings, z_scores
from benchmarks.halves import Scores, better_sight, bm25, without_text
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.stores import Entry, MultiVectorStore, SearchOptions
from tests.stores.backends import DIM, MODEL

TEXTS = ["the blue tide", "low tide at six", "", "a harbour", "tide tables of the harbour", "", "the end", "six boats"]
ASKED = ["tide at the harbour", "boats", "nothing whatever"]


def vectors(seed: int, count: int) -> list[Any]:
    random = np.random.default_rng(seed)
    return [random.normal(size=(3, DIM)).astype(np.float32) for _ in range(count)]


@pytest.fixture
def scores() -> Scores:
    sight = max_sim(vectors(1, len(ASKED)), vectors(2, len(TEXTS)))
    relevant = np.zeros(sight.shape, bool)
    relevant[[0, 1, 2], [4, 7, 2]] = True
    labels = np.array(["dev"] * len(ASKED))
    textless = np.array([not text for text in TEXTS])
    return Scores("tiny", sight, bm25(TEXTS, ASKED), textless, relevant, labels, labels, labels)


@pytest.mark.parametrize("way", [True, "rrf", 0.3])
def test_rankings_are_those_of_a_store(scores: Scores, way: Any) -> None:
    store = MultiVectorStore.open(model=MODEL)
    entries = (Entry(id=str(number), text=text) for number, text in enumerate(TEXTS))
    store.add(zip(entries, vectors(2, len(TEXTS)), strict=True))
    found = store.search_batch(vectors(1, len(ASKED)), SearchOptions(hybrid=way), texts=ASKED)
    expected = [[int(hit.id) for hit in hits] for hits in found]
    assert rankings(scores, fused(None if way is True else way)) == expected


def test_halves_alone(scores: Scores) -> None:
    assert [ranking[0] for ranking in rankings(scores, by_sight)] == scores.sight.argmax(axis=1).tolist()
    assert rankings(scores, by_words)[1:] == [[7], []]
    assert gains(scores, rankings(scores, by_words))[1] == 1
    blind = without_text(scores)
    assert rankings(blind, fused(None)) == rankings(blind, z_scores(1)) == rankings(blind, by_sight)


def test_a_lifted_half_finds_what_answers(scores: Scores) -> None:
    for own_mistakes in (False, True):
        lifted = better_sight(scores, 20.0, own_mistakes=own_mistakes)
        assert gains(lifted, rankings(lifted, by_sight)).tolist() == [1, 1, 1]


def test_cross_validation_judges_no_document_by_itself() -> None:
    documents = np.array(["a", "b", "c", "d", "e"])
    # "high" is the best on all documents but by one only: without that one, "low" is chosen, and judged on it.
    found = {0.1: np.array([0.5, 0.5, 0.5, 0.5, 0.0]), 0.9: np.array([0.4, 0.4, 0.4, 0.4, 1.0])}
    assert crossed(found, documents) == pytest.approx((4 * 0.4 + 0.0) / 5)
