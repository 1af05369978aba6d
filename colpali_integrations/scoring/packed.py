"""Pages laid out once for many queries.

A matrix product first copies its right operand into the order in which its inner loop reads it. For a query of 20
vectors that copy costs as much as the product, and `max_sim` pays it for every page at every query. onnxruntime makes
it once for weights: so here pages are weights, a graph for every few of them::

    query --+-- MatMul page 0 -- ReduceMax --+
            +-- MatMul page 1 -- ReduceMax --+-- Concat --> best match of each vector on each page
            +-- ...                          +

Neighbours of one length share a product and a maximum, as each costs a microsecond or two beside its work: that is most
of the time for pages of 16 or 32 pooled vectors.

The page's own array is not kept. Packed pages are as large as the pages in float32, or in int8 if they are `Int8Pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.runtime.allocator import release_freed_memory
from colpali_integrations.scoring._kernels import Buffers, share_out, single_threaded
from colpali_integrations.scoring.int8 import Int8Pages, quantize_queries, scaled_matches
from colpali_integrations.scoring.maxsim import PreparedPages, as_multi_vector

__all__ = ["PackedPages"]

# Bytes of pages in a graph. While it is made they are in memory three times.
_CHUNK = 2**24
# Products held at once by a thread.
_PRODUCTS = 2**20
# Rows of pages that share a product.
_SHARED = 1024
# What is added to a query of int8, whose left operand must be unsigned to be fast: -63 to 63 become 1 to 127.
_ZERO = 64


@dataclass(frozen=True)
class _Chunk:
    first: int
    last: int
    longest: int
    session: Any


class PackedPages(PreparedPages):
    """Pages laid out for many queries: `max_sim(query, packed)` scores them faster than the arrays they came from.

    Any number of threads may use it at once. It cannot be pickled, and no page can be added: keep the arrays where
    pages come and go, and pack them again.

    Args:
        pages: (n_vectors, dim) arrays of finite numbers, a page each; a generator is read a few pages at a time.
            Scores are then those of `max_sim` with the arrays as float32, but for the order in which products are
            added. Or `Int8Pages`: scores are then the same, bit for bit.

    Raises:
        InputError: a page is no multi-vector, has another dim than the first, holds NaN or infinity, or there is none.

    Example:
        >>> from colpali_integrations import max_sim
        >>> packed = PackedPages([np.array([[0.6, 0.8], [-1.0, 0.0]]), np.array([[0.0, -1.0]])])
        >>> max_sim(np.array([[1.0, 0.0], [0.0, 1.0]]), packed).round(2).tolist()
        [1.399999976158142, -1.0]
    """

    def __init__(self, pages: Iterable[NDArray[Any]] | Int8Pages) -> None:
        self._scales: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        self.nbytes = 0
        source: Iterator[NDArray[Any]]
        if isinstance(pages, Int8Pages):
            self._scales = pages.scales, pages.centres
            source = (pages.page(index) for index in range(len(pages)))
        else:
            source = _floats(pages)
        self._chunks: list[_Chunk] = []
        waiting: list[NDArray[Any]] = []
        for page in source:
            if waiting and sum(one.nbytes for one in waiting) + page.nbytes > _CHUNK:
                self._pack(waiting)
                waiting = []
            waiting.append(page)
        if not waiting:
            raise InputError("PackedPages: expected at least one page, got none")
        self._pack(waiting)
        self.dim = int(waiting[0].shape[1])

    def __len__(self) -> int:
        return self._chunks[-1].last

    @property
    def int8(self) -> bool:
        """Whether these are `Int8Pages`, packed."""
        return self._scales is not None

    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.floating[Any]]:
        """As `PreparedPages.best_matches`: float32, or float64 of int8 pages."""
        if self._scales is not None:
            values, scales = quantize_queries(queries)
            shifted = (values.astype(np.int16) + _ZERO).astype(np.uint8)
            return scaled_matches(self._best(shifted, np.int32, threads), queries, scales, *self._scales)
        rows = np.ascontiguousarray(queries, np.float32)
        if not np.isfinite(rows).all():
            raise InputError("queries: packed pages cannot be compared with NaN or infinity")
        return self._best(rows, np.float32, threads)

    def _best(self, queries: NDArray[Any], dtype: type[np.generic], threads: int | None) -> NDArray[Any]:
        best = np.empty((len(queries), len(self)), dtype)

        def score(chunk: _Chunk, _: Buffers) -> None:
            step = max(16, _PRODUCTS // chunk.longest)
            for at in range(0, len(queries), step):
                [found] = chunk.session.run(None, {"queries": queries[at : at + step]})
                best[at : at + step, chunk.first : chunk.last] = found

        share_out(self._chunks, score, threads=threads)
        return best

    def _pack(self, pages: list[NDArray[Any]]) -> None:
        first = self._chunks[-1].last if self._chunks else 0
        # Without an arena, whose lock another thread could hold while the process forks. The products are small.
        session = single_threaded(_graph(pages), arena=False)
        self._chunks.append(_Chunk(first, first + len(pages), max(_SHARED, *map(len, pages)), session))
        self.nbytes += sum(page.nbytes for page in pages)
        release_freed_memory()  # of the pages' other copies, which were half as much again without this

    def __repr__(self) -> str:
        return f"PackedPages({len(self)} pages, dim={self.dim}, {'int8' if self.int8 else 'float32'})"


def _floats(pages: Iterable[NDArray[Any]]) -> Iterator[NDArray[np.float32]]:
    dim = 0
    for index, page in enumerate(pages):
        array = as_multi_vector(page, f"pages[{index}]").astype(np.float32, copy=False)
        dim = dim or array.shape[1]
        if array.shape[1] != dim:
            raise InputError(
                f"PackedPages: pages[0] has dim {dim}, pages[{index}] has dim {array.shape[1]}; were all embedded by "
                "the same model?"
            )
        if not np.isfinite(array).all():
            raise InputError(f"pages[{index}]: NaN or infinity in a page that was to be packed")
        yield array


def _neighbours(pages: list[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Runs of pages of one length, of `_SHARED` rows at most or of one page."""
    group: list[NDArray[Any]] = []
    for page in pages:
        if group and (len(page) != len(group[0]) or (len(group) + 1) * len(page) > _SHARED):
            yield group
            group = []
        group.append(page)
    yield group


