"""Files, Blobs and images of callers, as the sources of a store and as the inputs of the encoder."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NoReturn, TypeAlias

from langchain_core.documents import Document
from langchain_core.documents.base import Blob
from PIL import Image

from colpali_integrations._failures import item_error
from colpali_integrations._options import checked_several
from colpali_integrations._paths import is_folder
from colpali_integrations.errors import ColPaliError, ConfigurationError, ImageError, InputError
from colpali_integrations.langchain._documents import is_page, item_of, name_of, page_identity, reference_name
from colpali_integrations.pages._local_urls import is_file_url, read_file_url
from colpali_integrations.pages._urls import is_web_url
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.identity import check_metadata, document_id
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.metadata import checked_metadata
from colpali_integrations.pages.paged import is_paged, is_pdf
from colpali_integrations.pages.reference import draw_page
from colpali_integrations.stores import DocumentSource, Item, find_documents
from colpali_integrations.stores.indexing import are_several, check_document_id

__all__ = ["DocumentInput", "ImageInput", "document_source", "document_sources", "image_source", "image_sources"]

DocumentInput: TypeAlias = str | os.PathLike[str] | bytes | Blob
ImageInput: TypeAlias = ImageSource | Blob | Document


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
        owner, _ = page_identity(image.metadata)
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
