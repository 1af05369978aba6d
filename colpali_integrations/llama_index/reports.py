"""Found nodes as one HTML file, with pictures, boxes and heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from PIL import Image

from colpali_integrations.errors import ColPaliError
from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.llama_index.pages import PageReference
from colpali_integrations.llama_index.sources import image_label, node_image
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.pages.images import load_image

__all__ = ["to_html"]


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
    embedding = store.embedding
    assert embedding is not None  # since the store was made
    query = embedding.get_query_multi_vectors([question])[0]
    tokens = embedding.model.query_tokens(question)
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
