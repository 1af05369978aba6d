"""Pool a multi-vector to one vector of unit length, for stores and caches that hold single vectors.

Much is lost: on the demo's questions the mean of ColTiny's vectors reaches a mean reciprocal rank of 0.3, MaxSim over
all vectors 0.9. Use it where a framework takes single vectors only, and for a first look.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.scoring.pooling import mean_pool

__all__ = ["single_vector"]


def single_vector(vectors: NDArray[Any]) -> list[float]:
    """Pool a multi-vector to the mean of its vectors, scaled to length 1.

    Args:
        vectors: (n_vectors, dim).

    Returns:
        A list of `dim` Python floats, which frameworks' caches and JSON require, of unit length. A pooled vector of
        zero, as of a page on which ColTiny reads nothing, is replaced by the unit vector of the last axis: zero would
        be nearer to most queries than real pages are (cosine 0, where pages that do not match have less), and some
        stores refuse it. ColTiny's last axis counts against a page, so a blank page ranks like one without a match.

    Raises:
        InputError: `vectors` is not a multi-vector.

    Example:
        >>> single_vector(np.array([[3.0, 0.0], [0.0, 3.0]]))
        [0.7071067690849304, 0.7071067690849304]
        >>> single_vector(np.array([[0.0, 0.0]]))
        [0.0, 1.0]
    """
    pooled = mean_pool(vectors)
    if not pooled.any():
        pooled = np.zeros_like(pooled)
        pooled[-1] = 1.0
    result: list[float] = pooled.tolist()
    return result
