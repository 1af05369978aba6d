"""`PdfPageReader`: one `ImageNode` a page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from llama_index.core.bridge.pydantic import ConfigDict, Field
from llama_index.core.readers.base import BasePydanticReader
from llama_index.core.schema import ImageNode

from colpali_integrations.llama_index.pages import page_id, page_node
from colpali_integrations.pages.reference import DEFAULT_DPI, read_pages
from colpali_integrations.runtime.threads import offload

__all__ = ["PdfPageReader"]


class PdfPageReader(BasePydanticReader):
    """Reads PDFs (and image files, which are their own only page) as one `ImageNode` a page.

    The node's text is the page's text layer, or "report.pdf, page 3" for a scan: a node without text is dropped by
    index building, and two of them collide in the cache of an `IngestionPipeline`. Its metadata (JSON-safe) are
    source, page (1-based), page_count, width, height, dpi and content_hash. The picture is a reference in
    `image_path` ("report.pdf#page=3&dpi=150..."), drawn when `ColPaliEmbedding` or `image_blocks` need it; what else
    expects a readable `image_path` wants `include_image=True`. Ids are the same at every reading, so that an index is
    updated and does not grow. Hand the nodes on whole: a text splitter would separate pages from their pictures.

    A page is its own source document, by which pipelines and indexes recognise and delete it. With
    `DocstoreStrategy.UPSERTS_AND_DELETE` LlamaIndex's document store fails to delete such a node: set its
    `relationships` to {} for that, with which `ColPaliVectorStore` does as well.

    `MultiModalVectorStoreIndex` and vector stores know `ImageNode` and turn `ImageDocument` into plain text, hence
    nodes. `SimpleDirectoryReader(..., file_extractor={".pdf": PdfPageReader()})` and
    `IngestionPipeline(readers=[ReaderConfig(reader=PdfPageReader(), reader_args=["report.pdf"])])` work too.

    Attributes:
        dpi: resolution at which pages are drawn.
        include_image: put the picture into each node as base64 PNG; None does so only where a reference cannot be
            followed: for bytes and for encrypted PDFs.
        password: for encrypted PDFs. It is kept neither in the nodes nor in `to_dict()`.

    Example:
        >>> nodes = PdfPageReader().load_data("report.pdf")
        >>> nodes[1].metadata["page"], nodes[1].image_path
        (2, 'report.pdf#page=2&dpi=150&sha256=...')
    """

    model_config = ConfigDict(extra="forbid")

    dpi: float = Field(default=DEFAULT_DPI, gt=0, allow_inf_nan=False, description="Resolution of the drawn pages.")
    include_image: bool | None = Field(default=None, description="Put the picture into each node as base64 PNG.")
    password: str | None = Field(default=None, exclude=True, repr=False, description="For encrypted PDFs.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "PdfPageReader"

    def lazy_load_data(  # type: ignore[override]  # nodes, which BaseReader's signature does not foresee
        self,
        file: str | os.PathLike[str] | bytes | Iterable[str | os.PathLike[str]],
        extra_info: dict[str, Any] | None = None,
        *,
        pages: Iterable[int] | None = None,
        name: str | None = None,
        fs: Any = None,
    ) -> Iterator[ImageNode]:
        """Read pages one by one.

        Args:
            file: a path, several, or the content of a document.
            extra_info: metadata to add to each node.
            pages: 1-based numbers of the pages wanted; None for all.
            name: what `source` says for content without a path.
            fs: an fsspec file system to read paths from, as `SimpleDirectoryReader` passes it. What is not a local
                file then carries its picture.

        Yields:
            Nodes, in order.

        Raises:
            PdfError: not a PDF, damaged, encrypted without the right password, or without a page asked for.
            ImageError: neither a PDF nor an image.
        """
        wanted = None if pages is None else list(pages)
        for one in [file] if isinstance(file, (str, os.PathLike, bytes)) else file:
            yield from self._read(one, extra_info or {}, wanted, name, fs)

    def load_data(self, *args: Any, **load_kwargs: Any) -> list[ImageNode]:  # type: ignore[override]
        """Read all pages at once; see `lazy_load_data`."""
        return list(self.lazy_load_data(*args, **load_kwargs))

    async def aload_data(self, *args: Any, **load_kwargs: Any) -> list[ImageNode]:  # type: ignore[override]
        """`load_data` without blocking the event loop."""
        return await offload(lambda: self.load_data(*args, **load_kwargs), "pages")

    async def alazy_load_data(self, *args: Any, **load_kwargs: Any) -> list[ImageNode]:  # type: ignore[override]
        """`load_data` without blocking the event loop: its type leaves no room for an asynchronous iterator."""
        return await self.aload_data(*args, **load_kwargs)

    def _read(
        self,
        one: str | os.PathLike[str] | bytes,
        extra: dict[str, Any],
        pages: list[int] | None,
        name: str | None,
        fs: Any,
    ) -> Iterator[ImageNode]:
        source: str | bytes = one if isinstance(one, bytes) else os.fspath(one)
        if isinstance(source, str) and fs is not None and not Path(source).is_file():
            name = name or source
            source = fs.cat_file(source)
        include = self.include_image
        if include is None:
            include = isinstance(source, bytes) or self.password is not None
        for page in read_pages(
            source, name=name, dpi=self.dpi, pages=pages, password=self.password, include_image=include
        ):
            # Content without a name has no path that could tell it apart.
            anonymous = isinstance(source, bytes) and name is None
            node_id = page_id(page.metadata["content_hash"], page.metadata["page"]) if anonymous else None
            yield page_node(page.content, {**extra, **page.metadata}, node_id=node_id)
