"""Conversion of LangChain's Documents to and from the items and entries of a store.

A Document is a page, encoded as an image, or a text; see `is_page`. Its metadata are stored and returned unchanged.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from langchain_core.documents import Document

from colpali_integrations._options import checked_several
from colpali_integrations.errors import InputError
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.identity import document_id, page_id, page_name, real_path
from colpali_integrations.pages.metadata import (
    content_key,
    describes_page,
    is_unchanged,
    page_number,
    shows_picture,
    source_text,
)
from colpali_integrations.pages.reference import draw_page
from colpali_integrations.stores import Entry, Item
from colpali_integrations.stores.rerank import Candidate

__all__ = [
    "candidate_of",
    "caption_of",
    "checked_documents",
    "document_of",
    "has_picture",
    "is_page",
    "item_of",
    "name_of",
    "page_identity",
    "per_item",
    "reference_name",
    "text_documents",
]

T = TypeVar("T")


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
    owner, of_page = page_identity(document.metadata)
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
    source, number = source_text(metadata), page_number(metadata)
    return page_name(source, number) if source is not None and number is not None else "image"


def caption_of(document: Document, number: int) -> str:
    """The name of a page for citations; of a picture without a document its source or id, or its position.

    Args:
        document: a page.
        number: its position among the pages that are shown, from 1.
    """
    source = source_text(document.metadata)
    if page_number(document.metadata) is not None and source is not None:
        return reference_name(document.metadata)
    return source or document.id or f"image {number}"


def page_identity(metadata: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """Return the ids of the document and of its page; None where the metadata do not identify them."""
    owner, number = metadata.get("document_id"), page_number(metadata)
    if not isinstance(owner, str) or not owner:
        location = metadata.get("file_path") or metadata.get("source")
        if not isinstance(location, str) or not location:
            return None, None
        is_file = os.path.isfile(os.path.expanduser(location))  # noqa: PTH111, PTH113 - a URL or any other name
        owner = document_id(real_path(location) if is_file else location)
    return owner, None if number is None else page_id(owner, number)
