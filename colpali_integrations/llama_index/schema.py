"""Pages as LlamaIndex nodes, and nodes as the entries of a store, which the command line and LangChain read too."""

from __future__ import annotations

import copy
import json
import mimetypes
import uuid
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

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
from colpali_integrations.llama_index._images import (
    PageReference,
    content_key,
    has_image,
    image_block,
    image_label,
    image_source,
    node_image,
)
from colpali_integrations.models.prompt import check_query
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.reference import is_pdf
from colpali_integrations.stores import Entry, Item

__all__ = ["PageNode", "PageReference", "entry_node", "node_entry", "node_item", "page_node"]

_KEY = "llama_index"
_MEDIA = ("text_resource", "image_resource", "audio_resource", "video_resource")
# Metadata of no use to a text embedding or a language model; `source` and `page` stay, so that answers can cite.
_PLUMBING = [
    *("file_path", "file_name", "document_id", "page_label", "page_count", "width", "height", "dpi"),
    *("content_hash", "text_hash"),
]


class PageNode(ImageNode):
    """An `ImageNode` whose picture is drawn when a multimodal model asks for it.

    To LlamaIndex's stores it is an `ImageNode`: it has the same class name, JSON and equality. `ImageNode` itself fails
    for "report.pdf#page=3", and sends a picture of unknown type as "data:None"; this hands over a PNG.
    """

    __hash__ = None  # type: ignore[assignment]  # as of every node

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageNode) and self.__dict__ == other.__dict__

    def resolve_image(self) -> ImageType:
        """The picture, or its place, such that PIL can read it; a page is drawn.

        Raises:
            InputError: the page's file is missing, or has changed since it was indexed.
        """
        reference = node_image(self)
        return BytesIO(reference.encode()[0]) if isinstance(reference, PageReference) else super().resolve_image()

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[BaseContentBlock]:
        """Metadata and picture, for a chat message.

        Raises:
            InputError: the page's file is missing, or has changed since it was indexed.
        """
        return [*self.get_metadata_content_blocks(metadata_mode), image_block(self)]


_TYPES: dict[str, type[BaseNode]] = {
    one.class_name(): one for one in (Node, TextNode, IndexNode, Document, ImageDocument, PageNode)
}


def page_node(content: str, metadata: Mapping[str, Any], *, node_id: str | None = None) -> PageNode:
    """The node of a page.

    The page is its own source document (`ref_doc_id`), as with LlamaIndex's own PDF readers: an upserting
    `IngestionPipeline` and `delete_ref_doc` go by that.

    Args:
        content: the text layer, or the page's name.
        metadata: see `pages.document`; base64 in it becomes the node's `image`.
        node_id: instead of one derived from `document_id` (or `source`) and `page`.

    Returns:
        The node; its `image_path` refers to the page, from which the picture is drawn on demand.

    Raises:
        KeyError: metadata without `source` or `page`.

    Example:
        >>> node = page_node("Low tide at six", {"source": "harbour.pdf", "page": 3, "dpi": 150.0})
        >>> node.image_path, node.ref_doc_id == node.node_id
        ('harbour.pdf#page=3&dpi=150', True)
    """
    kept = {key: value for key, value in metadata.items() if key not in ("image_base64", "image_mime_type")}
    source, page = str(kept["source"]), int(kept["page"])
    identity = node_id or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{kept.get('document_id', source)}#page={page}"))
    if "image_base64" in metadata:
        picture = {"image": metadata["image_base64"], "image_mimetype": metadata.get("image_mime_type", "image/png")}
    elif "dpi" in kept or is_pdf(source):
        picture = {"image_path": str(PageReference(kept))}
    else:
        # LlamaIndex guesses the type itself, but not from "SCAN.PNG", and then sends the model "data:None;base64,...".
        picture = {"image_path": source, "image_mimetype": mimetypes.guess_type(source)[0]}
    return PageNode(
        id_=identity,
        text=content,
        extra_info=kept,
        excluded_embed_metadata_keys=["source", "page", *_PLUMBING],
        excluded_llm_metadata_keys=list(_PLUMBING),
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(
                node_id=identity, node_type=ObjectType.DOCUMENT, hash=kept.get("content_hash")
            )
        },
        **picture,
    )


