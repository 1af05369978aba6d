"""Pages by the centroids next to their vectors, for estimates of MaxSim that read a small part of an index.

Vectors are grouped around centroids, and a list per centroid names the pages that have a vector there. A query vector
is compared with the centroids and not with the pages. It opens the lists of its nearest centroids: each page in them
gets the product with the nearest centroid that names it, and all other pages the product with the farthest centroid
that was opened, which theirs do not exceed. The sum over the query vectors estimates MaxSim: it chooses the pages that
are worth exact scores.

Centroids instead of vectors are the first step of PLAID (Santhanam et al. 2022, arXiv 2205.09707), and a bound for
pages that a query vector did not reach comes from XTR (Lee et al. 2023, arXiv 2304.01982) and WARP (Scheerer et al.
2025, arXiv 2501.17788).

Centroids are found in two levels: a coarse one of n groups, and n centroids per group. So a vector is compared with 2 n
instead of n x n centroids, and an index of 2 million vectors is made in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.scoring._blocks import blocks
from colpali_integrations.scoring._kernels import Buffers, products, share_out
from colpali_integrations.scoring.maxsim import PreparedPages, float_pages

__all__ = ["CentroidPages", "cluster_pages"]

# Vectors per centroid. Of the best ten of 4,000 pages, the best 3 % by estimate held 99 % with 6 vectors per centroid,
# 92 % with 32 and 80 % with 90; with 32, the index takes a twentieth of the bytes of float16 vectors.
_VECTORS = 32
_LEAST_GROUPS, _MOST_GROUPS = 8, 256
# Vectors per centroid that it is computed from (a fourth of them lost 2 %), and rounds.
_SAMPLE, _ROUNDS = 16, 4
# Vectors compared with the centroids at a time, 16 MB of floats, and centroids with a query, 1 MB of float16.
_ROWS, _CENTROIDS = 1 << 15, 1 << 12
# One of so many lists is opened per query vector, and at least so many; four times as many found no more.
_OPENED, _LEAST_OPENED = 256, 32


class CentroidPages(PreparedPages):
    """Pages by the centroids of their vectors, made by `cluster_pages`; `max_sim` takes them and returns estimates.

    Three arrays hold everything: save them with `numpy.savez`, and pass them to the constructor to load them.

    Args:
        n_pages: number of pages.
        centroids: float16 (n_centroids, dim).
        ends: int64 (n_centroids,), the end of each centroid's list in `pages`; the first list begins at 0.
        pages: uint32 (n,), the lists, each with the numbers of the pages that have a vector at the centroid.

    Raises:
        InputError: the arrays do not fit each other.

    Example:
        >>> from colpali_integrations import max_sim
        >>> few = cluster_pages([np.array([[0.6, 0.8], [-1.0, 0.0]]), np.array([[0.0, -1.0]])])
        >>> len(few), few.dim, max_sim(np.array([[1.0, 0.0]]), few).round(1).tolist()
        (2, 2, [0.6000000238418579, 0.0])
    """

    def __init__(
        self, n_pages: int, centroids: NDArray[np.float16], ends: NDArray[np.int64], pages: NDArray[np.uint32]
    ) -> None:
        if (
            centroids.ndim != 2
            or ends.shape != (len(centroids),)
            or pages.ndim != 1
            or not len(ends)
            or ends[0] < 1
            or (np.diff(ends) < 1).any()
            or ends[-1] != len(pages)
            or int(pages.max()) >= n_pages
        ):
            raise InputError(
                f"CentroidPages: expected a list of pages below {n_pages} per centroid; got centroids "
                f"{centroids.shape}, ends {ends.shape} and pages {pages.shape}, which do not fit each other"
            )
        self.n_pages, self.centroids, self.ends, self.pages = n_pages, centroids, ends, pages
        self.dim = centroids.shape[1]

    def __len__(self) -> int:
        return self.n_pages

    @property
    def nbytes(self) -> int:
        """Total bytes of the three arrays."""
        return self.centroids.nbytes + self.ends.nbytes + self.pages.nbytes

    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.float32]:
        """Estimate `PreparedPages.best_matches`: the product with the nearest centroid of the page, or a bound."""
        rows = np.ascontiguousarray(queries, np.float32)
        if not np.isfinite(rows).all():
            raise InputError("queries: NaN or infinity cannot be compared")
        near = self._products(rows, threads)
        best = np.empty((len(rows), len(self)), np.float32)
        opened = min(len(self.ends), max(_LEAST_OPENED, math.ceil(len(self.ends) / _OPENED)))
        sizes = np.diff(self.ends, prepend=0)

        def match(number: int, _: Buffers) -> None:
            # The nearest come last, because they overwrite what a page has from others.
            chosen = np.argpartition(near[number], -opened)[-opened:]
            chosen = chosen[np.argsort(near[number, chosen])]
            best[number] = near[number, chosen[0]]
            lengths = sizes[chosen]
            ends = np.cumsum(lengths)
            at = np.repeat(self.ends[chosen] - ends, lengths) + np.arange(ends[-1])
            best[number, self.pages[at]] = np.repeat(near[number, chosen], lengths)

        share_out(range(len(rows)), match, threads=threads)
        return best

    def _products(self, rows: NDArray[np.float32], threads: int | None) -> NDArray[np.float32]:
        near = np.empty((len(rows), len(self.centroids)), np.float32)

        def multiply(part: slice, _: Buffers) -> None:
            near[:, part] = products(rows, self.centroids[part])

        share_out(_parts(len(self.centroids), _CENTROIDS), multiply, threads=threads)
        return near

    def __repr__(self) -> str:
        return f"CentroidPages({len(self)} pages, {len(self.centroids)} centroids, dim={self.dim})"


def cluster_pages(pages: Sequence[NDArray[Any]], *, threads: int | None = None, seed: int = 0) -> CentroidPages:
    """Group the vectors of pages around centroids.

    There is a centroid per 32 vectors, up to 65,536 of them: split more than 2 million vectors among several calls.
    Estimates choose the pages to score. On 100,000 pages of ColTiny the best 6 % by estimate hold 99 % of the ten best
    (`benchmarks/results/large.md`)::

        few = cluster_pages(pages)
        near = top_pages(max_sim(query, few), 500)
        best = near[top_pages(max_sim(query, [pages[index] for index in near]), 10)]

    Args:
        pages: (n_vectors, dim) arrays of floats, one per page.
        threads: parts in work at the same time; None for one per core that this process may use.
        seed: of the choice of vectors that the centroids are computed from.

    Returns:
        The pages.

    Raises:
        InputError: there is no page, one is not a multi-vector of the others' dim, or a number is not finite.

    Example:
        >>> cluster_pages([np.eye(8)[:1], np.eye(8)[4:5]])
        CentroidPages(2 pages, 2 centroids, dim=8)
    """
    if not len(pages):
        raise InputError("cluster_pages: expected at least one page, got none")
    lengths = np.array([len(page) for page in pages])
    rng = np.random.default_rng(seed)
    side = min(_MOST_GROUPS, max(_LEAST_GROUPS, math.ceil(math.sqrt(lengths.sum() / _VECTORS))))
    coarse, fine = _train(_sample(pages, lengths, _SAMPLE * side * side, rng), side, threads, rng)
    codes = np.empty(int(lengths.sum()), np.int64)
    starts = np.cumsum(lengths) - lengths

    def assign(block: tuple[int, int], _: Buffers) -> None:
        first, last = block
        rows = np.concatenate(list(float_pages(pages[first:last], "cluster_pages")))
        codes[starts[first] : starts[first] + len(rows)] = _codes(rows, coarse, fine)

    share_out(blocks(lengths.tolist(), _ROWS), assign, threads=threads)
    # A page stands in a list once, however many of its vectors are there.
    found = np.unique(codes * len(pages) + np.repeat(np.arange(len(pages)), lengths))
    used, counts = np.unique(found // len(pages), return_counts=True)
    centroids = np.concatenate(fine).astype(np.float16)[used]
    return CentroidPages(len(pages), centroids, np.cumsum(counts), (found % len(pages)).astype(np.uint32))


def _sample(
    pages: Sequence[NDArray[Any]], lengths: NDArray[np.int64], most: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """About `most` vectors of all pages, taken at random: (n, dim)."""
    share = min(1.0, most / max(1, int(lengths.sum())))
    counts = np.maximum(1, np.rint(share * lengths)).astype(np.int64)
    few = (page[rng.permutation(len(page))[:count]] for page, count in zip(pages, counts.tolist(), strict=True))
    return np.concatenate(list(float_pages(few, "cluster_pages")))


def _train(
    sample: NDArray[np.float32], side: int, threads: int | None, rng: np.random.Generator
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Find the centroids of the coarse groups, and those within each group."""
    few = sample[rng.permutation(len(sample))[: 256 * side]]
    coarse = _k_means(few, side, rng.permutation(len(few)))
    groups = np.empty(len(sample), np.int64)

    def assign(part: slice, _: Buffers) -> None:
        groups[part] = _nearest(sample[part], coarse)

    share_out(_parts(len(sample), _ROWS), assign, threads=threads)
    fine: list[NDArray[np.float32]] = [coarse[number : number + 1] for number in range(len(coarse))]
    orders = [rng.permutation(int(count)) for count in np.bincount(groups, minlength=len(coarse))]

    def refine(number: int, _: Buffers) -> None:
        if len(orders[number]):
            fine[number] = _k_means(sample[groups == number], side, orders[number])

    share_out(range(len(coarse)), refine, threads=threads)
    return coarse, fine


