"""Nodes to and from the entries of a store, which the command line and LangChain read too.

A node comes back exactly as it went in, without its `embedding`: its JSON is kept beside the entry. An entry that
somebody else made, such as the command line, comes as a page or a text node with the entry's id.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from llama_index.core.base.llms.types import BaseContentBlock
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    ImageType,
    IndexNode,
    MetadataMode,
    Node,
    NodeRelationship,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)

from colpali_integrations.errors import ColPaliError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.llama_index.messages import image_blocks
from colpali_integrations.llama_index.pages import PageReference, page_node
from colpali_integrations.llama_index.sources import node_image
from colpali_integrations.pages.reference import document_hash, encode_png, page_hash
from colpali_integrations.stores import Entry, page_key

__all__ = ["Content", "PageNode", "content_of", "entry_content", "entry_of", "node_of"]

_KEY = "llama_index"
_MEDIA = ("text_resource", "image_resource", "audio_resource", "video_resource")


class PageNode(ImageNode):
    """An `ImageNode` whose picture is drawn when a multimodal model asks for it.

    To LlamaIndex's stores it is an `ImageNode`: it has the same class name, JSON and equality. `ImageNode` itself fails
    for "report.pdf#page=3", and sends a picture of unknown type as "data:None"; this hands over a PNG.
    """

    __hash__ = None  # type: ignore[assignment]  # as of every node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageNode) and self.__dict__ == other.__dict__

    def resolve_image(self) -> ImageType:
        """The picture, or where it is, such that PIL can read it; a page of a PDF is drawn."""
        reference = node_image(self)
        return (
            BytesIO(encode_png(reference.draw())) if isinstance(reference, PageReference) else super().resolve_image()
        )

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[BaseContentBlock]:
        """Metadata and picture, for a chat message.

        Raises:
            InputError: the page's file is not there (any more).
        """
        return [*self.get_metadata_content_blocks(metadata_mode), *image_blocks(self)]


_TYPES: dict[str, type[BaseNode]] = {
    one.class_name(): one for one in (Node, TextNode, IndexNode, Document, ImageDocument, PageNode)
}


class Content(NamedTuple):
    """What decides a node's vectors.

    Attributes:
        hash: of the picture or the text; kept as the entry's `content_hash`.
        dpi: at which a page is drawn; None for an image or a text.
        is_page: whether it is encoded as an image.
    """

    hash: str
    dpi: float | None
    is_page: bool

    @property
    def key(self) -> str:
        """Equal for equal contents."""
        return f"{'page' if self.is_page else 'text'} {page_key(self.hash, self.dpi)}"


def content_of(node: BaseNode) -> Content | None:
    """What decides the node's vectors; None where that cannot be told without fetching, as for a URL.

    Hashes are those of `pages.reference`, so that pages of the command line and of LangChain are recognised.

    Raises:
        ImageError: the node's base64 cannot be read.
        InputError: the file of its picture cannot be read.
    """
    image = node_image(node)
    if image is None:
        return Content(_text_hash(node.get_content(MetadataMode.EMBED)), None, False)
    if isinstance(image, PageReference):
        known = node.metadata.get("content_hash")
        dpi = image.metadata.get("dpi")
        if not (isinstance(known, str) and known and node.metadata.get("source") == image.metadata["source"]):
            known = page_hash(document_hash(image.metadata["source"]), image.metadata["page"])
        return Content(known, None if dpi is None else float(dpi), True)
    if isinstance(image, bytes):
        return Content(page_hash(document_hash(image), 1), None, True)
    text = str(image)
    if text.startswith("data:"):
        return Content(_text_hash(text), None, True)
    if text.startswith(("http://", "https://", "file:")):
        return None
    known = node.metadata.get("content_hash")
    if isinstance(known, str) and known and node.metadata.get("source") == text:
        return Content(known, None, True)
    return Content(page_hash(document_hash(text), 1), None, True)


def entry_content(entry: Entry) -> Content:
    """What decided an entry's vectors, whoever made it."""
    own = entry.extra.get(_KEY)
    if isinstance(own, Mapping):
        return Content(entry.content_hash, own.get("dpi"), bool(own.get("page")))
    is_page, dpi = entry.is_page, entry.metadata.get("dpi")
    drawn = is_page and isinstance(dpi, int | float) and _is_page_of_pdf(entry)
    return Content(entry.content_hash, float(dpi) if drawn else None, is_page)  # type: ignore[arg-type]


