"""Found pages -> image blocks for a multimodal chat model."""

from __future__ import annotations

from collections.abc import Iterable

from langchain_core.documents import Document
from langchain_core.messages.content import ContentBlock, create_image_block, create_text_block

from colpali_integrations.pages.reference import encode_base64, page_image, page_name

__all__ = ["image_blocks"]


def image_blocks(
    documents: Iterable[Document], *, dpi: float | None = None, captions: bool = False, password: str | None = None
) -> list[ContentBlock]:
    """Make the image blocks of a chat message from the pages that a retriever found.

    Pages are drawn from their reference (`source` or `file_path`, and `page`), or taken from the base64 that they
    carry. Drawing takes some tens of milliseconds a page: in a coroutine write
    `await asyncio.to_thread(image_blocks, documents)`.

    Args:
        documents: pages, such as `PdfPageLoader` makes.
        dpi: draw PDF pages at this resolution instead of the one they were loaded with.
        captions: put a text block with the page's name ("report.pdf, page 7") before each image, so that the model
            can say where it read something.
        password: for encrypted PDFs.

    Returns:
        One block `{"type": "image", "base64": ..., "mime_type": "image/png"}` a document, in order.

    Raises:
        InputError: a document refers to no page, or its file is gone.
        PdfError: a PDF cannot be read.
        ImageError: an image cannot be read.

    Example:
        >>> from langchain_core.messages import HumanMessage
        >>> from colpali_integrations.langchain import PdfPageLoader
        >>> pages = PdfPageLoader("report.pdf", pages=[1]).load()  # or what a retriever found
        >>> question = {"type": "text", "text": "Which function makes diverging palettes?"}
        >>> message = HumanMessage(content_blocks=[question, *image_blocks(pages, captions=True)])
        >>> [block["type"] for block in message.content_blocks], message.content_blocks[1]["text"]
        (['text', 'text', 'image'], 'report.pdf, page 1')
    """
    blocks: list[ContentBlock] = []
    for document in documents:
        image = page_image(document.metadata, dpi=dpi, password=password)
        if captions:
            blocks.append(create_text_block(page_name(document.metadata["source"], document.metadata["page"])))
        blocks.append(create_image_block(base64=encode_base64(image), mime_type="image/png"))
    return blocks
