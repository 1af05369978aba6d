"""Cores are shared in the order in which runs ask for them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colpali_integrations.runtime.shares import Shares


@given(total=st.integers(1, 5), counts=st.lists(st.integers(1, 7), max_size=20))
@settings(max_examples=30, deadline=None)
def test_no_more_cores_are_held_than_there_are(total: int, counts: list[int]) -> None:
    shares, lock = Shares(total), threading.Lock()
    held = most = 0

    def work(count: int) -> None:
        nonlocal held, most
        with shares.hold(count):
            with lock:
                held += min(count, total)
                most = max(most, held)
            with lock:
                held -= min(count, total)

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(work, counts))
    assert most <= total
    assert shares.free == total


def test_small_runs_do_not_overtake_a_large_one() -> None:
    shares, order = Shares(2), []

    def work(name: str, count: int) -> None:
        with shares.hold(count):
            order.append(name)

    def waiting(number: int) -> None:
        while len(shares._waiting) < number:
            pass

    with ThreadPoolExecutor(3) as threads:
        with shares.hold(1):
            asked = [threads.submit(work, "large", 2)]
            waiting(1)
            asked.append(threads.submit(work, "small", 1))
            waiting(2)
            assert order == []
        for one in asked:
            one.result(30)
    assert order == ["large", "small"]


def test_an_error_in_a_run_frees_its_cores() -> None:
    shares = Shares(3)
    with pytest.raises(ValueError, match="no"), shares.hold(2):
        raise ValueError("no")
    assert shares.free == 3
