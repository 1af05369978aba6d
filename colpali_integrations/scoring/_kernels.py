"""The fast path of MaxSim: blocks of pages through a graph of one matrix product, on all cores.

Each block is copied to a buffer that fits the cache, multiplied by the queries in onnxruntime, and reduced to the
highest product per page.

onnxruntime's matrix product is faster than that of numpy's OpenBLAS at these shapes (20 query vectors, thousands of
page vectors), converts float16 on the way, and releases the GIL. A session works in its caller's thread, and the blocks
are distributed over the cores here. So no thread outlives a call, and no thread spins. (OpenBLAS with as many threads
as cores spins while one of them waits for a core that other work occupies: on two busy cores the same scores took 8
times as long.)

The copy costs a pass over memory but pays: the product packs its operand in an order that the processor cannot
prefetch. With the copy, a page of 1030 x 128 took 92 microseconds, without it 130 to 160 (Zen 4, one core).

A run holds mutexes of onnxruntime, which a child forked during the run could never release. Therefore a fork waits for
the runs under way (`run`).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.runtime.machine import available_cores
from colpali_integrations.scoring._blocks import LIMITS, Limits, blocks

if TYPE_CHECKING:
    from onnx import GraphProto

__all__ = [
    *("best_in_runs", "best_matches", "between", "products", "query_slices"),
    *("run", "share_out", "shared_session", "single_threaded"),
]

T = TypeVar("T")
Buffers: TypeAlias = dict[type[np.generic], NDArray[Any]]

_lock = threading.Lock()
_sessions: dict[type[np.generic], Any] = {}


class _Runs:
    """The runs under way in the process; a fork closes the door to new ones and waits until the others have ended."""

    def __init__(self) -> None:
        self.door, self.changed, self.active = threading.Lock(), threading.Condition(), 0

    def wait(self) -> None:
        self.door.acquire()
        with self.changed:
            self.changed.wait_for(lambda: self.active == 0)


_runs = _Runs()


def best_matches(
    queries: NDArray[np.float32],
    pages: Sequence[NDArray[Any]],
    *,
    threads: int | None = None,
    limits: Limits = LIMITS,
) -> NDArray[np.float32]:
    """Compute the highest product of each query vector with a vector of each page.

    float32 pages are multiplied as they are, float16 pages after an exact conversion, others after a rounding to
    float32; sums of products are float32. Nothing is padded, so a page's result depends on its neighbours only by the
    order of a sum. NaN stays NaN.

    Memory beyond the result is bounded per thread: a block (2 MB, or the longest page) and 4 MB of products.

    Args:
        queries: (n_vectors, dim), at least one.
        pages: at least one, each (n_page_vectors, dim) of numbers with at least one row.
        threads: blocks in work at the same time; None for one per core that this process may use.
        limits: the sizes of blocks.

    Returns:
        float32 (n_vectors, n_pages).

    Example:
        >>> best_matches(np.eye(2, dtype=np.float32), [np.array([[0.6, 0.8], [-1.0, 0.0]])]).round(3).tolist()
        [[0.6000000238418579], [0.800000011920929]]
    """
    lengths = np.array([len(page) for page in pages])
    return best_in_runs(queries, pages, lengths, threads=threads, limits=limits)


def best_in_runs(
    queries: NDArray[np.float32],
    runs: Sequence[NDArray[Any]],
    lengths: NDArray[np.int64],
    *,
    threads: int | None = None,
    limits: Limits = LIMITS,
) -> NDArray[np.float32]:
    """Compute `best_matches` of pages that lie one behind another in larger arrays.

    Args:
        queries: (n_vectors, dim), at least one.
        runs: (n, dim) arrays, each with the vectors of one or more whole pages.
        lengths: (n_pages,), the number of vectors per page over all runs, at least 1 each.
        threads: as in `best_matches`.
        limits: as in `best_matches`; blocks have fewer vectors if these have more than 128 numbers.

    Returns:
        float32 (n_vectors, n_pages).
    """
    queries = np.ascontiguousarray(queries)
    limits = limits.for_dim(queries.shape[1])
    best = np.empty((len(queries), len(lengths)), np.float32)
    ends, run_ends = np.cumsum(lengths), np.cumsum([len(run) for run in runs])
    _product(np.float32)  # made before the threads start, or each of them would wait for it

    def score(block: tuple[int, int], buffers: Buffers) -> None:
        first, last = block
        rows = between(runs, run_ends, int(ends[first] - lengths[first]), int(ends[last - 1]))
        _score(queries, rows, lengths[first:last], best[:, first:last], buffers, limits)

    share_out(blocks(lengths.tolist(), limits.rows), score, threads=threads)
    return best


def between(runs: Sequence[NDArray[Any]], ends: NDArray[np.int64], start: int, end: int) -> list[NDArray[Any]]:
    """Cut the vectors from number `start` to number `end` out of arrays that end at `ends`, without a copy."""
    first, last = int(np.searchsorted(ends, start, side="right")), int(np.searchsorted(ends, end, side="left"))
    parts = list(runs[first : last + 1])
    parts[-1] = parts[-1][: end - int(ends[last]) + len(runs[last])]
    parts[0] = parts[0][start - int(ends[first]) + len(runs[first]) :]
    return parts


def products(rows: NDArray[np.float32], others: NDArray[Any]) -> NDArray[np.float32]:
    """Multiply every row by every other vector, in the caller's thread alone: float32 (n_rows, n_others).

    Other vectors are float32 or float16. numpy would use all cores and spin on them afterwards, and so slow down the
    runs of other pages.
    """
    return run(_product(others.dtype.type), {"queries": rows, "pages": others})


def query_slices(n_queries: int, n_rows: int, limits: Limits, *, most: int | None = None) -> Iterator[slice]:
    """Split queries so that their products with `n_rows` page vectors fit a thread's share of memory.

    Args:
        n_queries: number of query vectors.
        n_rows: number of page vectors.
        limits: `products` counts.
        most: query vectors per slice; None for no other limit.
    """
    step = min(max(16, limits.products // n_rows), most or n_queries or 1)
    return (slice(start, start + step) for start in range(0, n_queries, step))


def run(session: Any, feed: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """Run a session with one output; a fork of the process waits until the run has ended."""
    runs = _runs
    with runs.door, runs.changed:
        runs.active += 1
    try:
        [output] = session.run(None, feed)
    finally:
        with runs.changed:
            runs.active -= 1
            runs.changed.notify_all()
    return np.asarray(output)


def share_out(tasks: Sequence[T], do: Callable[[T, Buffers], None], *, threads: int | None = None) -> None:
    """Do tasks in threads that end with the call; each thread takes the next task when it has finished one.

    Args:
        tasks: the tasks, in the order in which they begin.
        do: does one task; its second argument is a dict in which the thread may keep buffers for its next tasks.
        threads: tasks in work at the same time; None for one per core that this process may use.

    Raises:
        BaseException: the error of a task. Tasks that have not begun by then do not begin.
    """
    waiting = deque(tasks)
    # Waking a thread for less than two tasks costs as much as it saves.
    workers = min(threads or available_cores(), max(1, len(waiting) // 2))

    def work() -> None:
        buffers: Buffers = {}
        while True:
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                do(task, buffers)
            except BaseException:
                waiting.clear()  # the results are thrown away, so the other threads can stop
                raise

    if workers == 1:
        work()
    else:
        with ThreadPoolExecutor(workers, thread_name_prefix="max_sim") as pool:
            for future in [pool.submit(work) for _ in range(workers)]:
                future.result()


def _score(
    queries: NDArray[np.float32],
    block: Sequence[NDArray[Any]],
    lengths: NDArray[np.int64],
    best: NDArray[np.float32],
    buffers: Buffers,
    limits: Limits,
) -> None:
    dtype: type[np.generic] = np.float16 if all(page.dtype == np.float16 for page in block) else np.float32
    ends = np.cumsum(lengths)
    size, dim = int(ends[-1]), block[0].shape[1]
    if size > limits.rows:  # one long page: a copy of it would not fit the cache
        rows = np.ascontiguousarray(block[0], dtype)
    else:
        if dtype not in buffers:  # a block of float16 pages is half as large, and converted inside the graph
            buffers[dtype] = np.empty((limits.rows, dim), dtype)
        rows = np.concatenate(block, out=buffers[dtype][:size])
    session, starts = _product(dtype), np.append(0, ends[:-1])
    for part in query_slices(len(queries), size, limits):
        products = run(session, {"queries": queries[part], "pages": rows})
        np.maximum.reduceat(products, starts, axis=1, out=best[part])


def _product(dtype: type[np.generic]) -> Any:
    """Get the session that multiplies queries by transposed pages, which it converts first if they are float16."""
    return shared_session(dtype, lambda: single_threaded(_product_graph(dtype)))


def _product_graph(dtype: type[np.generic]) -> GraphProto:
    from onnx import parser  # slow to import (0.1 s), so only the first large call pays for it

    if dtype is np.float16:
        pages, nodes = (
            "float16[n, dim] pages",
            "floats = Cast<to = 1>(pages) products = Gemm<transB = 1>(queries, floats)",
        )
    else:
        pages, nodes = "float[n, dim] pages", "products = Gemm<transB = 1>(queries, pages)"
    return parser.parse_graph(f"max_sim (float[m, dim] queries, {pages}) => (float[m, n] products) {{{nodes}}}")


def shared_session(key: type[np.generic], make: Callable[[], Any]) -> Any:
    """Get the process's session of a kind; the first thread that asks makes it."""
    if key not in _sessions:
        with _lock:
            if key not in _sessions:
                _sessions[key] = make()
    return _sessions[key]


def single_threaded(graph: GraphProto, *, arena: bool = True) -> Any:
    """Make a session of a graph (opset 17) that works in its caller's thread and has no threads of its own.

    Args:
        graph: the graph.
        arena: let the session keep memory from one run to the next.
    """
    from onnx import helper

    from colpali_integrations.runtime.graph import plain_session

    # Versions of 2021 and 2023, which every onnxruntime that this package allows can read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return plain_session(model, arena=arena)


def _after_fork() -> None:
    """Replace the locks in a forked child, where the threads that hold them do not exist."""
    global _lock, _runs
    _lock, _runs = threading.Lock(), _Runs()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=lambda: _runs.wait(), after_in_parent=lambda: _runs.door.release(), after_in_child=_after_fork
    )
