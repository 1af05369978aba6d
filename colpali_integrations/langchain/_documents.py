"""Conversion of LangChain's Documents and Blobs, and of images, to and from the items and entries of a store.

A Document is a page, encoded as an image, or a text; see `is_page`. Its metadata are stored and returned unchanged.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn, TypeAlias, TypeVar

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from PIL import Image

from colpali_integrations._failures import item_error
from colpali_integrations._options import checked_several
from colpali_integrations._paths import is_folder
from colpali_integrations.errors import ColPaliError, ConfigurationError, ImageError, InputError
from colpali_integrations.pages._local_urls import is_file_url, read_file_url
from colpali_integrations.pages._urls import is_web_url
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.identity import check_metadata, document_id, page_id, page_name, real_path
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.metadata import (
    checked_metadata,
    content_key,
    describes_page,
    is_unchanged,
    page_number,
    shows_picture,
)
from colpali_integrations.pages.paged import is_paged, is_pdf
from colpali_integrations.pages.reference import draw_page
from colpali_integrations.stores import DocumentSource, Entry, Item, find_documents
from colpali_integrations.stores.indexing import are_several, check_document_id
from colpali_integrations.stores.rerank import Candidate

__all__ = [
    "DocumentInput",
    "ImageInput",
    "candidate_of",
    "caption_of",
    "checked_documents",
    "document_of",
    "document_source",
    "document_sources",
    "has_picture",
    "image_source",
    "image_sources",
    "is_page",
    "item_of",
    "name_of",
    "per_item",
    "reference_name",
    "text_documents",
]

T = TypeVar("T")
DocumentInput: TypeAlias = "str | os.PathLike[str] | bytes | Blob"
ImageInput: TypeAlias = "ImageSource | Blob | Document"


# -- Documents and entries ------------------------------------------------------------------------------------------


def checked_documents(documents: Iterable[Document]) -> list[Document]:
    """Return a list of Documents.

    Raises:
        InputError: one Document, or something else in the list.
    """
    if isinstance(documents, Document):
        raise InputError("expected a list of Documents, got one Document; pass [document]")
    several = list(checked_several(documents, "a list of Documents"))
    for index, document in enumerate(several):
        if not isinstance(document, Document):
            raise InputError(
                f"expected Documents, and item {index} is a {type(document).__name__}; add_texts takes texts, "
                "add_images images and add_pdf PDFs"
            )
    return several


def text_documents(texts: Iterable[str], metadatas: Iterable[Mapping[str, Any]] | None) -> list[Document]:
    """Make the Documents of texts.

    Raises:
        InputError: one text, or a wrong number of metadatas.
    """
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one str; pass [{texts[:20]!r}]")
    several = list(checked_several(texts, "a list of texts"))
    values = per_item(metadatas, len(several), "metadatas")
    return [Document(text, metadata=dict(one or {})) for text, one in zip(several, values, strict=True)]


def per_item(values: Iterable[T] | None, number: int, name: str) -> Sequence[T | None]:
    """Return one value per item; None per item where there are no values.

    Raises:
        InputError: there is another number of them.
    """
    if values is None:
        return [None] * number
    several = list(checked_several(values, f"{number} {name}, one per item"))
    if isinstance(values, str) or len(several) != number:
        raise InputError(f"{name}: expected {number}, one per item, got {len(several)}")
    return several


def is_page(document: Document) -> bool:
    """Whether a Document is a page and not a text; see `pages.metadata.describes_page`."""
    return describes_page(document.metadata, document.page_content)


def has_picture(document: Document) -> bool:
    """Whether a Document can be shown: a page, or one whose metadata have or name a picture of its page."""
    return is_page(document) or shows_picture(document.metadata, document.page_content)


def item_of(
    document: Document,
    index: int | None = None,
    id_: str | None = None,
    *,
    access: PageAccess = DEFAULT_ACCESS,
) -> Item:
    """Make the item of a Document.

    Its id is `id_`, the Document's own, that of the page in its document, or a new one. A Document with an id of its
    own is a separate document, which the replacement of its `source` does not change.

    Args:
        document: a page or a text.
        index: position in the caller's list, for error messages.
        id_: of the entry, instead of the Document's own.
        access: how the file of a page is opened.
    """
    page = is_page(document)
    owner, of_page = _page_identity(document.metadata)
    if page and not is_unchanged(document.metadata, document.page_content):
        of_page = None  # a picture of another reader or of the caller does not take the place of the page
    own = id_ or (document.id if page or document.id != of_page else None)  # an edited page does not replace the page
    new_id = own or (of_page if page else None) or str(uuid.uuid4())
    entry = Entry(
        id=new_id,
        text=document.page_content,
        metadata=dict(document.metadata),
        document_id=owner if page and new_id == of_page else own,
        content_hash=content_key(document.metadata, document.page_content),
    )
    draw = partial(draw_page, document.metadata, access) if page else None
    count = page_number(document.metadata, "page_count")
    # A Document with an id comes from a store, and may be older than the document is now.
    whole = owner and page and new_id == of_page and document.id is None and count is not None
    page_of = (owner or "", count or 0) if whole else None
    return Item(
        id=new_id,
        key=entry.content_hash,
        name=name_of(document),
        entry=lambda: entry,
        draw=draw,
        page_of=page_of,
        index=index,
    )


def document_of(entry: Entry, **metadata: Any) -> Document:
    """Make the Document of an entry, with its id and with additional metadata."""
    return Document(id=entry.id, page_content=entry.text, metadata={**entry.metadata, **metadata})


def candidate_of(document: Document, access: PageAccess = DEFAULT_ACCESS) -> Candidate:
    """Make the reranking candidate of a Document."""
    draw = partial(draw_page, document.metadata, access)
    return Candidate(
        id=document.id,
        key=content_key(document.metadata, document.page_content),
        text=document.page_content,
        image=draw if is_page(document) else None,
        name=name_of(document),
    )


def name_of(document: Document) -> str:
    """Name a Document in messages: "report.pdf, page 7", or the start of its text."""
    text = document.page_content
    if is_page(document):
        return reference_name(document.metadata)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def reference_name(metadata: Mapping[str, Any]) -> str:
    """Name the page that metadata refer to; "image" if they refer to none."""
    source, number = metadata.get("source"), page_number(metadata)
    return page_name(source, number) if isinstance(source, str) and number is not None else "image"


def caption_of(document: Document, number: int) -> str:
    """The name of a page for citations; of a picture without a document its source or id, or its position.

    Args:
        document: a page.
        number: its position among the pages that are shown, from 1.
    """
    source = document.metadata.get("source")
    if page_number(document.metadata) is not None and isinstance(source, str):
        return reference_name(document.metadata)
    return source if isinstance(source, str) and source else document.id or f"image {number}"


def _page_identity(metadata: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the ids of the document and of its page; None where the metadata do not identify them."""
    owner, number = metadata.get("document_id"), page_number(metadata)
    if not isinstance(owner, str) or not owner:
        location = metadata.get("file_path") or metadata.get("source")
        if not isinstance(location, str) or not location:
            return None, None
        is_file = os.path.isfile(os.path.expanduser(location))  # noqa: PTH111, PTH113 - a URL or any other name
        owner = document_id(real_path(location) if is_file else location)
    return owner, None if number is None else page_id(owner, number)


