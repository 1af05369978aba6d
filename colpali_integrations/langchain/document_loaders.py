"""Loader and parser of PDFs, Office files and images: one Document per page, with a reference to its picture."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob

from colpali_integrations._options import checked_number, checked_several, unknown_option
from colpali_integrations.langchain._sources import document_source, document_sources
from colpali_integrations.pages.arguments import checked_password, page_numbers
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import check_metadata
from colpali_integrations.pages.metadata import checked_metadata
from colpali_integrations.stores import DocumentSource
from colpali_integrations.stores.indexing import check_document_id, read_documents
from colpali_integrations.stores.ingestion.failures import OnError, check_on_error
from colpali_integrations.stores.ingestion.progress import ProgressCallback

__all__ = ["PageImageBlobParser", "PdfPageLoader"]

Source: TypeAlias = str | os.PathLike[str] | Blob
# Arguments of LangChain's other loaders.
_GUESSES = {
    "glob": "a folder gives its PDFs, Office files and images; use exclude=[...] to leave files out",
    "silent_errors": "use on_error='skip'",
}


class PageImageBlobParser(BaseBlobParser):
    """Parser of a PDF or an Office file into one Document per page, of an image into one, of a TIFF into one per frame.

    `page_content` is the page's text layer, or "report.pdf, page 7" without one, because LangChain treats documents of
    equal content as duplicates. The metadata are JSON-safe:

    - `source`: the path, or the URL or name of the content; `file_name`: its last part; `file_path`: the real path of
      a file; `document_id`: the path or name together with `metadata`.
    - `page`: **1-based** (PyPDFLoader counts from 0); `page_label`: the printed number; `page_count`.
    - `width`, `height`: in points (1/72 inch) for PDFs, in pixels for images; `dpi`: the resolution of a PDF page.
    - `content_hash`: 64 hex digits over the file's bytes and the page number; `text_hash`: of `page_content`. A
      Document with a changed text is stored as a text, not as the page.
    - `image_base64`, `image_mime_type` and `image_hash`: only with `include_image=True`. A Document with an exchanged
      picture is another page.

    The blob's other metadata are kept. A page of a blob without a file can be drawn again only with
    `include_image=True`.

    Args:
        metadata: the caller's own values, for every page. They are part of the identity of the document: a store keeps
            the pages of one file with `{"tenant": "north"}` and with `{"tenant": "south"}` apart.
        dpi: resolution of PDF pages.
        pages: 1-based numbers of the requested pages; None for all.
        password: for encrypted PDFs.
        isolate: False to read PDFs that you trust in this process, without limits; see `pages.open_pdf`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        include_image: whether to include the picture as base64, which enlarges stores and traces.

    Raises:
        ConfigurationError: an option has an invalid value.

    Example:
        >>> pages = PageImageBlobParser(pages=[2]).parse(Blob.from_path("report.pdf"))
        >>> [(page.metadata["source"], page.metadata["page"], page.metadata["page_count"]) for page in pages]
        [('report.pdf', 2, 2)]
    """

    def __init__(
        self,
        *,
        metadata: Mapping[str, Any] | None = None,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        isolate: bool = True,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        include_image: bool = False,
    ) -> None:
        dpi = checked_number(dpi, "dpi", 0, above=True)
        check_metadata(metadata, source=checked_metadata(metadata).get("source"))
        checked_password(password)
        self.options: dict[str, Any] = {"metadata": metadata, "dpi": dpi, "pages": page_numbers(pages)}
        self.options |= {"password": password, "isolate": isolate, "include_image": include_image}
        self.options |= ImageLimits(max_pixels, image_formats).options

    def lazy_parse(self, blob: Blob) -> Iterator[Document]:
        """Read pages one at a time.

        Raises:
            PdfError: the PDF is damaged, encrypted or empty, or has no page of a requested number.
            ImageError: the blob is neither a PDF nor an image.
        """
        yield from _documents([document_source(blob, **self.options)])


class PdfPageLoader(BaseLoader):
    """Loader of PDFs, Office files and images as one Document per page; `PageImageBlobParser` lists their metadata.

    Pages are drawn only with `include_image=True`.

    Args:
        source: a file, a folder, a Blob, or several of them. Of a folder, all PDFs, Office files and images in it and
            below are loaded, sorted by name.
        exclude: patterns of files in folders to leave out, such as "drafts/*".
        follow_symlinks: load folders behind symbolic links too; see `stores.find_documents`.
        metadata: the caller's own values, for every page; see `PageImageBlobParser`.
        document_id: identity of a single document, instead of the one derived from its path or name and `metadata`.
        dpi: resolution of PDF pages.
        pages: 1-based numbers of the requested pages per file; None for all. Pages beyond the end of one of several
            files are passed over.
        password: for encrypted PDFs.
        isolate: False to read PDFs that you trust in this process, without limits; see `pages.open_pdf`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        include_image: whether to include each picture as base64 in the metadata.
        on_error: "raise" the error of a file or page that cannot be read, or "skip" it with a log entry.
        progress: a function that is called after each page, or True for a progress bar on stderr; see
            `stores.read_documents`.

    Raises:
        ConfigurationError: an option is unknown or has an invalid value, or `document_id` stands with a folder or
            several sources.

    Example:
        >>> loader = PdfPageLoader("reports/", on_error="skip")
        >>> for page in loader.lazy_load():
        ...     print(page.metadata["source"], page.metadata["page"])
        reports/2024.pdf 1
    """

    def __init__(
        self,
        source: Source | Iterable[Source],
        *,
        exclude: Iterable[str] = (),
        follow_symlinks: bool = False,
        metadata: Mapping[str, Any] | None = None,
        document_id: str | None = None,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        isolate: bool = True,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        include_image: bool = False,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        **unknown: NoReturn,
    ) -> None:
        if unknown:
            known = inspect.signature(type(self)).parameters.keys() - {"unknown"}
            raise unknown_option(type(self).__name__, unknown, known, _GUESSES)
        check_on_error(on_error)
        self.sources = (
            [source]
            if isinstance(source, str | os.PathLike | Blob)
            else list(checked_several(source, "a file, a folder, a Blob or several"))
        )
        check_document_id(document_id, self.sources)
        self.exclude = exclude if isinstance(exclude, str) else list(exclude)
        self.follow_symlinks = follow_symlinks
        self.document_id, self.on_error, self.progress = document_id, on_error, progress
        self.parser = PageImageBlobParser(
            metadata=metadata,
            dpi=dpi,
            pages=pages,
            password=password,
            isolate=isolate,
            max_pixels=max_pixels,
            image_formats=image_formats,
            include_image=include_image,
        )

    def lazy_load(self) -> Iterator[Document]:
        """Read pages one at a time, file by file. `alazy_load` does the same in a thread.

        Raises:
            PdfError: a PDF cannot be read.
            ImageError: a file is neither a PDF nor an image.
        """
        sources = document_sources(
            self.sources,
            exclude=self.exclude,
            follow_symlinks=self.follow_symlinks,
            document_id=self.document_id,
            **self.parser.options,
        )
        yield from _documents(sources, on_error=self.on_error, progress=self.progress)


def _documents(sources: Iterable[DocumentSource], **options: Any) -> Iterator[Document]:
    return (Document(entry.text, metadata=dict(entry.metadata)) for entry in read_documents(sources, **options))
