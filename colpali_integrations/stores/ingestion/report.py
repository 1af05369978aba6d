"""The outcome of an ingestion: numbers, failures, and warnings about documents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from colpali_integrations.pages.fonts import missing_fonts_message
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.ingestion.failures import Failure

__all__ = ["DocumentWarning", "IngestReport", "font_warning"]


@dataclass(frozen=True)
class DocumentWarning:
    """Something that is wrong with a document whose pages were stored all the same.

    Attributes:
        name: of the document.
        message: what is wrong, and what to do.

    Example:
        >>> warning = DocumentWarning("poem.pdf", "page 1: a font is missing")
        >>> f"{warning.name}, {warning.message}"
        'poem.pdf, page 1: a font is missing'
    """

    name: str
    message: str


@dataclass
class IngestReport:
    """The outcome of an ingestion.

    Attributes:
        documents: number of documents.
        added: pages and texts encoded and stored.
        copied: stored with the vectors of an equal page of another document.
        present: unchanged.
        updated: stored with other metadata, which were replaced.
        replaced: of those added and copied, new content in place of old.
        removed: pages that their document no longer has.
        absent: requested pages beyond the end of one of several documents.
        failures: items that could not be stored.
        warnings: one per document that has pages without some of their characters, because a font is missing; also of
            pages that were stored in an earlier run.
        passed_over: numbers of files and folders that a search did not take, by reason; see `FoundDocuments`.
        twins: new documents whose file the store also holds as another document, as with other `metadata`: by the name
            of the new one, the id of the other.
        little_read: number of stored pages of which the model recognised little (`ColPali.reads_little`), by the
            document's name. Unchanged and copied pages are not counted.
        little_read_with_text: of those, pages with a text layer, which hybrid search ranks by its words.
        ids: of the stored entries, one per page and item in the order of the input.

    Example:
        >>> report = IngestReport(documents=2, added=12, present=3)
        >>> f"{report.added} pages encoded, {report.present} known, {len(report.failures)} failures"
        '12 pages encoded, 3 known, 0 failures'
    """

    documents: int = 0
    added: int = 0
    copied: int = 0
    present: int = 0
    updated: int = 0
    replaced: int = 0
    removed: int = 0
    absent: int = 0
    failures: list[Failure] = field(default_factory=list)
    warnings: list[DocumentWarning] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    little_read: dict[str, int] = field(default_factory=dict)
    little_read_with_text: int = 0
    ids: list[str] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Numbers, and name and reason of each failure and warning, JSON-safe.

        >>> IngestReport(documents=1, added=3).to_dict()["added"]
        3
        """
        counts = {one.name: getattr(self, one.name) for one in fields(self) if one.name != "ids"}
        failures = [{"name": one.name, "error": one.reason} for one in self.failures]
        warnings = [{"name": one.name, "warning": one.message} for one in self.warnings]
        return {**counts, "failures": failures, "warnings": warnings, "passed_over": dict(self.passed_over)}

    def note_little_read(self, entry: Entry) -> None:
        """Count a page of which the model recognised little.

        Args:
            entry: of the page.

        Example:
            >>> report = IngestReport()
            >>> report.note_little_read(Entry(id="a", text="Привет", metadata={"source": "letter.pdf", "page": 1}))
            >>> report.little_read, report.little_read_with_text
            ({'letter.pdf': 1}, 1)
        """
        name = entry.source or entry.id
        self.little_read[name] = self.little_read.get(name, 0) + 1
        self.little_read_with_text += entry.has_text


def font_warning(name: str, pages: Mapping[int, Sequence[str]]) -> DocumentWarning:
    """The warning about a document with pages that lack fonts.

    Args:
        name: of the document.
        pages: the names of the fonts by the number of the page.
    """
    names = list(dict.fromkeys(font for fonts in pages.values() for font in fonts))
    first = min(pages)
    place = f"page {first}" if len(pages) == 1 else f"{len(pages)} pages from page {first} on"
    return DocumentWarning(name, f"{place}: {missing_fonts_message(names)}")
