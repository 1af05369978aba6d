"""Found Documents as one HTML file, with pictures, boxes and heatmaps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.documents import Document

from colpali_integrations.explain.report import HtmlReport, ReportPage, render_report, report_picture
from colpali_integrations.explain.similarity import SimilarityMaps
from colpali_integrations.langchain.pages import is_page, name_of
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore
from colpali_integrations.pages.reference import page_name

__all__ = ["to_html"]


def to_html(
    documents: Sequence[Document],
    question: str = "",
    *,
    store: ColPaliVectorStore | None = None,
    limit: int = 10,
    max_side: int = 1100,
) -> HtmlReport:
    """Show what a retriever found: the pages with their scores and the places that answer.

    Scores and places are those of the Documents' metadata (`ColPaliRetriever(regions=True)`); pictures are drawn from
    the pages' references.

    Args:
        documents: what was found, the best first.
        question: what was asked.
        store: where it was found. With it the report has heatmaps, and places where the Documents have none.
        limit: how many at most.
        max_side: of a picture, in pixels.

    Returns:
        A string that notebooks show; `.save(path)` writes it.

    Raises:
        InputError: `metadata["regions"]` are none.
        QueryError: with `store`, a question that is empty.

    Example:
        >>> from colpali_integrations.langchain import ColPaliRetriever, ColPaliVectorStore
        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     pages = ColPaliRetriever(store=store, k=3).invoke("diverging palettes")
        ...     saved = to_html(pages, "diverging palettes", store=store).save("answers.html")
    """
    shown = list(documents)[:limit]
    boxes, maps, model = _places(shown, question, store)
    pages = []
    for document in shown:
        metadata, page = document.metadata, is_page(document)
        image, why = report_picture(metadata, max_side=max_side) if page else (None, "")
        source = metadata.get("source")
        pages.append(
            ReportPage(
                name=_name(document),
                score=_number(metadata.get("score")),
                relevance=_number(metadata.get("relevance")),
                image=image,
                note=why,
                regions=metadata.get("regions") or boxes.get(document.id or "", []),
                maps=maps.get(document.id or ""),
                text=document.page_content,
                source=source if isinstance(source, str) else None,
            )
        )
    return render_report(question, pages, model=model, max_side=max_side)


def _places(
    documents: Sequence[Document], question: str, store: ColPaliVectorStore | None
) -> tuple[dict[str, Any], dict[str, SimilarityMaps], str]:
    if store is None:
        return {}, {}, ""
    [query] = store.embeddings.embed_queries_multi_vector([question])
    tokens = store.embeddings.model.query_tokens(question)
    ids = [document.id for document in documents if document.id]
    maps = store.store.similarity_maps(query, ids, tokens=tokens)
    return store.store.regions(query, ids, tokens=tokens), maps, store.store.model.name


def _name(document: Document) -> str:
    source, page = document.metadata.get("source"), document.metadata.get("page")
    return page_name(source, int(page)) if is_page(document) and isinstance(source, str) and page else name_of(document)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
