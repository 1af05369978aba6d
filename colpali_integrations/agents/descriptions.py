"""What an agent is told about the tools: names, descriptions, schemas of arguments, and when to use which."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["INSTRUCTIONS", "MOST_HITS", "TOOLS", "ToolDescription"]

MOST_HITS = 20

INSTRUCTIONS = """\
An index of document pages (PDFs, scans, slides, images) that is searched by what the pages look like and say.
Ask search_pages in plain words; it returns the best pages with their pictures, so tables, charts and scans can be read.
Read further pages with read_page: as image for tables, charts, forms and scans, as text for long prose.
list_documents shows which documents there are, with the first words of their pages.
Cite a page as document and page number. A relevance near 0 means that the page has little of the question."""


@dataclass(frozen=True, kw_only=True)
class ToolDescription:
    """A tool as agents see it.

    Attributes:
        name: by which it is called.
        title: for people.
        description: for the model.
        arguments: their schemas by name, in JSON Schema.
        required: names of arguments without a default.
        output: the schema of the structured answer; None without one.
    """

    name: str
    title: str
    description: str
    arguments: Mapping[str, Any]
    required: tuple[str, ...] = ()
    output: Mapping[str, Any] | None = None

    @property
    def input_schema(self) -> dict[str, Any]:
        """The schema of all arguments."""
        return {
            "type": "object",
            "properties": dict(self.arguments),
            "required": list(self.required),
            "additionalProperties": False,
        }


_DOCUMENT = "Name of a file, its path, or the id of a document, as list_documents and search_pages show them."
_LINE = {
    "type": "object",
    "properties": {"page": {"type": ["integer", "null"]}, "begins": {"type": "string"}},
    "required": ["page", "begins"],
}
_MAP = {
    "type": "object",
    "properties": {
        "document": {"type": "string", "description": "The id."},
        "name": {"type": "string"},
        "source": {"type": ["string", "null"]},
        "pages": {"type": "integer", "description": "Pages in the index."},
        "page_count": {"type": ["integer", "null"], "description": "Pages of the document."},
        "map": {"type": "array", "items": _LINE},
        "next_page": {"type": ["integer", "null"], "description": "The first page that is left out."},
    },
    "required": ["document", "name", "source", "pages", "page_count", "map", "next_page"],
}

TOOLS = (
    ToolDescription(
        name="list_documents",
        title="List the documents",
        description=(
            "List the documents of the index with the number of their pages and a map: the first words of each page. "
            "Long lists come in parts; pass the cursor of an answer for the next part. With `document`, the map of all "
            "pages of one document."
        ),
        arguments={
            "document": {"type": "string", "description": f"Only the map of this document. {_DOCUMENT}"},
            "cursor": {"type": "string", "description": "The next_cursor of the answer before."},
        },
        output={
            "type": "object",
            "properties": {
                "documents": {"type": "array", "items": _MAP},
                "total": {"type": "integer", "description": "Documents in the index."},
                "next_cursor": {"type": ["string", "null"], "description": "For the next part; null at the end."},
            },
            "required": ["documents", "total", "next_cursor"],
        },
    ),
    ToolDescription(
        name="search_pages",
        title="Search the pages",
        description=(
            "Find the pages that answer a question, the best first, with document, page number, relevance (0 to 1), "
            "the part of the text that fits, and a picture of each page. Ask in plain words and one thing at a time."
        ),
        arguments={
            "question": {"type": "string", "description": "The question, or words of the page."},
            "k": {
                "type": "integer",
                "minimum": 1,
                "maximum": MOST_HITS,
                "default": 5,
                "description": "Number of pages. Up to 3 have large pictures; each further one makes them smaller.",
            },
            "document": {"type": "string", "description": f"Search this document only. {_DOCUMENT}"},
            "images": {"type": "boolean", "default": True, "description": "false for the texts alone."},
        },
        required=("question",),
    ),
    ToolDescription(
        name="read_page",
        title="Read a page",
        description=(
            "Read a page, or several in a row, as a large picture (tables, charts, forms, scans) or as text (prose). "
            "What does not fit into one answer is named at its end."
        ),
        arguments={
            "document": {"type": "string", "description": _DOCUMENT},
            "page": {"type": "integer", "minimum": 1, "description": "Number of the page, counted from 1."},
            "last_page": {"type": "integer", "minimum": 1, "description": "The end of a range."},
            "format": {"type": "string", "enum": ["image", "text"], "default": "image"},
        },
        required=("document", "page"),
    ),
)
"""The tools, in the order in which an agent learns of them."""
