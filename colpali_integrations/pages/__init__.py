"""Pages as pictures: images, PDFs, and references from which a page is drawn again."""
