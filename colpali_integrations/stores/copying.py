"""`copy_store`: entries and their vectors from one store into another, without the documents and without a model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import FilterLike
from colpali_integrations.stores.refused import all_refused
from colpali_integrations.stores.runs import running
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["CopyReport", "copy_store"]

logger = package_logger(__name__)

_BATCH = 16  # 17 MB of a model with a thousand vectors per page


@dataclass(frozen=True, kw_only=True)
class CopyReport:
    """The outcome of a copy.

    Attributes:
        entries: number of entries of the source that fit the filter.
        copied: of these, those that were stored with their vectors now.
        updated: those of which only the metadata were stored now.
        present: those that the target had already.
        without_vectors: those of which the source has no vectors, as a collection of another program may: no search
            finds them, and they are not copied.

    Example:
        >>> CopyReport(entries=3, copied=1, updated=0, present=2).to_dict()
        {'entries': 3, 'copied': 1, 'updated': 0, 'present': 2, 'without_vectors': 0}
    """

    entries: int
    copied: int
    updated: int
    present: int
    without_vectors: int = 0

    def to_dict(self) -> dict[str, int]:
        """JSON-safe fields."""
        return asdict(self)


def copy_store(
    source: MultiVectorStore,
    target: MultiVectorStore,
    *,
    where: FilterLike = None,
    progress: Callable[[int, int], object] | None = None,
    waiting: Callable[[str | None], object] | None = None,
) -> CopyReport:
    """Copy entries with their vectors into another store.

    It may go from a folder to a server, back, or from a collection that another program has made.

    The target makes its own first stage and words of the texts. Entries that it has already stay, so a second call
    continues an interrupted one; those whose text or metadata have changed in the source since are replaced. The
    vectors of a collection that another program has made have no hash: where they alone have changed, delete the entry
    from the target first. Entries of the target that the source does not have stay.

    Args:
        source: open; it stays as it is.
        target: open; make a new one with `model=source.model`.
        where: copy only entries that fit this filter.
        progress: called with the numbers of finished and of all entries, after each batch.
        waiting: called with the reason before each wait for a server that is away or orders it, and with None once it
            answers again; it may be called from another thread.

    Raises:
        FingerprintError: the target has pages of another model, or of other settings.
        StoreError: a store cannot be read or written, and the entries before are copied. Once all others are copied:
            the target refuses entries, such as pages with more numbers than a Qdrant server takes; they are named.
        InputError: the filter cannot be read.

    Example:
        >>> with MultiVectorStore.open("my-index") as source:
        ...     with MultiVectorStore.open("other-index", model=source.model, first_stage="exact") as target:
        ...         copy_store(source, target).copied, copy_store(source, target).present
        (2, 2)
    """
    with running("{stored} now; copy again, and those that are there stay", waiting=waiting):
        return _copied(source, target, where, progress)


def _copied(
    source: MultiVectorStore,
    target: MultiVectorStore,
    where: FilterLike,
    progress: Callable[[int, int], object] | None,
) -> CopyReport:
    target.require_writable()
    target.require_pages(source.model)
    ids = [*source.hashes(where)]
    counts = {"entries": 0, "copied": 0, "updated": 0, "present": 0, "without_vectors": 0}
    refused: list[tuple[str, StoreError]] = []
    done = 0
    for some in pieces(ids, _BATCH):
        entries = [entry for entry in source.get(some) if entry is not None]  # without those removed meanwhile
        held = target.get([entry.id for entry in entries])
        copied, changed = _differing(entries, held)
        target.update_entries(changed)
        vectors = source.vectors([entry.id for entry in copied]) if copied else []
        records = [(entry, one) for entry, one in zip(copied, vectors, strict=True) if one is not None]
        stored = target.add(
            records, model=source.model, on_error=lambda entry, error: refused.append((entry.name, error))
        )
        counts["entries"] += len(entries)
        counts["copied"] += stored
        counts["updated"] += len(changed)
        counts["present"] += len(entries) - len(copied) - len(changed)
        counts["without_vectors"] += len(copied) - len(records)
        done += len(some)
        if progress is not None:
            progress(done, len(ids))
    report = CopyReport(**counts)
    if report.without_vectors:
        logger.warning("%s: entries without vectors, which are not copied: %d", source.where, report.without_vectors)
    if refused:
        raise all_refused(refused, report.copied + report.updated + report.present)
    return report


def _differing(entries: Sequence[Entry], held: Sequence[Entry | None]) -> tuple[list[Entry], list[Entry]]:
    """The entries to store with their vectors, and those of which only the metadata differ."""
    copied, changed = [], []
    for entry, own in zip(entries, held, strict=True):
        if own is None or (own.content_hash, own.text) != (entry.content_hash, entry.text):
            copied.append(entry)
        elif _rest(own) != _rest(entry):
            if entry.content_hash:
                changed.append(replace(entry, grid=own.grid))  # which the target may have pooled
            else:
                copied.append(entry)
    return copied, changed


def _rest(entry: Entry) -> tuple[object, ...]:
    return dict(entry.metadata), entry.document_id, dict(entry.extra)
