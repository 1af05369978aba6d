"""The names of pages and documents as agents see them: on one line, and short whatever their files are called."""

from __future__ import annotations

import re
from pathlib import PurePath

from colpali_integrations._text import printable
from colpali_integrations.pages.metadata import page_number
from colpali_integrations.stores import Entry

__all__ = ["caption", "document_name", "entry_caption", "name_of"]

_LONGEST, _END = 300, 100  # characters of a name, and of its end, which tells most


def caption(name: str) -> str:
    """A name on one line; a long one without its middle.

    Args:
        name: of a document or a page.

    Example:
        >>> caption("report.pdf, page 7"), len(caption("a" * 5000 + ".pdf, page 7"))
        ('report.pdf, page 7', 300)
    """
    text = printable(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - _END - 1]}…{text[-_END:]}"


def entry_caption(entry: Entry) -> str:
    """The document and the page of an entry, with the number of its pages.

    >>> page = {"source": "/data/tides.pdf", "page": 2, "page_count": 9}
    >>> entry_caption(Entry(id="a", metadata=page))
    'tides.pdf, page 2 of 9'
    """
    if entry.page is None:
        return caption(entry.name)
    count = page_number(entry.metadata, "page_count")
    return f"{caption(name_of(entry))}, page {entry.page}{f' of {count}' if count else ''}"


def name_of(entry: Entry) -> str:
    """The name of an entry's document: its file's name, or the last part of its source or id.

    >>> name_of(Entry(id="a", metadata={"source": "/data/tides.pdf"}, document_id="/data/tides.pdf"))
    'tides.pdf'
    """
    name = entry.metadata.get("file_name")
    return name if isinstance(name, str) and name else document_name(entry.source or entry.document_id or entry.id)


def document_name(location: str) -> str:
    """The last part of a path, URL or document's id.

    >>> document_name("/data/tides.pdf")
    'tides.pdf'
    """
    return PurePath(re.sub("#[0-9a-f]{16}$", "", location)).name or location  # see `pages.identity.document_id`
