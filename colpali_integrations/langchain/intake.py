"""Documents, texts, images and PDFs as users hold them -> what is to be added to a store."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from PIL import Image

from colpali_integrations.errors import ColPaliError, InputError
from colpali_integrations.langchain.adding import Draw, New, OnError
from colpali_integrations.langchain.document_loaders import PageImageBlobParser
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.pages import id_of, is_page
from colpali_integrations.langchain.sources import ImageInput
from colpali_integrations.pages.images import image_name, load_image
from colpali_integrations.pages.pdf import pdf_pages
from colpali_integrations.pages.reference import document_hash, encode_base64, is_pdf, page_hash, page_image, page_name

__all__ = ["images_to_add", "of_texts", "paired", "pdf_to_add", "with_ids"]

logger = logging.getLogger(__name__)

T = TypeVar("T")


def paired(given: Sequence[T] | None, number: int, name: str) -> Sequence[T | None]:
    """One of `given` for each of `number` items; None for each when nothing was given.

    Raises:
        InputError: there are more or fewer.
    """
    if given is None:
        return [None] * number
    if isinstance(given, str) or len(given) != number:
        raise InputError(f"{name} must be as many as there are items, {number}, got {len(given)}")
    return given


def with_ids(documents: Iterable[Document], ids: Sequence[str | None] | None) -> list[New]:
    """Documents with their ids: those given, their own, or new ones.

    Raises:
        InputError: something that is no Document, or another number of ids.
    """
    if isinstance(documents, Document):
        raise InputError("expected a list of Documents, got one Document; pass [document]")
    several = list(documents)
    for index, document in enumerate(several):
        if not isinstance(document, Document):
            raise InputError(
                f"expected Documents, and item {index} is a {type(document).__name__}; add_texts takes texts, "
                "add_images images and add_pdf PDFs"
            )
    given = paired(ids, len(several), "ids")
    return [New(id_ or id_of(document), document) for id_, document in zip(given, several, strict=True)]


def of_texts(texts: Iterable[str], metadatas: Sequence[Mapping[str, Any]] | None) -> list[Document]:
    """Texts as Documents.

    Raises:
        InputError: one text instead of several, or another number of metadatas.
    """
    if isinstance(texts, str):
        raise InputError(f"expected a list of texts, got one str; pass [{texts[:20]!r}]")
    several = list(texts)
    given = paired(metadatas, len(several), "metadatas")
    return [Document(text, metadata=dict(one or {})) for text, one in zip(several, given, strict=True)]


def pdf_to_add(
    source: str | os.PathLike[str] | bytes | Blob,
    *,
    dpi: float,
    pages: Iterable[int] | None,
    password: str | None,
    metadata: Mapping[str, Any] | None,
    include_image: bool,
) -> list[New]:
    """The pages of a PDF, not drawn yet.

    Raises:
        InputError: a folder.
        PdfError: it cannot be read.
    """
    blob = _blob(source, metadata)
    parser = PageImageBlobParser(dpi=dpi, pages=pages, password=password, include_image=include_image)
    content = None if blob.data is None else blob.as_bytes()
    found = []
    for document in parser.lazy_parse(blob):
        draw: Draw = partial(page_image, document.metadata, password=password)
        if content is not None:
            draw = partial(_drawn, content, document.metadata["page"], dpi, password)
        found.append(New(id_of(document), document, draw))
    return found


def images_to_add(
    images: Sequence[ImageInput],
    metadatas: Sequence[Mapping[str, Any] | None],
    ids: Sequence[str | None],
    *,
    embeddings: ColPaliEmbeddings,
    include_image: bool,
    on_error: OnError,
    first: int = 0,
) -> list[New]:
    """Images as pages, those that are not in files read already.

    Args:
        images: see `ColPaliVectorStore.add_images`.
        metadatas: of each, or None.
        ids: of each, or None.
        embeddings: say whether URLs may be fetched.
        include_image: carry the pictures.
        on_error: "raise" or "skip".
        first: position of the first image in the caller's list, for messages.

    Raises:
        ImageError: an image that cannot be read.
    """
    found = []
    for index, (image, metadata, id_) in enumerate(zip(images, metadatas, ids, strict=True), first):
        try:
            document, draw = _image_document(image, dict(metadata or {}), include_image, embeddings)
        except ColPaliError as error:
            name = _name(image)
            if on_error != "skip":
                raise error.at(index, name) from error.__cause__
            logger.warning("skipped %s: %s", name, error)
        else:
            found.append(New(id_ or id_of(document), document, draw))
    return found


def _blob(source: str | os.PathLike[str] | bytes | Blob, metadata: Mapping[str, Any] | None) -> Blob:
    more = dict(metadata or {})
    if isinstance(source, Blob):
        return source.model_copy(update={"metadata": {**source.metadata, **more}})
    if isinstance(source, bytes):
        return Blob.from_data(source, metadata=more)
    if Path(source).is_dir():
        raise InputError(
            f"{source} is a folder; pass its pages: add_documents(PdfPageLoader({os.fspath(source)!r}).load())"
        )
    return Blob.from_path(os.fspath(source), metadata=more)


def _drawn(content: bytes, number: int, dpi: float, password: str | None) -> Image.Image:
    if not is_pdf(content):
        return load_image(content)
    return next(pdf_pages(content, dpi=dpi, pages=[number], password=password)).image


def _image_document(
    image: ImageInput, metadata: dict[str, Any], include_image: bool, embeddings: ColPaliEmbeddings
) -> tuple[Document, Draw | None]:
    if isinstance(image, Document):
        if not is_page(image):
            raise InputError("this Document is a text, with neither content_hash nor image_base64; use add_documents")
        return image.model_copy(update={"metadata": {**image.metadata, **metadata}}), None
    if isinstance(image, Blob):
        metadata = {**image.metadata, **metadata}
        if image.data is not None:
            return _in_memory(image.as_bytes(), image.source, metadata, include_image, embeddings)
        path: Any = image.path
    elif isinstance(image, os.PathLike) or (isinstance(image, str) and not _is_uri(image)):
        path = image
    else:
        name = image if isinstance(image, str) and not image.lower().startswith("data:") else None
        return _in_memory(image, name, metadata, include_image, embeddings)
    if is_pdf(path):
        raise InputError(f"{os.fspath(path)} is a PDF; use add_pdf")
    blob = Blob.from_path(path, metadata=metadata)
    [document] = PageImageBlobParser(include_image=include_image).parse(blob)
    return document, None


def _in_memory(
    image: Any, name: str | None, metadata: dict[str, Any], include_image: bool, embeddings: ColPaliEmbeddings
) -> tuple[Document, Draw]:
    picture = load_image(image, **embeddings.options.image_options)
    if isinstance(image, bytes | bytearray | memoryview):
        digest = document_hash(bytes(image))  # as for a file of these bytes
    else:
        digest = hashlib.sha256(f"{picture.width}x{picture.height}\n".encode() + picture.tobytes()).hexdigest()
    # Two pictures must not be called the same: LangChain takes documents of equal content for duplicates.
    source = metadata.get("source") or name or f"image {digest[:12]}"
    found = {
        **metadata,
        **{"source": source, "page": 1, "page_count": 1, "width": picture.width, "height": picture.height},
        "content_hash": page_hash(digest, 1),
    }
    if include_image:
        found |= {"image_base64": encode_base64(picture), "image_mime_type": "image/png"}
    return Document(page_name(source, 1), metadata=found), lambda: picture


def _is_uri(text: str) -> bool:
    return text.lower().startswith(("data:", "http://", "https://"))


def _name(image: ImageInput) -> str:
    if isinstance(image, Blob):
        return image.source or "a blob"
    return str(image.metadata.get("source", "a Document")) if isinstance(image, Document) else image_name(image)
