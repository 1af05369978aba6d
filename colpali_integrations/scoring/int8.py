"""Pages of int8: a quarter of float32's memory, and MaxSim of integers, which does not depend on the order of adding.

    page    x = centre + scale x value,   value -127 to 127, one centre and one scale per page
    query   q = scale x value,            value  -63 to  63, one scale per vector

MaxSim = sum over q of (q . centre + scale x scale of q x max over the page's vectors of a product of integers)

The centre is the mean of a page's vectors, which have much in common. The differences from it are short, so their
integers are finer and a query's rounding counts less. The product with the centre is computed in floats, once per page.

A query has 7 bits because of processors with AVX2 and without VNNI: they multiply unsigned by signed bytes and add two
products in 16 bits, where a sum above 32767 saturates silently (`vpmaddubsw`; "S8S8 faster, U8S8 may saturate" in
onnxruntime's notes on quantization). 255 x 63 x 2 = 32130 fits, and so does 127 x 127 x 2 = 32258 for packed pages, so
the products are exact on every processor. Pages have 8 bits, because a score takes the best of a thousand page vectors
with their errors, but only one query vector.

With one scale per page, the best match is found among integers, without a multiplication per product. This suits
vectors of similar lengths, such as those of late interaction models.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.scoring._blocks import LIMITS, Limits, blocks
from colpali_integrations.scoring._kernels import (
    Buffers,
    between,
    query_slices,
    run,
    share_out,
    shared_session,
    single_threaded,
)
from colpali_integrations.scoring.maxsim import PreparedPages, float_pages

__all__ = [
    "Int8Pages",
    "_padded",
    "products_in_runs",
    "quantize_int8",
    "quantize_queries",
    "quantize_values",
    "scaled_matches",
]

PAGE_LEVELS, QUERY_LEVELS = 127, 63
# Centres converted to float64 at a time, 2 MB: converting those of 50,000 pages at once took longer than the products.
_CENTRES = 2048


class Int8Pages(PreparedPages):
    """Pages as integers, made by `quantize_int8`; `max_sim` takes them in the place of arrays.

    Four arrays hold everything: save them with `numpy.savez`, and pass them to the constructor to load them.

    Args:
        values: int8 (vectors of all pages, dim), -127 to 127.
        lengths: integers (n_pages,), the number of vectors per page; their sum is `len(values)`.
        scales: float32 (n_pages,), the factor of each page's values.
        centres: float32 (n_pages, dim), the vector that is added to each page's scaled values.

    Raises:
        InputError: the arrays do not fit each other, or have values that `quantize_int8` does not make.

    Example:
        >>> from colpali_integrations import max_sim
        >>> pages = quantize_int8([np.array([[0.6, 0.8], [-1.0, 0.0]]), np.array([[0.0, -1.0]])])
        >>> max_sim(np.array([[1.0, 0.0], [0.0, 1.0]]), pages).round(1).tolist()
        [1.399999976158142, -1.0]
    """

    def __init__(
        self, values: NDArray[np.int8], lengths: NDArray[Any], scales: NDArray[Any], centres: NDArray[Any]
    ) -> None:
        values, lengths = np.asarray(values), np.asarray(lengths)
        scales, centres = np.asarray(scales, np.float32), np.asarray(centres, np.float32)
        if (
            values.ndim != 2
            or values.dtype != np.int8
            or lengths.ndim != 1
            or lengths.dtype.kind not in "iu"
            or scales.shape != lengths.shape
            or (lengths < 1).any()
            or int(lengths.sum()) != len(values)
            or (values == -128).any()
            or not (np.isfinite(scales) & (scales >= 0)).all()
            or centres.shape != (len(lengths), values.shape[1])
            or not np.isfinite(centres).all()
        ):
            raise InputError(
                "Int8Pages: expected int8 values (vectors, dim) of -127 to 127, lengths of at least 1 that add up to "
                f"the vectors, and as many finite scales and centres; got {values.dtype} {values.shape}, "
                f"{lengths.dtype} {lengths.shape} of sum {lengths.sum()}, {scales.shape}, {centres.shape}"
            )
        self.values, self.lengths, self.scales, self.centres = values, lengths.astype(np.int64), scales, centres
        self.dim = values.shape[1]
        self._starts = np.cumsum(self.lengths) - self.lengths

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, pages: slice) -> Int8Pages:
        """Select a range of pages, without a copy."""
        if not isinstance(pages, slice):
            raise TypeError(f"Int8Pages takes slices, got {pages!r}; dequantize({pages!r}) gives one page's floats")
        first, last, step = pages.indices(len(self))
        if step != 1:
            raise TypeError(f"Int8Pages takes slices of step 1, got {step}")
        last = max(first, last)
        start = int(self.lengths[:first].sum())
        stop = start + int(self.lengths[first:last].sum())
        pages = slice(first, last)
        return Int8Pages(self.values[start:stop], self.lengths[pages], self.scales[pages], self.centres[pages])

    @property
    def nbytes(self) -> int:
        """Total bytes of the four arrays."""
        return self.values.nbytes + self.lengths.nbytes + self.scales.nbytes + self.centres.nbytes

    def page(self, index: int) -> NDArray[np.int8]:
        """Get the values of a page, int8 (n_vectors, dim)."""
        start = self._starts[index]
        return self.values[start : start + self.lengths[index]]

    def dequantize(self, index: int) -> NDArray[np.float32]:
        """Restore a page's vectors, float32 (n_vectors, dim); a number is off by at most half the page's scale."""
        return np.asarray(self.page(index) * self.scales[index] + self.centres[index])

    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.float64]:
        """Compute `PreparedPages.best_matches`, exact for the quantised queries and pages up to a last rounding."""
        values, scales = quantize_queries(queries)
        return scaled_matches(self.best_products(values, threads=threads), queries, scales, self.scales, self.centres)

    def best_products(self, queries: NDArray[np.int8], *, threads: int | None = None) -> NDArray[np.int32]:
        """Compute the highest products of integers, exactly: int32 (n_query_vectors, n_pages).

        Args:
            queries: int8 (n_query_vectors, dim) of -63 to 63, at least one.
            threads: as in `best_matches`.
        """
        return products_in_runs(queries, [self.values], self.lengths, threads=threads, limits=self._limits)

    def __repr__(self) -> str:
        return f"Int8Pages({len(self)} pages of {len(self.values)} vectors, dim={self.dim})"


def quantize_int8(pages: Iterable[NDArray[Any]]) -> Int8Pages:
    """Quantise pages to integers of 8 bits around their mean, with one scale per page.

    On pages of unit vectors the order of the best pages changes little, and a rerank by their floats restores it
    (`benchmarks/maxsim.py` measures how far)::

        small = quantize_int8(pages)
        best = top_pages(max_sim(query, small), 20)
        best = best[top_pages(max_sim(query, [pages[index] for index in best]), 10)]

    Args:
        pages: (n_vectors, dim) arrays of floats, one per page, or one (n_pages, n_vectors, dim) array; a generator is
            read page by page.

    Returns:
        The pages; in each, the number farthest from the mean becomes 127 or -127.

    Raises:
        InputError: a page is not a multi-vector, has another dim than the first, or has NaN or infinity; or there is
            no page.

    Example:
        >>> small = quantize_int8([np.array([[0.6, 0.8], [-1.0, 0.0]])])
        >>> small.values.dtype.name, small.values.shape
        ('int8', (2, 2))
        >>> bool(np.abs(small.dequantize(0) - [[0.6, 0.8], [-1.0, 0.0]]).max() < 0.01)
        True
    """
    values: list[NDArray[np.int8]] = []
    scales: list[np.float32] = []
    centres: list[NDArray[np.float32]] = []
    for index, page in enumerate(float_pages(pages, "quantize_int8")):
        centre = page.mean(axis=0, dtype=np.float64).astype(np.float32)
        with np.errstate(over="ignore"):  # quantize_values refuses infinity
            array = page - centre
        rows, scale = quantize_values(array, np.abs(array).max(keepdims=True), PAGE_LEVELS, f"pages[{index}]")
        values.append(rows)
        scales.append(scale[0, 0])
        centres.append(centre)
    if not values:
        raise InputError("quantize_int8: expected at least one page, got none")
    lengths = np.array([len(rows) for rows in values])
    return Int8Pages(np.concatenate(values), lengths, np.array(scales), np.stack(centres))


def quantize_queries(queries: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Quantise query vectors to integers of 7 bits, with one scale per vector.

    Args:
        queries: (n_vectors, dim) of floats.

    Returns:
        int8 (n_vectors, dim) of -63 to 63, and float64 (n_vectors,).

    Raises:
        InputError: a number is not finite.
    """
    array = np.asarray(queries, np.float32)
    values, scales = quantize_values(array, np.abs(array).max(axis=1, keepdims=True), QUERY_LEVELS, "queries")
    return values, scales[:, 0].astype(np.float64)


