"""Documents into a store, with as little encoding as possible.

    Document --the same content under its id, or the same page under another--> its stored vectors ---+
             --a text--> embeddings.embed_documents_multi_vector --------------------------------------+--> store.add
             --a page--> drawn, embed_pages ----------------------------------------------------------+

Pages are stored as they come: what was done before an error, an interruption or a cancelled task is kept, and found
again by the next run.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Event
from typing import Any, Literal, NamedTuple, TypeAlias

from langchain_core.documents import Document
from numpy.typing import NDArray

from colpali_integrations.errors import ColPaliError, ConfigurationError, StoreError
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.pages import Content, content_of, document_of, entry_of, name_of
from colpali_integrations.langchain.sources import unreadable
from colpali_integrations.models.prompt import check_query
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.reference import page_image
from colpali_integrations.stores import Entry, MultiVectorStore

__all__ = ["Draw", "New", "OnError", "add_documents", "stored_content", "stored_pages"]

logger = logging.getLogger(__name__)

Draw: TypeAlias = "Callable[[], ImageSource]"
OnError: TypeAlias = Literal["raise", "skip"]
_Record: TypeAlias = "tuple[Entry, NDArray[Any]]"

# Documents that are looked up in the store together.
_TOGETHER = 256


class New(NamedTuple):
    """A Document to be added.

    Attributes:
        id: under which.
        document: the Document.
        draw: gives a page's picture; None to draw it from the metadata.
    """

    id: str
    document: Document
    draw: Draw | None = None


def add_documents(
    new: list[New],
    *,
    store: MultiVectorStore,
    embeddings: ColPaliEmbeddings,
    together: int | None = None,
    on_error: OnError = "raise",
    stop: Event | None = None,
) -> list[str]:
    """Store Documents, in place of those with the same ids.

    Args:
        new: of several with one id the last one counts.
        store: where to.
        embeddings: what encodes.
        together: how many are looked up and encoded as one group; None for 256.
        on_error: what becomes of a Document that cannot be read or encoded: "raise" its error, which names it, or
            "skip" it with a log entry.
        stop: when set, the work ends after the page at hand.

    Returns:
        The ids in the order of `new`, without those skipped.

    Raises:
        ConfigurationError: an option that cannot be.
        InputError: a page that cannot be drawn, a text that is empty.
        EncodingError: the model cannot encode it.
        StoreError: metadata that JSON cannot hold, or the store cannot be written.
    """
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
    if together is not None and together < 1:
        raise ConfigurationError(f"batch_size must be at least 1, got {together}")
    for index, one in enumerate(new):  # what cannot be stored is refused before anything is encoded
        try:
            entry_of(one.document, one.id).to_payload()
        except StoreError as error:
            raise error.at(index, name_of(one.document)) from error.__cause__
    run = _Run(store, embeddings, on_error, stop or Event())
    store.add(run.records(list({one.id: (index, one) for index, one in enumerate(new)}.values()), together))
    return [one.id for one in new if one.id not in run.failed]


def stored_pages(store: MultiVectorStore, documents: list[Document]) -> dict[Content, Entry]:
    """Entries, under whatever id, that hold the pages of some Documents, by their content."""
    wanted = {content_of(document) for document in documents}
    hashes = {document.metadata.get("content_hash") for document in documents if content_of(document).is_page}
    if not (known := sorted(one for one in hashes if isinstance(one, str))):
        return {}
    found = {stored_content(entry): entry for entry in store.scroll({"content_hash": {"$in": known}})}
    return {content: entry for content, entry in found.items() if content in wanted}


def stored_content(entry: Entry) -> Content:
    """What decided the vectors of an entry, whoever made it: a page's Document encoded as a text is a text."""
    content = content_of(document_of(entry))
    return Content(content.key, entry.is_page)


