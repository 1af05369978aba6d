"""The plan of an ingestion: its items, and what the store has of them already."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from threading import Event

from colpali_integrations._failures import item_error
from colpali_integrations.errors import InputError
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.identity import READER_KEYS
from colpali_integrations.stores.engine import pieces
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import CONTENT
from colpali_integrations.stores.ingestion.outcomes import Outcomes
from colpali_integrations.stores.items import DocumentSource, Item
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["TOGETHER", "Plan", "no_such_pages"]

TOGETHER = 256
"""Number of items that are looked up in the store, copied, or encoded as texts together."""


class Plan:
    """The items of a run, a part at a time, beside the entries that the store has.

    Args:
        store: the destination.
        outcomes: of the run; documents that cannot be opened are reported there.
        stop: once it is set, no more sources are opened.
        force: encode all items, also those that the store has.

    Attributes:
        items: of the current part, by id.
        order: one id per page and item of all parts, with repetitions.
        stored: entries that the store has, by id.
        origins: entries whose vectors an item can get, by content key.
        whole: each document that is read as a whole, and the ids of its pages.
    """

    def __init__(self, store: MultiVectorStore, outcomes: Outcomes, stop: Event, *, force: bool) -> None:
        self._store, self._outcomes, self._stop, self._force = store, outcomes, stop, force
        self.items: dict[str, Item] = {}
        self.order: list[str] = []
        self.stored: dict[str, Entry] = {}
        self.origins: dict[str, Entry] = {}
        self.whole: list[tuple[str, set[str]]] = []
        self._longest = 0  # number of pages of the longest document

    def make(self, sources: Iterable[DocumentSource | Item]) -> None:
        """Open each document of a part for the number of its pages, and look up all items."""
        opened: PagedDocument | None = None
        self.items.clear()  # of an earlier part
        for source in sources:
            if self._stop.is_set():
                return
            if isinstance(source, Item):
                self._take([source])
                continue
            if opened is not None:
                opened.close()  # too many open files; a single document stays open for reading
            opened = self._open(source)
        parts: dict[tuple[str, int], set[str]] = {}
        for item in self.items.values():
            if item.page_of is not None:
                parts.setdefault(item.page_of, set()).add(item.id)
        self.whole += [(document, ids) for (document, count), ids in parts.items() if len(ids) == count]
        for items in pieces(self.items.values(), TOGETHER):
            self._look_up(items)

    def require_pages(self) -> None:
        """Refuse page numbers that no document has."""
        if self._outcomes.report.absent and not self.order:
            raise no_such_pages(self._longest)

    def is_stored(self, item: Item) -> bool:
        """Whether the store has the item's content under its id."""
        stored = self.stored.get(item.id)
        return stored is not None and stored.content_hash == item.key

    def is_new(self, item: Item) -> bool:
        """Whether the item has to be encoded."""
        return self._force or (not self.is_stored(item) and item.key not in self.origins)

    def keeps_vectors(self, entry: Entry) -> bool:
        """Whether the entry takes the place of one with its content and text, hence with its vectors and words."""
        stored = self.stored.get(entry.id)
        return stored is not None and (stored.content_hash, stored.text) == (entry.content_hash, entry.text)

    def tagged(self, item: Item, entry: Entry) -> Entry:
        """The entry of a document's page with the metadata that `update_metadata` gave its earlier content."""
        stored = self.stored.get(item.id)
        if item.tags is None or stored is None:
            return entry
        tags = {key: value for key, value in stored.metadata.items() if key not in READER_KEYS}
        return replace(entry, metadata={**tags, **entry.metadata})

    def forget(self, item: Item, origin: str) -> None:
        """Encode an item after all: another process has removed or replaced the entry `origin` with its vectors."""
        self.origins.pop(item.key, None)
        if origin == item.id:
            self.stored.pop(item.id, None)

    def _open(self, source: DocumentSource) -> PagedDocument | None:
        report = self._outcomes.report
        report.documents += 1
        try:
            document = source.open()
            items = source.items(document)
        except BaseException as error:
            self._outcomes.fail(source.label, item_error(error), source.index)
            return None
        report.absent += len(source.pages or items) - len(items)
        self._longest = max(self._longest, document.page_count)
        self._take(items)
        if source.pages is None and source.id is None:
            self.whole.append((document.document_id, {item.id for item in items}))
        return document

    def _take(self, items: Sequence[Item]) -> None:
        self.items.update((item.id, item) for item in items)
        self.order += [item.id for item in items]

    def _look_up(self, items: Sequence[Item]) -> None:
        stored = self._store.get([item.id for item in items])
        self.stored.update((entry.id, entry) for entry in stored if entry is not None)
        missing = {item.key: item for item in items if not self.is_stored(item)}
        if missing and not self._force:
            for entry in self._store.scroll({CONTENT: {"$in": sorted(missing)}}):
                self._note_twin(missing.get(entry.content_hash), entry)
                # Only entries whose vectors this run does not replace can be copied at any time.
                if entry.id not in self.items or self.items[entry.id].key == entry.content_hash:
                    self.origins[entry.content_hash] = entry

    def _note_twin(self, item: Item | None, stored: Entry) -> None:
        """Note an entry of equal content from the item's own file, which is another document of the store."""
        document, other = None if item is None else item.document, stored.document_id
        if document is None or document.path is None or other is None or other == document.document_id:
            return
        if stored.metadata.get("file_path") == document.path:
            self._outcomes.report.twins.setdefault(document.name, other)


def no_such_pages(longest: int) -> InputError:
    """The error about page numbers that none of several documents has.

    Args:
        longest: number of pages of the longest document.
    """
    has = "1 page" if longest == 1 else f"{longest} pages"
    return InputError(f"pages: no document has any of the requested pages; the longest has {has}")
