"""The fast path of MaxSim: blocks of pages through a graph of one matrix product, on all cores.

    pages, as they lie -- copy --> block that fits the cache -- onnxruntime --> products -- maximum by page --> best

onnxruntime's matrix product is faster than that of numpy's OpenBLAS at these shapes (20 query vectors, thousands of
page vectors), converts float16 on the way, and holds no lock of Python's. A session works in its caller's thread: the
cores are shared out here, a block at a time. So no thread outlives a call, a fork has nothing to lose, and nothing
spins. (OpenBLAS with as many threads as cores waits in a spin for one that other work keeps from its core: on two busy
cores the same scores took 8 times as long.)

Blocks are copied first although that costs a pass over memory: the product packs its operand in an order that the
processor cannot fetch ahead. Copied, a page of 1030 x 128 took 92 microseconds, in place 130 to 160 (Zen 4, one core).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from colpali_integrations.runtime.cores import available_cores
from colpali_integrations.scoring._blocks import blocks

if TYPE_CHECKING:
    from onnx import GraphProto

__all__ = ["best_matches", "products", "share_out", "shared_session", "single_threaded"]

T = TypeVar("T")
Buffers: TypeAlias = "dict[type[np.generic], NDArray[Any]]"

# Page vectors in a block: four of ColPali's pages, of which 2 MB of floats stay in the cache from copy to product.
# From 3,000 to 6,000 made no difference that could be measured.
_ROWS = 4200
# Products held at once by a thread, 4 MB of floats.
_PRODUCTS = 2**20

_lock = threading.Lock()
_sessions: dict[type[np.generic], Any] = {}
_inherited: list[Any] = []


def best_matches(
    queries: NDArray[np.float32], pages: Sequence[NDArray[Any]], *, threads: int | None = None
) -> NDArray[np.float32]:
    """The highest product of each query vector with a vector of each page.

    float32 pages are multiplied as they are, float16 pages after an exact conversion, others after a rounding to
    float32; sums of products are float32. No value is padded, so what a page gets does not depend on its neighbours
    but for the order of a sum. NaN stays NaN.

    Memory beyond the result is bounded for each thread: a block (2 MB, or the longest page) and 4 MB of products.

    Args:
        queries: (n_vectors, dim), at least one.
        pages: at least one, each (n_page_vectors, dim) of numbers with at least one row.
        threads: how many blocks are worked on at once; None for as many as the cores this process may use.

    Returns:
        float32 (n_vectors, n_pages).

    Example:
        >>> best_matches(np.eye(2, dtype=np.float32), [np.array([[0.6, 0.8], [-1.0, 0.0]])]).round(3).tolist()
        [[0.6000000238418579], [0.800000011920929]]
    """
    queries = np.ascontiguousarray(queries)
    best = np.empty((len(queries), len(pages)), np.float32)
    _product(np.float32)  # made once, here, rather than waited for by every thread

    def score(block: tuple[int, int], buffers: Buffers) -> None:
        first, last = block
        _score(queries, pages[first:last], best[:, first:last], buffers)

    share_out(blocks([len(page) for page in pages], _ROWS), score, threads=threads)
    return best


def products(rows: NDArray[np.float32], others: NDArray[np.float32]) -> NDArray[np.float32]:
    """Every product of a row with one of the others, in the caller's thread alone: float32 (n_rows, n_others).

    numpy's would take all cores and spin on them afterwards, which other pages' runs are on.
    """
    found: NDArray[np.float32] = _product(np.float32).run(None, {"queries": rows, "pages": others})[0]
    return found


def share_out(tasks: Sequence[T], do: Callable[[T, Buffers], None], *, threads: int | None = None) -> None:
    """Do tasks in threads that end with the call, each taking the next when it is done with one.

    Args:
        tasks: in the order in which they are begun.
        do: does one; it gets a dict in which its thread may keep buffers from one task to the next.
        threads: how many tasks are worked on at once; None for as many as the cores this process may use.

    Raises:
        BaseException: what a task raised. Tasks not begun by then are not begun.
    """
    waiting = deque(tasks)
    # To wake a thread for less than two tasks costs as much as it saves.
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
                waiting.clear()  # the other threads need not finish results that are thrown away
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
    best: NDArray[np.float32],
    buffers: Buffers,
) -> None:
    dtype: type[np.generic] = np.float16 if all(page.dtype == np.float16 for page in block) else np.float32
    ends = np.cumsum([len(page) for page in block])
    size, dim = int(ends[-1]), block[0].shape[1]
    if size > _ROWS:  # one long page: a copy of it would not fit the cache
        rows = np.ascontiguousarray(block[0], dtype)
    else:
        if dtype not in buffers:  # a block of float16 pages is half as large, and converted inside the graph
            buffers[dtype] = np.empty((_ROWS, dim), dtype)
        rows = np.concatenate(block, out=buffers[dtype][:size])
    session, starts = _product(dtype), np.append(0, ends[:-1])
    step = max(16, _PRODUCTS // size)
    for start in range(0, len(queries), step):
        [products] = session.run(None, {"queries": queries[start : start + step], "pages": rows})
        np.maximum.reduceat(products, starts, axis=1, out=best[start : start + step])


def _product(dtype: type[np.generic]) -> Any:
    """A session that multiplies queries by pages transposed, after a conversion if these are float16."""
    return shared_session(dtype, lambda: single_threaded(_product_graph(dtype)))


def _product_graph(dtype: type[np.generic]) -> GraphProto:
    from onnx import TensorProto, helper  # a tenth of a second, paid by the first large call alone

    half = dtype is np.float16
    nodes = [helper.make_node("Cast", ["pages"], ["floats"], to=TensorProto.FLOAT)] if half else []
    nodes.append(helper.make_node("Gemm", ["queries", "floats" if half else "pages"], ["products"], transB=1))
    page_type = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    inputs = [
        helper.make_tensor_value_info("queries", TensorProto.FLOAT, ["m", "dim"]),
        helper.make_tensor_value_info("pages", page_type, ["n", "dim"]),
    ]
    outputs = [helper.make_tensor_value_info("products", TensorProto.FLOAT, ["m", "n"])]
    return helper.make_graph(nodes, "max_sim", inputs, outputs)


def shared_session(key: type[np.generic], make: Callable[[], Any]) -> Any:
    """The process's session of a kind, made by the first thread that asks; a forked child makes its own."""
    found = _sessions.get(key)
    if found is None:
        with _lock:
            found = _sessions.get(key)
            if found is None:
                found = _sessions[key] = make()
    return found


def single_threaded(graph: GraphProto, *, arena: bool = True) -> Any:
    """A session of a graph (opset 17) that works in its caller's thread and has none of its own.

    Args:
        graph: what to run.
        arena: let it keep memory from one run to the next.
    """
    from onnx import helper

    # Versions of 2021 and 2023, which every onnxruntime that this package allows can read.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_cpu_mem_arena = arena
    # Nothing to gain in graphs of a few operators, and time to lose in those with a weight for every page.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _after_fork() -> None:
    """Let a forked child make its own sessions: another thread may have held a lock of the parent's at the fork.

    The inherited ones are set aside and not freed, which could wait for such a lock.
    """
    global _lock, _sessions
    _inherited.append(_sessions)
    _lock, _sessions = threading.Lock(), {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
