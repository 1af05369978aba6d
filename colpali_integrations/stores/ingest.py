"""The one way into a store: look up, copy or encode, store, and remove what a document no longer holds.

Every entry point (files, LangChain, LlamaIndex, the command line) maps its input to `DocumentSource` and `Item` and
calls `ingest`. Equal content is encoded once, whatever documents it is in; results are stored as they come, so an error
or an interruption loses only the batch in flight.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from itertools import islice
from threading import Event
from typing import Any, Literal, TypeAlias, TypeVar

from colpali_integrations.errors import ColPaliError, ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.prompt import check_query
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import CONTENT, DOCUMENT
from colpali_integrations.stores.items import DocumentSource, Item
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["Failure", "IngestReport", "OnError", "Progress", "ProgressCallback", "ingest"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
OnError: TypeAlias = Literal["raise", "skip"]

# Items that are looked up in the store, copied, or encoded as texts together.
_TOGETHER = 256


@dataclass(frozen=True)
class Failure:
    """A document, page or text that could not be stored.

    Attributes:
        name: the path, or "path, page n".
        error: the reason.

    Example:
        >>> from colpali_integrations.errors import PdfError
        >>> Failure("torn.pdf", PdfError("torn.pdf is damaged").at(3, "torn.pdf")).reason
        'torn.pdf is damaged'
    """

    name: str
    error: ColPaliError

    @property
    def reason(self) -> str:
        """The error's message, without the position in the stream."""
        return str(self.error.args[0]) if self.error.args else str(self.error)


@dataclass
class IngestReport:
    """The outcome of an ingestion.

    Attributes:
        documents: number of documents.
        added: pages and texts encoded and stored.
        copied: stored with the vectors of an equal page of another document.
        present: found unchanged.
        updated: found with other metadata, which were replaced.
        replaced: of those added and copied, new content in place of old.
        removed: pages that their document no longer holds.
        failures: items that could not be stored.
        ids: of the entries that are in the store now, one per page and item in the order of the input.

    Example:
        >>> report = IngestReport(documents=2, added=12, present=3)
        >>> f"{report.added} pages encoded, {report.present} known, {len(report.failures)} failures"
        '12 pages encoded, 3 known, 0 failures'
    """

    documents: int = 0
    added: int = 0
    copied: int = 0
    present: int = 0
    updated: int = 0
    replaced: int = 0
    removed: int = 0
    failures: list[Failure] = field(default_factory=list)
    ids: list[str] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, and name and reason of each failure, JSON-safe.

        >>> IngestReport(documents=1, added=3).to_dict()["added"]
        3
        """
        counts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "ids"}
        return {**counts, "failures": [{"name": one.name, "error": one.reason} for one in self.failures]}


@dataclass(frozen=True)
class Progress:
    """The state of an ingestion.

    Attributes:
        done: pages and texts that were encoded, or failed.
        total: those that are to be encoded.
        name: of the last one, "" at the beginning.
        failure: of the last one; None for success.
    """

    done: int
    total: int
    name: str = ""
    failure: Failure | None = None


ProgressCallback: TypeAlias = Callable[[Progress], None]
"""Called before the first item and after each."""


def ingest(
    sources: Iterable[DocumentSource | Item],
    *,
    store: MultiVectorStore,
    model: ColPali,
    batch_size: int | None = None,
    parallel: int | None = None,
    on_error: OnError = "raise",
    progress: ProgressCallback | bool = False,
    stop: Event | None = None,
) -> IngestReport:
    """Store documents and items, encoding only content that the store does not hold yet.

    A document that is stored already is brought up to date: pages of equal content stay, pages of new content are
    replaced, and pages beyond its end are removed once all others are in. A document that could be read only in part,
    or of which only some pages were requested, loses no page.

    Args:
        sources: documents, and items of an adapter; of several items with one id the last one counts.
        store: the destination.
        model: the encoder; the one that the store was made with.
        batch_size: as `ColPali.embed_images`.
        parallel: as `ColPali.embed_images`.
        on_error: "raise" the error of an item that cannot be read or encoded, after storing those before it, or
            "skip" it with a log entry.
        progress: a function that is called after each item, or True for a progress bar on stderr.
        stop: when set, the work ends after the page at hand.

    Returns:
        Numbers, failures and ids.

    Raises:
        ConfigurationError: an option has an invalid value.
        InputError: a document or page that cannot be read, or a text that is empty.
        EncodingError: the model cannot encode a page.
        StoreError: metadata that JSON cannot hold, or the store cannot be written.
        FingerprintError: the store was made by another model.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    store.require(model)
    with _listener(progress) as listener:
        run = _Run(store, model, on_error, stop or Event(), listener)
        run.plan(sources)
        run.store_known()
        run.start_progress()
        run.encode_texts()
        run.encode_pages(batch_size, parallel)
        run.clean_up()
    return run.finished()


