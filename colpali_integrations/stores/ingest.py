"""Ingestion into a store: look up, copy or encode, store, and remove the pages that a document no longer has.

Every entry point (files, LangChain, LlamaIndex, the command line) maps its input to `DocumentSource` and `Item` and
calls `ingest`. Equal content is encoded once, whatever documents it is in. Results are stored in batches as they come,
so an error or an interruption loses only the batch in flight.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from threading import Event
from typing import Any

from colpali_integrations._failures import item_error
from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ColPaliError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.encoding import check_query
from colpali_integrations.pages.identity import page_id
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.pipeline import checked_batching
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import DOCUMENT
from colpali_integrations.stores.ingestion.failures import OnError, check_on_error
from colpali_integrations.stores.ingestion.outcomes import Outcomes
from colpali_integrations.stores.ingestion.plan import TOGETHER, Plan
from colpali_integrations.stores.ingestion.progress import ProgressCallback, listening
from colpali_integrations.stores.ingestion.report import IngestReport
from colpali_integrations.stores.items import DocumentSource, Item
from colpali_integrations.stores.model_choice import open_model
from colpali_integrations.stores.runs import running
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["ingest"]

_CONTINUES = "{stored} by this run; run it again, and it goes on with the others"
# Documents of equal content that stay open, where each of their pages is read in turn; as many as `pages.kept` keeps.
_COPIES = 4


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
    stop = stop or Event()
    with running(_CONTINUES, stop=stop):
        store.require_writable()
    model = open_model(model, store.model)
    store.require_pages(model)
    parts = list(pieces(sources, together or sys.maxsize)) or [[]]
    with listening(progress) as listener:
        outcomes = Outcomes(on_error, listener)
        plan = Plan(store, outcomes, stop, force=force)
        with running(_CONTINUES, waiting=outcomes.note_wait, stop=stop):
            _Run(store, model, plan, outcomes, stop).go(parts, batch_size, parallel)
    return outcomes.report


class _Run:
    """One call of `ingest`."""

    def __init__(self, store: MultiVectorStore, model: ColPali, plan: Plan, outcomes: Outcomes, stop: Event) -> None:
        self._store, self._model, self._plan, self._outcomes, self._stop = store, model, plan, outcomes, stop

    def go(self, parts: Sequence[list[DocumentSource | Item]], batch_size: int | None, parallel: int | None) -> None:
        """Store the sources, those of one part together."""
        for index, part in enumerate(parts):
            self._plan.make(part)
            if index + 1 == len(parts):
                self._plan.require_pages()
            self.store_known()
            self.encode(batch_size, parallel, later=sum(map(len, parts[index + 1 :])))
        self.clean_up()

    # -- content that the store has -----------------------------------------------------------------------------

    def store_known(self) -> None:
        """Store the items whose vectors the store has: with new metadata, or as a copy of equal content."""
        for items in pieces([item for item in self._plan.items.values() if not self._plan.is_new(item)], TOGETHER):
            if self._stop.is_set():
                return
            changes = [(item, *change) for item in items if (change := self._change(item)) is not None]
            described: list[tuple[Item, str, Entry]] = []
            copied: list[tuple[Item, str, Entry]] = []
            for one in changes:
                (described if self._plan.keeps_vectors(one[2]) else copied).append(one)
            self._store.update_entries(entry for _, _, entry in described)
            updated = self._store.get([entry.id for _, _, entry in described])
            arrays = self._vectors(copied)
            records = ((entry, array) for (_, _, entry), array in zip(copied, arrays, strict=True) if array is not None)
            self._store.add(records, model=self._model, on_error=self._refuse)
            # Another process may have removed or replaced an entry since the look-up.
            stored = [
                *map(_has_content, updated, [item.key for item, _, _ in described]),
                *(array is not None for array in arrays),
            ]
            for (item, origin, _), done in zip([*described, *copied], stored, strict=True):
                _close(item)  # reading its text has opened the document
                if item.id not in self._outcomes.failed:
                    self._count_known(item, origin, stored=done)

    def _vectors(self, changes: Sequence[tuple[Item, str, Entry]]) -> list[Float32 | None]:
        """The vectors to copy; None where another process has deleted or replaced the origin since the look-up."""
        ids = [origin for _, origin, _ in changes]
        vectors = self._store.vectors(ids)
        # Read after the vectors: an origin that has the item's content still had it when its vectors were read.
        origins = self._store.get(ids)
        return [
            array if origin is not None and origin.content_hash == item.key else None
            for (item, _, _), array, origin in zip(changes, vectors, origins, strict=True)
        ]

    def _change(self, item: Item) -> tuple[str, Entry] | None:
        """The id to copy vectors from, and the new entry; None if the stored entry is up to date."""
        try:
            if not self._plan.is_stored(item):
                origin = self._plan.origins[item.key]
                entry = self._plan.tagged(item, replace(self._read(item), grid=origin.grid))
                entry.to_payload()  # refuse metadata that cannot be stored
                return origin.id, entry
            stored = self._plan.stored[item.id]
            self._note_stored(item, stored)
            entry = item.refreshed(stored)
            if entry is not stored and entry.to_payload() != stored.to_payload():
                return stored.id, entry
            self._outcomes.count_present(item)
        except BaseException as error:
            self._outcomes.fail_item(item, item_error(error))
        return None

    def _note_stored(self, item: Item, stored: Entry) -> None:
        """Note the fonts without which a page of a document was drawn in an earlier run."""
        names = stored.metadata.get("missing_fonts")
        if isinstance(names, str) and stored.page:
            self._outcomes.note_missing_fonts(item, {stored.page: names.split(", ")})

    def _count_known(self, item: Item, origin: str, *, stored: bool) -> None:
        """Count an item; without the vectors of its origin it has to be encoded."""
        if not stored:
            self._plan.forget(item, origin)
        elif self._plan.is_stored(item):
            self._outcomes.count_updated(item)
        else:
            self._outcomes.count_copied(item, replaced=item.id in self._plan.stored)

    # -- new content --------------------------------------------------------------------------------------------

    def encode(self, batch_size: int | None, parallel: int | None, *, later: int) -> None:
        """Encode and store the texts and pages that are new to the store; equal pages once.

        Args:
            batch_size: of the model.
            parallel: of the model.
            later: number of sources that are not planned yet.
        """
        texts: list[Item] = []
        pages: dict[str, list[Item]] = {}  # by content key
        for item in filter(self._plan.is_new, self._plan.items.values()):
            group = texts if item.draw is None else pages.setdefault(item.key, [])
            group.append(item)
        self._outcomes.begin(len(texts) + sum(map(len, pages.values())), later=later)
        for items in pieces(texts, TOGETHER):
            if not self._stop.is_set():
                self._encode_texts(items)
        if pages:
            with keep_pdfs_open():  # those of a framework's pages, which come without their document
                self._add(self._records(list(pages.values()), batch_size, parallel))

    def _add(self, records: Iterable[tuple[Entry, Any]]) -> None:
        self._store.add(records, model=self._model, on_error=self._refuse, on_stored=self._outcomes.count_stored)

    def _encode_texts(self, items: Sequence[Item]) -> None:
        entries: list[tuple[Item, Entry]] = []
        for item in items:
            try:
                entry = item.entry()
                check_query(item.text or entry.text)
                entry.to_payload()
                entries.append((item, entry))
            except BaseException as error:
                self._outcomes.fail_item(item, item_error(error))
        if entries:
            vectors = self._model.embed_texts([item.text or entry.text for item, entry in entries])
            self._add((entry, array) for (_, entry), array in zip(entries, vectors, strict=True))
        for item, _ in entries:
            if item.id not in self._outcomes.failed:
                self._count(item, encoded=True)

    def _records(
        self, groups: Sequence[list[Item]], batch_size: int | None, parallel: int | None
    ) -> Iterator[tuple[Entry, Any]]:
        """Encode one page per group of equal pages, and yield an entry with vectors for each item."""
        in_flight: deque[list[tuple[Item, Entry]]] = deque()

        def fail(error: ColPaliError) -> None:
            for item, _ in in_flight.popleft():
                self._outcomes.fail_item(item, error)

        pictures = self._pictures(groups, in_flight)
        encoded = self._model.embed_pages(pictures, batch_size=batch_size, parallel=parallel, on_error=fail)
        with closing(encoded):
            for page in encoded:
                little_read = self._model.reads_little(page)
                for position, (item, entry) in enumerate(in_flight.popleft()):
                    yield replace(entry, grid=page.grid), page.vectors
                    if item.id in self._outcomes.failed:  # the store has refused it
                        continue
                    self._count(item, encoded=position == 0)
                    if little_read and position == 0:
                        self._outcomes.report.note_little_read(entry)

    def _pictures(
        self, groups: Sequence[list[Item]], in_flight: deque[list[tuple[Item, Entry]]]
    ) -> Iterator[ImageSource]:
        """Draw each group's first readable item, and make the entries of the group while its documents are open."""
        last = {item.document: position for position, group in enumerate(groups) for item in group}
        for position, group in enumerate(groups):
            if self._stop.is_set():
                return
            entries: list[tuple[Item, Entry]] = []
            picture: ImageSource | None = None
            for item in group:
                try:
                    entry = self._plan.tagged(item, self._read(item))
                    entry.to_payload()  # refuse metadata that cannot be stored before the page is encoded
                    if picture is None and item.draw is not None:
                        picture = item.draw()
                    entries.append((item, entry))
                except BaseException as error:
                    self._outcomes.fail_item(item, item_error(error))
                if last[item.document] == position or len(group) > _COPIES:
                    _close(item)
            if picture is not None:
                in_flight.append(entries)
                yield picture

    # -- both ---------------------------------------------------------------------------------------------------

    def _read(self, item: Item) -> Entry:
        entry = item.entry()
        if item.document is not None:
            self._outcomes.note_missing_fonts(item, item.document.missing_fonts)
        return entry

    def _count(self, item: Item, *, encoded: bool) -> None:
        self._outcomes.count(item, encoded=encoded, replaced=item.id in self._plan.stored)

    def _refuse(self, entry: Entry, error: ColPaliError) -> None:
        self._outcomes.refuse(self._plan.items[entry.id], error)

    def clean_up(self) -> None:
        """Remove pages beyond the end of documents that were read as a whole, and complete the report."""
        for document_id, ids in self._plan.whole:
            if ids & self._outcomes.failed or self._stop.is_set():
                continue
            other_ids = self._store.hashes({DOCUMENT: document_id}).keys() - ids
            # Pages with ids of their own stay, such as a cover or a figure that an adapter stored for the document.
            others = [entry for entry in self._store.get(sorted(other_ids)) if entry is not None and entry.page]
            beyond = [entry.id for entry in others if entry.id == page_id(document_id, entry.page or 0)]
            self._outcomes.report.removed += self._store.delete(beyond) if beyond else 0
        self._outcomes.complete(self._plan.order, self._model.description.name)


def _has_content(entry: Entry | None, key: str) -> bool:
    return entry is not None and entry.content_hash == key


def _close(item: Item) -> None:
    if item.document is not None:
        item.document.close()