# -- files, Blobs and images ----------------------------------------------------------------------------------------


def document_source(
    source: DocumentInput | Callable[[], Image.Image],
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Any,
) -> DocumentSource:
    """Make the document source of a PDF or image.

    Args:
        source: a path, the bytes, a Blob of either, or a function that returns a picture.
        name: stored as `source` if `metadata` have none.
        metadata: the caller's own; those of a Blob are stored too, but do not identify the document.
        **options: of `DocumentSource`.
    """
    location = checked_metadata(metadata).get("source")
    name = location if isinstance(location, str) and location else name
    if not isinstance(source, Blob):
        return DocumentSource(source=source, name=name, metadata=metadata, **options)
    content = os.fspath(source.path) if source.data is None and source.path is not None else source.as_bytes()
    name = name or source.source
    return DocumentSource(source=content, name=name, metadata=metadata, extra_metadata=source.metadata, **options)


def document_sources(
    inputs: Iterable[DocumentInput],
    *,
    exclude: Iterable[str],
    follow_symlinks: bool = False,
    document_id: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    image_formats: Iterable[str] = (),
    **options: Any,
) -> list[DocumentSource]:
    """Make the document sources of files, Blobs and all documents in folders; `options` as for `document_source`.

    Raises:
        ConfigurationError: `document_id`, or a URL as the source in `metadata`, stands with several documents.
    """
    several = list(inputs)
    check_document_id(document_id, several)
    finding: dict[str, Any] = {"exclude": exclude, "follow_symlinks": follow_symlinks, "image_formats": image_formats}
    files: list[Any] = []
    for one in several:
        if is_folder(one):
            files += find_documents(one, **finding)  # type: ignore[arg-type]
        else:
            files.append(one)
    source = checked_metadata(metadata).get("source")
    if len(files) > 1 and isinstance(source, str) and "://" in source:
        raise ConfigurationError(f"metadata: the source {source} identifies one document, and there are {len(files)}")
    options |= {"document_id": document_id, "metadata": metadata, "image_formats": image_formats}
    options |= {"pass_over": are_several(several, files)}
    return [document_source(file, **options) for file in files]


