"""Found pages for a multimodal chat model (`image_blocks`, `page_message`) and for readers (`to_html`)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from PIL import Image

from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.llama_index._images import PageReference, image_block, image_label, node_image
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.pages.images import load_image

__all__ = ["image_blocks", "page_message", "to_html"]

AnyNode: TypeAlias = "BaseNode | NodeWithScore"


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
    given = [nodes] if isinstance(nodes, (BaseNode, NodeWithScore)) else nodes
    return [image_block(_node(one), dpi=dpi, detail=detail) for one in given]


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


def to_html(
    nodes: Sequence[NodeWithScore | BaseNode],
    question: str = "",
    *,
    store: ColPaliVectorStore | None = None,
    limit: int = 10,
    max_side: int = 1100,
) -> HtmlReport:
    """Show what a retriever or a query engine (`response.source_nodes`) found: pages, scores, the places that answer.

    Places are those of the nodes' metadata (`ColPaliRetriever(regions=True)`); pictures are the nodes' own. A picture
    behind a URL is not fetched.

    Args:
        nodes: what was found, the best first.
        question: what was asked.
        store: where it was found. With it the report has heatmaps, and places where the nodes have none.
        limit: how many at most.
        max_side: of a picture, in pixels.

    Returns:
        A string that notebooks show; `.save(path)` writes it.

    Raises:
        InputError: `metadata["regions"]` are none.
        QueryError: with `store`, a question that is empty.

    Example:
        >>> from colpali_integrations.llama_index import ColPaliRetriever, ColPaliVectorStore
        >>> store = ColPaliVectorStore(path="my-index")
        >>> nodes = ColPaliRetriever(store, similarity_top_k=3).retrieve("diverging palettes")
        >>> path = to_html(nodes, "diverging palettes", store=store).save("answers.html")
        >>> store.close()
    """
    shown = [one if isinstance(one, NodeWithScore) else NodeWithScore(node=one) for one in nodes][:limit]
    boxes, maps, model = _places(shown, question, store)
    pages = []
    for found in shown:
        node = found.node
        image, why = _picture(node, max_side)
        source = node.metadata.get("source")
        pages.append(
            ReportPage(
                name=image_label(node),
                score=found.score,
                image=image,
                note=why,
                regions=node.metadata.get("regions") or boxes.get(node.node_id, []),
                maps=maps.get(node.node_id),
                text=node.get_content(MetadataMode.NONE),
                source=source if isinstance(source, str) else None,
            )
        )
    return render_report(question, pages, model=model, max_side=max_side)


def _places(
    found: Sequence[NodeWithScore], question: str, store: ColPaliVectorStore | None
) -> tuple[dict[str, Any], dict[str, SimilarityMaps], str]:
    if store is None:
        return {}, {}, ""
    encoder = store.embed_model
    assert encoder is not None  # since the store was made
    query = encoder.get_query_multi_vector(question)
    tokens = encoder.model.query_tokens(question)
    ids = [one.node.node_id for one in found]
    maps = store.client.similarity_maps(query, ids, tokens=tokens)
    return store.client.regions(query, ids, tokens=tokens), maps, store.client.model.name


def _picture(node: BaseNode, max_side: int) -> tuple[Image.Image | None, str]:
    """A node's picture and "", or None and why; "" for a text, which has none."""
    try:
        image = node_image(node)
        if image is None:
            return None, ""
        if isinstance(image, PageReference):
            return report_picture({**node.metadata, **image.metadata}, max_side=max_side)
        return load_image(image), ""
    except ColPaliError as error:
        return None, str(error)


def _node(node: AnyNode) -> BaseNode:
    return node.node if isinstance(node, NodeWithScore) else node
