"""Pages as LlamaIndex nodes, their pictures, and nodes as the entries of a store.

The command line and LangChain read the same entries.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import mimetypes
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import BaseContentBlock, ImageBlock
from llama_index.core.bridge.pydantic import BaseModel, PrivateAttr
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
    NodeWithScore,
    ObjectType,
    RelatedNodeInfo,
    TextNode,
)
from PIL import Image

from colpali_integrations._text import parse_json
from colpali_integrations.errors import ColPaliError, ImageError, InputError, StoreError
from colpali_integrations.llama_index._blocks import kept_together
from colpali_integrations.pages._local_urls import read_file_url
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.files import open_file
from colpali_integrations.pages.formats import ImageLimits, formats_of
from colpali_integrations.pages.identity import file_digest, page_hash, page_key, page_name, real_path, text_key
from colpali_integrations.pages.images import ImageSource, image_name, is_one_image, load_image
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.metadata import describes_page, page_number, picture_key, storage_fault
from colpali_integrations.pages.paged import is_paged
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import draw_page, encode_png, has_content_hash, page_file
from colpali_integrations.stores import Entry, Item
from colpali_integrations.stores.limits import check_depth

__all__ = ["PageNode", "PageReference", "entry_node", "node_item", "own_source", "page_node", "picture_metadata"]

ImageInput: TypeAlias = "ImageSource | BaseNode | NodeWithScore | ImageBlock"

_PNG = "image/png"
_LIMITS = ImageLimits()
# Formats that every provider of chat models accepts; other pictures are sent as PNG.
_SENT_UNCHANGED = {"PNG": _PNG, "JPEG": "image/jpeg", "WEBP": "image/webp"}
_REFERENCE = re.compile(
    r"(?P<source>.+)#page=(?P<page>\d+)(?:&dpi=(?P<dpi>\d+(?:\.\d+)?))?(?:&sha256=(?P<sha256>[0-9a-f]{16}))?(?:&[^#]*)?",
    re.DOTALL,
)


class PageReference:
    """A page that is drawn when its `image` is first read; the picture stays in memory with this object.

    The string of a page of a PDF is "report.pdf#page=3&dpi=150&sha256=1f0c...": the fragment that PDF viewers
    understand (RFC 8118, section 3), and 16 digits of the page's content hash. If the file has changed since, drawing
    the page raises an error instead of returning the wrong picture.

    Args:
        metadata: `source`, `page` and perhaps `file_path`, `dpi` and `content_hash`; see `pages.document`.
        known: draw only a file that the metadata know by its `content_hash`: they may be those of a store.

    Example:
        >>> PageReference.parse("reports/2024.pdf#page=7&dpi=100").name
        '2024.pdf, page 7'
        >>> PageReference.parse("scan.png") is None
        True
    """

    def __init__(self, metadata: Mapping[str, Any], *, known: bool = False) -> None:
        self.metadata, self._known = metadata, known

    @classmethod
    def parse(cls, text: str) -> PageReference | None:
        """The page that a string refers to; None for any other string, such as the path of an existing file."""
        match = _REFERENCE.fullmatch(text)
        if match is None or text.startswith("data:") or Path(text).is_file():
            return None
        if text.startswith(("http://", "https://")) and match["sha256"] is None:
            return None  # with a content hash it is the source of a page whose metadata have its file
        optional = {"dpi": match["dpi"] and float(match["dpi"]), "content_hash": match["sha256"]}
        metadata = {"source": match["source"], "page": int(match["page"])}
        return cls({**metadata, **{name: value for name, value in optional.items() if value is not None}})

    @cached_property
    def image(self) -> Image.Image:
        """The picture; raises the errors of `draw`."""
        return self.draw()

    def draw(self, access: PageAccess = DEFAULT_ACCESS, *, dpi: float | None = None) -> Image.Image:
        """Draw the picture, at the reference's resolution or at `dpi`.

        Args:
            access: how the file is opened.
            dpi: as for `page_image`.

        Raises:
            InputError: the file is missing, has changed since it was indexed, or is outside of the permitted folders.
            PdfError: the file cannot be read, or has no such page.
        """
        return draw_page(self.metadata, access, dpi=dpi, known=self._known)

    def encode(self, access: PageAccess = DEFAULT_ACCESS, *, dpi: float | None = None) -> tuple[bytes, str]:
        """Content and MIME type of the picture for a chat model: an image file unchanged, or a PNG.

        Args:
            access: as for `draw`.
            dpi: as for `draw`.

        Raises:
            InputError: as `draw`.
        """
        if "image_base64" not in self.metadata:
            path, number = page_file(self.metadata, access, known=self._known)
            if number == 1 and (kind := _unchanged_type(path)):
                return Path(path).read_bytes(), kind
        return encode_png(self.draw(access, dpi=dpi)), _PNG

    @property
    def key(self) -> str:
        """Equal for pages of equal vectors; see `pages.identity.page_key`."""
        whole = self.completed().metadata
        return page_key(whole["content_hash"], whole.get("dpi"))

    def completed(self, access: PageAccess = DEFAULT_ACCESS) -> PageReference:
        """The reference with the content hash of its file, the file's real path and the resolution of a PDF.

        Raises:
            InputError: the file cannot be read, has changed, or is outside of the permitted folders.
        """
        if self.is_complete:
            return self
        path, number = page_file(self.metadata, access, known=self._known)
        found: dict[str, Any] = {"file_path": real_path(path), "content_hash": page_hash(file_digest(path), number)}
        if is_paged(path):
            found["dpi"] = self.metadata.get("dpi") or DEFAULT_DPI
        return PageReference({**self.metadata, **found})

    @property
    def is_complete(self) -> bool:
        """Whether the reference has the whole content hash of its page."""
        content_hash = self.metadata.get("content_hash")
        return isinstance(content_hash, str) and len(content_hash) == 64

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
        if isinstance(metadata.get("source"), str) and isinstance(metadata.get("page"), int):
            return page_name(metadata["source"], metadata["page"])
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
    return any(_image_fields(node))


def node_image(node: BaseNode | ImageBlock) -> ImageSource | None:
    """The image that a node or block carries or refers to, or None.

    An embedded image comes before a path, and a path before a URL, as in `ImageNode.resolve_image`. A URL is not
    fetched, so that the model's own limits apply to it. A page that the node's metadata describe is a
    `PageReference` with its content hash. The metadata of a page suffice: a LangChain Document of a page is a page.
    """
    embedded, path, url = _image_fields(node)
    if embedded:
        return _decoded(embedded)
    location = str(path or url or "")
    if location.lower().startswith("file:"):
        path = location = str(read_file_url(location))
    if path:
        return _referenced(location, getattr(node, "metadata", {})) or location
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
    if access.folders is not None and (reference := _file_reference(source)) is not None:
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
    if reference := _file_reference(image):
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
    if isinstance(source, str) and (kind := _unchanged_type(source)):
        return ImageBlock(path=Path(source), image_mimetype=kind, detail=detail)
    if source is None or isinstance(source, PageReference):
        reference = source or PageReference(node.metadata, known=True)
        content, kind = reference.encode(access, dpi=dpi)
    else:
        content, kind = encode_png(load_image(source, **access.limits.options)), _PNG
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
        return None
    if (reference := _file_reference(source)) is not None:
        return {**node.metadata, **reference.completed(access).metadata}
    if isinstance(source, str) and not source.startswith("data:"):
        raise InputError(f"the picture of {image_label(node)} is at {source}, which is not fetched")
    kind = getattr(node, "image_mimetype", None)
    content = source if isinstance(source, bytes) else encode_png(load_image(source, **access.limits.options))
    encoded = base64.b64encode(content).decode("ascii")
    return {"image_base64": encoded, "image_mime_type": (kind if isinstance(source, bytes) else None) or _PNG}


def _image_fields(node: BaseNode | ImageBlock) -> tuple[Any, Any, Any]:
    """The embedded picture, the picture's path and its URL."""
    if isinstance(node, ImageBlock):
        return node.image, node.path, node.url
    if any(fields := _own_image_fields(node)) or not _describes_page(node):
        return fields
    encoded = node.metadata.get("image_base64")
    return (encoded, None, None) if encoded else (None, str(PageReference(node.metadata)), None)