@dataclass
class _Run:
    """One call of `add_documents`."""

    store: MultiVectorStore
    embeddings: ColPaliEmbeddings
    on_error: OnError
    stop: Event

    def __post_init__(self) -> None:
        self.failed: set[str] = set()

    def records(self, new: list[tuple[int, New]], together: int | None) -> Iterator[_Record]:
        remaining = iter(new)
        while not self.stop.is_set() and (group := list(itertools.islice(remaining, together or _TOGETHER))):
            texts: list[tuple[int, New]] = []
            pages: dict[Content, list[tuple[int, New]]] = {}
            for index, one, content, known in self._looked_up(group):
                if known is not None:
                    yield from self._reused(one, known)
                elif content.is_page:
                    pages.setdefault(content, []).append((index, one))
                else:
                    texts.append((index, one))
            yield from self._texts(texts)
            yield from self._pages(pages)

    def _looked_up(self, group: list[tuple[int, New]]) -> Iterator[tuple[int, New, Content, Entry | None]]:
        """Each with what decides its vectors, and the entry that has them already."""
        contents = [content_of(one.document) for _, one in group]
        present = self.store.get([one.id for _, one in group])
        same = [
            entry if entry is not None and stored_content(entry) == content else None
            for entry, content in zip(present, contents, strict=True)
        ]
        others = [
            one.document for (_, one), content, found in zip(group, contents, same, strict=True)
            if found is None and content.is_page
        ]  # fmt: skip
        elsewhere = stored_pages(self.store, others)
        for (index, one), content, found in zip(group, contents, same, strict=True):
            yield index, one, content, found if found is not None else elsewhere.get(content)

    def _reused(self, one: New, known: Entry) -> Iterator[_Record]:
        entry = entry_of(one.document, one.id, known.grid)
        if known.id == one.id and known.extra:  # what another adapter keeps about it stays, and with it its document
            entry = replace(entry, extra=known.extra, group=known.group)
        if entry.to_payload() == known.to_payload():
            return  # nothing changed
        [vectors] = self.store.vectors([known.id])
        if vectors is not None:
            yield entry, vectors

    def _texts(self, texts: list[tuple[int, New]]) -> Iterator[_Record]:
        kept = []
        for index, one in texts:
            try:
                check_query(one.document.page_content)
            except ColPaliError as error:
                self._fail(index, [one], error)
            else:
                kept.append(one)
        vectors = self.embeddings.embed_documents_multi_vector([one.document.page_content for one in kept])
        for one, array in zip(kept, vectors, strict=True):
            yield entry_of(one.document, one.id), array

    def _pages(self, pages: Mapping[Content, list[tuple[int, New]]]) -> Iterator[_Record]:
        under_way: deque[list[tuple[int, New]]] = deque()

        def pictures() -> Iterator[Any]:
            for same in pages.values():
                if self.stop.is_set():
                    return
                under_way.append(same)
                _, one = same[0]
                try:
                    yield page_image(one.document.metadata) if one.draw is None else one.draw()
                except ColPaliError as error:
                    yield unreadable(name_of(one.document), error)

        if not pages:
            return

        def fail(error: ColPaliError) -> None:
            same = under_way.popleft()
            self._fail(same[0][0], [one for _, one in same], error)

        options = self.embeddings
        encoded = options.model.embed_pages(
            pictures(),
            batch_size=options.batch_size,
            parallel=options.parallel,
            on_error=fail,
            show_progress=options.show_progress,
        )
        with closing(encoded):
            for found in encoded:
                for _, one in under_way.popleft():
                    yield entry_of(one.document, one.id, found.grid), found.vectors

    def _fail(self, index: int, failed: list[New], error: ColPaliError) -> None:
        name = name_of(failed[0].document)
        error.index = error.item = None  # its place among what was encoded is not its place among the Documents
        if self.on_error == "raise":
            raise error.at(index, name)
        self.failed.update(one.id for one in failed)
        logger.warning("skipped %s: %s", name, error)
