"""What a store keeps beside the vectors, and what it answers with."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.identity import page_name

__all__ = ["Entry", "Hit"]


_PACKED = "_packed_grid"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A page, or a text, without its vectors: what is searched for, filtered by and shown.

    Attributes:
        id: any string; adding another entry with this id replaces it.
        text: what it says: the text layer of a page, or its name ("report.pdf, page 7") where it has none.
        metadata: JSON-safe, for filters and frameworks; of a page the keys of `pages.document`.
        document_id: the document that it belongs to; a document can be deleted as a whole.
        content_hash: equal for equal content (`pages.identity.page_key`, `text_key`), which is encoded only once.
        grid: where on the page each of its vectors stands; None for a text.
        extra: JSON-safe, an adapter's own; not for filters.

    Raises:
        StoreError: when it is stored: an empty id, or metadata that JSON cannot hold.

    Example:
        >>> entry = Entry(id="a", text="Low tide at six", metadata={"source": "harbour.pdf", "page": 3})
        >>> entry.name, entry.page, entry.is_page  # no grid: a text, for all that its metadata say
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
        """Unpack the grid of a stored entry when somebody looks at it: a reranker of hundreds never does."""
        if name == "grid" and _PACKED in self.__dict__:
            object.__setattr__(self, "grid", PageGrid.from_json(self.__dict__[_PACKED]))
            return self.grid
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    @property
    def is_page(self) -> bool:
        """Whether its vectors stand for places on a page, which those of a text do not."""
        return _PACKED in self.__dict__ or self.grid is not None

    @property
    def source(self) -> str | None:
        """The path or URI of the document, where the metadata tell."""
        source = self.metadata.get("source")
        return source if isinstance(source, str) else None

    @property
    def page(self) -> int | None:
        """The page's 1-based number, where the metadata tell."""
        page = self.metadata.get("page")
        return page if isinstance(page, int) and not isinstance(page, bool) else None

    @property
    def name(self) -> str:
        """The entry as a person would name it: "report.pdf, page 7", or its id."""
        return self.id if self.source is None or self.page is None else page_name(self.source, self.page)

    @property
    def has_text(self) -> bool:
        """Whether it says something: a page without a text layer has only its name."""
        return bool(self.text) and self.text != self.name

    def to_payload(self) -> dict[str, Any]:
        """JSON-safe fields as engines keep them; what is empty is left out.

        Raises:
            StoreError: the id is empty or no string, or metadata or extra hold what JSON cannot.
        """
        given: object = self.id  # whoever has no types may hand in a number
        if not isinstance(given, str) or not given:
            raise StoreError(f"an entry's id must be a string that is not empty, got {self.id!r}")
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
            kept: dict[str, Any] = json.loads(json.dumps(payload, allow_nan=False))
            json.dumps(payload, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise StoreError(f"{self.name}: metadata must be what JSON can hold ({error})") from error
        kept = {key: value for key, value in kept.items() if value or key == "id"}
        if delicate := {key: value for key, value in kept.items() if _delicate(value)}:
            kept[_EXACT] = json.dumps(delicate)
            kept.update((key, _sturdy(value)) for key, value in delicate.items())
        return kept

    @classmethod
    def from_payload(cls, payload: Mapping[str, Any]) -> Entry:
        """The entry that `to_payload` was called on."""
        fields = dict(payload)
        if exact := fields.pop(_EXACT, None):
            fields.update(json.loads(exact))
        grid = fields.pop("grid", None)
        entry = cls(**fields)
        if grid is not None:
            object.__delattr__(entry, "grid")
            object.__setattr__(entry, _PACKED, grid)
        return entry


@dataclass(frozen=True, kw_only=True)
class Hit:
    """An entry that was found.

    Attributes:
        entry: what was found.
        score: what it is ranked by: MaxSim, or in a hybrid search the fused score, in [0, 1].
        max_sim: the sum over the query's vectors of their best dot product on the page. It grows with the number of
            query vectors: it ranks the answers to one query and compares nothing else.
        relevance: MaxSim over the highest that any page could have for this query, in [0, 1]; see `scoring.maxsim`.
        bm25: the text's score, in a hybrid search, if it shares a word with the query.

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

    @property
    def id(self) -> str:
        """The entry's id."""
        return self.entry.id


# Qdrant reads JSON by a fast route that is right for floats of up to 15 digits and moderate size, and off by the last
# bit for a tenth of the others; integers beyond 64 bits it does not keep at all. Filters can live with the nearest
# value, a document that must come back as it was cannot: payloads with such numbers hold the exact text beside them.
_EXACT = "exact"


def _delicate(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_delicate, value.values()))
    if isinstance(value, list):
        return any(map(_delicate, value))
    if isinstance(value, float):
        return value != 0 and (float(f"{value:.15g}") != value or not 1e-7 <= abs(value) <= 1e22)
    return isinstance(value, int) and not -(2**63) <= value < 2**63


def _sturdy(value: Any) -> Any:
    """The value with integers beyond 64 bits as floats."""
    if isinstance(value, dict):
        return {key: _sturdy(one) for key, one in value.items()}
    if isinstance(value, list):
        return list(map(_sturdy, value))
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**63) <= value < 2**63:
        return float(value) if abs(value) < 1e300 else math.copysign(1e300, value)
    return value