def _own_image_fields(node: BaseNode) -> tuple[Any, Any, Any]:
    if isinstance(node, ImageNode):
        return node.image, node.image_path, node.image_url
    if isinstance(node, Node) and (resource := node.image_resource) is not None:
        return resource.data, resource.path, resource.url
    return None, None, None


def _describes_page(node: BaseNode) -> bool:
    """Whether a text, such as a Document of LangChain, has the metadata of a page."""
    has_keys = "text_hash" in node.metadata or "image_base64" in node.metadata
    return has_keys and describes_page(node.metadata, node.get_content(MetadataMode.NONE))


def _file_reference(image: ImageSource | None) -> PageReference | None:
    """The page in a file that a node's image is; None for content and URLs."""
    if isinstance(image, str) and not image.startswith(("data:", "http://", "https://")):
        return PageReference({"source": image, "page": 1})
    return image if isinstance(image, PageReference) else None


def _referenced(path: str, metadata: Mapping[str, Any]) -> PageReference | None:
    """The page that a node's path refers to, with the node's metadata if they describe the same page."""
    parsed = PageReference.parse(path)
    page: Mapping[str, Any] = {"source": path, "page": 1} if parsed is None else parsed.metadata
    if isinstance(own_hash := metadata.get(_OWN_HASH), str):
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


