"""Pages of int8: a quarter of float32's memory, and MaxSim of whole numbers, which no order of adding can change.

    page    x = centre + scale x value,   value -127 to 127, one centre and one scale a page
    query   q = scale x value,            value  -63 to  63, one scale a vector

MaxSim = sum over q of (q . centre + scale x scale of q x max over the page's vectors of a product of whole numbers)

The centre is the mean of a page's vectors, which have much in common. What is left is shorter, so its numbers are finer
and a query's rounding weighs less; the product with the centre is one for a page and is made of floats.

A query has 7 bits because of processors that have AVX2 and no VNNI: they multiply bytes of an unsigned by those of a
signed vector and add two products in 16 bits, where more than 32767 is cut off without a word (`vpmaddubsw`; "S8S8
faster, U8S8 may saturate" in onnxruntime's notes on quantization). 255 x 63 x 2 = 32130 fits, and so does 127 x 127 x 2
= 32258 the other way round; hence the products are exact on every processor. Documents keep 8 bits, since the score
takes the best of a thousand of their errors and of a query's only one.

One scale a page lets the best match be found among whole numbers, without a multiplication for each product. It suits
vectors of like lengths, as models of this kind make them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.scoring._blocks import blocks
from colpali_integrations.scoring._kernels import Buffers, share_out, shared_session, single_threaded
from colpali_integrations.scoring.maxsim import PreparedPages, as_multi_vector

__all__ = ["Int8Pages", "quantize_int8", "quantize_queries", "scaled_matches"]

PAGE_LEVELS, QUERY_LEVELS = 127, 63
# Page vectors in a block, and products held at once by a thread: as for floats (`maxsim.py`).
_ROWS = 4200
_PRODUCTS = 2**20
# Centres made float64 at a time, 2 MB of them: those of 50,000 pages at once took longer than their products.
_CENTRES = 2048


class Int8Pages(PreparedPages):
    """Pages as whole numbers, made by `quantize_int8`; `max_sim` takes them as it takes arrays.

    Its four arrays are all there is to it: save them with `numpy.savez` and give them to the constructor again.

    Args:
        values: int8 (vectors of all pages, dim), -127 to 127.
        lengths: vectors of each page, of sum `len(values)`.
        scales: what a page's values are multiplied by.
        centres: float32 (pages, dim), what is added to them.

    Raises:
        InputError: the arrays do not fit each other, or hold what quantize_int8 does not make.

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
        """A range of pages, without a copy."""
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
        """Bytes of the four arrays."""
        return self.values.nbytes + self.lengths.nbytes + self.scales.nbytes + self.centres.nbytes

    def page(self, index: int) -> NDArray[np.int8]:
        """The values of a page, int8 (n_vectors, dim)."""
        start = self._starts[index]
        return self.values[start : start + self.lengths[index]]

    def dequantize(self, index: int) -> NDArray[np.float32]:
        """A page's vectors, each number off by at most half the page's scale: float32 (n_vectors, dim)."""
        floats: NDArray[np.float32] = self.page(index) * self.scales[index] + self.centres[index]
        return floats

    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.float64]:
        """As `PreparedPages.best_matches`: exact for the quantised queries and pages, but for a last rounding."""
        values, scales = quantize_queries(queries)
        return scaled_matches(self.best_products(values, threads=threads), queries, scales, self.scales, self.centres)

    def best_products(self, queries: NDArray[np.int8], *, threads: int | None = None) -> NDArray[np.int32]:
        """The highest product of whole numbers, exact: int32 (n_query_vectors, n_pages).

        Args:
            queries: int8 (n_query_vectors, dim) of -63 to 63, at least one.
            threads: as `best_matches`.
        """
        best = np.empty((len(queries), len(self)), np.int32)
        columns = np.ascontiguousarray(queries.T)
        # Pages are shown as 0 to 255, so a product is larger by 128 times the sum of the query vector.
        excess = 128 * queries.sum(axis=1, dtype=np.int32)
        _product()  # made once, here, rather than waited for by every thread

        def score(block: tuple[int, int], buffers: Buffers) -> None:
            first, last = block
            start, stop = self._starts[first], self._starts[last - 1] + self.lengths[last - 1]
            size = int(stop - start)
            buffer = buffers.get(np.uint8)
            if buffer is None or len(buffer) < size:
                buffer = buffers[np.uint8] = np.empty((max(_ROWS, size), self.dim), np.uint8)
            rows = np.bitwise_xor(self.values[start:stop].view(np.uint8), np.uint8(128), out=buffer[:size])
            step = max(16, _PRODUCTS // size)
            for at in range(0, len(queries), step):
                feed = {"pages": rows, "queries": columns[:, at : at + step]}
                [products] = _product().run(None, feed)
                np.maximum.reduceat(
                    products, self._starts[first:last] - start, axis=1, out=best[at : at + step, first:last]
                )

        if best.size:
            share_out(blocks(self.lengths.tolist(), _ROWS), score, threads=threads)
        best -= excess[:, None]
        return best

    def __repr__(self) -> str:
        return f"Int8Pages({len(self)} pages of {len(self.values)} vectors, dim={self.dim})"


def quantize_int8(pages: Iterable[NDArray[Any]]) -> Int8Pages:
    """Pages as whole numbers of 8 bits around their mean, one scale a page.

    On pages of unit vectors the order of the best changes little, and a rerank of the best by their floats restores it
    (`benchmarks/maxsim.py` measures how far)::

        small = quantize_int8(pages)
        best = top_pages(max_sim(query, small), 20)
        best = best[top_pages(max_sim(query, [pages[index] for index in best]), 10)]

    Args:
        pages: (n_vectors, dim) arrays of floats, a page each, or one (n_pages, n_vectors, dim) array; a generator is
            read a page at a time.

    Returns:
        The pages; the number of each that is farthest from the mean became 127 or -127.

    Raises:
        InputError: a page is no multi-vector, has another dim than the first, holds NaN or infinity, or there is none.

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
    for index, page in enumerate(pages):
        array = as_multi_vector(page, f"pages[{index}]").astype(np.float32, copy=False)
        if values and array.shape[1] != values[0].shape[1]:
            raise InputError(
                f"quantize_int8: pages[0] has dim {values[0].shape[1]}, pages[{index}] has dim {array.shape[1]}; were "
                "all embedded by the same model?"
            )
        with np.errstate(invalid="ignore", over="ignore"):  # _quantized refuses what comes of it
            centre = array.mean(axis=0, dtype=np.float64).astype(np.float32)
            array = array - centre
        rows, scale = _quantized(array, np.abs(array).max(keepdims=True), PAGE_LEVELS, f"pages[{index}]")
        values.append(rows)
        scales.append(scale[0, 0])
        centres.append(centre)
    if not values:
        raise InputError("quantize_int8: expected at least one page, got none")
    lengths = np.array([len(rows) for rows in values])
    return Int8Pages(np.concatenate(values), lengths, np.array(scales), np.stack(centres))


def quantize_queries(queries: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
    """Query vectors as whole numbers of 7 bits, one scale a vector.

    Args:
        queries: (n_vectors, dim) of floats.

    Returns:
        int8 (n_vectors, dim) of -63 to 63, and float64 (n_vectors,).

    Raises:
        InputError: a number is not finite.
    """
    array = np.asarray(queries, np.float32)
    values, scales = _quantized(array, np.abs(array).max(axis=1, keepdims=True), QUERY_LEVELS, "queries")
    return values, scales[:, 0].astype(np.float64)


def scaled_matches(
    products: NDArray[np.int32],
    queries: NDArray[Any],
    query_scales: NDArray[np.float64],
    page_scales: NDArray[np.float32],
    centres: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Best products of whole numbers as products of vectors: float64 (n_query_vectors, n_pages)."""
    scaled = products * (query_scales[:, None] * page_scales.astype(np.float64))
    asked = np.asarray(queries, np.float64)
    for first in range(0, len(centres), _CENTRES):
        scaled[:, first : first + _CENTRES] += asked @ centres[first : first + _CENTRES].astype(np.float64).T
    return scaled


def _quantized(
    array: NDArray[np.float32], greatest: NDArray[np.float32], levels: int, name: str
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    if not np.isfinite(greatest).all():  # NaN and infinity are the greatest of whatever they are among
        raise InputError(f"{name}: NaN or infinity cannot be written as whole numbers")
    scales = greatest / np.float32(levels)
    # What is all zeros, or so small that its scale is none, has values of 0.
    rounded = np.rint(array / np.where(scales > 0, scales, np.float32(np.inf)))
    return np.clip(rounded, -levels, levels).astype(np.int8), scales


def _product() -> Any:
    return shared_session(np.int8, lambda: single_threaded(_graph()))


def _graph() -> Any:
    """Pages by queries, and the result transposed, so that a page's products lie side by side."""
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("pages", TensorProto.UINT8, ["n", "dim"]),
        helper.make_tensor_value_info("queries", TensorProto.INT8, ["dim", "m"]),
    ]
    nodes = [
        helper.make_node("MatMulInteger", ["pages", "queries"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["products"], perm=[1, 0]),
    ]
    outputs = [helper.make_tensor_value_info("products", TensorProto.INT32, ["m", "n"])]
    return helper.make_graph(nodes, "max_sim_int8", inputs, outputs)
