"""Office files as PDFs: cleaned of references to other files, and converted by LibreOffice within limits."""
