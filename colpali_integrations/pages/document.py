"""Documents as pages: identity, text, metadata and picture of each page of a PDF or an image.

Frameworks copy, hash, store and trace metadata, and drop fields of subclasses of their documents. Pixels do not survive
that, so `reference.page_image` draws a page again from its metadata. Base64 is included only on request, because it
floods traces and stores.

| key | value |
|---|---|
| source | the path as given, or the URL or name of the content |
| file_path | the real path of a file |
| file_name | the last part of `source` |
| document_id | see `identity.document_id` |
| page, page_count | 1-based number within the document, and how many pages it has; the frames of a TIFF are pages |
| page_label | the printed number, such as "iv"; of an image the number |
| width, height | in points (1/72 inch) for a PDF page, in pixels for an image |
| dpi | the resolution of the picture of a PDF page; an image has none |
| content_hash | 64 hex digits, see `identity.page_hash` |
| text_hash | hash of the page's text; the chunks of a splitter have the metadata of their page but another text |
| missing_fonts | names of fonts, joined by ", ", without which the page was drawn; absent where none is missing |
| image_base64, image_mime_type | the picture itself, on request |
| image_hash | hash of `image_base64`; a page whose picture was exchanged is another page |
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import PurePath
from typing import Any, TypeAlias

from PIL import Image

from colpali_integrations._options import checked_number, checked_text, shown
from colpali_integrations.errors import ConfigurationError, ImageError, InputError
from colpali_integrations.pages.arguments import page_numbers, whole_number
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import (
    document_id,
    file_digest,
    page_hash,
    page_id,
    page_key,
    page_name,
    pixel_digest,
    real_path,
    text_key,
)
from colpali_integrations.pages.images import ImagePages, image_name, load_image
from colpali_integrations.pages.metadata import checked_metadata, picture_hash
from colpali_integrations.pages.office import is_office
from colpali_integrations.pages.paged import is_paged
from colpali_integrations.pages.pdf import Pdf, open_named_pdf
from colpali_integrations.pages.reference import DEFAULT_DPI, encode_base64

__all__ = ["DEFAULT_DPI", "DocumentPage", "PagedDocument", "Source"]

Source: TypeAlias = str | os.PathLike[str] | bytes | Image.Image


class PagedDocument:
    """An open PDF, Office file or image. Each frame of a TIFF is a page; any other image has one page.

    The file is opened once. An Office file is converted to PDF, whose pages are its pages.

    Args:
        source: a path, the bytes, or a picture in memory.
        name: stored as `source` in the metadata, instead of the path: a URL or a file name. Messages about content
            without a path show it too.
        document_id: instead of one derived from the location and `metadata`.
        metadata: the caller's own values, for every page. They are part of the derived identity.
        extra_metadata: values for every page that are no part of the identity, such as those of a framework's reader.
        dpi: resolution of PDF pages.
        password: for an encrypted PDF. The metadata do not contain it.
        isolate: False to read a PDF that you trust in this process, without limits; see `open_pdf`.
        max_pixels: of an image; see `load_image`.
        image_formats: further formats of images; see `load_image`.

    Attributes:
        document_id: identity of the document.
        page_count: number of pages.
        digest: SHA-256 of the bytes (of the pixels, for a picture in memory).
        missing_fonts: of the pages whose text was read: the number of each page that is drawn without some characters,
            and the names of the fonts that are neither in the file nor on this machine.

    Raises:
        ConfigurationError: dpi is not positive, or another option has an invalid value.
        InputError: the file cannot be read, or its name is not valid Unicode.
        PdfError: the PDF cannot be opened.
        ImageError: the picture in memory cannot be used.

    Example:
        >>> with PagedDocument("report.pdf", metadata={"tenant": "north"}) as document:
        ...     page = document.page(2)
        ...     page.name, page.metadata["tenant"], page.draw().size
        ('report.pdf, page 2', 'north', (1241, 1754))
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str | None = None,
        document_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        extra_metadata: Mapping[str, Any] | None = None,
        dpi: float = DEFAULT_DPI,
        password: str | None = None,
        isolate: bool = True,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
    ) -> None:
        dpi = checked_number(dpi, "dpi", 0, above=True)
        if name is not None:
            checked_text(name, "name")
        if document_id is not None and not isinstance(document_id, str):
            raise ConfigurationError(f"document_id must be a string, got {document_id!r}")
        self.source = _checked_source(source)
        self.path = real_path(self.source) if isinstance(self.source, str) else None
        self._tags = checked_metadata(metadata)
        self.metadata = {**checked_metadata(extra_metadata, "extra_metadata"), **self._tags}
        self._password, self._isolate, self._name = password, isolate, name
        self._limits = ImageLimits(max_pixels, image_formats)
        self._pdf: Pdf | None = None
        self._pages: ImagePages | None = None
        self._drawn: tuple[int, Image.Image] | None = None
        self.missing_fonts: dict[int, tuple[str, ...]] = {}
        self.digest = ""
        self.is_pdf = not isinstance(self.source, Image.Image) and is_paged(self.path or self.source)
        self.dpi = dpi if self.is_pdf else None
        if not isinstance(self.source, Image.Image) and is_office(self.path or self.source):
            self.digest = file_digest(self.path or self.source)  # its conversion takes seconds, in which it may change
        if isinstance(self.source, Image.Image):
            self.source = load_image(self.source, max_pixels=max_pixels, image_formats=image_formats)
            self.page_count = 1
        else:
            self.page_count = self._opened.page_count if self.is_pdf else self._opened_image.page_count
            self._check_unchanged()
        self.digest = (
            pixel_digest(self.source) if isinstance(self.source, Image.Image) else file_digest(self.path or self.source)
        )
        self.name = name or (self.source if isinstance(self.source, str) else f"sha256:{self.digest[:16]}")
        self.document_id = document_id or self._identity(name)

    def page(self, number: int) -> DocumentPage:
        """A page, which is read on first use.

        Args:
            number: 1-based.

        Raises:
            PdfError: the PDF has no such page.
            ImageError: the image has no such page.
            ConfigurationError: no whole number.
        """
        number = whole_number(number)
        if self.is_pdf and not 1 <= number <= self.page_count:
            self._opened.size(number)  # raises
        elif not 1 <= number <= self.page_count:
            pages = "has only page 1" if self.page_count == 1 else f"has pages 1 to {self.page_count}"
            raise ImageError(f"{self.name} is an image and {pages}; page {number} was requested")
        return DocumentPage(self, number)

    def pages(self, numbers: Iterable[int] | None = None) -> Iterator[DocumentPage]:
        """Pages in the requested order; None for all."""
        requested = page_numbers(numbers)
        for number in range(1, self.page_count + 1) if requested is None else requested:
            yield self.page(number)

    def close(self) -> None:
        """Release the file and its decoded picture. The next use of a page opens it again."""
        pdf, self._pdf = self._pdf, None
        self._pages = self._drawn = None
        if pdf is not None:
            pdf.close()

    def __enter__(self) -> PagedDocument:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def _opened(self) -> Pdf:
        if self._pdf is None:
            assert not isinstance(self.source, Image.Image)
            self._check_unchanged()
            source = self.path or self.source
            self._pdf = open_named_pdf(source, self._shown, password=self._password, isolate=self._isolate)
        return self._pdf

    @property
    def _opened_image(self) -> ImagePages:
        if self._pages is None:
            assert not isinstance(self.source, Image.Image)
            self._pages = ImagePages(self.path or self.source, self._limits, self._shown)
        return self._pages

    @property
    def _shown(self) -> str:
        """The name in errors and log entries: the path as given, or the name of content without one."""
        return image_name(self.source if isinstance(self.source, str) else self._name or self.source)

    def _picture(self, number: int) -> Image.Image:
        """The picture of a page of an image. The last one stays in memory, because its size is asked for first."""
        if isinstance(self.source, Image.Image):
            return self.source
        drawn = self._drawn
        if drawn is None or drawn[0] != number:
            self._check_unchanged()
            drawn = self._drawn = number, self._opened_image.draw(number)
        return drawn[1]

    def _check_unchanged(self) -> None:
        """Refuse a file that was changed since its digest was taken: its pages would get the wrong content hash."""
        if self.path is not None and self.digest and file_digest(self.path) != self.digest:
            raise InputError(f"{self.path} was changed while it was read; index it again")

    def _identity(self, name: str | None) -> str:
        try:
            self.name.encode()
        except UnicodeEncodeError as error:
            raise InputError("file name is not valid UTF-8 and cannot be stored; rename the file") from error
        url = name if name is not None and "://" in name else None  # the file is a copy, such as a download
        return document_id(url or self.path or name or f"sha256:{self.digest}", self._tags)