@dataclass
class _Document:
    """A document of the run: the ids of its pages, and whether all of them are here and well."""

    id: str
    ids: set[str]
    whole: bool


class _Run:
    """One call of `ingest`."""

    def __init__(
        self, store: MultiVectorStore, model: ColPali, on_error: OnError, stop: Event, listener: ProgressCallback
    ) -> None:
        self.store, self.model, self.on_error, self.stop, self._listener = store, model, on_error, stop, listener
        self.report = IngestReport()
        self._items: dict[str, Item] = {}
        self._order: list[str] = []  # an id per page and item, also where several have the same
        self._stored: dict[str, Entry] = {}  # by id
        self._known: dict[str, Entry] = {}  # by content key
        self._documents: list[_Document] = []
        self._failed: set[str] = set()
        self._progress = Progress(0, 0)

    # -- planning -----------------------------------------------------------------------------------------------

    def plan(self, sources: Iterable[DocumentSource | Item]) -> None:
        """Open each document for its pages' numbers, and look all items up."""
        opened: PagedDocument | None = None
        for source in sources:
            if isinstance(source, Item):
                self._plan([source])
                continue
            if opened is not None:
                opened.close()  # many documents cannot stay open; a single one is opened only once
            opened = self._open(source)
        for some in _pieces(list(self._items.values())):
            self._look_up(some)

    def _open(self, source: DocumentSource) -> PagedDocument | None:
        self.report.documents += 1
        try:
            document = source.open()
            items = source.items(document)
        except ColPaliError as error:
            self._fail(source.label, error, source.index)
            return None
        self._plan(items)
        whole = source.pages is None and source.id is None
        self._documents.append(_Document(document.document_id, {item.id for item in items}, whole))
        return document

    def _plan(self, items: Sequence[Item]) -> None:
        self._items.update((item.id, item) for item in items)
        self._order += [item.id for item in items]

    def _look_up(self, items: Sequence[Item]) -> None:
        stored = self.store.get([item.id for item in items])
        self._stored.update((entry.id, entry) for entry in stored if entry is not None)
        wanted = {item.key for item in items if not self._has(item)}
        if wanted:
            found = self.store.scroll({CONTENT: {"$in": sorted(wanted)}})
            self._known.update((entry.content_hash, entry) for entry in found if self._stays(entry))

    def _has(self, item: Item) -> bool:
        """Whether the store holds the item's content under its id."""
        stored = self._stored.get(item.id)
        return stored is not None and stored.content_hash == item.key

    def _stays(self, entry: Entry) -> bool:
        """Whether this run leaves an entry's vectors as they are, so that they can be copied at any time."""
        return entry.id not in self._items or self._items[entry.id].key == entry.content_hash

    def _new(self) -> list[Item]:
        """The items that have to be encoded."""
        return [item for item in self._items.values() if not self._has(item) and item.key not in self._known]

    # -- storing ------------------------------------------------------------------------------------------------

    def store_known(self) -> None:
        """Store the items whose vectors the store has: with new metadata, or as a copy of equal content."""
        for some in _pieces([item for item in self._items.values() if self._has(item) or item.key in self._known]):
            if self.stop.is_set():
                return
            changed = [(item, *change) for item in some if (change := self._change(item)) is not None]
            vectors = self.store.vectors([origin for _, origin, _ in changed])
            self.store.add(
                (entry, array) for (_, _, entry), array in zip(changed, vectors, strict=True) if array is not None
            )
            for (item, _, _), array in zip(changed, vectors, strict=True):
                self._settle(item, there=array is not None)

    def _change(self, item: Item) -> tuple[str, Entry] | None:
        """The id whose vectors an item gets, and its entry; None where the stored entry is up to date."""
        try:
            if not self._has(item):
                origin = self._known[item.key]
                return origin.id, replace(item.entry(), grid=origin.grid)
            stored = self._stored[item.id]
            entry = item.refreshed(stored)
            if entry.to_payload() != stored.to_payload():
                return stored.id, entry
            self.report.present += 1
        except ColPaliError as error:
            self._fail_item(item, error)
        return None

    def _settle(self, item: Item, *, there: bool) -> None:
        """Count an item; one whose origin was deleted by another process meanwhile has to be encoded."""
        if not there:
            self._known.pop(item.key, None)
            self._stored.pop(item.id, None)
        elif self._has(item):
            self.report.updated += 1
        else:
            self.report.copied += 1
            self.report.replaced += item.id in self._stored

    def encode_texts(self) -> None:
        """Encode and store the texts that the store does not hold."""
        texts = [item for item in self._new() if item.draw is None]
        for some in _pieces(texts):
            if self.stop.is_set():
                return
            found = [(item, entry) for item in some if (entry := self._text_entry(item)) is not None]
            if found:
                vectors = self.model.embed_texts([item.text or entry.text for item, entry in found])
                self.store.add((entry, array) for (_, entry), array in zip(found, vectors, strict=True))
            for item, _ in found:
                self._count(item, encoded=True)

    def _text_entry(self, item: Item) -> Entry | None:
        try:
            entry = item.entry()
            check_query(item.text or entry.text)
            entry.to_payload()
            return entry
        except ColPaliError as error:
            self._fail_item(item, error)
            return None

    def encode_pages(self, batch_size: int | None, parallel: int | None) -> None:
        """Encode and store the pages that the store does not hold; equal ones once."""
        by_key: dict[str, list[Item]] = {}
        for item in self._new():
            if item.draw is not None:
                by_key.setdefault(item.key, []).append(item)
        if by_key:
            self.store.add(self._records(list(by_key.values()), batch_size, parallel))

    def _records(
        self, groups: Sequence[list[Item]], batch_size: int | None, parallel: int | None
    ) -> Iterator[tuple[Entry, Any]]:
        """Entries with vectors; all items of a group are equal pages."""
        under_way: deque[tuple[list[Item], Entry]] = deque()

        def failed(error: ColPaliError) -> None:
            for item in under_way.popleft()[0]:
                self._fail_item(item, error)

        pictures = self._pictures(groups, under_way)
        encoded = self.model.embed_pages(pictures, batch_size=batch_size, parallel=parallel, on_error=failed)
        with closing(encoded):
            for page in encoded:
                (first, *others), entry = under_way.popleft()
                yield replace(entry, grid=page.grid), page.vectors
                self._count(first, encoded=True)
                for item in others:
                    yield replace(item.entry(), grid=page.grid), page.vectors
                    _close(item)
                    self._count(item, encoded=False)

    def _pictures(
        self, groups: Sequence[list[Item]], under_way: deque[tuple[list[Item], Entry]]
    ) -> Iterator[ImageSource]:
        """The picture of each group's first item; its entry is made while its document is open."""
        for place, group in enumerate(groups):
            if self.stop.is_set():
                return
            first = group[0]
            assert first.draw is not None
            try:
                entry, picture = first.entry(), first.draw()
                entry.to_payload()  # metadata that cannot be stored are refused before the page is encoded
            except ColPaliError as error:
                for item in group:
                    self._fail_item(item, error)
                continue
            if place + 1 == len(groups) or groups[place + 1][0].document is not first.document:
                _close(first)
            under_way.append((group, entry))
            yield picture

    # -- outcomes -----------------------------------------------------------------------------------------------

    def start_progress(self) -> None:
        """Report how many items are to be encoded."""
        self._progress = Progress(0, len(self._new()))
        self._listener(self._progress)

    def clean_up(self) -> None:
        """Remove pages beyond the end of documents that were read as a whole."""
        for document in self._documents:
            if not document.whole or document.ids & self._failed or self.stop.is_set():
                continue
            others = self.store.hashes({DOCUMENT: document.id}).keys() - document.ids
            beyond = [entry.id for entry in self.store.get(sorted(others)) if entry is not None and entry.is_page]
            self.report.removed += self.store.delete(beyond) if beyond else 0

    def finished(self) -> IngestReport:
        """The report, with the ids that are in the store."""
        self.report.ids = [id_ for id_ in self._order if id_ not in self._failed]
        if self.report.replaced or self.report.removed:
            logger.info("content changed: %d replaced, %d removed", self.report.replaced, self.report.removed)
        return self.report

    def _count(self, item: Item, *, encoded: bool) -> None:
        self.report.added += encoded
        self.report.copied += not encoded
        self.report.replaced += item.id in self._stored
        self._tell(item.name)

    def _fail_item(self, item: Item, error: ColPaliError) -> None:
        self._failed.add(item.id)
        error.index = error.item = None  # the position among the encoded pages is not that among the items
        self._fail(item.name, error, item.index)

    def _fail(self, name: str, error: ColPaliError, index: int | None = None) -> None:
        if self.on_error == "raise":
            raise (error if index is None else error.at(index, name)) from error.__cause__
        failure = Failure(name, error)
        self.report.failures.append(failure)
        logger.warning("skipped %s: %s", name, error)
        self._tell(name, failure)

    def _tell(self, name: str, failure: Failure | None = None) -> None:
        self._progress = Progress(self._progress.done + 1, self._progress.total, name, failure)
        self._listener(self._progress)


def _close(item: Item) -> None:
    if item.document is not None:
        item.document.close()


def _pieces(items: Sequence[T]) -> Iterator[list[T]]:
    remaining = iter(items)
    while piece := list(islice(remaining, _TOGETHER)):
        yield piece


@contextmanager
def _listener(progress: ProgressCallback | bool) -> Iterator[ProgressCallback]:
    if callable(progress):
        yield progress
    elif not progress:
        yield lambda _: None
    else:
        from tqdm import tqdm

        with tqdm(unit=" pages") as bar:

            def show(state: Progress) -> None:
                bar.total = state.total
                bar.update(state.done - bar.n)

            yield show
