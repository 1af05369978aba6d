"""Found pages -> what a multimodal chat model reads."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, ImageNode, NodeWithScore, QueryBundle

from colpali_integrations.llama_index.pages import PageReference
from colpali_integrations.llama_index.sources import image_label, node_image
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.reference import encode_png, page_image
from colpali_integrations.runtime.threads import offload

__all__ = ["PageImagePostprocessor", "image_blocks", "page_message"]

AnyNode: TypeAlias = "BaseNode | NodeWithScore"

_PNG = "image/png"
# What every provider of chat models takes; other formats are sent as PNG.
_SENT_AS_THEY_ARE = {".png": _PNG, ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}


def image_blocks(
    nodes: Iterable[AnyNode] | AnyNode, *, dpi: float | None = None, detail: str | None = None
) -> list[ImageBlock]:
    """The pictures of nodes for a `ChatMessage`.

    A node that carries its picture hands it over; a page that is referred to is drawn; a URL stays one, and the chat
    model's provider fetches it.

    Args:
        nodes: nodes, with or without score, with an image or with `source` and `page` in their metadata.
        dpi: draw PDF pages at this resolution instead of the reference's; fewer pixels cost fewer tokens.
        detail: for chat models that know levels of detail ("low", "high").

    Returns:
        One block a node, in order.

    Raises:
        InputError: a node without image and without a page, or a page whose file is not there.
        PdfError: a page that cannot be drawn.
        ImageError: an image that cannot be read.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> nodes = PdfPageReader().load_data("report.pdf", pages=[1])  # or what a retriever found
        >>> message = ChatMessage(role="user", blocks=[TextBlock(text="What is shown?"), *image_blocks(nodes)])
        >>> [block.block_type for block in message.blocks]
        ['text', 'image']
    """
    several = [nodes] if isinstance(nodes, (BaseNode, NodeWithScore)) else nodes
    return [_block(_node(node), dpi=dpi, detail=detail) for node in several]


def page_message(
    question: str, nodes: Iterable[AnyNode] | AnyNode, *, dpi: float | None = None, detail: str | None = None
) -> ChatMessage:
    """A user's message with a question and the pages to answer it from, each under its name, so that it can be cited.

    Args:
        question: what is asked.
        nodes: as for `image_blocks`.
        dpi: as for `image_blocks`.
        detail: as for `image_blocks`.

    Returns:
        The question, then for each page its name as text ("report.pdf, page 3") and its picture.

    Raises:
        ColPaliError: as `image_blocks`.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> nodes = PdfPageReader().load_data("report.pdf", pages=[1])
        >>> message = page_message("Which function makes diverging palettes?", nodes)  # llm.chat([message])
        >>> [block.text for block in message.blocks if block.block_type == "text"]
        ['Which function makes diverging palettes?', 'report.pdf, page 1']
    """
    message = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=question)])
    for node in [nodes] if isinstance(nodes, (BaseNode, NodeWithScore)) else nodes:
        message.blocks += [TextBlock(text=image_label(node)), *image_blocks(node, dpi=dpi, detail=detail)]
    return message


class PageImagePostprocessor(BaseNodePostprocessor):
    """Puts the picture into each page that a retriever found, for query engines that read images from nodes.

    An index holds references to pages; a multimodal query engine wants pictures. This draws those few that were found.
    Other nodes pass unchanged, and the nodes in the index stay as they are. What `ColPaliRetriever` and
    `ColPaliVectorStore` find draws itself and needs this only for another resolution.

    Attributes:
        dpi: draw PDF pages at this resolution instead of the reference's.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> [node] = PdfPageReader().load_data("report.pdf", pages=[1])
        >>> [found] = PageImagePostprocessor(dpi=50).postprocess_nodes([NodeWithScore(node=node, score=1.0)])
        >>> found.node.image[:8], node.image is None  # base64 of a PNG; the node in the index stays as it was
        ('iVBORw0K', True)
    """

    dpi: float | None = Field(default=None, gt=0, description="Resolution, instead of the reference's.")

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "PageImagePostprocessor"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return [self._with_image(node) for node in nodes]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await offload(lambda: self._postprocess_nodes(nodes, query_bundle), "pages")

    def _with_image(self, found: NodeWithScore) -> NodeWithScore:
        reference = node_image(found.node) if isinstance(found.node, ImageNode) else None
        if not isinstance(reference, PageReference):
            return found
        drawn = encode_png(reference.draw(dpi=self.dpi))
        # Without image_path: ImageNode.get_content_blocks refuses one that is not a file.
        update = {"image": base64.b64encode(drawn).decode("ascii"), "image_path": None, "image_mimetype": _PNG}
        return NodeWithScore(node=found.node.model_copy(update=update), score=found.score)


def _node(node: AnyNode) -> BaseNode:
    return node.node if isinstance(node, NodeWithScore) else node


def _block(node: BaseNode, *, dpi: float | None, detail: str | None) -> ImageBlock:
    source = node_image(node)
    if isinstance(source, bytes):
        return ImageBlock(image=source, image_mimetype=getattr(node, "image_mimetype", None), detail=detail)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return ImageBlock(url=source, detail=detail)
    if isinstance(source, PageReference):
        picture = source.draw(dpi=dpi)
    elif source is None:
        picture = page_image(node.metadata, dpi=dpi)
    elif isinstance(source, (str, os.PathLike)) and (kind := _sent_as_it_is(source)):
        return ImageBlock(path=Path(source), image_mimetype=kind, detail=detail)
    else:
        picture = load_image(source)
    return ImageBlock(image=encode_png(picture), image_mimetype=_PNG, detail=detail)


def _sent_as_it_is(path: str | os.PathLike[str]) -> str | None:
    """The MIME type of an image file that a chat model takes unchanged."""
    text = os.fspath(path)
    if text.startswith(("data:", "file:")):
        return None
    return _SENT_AS_THEY_ARE.get(Path(text).suffix.lower())
