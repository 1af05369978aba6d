"""Pages as pictures: images, PDFs, and references from which a page is drawn again."""

from colpali_integrations._public import publish
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import PdfPage, pdf_page_count, pdf_pages

__all__ = ["PdfPage", "load_image", "pdf_page_count", "pdf_pages"]

publish(globals())
