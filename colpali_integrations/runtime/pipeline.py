"""An ordered, bounded, parallel pipeline, independent of ColPali.

    source --> prepare (threads) --> batches --> run (threads) --> results, in the order of the source

The caller's thread pulls the source and yields the results. For each result it submits more work, until the result is
ready. So the first result comes after one batch and not after the backlog; the source (often a generator that reads a
PDF) runs in the caller's thread; a slow consumer limits how far the source is read ahead; and closing the generator, an
exception or Ctrl-C ends everything in one place.

Threads suffice: decoding, resizing and ONNX Runtime release the GIL, and threads share one copy of the weights, where
each worker process would need its own.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Generic, Literal, TypeAlias, TypeVar

from colpali_integrations._failures import item_error
from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_whole, shown
from colpali_integrations.errors import ColPaliError, ConfigurationError, EncodingError

__all__ = ["Failure", "OnError", "Stage", "checked_batching", "run_in_order", "run_inline", "run_stage"]

logger = package_logger(__name__)

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[ColPaliError], None]
"""Treatment of an item that fails: raise its error, skip it with a log entry, or pass its error to a function."""

_MOST_WORKERS = 1024  # each is a thread

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Result = TypeVar("Result", covariant=True)


def checked_batching(batch_size: object, parallel: object) -> tuple[int | None, int | None]:
    """The options `batch_size` and `parallel` as whole numbers, or None.

    Raises:
        ConfigurationError: `batch_size` is below 1, `parallel` is below 0 or above 1,024, or one is no whole number.

    Example:
        >>> checked_batching(4.0, None)
        (4, None)
    """
    size = None if batch_size is None else checked_whole(batch_size, "batch_size")
    if parallel is None:
        return size, None
    workers = checked_whole(parallel, "parallel (0: one per core)", 0)
    if workers > _MOST_WORKERS:
        raise ConfigurationError(f"parallel must be at most {_MOST_WORKERS:,} (0: one per core), got {shown(parallel)}")
    return size, workers


@dataclass(frozen=True)
class Failure:
    """The error of an item that failed, which takes the position of its result."""

    error: ColPaliError


@dataclass(frozen=True)
class Stage(Generic[Item, Ready, Result]):
    """The work that the pipeline does on items.

    Attributes:
        prepare: works on one item, ahead of its batch, in threads.
        key: items of equal key may share a batch.
        run: works on a batch; its second argument is the number of the worker (0 to workers - 1).
        name: returns the item's name in error messages.
        abort: ends the batches that run, when the iteration ends early.
    """

    prepare: Callable[[Item], Ready]
    key: Callable[[Ready], Hashable]
    run: Callable[[Sequence[Ready], int], Sequence[Result]]
    name: Callable[[Item], str]
    abort: Callable[[], None] = lambda: None


def run_in_order(
    source: Iterable[Item],
    stage: Stage[Item, Ready, Result],
    *,
    batch_size: int,
    workers: int,
    preparers: int,
    batches_ahead: int = 2,
) -> Generator[Result | Failure, None, None]:
    """Run a source through a stage, in order.

    Args:
        source: items; the thread that iterates the results pulls a bounded number of them ahead.
        stage: the work on the items.
        batch_size: items per run.
        workers: threads that run batches.
        preparers: threads that prepare items.
        batches_ahead: batches under way per worker, including the one that runs.

    Yields:
        One result per item, in order; `Failure` for an item that failed. An error of the source itself is raised
        after the results of the items before it.
    """
    backlog = batches_ahead * workers
    preparing = ThreadPoolExecutor(preparers, thread_name_prefix="colpali-pipeline-prepare")
    running = ThreadPoolExecutor(workers, thread_name_prefix="colpali-pipeline-run")
    free_workers = deque(range(workers))
    under_way: deque[Future[list[Result | Failure]]] = deque()
    batches = _numbered_batches(source, batch_size)
    source_error: BaseException | None = None
    exhausted = False
    stopped = threading.Event()

    def work(items: Sequence[tuple[int, Item, Callable[[], Ready]]]) -> list[Result | Failure]:
        worker = free_workers.popleft()
        try:
            if stopped.is_set():
                return []
            return _run_batch(items, stage, worker)
        finally:
            free_workers.append(worker)

    try:
        while True:
            while not exhausted and len(under_way) < backlog and not (under_way and under_way[0].done()):
                batch, source_error = next(batches)
                exhausted = source_error is not None or len(batch) < batch_size
                if batch:
                    prepared = [(index, item, preparing.submit(stage.prepare, item).result) for index, item in batch]
                    under_way.append(running.submit(work, prepared))
            if not under_way:
                break
            yield from under_way.popleft().result()
        if source_error is not None:
            raise source_error
    finally:
        # After a close(), an exception or Ctrl-C: queued work does not start, and running work is ended and awaited.
        stopped.set()
        if under_way:
            stage.abort()
        preparing.shutdown(wait=False, cancel_futures=True)
        running.shutdown(wait=True, cancel_futures=True)
        preparing.shutdown(wait=True)


def run_inline(
    source: Iterable[Item], stage: Stage[Item, Ready, Result], *, batch_size: int
) -> Generator[Result | Failure, None, None]:
    """Run a source through a stage without threads, for few and cheap items: `batch_size` items at a time."""
    for batch, source_error in _numbered_batches(source, batch_size):
        prepared = [(index, item, partial(stage.prepare, item)) for index, item in batch]
        yield from _run_batch(prepared, stage, 0)
        if source_error is not None:
            raise source_error
        if len(batch) < batch_size:
            return


def run_stage(
    source: Iterable[Item],
    stage: Stage[Item, Ready, Result],
    *,
    batch_size: int,
    workers: int,
    preparers: int,
    on_error: OnError = "raise",
    progress: str | None = None,
) -> Generator[Result, None, None]:
    """Run a source through a stage, in order, with a progress bar and a treatment of failures.

    Args:
        source: as in `run_in_order`.
        stage: the work on the items.
        batch_size: items per run.
        workers: threads that run batches.
        preparers: threads that prepare items; 0 to do all work in the thread that iterates the results.
        on_error: the treatment of an item that fails.
        progress: the unit of a progress bar on stderr; None for no bar.

    Yields:
        One result per item that did not fail, in order. Closing this generator closes the whole pipeline.
    """
    if progress is not None:
        from tqdm import tqdm

        source = tqdm(source, unit=f" {progress}")
    results = (
        run_in_order(source, stage, batch_size=batch_size, workers=workers, preparers=preparers)
        if preparers
        else run_inline(source, stage, batch_size=batch_size)
    )
    with closing(results):
        for result in results:
            if not isinstance(result, Failure):
                yield result
            elif callable(on_error):
                on_error(result.error)
            elif on_error == "raise":
                raise result.error
            else:
                logger.warning("skipped %s", result.error)


def _numbered_batches(
    source: Iterable[Item], batch_size: int
) -> Iterator[tuple[list[tuple[int, Item]], BaseException | None]]:
    """Yield batches of (index, item) and None; the last is short or empty, with the error that ended the source."""
    items = enumerate(source)
    while True:
        batch: list[tuple[int, Item]] = []
        try:
            for entry in itertools.islice(items, batch_size):
                batch.append(entry)
        except Exception as error:
            yield batch, error
            return
        yield batch, None


def _run_batch(
    items: Sequence[tuple[int, Item, Callable[[], Ready]]], stage: Stage[Item, Ready, Result], worker: int
) -> list[Result | Failure]:
    """Run the items of a batch whose preparation succeeds, grouped by key."""
    results: dict[int, Result | Failure] = {}
    groups: dict[Hashable, list[tuple[int, Item, Ready]]] = {}
    for index, item, prepare in items:
        try:
            ready = prepare()
        except BaseException as error:
            results[index] = Failure(item_error(error, EncodingError).at(index, stage.name(item)))
        else:
            groups.setdefault(stage.key(ready), []).append((index, item, ready))
    for group in groups.values():
        results.update(zip((index for index, _, _ in group), _run_group(group, stage, worker), strict=True))
    return [results[index] for index, _, _ in items]


def _run_group(
    group: list[tuple[int, Item, Ready]], stage: Stage[Item, Ready, Result], worker: int
) -> list[Result | Failure]:
    try:
        results = stage.run([ready for _, _, ready in group], worker)
        return [result for result, _ in zip(results, group, strict=True)]
    except BaseException as error:
        marked = item_error(error, EncodingError)
        if len(group) == 1:
            index, item, _ = group[0]
            return [Failure(marked.at(index, stage.name(item)))]
    # One item may have caused the error, or the batch was too large for the memory: run the items one by one.
    return [result for entry in group for result in _run_group([entry], stage, worker)]
