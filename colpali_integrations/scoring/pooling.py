"""Reduce a page's vectors: to one vector per page for ordinary vector stores, or to a few for a fast first stage.

| function | vectors left of 1030 | for |
|---|---|---|
| `mean_pool`, `single_vector` | 1 | stores of single vectors; much of the quality is lost |
| `grid_pool` | 32 row or column means + 6 | a prefetch stage (Qdrant's recipe) |
| `hierarchical_pool` | 343 at factor 3 | a smaller index at 97.8% of the score (colpali-engine's figure) |
| `ward_pool` | 32 | a prefetch stage, for vectors of any order and lengths |
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.scoring.maxsim import as_multi_vector

__all__ = [
    *("grid_pool", "group_means", "hierarchical_groups", "hierarchical_pool", "matryoshka", "mean_pool"),
    *("single_vector", "ward_pool"),
]


def mean_pool(vectors: NDArray[Any], *, normalize: bool = True) -> NDArray[np.float32]:
    """Average a multi-vector.

    Args:
        vectors: (n_vectors, dim).
        normalize: scale the mean to length 1, so that dot product and cosine agree. A mean of zero stays zero.

    Returns:
        float32 (dim,).

    Raises:
        InputError: `vectors` is not a multi-vector.

    Example:
        >>> mean_pool(np.array([[3.0, 0.0], [0.0, 4.0]])).tolist()
        [0.6000000238418579, 0.800000011920929]
    """
    # Summed in float64, so that the result does not depend on the order in which numpy adds.
    mean = as_multi_vector(vectors).mean(axis=0, dtype=np.float64)[None]
    return np.asarray((_unit(mean) if normalize else mean)[0], np.float32)


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
    return list(pooled.tolist())


def matryoshka(vector: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    """Cut a dense vector whose first numbers are trained to stand alone (arXiv:2205.13147).

    Args:
        vector: float32 (dim,).
        dimensions: how many numbers to keep, at most dim.

    Returns:
        float32 (dimensions,) of unit length.

    Example:
        >>> matryoshka(np.array([0.6, 0.0, 0.8], np.float32), 2).tolist()
        [1.0, 0.0]
    """
    return np.asarray(_unit(vector[None, :dimensions])[0], np.float32)


def grid_pool(
    vectors: NDArray[Any],
    rows: int = 32,
    columns: int = 32,
    *,
    over: Literal["columns", "rows"] = "columns",
    normalize: bool = True,
) -> NDArray[np.float32]:
    """Average along a page's grid of patches; the vectors after the grid (the prompt's) stay as they are.

    Args:
        vectors: (n_vectors, dim), of which the first rows x columns are the grid, row by row, as in ColPali's output.
        rows: rows of the grid.
        columns: columns of the grid.
        over: the averaged axis: "columns" leaves one vector per row, "rows" one vector per column.
        normalize: scale each mean to length 1.

    Returns:
        float32 (rows or columns + the rest, dim).

    Raises:
        InputError: there are fewer vectors than the grid has patches, or an option has an invalid value.

    Example:
        >>> grid = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1], [0.5, 0.5]])
        >>> grid_pool(grid, rows=2, columns=2).tolist()
        [[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]
    """
    array = as_multi_vector(vectors)
    if rows < 1 or columns < 1 or over not in ("columns", "rows"):
        raise InputError(
            "grid_pool: rows and columns must be positive, and over must be 'columns' or 'rows'; got "
            f"{rows}, {columns}, {over!r}"
        )
    if len(array) < rows * columns:
        raise InputError(f"grid_pool: a {rows} x {columns} grid needs {rows * columns} vectors, got {len(array)}")
    grid = array[: rows * columns].reshape(rows, columns, -1)
    means = grid.mean(axis=1 if over == "columns" else 0, dtype=np.float64)
    pooled = _unit(means) if normalize else means
    return np.concatenate([pooled.astype(np.float32), array[rows * columns :].astype(np.float32)])


def hierarchical_pool(
    vectors: NDArray[Any],
    pool_factor: int = 3,
    *,
    n_clusters: int | None = None,
    normalize: bool = True,
) -> NDArray[np.float32]:
    """Average similar vectors, clustered by Ward's linkage.

    Equivalent to `colpali_engine.compression.HierarchicalTokenPooler`: the rows of 1 - X X^T are clustered as
    observations (not as distances), cut into at most n_vectors // pool_factor clusters, averaged and normalised.

    Args:
        vectors: (n_vectors, dim), unit rows.
        pool_factor: vectors per cluster, on average; 1 returns the vectors as they are.
        n_clusters: the number of clusters, instead of a factor.
        normalize: scale each mean to length 1; turn it off where lengths are weights.

    Returns:
        float32 (n_clusters, dim), in the order of scipy's cluster labels.

    Raises:
        InputError: `vectors` is not a multi-vector, or has NaN or infinity, or a factor or number is below 1.

    Example:
        >>> hierarchical_pool(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0]]), pool_factor=2).tolist()
        [[1.0, 0.0], [0.0, 1.0]]
    """
    array = _finite(vectors, "hierarchical_pool")
    if pool_factor < 1 or (n_clusters is not None and n_clusters < 1):
        raise InputError(
            f"hierarchical_pool: pool_factor and n_clusters must be at least 1, got {pool_factor}, {n_clusters}"
        )
    target = n_clusters if n_clusters is not None else max(len(array) // pool_factor, 1)
    if target >= len(array) or (n_clusters is None and pool_factor == 1):
        return array
    return group_means(array, _ward_labels(_by_cosines(array), target), normalize=normalize)


def hierarchical_groups(vectors: NDArray[Any], pool_factor: int) -> NDArray[np.int64]:
    """Group similar vectors as `hierarchical_pool` does, and tell the group of each.

    Zero vectors, by which a model keeps every best match at 0 or more, are a group of their own.

    Args:
        vectors: (n_vectors, dim).
        pool_factor: vectors per group, on average; 1 leaves each vector alone.

    Returns:
        int64 (n_vectors,), numbers of groups in the order of their first vectors, for `group_means`.

    Raises:
        InputError: `vectors` is not a multi-vector, or has NaN or infinity, or the factor is below 1.

    Example:
        >>> hierarchical_groups(np.array([[0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), 2).tolist()
        [0, 1, 0, 1]
    """
    array = _finite(vectors, "hierarchical_groups")
    if pool_factor < 1:
        raise InputError(f"hierarchical_groups: pool_factor must be at least 1, got {pool_factor}")
    directed = array.any(axis=1)
    labels = np.zeros(len(array), np.int64)
    rows = array[directed]
    target = max(len(rows) // pool_factor, 1)
    if target < len(rows):
        labels[directed] = _ward_labels(_by_cosines(rows), target) + 1
    else:
        labels[directed] = np.arange(len(rows)) + 1
    _, firsts, numbers = np.unique(labels, return_index=True, return_inverse=True)
    ranks = np.empty(len(firsts), np.int64)
    ranks[np.argsort(firsts)] = np.arange(len(firsts))
    return np.asarray(ranks[numbers.reshape(-1)])


def group_means(vectors: NDArray[Any], groups: NDArray[Any], *, normalize: bool = True) -> NDArray[np.float32]:
    """Average the vectors of each group.

    Args:
        vectors: (n_vectors, dim).
        groups: integers (n_vectors,), the number of each vector's group, from 0 without gaps.
        normalize: scale each mean to length 1; turn it off where lengths are weights.

    Returns:
        float32 (n_groups, dim).

    Example:
        >>> group_means(np.array([[1.0, 0.0], [0.0, 2.0], [3.0, 0.0]]), np.array([0, 1, 0]), normalize=False).tolist()
        [[2.0, 0.0], [0.0, 2.0]]
    """
    rows = np.asarray(vectors, np.float32)
    means = np.stack([rows[groups == group].mean(axis=0) for group in range(int(groups.max()) + 1)])
    return np.asarray(_unit(means) if normalize else means, np.float32)


def ward_pool(vectors: NDArray[Any], n_clusters: int = 32, *, normalize: bool = True) -> NDArray[np.float32]:
    """Average similar vectors, clustered by Ward's linkage of the vectors themselves: a first stage for exact MaxSim.

    `hierarchical_pool` compares rows of cosines instead.

    Zero vectors, by which a model keeps every best match at 0 or more, are not averaged: one of them becomes the last
    row. Where lengths are weights, turn `normalize` off.

    Args:
        vectors: (n_vectors, dim).
        n_clusters: the maximum number of vectors to return, the zero vector included.
        normalize: scale each mean to length 1.

    Returns:
        float32 (at most n_clusters, dim); a page with no more vectors than that is returned unchanged.

    Raises:
        InputError: `vectors` is not a multi-vector, or has NaN or infinity, or n_clusters is below 1 (below 2 where
            there is a zero vector).

    Example:
        >>> ward_pool(np.array([[1.5, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 2.0]]), 3, normalize=False).tolist()
        [[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]]
    """
    array = _finite(vectors, "ward_pool")
    directed = array.any(axis=1)
    zeros = int(not directed.all())
    if n_clusters < 1 + (zeros and bool(directed.any())):
        raise InputError(f"ward_pool: n_clusters must be at least 1, and 2 with a zero vector, got {n_clusters}")
    if len(array) <= n_clusters:
        return array
    rows = array[directed]
    target = n_clusters - zeros
    if target < len(rows):
        rows = group_means(rows, _ward_labels(rows, target), normalize=normalize)
    return np.concatenate([rows, np.zeros((zeros, array.shape[1]), np.float32)])


def _finite(vectors: Any, name: str) -> NDArray[np.float32]:
    """A multi-vector as float32: distances to NaN or infinity have no order."""
    array = as_multi_vector(vectors).astype(np.float32, copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{name}: vectors has NaN or infinity")
    return array


def _by_cosines(array: NDArray[np.float32]) -> NDArray[np.float64]:
    """Rows with the distances that the rows of 1 - X X^T have."""
    # Two rows of 1 - X X^T differ by X (x_i - x_j), whose length is that of R (x_i - x_j) where X = Q R. So the rows
    # of X R^T (at most dim numbers each) have the same distances as the rows of 1 - X X^T (n numbers each).
    exact = array.astype(np.float64)
    triangle: NDArray[np.float64] = np.linalg.qr(exact, mode="r")  # type: ignore[assignment]  # of R alone
    return np.asarray(exact @ triangle.T)


def _ward_labels(observations: NDArray[Any], n_clusters: int) -> NDArray[np.int64]:
    """The cluster of each observation by Ward's linkage, in the order of scipy's labels, from 0."""
    # scipy is slow to import.
    from scipy.cluster.hierarchy import fcluster, linkage

    # linkage(observations) would do the same, but warn that a symmetric matrix looks like a distance matrix.
    tree = linkage(_distances(observations), method="ward")
    # Ties can leave fewer clusters than requested; labels are 1, 2, ... without gaps.
    return np.asarray(fcluster(tree, t=n_clusters, criterion="maxclust") - 1, np.int64)


def _distances(observations: NDArray[Any]) -> NDArray[np.float64]:
    """The n (n - 1) / 2 Euclidean distances of n observations, as scipy's `pdist` returns them, to the last bit."""
    from scipy.spatial.distance import pdist, squareform

    # By products of the rows, as |a|^2 + |b|^2 - 2 ab, in a third of the time. Float16 numbers are multiples of 2^-24,
    # and their products of 2^-48: below 2^5, so for squared lengths below 2^3, float64 rounds none of the sums, in
    # whatever order BLAS adds. Other numbers would lose digits of small distances.
    rows = observations.astype(np.float64)
    squares = np.einsum("ij,ij->i", rows, rows)
    if squares.max() >= 8 or (rows != observations.astype(np.float16)).any():
        return np.asarray(pdist(rows))
    products = rows @ rows.T
    products *= -2
    products += squares
    products += squares[:, None]
    distances: NDArray[np.float64] = squareform(products, checks=False)
    return np.sqrt(distances, out=distances)


def _unit(rows: NDArray[Any]) -> NDArray[Any]:
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1))
