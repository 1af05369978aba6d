"""Another set of pages and questions: many kinds of documents in one store, some of them scanned, in eleven languages.

For choosing how a hybrid search fuses its halves. Made as `benchmarks.hard_set` is: `documents.json` pins each document
with its license, and `questions.json` was written from the pages before any system was run on them. Pages of documents
marked `scanned` are used as bad scans without their text layer. Constants may be chosen on "dev" alone.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import coltiny_set
from benchmarks.coltiny_set import Document, Page, Question

HERE = Path(__file__).parent
WORK = HERE.parent / "work" / "mixed_set"
KINDS = {
    "words": "words of the page's text",
    "common": "only words that many pages have",
    "identifier": "a name, number, option or code",
    "table": "a cell of a table or form",
    "paraphrase": "other words than the page's, in its language",
    "foreign": "an English question about a page in another language",
    "visual": "what a picture or the layout shows",
}


def documents() -> list[Document]:
    """The documents, in the file's order."""
    return coltiny_set.documents(HERE)


def questions() -> list[Question]:
    """The questions, in the file's order."""
    return coltiny_set.questions(HERE)


def fetch(folder: Path = WORK / "packages") -> None:
    """Download the documents' Debian packages (apt-get, Debian 12)."""
    coltiny_set.fetch(folder, documents())


def load(folder: Path = WORK / "packages", images: Path = WORK / "pages") -> list[Page]:
    """All pages in order; pictures that are missing are rendered at 150 dpi in grey, scans made."""
    return coltiny_set.load(folder, images, documents())
