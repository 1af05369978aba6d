"""MaxSim, the score of late interaction: for each query vector its best match on the page, summed.

MaxSim(Q, P) = sum over q in Q of max over p in P of q . p        (ColBERT, arXiv 2004.12832; ColPali, 2407.01449)
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.core.errors import InputError

__all__ = ["MultiVectors", "as_multi_vector", "max_sim", "relevance"]

MultiVectors: TypeAlias = "NDArray[Any] | Sequence[NDArray[Any]]"

# Multiplications from which on `core/maxsim.py` is worth its start. At the first call that is 0.1 s where nothing has
# loaded onnx yet, so it takes a hundred of ColPali's pages for a query of 20 vectors; a process that has encoded
# anything has loaded it, and then two such pages suffice.
_LARGE = 2**28
_LARGE_AFTER_ONNX = 2**22
# Page vectors multiplied at once by numpy: 8192 x 128 floats are 4 MB.
_BLOCK = 8192
# Best matches held at once, 64 MB of floats: 800,000 pages for a query of 20 vectors, 16,000 for 50 such queries.
_MATCHES = 2**24


def max_sim(queries: MultiVectors, pages: MultiVectors) -> NDArray[np.float32]:
    """Exact MaxSim of every query with every page, whatever their numbers of vectors.

    Nothing is padded: padding with zeros, as colpali-engine's `score_multi_vector` does, lifts a negative best match
    to 0 when the page shares a batch with a longer one.

    Exact up to the order in which float32 products are added. Few pages go through numpy, many through onnxruntime on
    all cores that the process may use (`core/maxsim.py`); the two differ by that order alone. Any number of threads
    may call it at once.

    Args:
        queries: one (n_vectors, dim) array, or a sequence of them, of floats.
        pages: one (n_vectors, dim) array, or a sequence of them, of any floats. float16 is converted a block at a time.

    Returns:
        float32 scores of shape (n_queries, n_pages); for a single query the first axis is dropped, for a single page
        the second, so two arrays give a scalar array.

    Raises:
        InputError: dims differ, an array is not two-dimensional, or it has no rows.

    Example:
        >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> page = np.array([[0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(float(max_sim(query, page)), 6)  # 0.6 + 0.8
        1.4
    """
    query_list, page_list = _as_list(queries, "queries"), _as_list(pages, "pages")
    _same_dim(query_list, page_list)
    scores = np.empty((len(query_list), len(page_list)), dtype=np.float32)
    if scores.size:
        stacked = np.concatenate(query_list).astype(np.float32, copy=False)
        starts = _starts(query_list)
        for first, last, best in _best(stacked, page_list):
            scores[:, first:last] = np.add.reduceat(best, starts, axis=0)
    if not isinstance(pages, Sequence) and pages.ndim == 2:
        scores = scores[:, 0]
    if not isinstance(queries, Sequence) and queries.ndim == 2:
        scores = scores[0]
    return np.asarray(scores)


def as_multi_vector(vectors: Any, name: str = "vectors") -> NDArray[Any]:
    """Check that something is a multi-vector: a non-empty (n_vectors, dim) array of floats.

    Raises:
        InputError: it is not.
    """
    array = np.asarray(vectors)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: expected an array (n_vectors, dim) of numbers with at least one row, got shape {array.shape} "
            f"of {array.dtype}"
        )
    return array


def _as_list(vectors: MultiVectors, name: str) -> list[NDArray[Any]]:
    if isinstance(vectors, np.ndarray) and vectors.ndim == 2:
        return [as_multi_vector(vectors, name)]
    return [as_multi_vector(item, f"{name}[{index}]") for index, item in enumerate(vectors)]


def _same_dim(queries: list[NDArray[Any]], pages: list[NDArray[Any]]) -> None:
    dims = {array.shape[1]: f"queries[{index}]" for index, array in enumerate(queries)}
    dims |= {array.shape[1]: f"pages[{index}]" for index, array in enumerate(pages) if array.shape[1] not in dims}
    if len(dims) > 1:
        found = ", ".join(f"{name} has dim {dim}" for dim, name in dims.items())
        raise InputError(f"max_sim: {found}; were all embedded by the same model?")


def _best(queries: NDArray[np.float32], pages: list[NDArray[Any]]) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """The best match of each query vector on each page, for one range of pages after the other."""
    large = _LARGE_AFTER_ONNX if "onnx" in sys.modules else _LARGE
    if queries.size * sum(len(page) for page in pages) >= large:
        from colpali_integrations.core.maxsim import best_matches

        step = max(1, _MATCHES // len(queries))
        for first in range(0, len(pages), step):
            last = min(first + step, len(pages))
            yield first, last, best_matches(queries, pages[first:last])
        return
    for first, last in blocks(pages, _BLOCK):
        block = pages[first:last]
        rows = np.concatenate(block).astype(np.float32, copy=False)
        yield first, last, np.maximum.reduceat(queries @ rows.T, _starts(block), axis=1)


def _starts(arrays: list[NDArray[Any]]) -> NDArray[np.intp]:
    return np.cumsum([0, *(len(array) for array in arrays[:-1])])


def blocks(pages: Sequence[NDArray[Any]], most: int) -> list[tuple[int, int]]:
    """Ranges of pages with at most `most` vectors together, or one page that has more."""
    found: list[tuple[int, int]] = []
    first = size = 0
    for index, page in enumerate(pages):
        if size and size + len(page) > most:
            found.append((first, index))
            first, size = index, 0
        size += len(page)
    return [*found, (first, len(pages))]


@overload
def relevance(score: float, query_vectors: NDArray[Any], *, best_match: float = ...) -> float: ...


@overload
def relevance(score: NDArray[Any], query_vectors: NDArray[Any], *, best_match: float = ...) -> NDArray[np.float64]: ...


def relevance(
    score: float | NDArray[Any], query_vectors: NDArray[Any], *, best_match: float = 1.0
) -> float | NDArray[np.float64]:
    """MaxSim as a part of the highest possible, from 0 to 1, so that scores of different queries can be compared.

    That is ``score / (best_match * sum of the query vectors' lengths)``, cut to [0, 1]; for unit vectors MaxSim by
    number of query vectors, the mean cosine of the best matches. A page that has nothing of the query does not get 0
    from such models: their vectors are never far apart, and what is a good value differs between models.

    ColTiny's lengths are weights. 1 would be a page that says every word of the query without end and is read without
    a doubt; each word counts by its weight, and one that the page does not say counts 0 or little. On the demo's 77
    pages those that answer a question have 0.14 to 0.48 (half of them 0.31 to 0.41), the median of the others is 0.06.

    Args:
        score: MaxSim of the query with a page, or an array of them with several.
        query_vectors: float (n_vectors, dim), the query's.
        best_match: `ModelDescription.best_match` of the model.

    Returns:
        A float, or float64 of the shape of `score`.

    Raises:
        InputError: `query_vectors` is no multi-vector, or `best_match` is not positive.

    Example:
        >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> relevance(1.5, query)
        0.75
        >>> relevance(np.array([1.5, -0.1, 2.1]), query).tolist()
        [0.75, 0.0, 1.0]
    """
    if not (np.isfinite(best_match) and best_match > 0):
        raise InputError(f"best_match must be positive, got {best_match}")
    lengths = np.linalg.norm(as_multi_vector(query_vectors, "query_vectors").astype(np.float64), axis=1)
    most = best_match * float(lengths.sum())
    parts = np.clip(np.asarray(score, np.float64) / most if most > 0 else np.zeros_like(score, np.float64), 0, 1)
    return parts if isinstance(score, np.ndarray) and score.ndim else float(parts)
