"""The documents of a store for agents: their names, and a map of each with the first words of its pages."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from colpali_integrations._options import shown
from colpali_integrations._text import number
from colpali_integrations.agents.captions import caption, document_name, name_of
from colpali_integrations.errors import InputError
from colpali_integrations.pages.metadata import page_number
from colpali_integrations.stores import Entry, Filter, MultiVectorStore, parse_filter
from colpali_integrations.stores.filters import DOCUMENT, And

__all__ = [
    "FIRST_PAGES",
    "DocumentMap",
    "PageLine",
    "beginnings",
    "both",
    "document_map",
    "document_maps",
    "documents_named",
    "one_document",
    "page_ranges",
    "searched_documents",
]

FIRST_PAGES = 6
"""Pages of each document in a list of documents."""

_WIDTH = 80  # characters of a page's first words
_LINES = 4  # of a page, among which the first telling one is looked for
_CLOSEST, _FIRST_NAMES = 3, 10


@dataclass(frozen=True, kw_only=True)
class PageLine:
    """A line of a map.

    Attributes:
        page: 1-based number; None for a text without one.
        begins: the first words; "" for a page without text.
    """

    page: int | None
    begins: str


@dataclass(frozen=True, kw_only=True)
class DocumentMap:
    """A document and the first words of its pages.

    Attributes:
        document: its id.
        name: the name of its file.
        source: its path, URL or name.
        pages: number of its pages in the store.
        page_count: number of its pages; None if it is not recorded.
        lines: one per page, by number.
        next_page: the number of the first page that is left out; None at the end.
    """

    document: str
    name: str
    source: str | None
    pages: int
    page_count: int | None
    lines: Sequence[PageLine]
    next_page: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {
            "document": self.document,
            "name": caption(self.name),
            "source": None if self.source is None else caption(self.source),
            "pages": self.pages,
            "page_count": self.page_count,
            "map": [{"page": line.page, "begins": line.begins} for line in self.lines],
            "next_page": self.next_page,
        }


def document_maps(
    store: MultiVectorStore, where: Filter | None, *, after: str | None, limit: int
) -> tuple[list[DocumentMap], str | None, int]:
    """Documents by id, with their first pages.

    Args:
        store: that is read.
        where: only entries that fit this filter.
        after: the id after which the list begins; None for the first one. It may have been removed meanwhile.
        limit: number of documents.

    Returns:
        The documents, the id after which the next call goes on (None at the end), and the number of all documents.
    """
    counts = store.documents(where)
    ids = sorted(id_ for id_ in counts if after is None or id_ > after)
    listed = ids[:limit]
    entries: dict[str, list[Entry]] = {id_: [] for id_ in listed}
    first = parse_filter({DOCUMENT: {"$in": listed}, "page": {"$lte": FIRST_PAGES}}) if listed else None
    for entry in store.scroll(both(where, first)) if listed else ():
        entries[entry.document_id or ""].append(entry)
    maps = []
    for id_, found in entries.items():
        if not found:  # its pages have higher numbers or none
            found = _sorted(store.scroll(both(where, parse_filter({DOCUMENT: id_}))))[:FIRST_PAGES]
        maps.append(_map(id_, counts[id_], _sorted(found), more=counts[id_] > len(found)))
    return maps, listed[-1] if len(ids) > limit else None, len(counts)


def document_map(store: MultiVectorStore, where: Filter | None, id_: str, *, page: int, limit: int) -> DocumentMap:
    """One document with its pages from a number on.

    Args:
        store: that is read.
        where: only entries that fit this filter.
        id_: of the document.
        page: the first number.
        limit: number of pages.

    Raises:
        InputError: the document has no such page.
    """
    entries = _sorted(store.scroll(both(where, parse_filter({DOCUMENT: id_}))))
    found = [entry for entry in entries if (entry.page or 0) >= page or page == 1]
    if not found:
        raise InputError(f"{_name(id_, entries)} has no page {page} or later in the index; {page_ranges(entries)}")
    return _map(id_, len(entries), found[:limit], more=len(found) > limit)


def one_document(store: MultiVectorStore, where: Filter | None, given: str) -> str:
    """The id of the document that an agent names.

    Args:
        store: that is read.
        where: only entries that fit this filter.
        given: an id, a path or the name of a file.

    Raises:
        InputError: there is none, or several have this name; the message has the closest names, or the ids.
    """
    ids = documents_named(store, where, given)
    if len(ids) > 1:
        shown = ", ".join(map(repr, ids[:10]))
        raise InputError(f"{len(ids)} documents have the name {given!r}; pass one of their ids as document: {shown}")
    return ids[0]


def searched_documents(store: MultiVectorStore, where: Filter | None, given: str) -> list[str]:
    """The ids of the documents that an agent names which has no list of them; none for texts of no document.

    Args:
        store: that is read.
        where: only entries that fit this filter.
        given: an id, a path or the name of a file.

    Raises:
        InputError: there is none; the message has the closest names.
    """
    try:
        return documents_named(store, where, given, listed=False)
    except InputError:
        if not store.count(both(where, parse_filter({"$or": [{"file_name": given}, {"source": given}]}))):
            raise
        return []


def documents_named(store: MultiVectorStore, where: Filter | None, given: str, *, listed: bool = True) -> list[str]:
    """The ids of the documents with an id, path or name: the exact one, or else without regard to case.

    Args:
        store: that is read.
        where: only entries that fit this filter.
        given: an id, a path or the name of a file.
        listed: whether the agent has `list_documents`, for the message.

    Raises:
        InputError: there is none.
    """
    for one in ({DOCUMENT: given}, {"$or": [{key: given} for key in ("file_name", "source", "file_path")]}):
        if ids := sorted(store.documents(both(where, parse_filter(one)))):
            return ids
    names = _names(store, where)
    sought = given.casefold()
    if alike := {id_ for id_, name in names.items() if sought in (name.casefold(), id_.casefold())}:
        # A framework may have a document per page, of which only the first pages were read.
        same = sorted({names[id_] for id_ in alike})
        spelt = parse_filter({"$or": [{key: {"$in": same}} for key in ("file_name", "source")]})
        return sorted(alike | store.documents(both(where, spelt)).keys())
    raise InputError(f"the index has no document {shown(given)}; {_closest(sought, names, listed=listed)}")


def both(first: Filter | None, second: Filter | None) -> Filter | None:
    """The filter that fits what both fit; None is no condition."""
    conditions = [one for one in (first, second) if one is not None]
    return And(tuple(conditions)) if len(conditions) > 1 else conditions[0] if conditions else None


def beginnings(texts: Sequence[str]) -> list[str]:
    r"""The first words of each page of a document, without a running head.

    A line is a running head where more than half of at least three pages have it among their first lines; numbers in it
    do not count.

    Example:
        >>> beginnings(["Tide tables 1\nHarbour", "Tide tables 2\nBridges", "Tide tables 3\nLocks and weirs", ""])
        ['Harbour', 'Bridges', 'Locks and weirs', '']
    """
    lines = [[" ".join(line.split()) for line in text.splitlines() if re.search(r"\w", line)] for text in texts]
    counts = Counter(key for some in lines for key in {_key(line) for line in some[:_LINES]})
    pages = sum(map(bool, lines))
    heads = {key for key, count in counts.items() if pages >= 3 and count > pages / 2}
    words = []
    for some in lines:
        own = [line for place, line in enumerate(some) if place >= _LINES or _key(line) not in heads]
        words.append(_shortened(" ".join((own or some)[:_LINES])))
    return words


def page_ranges(entries: Iterable[Entry]) -> str:
    """The pages of a document that are in the store, for a message.

    >>> page_ranges([Entry(id=str(page), metadata={"page": page}) for page in (1, 2, 3, 7)])
    'it has the pages 1 to 3, 7'
    """
    numbers = sorted({entry.page for entry in entries if entry.page is not None})
    if not numbers:
        return "its texts have no page numbers; search_pages finds them"
    ranges: list[list[int]] = []
    for one in numbers:
        if ranges and one == ranges[-1][1] + 1:
            ranges[-1][1] = one
        else:
            ranges.append([one, one])
    shown = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in ranges[:20])
    return f"it has the pages {shown}{', ...' if len(ranges) > 20 else ''}"


def _map(id_: str, pages: int, entries: Sequence[Entry], *, more: bool) -> DocumentMap:
    begins = beginnings([entry.text if entry.has_text else "" for entry in entries])
    lines = [PageLine(page=entry.page, begins=words) for entry, words in zip(entries, begins, strict=True)]
    first = entries[0] if entries else None
    last = max((line.page for line in lines if line.page is not None), default=None)
    return DocumentMap(
        document=id_,
        name=_name(id_, entries),
        source=None if first is None else first.source,
        pages=pages,
        page_count=None if first is None else page_number(first.metadata, "page_count"),
        lines=lines,
        next_page=last + 1 if more and last is not None else None,
    )


def _name(id_: str, entries: Sequence[Entry]) -> str:
    return name_of(entries[0]) if entries else document_name(id_)


def _names(store: MultiVectorStore, where: Filter | None) -> dict[str, str]:
    """The name of each document by its id."""
    names = {id_: document_name(id_) for id_ in store.documents(where)}
    for entry in store.scroll(both(where, parse_filter({"page": 1}))):
        if entry.document_id in names:
            names[entry.document_id] = name_of(entry)
    return dict(sorted(names.items()))


def _closest(sought: str, names: dict[str, str], *, listed: bool) -> str:
    if not names:
        return "it has no documents yet"
    several = {name.casefold(): name for name in names.values()}
    inside = [name for key, name in several.items() if sought in key or key in sought]
    similar = [several[key] for key in get_close_matches(sought, several, _CLOSEST, 0.7)]
    closest = list(dict.fromkeys([*inside, *similar]))[:_CLOSEST]
    count = number(len(names), "document")
    if not listed:
        some = closest or list(dict.fromkeys(names.values()))[:_FIRST_NAMES]
        which = "the closest are" if closest else "they are" if len(some) == len(names) else "some are"
        return f"of its {count} {which} {', '.join(map(repr, map(caption, some)))}; leave document out to search all"
    advice = f"list_documents lists its {count}"
    return f"the closest are {', '.join(map(repr, map(caption, closest)))}; {advice}" if closest else advice


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: (entry.page or 0, entry.id))


def _key(line: str) -> str:
    return re.sub(r"\d+", "", line).strip().casefold()


def _shortened(words: str) -> str:
    if len(words) <= _WIDTH:
        return words
    blank = words.rfind(" ", 0, _WIDTH)
    return f"{words[: blank if blank > _WIDTH // 2 else _WIDTH]}…"
