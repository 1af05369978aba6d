"""Quality of rankings with several relevant documents per query, with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS = 4000


def order(scores: ArrayLike, limit: int = 10, *, above: float = 0.0) -> list[int]:
    """The best documents of one query by score, the best first; documents with the same score keep their order.

    Args:
        scores: (n_documents,).
        limit: how many at most.
        above: a document with no more than this is not found, as one without any word of the query is not.
    """
    values = np.asarray(scores, np.float64)
    return [int(index) for index in np.argsort(-values, kind="stable")[:limit] if values[index] > above]


def ndcg(ranking: Sequence[int], relevant: Collection[int], k: int) -> float:
    """Normalised discounted cumulative gain of the first k, with gains of 0 and 1 (Jarvelin and Kekalainen 2002)."""
    gain = sum(1 / math.log2(rank + 2) for rank, index in enumerate(ranking[:k]) if index in relevant)
    best = sum(1 / math.log2(rank + 2) for rank in range(min(k, len(relevant))))
    return gain / best


def first(ranking: Sequence[int], relevant: Collection[int]) -> float:
    """1 if the first document is relevant."""
    return float(bool(ranking) and ranking[0] in relevant)


def interval(values: NDArray[np.float64], *, seed: int = 0) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over queries (percentiles)."""
    draws = _draws(len(values), seed)
    low, high = np.quantile(values[draws].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def ratio_interval(
    values: NDArray[np.float64], others: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float, float]:
    """Ratio of the means of two systems over the same queries, with its paired 95 % bootstrap interval.

    Returns:
        ratio, low, high. The same queries are drawn for both.
    """
    draws = _draws(len(values), seed)
    low, high = np.quantile(values[draws].mean(axis=1) / others[draws].mean(axis=1), [0.025, 0.975])
    return float(values.mean() / others.mean()), float(low), float(high)


def difference_interval(
    values: NDArray[np.float64], others: NDArray[np.float64], *, seed: int = 0
) -> tuple[float, float, float]:
    """Difference of the means of two systems over the same queries, with its paired 95 % bootstrap interval.

    Returns:
        difference, low, high. The same queries are drawn for both.
    """
    differences = values - others
    return float(differences.mean()), *interval(differences, seed=seed)


def _draws(size: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, size, (DRAWS, size))