def entry_of(node: BaseNode, content: Content | None, grid: PageGrid | None = None) -> Entry:
    """What a store keeps of a node.

    Raises:
        StoreError: the node cannot be written as JSON.
    """
    try:
        # Numbers that JSON cannot hold would silently become null below.
        json.dumps(node.metadata, allow_nan=False, default=str)
        fields = node.to_dict(mode="json", exclude={"embedding"})
        fields.pop("embedding", None)  # of an IndexNode, whose own `dict` takes no notice
        media = {
            name: bytes(resource.data).decode("ascii")
            for name in _MEDIA
            if (resource := getattr(node, name, None)) is not None and getattr(resource, "data", None)
        }
        written = json.dumps(fields, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"node {node.node_id!r}: it must be what JSON can hold ({error})") from error
    is_page = content.is_page if content is not None else True
    own = {"type": fields["class_name"], "node": written, "media": media, "page": is_page}
    if content is not None and content.dpi is not None:
        own["dpi"] = content.dpi
    return Entry(
        id=node.node_id,
        text=node.get_content(MetadataMode.NONE),
        metadata=fields["metadata"],
        group=node.ref_doc_id,
        content_hash="" if content is None else content.hash,
        grid=grid,
        extra={_KEY: own},
    )


def node_of(entry: Entry) -> BaseNode:
    """The node that an entry was made of; for somebody else's entry a page or a text with its id.

    Raises:
        StoreError: what was kept is damaged.
    """
    own = entry.extra.get(_KEY)
    if not isinstance(own, Mapping):
        return _foreign(entry)
    try:
        fields = json.loads(own["node"])
        for name, data in own.get("media", {}).items():
            fields[name]["data"] = data.encode("ascii")
        kind = ImageNode.class_name() if own["type"] not in _TYPES and "image_path" in fields else own["type"]
        if kind == ImageDocument.class_name() and not _there(fields):
            kind = ImageNode.class_name()  # an ImageDocument does not let itself be made without its file
        return _TYPES.get(kind, TextNode).from_dict(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the node of entry {entry.id!r} cannot be read: {error}") from error


def _foreign(entry: Entry) -> BaseNode:
    """A page as `PdfPageReader` has it, but belonging to its document, as the store has it."""
    metadata, group = dict(entry.metadata), entry.group or entry.id
    source = RelatedNodeInfo(node_id=group, node_type=ObjectType.DOCUMENT, hash=entry.content_hash or None)
    if entry.is_page and entry.source is not None and entry.page is not None:
        node: BaseNode = PageNode(**page_node(entry.text or entry.name, metadata, node_id=entry.id).__dict__)
    elif isinstance(metadata.get("image_base64"), str):
        picture, kind = metadata.pop("image_base64"), metadata.pop("image_mime_type", None)
        node = PageNode(id_=entry.id, text=entry.text, extra_info=metadata, image=picture, image_mimetype=kind)
    else:
        node = TextNode(id_=entry.id, text=entry.text, metadata=metadata)
    node.relationships = {NodeRelationship.SOURCE: source}
    return node


def _is_page_of_pdf(entry: Entry) -> bool:
    node = _foreign(entry)
    return isinstance(node, ImageNode) and isinstance(node_image(node), PageReference)


def _there(fields: Mapping[str, Any]) -> bool:
    resource = fields.get("image_resource") or {}
    path = resource.get("path")
    try:
        return path is None or Path(path).is_file()
    except (OSError, ValueError, ColPaliError):
        return False


def _text_hash(content: str) -> str:
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()
