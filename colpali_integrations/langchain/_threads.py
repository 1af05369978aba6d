"""`async_twin`: the asynchronous form of a method, with the signature of the synchronous one."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from functools import partial, wraps
from threading import Event
from typing import Any, ParamSpec, TypeVar

from colpali_integrations.runtime.threads import Lane, offload

__all__ = ["async_twin", "in_lane", "stop_event"]

P = ParamSpec("P")
T = TypeVar("T")

# In a call that runs for a coroutine: an event that is set when the coroutine is cancelled.
stop_event: ContextVar[Event | None] = ContextVar("stop_event", default=None)


async def in_lane(call: Callable[[], T], lane: Lane) -> T:
    """Run a call in a thread of a lane; an ingestion in it stops after the page at hand when the task is cancelled."""
    stop = Event()

    def work() -> T:
        stop_event.set(stop)  # of this call alone: `offload` runs it in a context of its own
        return call()

    try:
        return await offload(work, lane)
    finally:
        stop.set()


def async_twin(method: Callable[P, T], lane: Lane) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the asynchronous form of a method; it runs the method, or a subclass's override, in a thread of `lane`."""

    @wraps(method)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        owner, *others = args
        return await in_lane(partial(getattr(owner, method.__name__), *others, **kwargs), lane)

    twin.__doc__ = f"`{method.__name__}` in a thread, without blocking the event loop."
    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{twin.__name__}"
    return twin
