"""LangChain's Documents and Blobs, and images of all kinds, to and from the items and entries of a store.

A Document is a page, encoded as an image, or a text; see `is_page`. Nothing is added to its metadata on the way into a
store and back.
"""

from __future__ import annotations

import copy
import io
import os
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from PIL import Image

from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.pages.identity import (
    document_id,
    file_digest,
    page_id,
    page_key,
    page_name,
    real_path,
    text_key,
)
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.reference import is_pdf, page_image
from colpali_integrations.stores import DocumentSource, Entry, Item
from colpali_integrations.stores.rerank import Candidate

__all__ = [
    "DocumentInput",
    "ImageInput",
    "candidate_of",
    "document_of",
    "document_source",
    "image_source",
    "image_sources",
    "is_page",
    "item_of",
    "name_of",
    "reference_name",
]

DocumentInput: TypeAlias = "str | os.PathLike[str] | bytes | Blob"
ImageInput: TypeAlias = "ImageSource | Blob | Document"

_PAGE_HASH = re.compile("[0-9a-f]{64}")


# -- Documents and entries ------------------------------------------------------------------------------------------


def is_page(document: Document) -> bool:
    """Whether a Document is a page and not a text.

    A page carries its picture as `image_base64`, or has `source`, `page`, `content_hash` and `text_hash` as
    `PdfPageLoader`, `PageImageBlobParser` and the command line make them. A Document whose text is not that of its
    `text_hash` is a text: splitters copy a page's metadata to the chunks of its text.

    >>> is_page(Document("chunk", metadata={"source": "a.pdf", "page": 0}))
    False
    """
    metadata = document.metadata
    if _text(metadata.get("image_base64")):
        return "text_hash" not in metadata or _is_as_read(document)
    return _is_as_read(document) and _text(metadata.get("source")) and _number(metadata) is not None


def item_of(document: Document, index: int | None = None, id_: str | None = None) -> Item:
    """A Document as it goes into a store.

    Its id is `id_`, the Document's own, that of the page in its document, or a new one. A Document with an id of its
    own is a document of its own, which the replacement of its `source` does not touch.

    Args:
        document: a page or a text.
        index: position in the caller's list, for error messages.
        id_: of the entry, instead of the Document's own.
    """
    page = is_page(document)
    owner, of_page = _page_identity(document.metadata)
    own = id_ or (document.id if page or document.id != of_page else None)  # an edited page does not replace the page
    found = own or (of_page if page else None) or str(uuid.uuid4())
    entry = Entry(
        id=found,
        text=document.page_content,
        metadata=dict(document.metadata),
        document_id=owner if page and found == of_page else own,
        content_hash=_content_key(document),
    )
    draw = partial(page_image, document.metadata) if page else None
    return Item(id=found, key=entry.content_hash, name=name_of(document), entry=lambda: entry, draw=draw, index=index)


def document_of(entry: Entry, **metadata: Any) -> Document:
    """The Document of an entry, with its id, and with further metadata."""
    # A deep copy, because a store in memory hands out its own objects.
    return Document(id=entry.id, page_content=entry.text, metadata={**copy.deepcopy(dict(entry.metadata)), **metadata})


def candidate_of(document: Document) -> Candidate:
    """A Document as it is reranked."""
    return Candidate(
        id=document.id,
        key=_content_key(document),
        text=document.page_content,
        image=partial(page_image, document.metadata) if is_page(document) else None,
        name=name_of(document),
    )


def name_of(document: Document) -> str:
    """The name of a Document in messages: "report.pdf, page 7", or the start of its text."""
    text = document.page_content
    if is_page(document):
        return reference_name(document.metadata)
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def reference_name(metadata: Mapping[str, Any]) -> str:
    """The name of the page that metadata refer to, or "image" where they name none."""
    source, number = metadata.get("source"), _number(metadata)
    return page_name(source, number) if isinstance(source, str) and number is not None else "image"


def _content_key(document: Document) -> str:
    """Equal for equal vectors."""
    if not is_page(document):
        return text_key(document.page_content)
    metadata = document.metadata
    dpi = metadata.get("dpi")
    # Other readers may give all pages of a file one `content_hash`.
    content_hash = metadata["content_hash"] if _is_as_read(document) else file_digest(metadata["image_base64"].encode())
    return page_key(content_hash, float(dpi) if isinstance(dpi, int | float) else None)


def _is_as_read(document: Document) -> bool:
    """Whether the readers of this package made a Document, and its text is unchanged."""
    text_hash, content_hash = document.metadata.get("text_hash"), document.metadata.get("content_hash")
    unchanged = text_hash == text_key(document.page_content)
    return unchanged and isinstance(content_hash, str) and _PAGE_HASH.fullmatch(content_hash) is not None


