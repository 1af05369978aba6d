"""Ingestion into a store: look up, copy or encode, store, and remove the pages that a document no longer has.

Every entry point (files, LangChain, LlamaIndex, the command line) maps its input to `DocumentSource` and `Item` and
calls `ingest`. Equal content is encoded once, whatever documents it is in. Results are stored in batches as they come,
so an error or an interruption loses only the batch in flight.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields, replace
from threading import Event
from typing import Any, Literal, TypeAlias

from colpali_integrations._failures import item_error
from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_whole
from colpali_integrations._text import split_name
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError, ModelError
from colpali_integrations.models.colpali import ColPali, check_query
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.identity import READER_KEYS, page_id
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.pdf import missing_fonts_message
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.pipeline import checked_batching
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import CONTENT, DOCUMENT
from colpali_integrations.stores.items import DocumentSource, Item
from colpali_integrations.stores.model_choice import open_model
from colpali_integrations.stores.runs import running
from colpali_integrations.stores.store import MultiVectorStore

__all__ = [
    "DocumentWarning",
    "Failure",
    "IngestReport",
    "OnError",
    "Progress",
    "ProgressCallback",
    "check_on_error",
    "font_warning",
    "ingest",
    "listening",
    "no_such_pages",
    "skipped",
]

logger = package_logger(__name__)

OnError: TypeAlias = Literal["raise", "skip"]

# Number of items that are looked up in the store, copied, or encoded as texts together.
_TOGETHER = 256
_CONTINUES = "{stored} by this run; run it again, and it goes on with the others"
# Documents of equal content that stay open, where each of their pages is read in turn; as many as `pages.kept` keeps.
_COPIES = 4


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


@dataclass(frozen=True)
class DocumentWarning:
    """Something that is wrong with a document whose pages were stored all the same.

    Attributes:
        name: of the document.
        message: what is wrong, and what to do.

    Example:
        >>> warning = DocumentWarning("poem.pdf", "page 1: a font is missing")
        >>> f"{warning.name}, {warning.message}"
        'poem.pdf, page 1: a font is missing'
    """

    name: str
    message: str


@dataclass
class IngestReport:
    """The outcome of an ingestion.

    Attributes:
        documents: number of documents.
        added: pages and texts encoded and stored.
        copied: stored with the vectors of an equal page of another document.
        present: unchanged.
        updated: stored with other metadata, which were replaced.
        replaced: of those added and copied, new content in place of old.
        removed: pages that their document no longer has.
        absent: requested pages beyond the end of one of several documents.
        failures: items that could not be stored.
        warnings: one per document that has pages without some of their characters, because a font is missing; also of
            pages that were stored in an earlier run.
        passed_over: numbers of files and folders that a search did not take, by reason; see `FoundDocuments`.
        twins: new documents whose file the store also holds as another document, as with other `metadata`: by the name
            of the new one, the id of the other.
        little_read: number of stored pages of which the model recognised little (`ColPali.reads_little`), by the
            document's name. Unchanged and copied pages are not counted.
        little_read_with_text: of those, pages with a text layer, which hybrid search ranks by its words.
        ids: of the stored entries, one per page and item in the order of the input.

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
    absent: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[DocumentWarning] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    little_read: dict[str, int] = field(default_factory=dict)
    little_read_with_text: int = 0
    ids: list[str] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, and name and reason of each failure and warning, JSON-safe.

        >>> IngestReport(documents=1, added=3).to_dict()["added"]
        3
        """
        counts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "ids"}
        failures = [{"name": one.name, "error": one.reason} for one in self.failures]
        warnings = [{"name": one.name, "warning": one.message} for one in self.warnings]
        return {**counts, "failures": failures, "warnings": warnings, "passed_over": dict(self.passed_over)}

    def note_little_read(self, entry: Entry) -> None:
        """Count a page of which the model recognised little.

        Args:
            entry: of the page.

        Example:
            >>> report = IngestReport()
            >>> report.note_little_read(Entry(id="a", text="Привет", metadata={"source": "letter.pdf", "page": 1}))
            >>> report.little_read, report.little_read_with_text
            ({'letter.pdf': 1}, 1)
        """
        name = entry.source or entry.id
        self.little_read[name] = self.little_read.get(name, 0) + 1
        self.little_read_with_text += entry.has_text


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


def ingest(
    sources: Iterable[DocumentSource | Item],
    *,
    store: MultiVectorStore,
    model: ColPali | str | os.PathLike[str],
    batch_size: int | None = None,
    parallel: int | None = None,
    on_error: OnError = "raise",
    progress: ProgressCallback | bool = False,
    stop: Event | None = None,
    together: int | None = None,
    force: bool = False,
) -> IngestReport:
    """Store documents and items, encoding only content that is new to the store.

    A document that is stored already is brought up to date: pages of equal content stay, pages of new content are
    replaced, and pages beyond its end are removed once all others are stored. A document that can be read only in part,
    or of which only some pages are requested, loses no page.

    While the server of a store is away, the run waits for it, by default for 60 s: see `retry_seconds` of
    `MultiVectorStore.open`.

    Args:
        sources: documents, and items of an adapter; of several items with one id, the last one counts.
        store: the destination.
        model: the encoder, the model of the store; or its name or folder, which goes on with the settings of the
            store's pages.
        batch_size: as `ColPali.embed_images`.
        parallel: as `ColPali.embed_images`.
        on_error: "raise" the error of an item that cannot be read or encoded, after storing those before it, or
            "skip" it with a log entry.
        progress: a function that is called after each item, or True for a progress bar on stderr.
        stop: once it is set, the run ends after the current page.
        together: number of sources that are opened and stored before the next ones, for sources that keep pictures in
            memory; None for all.
        force: draw and encode every page and text again, also those that the store has. The tags of
            `MultiVectorStore.update_metadata` stay, and so do all other documents.

    Returns:
        Numbers, failures and ids.

    Raises:
        ConfigurationError: an option has an invalid value.
        InputError: a document or page cannot be read, a text is empty, or no document has a requested page.
        EncodingError: the model cannot encode a page.
        StoreError: at once, where the store is open for reading alone; metadata that cannot be written as JSON, or the
            store cannot be written. Where its server was away for too long, the message says how many pages are stored.
        FingerprintError: the store was made by another model, or its pages with other settings.

    Example:
        >>> with ColPali.from_pretrained() as model, MultiVectorStore.open(model=model) as store:
        ...     for tenant in ("north", "south"):
        ...         source = DocumentSource(source="report.pdf", metadata={"tenant": tenant})
        ...         report = ingest([source], store=store, model=model)
        ...         print(report.added, report.copied)
        2 0
        0 2
    """
    check_on_error(on_error)
    batch_size, parallel = checked_batching(batch_size, parallel)
    together = None if together is None else checked_whole(together, "together")
    store.require_writable()
    model = open_model(model, store.model)
    store.require_pages(model)
    parts = list(pieces(sources, together or sys.maxsize)) or [[]]
    stop = stop or Event()
    with listening(progress) as listener:
        run = _Run(store, model, on_error, stop, listener, force=force)
        with running(_CONTINUES, waiting=run.note_wait, stop=stop):
            run.go(parts, batch_size, parallel)
    return run.report


def check_on_error(on_error: str) -> None:
    """Refuse any value but "raise" and "skip"."""
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")


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


def skipped(name: str, error: ColPaliError, on_error: OnError) -> Failure:
    """Raise an error, or log it, as `on_error` requires. A model that cannot be loaded is no fault of an item."""
    if on_error == "raise" or isinstance(error, ModelError):
        raise error from error.__cause__
    failure = Failure(name, error)
    logger.warning("skipped %s: %s", *split_name(name, str(error)), extra={"failure": failure})
    return failure


def no_such_pages(longest: int) -> InputError:
    """The error about page numbers that none of several documents has.

    Args:
        longest: number of pages of the longest document.
    """
    has = "1 page" if longest == 1 else f"{longest} pages"
    return InputError(f"pages: no document has any of the requested pages; the longest has {has}")


def _has_content(entry: Entry | None, key: str) -> bool:
    return entry is not None and entry.content_hash == key


class _Run:
    """One call of `ingest`."""

    def __init__(
        self,
        store: MultiVectorStore,
        model: ColPali,
        on_error: OnError,
        stop: Event,
        listener: ProgressCallback,
        *,
        force: bool,
    ) -> None:
        self.store, self.model, self.on_error, self.stop, self._listener = store, model, on_error, stop, listener
        self._force = force
        self.report = IngestReport()
        self._items: dict[str, Item] = {}
        self._order: list[str] = []  # one id per page and item, with repetitions
        self._stored: dict[str, Entry] = {}  # by id
        self._origins: dict[str, Entry] = {}  # by content key
        self._whole: list[tuple[str, set[str]]] = []  # each document that is read as a whole, and the ids of its pages
        self._failed: set[str] = set()
        self._missing_fonts: dict[str, dict[int, tuple[str, ...]]] = {}  # by document and page
        self._settled: set[str] = set()  # ids whose entries are up to date in the store
        self._counted: dict[str, bool] = {}  # by id of items that were handed to the store: whether they were encoded
        self._longest = 0  # number of pages of the longest document
        self._found = 0  # number of items that are stored or have failed
        self._progress = Progress(0, 0)

    def go(self, parts: Sequence[list[DocumentSource | Item]], batch_size: int | None, parallel: int | None) -> None:
        """Store the sources, those of one part together."""
        for index, part in enumerate(parts):
            self.plan(part)
            if index + 1 == len(parts):
                self.require_pages()
            self.store_known()
            self.encode(batch_size, parallel, later=sum(map(len, parts[index + 1 :])))
        self.clean_up()

    # -- planning -----------------------------------------------------------------------------------------------

    def plan(self, sources: Iterable[DocumentSource | Item]) -> None:
        """Open each document for the number of its pages, and look up all items."""
        opened: PagedDocument | None = None
        self._items.clear()  # of an earlier part
        for source in sources:
            if self.stop.is_set():
                return
            if isinstance(source, Item):
                self._plan([source])
                continue
            if opened is not None:
                opened.close()  # too many open files; a single document stays open for reading
            opened = self._open(source)
        parts: dict[tuple[str, int], set[str]] = {}
        for item in self._items.values():
            if item.page_of is not None:
                parts.setdefault(item.page_of, set()).add(item.id)
        self._whole += [(document, ids) for (document, count), ids in parts.items() if len(ids) == count]
        for items in pieces(self._items.values(), _TOGETHER):
            self._look_up(items)

    def _open(self, source: DocumentSource) -> PagedDocument | None:
        self.report.documents += 1
        try:
            document = source.open()
            items = source.items(document)
        except BaseException as error:
            self._fail(source.label, item_error(error), source.index)
            return None
        self.report.absent += len(source.pages or items) - len(items)
        self._longest = max(self._longest, document.page_count)
        self._plan(items)
        if source.pages is None and source.id is None:
            self._whole.append((document.document_id, {item.id for item in items}))
        return document

    def require_pages(self) -> None:
        """Refuse page numbers that no document has."""
        if self.report.absent and not self._order:
            raise no_such_pages(self._longest)

    def _plan(self, items: Sequence[Item]) -> None:
        self._items.update((item.id, item) for item in items)
        self._order += [item.id for item in items]

    def _look_up(self, items: Sequence[Item]) -> None:
        stored = self.store.get([item.id for item in items])
        self._stored.update((entry.id, entry) for entry in stored if entry is not None)
        missing = {item.key: item for item in items if not self._is_stored(item)}
        if missing and not self._force:
            for entry in self.store.scroll({CONTENT: {"$in": sorted(missing)}}):
                self._note_twin(missing.get(entry.content_hash), entry)
                # Only entries whose vectors this run does not replace can be copied at any time.
                if entry.id not in self._items or self._items[entry.id].key == entry.content_hash:
                    self._origins[entry.content_hash] = entry

    def _note_twin(self, item: Item | None, stored: Entry) -> None:
        """Note an entry of equal content from the item's own file, which is another document of the store."""
        document, other = None if item is None else item.document, stored.document_id
        if document is None or document.path is None or other is None or other == document.document_id:
            return
        if stored.metadata.get("file_path") == document.path:
            self.report.twins.setdefault(document.name, other)

    def _is_stored(self, item: Item) -> bool:
        """Whether the store has the item's content under its id."""
        stored = self._stored.get(item.id)
        return stored is not None and stored.content_hash == item.key

    def _is_new(self, item: Item) -> bool:
        """Whether the item has to be encoded."""
        return self._force or (not self._is_stored(item) and item.key not in self._origins)

    # -- storing ------------------------------------------------------------------------------------------------

    def store_known(self) -> None:
        """Store the items whose vectors the store has: with new metadata, or as a copy of equal content."""
        for items in pieces([item for item in self._items.values() if not self._is_new(item)], _TOGETHER):
            if self.stop.is_set():
                return
            changes = [(item, *change) for item in items if (change := self._change(item)) is not None]
            described: list[tuple[Item, str, Entry]] = []
            copied: list[tuple[Item, str, Entry]] = []
            for one in changes:
                (described if self._keeps_vectors(one[2]) else copied).append(one)
            self.store.update_entries(entry for _, _, entry in described)
            updated = self.store.get([entry.id for _, _, entry in described])
            arrays = self._vectors(copied)
            records = ((entry, array) for (_, _, entry), array in zip(copied, arrays, strict=True) if array is not None)
            self.store.add(records, model=self.model, on_error=self._refuse)
            # Another process may have removed or replaced an entry since the look-up.
            stored = [
                *map(_has_content, updated, [item.key for item, _, _ in described]),
                *(array is not None for array in arrays),
            ]
            for (item, origin, _), done in zip([*described, *copied], stored, strict=True):
                _close(item)  # reading its text has opened the document
                if item.id not in self._failed:
                    self._count_copy(item, origin, stored=done)

    def _keeps_vectors(self, entry: Entry) -> bool:
        """Whether the entry takes the place of one with its content and text, hence with its vectors and words."""
        stored = self._stored.get(entry.id)
        return stored is not None and (stored.content_hash, stored.text) == (entry.content_hash, entry.text)

    def _vectors(self, changes: Sequence[tuple[Item, str, Entry]]) -> list[Float32 | None]:
        """The vectors to copy; None where another process has deleted or replaced the origin since the look-up."""
        ids = [origin for _, origin, _ in changes]
        vectors = self.store.vectors(ids)
        # Read after the vectors: an origin that has the item's content still had it when its vectors were read.
        origins = self.store.get(ids)
        return [
            array if origin is not None and origin.content_hash == item.key else None
            for (item, _, _), array, origin in zip(changes, vectors, origins, strict=True)
        ]

    def _change(self, item: Item) -> tuple[str, Entry] | None:
        """The id to copy vectors from, and the new entry; None if the stored entry is up to date."""
        try:
            if not self._is_stored(item):
                origin = self._origins[item.key]
                entry = self._tagged(item, replace(self._read(item), grid=origin.grid))
                entry.to_payload()  # refuse metadata that cannot be stored
                return origin.id, entry
            stored = self._stored[item.id]
            self._note_stored(item, stored)
            entry = item.refreshed(stored)
            if entry is not stored and entry.to_payload() != stored.to_payload():
                return stored.id, entry
            self.report.present += 1
            self._settled.add(item.id)
        except BaseException as error:
            self._fail_item(item, item_error(error))
        return None

    def _read(self, item: Item) -> Entry:
        entry = item.entry()
        if item.document is not None and item.document.missing_fonts:
            self._missing_fonts.setdefault(item.document.name, {}).update(item.document.missing_fonts)
        return entry

    def _note_stored(self, item: Item, stored: Entry) -> None:
        """Note the fonts without which a page of a document was drawn in an earlier run."""
        names = stored.metadata.get("missing_fonts")
        if item.document is not None and isinstance(names, str) and stored.page:
            self._missing_fonts.setdefault(item.document.name, {})[stored.page] = tuple(names.split(", "))

    def _tagged(self, item: Item, entry: Entry) -> Entry:
        """The entry of a document's page with the metadata that `update_metadata` gave its earlier content."""
        stored = self._stored.get(item.id)
        if item.tags is None or stored is None:
            return entry
        tags = {key: value for key, value in stored.metadata.items() if key not in READER_KEYS}
        return replace(entry, metadata={**tags, **entry.metadata})

    def _count_copy(self, item: Item, origin: str, *, stored: bool) -> None:
        """Count an item; without the vectors of its origin it has to be encoded."""
        if not stored:
            self._origins.pop(item.key, None)
            if origin == item.id:
                self._stored.pop(item.id, None)
            return
        self._settled.add(item.id)
        if self._is_stored(item):
            self.report.updated += 1
        else:
            self.report.copied += 1
            self.report.replaced += item.id in self._stored

    def encode(self, batch_size: int | None, parallel: int | None, *, later: int) -> None:
        """Encode and store the texts and pages that are new to the store; equal pages once.

        Args:
            batch_size: of the model.
            parallel: of the model.
            later: number of sources that are not planned yet.
        """
        texts: list[Item] = []
        pages: dict[str, list[Item]] = {}  # by content key
        for item in filter(self._is_new, self._items.values()):
            group = texts if item.draw is None else pages.setdefault(item.key, [])
            group.append(item)
        done = self._progress.done
        total = done + len(texts) + sum(map(len, pages.values())) + later
        self._progress = Progress(done, total, stored=self._found)
        self._listener(self._progress)
        for items in pieces(texts, _TOGETHER):
            if not self.stop.is_set():
                self._encode_texts(items)
        if pages:
            with keep_pdfs_open():  # those of a framework's pages, which come without their document
                records = self._records(list(pages.values()), batch_size, parallel)
                self.store.add(records, model=self.model, on_error=self._refuse, on_stored=self._count_stored)

    def _encode_texts(self, items: Sequence[Item]) -> None:
        entries: list[tuple[Item, Entry]] = []
        for item in items:
            try:
                entry = item.entry()
                check_query(item.text or entry.text)
                entry.to_payload()
                entries.append((item, entry))
            except BaseException as error:
                self._fail_item(item, item_error(error))
        if entries:
            vectors = self.model.embed_texts([item.text or entry.text for item, entry in entries])
            records = ((entry, array) for (_, entry), array in zip(entries, vectors, strict=True))
            self.store.add(records, model=self.model, on_error=self._refuse, on_stored=self._count_stored)
        for item, _ in entries:
            if item.id not in self._failed:
                self._count(item, encoded=True)

    def _records(
        self, groups: Sequence[list[Item]], batch_size: int | None, parallel: int | None
    ) -> Iterator[tuple[Entry, Any]]:
        """Encode one page per group of equal pages, and yield an entry with vectors for each item."""
        in_flight: deque[list[tuple[Item, Entry]]] = deque()

        def fail(error: ColPaliError) -> None:
            for item, _ in in_flight.popleft():
                self._fail_item(item, error)

        pictures = self._pictures(groups, in_flight)
        encoded = self.model.embed_pages(pictures, batch_size=batch_size, parallel=parallel, on_error=fail)
        with closing(encoded):
            for page in encoded:
                little_read = self.model.reads_little(page)
                for position, (item, entry) in enumerate(in_flight.popleft()):
                    yield replace(entry, grid=page.grid), page.vectors
                    if item.id in self._failed:  # the store has refused it
                        continue
                    self._count(item, encoded=position == 0)
                    if little_read and position == 0:
                        self.report.note_little_read(entry)

    def _count_stored(self, count: int) -> None:
        self._found += count

    def _pictures(
        self, groups: Sequence[list[Item]], in_flight: deque[list[tuple[Item, Entry]]]
    ) -> Iterator[ImageSource]:
        """Draw each group's first readable item, and make the entries of the group while its documents are open."""
        last = {item.document: position for position, group in enumerate(groups) for item in group}
        for position, group in enumerate(groups):
            if self.stop.is_set():
                return
            entries: list[tuple[Item, Entry]] = []
            picture: ImageSource | None = None
            for item in group:
                try:
                    entry = self._tagged(item, self._read(item))
                    entry.to_payload()  # refuse metadata that cannot be stored before the page is encoded
                    if picture is None and item.draw is not None:
                        picture = item.draw()
                    entries.append((item, entry))
                except BaseException as error:
                    self._fail_item(item, item_error(error))
                if last[item.document] == position or len(group) > _COPIES:
                    _close(item)
            if picture is not None:
                in_flight.append(entries)
                yield picture

    # -- outcomes -----------------------------------------------------------------------------------------------

    def clean_up(self) -> None:
        """Remove pages beyond the end of documents that were read as a whole, and complete the report."""
        for document_id, ids in self._whole:
            if ids & self._failed or self.stop.is_set():
                continue
            other_ids = self.store.hashes({DOCUMENT: document_id}).keys() - ids
            # Pages with ids of their own stay, such as a cover or a figure that an adapter stored for the document.
            others = [entry for entry in self.store.get(sorted(other_ids)) if entry is not None and entry.page]
            beyond = [entry.id for entry in others if entry.id == page_id(document_id, entry.page or 0)]
            self.report.removed += self.store.delete(beyond) if beyond else 0
        self.report.warnings = [font_warning(name, pages) for name, pages in self._missing_fonts.items()]
        self.report.ids = [id_ for id_ in self._order if id_ in self._settled]
        if self.report.replaced or self.report.removed:
            logger.info("content changed: %d replaced, %d removed", self.report.replaced, self.report.removed)
        for name, other in self.report.twins.items():
            logger.info("%s: the store also holds this file as the document %s, with other metadata", name, other)
        if self.report.little_read:
            self._warn_of_little_read()

    def _warn_of_little_read(self) -> None:
        documents, with_text = self.report.little_read, self.report.little_read_with_text
        total, first = sum(documents.values()), next(iter(documents))
        logger.warning(
            "%s recognises few words on %d of %d new pages, in %d of %d documents, such as %s: their print may be in "
            "another script than Latin. %s",
            self.model.description.name,
            total,
            self.report.added,
            len(documents),
            max(self.report.documents, len(documents)),
            first,
            _remedy(total, with_text),
        )

    def _count(self, item: Item, *, encoded: bool) -> None:
        self.report.added += encoded
        self.report.copied += not encoded
        self.report.replaced += item.id in self._stored
        self._settled.add(item.id)
        self._counted[item.id] = encoded
        self._notify(item.name)

    def _refuse(self, entry: Entry, error: ColPaliError) -> None:
        """Report an entry that the store refuses; pages are counted before a server has seen them."""
        item = self._items[entry.id]
        encoded = self._counted.pop(item.id, None)
        if encoded is not None:
            self.report.added -= encoded
            self.report.copied -= not encoded
            self.report.replaced -= item.id in self._stored
            self._settled.discard(item.id)
            self._progress = replace(self._progress, done=self._progress.done - 1)
        self._fail_item(item, error)

    def _fail_item(self, item: Item, error: ColPaliError) -> None:
        self._failed.add(item.id)
        error.index = error.item = None  # they count the encoded pages, not the items of the caller
        self._fail(item.name, error, item.index)

    def _fail(self, name: str, error: ColPaliError, index: int | None = None) -> None:
        if index is not None and self.on_error == "raise":
            error.at(index, name)
        failure = skipped(name, error, self.on_error)
        self.report.failures.append(failure)
        self._found += 1
        self._notify(name, failure)

    def note_wait(self, reason: str | None) -> None:
        """Show a wait for the server of the store, or with None its end."""
        self._listener(replace(self._progress, failure=None, waiting=reason))

    def _notify(self, name: str, failure: Failure | None = None) -> None:
        done, total = self._progress.done + 1, self._progress.total
        self._progress = Progress(done, total, name, failure, stored=self._found)
        self._listener(self._progress)


def font_warning(name: str, pages: Mapping[int, Sequence[str]]) -> DocumentWarning:
    """The warning about a document with pages that lack fonts.

    Args:
        name: of the document.
        pages: the names of the fonts by the number of the page.
    """
    names = list(dict.fromkeys(font for fonts in pages.values() for font in fonts))
    first = min(pages)
    place = f"page {first}" if len(pages) == 1 else f"{len(pages)} pages from page {first} on"
    return DocumentWarning(name, f"{place}: {missing_fonts_message(names)}")


def _remedy(little_read: int, with_text: int) -> str:
    """What a caller can do about pages of which little was read, some of them with a text layer."""
    other_model = "use a model that reads their script"
    if not with_text:
        return f"None of them has a text layer; {other_model}"
    hybrid = "which hybrid search ranks by its words"
    if with_text == little_read:
        return f"All of them have a text layer, {hybrid}"
    return f"Text layers: {with_text} of {little_read}, {hybrid}; for the others {other_model}"


def _close(item: Item) -> None:
    if item.document is not None:
        item.document.close()
