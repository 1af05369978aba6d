"""What belongs to the text of a page but is not printed on it: the notes of a slide, and the name of a sheet."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pypdfium2

from colpali_integrations.errors import PdfError
from colpali_integrations.office.cleaning import Cleaned

__all__ = ["page_texts"]

_LONGEST = 20_000  # characters per page


def page_texts(path: Path, document: Cleaned) -> dict[str, str]:
    """The further text of each page that has any, by its number.

    Args:
        path: of the PDF.
        document: that it was made of.

    Raises:
        PdfError: LibreOffice has written no PDF.
    """
    try:
        pdf = pypdfium2.PdfDocument(path)
    except pypdfium2.PdfiumError as error:
        raise PdfError(f"cannot be converted by LibreOffice: the result is no PDF ({error})") from error
    try:
        count = len(pdf)
        texts = _sheets(pdf, count) if document.format.program == "calc" else document.notes
    finally:
        pdf.close()
    if len(texts) != count:  # such as slides that LibreOffice leaves out for another reason
        return {}
    return {str(number): text[:_LONGEST] for number, text in enumerate(texts, 1) if text}


def _sheets(pdf: pypdfium2.PdfDocument, count: int) -> list[str]:
    """The name of the sheet that each page shows: LibreOffice marks the first page of each."""
    starts: list[tuple[int, str]] = []
    try:
        for mark in pdf.get_toc(max_depth=1):
            page = mark.get_dest().get_index() if mark.get_dest() is not None else None
            if page is not None and (not starts or page > starts[-1][0]):
                starts.append((page, mark.get_title()))
    except (pypdfium2.PdfiumError, ValueError):
        return []
    names = [""] * count
    for (page, title), (end, _) in pairwise([*starts, (count, "")]):
        names[page:end] = [title] * (end - page)
    return names