def _k_means(rows: NDArray[np.float32], most: int, order: NDArray[np.int64]) -> NDArray[np.float32]:
    """At most `most` centroids of vectors, beginning with the first of them in `order`."""
    centroids = rows[order[:most]]
    for _ in range(_ROUNDS):
        codes = _nearest(rows, centroids)
        sums = np.zeros(centroids.shape, np.float64)
        by_code = np.argsort(codes, kind="stable")
        used, firsts, counts = np.unique(codes[by_code], return_index=True, return_counts=True)
        sums[used] = np.add.reduceat(rows[by_code], firsts, axis=0) / counts[:, None]
        centroids = sums[used].astype(np.float32)
    return centroids


def _codes(
    rows: NDArray[np.float32], coarse: NDArray[np.float32], fine: list[NDArray[np.float32]]
) -> NDArray[np.int64]:
    """The number of the nearest centroid in the nearest group, counted over all groups."""
    groups = _nearest(rows, coarse)
    firsts = np.cumsum([0, *map(len, fine)])
    order = np.argsort(groups, kind="stable")
    ends = np.cumsum(np.bincount(groups, minlength=len(coarse)))
    codes = np.empty(len(rows), np.int64)
    for number, part in enumerate(np.split(order, ends[:-1])):
        if len(part):
            codes[part] = firsts[number] + _nearest(rows[part], fine[number])
    return codes


def _nearest(rows: NDArray[np.float32], centroids: NDArray[np.float32]) -> NDArray[np.int64]:
    """The nearest centroid per row, by Euclidean distance."""
    halves = (centroids * centroids).sum(axis=1) / 2
    return np.asarray((products(rows, centroids) - halves).argmax(axis=1))


def _parts(length: int, step: int) -> list[slice]:
    return [slice(start, start + step) for start in range(0, length, step)]
