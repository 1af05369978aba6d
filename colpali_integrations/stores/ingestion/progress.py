"""How far an ingestion is, and the functions and bars that show it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from colpali_integrations.stores.ingestion.failures import Failure

__all__ = ["Progress", "ProgressCallback", "listening"]


@dataclass(frozen=True)
class Progress:
    """The state of an ingestion.

    Attributes:
        done: pages and texts that were encoded, or failed.
        total: pages and texts to encode.
        name: of the latest one, "" at the beginning.
        failure: of the latest one; None for success.
        waiting: why the run waits for the server of its store, which is away or orders it; None while it goes on.
        stored: of `done`, those that have failed or are in the store by now, where a search finds them. Pages are
            stored a few at a time, soon after they are encoded.

    Example:
        >>> state = Progress(done=3, total=12, name="report.pdf, page 3")
        >>> f"{state.done}/{state.total} {state.name}"
        '3/12 report.pdf, page 3'
    """

    done: int
    total: int
    name: str = ""
    failure: Failure | None = None
    waiting: str | None = None
    stored: int = 0


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called before the first item and after each; also before each wait for the server of a store, and after the last."""


@contextmanager
def listening(progress: ProgressCallback | bool) -> Iterator[ProgressCallback]:
    """Make the function that shows progress: the caller's, a bar on stderr for True, or none."""
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        from tqdm import tqdm

        with tqdm(unit=" pages") as bar:

            def show(state: Progress) -> None:
                bar.total = state.total
                bar.set_postfix_str(state.waiting or "", refresh=state.waiting is not None)
                bar.update(state.done - bar.n)

            yield show