def image_source(
    image: ImageInput,
    load: Callable[[ImageSource], Image.Image],
    limits: ImageLimits,
    *,
    metadata: Mapping[str, Any] | None,
    id_: str | None,
    index: int,
    include_image: bool,
) -> DocumentSource | Item:
    """Make the document source of an image, or the item of a page's Document.

    Args:
        image: see `ColPaliVectorStore.add_images`.
        load: reads images that are neither files nor their bytes.
        limits: size and formats of the others.
        metadata: the caller's own.
        id_: of the entry.
        index: position in the caller's list.
        include_image: whether the metadata contain the picture.

    Returns:
        The source or item; for a PDF, and for a Document that is a text, a source that raises an error when the
        ingestion opens it, which skips the image or raises.

    Raises:
        ConfigurationError: `metadata` has values in whose place a page has its own.
    """
    check_metadata(metadata, source=(metadata or {}).get("source"))
    try:
        return _image_source(image, load, limits, index, include_image, metadata=metadata, id=id_)
    except BaseException as error:
        failure = item_error(error)
        return DocumentSource(source=partial(_raise, failure), name=failure.item, index=index)


def _image_source(
    image: ImageInput,
    load: Callable[[ImageSource], Image.Image],
    limits: ImageLimits,
    index: int,
    include_image: bool,
    **identity: Any,
) -> DocumentSource | Item:
    if isinstance(image, Document):
        if not is_page(image):
            raise InputError("this Document is a text and not a page; use add_documents").at(index, name_of(image))
        metadata = identity["metadata"] or {}
        merged = {**image.metadata, **metadata}
        owner, _ = _page_identity(image.metadata)
        if metadata and owner is not None:
            merged["document_id"] = document_id(owner, metadata)
        copy = image.model_copy(update={"metadata": merged})
        return item_of(copy, index, identity["id"], access=PageAccess(limits=limits))
    options: dict[str, Any] = {"index": index, "include_image": include_image, **identity}
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    if isinstance(image, str) and is_file_url(image):
        image = read_file_url(image)
    if not isinstance(image, Blob | bytes | os.PathLike) and (not isinstance(image, str) or _is_remote(image)):
        name = image if isinstance(image, str) and not image.lower().startswith("data:") else None
        return document_source(partial(load, image), name=name, **options)
    source = document_source(image, one_image=True, **limits.options, **options)
    if not callable(source.source) and not isinstance(source.source, Image.Image) and is_paged(source.source):
        kind = "a PDF" if is_pdf(source.source) else "an Office file"
        raise InputError(f"{source.label} is {kind}; use add_pdf").at(index, source.label)
    return source


def image_sources(images: Iterable[ImageInput], limits: ImageLimits) -> Iterator[ImageSource]:
    """Translate one image at a time for `ColPali.embed_images`; the page of a Document is drawn in its turn.

    A page that cannot be drawn does not end the stream: reading its image raises the error.
    """
    return _each_translated(checked_several(images, "an image or several", ImageError), limits)


def _each_translated(images: Iterable[ImageInput], limits: ImageLimits) -> Iterator[ImageSource]:
    with keep_pdfs_open():
        for image in images:
            yield _translated(image, limits)


def _translated(image: ImageInput, limits: ImageLimits) -> ImageSource:
    if isinstance(image, Blob):
        by_path = image.data is None and image.path is not None
        return os.fspath(image.path or "") if by_path else _File(image.source or "blob", image.as_bytes())
    if not isinstance(image, Document):
        return image
    try:
        return draw_page(image.metadata, PageAccess(limits=limits), known=False)  # vectors show nothing of a file
    except BaseException as error:
        return _File(reference_name(image.metadata), item_error(error))


def _raise(error: ColPaliError) -> NoReturn:
    raise error


def _is_remote(text: str) -> bool:
    """Whether a text is the content or the address of an image, and not the path of one."""
    return text[:5].lower() == "data:" or is_web_url(text)


class _File(io.BytesIO):
    """A named file with some content, or one that raises an error when it is read."""

    def __init__(self, name: str, content: bytes | ColPaliError) -> None:
        self._error = content if isinstance(content, ColPaliError) else None
        super().__init__(b"" if isinstance(content, ColPaliError) else content)
        self.name = name

    def read(self, size: int | None = -1, /) -> bytes:
        if self._error is not None:
            raise self._error
        return super().read(size)