def _graph(pages: list[NDArray[Any]]) -> Any:
    from onnx import TensorProto, helper

    small = pages[0].dtype == np.int8
    page_type, query_type, best_type = (
        (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32) if small else (TensorProto.FLOAT,) * 3
    )
    weights, nodes = [], []
    if small:
        weights.append(helper.make_tensor("zero", TensorProto.UINT8, (), [_ZERO]))
    groups = list(_neighbours(pages))
    for number, group in enumerate(groups):
        columns = np.concatenate(group).T
        weights.append(helper.make_tensor(f"pages{number}", page_type, columns.shape, columns.tobytes(), raw=True))
        weights.append(helper.make_tensor(f"shape{number}", TensorProto.INT64, (3,), [-1, len(group), len(group[0])]))
        inputs = ["queries", f"pages{number}"]
        nodes += [
            helper.make_node("MatMulInteger", [*inputs, "zero"], [f"products{number}"])
            if small
            else helper.make_node("MatMul", inputs, [f"products{number}"]),
            helper.make_node("Reshape", [f"products{number}", f"shape{number}"], [f"apart{number}"]),
            helper.make_node("ReduceMax", [f"apart{number}"], [f"best{number}"], axes=[2], keepdims=0),
        ]
    nodes.append(helper.make_node("Concat", [f"best{number}" for number in range(len(groups))], ["best"], axis=1))
    asked = helper.make_tensor_value_info("queries", query_type, ["m", pages[0].shape[1]])
    answer = helper.make_tensor_value_info("best", best_type, ["m", len(pages)])
    return helper.make_graph(nodes, "max_sim_packed", [asked], [answer], initializer=weights)
