"""First stages are smaller than their pages and still find them."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.explain import PageGrid
from colpali_integrations.stores.engine import FIRST, FULL
from colpali_integrations.stores.first_stage import first_stage
from colpali_integrations.stores.settings import Settings
from tests.stores.stored_models import made_up

DIM = 16
MODEL = made_up("fake", family="paligemma", dim=DIM, identity="0" * 16, best_match=2.0, version="0.1")


def clusters(seed: int, *, spread: float = 0.05) -> NDArray[np.float32]:
    """A page of 4 x 8 cells in which each row says one thing, and two vectors of the prompt."""
    random = np.random.default_rng(seed)
    rows = np.repeat(random.standard_normal((4, DIM)), 8, axis=0)
    vectors = np.concatenate([rows, random.standard_normal((2, DIM))]) + spread * random.standard_normal((34, DIM))
    unit: NDArray[np.float32] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


GRID = PageGrid(4, 8, np.array([*range(32), -1, -1]))


@pytest.mark.parametrize("name", ["ward", "rows", "muvera"])
def test_the_right_page_comes_first(name: str) -> None:
    stage = first_stage(Settings(model=MODEL, first_stage=name, first_vectors=6))  # type: ignore[arg-type]
    assert stage is not None
    pages = [clusters(seed) for seed in range(20)]
    less = [stage.page(page, GRID) for page in pages]
    for number in range(20):
        asked = pages[number][[0, 9, 17]]
        query = stage.query(asked)
        if name == "muvera":
            scores = np.stack(less) @ query
        else:
            scores = max_sim(query, less)
            assert all(len(one) == 6 for one in less)
            np.testing.assert_allclose(np.linalg.norm(less[number], axis=1), 1, atol=1e-5)
        assert scores.argmax() == number


def test_means_of_rows_by_hand() -> None:
    stage = first_stage(Settings(model=MODEL, first_stage="rows"))
    assert stage is not None
    unit = np.eye(DIM, dtype=np.float32)
    grid = PageGrid(2, 2, np.array([3, 0, -1, 1]))  # in any order, a cell without a vector
    np.testing.assert_allclose(
        stage.page(unit[:4], grid), [(unit[1] + unit[3]) / np.sqrt(2), unit[0], unit[2]], atol=1e-6
    )
    assert stage.page(unit[:4], None) is not None, "a text has no rows"
    with pytest.raises(StoreError, match="grid of 4"):
        stage.page(unit[:3], grid)


def test_lengths_that_carry_weights_stay() -> None:
    weighted = Settings(model=made_up("w", dim=DIM, identity="1", unit_length=False), first_stage="rows")
    stage = first_stage(weighted)
    assert stage is not None
    vectors = 3 * np.eye(DIM, dtype=np.float32)[:2]
    np.testing.assert_allclose(stage.page(vectors, PageGrid(1, 2, np.arange(2))), [vectors.mean(axis=0)])


def test_settings_round_trip_and_are_compared() -> None:
    made = Settings(model=MODEL, first_stage="muvera", language=None)
    assert Settings.from_dict(made.to_dict(), where="x") == made
    assert Settings.from_dict({**made.to_dict(), "later": 1}, where="x") == made
    made.require(made, where="x")
    made.require(Settings(model=MODEL, first_stage="muvera", language=None, first_vectors=5), where="x")
    with pytest.raises(ConfigurationError, match=r"first_stage='muvera'.*first_stage='exact'"):
        made.require(Settings(model=MODEL, language=None), where="x")
    with pytest.raises(FingerprintError):
        made.require(Settings(model=made_up("o", family="paligemma", dim=DIM, identity="2")), where="x")
    for wrong in ({"first_stage": "fast"}, {"first_vectors": 0}):
        with pytest.raises(ConfigurationError):
            Settings(model=MODEL, **wrong)
    damaged = made.to_dict()
    del damaged["model"]["dim"]
    with pytest.raises(StoreError, match="damaged"):
        Settings.from_dict(damaged, where="x")


def test_the_vectors_of_a_point() -> None:
    assert set(Settings(model=MODEL).schema) == {FULL}
    assert Settings(model=MODEL, first_stage="int8").schema[FULL].quantization == "int8"
    assert Settings(model=MODEL, first_stage="ward").schema[FIRST].multi
    assert not Settings(model=MODEL, first_stage="muvera").schema[FIRST].multi
