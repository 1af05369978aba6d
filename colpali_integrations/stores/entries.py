"""Entries of a store, without their vectors, and hits of a search."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from colpali_integrations._options import shown
from colpali_integrations._text import parse_json
from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.identity import page_name
from colpali_integrations.pages.metadata import shows_picture, source_text, storage_fault
from colpali_integrations.scoring.bm25 import has_words
from colpali_integrations.stores.fusion import Halves
from colpali_integrations.stores.limits import MAX_ID_LENGTH, check_depth, check_size, is_deep

__all__ = ["Entry", "Hit", "field_of", "fitting_fields", "id_of", "payload_has_words"]


_PACKED = "_packed_grid"
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_UNCHANGING = frozenset({str, int, float, bool, type(None)})


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A page, or a text, without its vectors.

    Attributes:
        id: any string; adding another entry with this id replaces it.
        text: the text layer of a page, or its name ("report.pdf, page 7") if it has none.
        metadata: JSON-safe, for filters and frameworks; for a page the keys of `pages.document`.
        document_id: the document that it belongs to; a document can be deleted as a whole.
        content_hash: equal for equal content (`pages.identity.page_key`, `text_key`), which is encoded only once.
        grid: the position of each vector on the page; None for a text.
        extra: JSON-safe data of an adapter; not for filters.

    Raises:
        StoreError: when it is stored: an empty id, metadata that JSON cannot hold, or an entry beyond the limits of
            `stores.limits`.

    Example:
        >>> entry = Entry(id="a", text="Low tide at six", metadata={"source": "harbour.pdf", "page": 3})
        >>> entry.name, entry.page, entry.is_page  # no grid: a text, though its metadata name a page
        ('harbour.pdf, page 3', 3, False)
    """

    id: str
    text: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    document_id: str | None = None
    content_hash: str = ""
    grid: PageGrid | None = field(default_factory=lambda: None)  # no class attribute: see __getattr__
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Unpack the grid of a stored entry on first use; rerankers load hundreds of entries and use none."""
        if name == "grid" and _PACKED in self.__dict__:
            object.__setattr__(self, "grid", PageGrid.from_json(self.__dict__[_PACKED]))
            return self.grid
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def is_page(self) -> bool:
        """Whether the entry is a page: its vectors have positions, those of a text do not."""
        return _PACKED in self.__dict__ or self.grid is not None

    @property
    def has_picture(self) -> bool:
        """Whether the entry can be shown: a page, or an entry whose metadata have or name a picture of its page."""
        return self.is_page or shows_picture(self.metadata, self.text)

    @property
    def source(self) -> str | None:
        """The path or URI of the document, or its number; None if the metadata do not contain it."""
        return source_text(self.metadata)

    @property
    def page(self) -> int | None:
        """The page's 1-based number; None if the metadata do not contain it."""
        page = self.metadata.get("page")
        return page if isinstance(page, int) and not isinstance(page, bool) else None

    @property
    def name(self) -> str:
        """The name in messages and reports: "report.pdf, page 7", or the id."""
        return self.id if self.source is None or self.page is None else page_name(self.source, self.page)

    @property
    def has_text(self) -> bool:
        """Whether the entry has a text: a page without a text layer has only its name."""
        return bool(self.text) and not (_may_be_name(self.text, self.id, self.metadata) and self.text == self.name)

    @property
    def has_words(self) -> bool:
        """Whether the text has any word, so that a hybrid search can rank the entry by it."""
        return self.has_text and has_words(self.text)

    def to_payload(self) -> dict[str, Any]:
        """JSON-safe fields as engines keep them, without empty ones.

        Raises:
            StoreError: the id is empty, too long or no string, or metadata or extra cannot be written as JSON, have too
                many levels or are too large.
        """
        id_: object = self.id  # callers without type checks may pass a number
        if not isinstance(id_, str) or not id_:
            raise StoreError(f"an entry's id must be a string that is not empty, got {self.id!r}")
        if len(self.id) > MAX_ID_LENGTH:
            raise StoreError(
                f"an entry's id may have {MAX_ID_LENGTH} characters, got {len(self.id)}: {self.id[:40]!r}..."
            )
        check_depth(self.name, self.metadata)
        check_depth(self.name, self.extra, wrapped=True)
        payload = {
            "id": self.id,
            "text": self.text,
            "metadata": dict(self.metadata),
            "document_id": self.document_id,
            "content_hash": self.content_hash,
            "grid": None if self.grid is None else self.grid.to_json(),
            "extra": dict(self.extra),
        }
        try:
            copy: dict[str, Any] = json.loads(json.dumps(payload, allow_nan=False))
            size = len(json.dumps(payload, ensure_ascii=False).encode())
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self.name}: {self._fault(payload) or error}") from error
        check_size(self.name, payload, size)
        copy = {key: value for key, value in copy.items() if value or key == "id"}
        exact = {key: value for key, value in copy.items() if _is_inexact(value)}
        copy.update((key, _within_64_bits(value)) for key, value in exact.items())
        if is_deep(copy.get("extra", {})):
            exact["extra"] = copy.pop("extra")
        if exact:
            copy[_EXACT] = json.dumps(exact)
        return copy

    def _fault(self, payload: Mapping[str, Any]) -> str | None:
        """What is wrong with fields that JSON in UTF-8 cannot hold."""
        for key in ("id", "text", "document_id", "content_hash"):
            if isinstance(value := payload[key], str) and (lone := _LONE_SURROGATE.search(value)):
                return f"its {key} must be valid Unicode, and has a lone surrogate, {lone[0]!a}"
        fault = storage_fault(self.metadata)
        return None if fault is None else f"metadata cannot be written as JSON: {fault}"

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Entry:
        """Read the result of `to_payload`; keys of later versions are ignored.

        Raises:
            StoreError: it is damaged, has too many levels, or another program wrote it.
        """
        fields = _copied(payload)  # the engine in memory returns the objects that it holds
        if exact := fields.pop(_EXACT, None):
            fields.update(_exact_values(exact, payload))
        fields = {key: value for key in _TYPES if (value := field_of(fields, key)) is not None}
        id_of(fields)
        grid = fields.pop("grid", None)
        entry = cls(**fields)
        if grid is not None:
            object.__delattr__(entry, "grid")
            object.__setattr__(entry, _PACKED, grid)
        return entry


