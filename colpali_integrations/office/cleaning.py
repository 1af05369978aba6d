"""A document of any format without what leads out of it."""

from __future__ import annotations

from typing import NamedTuple

from colpali_integrations._kinds import kind_of
from colpali_integrations.errors import OfficeError
from colpali_integrations.office.formats import HTML, Format, format_of
from colpali_integrations.office.notes import slide_notes
from colpali_integrations.office.odf import cleaned_odf
from colpali_integrations.office.ooxml import cleaned_ooxml
from colpali_integrations.office.rtf import cleaned_rtf
from colpali_integrations.office.web_pages import cleaned_html

__all__ = ["Cleaned", "cleaned"]

_BEGINNING = 1000  # bytes by which a file of another kind is named


class Cleaned(NamedTuple):
    """A document that LibreOffice may open.

    Attributes:
        content: of its file.
        format: by its content.
        notes: of each slide that is shown; empty where they are unknown.
    """

    content: bytes
    format: Format
    notes: list[str]


def cleaned(content: bytes, suffix: str) -> Cleaned:
    """Find a document's format, and take out what leads out of it.

    The binary formats of old (DOC, XLS, PPT) stay as they are: LibreOffice's settings and its confinement are all that
    keeps it from other files then.

    Args:
        content: of the file.
        suffix: of its name in lower case.

    Raises:
        OfficeError: it is of no known format, is damaged or encrypted, or is beyond the limits.
    """
    format_ = format_of(content, suffix)
    if format_ is None:
        raise OfficeError(_refusal(content, suffix))
    kind = format_.suffix
    if kind in (".docx", ".xlsx", ".pptx"):
        content = cleaned_ooxml(content, kind)
    elif kind in (".odt", ".ods", ".odp"):
        content = cleaned_odf(content)
    elif kind == ".rtf":
        content = cleaned_rtf(content)
    elif kind in HTML:
        content = cleaned_html(content)
    return Cleaned(content, format_, slide_notes(content, kind))


def _refusal(content: bytes, suffix: str) -> str:
    kind = kind_of(content[:_BEGINNING])
    if kind is not None and kind.suffix:
        return f"is {kind.name} under another name; rename it to end in {kind.suffix}"
    return f"is no {suffix[1:].upper()} file, or is damaged or cut off" if suffix else "is no Office file"
