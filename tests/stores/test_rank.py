"""`rank_batch` scores as `search_batch` does, over every engine, also from scores that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from colpali_integrations.stores import Entry, SearchOptions
from tests.stores.backends import DIM, Open

WORDS = ["harbour", "crane", "lifts", "boxes", "ebb", "flood", "quay", "tug", "buoy", "mast"]
OPTIONS: list[dict[str, Any]] = [
    {"mode": "exact"},
    {"mode": "two_stage", "oversampling": 2},
    {"mode": "exact", "hybrid": True, "oversampling": 1},
    {"mode": "exact", "hybrid": 0.4, "oversampling": 2},
    {"mode": "two_stage", "hybrid": 0.4, "oversampling": 2},
    {"mode": "exact", "where": {"even": True}},
    {"mode": "exact", "hybrid": 0.4, "oversampling": 1, "where": {"even": True}},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ranks_are_those_of_the_search(options: dict[str, Any], open_store: Open) -> None:
    random = np.random.default_rng(1)
    store = open_store(first_stage="ward", first_vectors=2)
    texts = {str(n): " ".join(random.choice(WORDS, 4)) if n % 5 else "" for n in range(30)}
    entries = [Entry(id=id_, text=text, metadata={"even": int(id_) % 2 == 0}) for id_, text in texts.items()]
    store.add((entry, random.standard_normal((3, DIM))) for entry in entries)
    queries, asked = list(random.standard_normal((6, 2, DIM))), [" ".join(random.choice(WORDS, 2)) for _ in range(6)]
    textless = [id_ for id_, text in texts.items() if not text]
    found = store.search_batch(queries, SearchOptions(k=5, **options), texts=asked)
    plain = {name: value for name, value in options.items() if name == "where"}
    exact = store.rank_batch(queries, SearchOptions(k=5, mode="exact", **plain), depth=30)
    assert all(len(scores) == (15 if plain else 30) for scores in exact)
    for known in (None, exact):
        ranked = store.rank_batch(
            queries, SearchOptions(k=5, **options), texts=asked, depth=30, textless=textless, exact=known
        )
        for hits, scores in zip(found, ranked, strict=True):
            best = sorted(scores.values(), reverse=True)[:5]
            assert [hit.score for hit in hits] == pytest.approx(best, abs=1e-5)
            assert [scores[hit.id] for hit in hits] == pytest.approx([hit.score for hit in hits], abs=1e-5)
