"""Maximal marginal relevance for multi-vectors: results that answer the question and do not repeat each other.

MMR (Carbonell and Goldstein, SIGIR 1998) takes one candidate after the other, each time the best of

    lambda * relevance(candidate) - (1 - lambda) * max over those taken of similarity(candidate, taken)

Its usual form compares single vectors by their cosine. Pages have many: their similarity here is how well each finds
the other's vectors again, see `page_similarity`. Like relevance it is in [0, 1], so that lambda weighs equals.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.scoring.maxsim import as_multi_vector

__all__ = ["mmr_select", "page_similarity"]

# Pages of more vectors are pooled to at most as many: 20 of ColPali's 1030 then take 20 ms instead of a second.
_MOST_VECTORS = 128


def mmr_select(
    relevance: Sequence[float], vectors: Sequence[NDArray[Any]], k: int, *, lambda_mult: float = 0.5
) -> list[int]:
    """Choose `k` candidates that are relevant and unlike each other.

    Args:
        relevance: of each candidate, in [0, 1].
        vectors: of each candidate, (n_vectors, dim). Lengths count as weights. Of a page with more than 128 vectors,
            runs of neighbours are averaged first.
        k: how many; all when there are fewer.
        lambda_mult: from 0, only unlike each other, to 1, only relevant.

    Returns:
        Indices of the candidates, in the order in which they were taken; the first is the most relevant one. Of equal
        candidates the one that comes first is taken.

    Raises:
        ConfigurationError: k below 1, or lambda_mult outside [0, 1].
        InputError: numbers of candidates or dims that do not fit each other.

    Example:
        >>> tide, harbour = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        >>> mmr_select([0.9, 0.8, 0.5], [tide, tide, harbour], k=2)
        [0, 2]
    """
    if k < 1:
        raise ConfigurationError(f"k must be at least 1, got {k}")
    if not 0 <= lambda_mult <= 1:
        raise ConfigurationError(f"lambda_mult must be between 0 and 1, got {lambda_mult}")
    if len(relevance) != len(vectors):
        raise InputError(f"mmr_select: {len(relevance)} relevances but {len(vectors)} multi-vectors")
    pages = [_Page(array) for array in vectors]
    wanted = np.asarray(relevance, dtype=np.float64)
    # The first one is always the most relevant: with nothing taken yet there is nothing to be unlike.
    nearest = np.zeros(len(pages))
    left = list(range(len(pages)))
    taken: list[int] = []
    while left and len(taken) < k:
        gains = wanted[left] if not taken else lambda_mult * wanted[left] - (1 - lambda_mult) * nearest[left]
        taken.append(left.pop(int(np.argmax(gains))))
        if len(taken) < k:
            for index in left:
                nearest[index] = max(nearest[index], pages[taken[-1]].similarity(pages[index]))
    return taken


def page_similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """How far two multi-vectors show the same, in [0, 1]: MaxSim both ways, normalised.

        (sum_i |a_i| max_j cos(a_i, b_j) / sum_i |a_i|  +  the same from b to a) / 2,  cosines below 0 counted as 0

    It is symmetric, 1 for equal pages however often a vector is repeated, and, unlike MaxSim itself, not the greater
    the more vectors a page has.

    Args:
        one: (n_vectors, dim).
        other: (m_vectors, dim).

    Raises:
        InputError: not multi-vectors, or of different dims.

    Example:
        >>> page_similarity(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[1.0, 0.0]]))
        0.75
    """
    return _Page(one).similarity(_Page(other))


class _Page:
    """Directions and weights of a page's vectors, of a pooled page's if there are many."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        array: NDArray[Any] = as_multi_vector(vectors).astype(np.float32, copy=False)
        if len(array) > _MOST_VECTORS:
            size = -(-len(array) // _MOST_VECTORS)
            # Neighbours in the page's own order, which runs along its rows, look at the same thing.
            starts = np.arange(0, len(array), size)
            array = np.add.reduceat(array, starts, axis=0) / np.diff(np.append(starts, len(array)))[:, None]
        lengths = np.linalg.norm(array, axis=1)
        kept = lengths > 0
        self.directions = array[kept] / lengths[kept, None]
        self.weights = lengths[kept] / lengths.sum() if kept.any() else lengths[kept]

    def similarity(self, other: _Page) -> float:
        if self.directions.shape[1] != other.directions.shape[1]:
            raise InputError(
                f"mmr: dims {self.directions.shape[1]} and {other.directions.shape[1]}; were both embedded by the same "
                "model?"
            )
        if not len(self.weights) or not len(other.weights):  # a page that says nothing repeats nothing
            return 0.0
        cosines = np.clip(self.directions @ other.directions.T, 0, 1)
        there, back = self.weights @ cosines.max(axis=1), other.weights @ cosines.max(axis=0)
        return min(float(there + back) / 2, 1.0)
