"""Another set of pages and questions: many kinds of documents in one store, some of them scanned, in eleven languages.

For choosing how a hybrid search fuses its halves. Made as `benchmarks.hard_set` is: `documents.json` pins each document
with its license, and `questions.json` was written from the pages before any system was run on them. Pages of documents
marked `scanned` are used as bad scans without their text layer. Constants may be chosen on "dev" alone.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.page_set import PageSet

__all__ = ["HERE", "KINDS", "WORK", "documents", "fetch", "load", "questions"]

KINDS = {
    "words": "words of the page's text",
    "common": "only words that many pages have",
    "identifier": "a name, number, option or code",
    "table": "a cell of a table or form",
    "paraphrase": "other words than the page's, in its language",
    "foreign": "an English question about a page in another language",
    "visual": "what a picture or the layout shows",
}

_set = PageSet(Path(__file__).parent, images="pages")
HERE, WORK = _set.folder, _set.work
documents, questions, fetch, load = _set.documents, _set.questions, _set.fetch, _set.load
