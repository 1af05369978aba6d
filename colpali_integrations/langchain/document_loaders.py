"""PDFs and images -> one Document a page, which refers to its picture instead of carrying it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal, TypeAlias

from langchain_core.document_loaders import BaseBlobParser, BaseLoader
from langchain_core.documents import Document
from langchain_core.documents.base import Blob

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.pages.reference import DEFAULT_DPI, read_pages

__all__ = ["PageImageBlobParser", "PdfPageLoader"]

logger = logging.getLogger(__name__)

Source: TypeAlias = "str | os.PathLike[str] | Blob"


class PageImageBlobParser(BaseBlobParser):
    """Parses a PDF into one Document a page, and an image into one Document.

    `page_content` is the page's text layer, or "report.pdf, page 7" where there is none: it is never empty, because
    LangChain takes documents of equal content for duplicates. Metadata is JSON-safe:

    - `source`: the blob's source; `file_path`: its path, where that is something else.
    - `page`: **1-based**, as people and PDF viewers count (PyPDFLoader counts from 0); `page_count`.
    - `width`, `height`: in points (1/72 inch) for PDFs, in pixels for images; `dpi`: how the page is to be drawn.
    - `content_hash`: 64 hex digits over the file's bytes and the page number; equal for copies of a file.
    - `image_base64`, `image_mime_type`: only with `include_image=True`.

    What else the blob's metadata holds is kept. `ColPaliEmbeddings.embed_images` and `image_blocks` draw the page
    again from `source` and `page`. A blob of bytes without a file has nothing to be drawn from again: use
    `include_image=True` for those.

    Args:
        dpi: resolution at which pages are to be drawn.
        pages: 1-based numbers of the pages wanted; None for all.
        password: for encrypted PDFs.
        include_image: carry the picture as base64. It swells stores and traces.

    Example:
        >>> pages = PageImageBlobParser(pages=[2]).parse(Blob.from_path("report.pdf"))
        >>> [(page.metadata["source"], page.metadata["page"], page.metadata["page_count"]) for page in pages]
        [('report.pdf', 2, 2)]
    """

    def __init__(
        self,
        *,
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        include_image: bool = False,
    ) -> None:
        if not dpi > 0:
            raise ConfigurationError(f"dpi must be positive, got {dpi}")
        self.dpi = dpi
        self.pages = None if pages is None else list(pages)
        self.password = password
        self.include_image = include_image

    def lazy_parse(self, blob: Blob) -> Iterator[Document]:
        """Read pages one at a time.

        Raises:
            PdfError: not a PDF, damaged, encrypted, empty, or without a page asked for.
            ImageError: neither a PDF nor an image.
        """
        by_path = blob.data is None and blob.path is not None
        pages = read_pages(
            os.fspath(blob.path) if by_path and blob.path is not None else blob.as_bytes(),
            name=blob.source,
            dpi=self.dpi,
            pages=self.pages,
            password=self.password,
            include_image=self.include_image,
        )
        for page in pages:
            yield Document(page_content=page.content, metadata={**blob.metadata, **page.metadata})


class PdfPageLoader(BaseLoader):
    """Loads PDFs (and images) as one Document a page; `PageImageBlobParser` tells what is in it.

    Nothing is drawn while loading, unless `include_image` asks for it, so a long document loads in moments.

    Args:
        source: a file, a folder, a Blob, or several of them.
        glob: which files of a folder are loaded, in alphabetical order; the default takes PDFs in it and below.
        dpi: resolution at which pages are to be drawn.
        pages: 1-based numbers of the pages wanted of each file; None for all.
        password: for encrypted PDFs.
        include_image: carry each picture as base64 in the metadata.
        on_error: what becomes of a file that cannot be read: "raise" the error, or "skip" the rest of the file with a
            log entry and go on with the next.

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
        glob: str = "**/*.[pP][dD][fF]",
        dpi: float = DEFAULT_DPI,
        pages: Iterable[int] | None = None,
        password: str | None = None,
        include_image: bool = False,
        on_error: Literal["raise", "skip"] = "raise",
    ) -> None:
        if on_error not in ("raise", "skip"):
            raise ConfigurationError(f"on_error must be 'raise' or 'skip', got {on_error!r}")
        one = isinstance(source, (str, os.PathLike, Blob))
        self.sources: list[Source] = [source] if one else list(source)  # type: ignore[arg-type, list-item]
        self.glob = glob
        self.on_error = on_error
        self.parser = PageImageBlobParser(dpi=dpi, pages=pages, password=password, include_image=include_image)

    def lazy_load(self) -> Iterator[Document]:
        """Read pages one at a time, file by file. `alazy_load` does the same in a thread.

        Raises:
            PdfError: a PDF that cannot be read.
            ImageError: a file that is neither PDF nor image.
            InputError: a folder in which no file matches `glob`.
        """
        for source in self.sources:
            for blob in self._blobs(source):
                try:
                    yield from self.parser.lazy_parse(blob)
                except InputError as error:
                    if self.on_error == "raise":
                        raise
                    logger.warning("skipped %s: %s", blob.source or "a blob", error)

    def _blobs(self, source: Source) -> Iterator[Blob]:
        if isinstance(source, Blob):
            yield source
            return
        path = Path(source)
        if not path.is_dir():
            yield Blob.from_path(path)
            return
        files = sorted(file for file in path.glob(self.glob) if file.is_file())
        if not files:
            raise InputError(f"no file in {path} matches {self.glob!r}")
        for file in files:
            yield Blob.from_path(file)