def _unchanged_type(path: str) -> str | None:
    """The MIME type of an image file that every chat model accepts, by its first bytes; files of these have one page.

    None for any other file, also one that cannot be read: drawing it raises the error.
    """
    if is_paged(path):  # as in drawing
        return None
    try:
        with open_file(path) as file:
            prefix = file.read(16)
    except (OSError, ValueError):
        return None
    return _SENT_UNCHANGED.get(next(formats_of(prefix, "", _LIMITS), ""))


def _decoded(image: Any) -> ImageSource:
    """The bytes of a base64 image; data URIs and streams pass unchanged."""
    if not isinstance(image, str | bytes) or (isinstance(image, str) and image.startswith("data:")):
        return image
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"the image of a node must be base64: {error}") from error


# -- nodes and entries ----------------------------------------------------------------------------------------------

_KEY = "llama_index"
# The content hash of a node's picture, where `content_hash`, `source` or `page` are the caller's own values.
_OWN_HASH = "picture_content_hash"
_MEDIA = ("text_resource", "image_resource", "audio_resource", "video_resource")
# Metadata that neither a text embedding nor a language model needs; `source` and `page` stay for citations.
_INTERNAL = [
    *("file_path", "file_name", "document_id", "page_label", "page_count", "width", "height", "dpi"),
    *("content_hash", "text_hash", "image_hash", _OWN_HASH),
]


class PageNode(ImageNode):
    """An `ImageNode` whose picture is drawn when a multimodal model asks for it.

    LlamaIndex's stores treat it as an `ImageNode`: class name, JSON and equality are the same. `ImageNode` itself fails
    for "report.pdf#page=3", and sends a picture of unknown type as "data:None"; this class sends a PNG.

    It decodes what its reader decodes (`image_formats=`, `max_pixels=`), or the `embed_model` of the store that
    returned it. Its JSON holds neither, because files from elsewhere must not choose which decoders run.
    """

    _limits: ImageLimits = PrivateAttr(default=_LIMITS)

    __hash__ = None  # type: ignore[assignment]  # as every node's

    def as_related_node_info(self) -> RelatedNodeInfo:
        """A reference to this node.

        It is of type text: a plain `VectorStoreIndex` replaces nodes of other types that the vector store returns by
        the copies in its document store, which are `ImageNode`s.
        """
        return super().as_related_node_info().model_copy(update={"node_type": ObjectType.TEXT})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._limits = (state.get("__pydantic_private__") or {}).get("_limits", _LIMITS)

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


