"""Several batches on their way to an engine at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from threading import Barrier, Event, Lock, current_thread
from typing import Any

import numpy as np
import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.models import find_model
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.engine import Point
from colpali_integrations.stores.flights import Flights
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.refused import PointsRefusedError, RefusedError
from colpali_integrations.stores.settings import Settings, StoredModel

SETTINGS = Settings(model=StoredModel.of(find_model("coltiny")))
DIM = SETTINGS.model.dim


class Slow(MemoryEngine):
    """Takes three batches at once."""

    batches_at_once = 3

    def __init__(self) -> None:
        super().__init__(schema=SETTINGS.schema, manifest=SETTINGS.to_dict())
        self.barrier: Barrier | None = None
        self.bad: frozenset[str] = frozenset()
        self.gone: frozenset[str] = frozenset()
        self.batches: list[list[str]] = []

    def upsert(self, points: Sequence[Point]) -> None:
        if self.barrier is not None:
            self.barrier.wait(timeout=30)
        ids = [point.id for point in points]
        if self.gone & set(ids):
            raise StoreError(f"the server is gone at {ids[0]}")
        super().upsert([point for point in points if point.id not in self.bad])
        self.batches.append(ids)
        if refused := {id_: StoreError("too large") for id_ in ids if id_ in self.bad}:
            raise PointsRefusedError.of(refused)


def records(count: int) -> list[tuple[Entry, Any]]:
    return [(Entry(id=str(number)), np.eye(2, DIM, number % 7, np.float32)) for number in range(count)]


@pytest.fixture
def engine() -> Slow:
    return Slow()


@pytest.fixture
def store(engine: Slow) -> MultiVectorStore:
    return MultiVectorStore(engine, SETTINGS)


def test_batches_are_sent_at_once(engine: Slow, store: MultiVectorStore) -> None:
    engine.barrier = Barrier(3)  # broken unless three wait together
    assert store.add(records(6 * 64)) == 6 * 64
    assert len(store) == 6 * 64
    assert len(engine.batches) == 6


def test_refused_entries_are_reported_by_their_batch(engine: Slow, store: MultiVectorStore) -> None:
    engine.bad = frozenset({"3", "100", "299"})
    seen: list[tuple[str, str]] = []
    threads = set()

    def note(entry: Entry, error: StoreError) -> None:
        threads.add(current_thread())
        seen.append((entry.id, str(error)))

    assert store.add(records(300), on_error=note) == 297
    assert [id_ for id_, _ in seen] == ["3", "100", "299"]
    assert threads == {current_thread()}
    with pytest.raises(RefusedError, match=r"2 more entries were refused: 100, 299\. 297 other entries are stored"):
        store.add(records(300))


def test_an_error_ends_the_call_once_the_other_batches_are_stored(engine: Slow, store: MultiVectorStore) -> None:
    engine.gone = frozenset({"70"})
    read = []

    def many() -> Any:
        for record in records(2000):
            read.append(record[0].id)
            yield record

    with pytest.raises(StoreError, match="gone at 64"):
        store.add(many())
    assert len(read) < 500
    # All but the batch that failed, and the one at hand when that was seen.
    assert {int(id_) for batch in engine.batches for id_ in batch} == set(range(len(read) - 64)) - set(range(64, 128))


def test_of_two_entries_with_one_id_the_later_one_is_stored() -> None:
    held, order, lock = Event(), [], Lock()

    def send(batch: dict[str, int]) -> None:
        if batch.get("a") == 1:
            held.wait(timeout=30)
        with lock:
            order.append(batch)

    flights = Flights(send, 3, lambda batch, error: None)
    flights.start({"a": 1})
    flights.start({"b": 2})
    held.set()
    flights.start({"a": 3})
    flights.finish()
    assert order.index({"a": 1}) < order.index({"a": 3})


def test_threads_see_the_context_of_the_caller() -> None:
    variable: ContextVar[str] = ContextVar("variable", default="none")
    seen = []
    flights: Flights[dict[str, int]] = Flights(lambda batch: seen.append(variable.get()), 2, lambda batch, error: None)
    variable.set("a run")
    flights.start({"a": 1})
    flights.finish()
    assert seen == ["a run"]


@pytest.mark.parametrize("most", [1, 3])
def test_the_first_error_is_raised_and_all_batches_are_settled(most: int) -> None:
    settled = []

    def settle(batch: dict[str, int], error: BaseException | None) -> None:
        settled.append(batch)
        if error is not None:
            raise error

    def send(batch: dict[str, int]) -> None:
        if "bad" in batch:
            raise ValueError("of the first")

    flights = Flights(send, most, settle)
    with pytest.raises(ValueError, match="of the first"):
        flights.start({"bad": 1})
        flights.start({"a": 1})
        flights.finish()
    assert settled[0] == {"bad": 1}
    assert len(settled) == (1 if most == 1 else 2)


def test_a_signal_that_does_not_wake_the_caller_ends_its_wait() -> None:
    released = Event()
    settled: list[dict[str, int]] = []
    flights: Flights[dict[str, int]] = Flights(
        lambda batch: released.wait(30), 2, lambda batch, error: settled.append(batch)
    )
    flights.start({"a": 1})
    # As one that comes just before the wait: its handler is noted, and no system call is interrupted.
    other = threading.Timer(0.3, lambda: signal.pthread_kill(threading.get_ident(), signal.SIGUSR1))
    before = signal.signal(signal.SIGUSR1, signal.default_int_handler)
    try:
        other.start()
        with pytest.raises(KeyboardInterrupt):
            flights.finish()
        assert not released.is_set()
    finally:
        released.set()
        other.join()
        signal.signal(signal.SIGUSR1, before)
    flights.finish()
    assert settled == [{"a": 1}], "a batch that was waited for is settled all the same"
