"""Loading a collection in bulk, and waiting until its server has indexed it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.engine import OnOptimized
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.collection import QdrantClient, models
from colpali_integrations.stores.runs import current_run

__all__ = ["bulk_load", "index_on", "wait_until_indexed"]

_logger = package_logger(__name__)

_THRESHOLD = 10_000  # Qdrant's default, in KB of a segment's vectors
_SHORTEST, _LONGEST = 0.2, 5.0  # seconds between two questions

Using = Callable[[], AbstractContextManager[QdrantClient]]


@contextmanager
def bulk_load(using: Using, collection: str) -> Iterator[None]:
    """Have a server index nothing until the end of the block.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        collection: its name.

    Raises:
        StoreError: the server cannot be reached, or the key may not change collections.
    """
    with using() as client:
        threshold = client.get_collection(collection).config.optimizer_config.indexing_threshold
        _set_threshold(client, collection, 0)
    try:
        yield
    finally:
        with using() as client:
            _set_threshold(client, collection, threshold or _THRESHOLD)


def index_on(client: QdrantClient, collection: str, info: models.CollectionInfo) -> None:
    """Switch indexing on, where an interrupted load has left it off."""
    if info.config.optimizer_config.indexing_threshold == 0:
        _logger.info("%s: indexing was off, perhaps since a load was interrupted; it is switched on", collection)
        _set_threshold(client, collection, _THRESHOLD)


def wait_until_indexed(
    using: Using, collection: str, where: str, progress: OnOptimized | None = None, *, is_ours: bool = True
) -> None:
    """Wait until a server has finished its work on a collection: its status is green, twice in a row.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        collection: its name.
        where: the collection and its server, for messages.
        progress: called after each question.
        is_ours: whether the collection may be set to work: indexing that is off is switched on, and a change of nothing
            wakes a server after a restart. Else this returns where the server does nothing before another change.

    Raises:
        StoreError: the server cannot be reached, or cannot do the work.
    """
    pause, greens = _SHORTEST, 0
    while True:
        with using() as client:
            info = client.get_collection(collection)
            if is_ours:
                index_on(client, collection, info)
            if is_ours and info.status == models.CollectionStatus.GREY:  # after a restart; any change sets it to work
                client.update_collection(collection, optimizers_config=models.OptimizersConfigDiff())
        if info.status == models.CollectionStatus.RED:
            raise StoreError(f"{where}: the server cannot optimize the collection: {_reason(info)}")
        if progress is not None:
            progress(*_counts(info))
        if not is_ours and info.status == models.CollectionStatus.GREY:
            _logger.warning("%s: the server optimizes nothing before the collection's next change", where)
            return
        greens = greens + 1 if info.status == models.CollectionStatus.GREEN else 0
        if greens == 2:
            return
        run = current_run()
        if retries.CLOCK.wait(pause, None if run is None else run.end):
            return
        pause = _SHORTEST if greens else min(2 * pause, _LONGEST)


def _set_threshold(client: QdrantClient, collection: str, threshold: int) -> None:
    changed = models.OptimizersConfigDiff(indexing_threshold=threshold)
    client.update_collection(collection, optimizers_config=changed)


def _counts(info: models.CollectionInfo) -> tuple[int, int]:
    vectors = info.config.params.vectors
    each = len(vectors) if isinstance(vectors, dict) else 1
    total = (info.points_count or 0) * each
    return min(info.indexed_vectors_count or 0, total), total


def _reason(info: models.CollectionInfo) -> str:
    return str(getattr(info.optimizer_status, "error", info.optimizer_status))
