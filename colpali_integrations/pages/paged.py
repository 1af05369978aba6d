"""Which documents have pages that are drawn at a resolution: PDFs, and Office files, which become PDFs."""

from __future__ import annotations

import os
from pathlib import Path

from colpali_integrations.pages.files import open_file
from colpali_integrations.pages.office import is_office

__all__ = ["is_paged", "is_pdf"]


def is_pdf(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a file is a PDF, by its suffix or by its first bytes (readers allow 1 KiB before `%PDF-`).

    Unreadable files are classified by suffix; reading them then raises the specific error.
    """
    if isinstance(source, bytes):
        return b"%PDF-" in source[:1024]
    path = Path(source)
    if path.suffix.lower() == ".pdf":
        return True
    try:
        with open_file(path) as file:
            return b"%PDF-" in file.read(1024)
    except (OSError, ValueError):  # ValueError: a null byte in the path
        return False


def is_paged(source: str | os.PathLike[str] | bytes) -> bool:
    """Whether a document is a PDF, or an Office file, which becomes one: its pages are drawn at a resolution."""
    return is_pdf(source) or is_office(source)
