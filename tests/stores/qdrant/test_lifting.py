"""The number that a single vector gets for the sake of its graph: no score, and no vector that is read, changes."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import models

from colpali_integrations.scoring.muvera import Muvera
from colpali_integrations.stores.engine import FIRST, FULL, Point, Search, VectorSpec
from colpali_integrations.stores.qdrant.lifting import Lifting
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.qdrant.test_server import MANIFEST

SPEC = VectorSpec(dim=6, multi=False, longest=3.0)
SCHEMA = {FULL: VectorSpec(dim=4), FIRST: SPEC}


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


def lifted(vector: NDArray[np.float32]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = Lifting(SCHEMA, {FIRST: 7}).point(Point("1", {FIRST: vector})).vectors[FIRST]
    return made


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 3.0))
@settings(max_examples=50, deadline=None)
def test_all_points_have_one_length_and_all_products_stay(seed: int, length: float) -> None:
    vector, query = np.random.default_rng(seed).standard_normal((2, 6)).astype(np.float32)
    vector *= np.float32(length * 0.9999) / np.linalg.norm(vector)
    made = lifted(vector)
    assert np.linalg.norm(made) == pytest.approx(3.0, rel=1e-5)
    np.testing.assert_array_equal(made[:-1], vector)
    asked = Lifting(SCHEMA, {FIRST: 7}).search(Search(query=query, using=FIRST, limit=1)).query
    assert isinstance(asked, np.ndarray) and asked[-1] == 0
    assert float(asked @ made) == pytest.approx(float(query @ vector), rel=1e-6, abs=1e-6)


def test_a_longer_vector_than_expected_is_kept() -> None:
    assert lifted(np.full(6, 9, np.float32)).tolist() == [9.0] * 6 + [0.0]


def test_encodings_are_no_longer_than_muvera_says() -> None:
    muvera = Muvera(16, k_sim=3, d_proj=8, repetitions=4)
    for seed in range(20):
        page = np.random.default_rng(seed).standard_normal((50, 16))
        page /= np.linalg.norm(page, axis=1, keepdims=True)
        assert 0.3 * muvera.longest < np.linalg.norm(muvera.document(page)) < muvera.longest


@pytest.mark.parametrize("is_old", [False, True], ids=["new", "of an earlier version"])
def test_collections_give_the_same_scores(server: StandIn, is_old: bool) -> None:
    name, client = f"lifted-{is_old}", connect(server.url)
    old = {FULL: SCHEMA[FULL], FIRST: VectorSpec(dim=6, multi=False)}
    if is_old:
        QdrantServerEngine(client, name, schema=old, manifest=MANIFEST).close()
    engine = QdrantServerEngine(client, name, schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    params = server.client.get_collection(name).config.params.vectors
    assert isinstance(params, dict) and isinstance(params[FIRST], models.VectorParams)
    assert params[FIRST].size == (6 if is_old else 7)
    vectors = np.random.default_rng(0).standard_normal((9, 6)).astype(np.float32)
    full = np.random.default_rng(1).standard_normal((9, 2, 4)).astype(np.float16)
    engine.upsert(
        [
            Point(str(number), {FULL: full[number], FIRST: vectors[number]}, None, {"id": str(number)})
            for number in range(9)
        ]
    )
    kept = engine.vectors(["3"], FIRST)[0]
    assert kept is not None
    np.testing.assert_array_equal(kept, vectors[3])
    query = np.random.default_rng(2).standard_normal(6).astype(np.float32)
    [found] = engine.search([Search(query=query, using=FIRST, limit=9)])
    expected = vectors @ query
    assert [hit.id for hit in found] == [str(number) for number in np.argsort(-expected)]
    np.testing.assert_allclose([hit.score for hit in found], np.sort(expected)[::-1], rtol=1e-5)
    inner = Search(query=query, using=FIRST, limit=3)
    asked = full[0].astype(np.float32)
    [both] = engine.search([Search(query=asked, limit=9, prefetch=inner)])
    assert {hit.id for hit in both} == {hit.id for hit in found[:3]}
    server.client.delete_collection(name)
    engine.close()
