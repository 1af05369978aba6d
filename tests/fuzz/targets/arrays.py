"""Targets that take arrays."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.scoring import (
    PackedPages,
    grid_pool,
    hierarchical_pool,
    max_sim,
    mean_pool,
    quantize_int8,
    top_pages,
    ward_pool,
)
from colpali_integrations.scoring.maxsim import relevance
from tests.fuzz.choices import Choices
from tests.fuzz.engine import Target

_TYPES = (
    "float32",
    "float32",
    "float32",
    "float16",
    "float64",
    "int8",
    "uint8",
    "int64",
    "bool",
    "complex64",
    "object",
)
_VALUES = (0.0, 1.0, -1.0, 1e-45, 3e38, -3e38, 70000.0, float("nan"), float("inf"), float("-inf"))


def _array(choices: Choices) -> NDArray[Any]:
    dims = (1, 2, 3, 2, 2, 2, 2, 0)[choices.byte() % 8]
    shape = [choices.byte() % 6 for _ in range(dims)]
    if dims == 2 and choices.byte() % 4:
        shape[1] = 4
    array = np.random.default_rng(choices.byte()).standard_normal(shape)
    if array.size and choices.byte() % 3 == 0:
        array.flat[choices.below(array.size)] = choices.pick(_VALUES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of numpy, about values beyond the type
        array = array.astype(choices.pick(_TYPES))
    order = choices.byte() % 4
    return array[::-1] if order == 1 and dims else array.T if order == 2 else array


def _pages(choices: Choices) -> Any:
    if choices.byte() % 16 == 0:
        return choices.value(2)
    return [_array(choices) for _ in range(choices.byte() % 5)]


def arrays(data: bytes) -> None:
    """MaxSim, prepared pages, pools and rankings of arrays of any shape, type and value."""
    choices = Choices(data)
    kind = choices.byte() % 8
    if kind < 2:
        scores = max_sim(_array(choices), _pages(choices))
        top_pages(scores, choices.integer() if choices.flag() else 2)
    elif kind == 2:
        max_sim(_pages(choices), PackedPages(_pages(choices)))
    elif kind == 3:
        max_sim(_pages(choices), quantize_int8(_pages(choices)))
    elif kind == 4:
        mean_pool(_array(choices), normalize=choices.flag())
    elif kind == 5:
        relevance(choices.pick(_VALUES), _array(choices))
    elif kind == 6:
        (ward_pool if choices.flag() else hierarchical_pool)(_array(choices), choices.integer())
    else:
        top_pages(_array(choices), choices.integer())


_ = grid_pool

TARGETS = [Target("arrays", arrays)]
