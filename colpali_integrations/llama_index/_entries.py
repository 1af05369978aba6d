"""Nodes as the entries of a store, and the entries of a store as nodes.

The command line and LangChain read the same entries.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MetadataMode,
    Node,
    TextNode,
)

from colpali_integrations._text import parse_json
from colpali_integrations.errors import ColPaliError, InputError, StoreError
from colpali_integrations.llama_index._pictures import (
    OWN_HASH,
    content_key,
    file_reference,
    has_image,
    has_page_metadata,
    image_fields,
    image_label,
    node_image,
    node_picture,
    own_image_fields,
    referenced_page,
)
from colpali_integrations.llama_index._references import PNG, PageReference
from colpali_integrations.llama_index.schema import INTERNAL_METADATA, PageNode, own_source, page_node
from colpali_integrations.pages._local_urls import read_file_url
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.formats import DEFAULT_LIMITS, ImageLimits
from colpali_integrations.pages.identity import text_key
from colpali_integrations.pages.images import ImageSource
from colpali_integrations.pages.metadata import page_number, storage_fault
from colpali_integrations.pages.reference import has_content_hash
from colpali_integrations.stores import Entry, Item
from colpali_integrations.stores.limits import check_depth

__all__ = ["entry_node", "node_item"]

_KEY = "llama_index"
_MEDIA = ("text_resource", "image_resource", "audio_resource", "video_resource")
_TYPES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (Node, TextNode, IndexNode, Document, ImageDocument, PageNode)
}


def node_item(node: BaseNode, index: int, access: PageAccess = DEFAULT_ACCESS) -> Item:
    """Translate a node for `stores.ingest`: a page if it has a picture, else a text. The node stays unchanged.

    The item's functions raise the errors of a node that cannot be stored.

    Args:
        node: to be stored.
        index: position among the caller's nodes, for error messages.
        access: how the file of its picture is opened.

    Raises:
        InputError: `node` is not a node.
        StoreError: its metadata have too many levels, which LlamaIndex cannot write as text either.
    """
    if not isinstance(node, BaseNode):
        raise InputError(
            f"expected a list of nodes, and item {index} is a {type(node).__name__}; PdfPageReader().load_data(path) "
            "gives the nodes of a file or folder"
        )
    check_depth(f"the node {node.node_id!r}", node.metadata)
    try:
        node = _as_page(node)
        key, reference = content_key(node, access), file_reference(node_image(node))
        if reference is not None:
            reference = reference.completed(access)  # so that drawing it checks the content
    except ColPaliError:
        key, reference = f"unreadable:{node.node_id}", None  # its picture raises the error when its turn comes
    if key.startswith("url:"):
        key = f"{key}:{uuid.uuid4().hex}"  # the picture may have changed, so it is fetched every time
    return Item(
        id=node.node_id,
        key=key,
        name=image_label(node),
        entry=lambda: _entry(node, key, reference),
        draw=_drawing(node, reference, access) if has_image(node) else None,
        text=node.get_content(MetadataMode.EMBED),
        index=index,
    )


def entry_node(entry: Entry, limits: ImageLimits = DEFAULT_LIMITS) -> BaseNode:
    """The node that an entry was made of, without its `embedding`; a foreign entry as a page or a text with its id.

    The metadata of a picture in a file contain its content hash, by which another picture under its name is refused.

    Args:
        entry: of the store.
        limits: size and formats of images, by which a page draws itself.

    Raises:
        StoreError: the stored node is damaged.
    """
    node = _stored_node(entry)
    if isinstance(node, PageNode):
        node._limits = limits
    return node


def _drawing(node: BaseNode, reference: PageReference | None, access: PageAccess) -> Callable[[], ImageSource]:
    if reference is None:
        return lambda: node_picture(node, access)
    return lambda: reference.draw(access)


def _stored_node(entry: Entry) -> BaseNode:
    stored = entry.extra.get(_KEY)
    metadata = dict(entry.metadata)
    try:
        if not isinstance(stored, Mapping):
            return _foreign(entry, metadata)
        fields = {**parse_json(stored["node"]), "metadata": metadata}
        media = dict(stored.get("media", {}))
        if holder := stored.get("embedded"):
            picture, _ = metadata.pop("image_base64", None), metadata.pop("image_mime_type", None)
            (fields if holder == "image" else media)[holder] = picture
        for name, data in media.items():
            fields[name]["data"] = data and data.encode("ascii")
        kind = stored["type"]
        # LlamaIndex makes no ImageDocument without its file.
        if (kind not in _TYPES and "image_path" in fields) or (kind == "ImageDocument" and not _has_file(fields)):
            kind = ImageNode.class_name()
        node = _TYPES.get(kind, TextNode).from_dict(fields)
        knows = _knows_picture(node, node.metadata)
    except ColPaliError:
        raise
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise StoreError(f"the node of entry {entry.id!r} cannot be read: {type(error).__name__}: {error}") from error
    if not knows:
        raise StoreError(
            f"the node of entry {entry.id!r} names a file without the content hash that this package stores with it, "
            "so the file is not opened; was the store made by another program?"
        )
    return node


def _knows_picture(node: BaseNode, metadata: Mapping[str, Any]) -> bool:
    """Whether a node names no file, or metadata have the content hash of the one that it names.

    A store from elsewhere may name any file of this machine.
    """
    if any(getattr(getattr(node, name, None), "path", None) for name in _MEDIA if name != "image_resource"):
        return False
    embedded, path, url = image_fields(node)
    location = str(path or (url if str(url or "").lower().startswith("file:") else "") or "")
    if embedded or not location:
        return True
    if location.lower().startswith("file:"):
        location = str(read_file_url(location))
    reference = referenced_page(location, metadata)
    return reference is not None and has_content_hash(reference.metadata)


def _entry(node: BaseNode, key: str, reference: PageReference | None) -> Entry:
    """The entry of a node, without a grid. It holds the node's JSON, from which `entry_node` makes an equal node.

    Its metadata have the picture, or the file and content hash of the picture, where all adapters look for them.

    Args:
        node: to be stored.
        key: see `content_key`.
        reference: to the file of its picture.

    Raises:
        StoreError: JSON cannot hold the node.
    """
    try:
        # Below, numbers that JSON cannot hold would silently become null, and dates texts.
        if (fault := storage_fault(node.metadata)) is not None:
            raise ValueError(fault)
        fields = node.to_dict(mode="json", exclude={"embedding"})
        fields.pop("embedding", None)  # an IndexNode's own `dict` ignores `exclude`
        metadata = fields.pop("metadata")
        resources = {name: getattr(node, name, None) for name in _MEDIA}
        media = {name: bytes(one.data).decode("ascii") for name, one in resources.items() if one and one.data}
        holder = "image" if isinstance(node, ImageNode) else "image_resource"
        held_in = fields if holder == "image" else media
        embedded = _is_base64(held_in.get(holder)) and "image_base64" not in metadata
        if embedded:
            metadata |= {"image_base64": held_in.pop(holder), "image_mime_type": _mime_type(node)}
        elif reference is not None:
            added = {**reference.metadata, "text_hash": text_key(node.get_content(MetadataMode.NONE))}
            if not _knows_picture(node, {**added, **metadata}):
                added[OWN_HASH] = reference.metadata["content_hash"]
            new = [name for name in added if name not in metadata]
            metadata |= {name: added[name] for name in new}  # behind the caller's, as the node's text has them
            fields["excluded_embed_metadata_keys"] = [*fields["excluded_embed_metadata_keys"], *new]
            fields["excluded_llm_metadata_keys"] += [name for name in new if name in INTERNAL_METADATA]
        written = json.dumps(fields, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"node {node.node_id!r}: metadata must be what JSON can hold: {error}") from error
    return Entry(
        id=node.node_id,
        text=node.get_content(MetadataMode.NONE),
        metadata=metadata,
        document_id=node.ref_doc_id,
        content_hash=key,
        extra={_KEY: {"type": fields["class_name"], "node": written, "media": media, "embedded": embedded and holder}},
    )


def _foreign(entry: Entry, metadata: dict[str, Any]) -> BaseNode:
    """The node of a page like `PdfPageReader`'s, but its source document is that of the entry."""
    node: BaseNode | None = None
    has_base64 = isinstance(metadata.get("image_base64"), str) and entry.has_picture
    if has_base64 or (entry.is_page and entry.source is not None and entry.page is not None):
        node = _described_page(entry.id, entry.text or entry.name, metadata)
    if node is None or not _knows_picture(node, metadata):  # a text, whose page can be shown by `roots=`
        node = TextNode(id_=entry.id, text=entry.text, metadata=metadata)
    node.relationships = own_source(entry.document_id or entry.id, entry.content_hash or None)
    return node


