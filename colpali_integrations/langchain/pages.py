"""Documents to and from the entries of a store, which the command line and LlamaIndex read too.

A Document is a page, encoded as an image, or a text; `is_page` says which. Nothing is added to its metadata on the way
into a store and back.
"""

from __future__ import annotations

import copy
import hashlib
import re
import uuid
from collections.abc import Mapping
from typing import Any, NamedTuple

from langchain_core.documents import Document

from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.stores import Entry, page_key

__all__ = ["Content", "content_of", "document_of", "entry_of", "id_of", "is_page", "name_of"]

_PAGE_HASH = re.compile("[0-9a-f]{64}")


class Content(NamedTuple):
    """What decides a Document's vectors.

    Attributes:
        key: equal for equal contents: the page and its resolution, or a hash of the text.
        is_page: whether it is encoded as an image.
    """

    key: str
    is_page: bool


def is_page(document: Document) -> bool:
    """Whether a Document is a page to be looked at, and not a text.

    Pages have a `content_hash` of 64 hex digits beside `source` and `page`, as `PdfPageLoader`, `PageImageBlobParser`
    and the command line make them, or carry their picture as `image_base64`. Other loaders give `source` and `page`
    too, for chunks of text and often counted from 0.

    >>> is_page(Document("chunk", metadata={"source": "a.pdf", "page": 0}))
    False
    """
    metadata = document.metadata
    if _text(metadata.get("image_base64")):
        return True
    number, content_hash = metadata.get("page"), metadata.get("content_hash")
    # Some stores keep all numbers as floats.
    counted = isinstance(number, int | float) and not isinstance(number, bool) and number >= 1 and number == int(number)
    return counted and _text(metadata.get("source")) and bool(_PAGE_HASH.fullmatch(str(content_hash)))


def content_of(document: Document) -> Content:
    """What decides the Document's vectors; equal contents need to be encoded once."""
    if not is_page(document):
        return Content(_hash("text", document.page_content), False)
    content_hash = _content_hash(document)
    return Content(page_key(content_hash, _resolution(document.metadata)), True)


def id_of(document: Document) -> str:
    """Its own id, or one: that of `content_of` for a page, as the command line gives it, and a new one for a text."""
    if document.id:
        return document.id
    content = content_of(document)
    return content.key if content.is_page else str(uuid.uuid4())


def entry_of(document: Document, id_: str, grid: PageGrid | None = None) -> Entry:
    """What a store keeps of a Document."""
    source = document.metadata.get("source")
    return Entry(
        id=id_,
        text=document.page_content,
        metadata=dict(document.metadata),
        group=source if isinstance(source, str) else None,
        content_hash=_content_hash(document),
        grid=grid,
    )


def document_of(entry: Entry) -> Document:
    """The Document that an entry was made of, with its id."""
    # Deep, for a store in memory hands out what it keeps.
    return Document(id=entry.id, page_content=entry.text or entry.name, metadata=copy.deepcopy(dict(entry.metadata)))


def name_of(document: Document) -> str:
    """The Document as a person would name it, for messages."""
    source, number = document.metadata.get("source"), document.metadata.get("page")
    if is_page(document) and source is not None:
        return f"{source}, page {number}"
    text = document.page_content
    return repr(text if len(text) <= 60 else f"{text[:57]}...")


def _content_hash(document: Document) -> str:
    if not is_page(document):
        return _hash("text", document.page_content)
    given = document.metadata.get("content_hash")
    return given if isinstance(given, str) and given else _hash("image", document.metadata["image_base64"])


def _resolution(metadata: Mapping[str, Any]) -> float | None:
    """Of a PDF's page; an image has none."""
    dpi = metadata.get("dpi")
    return float(dpi) if isinstance(dpi, int | float) else None


def _hash(kind: str, content: str) -> str:
    return hashlib.sha256(f"{kind}\n{content}".encode("utf-8", "surrogatepass")).hexdigest()


def _text(value: object) -> bool:
    return isinstance(value, str) and bool(value)
