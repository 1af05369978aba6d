"""The pictures of nodes: where a node has one, what the encoder and a chat model get of it."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, Node, NodeWithScore

from colpali_integrations.errors import ColPaliError, ImageError, InputError
from colpali_integrations.llama_index._references import PNG, PageReference, unchanged_type
from colpali_integrations.pages._local_urls import read_file_url
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.formats import ImageLimits
from colpali_integrations.pages.identity import file_digest, page_hash, page_key, page_name, real_path, text_key
from colpali_integrations.pages.images import ImageSource, image_name, is_one_image, load_image
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.metadata import describes_page, page_number, picture_key, source_text
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import encode_png, names_picture, page_file

__all__ = [
    "OWN_HASH",
    "ImageInput",
    "check_permitted",
    "content_key",
    "file_reference",
    "has_image",
    "has_page_metadata",
    "image_block",
    "image_fields",
    "image_label",
    "image_source",
    "image_sources",
    "node_image",
    "node_picture",
    "own_image_fields",
    "picture_metadata",
    "referenced_page",
    "several",
]

ImageInput: TypeAlias = ImageSource | BaseNode | NodeWithScore | ImageBlock
# The content hash of a node's picture, where `content_hash`, `source` or `page` are the caller's own values.
OWN_HASH = "picture_content_hash"


def several(images: Iterable[ImageInput] | ImageInput) -> Iterable[ImageInput]:
    """Return several images as they are, and one image as a list of it."""
    if isinstance(images, (BaseModel, PdfPage, PageReference)) or is_one_image(images):
        return [images]  # type: ignore[list-item]
    return images  # type: ignore[return-value]


def image_sources(images: Iterable[ImageInput], limits: ImageLimits) -> Iterator[ImageSource]:
    """Translate images one by one for the encoder, and draw the pages that they refer to within limits.

    Raises:
        ImageError: a node has no image; `index` and `item` name it.
        InputError: a page cannot be drawn.
    """
    access = PageAccess(limits=limits)
    with keep_pdfs_open():
        for index, item in enumerate(images):
            try:
                source = image_source(item)
                # The thread that feeds the pipeline draws, because pdfium draws one page at a time anyway.
                yield source.draw(access) if isinstance(source, PageReference) else source
            except ColPaliError as error:
                raise error.at(index, image_label(item)) from error.__cause__


def image_label(item: ImageInput) -> str:
    """A short name of an image for messages and traces."""
    if isinstance(item, NodeWithScore):
        item = item.node
    if isinstance(item, BaseNode):
        metadata = item.metadata
        source, number = source_text(metadata), page_number(metadata)
        if source is not None and number is not None:
            return page_name(source, number)
        return f"{type(item).__name__} {item.node_id}"
    if isinstance(item, (PageReference, PdfPage)):
        return item.name
    return image_name(item)


def image_source(item: Any) -> ImageSource:
    """Translate an image for the encoder.

    `ImageNode`, `ImageDocument`, `NodeWithScore`, `ImageBlock` and "report.pdf#page=3" are translated; other images
    pass unchanged.

    Raises:
        ImageError: a node or block has no image.
    """
    if isinstance(item, NodeWithScore):
        item = item.node
    if isinstance(item, (BaseNode, ImageBlock)):
        source = node_image(item)
        if source is None:
            raise ImageError(f"{image_label(item)} has no image; expected an embedded image, a path or a URL")
        return source
    return (PageReference.parse(item) or item) if isinstance(item, str) else item


def has_image(node: BaseNode) -> bool:
    """Whether a node carries a picture or refers to one."""
    return any(image_fields(node))


def node_image(node: BaseNode | ImageBlock) -> ImageSource | None:
    """The image that a node or block carries or refers to, or None.

    An embedded image comes before a path, and a path before a URL, as in `ImageNode.resolve_image`. A URL is not
    fetched, so that the model's own limits apply to it. A page that the node's metadata describe is a
    `PageReference` with its content hash. The metadata of a page suffice: a LangChain Document of a page is a page.
    """
    embedded, path, url = image_fields(node)
    if embedded:
        return _decoded(embedded)
    location = str(path or url or "")
    if location.lower().startswith("file:"):
        path = location = str(read_file_url(location))
    if path:
        return referenced_page(location, getattr(node, "metadata", {})) or location
    return location or None


def node_picture(node: BaseNode, access: PageAccess) -> ImageSource:
    """The picture of a node for the encoder; a page is drawn.

    Raises:
        ImageError: the node has no image.
        InputError: the page cannot be drawn, or its file is outside of the permitted folders.
    """
    source = image_source(node)
    check_permitted(source, access)
    return source.draw(access) if isinstance(source, PageReference) else source


def check_permitted(source: ImageSource | None, access: PageAccess) -> None:
    """Refuse the file of a picture that is outside of the permitted folders.

    Raises:
        InputError: it is one, or is missing.
    """
    if access.folders is not None and (reference := file_reference(source)) is not None:
        page_file(reference.metadata, access)


def content_key(node: BaseNode, access: PageAccess = DEFAULT_ACCESS) -> str:
    """A key that is equal for nodes of equal vectors, computed without fetching or drawing.

    The command line and LangChain compute the same key for a page. A key that begins with "url:" stands for an address
    only, because the picture behind it may change.

    Args:
        node: a page, a picture or a text.
        access: with the folders of files.

    Raises:
        ImageError: the node's base64 cannot be read.
        InputError: the file of its picture cannot be read, has changed, or is outside of the permitted folders.
    """
    image = node_image(node)
    check_permitted(image, access)
    if image is None:
        return text_key(node.get_content(MetadataMode.EMBED))
    if reference := file_reference(image):
        return reference.key
    if isinstance(image, bytes):
        encoded = base64.b64encode(image).decode("ascii")
        return picture_key({**node.metadata, "image_base64": encoded}, node.get_content(MetadataMode.NONE))
    if isinstance(image, str) and not image.startswith("data:"):
        return f"url:{hashlib.sha256(image.encode('utf-8', 'surrogatepass')).hexdigest()}"
    content = image.encode("utf-8", "surrogatepass") if isinstance(image, str) else image
    return page_key(page_hash(file_digest(content), 1), None)  # type: ignore[arg-type]


def image_block(
    node: BaseNode,
    access: PageAccess = DEFAULT_ACCESS,
    *,
    dpi: float | None = None,
    detail: str | None = None,
) -> ImageBlock:
    """The picture of a node for a `ChatMessage`; see `utils.image_blocks`."""
    source = node_image(node)
    check_permitted(source, access)
    if isinstance(source, bytes):
        return ImageBlock(image=source, image_mimetype=getattr(node, "image_mimetype", None), detail=detail)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return ImageBlock(url=source, detail=detail)
    if isinstance(source, str) and (kind := unchanged_type(source)):
        return ImageBlock(path=Path(source), image_mimetype=kind, detail=detail)
    if source is None or isinstance(source, PageReference):
        reference = source or PageReference(node.metadata, known=True)
        content, kind = reference.encode(access, dpi=dpi)
    else:
        content, kind = encode_png(load_image(source, **access.limits.options)), PNG
    return ImageBlock(image=content, image_mimetype=kind, detail=detail)


def picture_metadata(node: BaseNode, access: PageAccess = DEFAULT_ACCESS) -> Mapping[str, Any] | None:
    """Metadata from which `pages.page_image` draws the picture of a node; None for a node without one.

    Args:
        node: a page, an image or a text.
        access: how the picture's file is opened.

    Raises:
        InputError: the file cannot be read, has changed or may not be opened, or the picture is behind a URL, which is
            not fetched.
    """
    source = node_image(node)
    if source is None:
        return node.metadata if names_picture(node.metadata) else None
    if (reference := file_reference(source)) is not None:
        return {**node.metadata, **reference.completed(access).metadata}
    if isinstance(source, str) and not source.startswith("data:"):
        raise InputError(f"the picture of {image_label(node)} is at {source}, which is not fetched")
    kind = getattr(node, "image_mimetype", None)
    content = source if isinstance(source, bytes) else encode_png(load_image(source, **access.limits.options))
    encoded = base64.b64encode(content).decode("ascii")
    return {"image_base64": encoded, "image_mime_type": (kind if isinstance(source, bytes) else None) or PNG}


def image_fields(node: BaseNode | ImageBlock) -> tuple[Any, Any, Any]:
    """The embedded picture, the picture's path and its URL."""
    if isinstance(node, ImageBlock):
        return node.image, node.path, node.url
    if any(fields := own_image_fields(node)) or not has_page_metadata(node):
        return fields
    encoded = node.metadata.get("image_base64")
    return (encoded, None, None) if encoded else (None, str(PageReference(node.metadata)), None)


