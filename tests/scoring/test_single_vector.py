from __future__ import annotations

import json

import numpy as np
import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import InputError
from colpali_integrations.scoring import mean_pool
from colpali_integrations.scoring.pooling import single_vector


@pytest.mark.parametrize("shape", [(1, 4), (7, 128), (1030, 128)])
def test_it_is_the_unit_mean_as_python_floats(shape: tuple[int, int]) -> None:
    vectors = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    pooled = single_vector(vectors)
    mean = vectors.astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(pooled, mean / np.linalg.norm(mean), atol=1e-6)
    assert pooled == mean_pool(vectors).tolist()
    assert json.loads(json.dumps(pooled)) == pooled


def test_zero_becomes_the_last_axis() -> None:
    assert single_vector(np.zeros((3, 4), dtype=np.float32)) == [0, 0, 0, 1]


def test_a_blank_page_is_less_like_a_query_than_a_page_that_matches(coltiny: ColPali) -> None:
    # A word without a sense, of which the model knows the spelling alone.
    query = np.array(single_vector(next(coltiny.embed_queries("xyzzyq"))))
    # By ColTiny's construction: a word is (w u, -hinge w) with hinge 0.3, so the cosine is -0.3 / sqrt(1 + 0.3^2).
    hinge = coltiny.family.config.hinge  # type: ignore[attr-defined]
    assert query @ single_vector(np.zeros((1, coltiny.dim))) == pytest.approx(-hinge / np.hypot(1, hinge), abs=1e-3)


def test_invalid_vectors_are_refused() -> None:
    with pytest.raises(InputError):
        single_vector(np.ones(4))
