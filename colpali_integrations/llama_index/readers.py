"""`PdfPageReader`: one node per page."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from llama_index.core.bridge.pydantic import Field
from llama_index.core.readers.base import BasePydanticReader
from llama_index.core.schema import ImageNode

from colpali_integrations.errors import ColPaliError
from colpali_integrations.llama_index._components import StrictComponent
from colpali_integrations.llama_index.schema import page_node
from colpali_integrations.pages.document import DEFAULT_DPI, PagedDocument
from colpali_integrations.pages.identity import page_name
from colpali_integrations.pages.images import image_name
from colpali_integrations.stores.indexing import find_documents

__all__ = ["PdfPageReader"]

logger = logging.getLogger(__name__)


class PdfPageReader(StrictComponent, BasePydanticReader):
    """Reads PDFs, images (each of which is its only page) and folders of these as one `ImageNode` per page.

    The node's text is the page's text layer, or "report.pdf, page 3" for a scan: a node without text is dropped by
    index building, and two of them collide in the cache of an `IngestionPipeline`. Its metadata (JSON-safe) are those
    of `pages.document`: source, file_name, page (1-based), page_label, page_count and so on. The picture is a reference
    in `image_path` ("report.pdf#page=3&dpi=150..."), which is drawn on demand by whatever takes the node from this
    package; other consumers of a readable `image_path` need `include_image=True`. Hand the nodes on whole: a text
    splitter would separate pages from their pictures.

    Ids are the same at every reading, so that an index is updated and does not grow: they are made of the file's real
    path, the values of `metadata`, and the page's number. The same file in two folders, or with two values of
    `metadata`, is two documents.

    A page is its own source document, by which pipelines and indexes recognise and delete it. With
    `DocstoreStrategy.UPSERTS_AND_DELETE` LlamaIndex's document store fails to delete such a node: set its
    `relationships` to {} for that, with which `ColPaliVectorStore` works as well.

    `MultiModalVectorStoreIndex` and vector stores support `ImageNode` and turn `ImageDocument` into plain text, hence
    nodes. `SimpleDirectoryReader(..., file_extractor={".pdf": PdfPageReader()})` and
    `IngestionPipeline(readers=[ReaderConfig(reader=PdfPageReader(), reader_args=["report.pdf"])])` work too.

    Attributes:
        metadata: the caller's own values, such as a tenant, for every node; they are part of a document's identity.
        dpi: resolution of PDF pages.
        include_image: put the picture into each node as base64 PNG; None does so only where a reference cannot be
            followed: for bytes and for encrypted PDFs.
        password: for encrypted PDFs. It is kept neither in the nodes nor in `to_dict()`.
        on_error: "raise" the error of a document or page that cannot be read, or "skip" it with a log entry.

    Example:
        >>> nodes = PdfPageReader().load_data("report.pdf")
        >>> nodes[1].metadata["page"], nodes[1].image_path
        (2, 'report.pdf#page=2&dpi=150&sha256=...')
    """

    metadata: dict[str, Any] = Field(default_factory=dict, description="The caller's own values, for every node.")
    dpi: float = Field(default=DEFAULT_DPI, gt=0, allow_inf_nan=False, description="Resolution of the drawn pages.")
    include_image: bool | None = Field(default=None, description="Put the picture into each node as base64 PNG.")
    password: str | None = Field(default=None, exclude=True, repr=False, description="For encrypted PDFs.")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="What is done about unreadable pages.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "PdfPageReader"

    def lazy_load_data(  # type: ignore[override]  # nodes, which BaseReader's signature does not foresee
        self,
        file: str | os.PathLike[str] | bytes | Iterable[str | os.PathLike[str]],
        extra_info: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        pages: Iterable[int] | None = None,
        exclude: Iterable[str] = (),
        name: str | None = None,
        fs: Any = None,
    ) -> Iterator[ImageNode]:
        """Read pages one by one. A document is opened once; only `include_image` draws its pages.

        Args:
            file: a file or a folder, several of these, or the content of a document.
            extra_info: more metadata for each node, which are no part of its identity, as `SimpleDirectoryReader`
                passes names, sizes and dates.
            metadata: the caller's own values, added to the reader's.
            pages: 1-based numbers of the pages of each document; None for all.
            exclude: patterns of files in folders to pass over; see `stores.find_documents`.
            name: stored as `source` for content without a path, and its identity.
            fs: an fsspec file system to read paths from, as `SimpleDirectoryReader` passes it. A page of a file that is
                not local carries its picture.

        Yields:
            Nodes, in order.

        Raises:
            InputError: a path does not exist.
            PdfError: not a PDF, damaged, encrypted without the right password, or without a requested page.
            ImageError: neither a PDF nor an image.
        """
        numbers = None if pages is None else list(pages)
        given = [file] if isinstance(file, (str, os.PathLike, bytes)) else list(file)
        local = [one for one in given if not isinstance(one, bytes) and (fs is None or Path(one).exists())]
        own = {**self.metadata, **(metadata or {})}
        for path in find_documents(local, exclude=exclude):
            yield from self._read(path, name, own, numbers, extra_info or {})
        for one in given:
            if isinstance(one, bytes):
                yield from self._read(one, name, own, numbers, extra_info or {})
            elif one not in local:
                yield from self._read(fs.cat_file(os.fspath(one)), os.fspath(one), own, numbers, extra_info or {})

    def load_data(self, *args: Any, **load_kwargs: Any) -> list[ImageNode]:  # type: ignore[override]
        """Read all pages at once; see `lazy_load_data`."""
        return list(self.lazy_load_data(*args, **load_kwargs))

    def _read(
        self,
        source: Path | bytes,
        name: str | None,
        metadata: Mapping[str, Any],
        pages: list[int] | None,
        extra: Mapping[str, Any],
    ) -> Iterator[ImageNode]:
        try:
            document = PagedDocument(
                source, name=name, metadata=metadata, extra_metadata=extra, dpi=self.dpi, password=self.password
            )
        except ColPaliError as error:
            return self._skip(name or image_name(source), error)
        drawn = self.include_image
        if drawn is None:
            drawn = isinstance(source, bytes) or self.password is not None
        with document:
            for number in range(1, document.page_count + 1) if pages is None else pages:
                try:
                    page = document.page(number)
                    node = page_node(page.content, page.metadata_with_image() if drawn else page.metadata)
                except ColPaliError as error:
                    self._skip(page_name(document.name, number), error)
                else:
                    yield node

    def _skip(self, name: str, error: ColPaliError) -> None:
        if self.on_error == "raise":
            raise error
        logger.warning("skipped %s: %s", name, error)
