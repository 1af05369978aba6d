"""`async_twin`: the asynchronous form of a method, with the signature of the synchronous one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from colpali_integrations.runtime.threads import offload

__all__ = ["async_twin", "in_pages_lane", "in_queries_lane"]

P = ParamSpec("P")
T = TypeVar("T")


async def in_queries_lane(call: Callable[[], T]) -> T:
    """Run a call in a thread of the lane of queries."""
    return await offload(call, "queries")


async def in_pages_lane(call: Callable[[], T]) -> T:
    """Run a call in a thread of the lane of pages."""
    return await offload(call, "pages")


def async_twin(
    method: Callable[P, T], run: Callable[[Callable[[], T]], Awaitable[T]]
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make a method that runs another one, by its name, in a thread.

    Args:
        method: the synchronous method; an override of it in a subclass is run instead.
        run: awaits a call in a thread.
    """

    @wraps(method)
    async def twin(*args: P.args, **kwargs: P.kwargs) -> T:
        owner, *others = args
        return await run(partial(getattr(owner, method.__name__), *others, **kwargs))

    twin.__doc__ = f"`{method.__name__}` in a thread, without blocking the event loop."
    twin.__name__ = f"a{method.__name__}"
    twin.__qualname__ = f"{method.__qualname__.rpartition('.')[0]}.{twin.__name__}"
    return twin
