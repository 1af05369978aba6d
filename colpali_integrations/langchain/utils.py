"""Presentation of results: `image_blocks` for chat models, `to_html` for readers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

from langchain_core.documents import Document
from langchain_core.messages.content import ContentBlock, create_image_block, create_text_block

from colpali_integrations._options import checked_whole
from colpali_integrations.explain.report import HtmlReport, render_report, report_picture
from colpali_integrations.langchain._documents import caption_of, checked_documents, has_picture, name_of
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.kept import keep_pdfs_open
from colpali_integrations.pages.reference import draw_page, encode_base64
from colpali_integrations.stores.hits import Explained, explained, marked_doubtful

__all__ = ["image_blocks", "to_html"]


@keep_pdfs_open()
def image_blocks(
    documents: Iterable[Document],
    *,
    dpi: float | None = None,
    captions: bool = False,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> list[ContentBlock]:
    """Make the image blocks of a chat message from the results of a retriever.

    Pages are drawn from their file, or taken from `image_base64` in their metadata. A file that has changed since its
    page was indexed is refused, because the picture would show another page. Drawing takes some tens of milliseconds
    per page; in a coroutine, call `await asyncio.to_thread(image_blocks, documents)`.

    Args:
        documents: pages, such as `PdfPageLoader` makes.
        dpi: draw PDF pages at this resolution instead of the one they were loaded with.
        captions: put a text block with the page's name ("report.pdf, page 7") before each image, for citations; of a
            picture without a page its source or id, or "image 2" by its position.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`: show files in these folders alone.

    Returns:
        One block `{"type": "image", "base64": ..., "mime_type": "image/png"}` per document, in order.

    Raises:
        InputError: a document refers to no page, or its file is missing, has changed or may not be shown.
        PdfError: a PDF cannot be read.
        ImageError: an image cannot be read.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> from colpali_integrations.langchain import PdfPageLoader
        >>> pages = PdfPageLoader("report.pdf", pages=[1]).load()  # or the result of a retriever
        >>> question = {"type": "text", "text": "Which function makes diverging palettes?"}
        >>> message = HumanMessage(content_blocks=[question, *image_blocks(pages, captions=True)])
        >>> [block["type"] for block in message.content_blocks], message.content_blocks[1]["text"]
        (['text', 'text', 'image'], 'report.pdf, page 1')
    """
    blocks: list[ContentBlock] = []
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    for number, document in enumerate(checked_documents(documents), 1):
        image = draw_page(document.metadata, access, dpi=dpi)
        if captions:
            blocks.append(create_text_block(caption_of(document, number)))
        blocks.append(create_image_block(base64=encode_base64(image), mime_type="image/png"))
    return blocks


@keep_pdfs_open()
def to_html(
    documents: Sequence[Document],
    question: str = "",
    *,
    vectorstore: ColPaliVectorStore | None = None,
    limit: int = 10,
    max_side: int = 1100,
    password: str | None = None,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> HtmlReport:
    """Make a report of a retriever's results: the pages with their scores and matching regions.

    Scores and regions come from the Documents' metadata. Pictures are drawn from the pages' files; for a file that is
    missing or has changed, the report shows the reason instead of the picture.

    Args:
        documents: the results, the best first.
        question: the question.
        vectorstore: the store of the results. It adds heatmaps, and regions for Documents without them.
        limit: maximum number of Documents.
        max_side: longest side of a picture, in pixels.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `image_blocks`.

    Returns:
        A string that notebooks display; `.save(path)` writes it to a file.

    Raises:
        InputError: `metadata["regions"]` do not have the form of a retriever's.
        QueryError: the question is empty, and `vectorstore` is given.
        ConfigurationError: limit, max_side, roots or a limit of images has an invalid value.

    Example:
        >>> from colpali_integrations.langchain import ColPaliVectorStore
        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     pages = store.as_retriever().invoke("diverging palettes")
        ...     saved = to_html(pages, "diverging palettes", vectorstore=store).save("answers.html")
    """
    shown = checked_documents(documents)[: checked_whole(limit, "limit")]
    found = Explained()
    if vectorstore is not None:
        ids = [document.id for document in shown if document.id]
        found = explained(vectorstore.store, vectorstore.model, question, ids)
    access = PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots)
    draw = partial(report_picture, access=access, max_side=max_side)
    pages = [
        found.page(
            document.id or "",
            document.metadata,
            draw(document.metadata) if has_picture(document) else (None, ""),
            name=name_of(document),
            text=document.page_content,
            score=_number(document.metadata.get("score")),
            relevance=_number(document.metadata.get("relevance_score")),
        )
        for document in shown
    ]
    doubtful = marked_doubtful(document.metadata for document in shown)
    return render_report(question, pages, model=found.model, max_side=max_side, doubtful=doubtful)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
