"""An ordered, bounded, parallel pipeline; nothing in it depends on ColPali.

    source --> prepare (threads) --> batches --> run (threads) --> results, in the order of the source

The caller's own thread pulls the source and hands results out: it tops up the work under way whenever it is asked for
the next result, and stops topping up as soon as that result is there. So the first result comes after one batch, not
after the backlog; the source (often a generator that reads a PDF) runs in the caller's thread; a slow consumer bounds
what is read ahead; and closing the generator, an exception or Ctrl-C ends everything from one place.

Threads suffice: decoding, resizing and ONNX Runtime all release the GIL, and they share one copy of the weights, where
a worker process would need its own.
"""

from __future__ import annotations

import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias, TypeVar

from colpali_integrations.errors import ColPaliError, ConfigurationError, EncodingError

__all__ = ["Failure", "OnError", "Stage", "handle_failures", "run_in_order", "run_inline", "with_progress"]

logger = logging.getLogger(__name__)

OnError: TypeAlias = Literal["raise", "skip"] | Callable[[ColPaliError], None]
"""How to treat an item that fails: raise its error, skip it with a log entry, or pass its error to a function."""

Item = TypeVar("Item")
Ready = TypeVar("Ready")
Result = TypeVar("Result", covariant=True)


@dataclass(frozen=True)
class Failure:
    """An item that failed, in the place of its result."""

    error: ColPaliError


@dataclass(frozen=True)
class Stage(Generic[Item, Ready, Result]):
    """The work that the pipeline does on items.

    Attributes:
        prepare: work on one item, done ahead in threads.
        key: items of equal key may share a batch.
        run: work on a batch, given also the number of the worker (0 to workers - 1).
        name: the item's name in error messages.
        abort: called when the results are no longer wanted, to end the batches that run.
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
) -> Iterator[Result | Failure]:
    """Run a source through a stage, in order.

    Args:
        source: items; pulled by the thread that iterates the result, a bounded number ahead.
        stage: what to do.
        batch_size: items per run.
        workers: threads that run batches.
        preparers: threads that prepare items.
        batches_ahead: batches under way for each worker, the one it runs included.

    Yields:
        One result per item, in order; `Failure` for an item that failed. An error that the source itself
        raises comes after the results of what it gave before.
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

    def work(items: list[tuple[int, Item, Future[Ready]]]) -> list[Result | Failure]:
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
                    prepared = [(index, item, preparing.submit(stage.prepare, item)) for index, item in batch]
                    under_way.append(running.submit(work, prepared))
            if not under_way:
                break
            yield from under_way.popleft().result()
        if source_error is not None:
            raise source_error
    finally:
        # Whatever ended us (a close(), an exception, Ctrl-C): nothing queued starts, what runs is ended and waited for.
        stopped.set()
        if under_way:
            stage.abort()
        preparing.shutdown(wait=False, cancel_futures=True)
        running.shutdown(wait=True, cancel_futures=True)
        preparing.shutdown(wait=True)


def run_inline(
    source: Iterable[Item], stage: Stage[Item, Ready, Result], *, batch_size: int
) -> Iterator[Result | Failure]:
    """The same without threads, for few and cheap items: `batch_size` items are grouped by key and run."""
    for batch, source_error in _numbered_batches(source, batch_size):
        prepared = [(index, item, _done(stage.prepare, item)) for index, item in batch]
        yield from _run_batch(prepared, stage, 0)
        if source_error is not None:
            raise source_error
        if len(batch) < batch_size:
            return


def with_progress(source: Iterable[Item], show: bool, unit: str) -> Iterable[Item]:
    """Count the items of a source on stderr as they are pulled."""
    if not show:
        return source
    from tqdm import tqdm

    total = len(source) if isinstance(source, Sized) else None
    bar: Iterable[Item] = tqdm(source, total=total, unit=f" {unit}")
    return bar


def handle_failures(results: Iterator[Result | Failure], on_error: OnError) -> Generator[Result, None, None]:
    """Yield the results, and treat each failure in its turn as the caller asks.

    Raises:
        ConfigurationError: at once, for an `on_error` of another kind.
    """
    if not callable(on_error) and on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise', 'skip' or a function of the error, got {on_error!r}")
    return _handled(results, on_error)


def _handled(results: Iterator[Result | Failure], on_error: OnError) -> Generator[Result, None, None]:
    try:
        for result in results:
            if not isinstance(result, Failure):
                yield result
            elif callable(on_error):
                on_error(result.error)
            elif on_error == "raise":
                raise result.error
            else:
                logger.warning("skipped %s", result.error)
    finally:
        close = getattr(results, "close", None)
        if close is not None:
            close()


def _numbered_batches(
    source: Iterable[Item], batch_size: int
) -> Iterator[tuple[list[tuple[int, Item]], BaseException | None]]:
    """Batches of (index, item); the last is short, perhaps empty, and carries the error that ended the source."""
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
    items: Sequence[tuple[int, Item, Future[Ready]]], stage: Stage[Item, Ready, Result], worker: int
) -> list[Result | Failure]:
    """Run the items of a batch that could be prepared, those of equal key together."""
    results: dict[int, Result | Failure] = {}
    groups: dict[Hashable, list[tuple[int, Item, Ready]]] = {}
    for index, item, future in items:
        try:
            ready = future.result()
        except Exception as error:
            results[index] = Failure(_mark(error, index, stage.name(item)))
        else:
            groups.setdefault(stage.key(ready), []).append((index, item, ready))
    for group in groups.values():
        for index, result in _run_group(group, stage, worker).items():
            results[index] = result
    return [results[index] for index, _, _ in items]


def _run_group(
    group: list[tuple[int, Item, Ready]], stage: Stage[Item, Ready, Result], worker: int
) -> dict[int, Result | Failure]:
    try:
        made = stage.run([ready for _, _, ready in group], worker)
        return {index: result for (index, _, _), result in zip(group, made, strict=True)}
    except Exception as error:
        if len(group) == 1:
            index, item, _ = group[0]
            return {index: Failure(_mark(error, index, stage.name(item)))}
    # One item may have spoilt the batch (or the batch was too large for the memory): the others need not suffer.
    results: dict[int, Result | Failure] = {}
    for entry in group:
        for index, result in _run_group([entry], stage, worker).items():
            results[index] = result
    return results


def _mark(error: Exception, index: int, name: str) -> ColPaliError:
    if isinstance(error, ColPaliError):
        return error.at(index, name)
    wrapped = EncodingError(f"{type(error).__name__}: {error}").at(index, name)
    wrapped.__cause__ = error
    return wrapped


def _done(prepare: Callable[[Item], Ready], item: Item) -> Future[Ready]:
    future: Future[Ready] = Future()
    try:
        future.set_result(prepare(item))
    except Exception as error:
        future.set_exception(error)
    return future
