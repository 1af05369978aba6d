"""A second set of pages and questions, of the kinds that ColTiny was weak at on pages of other people.

Scans and scanned maps, slides, forms, reference cards, letters and title pages, in French, Spanish, German and Italian.
`documents.json` has the license of each document too; the maps are drawn by `maps.py`.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.hard_set import maps
from benchmarks.page_set import PageSet

__all__ = ["HERE", "KINDS", "WORK", "documents", "fetch", "load", "questions", "read"]

KINDS = {
    "headline": "the largest words of the page, or of the map",
    "words": "words of the page's text",
    "lookup": "a detail: a cell of a table or form, a town of a map, an identifier",
    "paraphrase": "other words than the page's, in its language (of maps in English)",
    "foreign": "an English question about a page in another language",
    "visual": "what a picture or the layout shows",
}

_set = PageSet(Path(__file__).parent, draw=maps.pdf)
HERE, WORK = _set.folder, _set.work
documents, questions, fetch = _set.documents, _set.questions, _set.fetch
read, load = _set.read, _set.load
