"""A multi-vector -> one vector of unit length, for stores and caches that hold single vectors.

Much is lost: on the demo's questions the mean of ColTiny's vectors finds the right page at a mean reciprocal rank of
0.3 where MaxSim over all of them reaches 0.9. It is for what must be single, and for a first look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.pooling import mean_pool

__all__ = ["Pooling", "single_vector"]

Pooling: TypeAlias = Literal["mean"]
_STRATEGIES: Mapping[str, Callable[[NDArray[Any]], NDArray[np.float32]]] = {"mean": mean_pool}


def single_vector(vectors: NDArray[Any], pooling: Pooling = "mean") -> list[float]:
    """Pool a multi-vector.

    Args:
        vectors: (n_vectors, dim).
        pooling: "mean", the mean of all vectors.

    Returns:
        `dim` Python floats (frameworks' caches and JSON know no others) of unit length. Where the pooled vector is
        zero, as on a page on which ColTiny reads nothing, the last axis stands for it: zero would be nearer to most
        queries than pages are (cosine 0, where pages that do not match have less), and some stores refuse it. On its
        last axis ColTiny keeps what counts against a page, so a blank page ranks like one on which nothing matches.

    Raises:
        ConfigurationError: no such strategy.
        InputError: not a multi-vector.

    Example:
        >>> single_vector(np.array([[3.0, 0.0], [0.0, 3.0]]))
        [0.7071067690849304, 0.7071067690849304]
        >>> single_vector(np.array([[0.0, 0.0]]))
        [0.0, 1.0]
    """
    if pooling not in _STRATEGIES:
        raise ConfigurationError(f"pooling must be one of {', '.join(map(repr, _STRATEGIES))}, got {pooling!r}")
    pooled = _STRATEGIES[pooling](vectors)
    if not pooled.any():
        pooled = np.zeros_like(pooled)
        pooled[-1] = 1.0
    result: list[float] = pooled.tolist()
    return result