def own_image_fields(node: BaseNode) -> tuple[Any, Any, Any]:
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    if isinstance(node, Node) and (resource := node.image_resource) is not None:
        return resource.data, resource.path, resource.url
    return None, None, None


def has_page_metadata(node: BaseNode) -> bool:
    """Whether a text, such as a Document of LangChain, has the metadata of a page."""
    has_keys = "text_hash" in node.metadata or "image_base64" in node.metadata
    return has_keys and describes_page(node.metadata, node.get_content(MetadataMode.NONE))


def file_reference(image: ImageSource | None) -> PageReference | None:
    """The page in a file that a node's image is; None for content and URLs."""
    if isinstance(image, str) and not image.startswith(("data:", "http://", "https://")):
        return PageReference({"source": image, "page": 1})
    return image if isinstance(image, PageReference) else None


def referenced_page(path: str, metadata: Mapping[str, Any]) -> PageReference | None:
    """The page that a node's path refers to, with the node's metadata if they describe the same page."""
    parsed = PageReference.parse(path)
    page: Mapping[str, Any] = {"source": path, "page": 1} if parsed is None else parsed.metadata
    if isinstance(own_hash := metadata.get(OWN_HASH), str):
        return PageReference({**page, "content_hash": own_hash})
    content_hash = metadata.get("content_hash")
    same_file = metadata.get("source") == page["source"] or (
        "file_path" in metadata and metadata["file_path"] == real_path(page["source"])
    )
    same_page = same_file and metadata.get("page") == page["page"]
    if not (same_page and isinstance(content_hash, str) and content_hash.startswith(page.get("content_hash", ""))):
        return parsed
    drawn_by = {key: metadata[key] for key in ("file_path", "dpi", "page_count") if key in metadata}
    return PageReference({**drawn_by, **page, "content_hash": content_hash})


def _decoded(image: Any) -> ImageSource:
    """The bytes of a base64 image; data URIs and streams pass unchanged."""
    if not isinstance(image, str | bytes) or (isinstance(image, str) and image.startswith("data:")):
        return image
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image of a node must be base64: {error}") from error
