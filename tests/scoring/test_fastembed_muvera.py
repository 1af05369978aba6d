"""MUVERA as fastembed computes it: against fastembed itself, on the same arguments."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fastembed.postprocess.muvera import Muvera as Peer

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.fastembed_muvera import FastembedMuvera

ARGUMENTS: list[dict[str, int]] = [
    {},
    {"k_sim": 6, "dim_proj": 32},
    {"k_sim": 3, "dim_proj": 128, "r_reps": 4, "random_seed": 7},
    {"k_sim": 0, "dim_proj": 8, "random_seed": 0},
]


@pytest.mark.parametrize("arguments", ARGUMENTS)
@pytest.mark.parametrize("n", [1, 20, 500])
def test_encodings_are_fastembed_s(arguments: dict[str, int], n: int) -> None:
    ours, peer = FastembedMuvera(128, **arguments), Peer(128, **arguments)
    assert ours.size == peer.embedding_size
    vectors = np.random.default_rng(n).normal(size=(n, 128)).astype(np.float32)
    vectors[n // 2 : n // 2 + 2] = 0  # as padding may be
    pairs = [
        (ours.document(vectors), peer.process_document(vectors)),
        (ours.query(vectors), peer.process_query(vectors)),
    ]
    for made, expected in pairs:
        assert made.dtype == np.float32
        np.testing.assert_allclose(made, expected, atol=1e-6 * max(1.0, float(np.abs(expected).max())))


def test_another_seed_makes_other_encodings() -> None:
    vectors = np.random.default_rng(1).normal(size=(40, 16)).astype(np.float32)
    one, other = (FastembedMuvera(16, dim_proj=4, random_seed=seed).document(vectors) for seed in (42, 43))
    assert abs(one @ other) < 0.2 * np.linalg.norm(one) * np.linalg.norm(other)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"dim_proj": 17}, "dim_proj 1 to dim"), ({"r_reps": 0}, "r_reps=0"), ({"random_seed": -1}, "random_seed must")],
)
def test_wrong_arguments_are_named_as_fastembed_names_them(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        FastembedMuvera(16, **wrong)
