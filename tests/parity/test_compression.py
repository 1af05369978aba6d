"""Pooling and scoring equal colpali-engine's."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.scoring import hierarchical_pool

from .conftest import FIXTURES

FOLDER = FIXTURES / "compression"
# scipy warns that the observations look like a distance matrix: the published method takes one for the other.
pytestmark = pytest.mark.filterwarnings("ignore:The symmetric non-negative hollow observation matrix")


def _arrays(name: str) -> dict[str, NDArray[np.float32]]:
    with np.load(FOLDER / name) as arrays:
        return dict(arrays)


def _cases() -> Iterator[str]:
    with np.load(FOLDER / "golden.npz") as arrays:
        yield from (name.removeprefix("pooled/") for name in arrays if name.startswith("pooled/"))


@pytest.mark.parametrize("case", list(_cases()))
def test_hierarchical_pool(case: str) -> None:
    size, factor = case.split("/")
    arrays = _arrays("golden.npz")
    pooled = hierarchical_pool(arrays[f"input/{size}"], pool_factor=int(factor))
    wanted = arrays[f"pooled/{case}"]
    assert pooled.dtype == np.float32
    assert pooled.shape == wanted.shape
    # The order of the clusters counts too; a mean of float32 may differ in its last bit.
    np.testing.assert_allclose(pooled, wanted, rtol=0, atol=1e-6)


def test_max_sim_of_single_pairs() -> None:
    scores = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    queries, pages = _arrays("queries.npz"), _arrays("golden.npz")
    pairs = [name.split("/") for name in scores if "/" in name]
    for query, page in pairs:
        found = max_sim(queries[f"query/{query}"], pages[f"input/{page}"])
        assert float(found) == pytest.approx(scores[f"{query}/{page}"], abs=1e-5)
    # All at once: ragged, and the same scores, which zero padding would not give.
    sizes = sorted({int(page) for _, page in pairs})
    ragged = max_sim([queries["query/4"], queries["query/9"]], [pages[f"input/{size}"] for size in sizes])
    for row, query in enumerate(("4", "9")):
        wanted = [scores[f"{query}/{size}"] for size in sizes]
        np.testing.assert_allclose(ragged[row], wanted, rtol=0, atol=1e-5)


def test_a_negative_best_match_stays_negative() -> None:
    scores = json.loads((FOLDER / "scores.json").read_text(encoding="utf-8"))
    one = _arrays("queries.npz")["query/opposite"]
    assert scores["opposite"] == pytest.approx(-1, abs=1e-6)
    together = max_sim([one], [-one, np.repeat(one, 5, axis=0)])
    np.testing.assert_allclose(together, [[-1, 1]], atol=1e-6)