_TYPES: dict[str, type[BaseNode]] = {
    kind.class_name(): kind for kind in (Node, TextNode, IndexNode, Document, ImageDocument, PageNode)
}


def page_node(
    content: str, metadata: Mapping[str, Any], *, node_id: str | None = None, limits: ImageLimits = _LIMITS
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
        picture = {"image": metadata["image_base64"], "image_mimetype": metadata.get("image_mime_type", _PNG)}
    elif "dpi" in info or is_paged(source) or (page_number(info, "page_count") or 1) > 1:
        picture = {"image_path": str(PageReference(info))}
    else:
        # LlamaIndex guesses the type itself, but not from "SCAN.PNG", and then sends the model "data:None;base64,...".
        picture = {"image_path": source, "image_mimetype": mimetypes.guess_type(source)[0]}
    node = PageNode(
        id_=id_,
        text=content,
        extra_info=info,
        excluded_embed_metadata_keys=["source", "page", *_INTERNAL],
        excluded_llm_metadata_keys=list(_INTERNAL),
        relationships=own_source(id_, info.get("content_hash")),
        **picture,
    )
    node._limits = limits
    return node


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
        key, reference = content_key(node, access), _file_reference(node_image(node))
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


def _drawing(node: BaseNode, reference: PageReference | None, access: PageAccess) -> Callable[[], ImageSource]:
    if reference is None:
        return lambda: node_picture(node, access)
    return lambda: reference.draw(access)


def entry_node(entry: Entry, limits: ImageLimits = _LIMITS) -> BaseNode:
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
    embedded, path, url = _image_fields(node)
    location = str(path or (url if str(url or "").lower().startswith("file:") else "") or "")
    if embedded or not location:
        return True
    if location.lower().startswith("file:"):
        location = str(read_file_url(location))
    reference = _referenced(location, metadata)
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
                added[_OWN_HASH] = reference.metadata["content_hash"]
            new = [name for name in added if name not in metadata]
            metadata |= {name: added[name] for name in new}  # behind the caller's, as the node's text has them
            fields["excluded_embed_metadata_keys"] = [*fields["excluded_embed_metadata_keys"], *new]
            fields["excluded_llm_metadata_keys"] += [name for name in new if name in _INTERNAL]
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
    if entry.is_page and ((entry.source is not None and entry.page is not None) or "image_base64" in metadata):
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
    picture, kind = metadata["image_base64"], metadata.get("image_mime_type", _PNG)
    return PageNode(id_=id_, text=text, extra_info=info, image=picture, image_mimetype=kind)


def _as_page(node: BaseNode) -> BaseNode:
    """The node, or the page that the metadata of a text describe, with the relationships of the text."""
    if any(_own_image_fields(node)) or isinstance(node, IndexNode) or not _describes_page(node):
        return node
    page = _described_page(node.node_id, node.get_content(MetadataMode.NONE), node.metadata)
    return page.model_copy(update={"relationships": node.relationships or page.relationships})


def _is_base64(data: object) -> bool:
    return isinstance(data, str) and bool(data) and not data.startswith("data:")


def _mime_type(node: BaseNode) -> str:
    resource = getattr(node, "image_resource", None)
    kind: str | None = node.image_mimetype if isinstance(node, ImageNode) else resource and resource.mimetype
    return kind or _PNG


def own_source(document_id: str, content_hash: str | None) -> dict[NodeRelationship, Any]:
    """The relationship of a node to its source document, which for a page is the page itself."""
    document = RelatedNodeInfo(node_id=document_id, node_type=ObjectType.DOCUMENT, hash=content_hash)
    return {NodeRelationship.SOURCE: document}


def _has_file(fields: Mapping[str, Any]) -> bool:
    path = (fields.get("image_resource") or {}).get("path")
    try:
        return path is None or Path(path).is_file()
    except (OSError, ValueError):
        return False
