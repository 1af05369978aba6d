"""What LlamaIndex calls an image -> what the core calls one."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import numpy as np
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.schema import BaseNode, ImageNode, Node, NodeWithScore
from PIL import Image

from colpali_integrations.errors import ColPaliError, ImageError
from colpali_integrations.llama_index.pages import PageReference
from colpali_integrations.pages.images import ImageSource, image_name
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import page_name

__all__ = ["ImageInput", "image_label", "image_source", "image_sources", "node_image", "several"]

ImageInput: TypeAlias = "ImageSource | BaseNode | NodeWithScore | ImageBlock"


def several(images: Iterable[ImageInput] | ImageInput) -> Iterable[ImageInput]:
    """Several images, or one as a list of it: a string, a file or a node would otherwise be taken apart."""
    if isinstance(images, (str, bytes, bytearray, memoryview, os.PathLike, Image.Image, PdfPage, PageReference)):
        return [images]
    if isinstance(images, BaseModel) or hasattr(images, "read"):
        return [images]  # type: ignore[list-item]
    if isinstance(images, np.ndarray) and images.ndim != 4:
        return [images]
    return images  # type: ignore[return-value]


def image_sources(images: Iterable[ImageInput]) -> Iterator[ImageSource]:
    """Translate images one by one, and draw the pages that are referred to.

    Raises:
        ImageError: a node without an image; `index` and `item` name it.
        InputError: a page that cannot be drawn.
    """
    for index, item in enumerate(images):
        try:
            source = image_source(item)
            # Drawn here, by the thread that feeds the pipeline: pdfium does one page at a time anyway.
            yield source.image if isinstance(source, PageReference) else source
        except ColPaliError as error:
            raise error.at(index, image_label(item)) from error.__cause__


def image_label(item: ImageInput) -> str:
    """A short name of an image for messages and traces, without its content."""
    if isinstance(item, NodeWithScore):
        item = item.node
    if isinstance(item, BaseNode):
        metadata = item.metadata
        if isinstance(metadata.get("source"), str) and isinstance(metadata.get("page"), int):
            return page_name(metadata["source"], metadata["page"])
        return f"{type(item).__name__} {item.node_id}"
    if isinstance(item, (PageReference, PdfPage)):
        return item.name
    return image_name(item)


def image_source(item: Any) -> ImageSource:
    """What the core calls an image.

    Translates `ImageNode`, `ImageDocument`, `NodeWithScore`, `ImageBlock` and "report.pdf#page=3"; everything else is
    left as it is.

    Raises:
        ImageError: a node or block without an image.
    """
    if isinstance(item, NodeWithScore):
        item = item.node
    if isinstance(item, BaseNode):
        source = node_image(item)
        if source is None:
            raise ImageError(
                f"{type(item).__name__} {item.node_id!r} has no image; expected image (base64), image_path or image_url"
            )
        return source
    if isinstance(item, ImageBlock):
        embedded = _decoded(item.image) if isinstance(item.image, bytes) else item.image
        source = _first(embedded, item.path, item.url)
        if source is None:
            raise ImageError("ImageBlock has no image; expected image, path or url")
        return source
    return (PageReference.parse(item) or item) if isinstance(item, str) else item


def node_image(node: BaseNode) -> ImageSource | None:
    """The image that a node carries or points to, or None.

    An embedded image comes before a path, and a path before a URL, as in `ImageNode.resolve_image`; a URL is handed
    on unread, so that the model's own limits apply to it.
    """
    if isinstance(node, ImageNode):
        return _first(node.image and _decoded(node.image), node.image_path, node.image_url)
    if isinstance(node, Node) and node.image_resource is not None:
        resource = node.image_resource
        return _first(resource.data and _decoded(resource.data), resource.path, resource.url)
    return None


def _first(embedded: Any, path: Any, url: Any) -> ImageSource | None:
    if embedded:
        return embedded  # type: ignore[no-any-return]
    if path:
        return PageReference.parse(str(path)) or path
    return str(url) if url else None


def _decoded(image: str | bytes) -> bytes | str:
    """The bytes of a base64 image; a data URI stays one."""
    if isinstance(image, str) and image.startswith("data:"):
        return image
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image of a node must be base64: {error}") from error
