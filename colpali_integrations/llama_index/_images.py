"""Pictures as LlamaIndex names them: in nodes and blocks, and as references to pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from llama_index.core.base.llms.types import ImageBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.schema import BaseNode, ImageNode, MetadataMode, Node, NodeWithScore
from PIL import Image

from colpali_integrations.errors import ColPaliError, ImageError
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.identity import file_digest, page_hash, page_key, page_name, text_key
from colpali_integrations.pages.images import ImageSource, image_name, load_image
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import encode_png, is_pdf, page_file, page_image

__all__ = [
    "PNG",
    "ImageInput",
    "PageReference",
    "content_key",
    "has_image",
    "image_block",
    "image_label",
    "image_source",
    "image_sources",
    "node_image",
    "several",
]

ImageInput: TypeAlias = "ImageSource | BaseNode | NodeWithScore | ImageBlock"

PNG = "image/png"
# Formats that every provider of chat models takes; others are sent as PNG.
_SENT_UNCHANGED = {".png": PNG, ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
_REFERENCE = re.compile(
    r"(?P<source>.+)#page=(?P<page>\d+)(?:&dpi=(?P<dpi>\d+(?:\.\d+)?))?(?:&sha256=(?P<sha256>[0-9a-f]{16}))?(?:&[^#]*)?",
    re.DOTALL,
)


class PageReference:
    """A page that is drawn when its `image` is read, and then kept as long as this object.

    The string of a page of a PDF is "report.pdf#page=3&dpi=150&sha256=1f0c...": the fragment that PDF viewers
    understand (RFC 8118, section 3), and 16 digits of the page's content hash. A page whose file has changed is not
    drawn: it would be the wrong picture.

    Args:
        metadata: `source`, `page` and perhaps `file_path`, `dpi` and `content_hash`; see `pages.document`.

    Example:
        >>> PageReference.parse("reports/2024.pdf#page=7&dpi=100").name
        '2024.pdf, page 7'
        >>> PageReference.parse("scan.png") is None
        True
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    @classmethod
    def parse(cls, text: str) -> PageReference | None:
        """The page that a string refers to; None for any other string, such as the path of a file with such a name."""
        match = _REFERENCE.fullmatch(text)
        if match is None or text.startswith(("data:", "http://", "https://")) or Path(text).is_file():
            return None
        metadata: dict[str, Any] = {"source": match["source"], "page": int(match["page"])}
        if match["dpi"]:
            metadata["dpi"] = float(match["dpi"])
        if match["sha256"]:
            metadata["content_hash"] = match["sha256"]
        return cls(metadata)

    @cached_property
    def image(self) -> Image.Image:
        """The picture; errors as of `draw`."""
        return self.draw()

    def draw(self, *, dpi: float | None = None) -> Image.Image:
        """The picture, perhaps at another resolution than the reference's.

        Raises:
            InputError: the file is missing, or has changed since it was indexed.
            PdfError: the file cannot be read, or has no such page.
        """
        return page_image(self.metadata, dpi=dpi)

    def encode(self, *, dpi: float | None = None) -> tuple[bytes, str]:
        """The picture as a file that chat models take, and its MIME type: an image file unchanged, or a PNG.

        Raises:
            InputError: as `draw`.
        """
        kind = _SENT_UNCHANGED.get(Path(str(self.metadata.get("source"))).suffix.lower())
        if kind is not None and "image_base64" not in self.metadata:
            return Path(page_file(self.metadata)[0]).read_bytes(), kind
        return encode_png(self.draw(dpi=dpi)), PNG

    @property
    def key(self) -> str:
        """Equal for pages of equal vectors; see `pages.identity.page_key`."""
        content, path = self.metadata.get("content_hash"), str(self.metadata["source"])
        if not isinstance(content, str) or len(content) != 64:
            path, number = page_file(self.metadata)
            content = page_hash(file_digest(path), number)
        return page_key(content, self.metadata.get("dpi") or (DEFAULT_DPI if is_pdf(path) else None))

    @property
    def name(self) -> str:
        """The name of the page in messages."""
        return page_name(self.metadata["source"], self.metadata["page"])

    def __str__(self) -> str:
        text = f"{self.metadata['source']}#page={self.metadata['page']}"
        if "dpi" in self.metadata:
            text += f"&dpi={self.metadata['dpi']:g}"
        # LlamaIndex's hash of an ImageNode covers path and text but no metadata: by this, an upserting document store
        # recognises a scan that was replaced under its old name.
        if "content_hash" in self.metadata:
            text += f"&sha256={self.metadata['content_hash'][:16]}"
        return text


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
            # Drawn here, by the thread that feeds the pipeline: pdfium draws one page at a time anyway.
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
    """Translate an image for the encoder.

    `ImageNode`, `ImageDocument`, `NodeWithScore`, `ImageBlock` and "report.pdf#page=3" are translated; everything else
    is left as it is.

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
        embedded: Any = _decoded(item.image) if isinstance(item.image, bytes) else item.image
        path = None if item.path is None else PageReference.parse(str(item.path)) or item.path
        source = embedded or path or (str(item.url) if item.url else None)
        if source is None:
            raise ImageError("ImageBlock has no image; expected image, path or url")
        return source
    return (PageReference.parse(item) or item) if isinstance(item, str) else item


def has_image(node: BaseNode) -> bool:
    """Whether a node carries a picture or refers to one."""
    return any(_places(node))


def node_image(node: BaseNode) -> ImageSource | None:
    """The image that a node carries or refers to, or None.

    An embedded image comes before a path, and a path before a URL, as in `ImageNode.resolve_image`; a URL is handed
    on unread, so that the model's own limits apply to it. A page that the node's metadata describe is a
    `PageReference` with its content hash.
    """
    embedded, path, url = _places(node)
    if embedded:
        return _decoded(embedded)
    if path:
        return _referenced(str(path), node.metadata) or str(path)
    return str(url) if url else None


def content_key(node: BaseNode) -> str:
    """Equal for nodes of equal vectors, as far as that is known without fetching or drawing.

    Pages have the key that they have in the command line and in LangChain. The picture behind a URL may change: its
    key, which begins with "url:", stands for the address only.

    Raises:
        ImageError: the node's base64 cannot be read.
        InputError: the file of its picture cannot be read, or has changed.
    """
    image = node_image(node)
    if image is None:
        return text_key(node.get_content(MetadataMode.EMBED))
    if isinstance(image, PageReference):
        return image.key
    if isinstance(image, str) and image.startswith(("http://", "https://", "file:")):
        return f"url:{hashlib.sha256(image.encode()).hexdigest()}"
    content = image.encode() if isinstance(image, str) and image.startswith("data:") else image
    return page_key(page_hash(file_digest(content), 1), None)  # type: ignore[arg-type]


def image_block(node: BaseNode, *, dpi: float | None = None, detail: str | None = None) -> ImageBlock:
    """The picture of a node for a `ChatMessage`; see `utils.image_blocks`."""
    source = node_image(node)
    if isinstance(source, bytes):
        return ImageBlock(image=source, image_mimetype=getattr(node, "image_mimetype", None), detail=detail)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return ImageBlock(url=source, detail=detail)
    if source is None or isinstance(source, PageReference):
        content, kind = (source or PageReference(node.metadata)).encode(dpi=dpi)
        return ImageBlock(image=content, image_mimetype=kind, detail=detail)
    if isinstance(source, str) and (unchanged := _sent_unchanged(source)):
        return ImageBlock(path=Path(source), image_mimetype=unchanged, detail=detail)
    return ImageBlock(image=encode_png(load_image(source)), image_mimetype=PNG, detail=detail)


def _places(node: BaseNode) -> tuple[Any, Any, Any]:
    """The embedded picture of a node, its path and its URL."""
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    if isinstance(node, Node) and (resource := node.image_resource) is not None:
        return resource.data, resource.path, resource.url
    return None, None, None


def _referenced(path: str, metadata: Mapping[str, Any]) -> PageReference | None:
    """The page that a node's path refers to, with the node's metadata where they describe the same page."""
    parsed = PageReference.parse(path)
    page: Mapping[str, Any] = {"source": path, "page": 1} if parsed is None else parsed.metadata
    known = metadata.get("content_hash")
    described = (metadata.get("source"), metadata.get("page")) == (page["source"], page["page"])
    if not (described and isinstance(known, str) and known.startswith(page.get("content_hash", ""))):
        return parsed
    own = {key: metadata[key] for key in ("file_path", "dpi") if key in metadata}
    return PageReference({**own, **page, "content_hash": known})


def _sent_unchanged(path: str) -> str | None:
    """The MIME type of an image file that a chat model takes unchanged."""
    return None if path.startswith(("data:", "file:")) else _SENT_UNCHANGED.get(Path(path).suffix.lower())


def _decoded(image: str | bytes) -> bytes | str:
    """The bytes of a base64 image; a data URI stays one."""
    if isinstance(image, str) and image.startswith("data:"):
        return image
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image of a node must be base64: {error}") from error
