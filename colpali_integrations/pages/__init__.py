"""Pages as pictures: images, PDFs, and metadata from which a page is drawn again."""

from colpali_integrations._public import publish
from colpali_integrations.pages.document import PagedDocument
from colpali_integrations.pages.identity import document_id
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import Pdf, PdfPage, open_pdf, pdf_page_count, pdf_pages
from colpali_integrations.pages.reference import page_image

__all__ = [
    "PagedDocument",
    "Pdf",
    "PdfPage",
    "document_id",
    "load_image",
    "open_pdf",
    "page_image",
    "pdf_page_count",
    "pdf_pages",
]

publish(globals())