def _may_be_name(text: str, id_: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a text could be the entry's name, which takes longer to make than this: a search asks it often."""
    page = metadata.get("page")
    return text == id_ or (isinstance(page, int) and text.endswith(f", page {page}"))


def payload_has_words(payload: Mapping[str, Any]) -> bool:
    """`Entry.has_words` of a payload, without a copy of it.

    Raises:
        StoreError: it is damaged, or another program wrote it.

    Example:
        >>> payload_has_words({"id": "a", "text": "tides.pdf, page 3", "metadata": {"source": "tides.pdf", "page": 3}})
        False
    """
    if _EXACT in payload:
        return Entry.from_payload(payload).has_words
    id_, text, metadata = id_of(payload), field_of(payload, "text") or "", field_of(payload, "metadata") or {}
    if not _may_be_name(text, id_, metadata):
        return has_words(text)
    return Entry(id=id_, text=text, metadata=metadata).has_words


def id_of(payload: Mapping[str, Any]) -> str:
    """The id in a payload.

    Raises:
        StoreError: it has none: the payload is damaged, or another program wrote it.
    """
    id_ = payload.get("id")
    if not isinstance(id_, str):
        raise StoreError(f"an entry of the store has the id {shown(id_)}, and an id is a string; {_ADVICE}")
    return id_


def fitting_fields(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a payload that have the type of an entry's, for payloads that another program may have changed.

    >>> fitting_fields({"id": "a", "text": 3, "year": 2024})
    {'id': 'a'}
    """
    fields = {key: payload[key] for key, kind in _TYPES.items() if isinstance(payload.get(key), kind)}
    with suppress(StoreError):
        exact = _exact_values(payload[_EXACT], payload) if _EXACT in payload else {}
        if exact and all(isinstance(value, _TYPES.get(key, object)) for key, value in exact.items()):
            fields[_EXACT] = payload[_EXACT]
    return fields


def field_of(payload: Mapping[str, Any], key: str) -> Any:
    """A field of a payload; None where it is missing.

    Raises:
        StoreError: it is of another type: the payload is damaged, or another program wrote it.
    """
    value = payload.get(key)
    if value is None or isinstance(value, _TYPES[key]):
        return value
    expected = "an object" if _TYPES[key] is dict else "a string"
    raise StoreError(f"the entry {shown(payload.get('id'))}: its {key} is {shown(value)}, not {expected}; {_ADVICE}")


_ADVICE = (
    "it is damaged, or another program wrote it. Verify and repair a store in a folder, and remove such a point from a "
    "collection on a server"
)
_TYPES: dict[str, type] = {
    **dict.fromkeys(("id", "text", "document_id", "content_hash"), str),
    **dict.fromkeys(("metadata", "grid", "extra"), dict),
}


def _exact_values(text: Any, payload: Mapping[str, Any]) -> dict[str, Any]:
    try:
        values = parse_json(text)
    except (TypeError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise StoreError(f"the entry {shown(payload.get('id'))}: its {_EXACT} numbers are {shown(text)}; {_ADVICE}")
    return values


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A result of a search.

    Attributes:
        entry: the page or text.
        score: the rank's score: MaxSim, or in a hybrid search the fused score, in [0, 1]. A search by text is hybrid
            by default with models that gain by it, such as ColTiny.
        max_sim: the sum over the query's vectors of their best dot product on the page. It grows with the number of
            query vectors, so it ranks the answers to one query and is not comparable between queries.
        relevance: MaxSim over the highest that any page could have for this query, in [0, 1]; see `scoring.maxsim`.
        bm25: score of the text, in a hybrid search, if it shares a word with the query that not all texts have; 0 where
            it shares only others, and MaxSim is not above 0 either.
        halves: in a hybrid search, what look and words contributed to the score, and how much each counted.

    Example:
        >>> from colpali_integrations import ColPali
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> model = ColPali.from_pretrained()
        >>> [query] = model.embed_queries("diverging palettes")
        >>> with MultiVectorStore.open("my-index") as store:
        ...     [hit] = store.search(query, 1)
        >>> hit.entry.name, 0 < hit.relevance <= 1, hit.score == hit.max_sim
        ('report.pdf, page 1', True, True)
    """

    entry: Entry
    score: float
    max_sim: float
    relevance: float
    bm25: float | None = None
    halves: Halves | None = None

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.entry.id

    @property
    def matches(self) -> bool:
        """Whether the entry has anything of the question: a MaxSim above 0, or one of its words in the text."""
        return self.max_sim > 0 or self.bm25 is not None


# Qdrant's fast JSON reader is right for floats of up to 15 digits and moderate size, and off by the last bit for a
# tenth of the others; it loses integers beyond 64 bits. The nearest value is good enough for filters, but not for
# documents, which must be returned unchanged: payloads with such numbers also contain the exact JSON text. So do those
# with an adapter's data of too many levels for a server, which stand in the text alone.
_EXACT = "exact"


def _is_inexact(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_is_inexact, value.values()))
    if isinstance(value, list):
        return any(map(_is_inexact, value))
    if isinstance(value, float):
        return value != 0 and (float(f"{value:.15g}") != value or not 1e-7 <= abs(value) <= 1e22)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _copied(payload: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of a payload."""
    try:
        return {key: _copied_value(value) for key, value in payload.items()}
    except RecursionError as error:
        raise StoreError(
            f"the entry {reprlib.repr(payload.get('id'))} has too many levels of dicts and lists: another program "
            "wrote it; remove it, and index its document again"
        ) from error


def _copied_value(value: Any) -> Any:
    if type(value) in _UNCHANGING:  # nearly all, and asking whether it is a Mapping takes ten times as long
        return value
    if isinstance(value, Mapping):
        return {key: _copied_value(one) for key, one in value.items()}
    return list(map(_copied_value, value)) if isinstance(value, list) else value


def _within_64_bits(value: Any) -> Any:
    """The value with integers beyond 64 bits as floats."""
    if isinstance(value, dict):
        return {key: _within_64_bits(one) for key, one in value.items()}
    if isinstance(value, list):
        return list(map(_within_64_bits, value))
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        limit = 10**300
        return float(max(-limit, min(value, limit)))
    return value
