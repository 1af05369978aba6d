"""Pages laid out once for many queries.

A matrix product first copies its right operand into the order in which its inner loop reads it. For a query of 20
vectors that copy costs as much as the product, and `max_sim` pays it for every page at every query. onnxruntime makes
it once for weights, so here pages are weights of graphs, with a few pages per graph::

    query --+-- MatMul page 0 -- ReduceMax --+
            +-- MatMul page 1 -- ReduceMax --+-- Concat -- best match of each vector on each page
            +-- ...                          +

Neighbouring pages of equal length share a product and a maximum, because each operator has an overhead of one or two
microseconds, which is most of the time for pages of 16 or 32 pooled vectors.

The pages' own arrays are released. Packed pages are as large as the pages in float32, or in int8 for `Int8Pages`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.errors import InputError
from colpali_integrations.runtime.machine import release_freed_memory
from colpali_integrations.scoring._kernels import Buffers, query_slices, run, share_out, single_threaded
from colpali_integrations.scoring.int8 import Int8Pages, quantize_queries, scaled_matches
from colpali_integrations.scoring.maxsim import PreparedPages, float_pages

__all__ = ["PackedPages"]

# Rows of pages that share a product.
_SHARED = 1024
# Offset of int8 queries: the left operand must be unsigned to be fast, so -63 to 63 become 1 to 127.
_ZERO = 64
# Queries at a time for pages of int8 with a product of 17 to 31 rows.
_FEW = 31


@dataclass(frozen=True)
class _Chunk:
    first: int
    last: int
    longest: int
    narrow: bool
    session: Any


class PackedPages(PreparedPages):
    """Pages laid out for many queries: `max_sim(query, packed)` scores them faster than the arrays they came from.

    Any number of threads may use it at the same time, and so may forked processes. It cannot be pickled, and pages
    cannot be added: where pages come and go, keep the arrays and pack them again.

    Args:
        pages: (n_vectors, dim) arrays of finite numbers, one per page; a generator is read a few pages at a time.
            Scores are those of `max_sim` with the arrays as float32, up to the order in which products are added. Or
            `Int8Pages`: scores are bit-identical to theirs.

    Raises:
        InputError: a page is not a multi-vector, has another dim than the first, or has NaN or infinity; or there is
            no page.

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
            source = float_pages(pages, "PackedPages")
        self._chunks: list[_Chunk] = []
        waiting: list[NDArray[Any]] = []
        for page in source:
            if waiting and sum(one.nbytes for one in waiting) + page.nbytes > self._limits.packed:
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
        """Whether the packed pages are `Int8Pages`."""
        return self._scales is not None

    def best_matches(self, queries: NDArray[Any], *, threads: int | None = None) -> NDArray[np.floating[Any]]:
        """Compute `PreparedPages.best_matches`, as float32, or as float64 for int8 pages."""
        if self._scales is not None:
            values, scales = quantize_queries(queries)
            shifted = (values.astype(np.int16) + _ZERO).astype(np.uint8)
            return scaled_matches(self._best(shifted, np.int32, threads), queries, scales, *self._scales)
        rows = np.ascontiguousarray(queries, np.float32)
        if not np.isfinite(rows).all():
            raise InputError("queries have NaN or infinity, which packed pages cannot be compared with")
        return self._best(rows, np.float32, threads)

    def _best(self, queries: NDArray[Any], dtype: type[np.generic], threads: int | None) -> NDArray[Any]:
        best = np.empty((len(queries), len(self)), dtype)

        def score(chunk: _Chunk, _: Buffers) -> None:
            for part in query_slices(len(queries), chunk.longest, self._limits, most=_FEW if chunk.narrow else None):
                best[part, chunk.first : chunk.last] = run(chunk.session, {"queries": queries[part]})

        share_out(self._chunks, score, threads=threads)
        return best

    def _pack(self, pages: list[NDArray[Any]]) -> None:
        first = self._chunks[-1].last if self._chunks else 0
        # Without an arena, because each chunk would have its own, and the products are small.
        session = single_threaded(_graph(pages), arena=False)
        # On processors with AMX, onnxruntime before 1.26 returns wrong products of so many rows with 32 queries or
        # more.
        narrow = self.int8 and any(16 < sum(map(len, group)) < 32 for group in _neighbours(pages))
        self._chunks.append(_Chunk(first, first + len(pages), max(_SHARED, *map(len, pages)), narrow, session))
        self.nbytes += sum(page.nbytes for page in pages)
        release_freed_memory()  # the pages' other copies, which otherwise cost half as much memory again

    def __repr__(self) -> str:
        return f"PackedPages({len(self)} pages, dim={self.dim}, {'int8' if self.int8 else 'float32'})"


def _neighbours(pages: list[NDArray[Any]]) -> Iterator[list[NDArray[Any]]]:
    """Group neighbouring pages of one length, up to `_SHARED` rows or one longer page per group."""
    group: list[NDArray[Any]] = []
    for page in pages:
        if group and (len(page) != len(group[0]) or (len(group) + 1) * len(page) > _SHARED):
            yield group
            group = []
        group.append(page)
    yield group


def _graph(pages: list[NDArray[Any]]) -> Any:
    from onnx import TensorProto, helper, parser

    small = pages[0].dtype == np.int8
    weights = [helper.make_tensor("zero", TensorProto.UINT8, (), [_ZERO])] if small else []
    product = "MatMulInteger(queries, pages{0}, zero)" if small else "MatMul(queries, pages{0})"
    node = f"product{{0}} = {product} apart{{0}} = Reshape(product{{0}}, shape{{0}}) "
    node += "best{0} = ReduceMax <axes = [2], keepdims = 0> (apart{0})"
    groups = list(_neighbours(pages))
    for number, group in enumerate(groups):
        columns = np.concatenate(group).T
        page_type = TensorProto.INT8 if small else TensorProto.FLOAT
        weights.append(helper.make_tensor(f"pages{number}", page_type, columns.shape, columns.tobytes(), raw=True))
        weights.append(helper.make_tensor(f"shape{number}", TensorProto.INT64, (3,), [-1, len(group), len(group[0])]))
    nodes = "\n".join(node.format(number) for number in range(len(groups)))
    together = ", ".join(f"best{number}" for number in range(len(groups)))
    graph = parser.parse_graph(
        f"max_sim_packed ({'uint8' if small else 'float'}[m, {pages[0].shape[1]}] queries)"
        f" => ({'int32' if small else 'float'}[m, {len(pages)}] best)"
        f"{{{nodes}\nbest = Concat <axis = 1> ({together})}}"
    )
    graph.initializer.extend(weights)
    return graph
