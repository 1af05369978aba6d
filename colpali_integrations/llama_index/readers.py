"""`PdfPageReader`: one node per page."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from fsspec.implementations.local import LocalFileSystem  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.readers.base import BasePydanticReader
from llama_index.core.schema import ImageNode

from colpali_integrations._options import checked_several
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.llama_index._components import StrictComponent
from colpali_integrations.llama_index.schema import page_node
from colpali_integrations.pages.arguments import page_numbers
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import document_id as derived_id
from colpali_integrations.stores import DocumentSource
from colpali_integrations.stores.folders import find_documents
from colpali_integrations.stores.indexing import are_several, check_document_id, read_documents
from colpali_integrations.stores.ingestion.progress import ProgressCallback

__all__ = ["PdfPageReader"]


class PdfPageReader(StrictComponent, BasePydanticReader):
    """Reads PDFs, Office files, images and folders as one `ImageNode` per page; each frame of a TIFF is a page.

    The node's text is the page's text layer, or "report.pdf, page 3" for a scan, because index building drops nodes
    without text, and the cache of an `IngestionPipeline` confuses them. Its metadata (JSON-safe) are those of
    `pages.document`: source, file_name, page (1-based), page_label, page_count and so on. The picture is a reference in
    `image_path` ("report.pdf#page=3&dpi=150..."), from which the classes of this package draw the page. Other consumers
    of `image_path` expect a file and need `include_image=True`. A text splitter would separate pages from their
    pictures, so leave the nodes whole.

    Ids are derived from the file's real path, the values of `metadata` and the page's number, so that reading a file
    again updates an index. The same file in two folders, or with two values of `metadata`, is two documents.

    A page is its own source document, by which pipelines and indexes recognise and delete it. With
    `DocstoreStrategy.UPSERTS_AND_DELETE` LlamaIndex's document store fails to delete such a node: set its
    `relationships` to {} for that strategy; `ColPaliVectorStore` stores it all the same.

    The class gives nodes, because `MultiModalVectorStoreIndex` and vector stores support `ImageNode` and turn
    `ImageDocument` into plain text. `SimpleDirectoryReader(..., file_extractor={".pdf": PdfPageReader()})` and
    `IngestionPipeline(readers=[ReaderConfig(reader=PdfPageReader(), reader_args=["report.pdf"])])` work too.

    Attributes:
        metadata: the caller's own values, such as a tenant, for every node; they are part of a document's identity.
        dpi: resolution of PDF pages.
        include_image: put the picture into each node as base64 PNG; None does so for bytes and encrypted PDFs only,
            whose pages cannot be drawn from a reference.
        password: for encrypted PDFs. Neither the nodes nor `to_dict()` contain it.
        isolate: False to read PDFs that you trust in this process, without limits; see `pages.open_pdf`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        on_error: "raise" the error of a document or page that cannot be read, or "skip" it with a log entry.

    Example:
        >>> nodes = PdfPageReader().load_data("report.pdf")
        >>> nodes[1].metadata["page"], nodes[1].image_path
        (2, 'report.pdf#page=2&dpi=150&sha256=...')
    """

    guesses: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("file", "file_path", "path", "input_dir", "input_files"), "files and folders are arguments of load_data()"
    )

    metadata: dict[str, Any] = Field(default_factory=dict, description="The caller's own values, for every node.")
    dpi: float = Field(default=DEFAULT_DPI, gt=0, allow_inf_nan=False, description="Resolution of the drawn pages.")
    include_image: bool | None = Field(default=None, description="Put the picture into each node as base64 PNG.")
    password: str | None = Field(default=None, exclude=True, repr=False, description="For encrypted PDFs.")
    isolate: bool = Field(default=True, description="Read PDFs in worker processes with limits.")
    max_pixels: int = Field(default=MAX_PIXELS, gt=0, description="The most pixels of an image.")
    image_formats: list[str] = Field(default_factory=list, description="Further formats of images.")
    on_error: Literal["raise", "skip"] = Field(default="raise", description="Raise or skip unreadable pages.")

    @model_validator(mode="after")
    def _check_image_formats(self) -> PdfPageReader:
        """Refuse an unknown format now, not at the first document."""
        self._limits()
        return self

    def _limits(self) -> ImageLimits:
        return ImageLimits(self.max_pixels, self.image_formats)

    def lazy_load_data(  # type: ignore[override]  # nodes, which BaseReader's signature does not foresee
        self,
        file: str | os.PathLike[str] | bytes | Iterable[str | os.PathLike[str]],
        extra_info: Mapping[str, Any] | None = None,
        *,
        metadata: Mapping[str, Any] | None = None,
        document_id: str | None = None,
        pages: Iterable[int] | None = None,
        exclude: Iterable[str] = (),
        follow_symlinks: bool = False,
        name: str | None = None,
        fs: Any = None,
        progress: ProgressCallback | bool = False,
    ) -> Iterator[ImageNode]:
        """Read pages one by one. A document is opened once; its pages are drawn for `include_image` only.

        Args:
            file: a file or a folder, several of these, or the content of a document.
            extra_info: more metadata for each node, such as the sizes and dates that `SimpleDirectoryReader` passes.
                They are not part of the node's identity.
            metadata: the caller's own values, added to the reader's.
            document_id: identity of a single document, instead of the one derived from its path or name and `metadata`.
            pages: 1-based numbers of the pages of each document; None for all. Those beyond the end of one of several
                documents are passed over.
            exclude: patterns of files in folders to ignore; see `stores.find_documents`.
            follow_symlinks: read folders behind symbolic links too; see `stores.find_documents`.
            name: stored as `source` of a single document. It identifies content without a path.
            fs: an fsspec file system to read files from, as `SimpleDirectoryReader` passes it. A page of a file that is
                not local carries its picture, and the URL of the file ("s3://shelf/report.pdf") identifies it.
            progress: a function that is called after each page, or True for a progress bar on stderr; see
                `stores.read_documents`.

        Yields:
            Nodes, in order.

        Raises:
            InputError: a path does not exist, or `fs` cannot read it.
            PdfError: a PDF is damaged, is encrypted and the password is wrong, or has no requested page.
            ImageError: a file is neither a PDF nor an image.
            ConfigurationError: `pages` are not 1-based whole numbers, or `name` or `document_id` comes with several
                documents, or `document_id` with a folder.
        """
        is_one = isinstance(file, (str, os.PathLike, bytes))
        sources: list[Any] = [file] if is_one else list(checked_several(file, "a file, a folder or several"))
        check_document_id(document_id, sources)
        contents = [one for one in sources if isinstance(one, bytes)]
        paths = [one for one in sources if not isinstance(one, bytes)]
        is_local = fs is None or isinstance(fs, LocalFileSystem)
        finding: dict[str, Any] = {
            "exclude": exclude,
            "follow_symlinks": follow_symlinks,
            "image_formats": self.image_formats,
        }
        local = find_documents(paths, **finding) if is_local else []
        remote = [] if is_local else [os.fspath(one) for one in paths]
        if name is not None and (number := len(local) + len(contents) + len(remote)) != 1:
            raise ConfigurationError(f"name names one document, and there are {number}; call load_data once for each")
        several = are_several(sources, [*local, *contents, *remote])
        tags, numbers = {**self.metadata, **(metadata or {})}, page_numbers(pages)

        def source(content: Any, name: str | None = name, identity: str | None = document_id) -> DocumentSource:
            drawn = self.password is not None or not isinstance(content, Path)
            return DocumentSource(
                source=content,
                name=name,
                document_id=identity,
                metadata=tags,
                extra_metadata=extra_info,
                pages=numbers,
                pass_over=several,
                dpi=self.dpi,
                password=self.password,
                isolate=self.isolate,
                max_pixels=self.max_pixels,
                image_formats=self.image_formats,
                include_image=drawn if self.include_image is None else self.include_image,
            )

        documents = [source(content) for content in (*local, *contents)]
        for key in remote:
            # The file system is a part of the identity: a local file may have the same path.
            identity = document_id or derived_id(fs.unstrip_protocol(key), tags)
            documents.append(source(partial(_content, fs, key), name or key, identity))
        for entry in read_documents(documents, on_error=self.on_error, progress=progress):
            yield page_node(entry.text, entry.metadata, limits=self._limits())

    def load_data(self, *args: Any, **load_kwargs: Any) -> list[ImageNode]:  # type: ignore[override]
        """Read all pages at once; see `lazy_load_data`."""
        return list(self.lazy_load_data(*args, **load_kwargs))


def _content(fs: Any, path: str) -> bytes:
    try:
        content: bytes = fs.cat_file(path)
    except (OSError, ValueError) as error:  # ValueError: a folder, of some file systems
        raise InputError(f"cannot read {fs.unstrip_protocol(path)}: {error}") from error
    return content
