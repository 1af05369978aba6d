"""Pages as LlamaIndex nodes."""

from __future__ import annotations

import mimetypes
import uuid
from collections.abc import Mapping
from io import BytesIO
from typing import Any

from llama_index.core.base.llms.types import BaseContentBlock
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import ImageNode, ImageType, MetadataMode, NodeRelationship, ObjectType, RelatedNodeInfo

from colpali_integrations.llama_index._blocks import kept_together
from colpali_integrations.llama_index._pictures import OWN_HASH, image_block, node_image
from colpali_integrations.llama_index._references import PNG, PageReference
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.pages.formats import DEFAULT_LIMITS, ImageLimits
from colpali_integrations.pages.metadata import page_number
from colpali_integrations.pages.paged import is_paged

__all__ = ["INTERNAL_METADATA", "PageNode", "own_source", "page_node"]

# Metadata that neither a text embedding nor a language model needs; `source` and `page` stay for citations.
INTERNAL_METADATA = [
    *("file_path", "file_name", "document_id", "page_label", "page_count", "width", "height", "dpi"),
    *("content_hash", "text_hash", "image_hash", OWN_HASH),
]


class PageNode(ImageNode):
    """An `ImageNode` whose picture is drawn when a multimodal model asks for it.

    LlamaIndex's stores treat it as an `ImageNode`: class name, JSON and equality are the same. `ImageNode` itself fails
    for "report.pdf#page=3", and sends a picture of unknown type as "data:None"; this class sends a PNG.

    It decodes what its reader decodes (`image_formats=`, `max_pixels=`), or the `embed_model` of the store that
    returned it. Its JSON holds neither, because files from elsewhere must not choose which decoders run.
    """

    _limits: ImageLimits = PrivateAttr(default=DEFAULT_LIMITS)

    __hash__ = None  # type: ignore[assignment]  # as every node's

    def as_related_node_info(self) -> RelatedNodeInfo:
        """A reference to this node.

        It is of type text: a plain `VectorStoreIndex` replaces nodes of other types that the vector store returns by
        the copies in its document store, which are `ImageNode`s.
        """
        return super().as_related_node_info().model_copy(update={"node_type": ObjectType.TEXT})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._limits = (state.get("__pydantic_private__") or {}).get("_limits", DEFAULT_LIMITS)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImageNode) and self.__dict__ == other.__dict__

    def resolve_image(self) -> ImageType:
        """The picture, or its location, such that PIL can read it; a page is drawn.

        Raises:
            InputError: the page's file is missing, or has changed since it was indexed.
        """
        reference = node_image(self)
        if isinstance(reference, PageReference):
            return BytesIO(reference.encode(PageAccess(limits=self._limits))[0])
        return super().resolve_image()

    def get_content_blocks(self, metadata_mode: MetadataMode = MetadataMode.NONE) -> list[BaseContentBlock]:
        """Metadata and picture, for a chat message; query engines keep them in one prompt.

        Raises:
            InputError: the page's file is missing, or has changed since it was indexed.
        """
        block = image_block(self, PageAccess(limits=self._limits))
        return kept_together(self.get_metadata_content_blocks(metadata_mode), block)


def page_node(
    content: str, metadata: Mapping[str, Any], *, node_id: str | None = None, limits: ImageLimits = DEFAULT_LIMITS
) -> PageNode:
    """Make the node of a page.

    The page is its own source document (`ref_doc_id`), as with LlamaIndex's own PDF readers. An upserting
    `IngestionPipeline` and `delete_ref_doc` use that id.

    Args:
        content: the text layer, or the page's name.
        metadata: see `pages.document`; base64 in it becomes the node's `image`.
        node_id: instead of one derived from `document_id` (or `source`) and `page`.
        limits: size and formats of images, by which the node draws itself.

    Returns:
        The node; its `image_path` refers to the page, from which the picture is drawn on demand.

    Raises:
        KeyError: the metadata have no `source` or no `page`.

    Example:
        >>> node = page_node("Low tide at six", {"source": "harbour.pdf", "page": 3, "dpi": 150.0})
        >>> node.image_path, node.ref_doc_id == node.node_id
        ('harbour.pdf#page=3&dpi=150', True)
    """
    info = {key: value for key, value in metadata.items() if key not in ("image_base64", "image_mime_type")}
    source, page = str(info["source"]), int(info["page"])
    id_ = node_id or str(uuid.uuid5(uuid.NAMESPACE_URL, f"{info.get('document_id', source)}#page={page}"))
    if "image_base64" in metadata:
        picture = {"image": metadata["image_base64"], "image_mimetype": metadata.get("image_mime_type", PNG)}
    elif "dpi" in info or is_paged(source) or (page_number(info, "page_count") or 1) > 1:
        picture = {"image_path": str(PageReference(info))}
    else:
        # LlamaIndex guesses the type itself, but not from "SCAN.PNG", and then sends the model "data:None;base64,...".
        picture = {"image_path": source, "image_mimetype": mimetypes.guess_type(source)[0]}
    node = PageNode(
        id_=id_,
        text=content,
        extra_info=info,
        excluded_embed_metadata_keys=["source", "page", *INTERNAL_METADATA],
        excluded_llm_metadata_keys=list(INTERNAL_METADATA),
        relationships=own_source(id_, info.get("content_hash")),
        **picture,
    )
    node._limits = limits
    return node


def own_source(document_id: str, content_hash: str | None) -> dict[NodeRelationship, Any]:
    """The relationship of a node to its source document, which for a page is the page itself."""
    document = RelatedNodeInfo(node_id=document_id, node_type=ObjectType.DOCUMENT, hash=content_hash)
    return {NodeRelationship.SOURCE: document}
