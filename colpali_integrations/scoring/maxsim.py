"""MaxSim, the score of late interaction: the sum over the query vectors of their best matches on the page.

MaxSim(Q, P) = sum over q in Q of max over p in P of q . p        (ColBERT, arXiv 2004.12832; ColPali, 2407.01449)
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import InputError
from colpali_integrations.scoring._blocks import LIMITS, Limits, blocks

__all__ = ["MultiVectors", "PreparedPages", "as_multi_vector", "float_pages", "max_sim", "relevance", "top_pages"]

MultiVectors: TypeAlias = NDArray[Any] | Iterable[NDArray[Any]]

# Page vectors that numpy multiplies at once: 8192 x 128 floats are 4 MB.
_BLOCK = 8192


class PreparedPages(ABC):
    """Base class of pages in a form other than arrays, which `max_sim` takes too: `Int8Pages`, `PackedPages`.

    Attributes:
        dim: length of a vector.
    """

    dim: int
    _limits = LIMITS

    @abstractmethod
    def __len__(self) -> int:
        """Count the pages."""

    @abstractmethod
    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.floating[Any]]:
        """Compute the highest product of each query vector with a vector of each page.

        Args:
            queries: (n_vectors, dim) of numbers, at least one.
            threads: parts in work at the same time; None for one per core that this process may use.

        Returns:
            (n_vectors, n_pages) of floats.

        Raises:
            InputError: a number is not finite.
        """


def max_sim(queries: MultiVectors, pages: MultiVectors | PreparedPages) -> NDArray[np.float32]:
    """Compute the exact MaxSim of every query with every page, of any numbers of vectors.

    Nothing is padded: padding with zeros, as colpali-engine's `score_multi_vector` does, lifts a negative best match
    to 0 when the page shares a batch with a longer one.

    Scores are exact up to the order in which float32 products are added. numpy scores few pages, onnxruntime scores
    many on all cores that the process may use (`scoring._kernels`); the two differ by that order alone. Any number of
    threads may call this function at the same time.

    Args:
        queries: one (n_vectors, dim) array of floats, or any iterable of them.
        pages: one (n_vectors, dim) array of any floats, or any iterable of them, such as `model.embed_pdf(path)`, which
            is read to its end; float16 is converted block by block. Or `PackedPages`, for many queries of the same
            pages, or `Int8Pages`, a quarter of the size.

    Returns:
        float32 scores of shape (n_queries, n_pages); for a single query the first axis is dropped, for a single page
        the second, so two arrays give a scalar array. Prepared pages keep their axis even for one page.

    Raises:
        InputError: dims differ, an item is not a two-dimensional array, or it has no rows.

    Example:
        >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> page = np.array([[0.6, 0.8], [-1.0, 0.0], [0.0, -1.0]])
        >>> round(float(max_sim(query, page)), 6)  # 0.6 + 0.8
        1.4
    """
    return limited_max_sim(queries, pages, LIMITS)


def limited_max_sim(queries: MultiVectors, pages: MultiVectors | PreparedPages, limits: Limits) -> NDArray[np.float32]:
    """Compute `max_sim` with other sizes of blocks."""
    query_list = _as_list(queries, "queries")
    if isinstance(pages, PreparedPages):
        scores = _prepared(query_list, pages, limits)
        return scores[0] if _is_one(queries) else scores
    page_list = _as_list(pages, "pages")
    _same_dim(query_list, page_list)
    scores = np.empty((len(query_list), len(page_list)), dtype=np.float32)
    if scores.size:
        stacked = np.concatenate(query_list).astype(np.float32, copy=False)
        starts = _starts(query_list)
        for first, last, best in _best(stacked, page_list, limits):
            scores[:, first:last] = np.add.reduceat(best, starts, axis=0)
    if _is_one(pages):
        scores = scores[:, 0]
    if _is_one(queries):
        scores = scores[0]
    return np.asarray(scores)


def top_pages(scores: NDArray[Any], k: int) -> NDArray[np.intp]:
    """Find the k best pages, best first, without sorting the others.

    Args:
        scores: (..., n_pages), such as `max_sim` returns. NaN ranks last.
        k: the number of pages; all where there are fewer.

    Returns:
        Indices (..., min(k, n_pages)). Of pages with equal scores the first ranks higher.

    Raises:
        ConfigurationError: k is no whole number, or below 1.
        InputError: `scores` has no axis or no real numbers.

    Example:
        >>> top_pages(np.array([0.1, 0.7, 0.4, 0.7]), 3).tolist()
        [1, 3, 2]
    """
    scores = np.asarray(scores)
    if scores.ndim < 1 or scores.dtype.kind not in "fiu":
        raise InputError(
            f"top_pages: scores must be an array of numbers per page, got shape {scores.shape} of {scores.dtype}"
        )
    k = min(checked_whole(k, "k"), scores.shape[-1])
    best = np.empty((*scores.shape[:-1], k), np.intp)
    if k:
        for query in np.ndindex(scores.shape[:-1]):
            # The best first, NaN last. Integers: -0 of unsigned ones is the smallest, and -(-128) of int8 is -128.
            row = -scores[query] if scores.dtype.kind == "f" else ~scores[query]
            # Every page that ties with the last of the k stays in: a partition alone would pick any of them.
            least = np.partition(row, k - 1)[k - 1]
            near = np.arange(len(row)) if np.isnan(least) else np.flatnonzero(row <= least)
            best[query] = near[np.argsort(row[near], kind="stable")[:k]]
    return best


def as_multi_vector(vectors: Any, name: str = "vectors") -> NDArray[Any]:
    """Check that a value is a multi-vector: a non-empty (n_vectors, dim) array of numbers.

    Raises:
        InputError: it is not.
    """
    if hasattr(vectors, "vectors"):
        raise InputError(
            f"{name}: expected an array (n_vectors, dim), got a {type(vectors).__name__}; pass its .vectors"
        )
    array = np.asarray(vectors)
    if array.ndim != 2 or 0 in array.shape or array.dtype.kind not in "fiu":
        raise InputError(
            f"{name}: expected an array (n_vectors, dim) of numbers with at least one row, got shape {array.shape} "
            f"of {array.dtype}"
        )
    return array


def float_pages(pages: Iterable[NDArray[Any]], name: str) -> Iterator[NDArray[np.float32]]:
    """Yield pages as float32, after a check that all have one dim and finite numbers only.

    Args:
        pages: (n_vectors, dim) arrays.
        name: the caller's name in error messages.

    Raises:
        InputError: `pages` is not iterable, or a page is not a multi-vector, has another dim than the first, or has NaN
            or infinity.
    """
    dim = 0
    for index, page in enumerate(_items(pages, name)):
        array = as_multi_vector(page, f"pages[{index}]").astype(np.float32, copy=False)
        dim = dim or array.shape[1]
        if array.shape[1] != dim:
            raise InputError(
                f"{name}: pages[0] has dim {dim}, pages[{index}] has dim {array.shape[1]}; were all embedded by the "
                "same model?"
            )
        if not np.isfinite(array).all():
            raise InputError(f"{name}: pages[{index}] has NaN or infinity")
        yield array


def _is_one(vectors: MultiVectors) -> bool:
    return isinstance(vectors, np.ndarray) and vectors.ndim == 2


def _as_list(vectors: Any, name: str) -> list[NDArray[Any]]:
    if _is_one(vectors):
        return [as_multi_vector(vectors, name)]
    return [as_multi_vector(item, f"{name}[{index}]") for index, item in enumerate(_items(vectors, name))]


def _items(vectors: Any, name: str) -> Iterable[Any]:
    """Check that a value can be iterated, and is no text; an array without axes only looks as if it could."""
    if isinstance(vectors, (str, bytes)) or not isinstance(vectors, Iterable) or getattr(vectors, "ndim", 1) == 0:
        raise InputError(
            f"{name}: expected an array (n_vectors, dim) or an iterable of them, got {type(vectors).__name__}; "
            "ColPali.embed_query and embed_images return them"
        )
    return vectors


def _prepared(queries: list[NDArray[Any]], pages: PreparedPages, limits: Limits) -> NDArray[np.float32]:
    scores = np.empty((len(queries), len(pages)), np.float32)
    for index, query in enumerate(queries):
        if query.shape[1] != pages.dim:
            raise InputError(
                f"max_sim: queries[{index}] has dim {query.shape[1]}, the pages have dim {pages.dim}; were all "
                "embedded by the same model?"
            )
    if scores.size:
        for first, last in blocks([len(query) for query in queries], max(1, limits.matches // len(pages))):
            best = pages.best_matches(np.concatenate(queries[first:last]))
            scores[first:last] = np.add.reduceat(best, _starts(queries[first:last]), axis=0)
    return scores


def _same_dim(queries: list[NDArray[Any]], pages: list[NDArray[Any]]) -> None:
    dims = {array.shape[1]: f"queries[{index}]" for index, array in enumerate(queries)}
    dims |= {array.shape[1]: f"pages[{index}]" for index, array in enumerate(pages) if array.shape[1] not in dims}
    if len(dims) > 1:
        named = ", ".join(f"{name} has dim {dim}" for dim, name in dims.items())
        raise InputError(f"max_sim: {named}; were all embedded by the same model?")


def _best(
    queries: NDArray[np.float32], pages: list[NDArray[Any]], limits: Limits
) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    """Yield ranges of pages with the best match of each query vector on each of their pages."""
    if is_large(queries, pages, limits):
        from colpali_integrations.scoring._kernels import best_matches

        step = max(1, limits.matches // len(queries))
        for first in range(0, len(pages), step):
            last = min(first + step, len(pages))
            yield first, last, best_matches(queries, pages[first:last], limits=limits)
        return
    for first, last in blocks([len(page) for page in pages], _BLOCK):
        block = pages[first:last]
        rows = np.concatenate(block).astype(np.float32, copy=False)
        yield first, last, np.maximum.reduceat(queries @ rows.T, _starts(block), axis=1)


def is_large(queries: NDArray[np.float32], pages: Sequence[NDArray[Any]], limits: Limits) -> bool:
    """Whether `scoring._kernels` scores these pages."""
    large = limits.large_after_onnx if "onnx" in sys.modules else limits.large
    return queries.size * sum(len(page) for page in pages) >= large


def _starts(arrays: list[NDArray[Any]]) -> NDArray[np.intp]:
    return np.cumsum([0, *(len(array) for array in arrays[:-1])])


@overload
def relevance(score: float, query_vectors: NDArray[Any], *, best_match: float = ...) -> float: ...


@overload
def relevance(score: NDArray[Any], query_vectors: NDArray[Any], *, best_match: float = ...) -> NDArray[np.float64]: ...


def relevance(
    score: float | NDArray[Any], query_vectors: NDArray[Any], *, best_match: float = 1.0
) -> float | NDArray[np.float64]:
    """Divide MaxSim by its upper bound, so that scores of different queries can be compared.

    The result is ``score / (best_match * sum of the query vectors' lengths)``, cut to [0, 1]; for unit vectors that is
    the mean cosine of the best matches. Models with unit vectors do not give 0 to a page without any match, because
    their vectors are never far apart, and a good value differs between models.

    ColTiny's lengths are weights. 1 is an upper bound that no real page reaches: every query word repeated indefinitely
    and recognised with full confidence. Each word counts by its weight, and a missing word counts 0 or little. On the
    demo's 77 pages those that answer a question have 0.14 to 0.48 (half of them 0.31 to 0.41); the median of the others
    is 0.06.

    Args:
        score: MaxSim of the query with a page, or an array of scores.
        query_vectors: float (n_vectors, dim), the vectors of the query.
        best_match: `ModelDescription.best_match` of the model.

    Returns:
        A float, or a float64 array of the shape of `score`.

    Raises:
        InputError: `query_vectors` is not a multi-vector, or `best_match` is not positive.

    Example:
        >>> query = np.array([[1.0, 0.0], [0.0, 1.0]])
        >>> relevance(1.5, query)
        0.75
        >>> relevance(np.array([1.5, -0.1, 2.1]), query).tolist()
        [0.75, 0.0, 1.0]
    """
    if not 0 < best_match <= sys.float_info.max:
        raise InputError(f"best_match must be positive, got {shown(best_match)}")
    lengths = np.linalg.norm(as_multi_vector(query_vectors, "query_vectors").astype(np.float64), axis=1)
    bound = float(best_match) * float(lengths.sum())
    parts = np.clip(np.asarray(score, np.float64) / bound if bound > 0 else np.zeros_like(score, np.float64), 0, 1)
    return parts if isinstance(score, np.ndarray) and score.ndim else float(parts)
