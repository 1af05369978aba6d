"""How far vectors of a graph built from a checkpoint may be from its class in float64.

Per case at most the floor, or twice the distance of the class in float32 (rounding differs between operators), and
never above the ceiling; over all cases 1.5 times that distance in the mean. Components of vectors of length 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from .conftest import Golden
from .measures import directions, few_rows

FLOOR, TIMES, MEAN_TIMES, CEILING = 5e-6, 2.0, 1.5, 1e-4


def measured(
    golden: Golden, outputs: Iterable[tuple[str, NDArray[np.float32]]], *, kept: int = 8
) -> dict[tuple[str, str], tuple[float, float]]:
    """The distances to float64 of our vectors and of the class's own float32, by case and part.

    Args:
        golden: of the class.
        outputs: vectors by case.
        kept: how many rows of a case the golden holds whole.
    """
    pairs = {}
    for case, rows in outputs:
        exact = rows.astype(np.float64)
        parts = {"rows": exact[few_rows(len(rows), kept)], "projection": exact @ directions(rows.shape[1])}
        for part, values in parts.items():
            ours = float(np.abs(values - golden.arrays[f"{case}/{part}"]).max())
            pairs[case, part] = ours, golden.facts["distances"][case][part]
    return pairs


def check(pairs: Mapping[tuple[str, str], tuple[float, float]]) -> None:
    """Assert that all distances are within the bounds."""
    assert {case: pair for case, pair in pairs.items() if pair[0] > min(max(FLOOR, TIMES * pair[1]), CEILING)} == {}
    ours, theirs = np.array(list(pairs.values())).mean(axis=0)
    assert ours <= MEAN_TIMES * theirs
