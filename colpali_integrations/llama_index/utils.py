"""Retrieved pages for a multimodal chat model (`image_blocks`, `page_message`) and for a person (`to_html`)."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TypeAlias

from llama_index.core.base.llms.types import ChatMessage, ImageBlock, MessageRole, TextBlock
from llama_index.core.base.response.schema import Response
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from PIL import Image

from colpali_integrations._options import checked_whole
from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.report import HtmlReport, render_report, report_picture
from colpali_integrations.llama_index._pictures import check_permitted, image_block, image_label, node_image
from colpali_integrations.llama_index._references import PageReference
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.reference import names_picture
from colpali_integrations.stores.hits import Explained, explained, marked_doubtful

__all__ = ["image_blocks", "page_message", "to_html"]

AnyNodes: TypeAlias = BaseNode | NodeWithScore | Response | Iterable[BaseNode | NodeWithScore]


@keep_pdfs_open()
def image_blocks(
    nodes: AnyNodes,
    *,
    dpi: float | None = None,
    detail: str | None = None,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> list[ImageBlock]:
    """The pictures of nodes for a `ChatMessage`.

    A block contains the node's embedded picture, or the drawn page, or a URL, which the chat model's provider fetches.

    Args:
        nodes: one or more nodes, with or without score, that have an image or `source` and `page` in their metadata; or
            the response of a query engine.
        dpi: draw PDF pages at this resolution instead of the reference's; fewer pixels cost fewer tokens.
        detail: level of detail ("low", "high"), for chat models that have such levels.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`: show files in these folders alone.

    Returns:
        One block per node, in order.

    Raises:
        InputError: a node has neither image nor page, or the page's file is missing, has changed or may not be shown.
        PdfError: a page cannot be drawn.
        ImageError: an image cannot be read.

    Example:
        >>> from colpali_integrations.llama_index import PdfPageReader
        >>> nodes = PdfPageReader().load_data("report.pdf", pages=[1])  # or a retriever's nodes
        >>> message = ChatMessage(role="user", blocks=[TextBlock(text="What is shown?"), *image_blocks(nodes)])
        >>> [block.block_type for block in message.blocks]
        ['text', 'image']
    """
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    block = partial(image_block, access=access, dpi=dpi, detail=detail)
    return [block(result.node) for result in _results(nodes)]


@keep_pdfs_open()
def page_message(
    question: str,
    nodes: AnyNodes,
    *,
    dpi: float | None = None,
    detail: str | None = None,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> ChatMessage:
    """A user's message with a question and the pages to answer it from, each under its name for citations.

    Args:
        question: the question.
        nodes: as for `image_blocks`.
        dpi: as for `image_blocks`.
        detail: as for `image_blocks`.
        password: as for `image_blocks`.
        max_pixels: as for `image_blocks`.
        image_formats: as for `image_blocks`.
        roots: as for `image_blocks`.

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
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    block = partial(image_block, access=access, dpi=dpi, detail=detail)
    message = ChatMessage(role=MessageRole.USER, blocks=[TextBlock(text=question)])
    for result in _results(nodes):
        picture = block(result.node)
        message.blocks += [TextBlock(text=image_label(result)), picture]
    return message


@keep_pdfs_open()
def to_html(
    nodes: AnyNodes,
    question: str = "",
    *,
    store: ColPaliVectorStore | None = None,
    limit: int = 10,
    max_side: int = 1100,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> HtmlReport:
    """Show the results of a retriever or a query engine: pages, scores and the regions that answer.

    Regions are those of the nodes' metadata (`ColPaliRetriever(regions=True)`); pictures are the nodes' own. A picture
    behind a URL is not fetched.

    Args:
        nodes: nodes, the best first, or the response of a query engine.
        question: the question.
        store: the store of the nodes, for heatmaps and for the regions of nodes that have none.
        limit: number of nodes at most.
        max_side: longest side of a picture, in pixels.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `image_blocks`.

    Returns:
        A string that notebooks show; `.save(path)` writes it.

    Raises:
        InputError: `metadata["regions"]` of a node are no regions.
        QueryError: the question is empty, and `store` is given.
        ConfigurationError: limit, max_side, roots or a limit of images has an invalid value.

    Example:
        >>> from colpali_integrations.llama_index import ColPaliRetriever, ColPaliVectorStore
        >>> store = ColPaliVectorStore(path="my-index")
        >>> nodes = ColPaliRetriever(store, similarity_top_k=3).retrieve("diverging palettes")
        >>> path = to_html(nodes, "diverging palettes", store=store).save("answers.html")
        >>> store.close()
    """
    results = _results(nodes)[: checked_whole(limit, "limit")]
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    found = Explained()
    if store is not None:
        assert store.embed_model is not None  # the store's constructor sets it
        ids = [result.node.node_id for result in results]
        found = explained(store.client, store.embed_model.model, question, ids)
    pages = [
        found.page(
            result.node.node_id,
            result.node.metadata,
            _picture(result.node, max_side, access),
            name=image_label(result),
            text=result.node.get_content(MetadataMode.NONE),
            score=result.score,
        )
        for result in results
    ]
    doubtful = marked_doubtful(result.node.metadata for result in results)
    return render_report(question, pages, model=found.model, max_side=max_side, doubtful=doubtful)


def _results(nodes: AnyNodes) -> list[NodeWithScore]:
    if isinstance(nodes, Response):
        nodes = nodes.source_nodes
    several = [nodes] if isinstance(nodes, (BaseNode, NodeWithScore)) else nodes
    return [node if isinstance(node, NodeWithScore) else NodeWithScore(node=node) for node in several]


def _picture(node: BaseNode, max_side: int, access: PageAccess) -> tuple[Image.Image | None, str]:
    """A node's picture and "", or None and the reason why there is none; the reason is "" for a text."""
    shows = names_picture(node.metadata)
    try:
        image = node_image(node)
        if image is None:
            return report_picture(node.metadata, access, max_side=max_side) if shows else (None, "")
        check_permitted(image, access)
        if isinstance(image, PageReference):
            whole = image.completed(access).metadata
            return report_picture({**node.metadata, **whole}, access, max_side=max_side)
        return load_image(image, **access.limits.options), ""
    except ColPaliError as error:
        return None, str(error)
