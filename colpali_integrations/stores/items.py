"""Input of an ingestion: documents, whose pages are read during it, and items of an adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_flag, checked_number, checked_text
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.arguments import checked_password, page_numbers
from colpali_integrations.pages.document import DEFAULT_DPI, DocumentPage, PagedDocument, Source
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import check_metadata
from colpali_integrations.pages.images import ImageSource, image_name
from colpali_integrations.pages.metadata import checked_metadata
from colpali_integrations.stores.entries import Entry

__all__ = ["DocumentSource", "Item", "page_entry"]

logger = package_logger(__name__)

SourceOrLoader: TypeAlias = Source | Callable[[], Source]


@dataclass(frozen=True, kw_only=True)
class DocumentSource:
    """A PDF or an image to be stored, with the options of its reading.

    Attributes:
        source: a path, the bytes, a picture, or a function that returns one of these.
        name: stored as `source`, instead of the path: a URL or a file name.
        document_id: identity of the document; None derives it from the location and `metadata`.
        metadata: the caller's own values, for every page.
        extra_metadata: values for every page that are no part of its identity.
        pages: 1-based numbers; None for all.
        pass_over: leave out requested pages beyond the document's end, as for one of several documents; otherwise they
            are an error.
        dpi: resolution of PDF pages.
        password: for an encrypted PDF.
        isolate: False to read a PDF that you trust in this process, without limits; see `pages.open_pdf`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        one_image: whether only the first frame of a TIFF counts, with a log entry.
        include_image: whether the metadata carry each picture as base64 PNG.
        id: of the entry, for a document of one page; None derives it from the document and the page's number.
        index: position in the caller's list, for error messages.

    Raises:
        ConfigurationError: an option has an invalid value, such as `pages` that are not 1-based whole numbers, or
            `metadata` has values in whose place a page has its own.

    Example:
        >>> source = DocumentSource(source="report.pdf", metadata={"tenant": "north"})
        >>> with source.open() as document:
        ...     [item.name for item in source.items(document)]
        ['report.pdf, page 1', 'report.pdf, page 2']
    """

    source: SourceOrLoader
    name: str | None = None
    document_id: str | None = None
    metadata: Mapping[str, Any] | None = None
    extra_metadata: Mapping[str, Any] | None = None
    pages: Sequence[int] | None = None
    pass_over: bool = False
    dpi: float = DEFAULT_DPI
    password: str | None = None
    isolate: bool = True
    max_pixels: int = MAX_PIXELS
    image_formats: Iterable[str] = ()
    one_image: bool = False
    include_image: bool = False
    id: str | None = None
    index: int | None = None

    def __post_init__(self) -> None:
        """Refuse invalid options before a document is opened."""
        limits = ImageLimits(self.max_pixels, self.image_formats)
        object.__setattr__(self, "image_formats", limits.image_formats)
        object.__setattr__(self, "pages", [1] if self.one_image else page_numbers(self.pages))
        object.__setattr__(self, "dpi", checked_number(self.dpi, "dpi", 0, above=True))
        checked_password(self.password)
        for name in ("name", "document_id", "id"):
            if getattr(self, name) is not None:
                checked_text(getattr(self, name), name)
        for name in ("pass_over", "isolate", "one_image", "include_image"):
            object.__setattr__(self, name, checked_flag(getattr(self, name), name))
        for name in ("metadata", "extra_metadata"):
            checked_metadata(getattr(self, name), name)
        check_metadata(self.metadata, source=self.name)

    @property
    def label(self) -> str:
        """The document's name in messages."""
        return image_name(self.name or ("a document" if callable(self.source) else self.source))

    def open(self) -> PagedDocument:
        """Open the document.

        Raises:
            InputError: it cannot be read; see `PagedDocument`.
        """
        return PagedDocument(
            self.source() if callable(self.source) else self.source,
            name=self.name,
            document_id=self.document_id or self.id,
            metadata=self.metadata,
            extra_metadata=self.extra_metadata,
            dpi=self.dpi,
            password=self.password,
            isolate=self.isolate,
            max_pixels=self.max_pixels,
            image_formats=self.image_formats,
        )

    def numbers(self, document: PagedDocument) -> list[int]:
        """The numbers of the requested pages, without those that are passed over."""
        if self.pages is None:
            return list(range(1, document.page_count + 1))
        return [number for number in self.pages if not self.pass_over or number <= document.page_count]

    def items(self, document: PagedDocument) -> list[Item]:
        """The items of the requested pages, which are not read yet."""
        if self.one_image and document.page_count > 1:
            logger.warning("%s has %d frames; the first is used", document.name, document.page_count)
        return [self._item(page) for page in document.pages(self.numbers(document))]

    def _item(self, page: DocumentPage) -> Item:
        id_ = self.id or page.id
        return Item(
            id=id_,
            key=page.key,
            name=page.name,
            entry=lambda: page_entry(page, id_, include_image=self.include_image),
            draw=page.draw,
            tags=None if self.include_image else {**page.document.metadata, **page.location},
            document=page.document,
            index=self.index,
        )