def _checked_source(source: Any) -> str | bytes | Image.Image:
    if isinstance(source, str | bytes | Image.Image):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, os.PathLike) and isinstance(path := os.fspath(source), str):
        return path
    raise InputError(f"expected a document, which is a path, bytes or a PIL image, got {shown(source)}")


class DocumentPage:
    """One page of a `PagedDocument`. Text and picture are read on first use.

    Args:
        document: the open document.
        number: 1-based.

    Attributes:
        id: identity of the page in a store.
        name: the name of the page in messages: "report.pdf, page 7".
        content_hash: see `identity.page_hash`.
        key: equal for pages of equal vectors; see `identity.page_key`.
    """

    def __init__(self, document: PagedDocument, number: int) -> None:
        self.document, self.number = document, number
        self.id, self.name = page_id(document.document_id, number), page_name(document.name, number)
        self.content_hash = page_hash(document.digest, number)
        self.key = page_key(self.content_hash, document.dpi)

    @cached_property
    def content(self) -> str:
        """The text layer, or the page's name, because frameworks treat documents of equal content as duplicates."""
        document = self.document
        if not document.is_pdf:
            return self.name
        text = document._opened.text(self.number).strip()
        if names := document._opened.missing_fonts(self.number):
            document.missing_fonts[self.number] = names
        return text or self.name

    @property
    def size(self) -> tuple[float, float]:
        """Width and height, in points for a PDF, in pixels for an image."""
        document = self.document
        size = document._opened.size(self.number) if document.is_pdf else document._picture(self.number).size
        width, height = size
        return round(width, 2), round(height, 2)

    @property
    def location(self) -> dict[str, str]:
        """The metadata that change when a file is moved; empty for content without a file."""
        document = self.document
        if document.path is None:
            return {}
        return {"source": document.name, "file_path": document.path, "file_name": PurePath(document.name).name}

    @property
    def metadata(self) -> dict[str, Any]:
        """The caller's metadata and those of the page, JSON-safe; see the table of the module."""
        document, (width, height) = self.document, self.size
        text_hash = text_key(self.content)
        values: dict[str, Any] = {
            "source": document.name,
            "file_path": document.path,
            "file_name": PurePath(document.name).name or document.name,
            "document_id": document.document_id,
            "page": self.number,
            "page_label": document._opened.label(self.number) if document.is_pdf else str(self.number),
            "page_count": document.page_count,
            "width": width,
            "height": height,
            "dpi": document.dpi,
            "content_hash": self.content_hash,
            "text_hash": text_hash,
            "missing_fonts": ", ".join(document.missing_fonts.get(self.number, ())) or None,
        }
        return {**document.metadata, **{key: value for key, value in values.items() if value is not None}}

    def metadata_with_image(self) -> dict[str, Any]:
        """`metadata` with the picture as base64 PNG."""
        encoded = encode_base64(self.draw())
        picture = {"image_base64": encoded, "image_hash": picture_hash(encoded), "image_mime_type": "image/png"}
        return {**self.metadata, **picture}

    def draw(self) -> Image.Image:
        """The picture of the page, RGB."""
        document = self.document
        if document.dpi:
            return document._opened.render(self.number, document.dpi)
        return document._picture(self.number)