def node_item(node: BaseNode, index: int) -> Item:
    """A node as `stores.ingest` takes it: a page if it has a picture, else a text. The node is left as it is.

    Args:
        node: to be stored.
        index: position among the caller's nodes, for error messages.

    Raises:
        InputError: a picture that cannot be read, or a node with neither picture nor text; the error names the node.
        StoreError: JSON cannot hold the node.
    """
    name, text = image_label(node), node.get_content(MetadataMode.EMBED)
    try:
        key, is_page = content_key(node), has_image(node)
        if key.startswith("url:"):
            key = f"{key}:{uuid.uuid4().hex}"  # the picture may have changed: it is fetched every time
        if not is_page:
            check_query(text)
        node_entry(node, key).to_payload()  # not kept: it would hold a second copy of every embedded picture
    except ColPaliError as error:
        raise error.at(index, name) from error.__cause__
    return Item(
        id=node.node_id,
        key=key,
        name=name,
        entry=lambda: node_entry(node, key),
        draw=(lambda: _picture(node)) if is_page else None,
        text=text,
        index=index,
    )


def node_entry(node: BaseNode, key: str) -> Entry:
    """The entry of a node, without a grid. The node's JSON is kept in it, so that the node comes back as it was.

    Args:
        node: to be stored.
        key: see `content_key`.

    Raises:
        StoreError: JSON cannot hold the node.
    """
    try:
        # Numbers that JSON cannot hold would silently become null below.
        json.dumps(node.metadata, allow_nan=False, default=str)
        fields = node.to_dict(mode="json", exclude={"embedding"})
        fields.pop("embedding", None)  # an IndexNode's own `dict` ignores `exclude`
        metadata = fields.pop("metadata")
        media = {
            name: bytes(resource.data).decode("ascii")
            for name in _MEDIA
            if (resource := getattr(node, name, None)) is not None and getattr(resource, "data", None)
        }
        written = json.dumps(fields, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"node {node.node_id!r}: metadata must be what JSON can hold ({error})") from error
    return Entry(
        id=node.node_id,
        text=node.get_content(MetadataMode.NONE),
        metadata=metadata,
        document_id=node.ref_doc_id,
        content_hash=key,
        extra={_KEY: {"type": fields["class_name"], "node": written, "media": media}},
    )


def entry_node(entry: Entry) -> BaseNode:
    """The node that an entry was made of, without its `embedding`; another entry as a page or a text with its id.

    Raises:
        StoreError: the kept node is damaged.
    """
    own = entry.extra.get(_KEY)
    metadata = copy.deepcopy(dict(entry.metadata))
    if not isinstance(own, Mapping):
        return _foreign(entry, metadata)
    try:
        fields = {**json.loads(own["node"]), "metadata": metadata}
        for name, data in own.get("media", {}).items():
            fields[name]["data"] = data.encode("ascii")
        kind = ImageNode.class_name() if own["type"] not in _TYPES and "image_path" in fields else own["type"]
        if kind == ImageDocument.class_name() and not _there(fields):
            kind = ImageNode.class_name()  # LlamaIndex makes no ImageDocument without its file
        return _TYPES.get(kind, TextNode).from_dict(fields)
    except (KeyError, TypeError, ValueError) as error:
        raise StoreError(f"the node of entry {entry.id!r} cannot be read: {error}") from error


def _foreign(entry: Entry, metadata: dict[str, Any]) -> BaseNode:
    """A page as `PdfPageReader` gives it, but belonging to its document, as in the store."""
    if entry.is_page and entry.source is not None and entry.page is not None:
        node: BaseNode = page_node(entry.text or entry.name, metadata, node_id=entry.id)
    elif isinstance(metadata.get("image_base64"), str):
        picture, kind = metadata.pop("image_base64"), metadata.pop("image_mime_type", None)
        node = PageNode(id_=entry.id, text=entry.text, extra_info=metadata, image=picture, image_mimetype=kind)
    else:
        node = TextNode(id_=entry.id, text=entry.text, metadata=metadata)
    document = RelatedNodeInfo(
        node_id=entry.document_id or entry.id, node_type=ObjectType.DOCUMENT, hash=entry.content_hash or None
    )
    node.relationships = {NodeRelationship.SOURCE: document}
    return node


def _picture(node: BaseNode) -> ImageSource:
    source = image_source(node)
    return source.draw() if isinstance(source, PageReference) else source


def _there(fields: Mapping[str, Any]) -> bool:
    path = (fields.get("image_resource") or {}).get("path")
    try:
        return path is None or Path(path).is_file()
    except (OSError, ValueError):
        return False