def products_in_runs(
    queries: NDArray[np.int8],
    runs: Sequence[NDArray[np.int8]],
    lengths: NDArray[np.int64],
    *,
    threads: int | None = None,
    limits: Limits = LIMITS,
) -> NDArray[np.int32]:
    """Compute the highest products of integers, exactly, with pages that lie one behind another in larger arrays.

    Args:
        queries: int8 (n_query_vectors, dim) of -63 to 63, at least one.
        runs: int8 (n, dim) arrays, each with the vectors of one or more whole pages.
        lengths: (n_pages,), the number of vectors per page over all runs, at least 1 each.
        threads: blocks in work at the same time; None for one per core that this process may use.
        limits: the sizes of blocks; these have fewer vectors if the vectors have more than 128 numbers.

    Returns:
        int32 (n_query_vectors, n_pages).
    """
    best = np.empty((len(queries), len(lengths)), np.int32)
    columns, dim = np.ascontiguousarray(queries.T), queries.shape[1]
    limits = limits.for_dim(dim)
    # The product takes pages as 0 to 255, so it is larger by 128 times the sum of the query vector.
    excess = 128 * queries.sum(axis=1, dtype=np.int32)
    session = shared_session(np.int8, lambda: single_threaded(_graph()))
    ends, run_ends = np.cumsum(lengths), np.cumsum([len(run) for run in runs])
    begins = ends - lengths

    def score(block: tuple[int, int], buffers: Buffers) -> None:
        first, last = block
        size = int(ends[last - 1] - begins[first])
        if np.int8 not in buffers or len(buffers[np.int8]) < size:
            buffers[np.int8] = np.empty((max(limits.rows, size), dim), np.int8)
        parts = between(runs, run_ends, int(begins[first]), int(ends[last - 1]))
        rows = np.concatenate(parts, out=buffers[np.int8][:size]).view(np.uint8)
        np.bitwise_xor(rows, np.uint8(128), out=rows)
        starts = begins[first:last] - begins[first]
        for part in query_slices(len(queries), size, limits):
            products = run(session, {"pages": rows, "queries": _padded(columns[:, part])})
            few = best[part, first:last]
            np.maximum.reduceat(products[: len(few)], starts, axis=1, out=few)

    if best.size:
        share_out(blocks(lengths.tolist(), limits.rows), score, threads=threads)
    best -= excess[:, None]
    return best


