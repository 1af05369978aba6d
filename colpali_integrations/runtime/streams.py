"""What is done with a stream of results: a progress bar, failures as the caller wants them, and `async for`."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sized
from typing import Any, Literal, TypeAlias, TypeVar

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.runtime.pipeline import Failure

__all__ = ["OnError", "handle_failures", "in_thread", "with_progress"]

logger = logging.getLogger(__name__)

OnError: TypeAlias = Literal["raise", "skip", "collect"]
Item = TypeVar("Item")


def with_progress(source: Iterable[Item], show: bool, unit: str) -> Iterable[Item]:
    """Count the items of a source on stderr as they are pulled."""
    if not show:
        return source
    from tqdm import tqdm

    total = len(source) if isinstance(source, Sized) else None
    bar: Iterable[Item] = tqdm(source, total=total, unit=f" {unit}")
    return bar


def handle_failures(results: Iterator[Item | Failure], on_error: OnError) -> Generator[Any, None, None]:
    """Raise, skip (with a log entry) or hand out the failures among results.

    Raises:
        ConfigurationError: at once, for another word than these.
    """
    if not callable(on_error) and on_error not in ("raise", "skip", "collect"):
        raise ConfigurationError(f"on_error must be 'raise', 'skip' or 'collect', got {on_error!r}")
    return _handled(results, on_error)


def _handled(results: Iterator[Item | Failure], on_error: OnError) -> Generator[Any, None, None]:
    try:
        for result in results:
            if not isinstance(result, Failure):
                yield result
            elif callable(on_error):
                on_error(result.error)
            elif on_error == "raise":
                raise result.error
            elif on_error == "collect":
                yield result.error
            else:
                logger.warning("skipped %s", result.error)
    finally:
        _close(results)


async def in_thread(results: Iterator[Item]) -> AsyncGenerator[Item, None]:
    """Iterate in a thread, one item at a time, and close the iterator whatever happens."""
    import asyncio  # slow to import, and most programs are not asynchronous

    end = object()
    busy = threading.Lock()  # a cancelled task leaves its thread inside the generator, which cannot be closed then

    def pull() -> Any:
        with busy:
            return next(results, end)

    def close() -> None:
        with busy:
            _close(results)

    try:
        while (result := await asyncio.to_thread(pull)) is not end:
            yield result
    finally:
        await asyncio.shield(asyncio.to_thread(close))


def _close(results: Iterator[Any]) -> None:
    close = getattr(results, "close", None)
    if close is not None:
        close()