def _page_identity(metadata: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The id of the document, and that of its page; None where the metadata do not name them."""
    owner, number = metadata.get("document_id"), _number(metadata)
    if not _text(owner):
        location = metadata.get("file_path") or metadata.get("source")
        if not isinstance(location, str) or not location:
            return None, None
        is_file = os.path.isfile(os.path.expanduser(location))  # noqa: PTH111, PTH113 - a URL or any other name
        owner = document_id(real_path(location) if is_file else location)
    assert isinstance(owner, str)
    return owner, None if number is None else page_id(owner, number)


def _number(metadata: Mapping[str, Any]) -> int | None:
    """The 1-based number of a page; some stores keep all numbers as floats."""
    number = metadata.get("page")
    if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 1 or number != number // 1:
        return None
    return int(number)


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)


# -- files, Blobs and images ----------------------------------------------------------------------------------------


def document_source(
    source: DocumentInput | Callable[[], Image.Image],
    *,
    name: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    **options: Any,
) -> DocumentSource:
    """A PDF or image as it goes into a store.

    Args:
        source: a path, the bytes, a Blob of either, or a function that gives a picture.
        name: stored as `source`, where neither `metadata` nor the Blob have one.
        metadata: the caller's own; those of a Blob are stored too, but do not identify the document.
        **options: of `DocumentSource`.
    """
    own = dict(metadata or {})
    given = own["source"] if _text(own.get("source")) else name
    if not isinstance(source, Blob):
        return DocumentSource(source=source, name=given, metadata=own, **options)
    content = os.fspath(source.path) if source.data is None and source.path is not None else source.as_bytes()
    return DocumentSource(
        source=content, name=given or source.source, metadata=own, extra_metadata=source.metadata, **options
    )


def image_source(
    image: ImageInput,
    load: Callable[[ImageSource], Image.Image],
    *,
    metadata: Mapping[str, Any] | None,
    id_: str | None,
    index: int,
    include_image: bool,
) -> DocumentSource | Item:
    """An image as it goes into a store.

    Args:
        image: see `ColPaliVectorStore.add_images`.
        load: reads images that are neither files nor their bytes.
        metadata: the caller's own.
        id_: of the entry.
        index: position in the caller's list.
        include_image: whether the metadata carry the picture.

    Raises:
        InputError: a PDF, or a Document that is a text.
    """
    if isinstance(image, Document):
        if not is_page(image):
            raise InputError("this Document is a text and not a page; use add_documents").at(index, name_of(image))
        return item_of(image.model_copy(update={"metadata": {**image.metadata, **(metadata or {})}}), index, id_)
    options: dict[str, Any] = {"metadata": metadata, "id": id_, "index": index, "include_image": include_image}
    if isinstance(image, bytearray | memoryview):
        image = bytes(image)
    if not isinstance(image, Blob | bytes | os.PathLike) and (not isinstance(image, str) or _is_uri(image)):
        name = image if isinstance(image, str) and not image.lower().startswith("data:") else None
        return document_source(partial(load, image), name=name, **options)
    found = document_source(image, **options)
    if not callable(found.source) and not isinstance(found.source, Image.Image) and is_pdf(found.source):
        raise InputError(f"{found.label} is a PDF; use add_pdf").at(index, found.label)
    return found


def image_sources(images: Iterable[ImageInput]) -> Iterator[ImageSource]:
    """Translate one image at a time for `ColPali.embed_images`; a page's Document is drawn when its turn comes.

    A page that cannot be drawn does not end the stream: reading it fails with its error.
    """
    for image in images:
        if isinstance(image, Blob):
            by_path = image.data is None and image.path is not None
            yield os.fspath(image.path or "") if by_path else _File(image.source or "blob", image.as_bytes())
        elif isinstance(image, Document):
            try:
                yield page_image(image.metadata)
            except ColPaliError as error:
                yield _File(reference_name(image.metadata), error)
        else:
            yield image


def _is_uri(text: str) -> bool:
    return text.lower().startswith(("data:", "http://", "https://"))


class _File(io.BytesIO):
    """A named file of given content, or one that raises a given error when it is read."""

    def __init__(self, name: str, content: bytes | ColPaliError) -> None:
        self._error = content if isinstance(content, ColPaliError) else None
        super().__init__(b"" if isinstance(content, ColPaliError) else content)
        self.name = name

    def read(self, size: int | None = -1, /) -> bytes:
        if self._error is not None:
            raise self._error
        return super().read(size)