def _described_page(id_: str, text: str, metadata: Mapping[str, Any]) -> PageNode:
    """The node of a page that its metadata describe."""
    if isinstance(metadata.get("source"), str) and page_number(metadata) is not None:
        return page_node(text, metadata, node_id=id_)
    info = {key: value for key, value in metadata.items() if key not in ("image_base64", "image_mime_type")}
    picture, kind = metadata["image_base64"], metadata.get("image_mime_type", PNG)
    return PageNode(id_=id_, text=text, extra_info=info, image=picture, image_mimetype=kind)


def _as_page(node: BaseNode) -> BaseNode:
    """The node, or the page that the metadata of a text describe, with the relationships of the text."""
    if any(own_image_fields(node)) or isinstance(node, IndexNode) or not has_page_metadata(node):
        return node
    page = _described_page(node.node_id, node.get_content(MetadataMode.NONE), node.metadata)
    return page.model_copy(update={"relationships": node.relationships or page.relationships})


def _is_base64(data: object) -> bool:
    return isinstance(data, str) and bool(data) and not data.startswith("data:")


def _mime_type(node: BaseNode) -> str:
    resource = getattr(node, "image_resource", None)
    kind: str | None = node.image_mimetype if isinstance(node, ImageNode) else resource and resource.mimetype
    return kind or PNG


def _has_file(fields: Mapping[str, Any]) -> bool:
    path = (fields.get("image_resource") or {}).get("path")
    try:
        return path is None or Path(path).is_file()
    except (OSError, ValueError):
        return False