@dataclass(frozen=True, kw_only=True)
class Item:
    """A page or a text to be stored, before it has vectors.

    Attributes:
        id: of its entry.
        key: equal for equal vectors; see `pages.identity.page_key` and `text_key`.
        name: the item's name in messages.
        entry: a function that reads a page or text and returns its entry, without a grid.
        draw: a function that returns the picture of a page; None for a text.
        text: encoded instead of the entry's text, such as a text with its metadata.
        tags: the caller's metadata and the location of a document's page; they update a stored entry without reading
            the page, and leave its other metadata as they are. None compares the whole entry.
        document: closed after its last page.
        page_of: the document's id and its number of pages, for a page that comes without its document. A run that has
            all pages of the document removes pages beyond its end.
        index: position in the caller's list, for error messages.

    Example:
        >>> from colpali_integrations.pages.identity import text_key
        >>> note = Entry(id="note", text="Low tide at six", content_hash=text_key("Low tide at six"))
        >>> Item(id=note.id, key=note.content_hash, name="a note", entry=lambda: note).entry().text
        'Low tide at six'
    """

    id: str
    key: str
    name: str
    entry: Callable[[], Entry]
    draw: Callable[[], ImageSource] | None = None
    text: str = ""
    tags: Mapping[str, Any] | None = None
    document: PagedDocument | None = None
    page_of: tuple[str, int] | None = None
    index: int | None = None

    def refreshed(self, stored: Entry) -> Entry:
        """The stored entry of equal content with the item's metadata.

        If another adapter adds the same entry, the first adapter's data stay, and with them its document.
        """
        if self.tags is not None:
            tags = dict(self.tags)
            if stored.metadata.get("file_path") == tags.get("file_path"):  # the same file by another spelling
                tags = {key: value for key, value in tags.items() if key not in ("source", "file_name")}
            metadata = {**stored.metadata, **tags}
            return stored if metadata == stored.metadata else replace(stored, metadata=metadata)
        entry = replace(self.entry(), grid=stored.grid)
        if stored.extra and not entry.extra:
            entry = replace(entry, extra=stored.extra, document_id=stored.document_id)
        return entry


def page_entry(
    page: DocumentPage, id_: str | None = None, *, grid: PageGrid | None = None, include_image: bool = False
) -> Entry:
    """The entry of a document's page.

    Args:
        page: of an open document.
        id_: instead of the page's own id.
        grid: the position of each vector on the page.
        include_image: whether the metadata carry the picture as base64 PNG.
    """
    return Entry(
        id=id_ or page.id,
        text=page.content,
        metadata=page.metadata_with_image() if include_image else page.metadata,
        document_id=page.document.document_id,
        content_hash=page.key,
        grid=grid,
    )