def _padded(columns: NDArray[np.int8]) -> NDArray[np.int8]:
    """Fill 17 to 31 columns (dim, n) up to 32 with zeros.

    On processors with AMX, onnxruntime before 1.26 returns wrong products of 32 and more rows with so many columns.
    """
    n_columns = columns.shape[1]
    if not 16 < n_columns < 32:
        return columns
    return np.pad(columns, ((0, 0), (0, 32 - n_columns)))


def scaled_matches(
    products: NDArray[np.int32],
    queries: NDArray[Any],
    query_scales: NDArray[np.float64],
    page_scales: NDArray[np.float32],
    centres: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Convert the best products of integers to products of vectors: float64 (n_query_vectors, n_pages)."""
    scaled = products * (query_scales[:, None] * page_scales.astype(np.float64))
    floats = np.asarray(queries, np.float64)
    for first in range(0, len(centres), _CENTRES):
        scaled[:, first : first + _CENTRES] += floats @ centres[first : first + _CENTRES].astype(np.float64).T
    return scaled


def quantize_values(
    array: NDArray[np.float32], greatest: NDArray[np.float32], levels: int, name: str
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Round numbers to integers.

    Args:
        array: of floats.
        greatest: the highest absolute values, in the shape of the scales that share an integer range.
        levels: the integer that the highest value becomes.
        name: of the array, for messages.

    Returns:
        int8 of `array`'s shape, and the scales, of `greatest`'s.

    Raises:
        InputError: a number is not finite.
    """
    if not np.isfinite(greatest).all():  # the greatest is NaN or infinity where any number is
        raise InputError(f"{name}: NaN or infinity cannot be quantised")
    scales = greatest / np.float32(levels)
    # The values are 0 where all numbers are 0, or so small that the scale underflows to 0.
    rounded = np.rint(array / np.where(scales > 0, scales, np.float32(np.inf)))
    return np.clip(rounded, -levels, levels).astype(np.int8), scales


def _graph() -> Any:
    """Make the graph of pages by queries; its output is transposed, so that a page's products are adjacent."""
    from onnx import parser

    return parser.parse_graph(
        "max_sim_int8 (uint8[n, dim] pages, int8[dim, m] queries) => (int32[m, n] products) {"
        "columns = MatMulInteger(pages, queries) products = Transpose<perm = [1, 0]>(columns)}"
    )
