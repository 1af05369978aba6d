"""A page as a LlamaIndex node, and the one string that refers to its picture.

`ImageNode` has three places for a picture: base64, a path, a URL. A PDF page has no file of its own, so its path is
"report.pdf#page=3&dpi=150", the fragment that PDF viewers understand (RFC 8118, section 3). `ColPaliEmbedding` draws
such a page when it embeds it; a store keeps some twenty bytes instead of a megabyte.
"""

from __future__ import annotations

import mimetypes
import re
import uuid
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from llama_index.core.schema import ImageNode, NodeRelationship, ObjectType, RelatedNodeInfo
from PIL import Image

from colpali_integrations.pages.reference import is_pdf, page_image, page_name

__all__ = ["PageReference", "page_id", "page_node"]

_REFERENCE = re.compile(r"(?P<source>.+)#page=(?P<page>\d+)(?:&dpi=(?P<dpi>\d+(?:\.\d+)?))?(?:&[^#]*)?", re.DOTALL)
# What a text embedding or a language model gains nothing from; `source` and `page` stay, so that answers can cite.
_PLUMBING = ["page_count", "width", "height", "dpi", "content_hash"]


class PageReference:
    """A page of a PDF that is drawn when its `image` is looked at, and then kept as long as this object.

    Args:
        metadata: `source`, `page` and perhaps `dpi`; see `pages.reference`.

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
        """The page that a string refers to; None when it is something else, such as a file that is called so."""
        match = _REFERENCE.fullmatch(text)
        if match is None or text.startswith(("data:", "http://", "https://")) or Path(text).is_file():
            return None
        metadata: dict[str, Any] = {"source": match["source"], "page": int(match["page"])}
        if match["dpi"]:
            metadata["dpi"] = float(match["dpi"])
        return cls(metadata)

    @cached_property
    def image(self) -> Image.Image:
        """The picture.

        Raises:
            InputError: the file is not there (any more).
            PdfError: it cannot be read, or has no such page.
        """
        return self.draw()

    def draw(self, *, dpi: float | None = None) -> Image.Image:
        """The picture at another resolution than the reference's."""
        return page_image(self.metadata, dpi=dpi)

    @property
    def name(self) -> str:
        """How messages call this page."""
        return page_name(self.metadata["source"], self.metadata["page"])

    def __str__(self) -> str:
        text = f"{self.metadata['source']}#page={self.metadata['page']}"
        if "dpi" in self.metadata:
            text += f"&dpi={self.metadata['dpi']:g}"
        # LlamaIndex's hash of an ImageNode covers path and text but no metadata: this tells an upserting document
        # store that a scan was replaced under its old name.
        if "content_hash" in self.metadata:
            text += f"&sha256={self.metadata['content_hash'][:16]}"
        return text


def page_id(source: str, page: int) -> str:
    """A UUID that stays the same for the same path and page number, so that reading again replaces.

    >>> page_id("report.pdf", 1) == page_id("report.pdf", 1) != page_id("report.pdf", 2)
    True
    """
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{source}#page={page}"))


def page_node(content: str, metadata: Mapping[str, Any], *, node_id: str | None = None) -> ImageNode:
    """The node of a page as `pages.reference.read_pages` gives it.

    The page is its own source document (`ref_doc_id`), as with LlamaIndex's own PDF readers: that is what an
    upserting `IngestionPipeline` and `delete_ref_doc` look at.

    Args:
        content: the text layer, or the page's name.
        metadata: see `pages.reference`; base64 in it becomes the node's `image`.
        node_id: instead of `page_id(source, page)`.

    Returns:
        The node; its `image_path` refers to the page, from which it is drawn when somebody needs the picture.

    Raises:
        KeyError: metadata without `source` or `page`.

    Example:
        >>> node = page_node("Low tide at six", {"source": "harbour.pdf", "page": 3, "dpi": 150.0})
        >>> node.image_path, node.ref_doc_id == node.node_id
        ('harbour.pdf#page=3&dpi=150', True)
    """
    kept = {key: value for key, value in metadata.items() if key not in ("image_base64", "image_mime_type")}
    source, page = str(kept["source"]), int(kept["page"])
    identity = node_id or page_id(source, page)
    if "image_base64" in metadata:
        picture = {"image": metadata["image_base64"], "image_mimetype": metadata.get("image_mime_type", "image/png")}
    elif is_pdf(source):
        picture = {"image_path": str(PageReference(kept))}
    else:
        # LlamaIndex guesses the type itself, but not from "SCAN.PNG", and then sends the model "data:None;base64,...".
        picture = {"image_path": source, "image_mimetype": mimetypes.guess_type(source)[0]}
    return ImageNode(
        id_=identity,
        text=content,
        metadata=kept,
        excluded_embed_metadata_keys=["source", "page", *_PLUMBING],
        excluded_llm_metadata_keys=list(_PLUMBING),
        relationships={
            NodeRelationship.SOURCE: RelatedNodeInfo(
                node_id=identity, node_type=ObjectType.DOCUMENT, hash=kept.get("content_hash")
            )
        },
        **picture,
    )
