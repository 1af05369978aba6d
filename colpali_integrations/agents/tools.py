"""The tools of agents over a store: a list of documents with maps, search, and pages as picture or text.

A call has two steps, which a server may queue apart: `PageTools.call` reads the store, and `PageTools.shown` draws the
pages of its answer. An error is one that an agent can act on: it names what exists instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from colpali_integrations._options import checked_flag, checked_text, checked_whole, shown, unknown_option
from colpali_integrations._text import number
from colpali_integrations.agents.captions import caption, entry_caption, name_of
from colpali_integrations.agents.descriptions import MOST_HITS, TOOLS
from colpali_integrations.agents.documents import (
    DocumentMap,
    both,
    document_map,
    document_maps,
    documents_named,
    one_document,
    page_ranges,
)
from colpali_integrations.agents.found import SEEMS_UNANSWERED
from colpali_integrations.agents.pictures import BUDGET, PagePicture, page_pictures
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError
from colpali_integrations.explain.snippet import snippet
from colpali_integrations.pages.access import PageAccess
from colpali_integrations.pages.metadata import PICTURE
from colpali_integrations.pages.reference import has_content_hash, is_permitted, names_picture
from colpali_integrations.stores import Entry, Hit, Hits, MultiVectorStore, SearchOptions, parse_filter
from colpali_integrations.stores.current import CurrentStore
from colpali_integrations.stores.filters import DOCUMENT, FilterLike

__all__ = ["ANSWER_BYTES", "Answer", "PageTools", "Part"]

ANSWER_BYTES = 400_000
"""Bytes of a whole answer, as sent."""

_DOCUMENTS, _MAPPED = 20, 100  # documents of a list, and pages of one document's map
_MOST_PICTURES = 10  # of `read_page`
_MOST_TEXT = 60_000  # characters of pages in an answer
_MOST_ID = 1000  # characters of a document's id beside a hit; a longer one is left out, and the name serves
_LAST = 10**9  # no document has such a page, and filters take larger numbers for floats
_INSTEAD = 4_000  # characters of a page's text in the place of its picture
_EXCERPT, _LONG_EXCERPT = 300, 1_200  # characters of a hit, beside its picture and without one
_OVERHEAD, _OVERHEAD_PER_PART = 2_000, 200  # bytes of JSON around the texts and the pictures
_NO_TEXT = "(This page has no text layer; read it as an image.)"


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part of an answer: a text, and perhaps a page that is shown after it.

    Attributes:
        text: for the model.
        entry: the page; None for a text alone.
        instead: the text in the place of a picture that cannot be drawn.
        picture: of the page, once it is drawn.
    """

    text: str
    entry: Entry | None = None
    instead: str = ""
    picture: PagePicture | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer of a tool.

    Attributes:
        parts: in order.
        structured: the answer as JSON-safe values, for tools that describe one.
    """

    parts: Sequence[Part]
    structured: Mapping[str, Any] | None = None


class PageTools:
    """The tools over one store. Threads may share it.

    Args:
        current: the store.
        search: answers a question with the options of `SearchOptions`; by default the store itself.
        access: returns how the files of pages are opened; by default none is.
        where: a filter that holds for all that an agent lists, finds and reads, whatever it asks for.

    Example:
        >>> from colpali_integrations import ColPali
        >>> model = ColPali.from_pretrained()
        >>> with MultiVectorStore.open("my-index", model=model, read_only=True) as store:
        ...     tools = PageTools(CurrentStore(store))
        ...     answer = tools.shown(tools.call("search_pages", {"question": "diverging palettes", "k": 1}))
        >>> print(answer.parts[0].text)
        1. report.pdf, page 1 of 2 (relevance 0.52, document '...report.pdf')
        ...
        (No picture: its file is in none of the folders whose pages are shown; ...
    """

    def __init__(
        self,
        current: CurrentStore,
        *,
        search: Callable[[str, Mapping[str, Any]], Hits] | None = None,
        access: Callable[[], PageAccess] = lambda: PageAccess(folders=()),
        where: FilterLike = None,
    ) -> None:
        self._current, self._search, self._access = current, search or self._own_search, access
        self._where = parse_filter(where)
        self._tools: Mapping[str, Callable[..., Answer]] = {
            "list_documents": self.list_documents,
            "search_pages": self.search_pages,
            "read_page": self.read_page,
        }

    def call(self, name: str, arguments: Mapping[str, Any]) -> Answer:
        """Call a tool by its name; its pages are not drawn yet.

        Args:
            name: of the tool.
            arguments: by name.

        Raises:
            InputError: there is no such tool or document, an argument is missing, or a page is out of range.
            ConfigurationError: an argument is unknown or has an invalid value.
            StoreError: the store cannot be read.
        """
        description = next((one for one in TOOLS if one.name == name), None)
        if description is None:
            raise InputError(f"there is no tool {name!r}; there are {', '.join(self._tools)}")
        if set(arguments) - set(description.arguments):
            raise unknown_option(name, arguments, description.arguments)
        # A client may send null for an argument that is left out.
        values = {key: value for key, value in arguments.items() if value is not None}
        if missing := [one for one in description.required if one not in values]:
            raise InputError(f"{name} needs the argument {missing[0]!r}")
        return self._tools[name](**values)

    def list_documents(self, document: str | None = None, cursor: str | None = None) -> Answer:
        """List documents with the first words of their pages, or all pages of one document.

        Args:
            document: an id, path or name.
            cursor: the `next_cursor` of the answer before.

        Raises:
            InputError: there is no such document, or a cursor is none.
        """
        after = None if cursor is None else checked_text(cursor, "cursor")
        if document is None:
            return self._list(after)
        given = checked_text(document, "document")
        first = _page_of(after)
        return self._current.use(lambda store: self._map(store, given, first))

    def search_pages(self, question: str, k: int = 5, document: str | None = None, images: bool = True) -> Answer:
        """Find the pages that answer a question.

        Args:
            question: in words.
            k: number of pages, at most 20.
            document: an id, path or name, to search it alone.
            images: whether the pages are shown.

        Raises:
            QueryError: the question is empty.
            InputError: there is no such document.
            ConfigurationError: an argument has an invalid value.
        """
        question, k, images = checked_text(question, "question"), checked_whole(k, "k"), checked_flag(images, "images")
        if k > MOST_HITS:
            raise ConfigurationError(f"k must be at most {MOST_HITS}, got {k}; ask for fewer pages, or search again")
        where = self._where
        if document is not None:
            given = checked_text(document, "document")
            ids = self._current.use(lambda store: documents_named(store, self._where, given))
            where = both(where, parse_filter({DOCUMENT: {"$in": ids}}))
        options: dict[str, Any] = {"k": k}
        if where is not None:
            options["where"] = where.to_dict()
        hits = self._search(question, options).matching()
        if not hits:
            inside = f" in {document!r}" if document is not None else ""
            advice = "ask in other words, or call list_documents to see what there is"
            return Answer(parts=[Part(text=f"No page{inside} has anything of this question; {advice}.")])
        parts = [_hit(rank, hit, question, images=images) for rank, hit in enumerate(hits, 1)]
        return Answer(parts=[Part(text=SEEMS_UNANSWERED), *parts] if hits.doubtful else parts)

    def read_page(self, document: str, page: int, last_page: int | None = None, format: str = "image") -> Answer:
        """Read a page, or a range of pages, as picture or text.

        Args:
            document: an id, path or name.
            page: 1-based number.
            last_page: the end of a range.
            format: "image" or "text".

        Raises:
            InputError: there is no such document or page.
            ConfigurationError: an argument has an invalid value.
        """
        given, first = checked_text(document, "document"), checked_whole(page, "page")
        last = first if last_page is None else checked_whole(last_page, "last_page")
        first, last = min(first, _LAST), min(last, _LAST)
        if format not in ("image", "text"):
            raise ConfigurationError(f"format must be 'image' or 'text', got {shown(format)}")
        if last < first:
            raise ConfigurationError(f"last_page must be at least page, {first}, got {last}")
        return self._current.use(lambda store: self._read(store, given, first, last, as_text=format == "text"))

    def shown(self, answer: Answer) -> Answer:
        """The answer with its pages drawn, as far as they may be shown and fit into `ANSWER_BYTES`.

        Args:
            answer: of `call`.
        """
        access = self._access()
        parts = [_permitted(part, access) for part in answer.parts]
        texts = sum(_sent(part.text) + _sent(part.instead) + _OVERHEAD_PER_PART for part in parts)
        budget = max(0, min(BUDGET, ANSWER_BYTES - _OVERHEAD - texts))
        pages = [part.entry.metadata for part in parts if part.entry is not None]
        options: dict[str, Any] = {"password": access.password, "limits": access.limits, "roots": access.folders}
        pictures = iter(page_pictures(pages, budget, wording=_wording, **options))
        return replace(
            answer, parts=[part if part.entry is None else _with_picture(part, next(pictures)) for part in parts]
        )

    def page_of(self, document: str, page: int) -> Answer:
        """A page as picture and as text, for a resource.

        Args:
            document: an id, path or name.
            page: 1-based number.

        Raises:
            InputError: there is no such document or page.
        """
        return Answer(
            parts=[*self.read_page(document, page, format="text").parts, *self.read_page(document, page).parts]
        )

    def _own_search(self, question: str, options: Mapping[str, Any]) -> Hits:
        found = self._current.use(lambda store: store.search_batch([question], SearchOptions(**options)))
        return found[0]

    def _list(self, after: str | None) -> Answer:
        maps, following, total = self._current.use(
            lambda store: document_maps(store, self._where, after=after, limit=_DOCUMENTS)
        )
        head = f"{number(total, 'document')} in the index."
        if following is not None:
            head += f" {len(maps)} are shown; for the next ones call list_documents with cursor={following!r}."
        texts = [head, *map(_listed, maps)]
        structured = {"documents": [one.to_dict() for one in maps], "total": total, "next_cursor": following}
        return Answer(parts=[Part(text="\n\n".join(texts))], structured=structured)

    def _map(self, store: MultiVectorStore, given: str, first: int) -> Answer:
        id_ = one_document(store, self._where, given)
        mapped = document_map(store, self._where, id_, page=first, limit=_MAPPED)
        cursor = None if mapped.next_page is None else str(mapped.next_page)
        text = _listed(mapped, whole=True)
        structured = {"documents": [mapped.to_dict()], "total": 1, "next_cursor": cursor}
        return Answer(parts=[Part(text=text)], structured=structured)

    def _read(self, store: MultiVectorStore, given: str, first: int, last: int, *, as_text: bool) -> Answer:
        id_ = one_document(store, self._where, given)
        of_document = both(self._where, parse_filter({DOCUMENT: id_}))
        wanted = both(of_document, parse_filter({"page": {"$gte": first, "$lte": last}}))
        entries = sorted(store.scroll(wanted), key=lambda entry: entry.page or 0)
        if not entries:
            known = list(store.scroll(of_document))
            name, asked = name_of(known[0]) if known else given, _range(first, last)
            raise InputError(f"the index has no {asked} of {name}; {page_ranges(known)}")
        kept, following = _fitting(entries, as_text=as_text)
        parts = [_page(entry, as_text=as_text) for entry in kept]
        notes = []
        if following is not None:
            advice = f"call read_page with page={following} for the next ones"
            notes.append(f"This answer is full after page {kept[-1].page}; {advice}.")
        elif len(entries) <= last - first:
            found = page_ranges(store.scroll(of_document))
            notes.append(f"Not all of the pages {first} to {last} are in the index: {found}.")
        return Answer(parts=[*parts, *(Part(text=note) for note in notes)])


def _hit(rank: int, hit: Hit, question: str, *, images: bool) -> Part:
    entry = hit.entry
    id_ = f", document {entry.document_id!r}" if len(entry.document_id or "a" * _MOST_ID) < _MOST_ID else ""
    head = f"{rank}. {entry_caption(entry)} (relevance {hit.relevance:.2f}{id_})"
    shown_too = images and entry.has_picture
    excerpt = snippet(entry.text, question, width=_EXCERPT if shown_too else _LONG_EXCERPT) if entry.has_text else ""
    text = f"{head}\n{excerpt or _NO_TEXT}"
    return Part(text=text, entry=entry if shown_too else None)


def _page(entry: Entry, *, as_text: bool) -> Part:
    head = entry_caption(entry)
    text = entry.text if entry.has_text else _NO_TEXT
    if not as_text and entry.has_picture:
        cut = text if len(text) <= _INSTEAD else f"{text[:_INSTEAD]}… (read it as text for the rest)"
        return Part(text=head, entry=entry, instead=cut)
    if len(text) > _MOST_TEXT:
        text = f"{text[:_MOST_TEXT]}… ({len(text) - _MOST_TEXT:,} further characters do not fit into an answer)"
    return Part(text=f"{head}\n{text}")


def _fitting(entries: Sequence[Entry], *, as_text: bool) -> tuple[list[Entry], int | None]:
    """The first entries, as many as fit into an answer, and the page after them; None if all fit."""
    kept: list[Entry] = []
    size = 0
    for entry in entries:
        size += len(entry.text) if as_text else 0
        if kept and (size > _MOST_TEXT or (not as_text and len(kept) == _MOST_PICTURES)):
            return kept, entry.page
        kept.append(entry)
    return kept, None


def _listed(one: DocumentMap, *, whole: bool = False) -> str:
    pages = number(one.pages, "page")
    if one.page_count is not None and one.page_count > one.pages:
        pages = f"{one.pages} of its {one.page_count} pages in the index"
    head = f"{caption(one.name)}: {pages}; document {one.document!r}"
    lines = [f"  {'-' if line.page is None else line.page}: {line.begins or '(no text)'}" for line in one.lines]
    if one.next_page is not None:
        more = f"document={one.document!r}" + (f" and cursor={str(one.next_page)!r}" if whole else "")
        lines.append(f"  ... more pages: call list_documents with {more}")
    return "\n".join([head, *lines])


def _permitted(part: Part, access: PageAccess) -> Part:
    """The part, without its page if that may not be shown."""
    refusal = None if part.entry is None else _refusal(part.entry, access)
    return part if refusal is None else _without_picture(part, refusal)


def _with_picture(part: Part, picture: PagePicture) -> Part:
    return replace(part, picture=picture) if picture else _without_picture(part, picture.problem)


def _without_picture(part: Part, reason: str) -> Part:
    lines = [part.text, f"(No picture: {caption(reason)}.)", *([part.instead] if part.instead else [])]
    return Part(text="\n".join(lines))


def _refusal(entry: Entry, access: PageAccess) -> str | None:
    """The reason why a page may not be shown, before its file is looked at; None if it may."""
    metadata = entry.metadata
    if names_picture(metadata) and "://" in metadata[PICTURE]:
        return "its picture is at an address, which is not fetched"
    if not is_permitted(metadata, access):
        return (
            "its file is in none of the folders whose pages are shown; start the server with --root and the folder of "
            "the file"
        )
    if not metadata.get("image_base64") and not names_picture(metadata) and not has_content_hash(metadata):
        return "its file cannot be known to be the same: the index has no content_hash of it; index it again"
    return None


def _wording(error: ColPaliError) -> str:
    return str(error).replace(", or pass roots=[folder] to show the files of a folder", "")


def _page_of(cursor: str | None) -> int:
    if cursor is None:
        return 1
    if not cursor.isascii() or not cursor.isdigit() or len(cursor) > 9 or int(cursor) < 1:
        raise InputError(f"cursor must be the next_cursor of the answer before, got {shown(cursor)}")
    return int(cursor)


def _range(first: int, last: int) -> str:
    return f"page {first}" if first == last else f"page from {first} to {last}"


def _sent(text: str) -> int:
    """Bytes of a text as JSON."""
    return len(json.dumps(text, ensure_ascii=False).encode())
