"""A second set of pages and questions, of the kinds that ColTiny was weak at on pages of other people.

Scans and scanned maps, slides, forms, reference cards, letters and title pages, in French, Spanish, German and Italian.
`documents.json` pins each document as `benchmarks.coltiny_set` does, with its license; the maps are drawn by `maps.py`.
`questions.json` was written from the pages and their pictures before any system was run on them. Constants may be
chosen on "dev" alone.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import coltiny_set
from benchmarks.coltiny_set import Document, Page, Question
from benchmarks.hard_set import maps

HERE = Path(__file__).parent
WORK = HERE.parent / "work" / "hard_set"
KINDS = {
    "headline": "the largest words of the page, or of the map",
    "words": "words of the page's text",
    "lookup": "a detail: a cell of a table or form, a town of a map, an identifier",
    "paraphrase": "other words than the page's, in its language (of maps in English)",
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
    """Download the documents' Debian packages, and that of the fonts of the maps (apt-get, Debian 12)."""
    coltiny_set.fetch(folder, [one for one in documents() if one.path != "maps"])
    for package in {one.package for one in documents() if one.path == "maps" and one.package}:
        if not (folder / package).exists():
            coltiny_set.fetch_package(package, folder)


def read(document: Document, folder: Path = WORK / "packages") -> bytes:
    """The PDF's bytes; maps are drawn.

    Raises:
        ValueError: the file is not the one that the questions were written for.
    """
    if document.path == "maps":
        return maps.pdf(document.name, folder / str(document.package))
    return coltiny_set.read(document, folder)


def load(folder: Path = WORK / "packages", images: Path = WORK / "clean") -> list[Page]:
    """All pages in order; pictures that are missing are rendered at 150 dpi in grey."""
    return coltiny_set.load(folder, images, documents(), read)
