"""The fast path of MaxSim against its definition in float64, in blocks, threads and forked processes."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from colpali_integrations import max_sim
from colpali_integrations.errors import InputError
from colpali_integrations.scoring import _kernels as kernels
from colpali_integrations.scoring._blocks import LIMITS, Limits
from colpali_integrations.scoring._kernels import best_in_runs, best_matches, share_out
from colpali_integrations.scoring.maxsim import MultiVectors, is_large, limited_max_sim

# Blocks of at most 7 vectors: some hold several pages, some one longer page. Queries go 16 at a time.
SMALL = Limits(large=0, large_after_onnx=0, matches=100, rows=7, products=100)


def fast(queries: MultiVectors, pages: MultiVectors) -> NDArray[np.float32]:
    """`max_sim` by the fast path, however few the pages."""
    return limited_max_sim(queries, pages, Limits(large=0, large_after_onnx=0))


def oracle(queries: NDArray[Any], pages: list[NDArray[Any]]) -> NDArray[np.float64]:
    exact = queries.astype(np.float64)
    return np.stack([(exact @ page.astype(np.float64).T).max(axis=1) for page in pages], axis=1)


def unit(rng: np.random.Generator, rows: int, dim: int, dtype: Any = np.float32) -> NDArray[Any]:
    vectors = rng.normal(size=(rows, dim))
    found: NDArray[Any] = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(dtype)
    return found


def unequal(rng: np.random.Generator, sizes: list[int], dim: int, dtypes: list[Any]) -> list[NDArray[Any]]:
    return [unit(rng, size, dim, dtype) for size, dtype in zip(sizes, dtypes, strict=False)]


page_dtypes = st.sampled_from([np.float32, np.float16, np.float64])


@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 50),
    pages=st.lists(st.tuples(st.integers(1, 16), page_dtypes), min_size=1, max_size=12),
    dim=st.integers(1, 70),
    threads=st.integers(1, 3),
)
@settings(max_examples=120, deadline=None)
def test_any_pages_in_any_blocks_score_by_the_definition(
    seed: int, rows: int, pages: list[tuple[int, Any]], dim: int, threads: int
) -> None:
    rng = np.random.default_rng(seed)
    sizes, dtypes = [size for size, _ in pages], [dtype for _, dtype in pages]
    corpus = unequal(rng, sizes, dim, dtypes)
    queries = unit(rng, rows, dim)
    found = best_matches(queries, corpus, threads=threads, limits=SMALL)
    assert found.dtype == np.float32
    # All float32 that is left to differ is the sum of dim products of unit vectors.
    np.testing.assert_allclose(found, oracle(queries, corpus), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_pages_of_colpali_s_size(dtype: Any) -> None:
    rng = np.random.default_rng(1)
    pages = unequal(rng, [1030] * 9 + [1, 700, 9000, 3], 128, [dtype] * 13)
    query = unit(rng, 20, 128)
    expected = oracle(query, pages).sum(axis=0)
    np.testing.assert_allclose(best_matches(query, pages).sum(axis=0), expected, rtol=1e-5)
    np.testing.assert_allclose(max_sim(query, pages), expected, rtol=1e-5)


def test_max_sim_takes_the_fast_path_from_a_size_on_and_both_agree() -> None:
    rng = np.random.default_rng(2)
    pages = unequal(rng, [200] * 30, 32, [np.float32] * 30)
    query = unit(rng, 10, 32)
    assert onnx is sys.modules["onnx"]  # as after anything was encoded
    limits = Limits(large_after_onnx=10 * 32 * 200 * 30)
    assert is_large(query, pages, limits)
    assert not is_large(query, pages[:29], limits)
    slow = limited_max_sim(query, pages, Limits(large_after_onnx=2**30))
    np.testing.assert_allclose(limited_max_sim(query, pages, limits), slow, rtol=1e-5)
    np.testing.assert_allclose(limited_max_sim(query, pages[:29], limits), slow[:29], rtol=1e-5)


def test_several_queries_with_more_matches_than_fit_in_memory_at_once() -> None:
    rng = np.random.default_rng(3)
    queries = [unit(rng, size, 8) for size in (3, 1, 20, 17)]
    pages = unequal(rng, [1, 5, 9, 2, 2, 7, 30, 1], 8, [np.float32] * 8)
    expected = [oracle(query, pages).sum(axis=0) for query in queries]
    np.testing.assert_allclose(limited_max_sim(queries, pages, SMALL), expected, rtol=1e-5, atol=1e-6)


def test_shapes_layouts_and_numbers_are_those_of_the_plain_path() -> None:
    rng = np.random.default_rng(4)
    stacked = rng.normal(size=(3, 5, 6)).astype(np.float32)
    query = rng.normal(size=(2, 6))
    assert fast(query, stacked[0]).shape == ()
    assert fast([query], []).shape == (1, 0)
    together = fast(query, stacked)
    for layout in (np.asfortranarray(stacked), stacked[:, ::-1], [page.T.copy().T for page in stacked]):
        np.testing.assert_allclose(fast(np.asfortranarray(query), layout), together, rtol=1e-6)
    integers = np.array([[3, 4], [5, 2]], np.int8)
    assert float(fast(np.eye(2), integers)) == 9.0


def test_a_longest_page_that_is_not_in_order_in_memory() -> None:
    page = np.arange(40.0).reshape(4, 10).T  # ten vectors, float64, by column
    assert float(limited_max_sim(np.eye(4), page, SMALL)) == 9 + 19 + 29 + 39


def test_nan_and_infinity_are_not_lost() -> None:
    pages = [np.array([[np.nan], [1.0]], dtype) for dtype in (np.float32, np.float16)]
    assert np.isnan(fast(np.ones((1, 1)), pages)).all()
    infinite = np.array([[np.inf], [1.0]], np.float16)
    assert fast(np.ones((1, 1)), [infinite]).tolist() == [np.inf]
    assert fast(np.ones((1, 1)), [-infinite]).tolist() == [-1.0]


def test_a_negative_best_match_stays_negative_beside_a_longer_page() -> None:
    short, long = np.array([[-1.0, 0.0]]), np.array([[0.5, 0.0], [0.0, 1.0], [0.2, 0.0]])
    assert fast(np.array([[1.0, 0.0]]), [short, long]).tolist() == [-1.0, 0.5]


def test_dims_are_still_checked() -> None:
    with pytest.raises(InputError, match="were all embedded by the same"):
        fast(np.ones((1, 2)), [np.ones((1, 2)), np.ones((4, 3))])


def test_many_threads_get_their_own_scores() -> None:
    rng = np.random.default_rng(5)
    pages = unequal(rng, [3, 5, 9, 2] * 10, 16, [np.float32, np.float16] * 20)
    queries = [unit(rng, 6, 16) for _ in range(24)]
    alone = [limited_max_sim(query, pages, SMALL) for query in queries]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(lambda query: limited_max_sim(query, pages, SMALL), queries))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_no_thread_outlives_a_call_and_a_failure_reaches_the_caller() -> None:
    pages = [np.ones((5, 4), np.float32)] * 50
    best_matches(np.ones((2, 4), np.float32), pages, threads=3, limits=SMALL)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("max_sim")]
    begun: list[int] = []

    def fail(*_: Any) -> None:
        begun.append(1)
        raise MemoryError("no more")

    with pytest.raises(MemoryError, match="no more"):
        share_out(range(50), fail, threads=2)
    assert len(begun) <= 2  # the tasks after the failure were not begun


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_fork_waits_for_the_runs_under_way() -> None:
    """A run holds mutexes of onnxruntime, which no thread of the child would release."""
    started, ending, forked = threading.Event(), threading.Event(), threading.Event()

    class SlowSession:
        def run(self, outputs: None, feed: dict[str, Any]) -> list[Any]:
            started.set()
            assert ending.wait(20)
            return [feed["pages"]]

    def fork() -> int:
        child = os.fork()
        if not child:
            os._exit(int(kernels.run(QuickSession(), {})))
        forked.set()
        return child

    class QuickSession:
        def run(self, outputs: None, feed: dict[str, Any]) -> list[Any]:
            return [7]

    with ThreadPoolExecutor(3) as pool:
        slow = pool.submit(kernels.run, SlowSession(), {"pages": np.ones(1)})
        assert started.wait(20)
        child = pool.submit(fork)
        assert not forked.wait(0.3)
        later = pool.submit(kernels.run, QuickSession(), {})  # waits for the fork
        ending.set()
        assert slow.result(20).tolist() == [1]
        assert later.result(20) == 7
        assert os.waitstatus_to_exitcode(os.waitpid(child.result(20), 0)[1]) == 7


def _score_in_child(pages: list[NDArray[Any]], answers: Any) -> None:
    answers.put(best_matches(np.eye(4, dtype=np.float32), pages, threads=2))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_scores_while_the_parent_does() -> None:
    rng = np.random.default_rng(6)
    pages = unequal(rng, [800] * 40, 4, [np.float32] * 40)
    expected = best_matches(np.eye(4, dtype=np.float32), pages)
    context = multiprocessing.get_context("fork")
    over = threading.Event()

    def busy() -> None:
        while not over.is_set():
            best_matches(np.eye(4, dtype=np.float32), pages, threads=1)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(4):
            answers = context.SimpleQueue()
            child = context.Process(target=_score_in_child, args=(pages, answers))
            child.start()
            child.join(60)
            assert child.exitcode == 0
            np.testing.assert_array_equal(answers.get(), expected)
    finally:
        over.set()
        thread.join()


def test_a_few_pages_load_neither_onnx_nor_a_session() -> None:
    code = (
        "import sys, numpy as np\n"
        "from colpali_integrations import max_sim\n"
        "max_sim(np.ones((20, 128)), np.ones((20, 700, 128)))\n"
        "from colpali_integrations.scoring import _kernels as maxsim\n"
        "assert not maxsim._sessions\n"
        "assert 'onnx' not in sys.modules\n"
        "max_sim(np.ones((20, 128)), [np.ones((700, 128), np.float16)] * 160)\n"
        "assert 'onnx' in sys.modules and maxsim._sessions\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=12), min_size=1, max_size=6),
    st.integers(1, 20),
    st.sampled_from([8, 300]),
    st.integers(0, 2**32 - 1),
)
def test_pages_in_runs_score_as_pages_of_their_own(lengths: list[list[int]], rows: int, dim: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    runs = [rng.standard_normal((sum(one), dim)).astype(np.float16) for one in lengths]
    pages = [page for run, counts in zip(runs, lengths, strict=True) for page in np.split(run, np.cumsum(counts)[:-1])]
    found = best_in_runs(queries, runs, np.concatenate(lengths), limits=LIMITS._replace(rows=rows), threads=2)
    np.testing.assert_allclose(found, oracle(queries, pages), rtol=1e-5, atol=1e-4)
