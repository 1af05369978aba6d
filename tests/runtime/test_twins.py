"""Twins run the method of the object's own class, with its signature, and end with their task."""

from __future__ import annotations

import asyncio
import inspect
import threading
from typing import Any, get_type_hints

import pytest

from colpali_integrations.runtime.twins import cancellable_twin, offloaded_twin


class Store:
    """A store whose `add` runs until it is stopped."""

    def __init__(self) -> None:
        self.started, self.ended = threading.Event(), threading.Event()

    def count(self, word: str, *, least: int = 1, **options: Any) -> int:
        """Count."""
        assert threading.current_thread() is not threading.main_thread()
        return int(max(least, len(word), *options.values()))

    acount = offloaded_twin(count)

    def add(self, *, stop: threading.Event | None = None) -> list[str]:
        """Add."""
        self.started.set()
        assert stop is not None
        while not stop.is_set():
            stop.wait(0.01)
        self.ended.set()
        return ["a"]

    aadd = cancellable_twin(add)


class Doubled(Store):
    """A store with a method of its own."""

    def count(self, word: str, *, least: int = 1, **options: Any) -> int:
        """Count twice."""
        return 2 * super().count(word, least=least, **options)


def test_a_twin_passes_all_arguments_to_the_method_of_the_object_s_class() -> None:
    assert asyncio.run(Store().acount("tide", least=7)) == 7
    assert asyncio.run(Store().acount("tide", least=7, further=9)) == 9
    assert asyncio.run(Doubled().acount("tide")) == 8


def test_a_twin_has_the_name_and_signature_of_its_method() -> None:
    assert inspect.iscoroutinefunction(Store.acount)
    assert inspect.signature(Store.acount) == inspect.signature(Store.count)
    assert (Store.acount.__qualname__, Store.acount.__module__) == ("Store.acount", __name__)
    assert get_type_hints(Store.aadd) == {"stop": threading.Event | None, "return": list[str]}
    assert (Store.aadd.__doc__ or "").startswith("`add` in a thread")
    with pytest.raises(TypeError, match="unexpected keyword argument 'lest'"):
        asyncio.run(Store().aadd(lest=1))  # type: ignore[call-arg]


def test_a_cancelled_task_stops_the_method() -> None:
    store = Store()

    async def cancelled() -> None:
        task = asyncio.create_task(store.aadd())
        await asyncio.to_thread(store.started.wait, 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await asyncio.to_thread(store.ended.wait, 30)

    asyncio.run(cancelled())


def test_the_caller_s_event_stops_it_too_and_stays_the_caller_s() -> None:
    stop = threading.Event()
    stop.set()

    assert asyncio.run(Store().aadd(stop=stop)) == ["a"]
