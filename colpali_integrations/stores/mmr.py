"""Maximal marginal relevance for multi-vectors: results that answer the question and do not repeat each other.

MMR (Carbonell and Goldstein, SIGIR 1998) selects one candidate after the other, each time the best of

    lambda * relevance(candidate) - (1 - lambda) * max over selected of similarity(candidate, selected)

Its usual form compares single vectors by their cosine. For multi-vectors, `page_similarity` is MaxSim in both
directions, normalised. Like relevance it is in [0, 1], so that lambda weighs values of one scale.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_number, checked_whole
from colpali_integrations.errors import InputError
from colpali_integrations.scoring.maxsim import as_multi_vector
from colpali_integrations.stores.entries import Hit
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["diverse", "mmr_select", "page_similarity"]

# Pages with more vectors are pooled to at most this number: 20 of ColPali's 1030 then take 20 ms instead of a second.
_MOST_VECTORS = 128


def diverse(store: MultiVectorStore, hits: Sequence[Hit], k: int, *, lambda_mult: float) -> list[Hit]:
    """Choose the `k` hits of a search that are relevant and unlike each other.

    Args:
        store: the store of the hits; those removed since the search are left out.
        hits: the candidates.
        k: as `mmr_select`.
        lambda_mult: as `mmr_select`.

    Raises:
        ConfigurationError: as `mmr_select`.
    """
    pairs = zip(hits, store.vectors([hit.id for hit in hits]), strict=True)
    stored = [(hit, vectors) for hit, vectors in pairs if vectors is not None]
    relevance, vectors = [hit.relevance for hit, _ in stored], [vectors for _, vectors in stored]
    return [stored[index][0] for index in mmr_select(relevance, vectors, k, lambda_mult=lambda_mult)]


def mmr_select(
    relevance: Sequence[float], vectors: Sequence[NDArray[Any]], k: int, *, lambda_mult: float = 0.5
) -> list[int]:
    """Choose `k` candidates that are relevant and unlike each other.

    Args:
        relevance: of each candidate, in [0, 1].
        vectors: of each candidate, (n_vectors, dim). Lengths count as weights. For a page with more than 128 vectors,
            runs of neighbours are averaged first.
        k: number of candidates to select; all if there are fewer.
        lambda_mult: from 0, only unlike each other, to 1, only relevant.

    Returns:
        Indices of the candidates in the order of their selection; the first is the most relevant one. Of equal
        candidates the earlier one is selected.

    Raises:
        ConfigurationError: k below 1, or lambda_mult outside [0, 1].
        InputError: numbers of candidates, or dims, that differ.

    Example:
        >>> tide, harbour = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
        >>> mmr_select([0.9, 0.8, 0.5], [tide, tide, harbour], k=2)
        [0, 2]
    """
    k, lambda_mult = checked_whole(k, "k"), checked_number(lambda_mult, "lambda_mult", 0, 1)
    if len(relevance) != len(vectors):
        raise InputError(f"mmr_select: {len(relevance)} relevances but {len(vectors)} multi-vectors")
    pages = [_Page(array) for array in vectors]
    relevances = np.asarray(relevance, dtype=np.float64)
    nearest = np.zeros(len(pages))
    remaining = list(range(len(pages)))
    selected: list[int] = []
    while remaining and len(selected) < k:
        gains = relevances[remaining]
        if selected:  # the first choice has nothing to be unlike, and is the most relevant one
            gains = lambda_mult * gains - (1 - lambda_mult) * nearest[remaining]
        selected.append(remaining.pop(int(np.argmax(gains))))
        if len(selected) < k:
            for index in remaining:
                nearest[index] = max(nearest[index], pages[selected[-1]].similarity(pages[index]))
    return selected


def page_similarity(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Similarity of two multi-vectors in [0, 1]: MaxSim in both directions, normalised.

        (sum_i |a_i| max_j cos(a_i, b_j) / sum_i |a_i|  +  the same from b to a) / 2,  cosines below 0 counted as 0

    It is symmetric, 1 for equal pages however often a vector is repeated, and, unlike MaxSim itself, does not grow with
    the number of vectors.

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
    """Directions and weights of a page's vectors, pooled if there are many."""

    def __init__(self, vectors: NDArray[Any]) -> None:
        array: NDArray[Any] = as_multi_vector(vectors).astype(np.float32, copy=False)
        if len(array) > _MOST_VECTORS:
            size = -(-len(array) // _MOST_VECTORS)
            # Neighbours in the order of the vectors, which runs along the page's rows, show similar things.
            starts = np.arange(0, len(array), size)
            array = np.add.reduceat(array, starts, axis=0) / np.diff(np.append(starts, len(array)))[:, None]
        lengths = np.linalg.norm(array, axis=1)
        nonzero = lengths > 0
        self.directions = array[nonzero] / lengths[nonzero, None]
        self.weights = lengths[nonzero] / lengths.sum() if nonzero.any() else lengths[nonzero]

    def similarity(self, other: _Page) -> float:
        if self.directions.shape[1] != other.directions.shape[1]:
            raise InputError(
                f"mmr: dims {self.directions.shape[1]} and {other.directions.shape[1]}; were both embedded by the same "
                "model?"
            )
        if not len(self.weights) or not len(other.weights):  # a page of zero vectors resembles no page
            return 0.0
        cosines = np.clip(self.directions @ other.directions.T, 0, 1)
        forward, backward = self.weights @ cosines.max(axis=1), other.weights @ cosines.max(axis=0)
        return min(float(forward + backward) / 2, 1.0)
