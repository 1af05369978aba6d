"""Asynchronous twins of a class's methods, which run the method in a thread.

A twin that overrides a method of a framework's class is written out instead: a type checker would take the arguments
of the overridden method for those of an assigned one.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar

from colpali_integrations.runtime.threads import Lane, cancellable, offload

__all__ = ["DOCS", "cancellable_twin", "offloaded_twin"]

P = ParamSpec("P")
T = TypeVar("T")

DOCS = {
    "offloaded_twin": "`{}` in a thread, without blocking the event loop.",
    "cancellable_twin": (
        "`{}` in a thread, without blocking the event loop. A cancelled task stops after the page at hand, and the "
        "stored pages stay."
    ),
}
"""The docstrings of twins, by the functions that make them; `docs/griffe_twins.py` shows them too."""


def offloaded_twin(method: Callable[P, T], lane: Lane = "queries") -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the twin of a short method. It calls the method by its name, so that a subclass may override it.

    Args:
        method: of the class in whose body the twin stands.
        lane: of threads; see `threads.offload`.

    Example:
        >>> import asyncio
        >>> class Text(str):
        ...     def count_words(self) -> int:
        ...         return len(self.split())
        ...     acount_words = offloaded_twin(count_words)
        >>> asyncio.run(Text("low tide").acount_words()), Text.acount_words.__doc__
        (2, '`count_words` in a thread, without blocking the event loop.')
    """
    name = method.__name__

    async def twin(self: Any, *args: Any, **kwargs: Any) -> T:
        found: T = await offload(partial(getattr(self, name), *args, **kwargs), lane)
        return found

    return _described(twin, method, "offloaded_twin")


def cancellable_twin(method: Callable[P, T]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Make the twin of a long method that has a keyword argument `stop`, an event, which a cancelled task sets too.

    Args:
        method: as for `offloaded_twin`.
    """
    name = method.__name__

    async def twin(self: Any, *args: Any, **kwargs: Any) -> T:
        stop: Any = kwargs.pop("stop", None)
        found: T = await cancellable(lambda either: getattr(self, name)(*args, **{**kwargs, "stop": either}), stop)
        return found

    return _described(twin, method, "cancellable_twin")


def _described(twin: Any, method: Callable[P, T], kind: str) -> Callable[P, Coroutine[Any, Any, T]]:
    """The twin with the signature of its method, whose module's names its annotations are read with."""
    result: Any = wraps(method)(twin)
    owner, _, name = method.__qualname__.rpartition(".")
    result.__name__, result.__qualname__ = f"a{name}", f"{owner}.a{name}"
    result.__doc__ = DOCS[kind].format(name)
    described: Callable[P, Coroutine[Any, Any, T]] = result
    return described
