"""What LangChain users hold as images (a Blob, a page's Document) -> what the core reads."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

from langchain_core.documents import Document
from langchain_core.documents.base import Blob

from colpali_integrations.errors import ColPaliError
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.reference import page_image, page_name

__all__ = ["ImageInput", "image_sources", "unreadable"]

ImageInput: TypeAlias = "ImageSource | Blob | Document"


def image_sources(images: Iterable[ImageInput]) -> Iterator[ImageSource]:
    """Translate one image at a time; a page's Document is drawn when its turn comes.

    A page that cannot be drawn does not end the stream: its error shows when the core reads it, as the cause of an
    `ImageError` of that item alone.
    """
    for image in images:
        if isinstance(image, Blob):
            yield _from_blob(image)
        elif isinstance(image, Document):
            yield _from_document(image)
        else:
            yield image


def unreadable(name: str, error: ColPaliError) -> ImageSource:
    """A named image whose reading fails with `error`: so it fails alone, in its place in a stream."""
    return _File(name, error)


def _from_blob(blob: Blob) -> ImageSource:
    if blob.data is None and blob.path is not None:
        return os.fspath(blob.path)
    return _File(blob.source or "blob", blob.as_bytes())


def _from_document(document: Document) -> ImageSource:
    try:
        return page_image(document.metadata)
    except ColPaliError as error:
        return unreadable(_document_name(document.metadata), error)


def _document_name(metadata: dict[str, Any]) -> str:
    source, number = metadata.get("source"), metadata.get("page")
    return page_name(source, number) if isinstance(source, str) and isinstance(number, int) else "document"


class _File(io.BytesIO):
    """A named file of given content, or one whose reading fails in a given way."""

    def __init__(self, name: str, content: bytes | ColPaliError) -> None:
        self._error = content if isinstance(content, ColPaliError) else None
        super().__init__(b"" if isinstance(content, ColPaliError) else content)
        self.name = name

    def read(self, size: int | None = -1, /) -> bytes:
        if self._error is not None:
            raise self._error
        return super().read(size)
