"""Ids, payloads and filters of a collection that another program has made, by its `Layout`.

A point's payload becomes the metadata of an entry, under its own keys; `source`, `page` and the text come from the keys
that the layout names. Pages that this package adds keep what the layout has no key for under `OWN`.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from typing import Any

from colpali_integrations.errors import StoreError
from colpali_integrations.pages.identity import page_name
from colpali_integrations.stores.engine import Payload
from colpali_integrations.stores.filters import (
    CONTENT,
    DOCUMENT,
    ID,
    RESERVED,
    And,
    Condition,
    Filter,
    Not,
    Operator,
    Or,
    matches,
)
from colpali_integrations.stores.layout import Layout
from colpali_integrations.stores.qdrant.filters import (
    ClientDialect,
    Served,
    is_exact,
    is_storable,
    point_id,
    storable_path,
)

__all__ = ["OWN", "ForeignDialect", "ForeignPayloads", "fields_of", "known_point"]

OWN = "colpali_integrations"
"""The key of a payload under which added pages keep their id, document, content hash, grid and adapter's data."""

_KEPT = ("id", "text", "document_id", "content_hash", "grid", "extra", "exact")
_PAGE, _SOURCE = "page", "source"
_EQUALS = (Operator.EQ, Operator.CONTAINS, Operator.IN, Operator.ANY)
_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}
_LOWEST = -1e308
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def known_point(id_: str | int | uuid.UUID) -> str | int:
    """A server's id in its one form: an int, or a UUID in lower case with hyphens.

    >>> known_point("6F1C8D0E54AB5C5B9F0E3C1A7B6D2E90"), known_point(7)
    ('6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90', 7)
    """
    return id_ if isinstance(id_, int) else str(uuid.UUID(str(id_)))


def fields_of(where: Filter | None) -> set[str]:
    """The fields that a filter asks for."""
    if isinstance(where, Condition):
        return {where.field}
    parts = where.parts if isinstance(where, And | Or) else (where.part,) if isinstance(where, Not) else ()
    return {field for part in parts for field in fields_of(part)}


class ForeignPayloads:
    """Translates ids and payloads of one collection.

    Args:
        layout: of the collection.
        whole_ids: whether its ids are whole numbers, and not UUIDs.
        text_pages: whether its numbers of pages are texts.
    """

    def __init__(self, layout: Layout, *, whole_ids: bool = False, text_pages: bool = False) -> None:
        self.layout = layout
        self._whole_ids, self._text_pages = whole_ids, text_pages
        self._shift = 1 - layout.page_base

    def point(self, id_: str) -> str | int:
        """The id of an entry's point: the number or UUID that the entry's id is, else one made of it.

        >>> ForeignPayloads(Layout()).point("17")
        17
        """
        if (number := _whole_text(id_)) is not None and 0 <= number < 2**64:
            return number
        with suppress(ValueError):
            return known_point(id_)
        if not self._whole_ids:
            return point_id(id_)
        return int.from_bytes(sha256(id_.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1

    def payload(self, point: str | int, raw: Mapping[str, Any], *, with_text: bool = False) -> Payload:
        """The payload of an entry, as `Entry.from_payload` reads it.

        Args:
            point: its id on the server.
            raw: its payload there.
            with_text: keep the text among the metadata too, where filters find it under its own key.
        """
        layout, own = self.layout, raw.get(OWN)
        metadata = {key: value for key, value in raw.items() if key != OWN}
        if layout.source is not None:
            _put(metadata, _SOURCE, raw.get(layout.source))
        if layout.page is not None:
            _put(metadata, _PAGE, self._page(raw.get(layout.page)))
        text = None if layout.text is None else raw.get(layout.text)
        if isinstance(text, str) and not with_text:
            metadata.pop(str(layout.text), None)
        if isinstance(own, Mapping):
            identity = {"id": str(point), **({"text": text} if isinstance(text, str) else {})}
            return {**identity, **{key: own[key] for key in _KEPT if key in own}, "metadata": metadata}
        return {
            "id": str(point),
            "text": text if isinstance(text, str) and text else _name(metadata) or "",
            "metadata": metadata,
            "document_id": None if layout.source is None else _document(raw.get(layout.source)),
        }

    def raw(self, payload: Payload) -> dict[str, Any]:
        """The payload on the server of an entry that is added or changed; undoes `payload`.

        Raises:
            StoreError: the metadata have the key that is the package's own.
        """
        layout, metadata = self.layout, dict(payload.get("metadata") or {})
        if OWN in metadata:
            raise StoreError(
                f"{payload['id']}: metadata cannot have the key {OWN!r}, under which the package keeps its own values "
                "in a collection of another program; rename it"
            )
        kept = {key: payload[key] for key in _KEPT if key in payload}
        if layout.text is not None and kept.get("text") not in (None, _name(metadata)):
            metadata[layout.text] = kept.pop("text")
        if layout.page is not None:
            number = metadata.pop(_PAGE, None)
            if number is not None and self._page(metadata.get(layout.page)) != number:
                metadata[layout.page] = self._own_page(number)
        if layout.source is not None and (source := metadata.pop(_SOURCE, None)) is not None:
            metadata[layout.source] = source
        return {**metadata, OWN: kept}

    def keys(self, fields: Collection[str] | None) -> list[str] | bool:
        """The paths of the server's payloads that are needed for some fields of an entry's payload; True for all."""
        if fields is None or "metadata" in fields:
            return True
        layout = self.layout
        keys = {layout.source} if "document_id" in fields else set()
        return _paths({*keys, *((layout.text, layout.source, layout.page) if "text" in fields else ())})

    def filtered_keys(self, fields: Iterable[str]) -> list[str] | bool:
        """The paths of the server's payloads that filters on some fields read; True for all."""
        names = {_PAGE: self.layout.page, _SOURCE: self.layout.source, DOCUMENT: self.layout.source}
        return _paths({key for field in fields if (key := names.get(field) or field) not in RESERVED})

    def number(self, value: Any) -> Any:
        """The collection's number of a page that an entry counts as `value`."""
        return value - self._shift

    def _page(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._page(one) for one in value]
        if isinstance(value, str):
            value = value if (number := _whole_text(value)) is None else number
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        if isinstance(value, float) and not math.isfinite(value):
            return value
        return int(value) + self._shift if value == int(value) else value + self._shift

    def _own_page(self, number: Any) -> Any:
        if isinstance(number, bool) or not isinstance(number, int | float):
            return number
        return str(self.number(number)) if self._text_pages else self.number(number)


class ForeignDialect(ClientDialect):
    """Filters over the payloads of a collection that another program has made.

    Args:
        payloads: of the collection.
        read: returns the entries' payloads that fit a condition, with the values of some fields.
        substring: as `ClientDialect`.
        served: as `ClientDialect`.
        most: as `ClientDialect`.
    """

    def __init__(
        self,
        payloads: ForeignPayloads,
        read: Callable[[Any, Collection[str]], Iterable[Payload]],
        *,
        substring: bool = False,
        served: Served | None = None,
        most: int | None = None,
    ) -> None:
        super().__init__(substring=substring, served=served, most=most)
        self._payloads, self._read = payloads, read
        self.mapped = {ID, DOCUMENT, *([_PAGE] if payloads.layout.page is not None else ())}

    def key(self, field: str) -> str | None:
        """The path to a field within the payload; None if the path cannot be written, or several keys decide."""
        if field == CONTENT:
            return f"{OWN}.content_hash"
        layout = self._payloads.layout
        names = {_SOURCE: layout.source, _PAGE: layout.page}
        name = names.get(field) or field
        if field in (ID, DOCUMENT) or field == OWN or not storable_path(name):
            return None
        return _written(name)

    @property
    def source_key(self) -> str | None:
        """The path to the source of a document; None where the layout has none, or it cannot be written."""
        return None if self._payloads.layout.source is None else self.key(_SOURCE)

    def has_texts(self, key: str) -> bool:
        """Whether the collection has an index of a field's texts."""
        return self._served is not None and self._served.kind(key) in ("text", "tenant")

    def point(self, id_: str) -> str | int:
        """The server's id of an entry's point."""
        return self._payloads.point(id_)

    def mapped_condition(self, where: Condition) -> Any | None:
        """A condition on the id, the document or the number of the page."""
        op, value = where.op, where.value
        several: tuple[Any, ...] = value if isinstance(value, tuple) else (value,)
        among = {ID: self._with_id, DOCUMENT: self._of_document, _PAGE: self._with_page}[where.field]
        if op is Operator.ALL:
            each = [among((one,)) for one in several]
            return None if any(one is None for one in each) else self.combine(must=each)
        if op in _EQUALS:
            return among(several)
        if op in (Operator.NE, Operator.NIN):
            found = among(several)
            return None if found is None else self.combine(must_not=[found])
        if op is Operator.EXISTS and where.field == ID:
            return self.combine() if value else self.ids(())
        if op is Operator.EXISTS and where.field == _PAGE and self.serves(self._page_key, "any"):
            empty = self.empty(self._page_key)
            return self.combine(must_not=[empty]) if value else empty
        is_range = op in _BOUNDS and where.field == _PAGE and not isinstance(value, bool) and is_exact(value)
        if is_range and self._serves(self._page_key, "number", "any"):
            return self._page_range(where)
        return None

    def _serves(self, key: str, *kinds: str) -> bool:
        return all(self.serves(key, kind) for kind in kinds)

    @property
    def _page_key(self) -> str:
        return str(self.key(_PAGE))

    def _with_id(self, values: tuple[Any, ...]) -> Any:
        return self.ids({self.point(one) for one in values if isinstance(one, str)})

    def _of_document(self, values: tuple[Any, ...]) -> Any | None:
        texts = [one for one in values if isinstance(one, str) and one and is_storable(one)]
        own = f"{OWN}.document_id"
        if texts and not self.serves(own, "text"):
            return None
        found = [self.one_of(own, texts)] if texts else []
        if self._payloads.layout.source is not None and texts:
            key = self.key(_SOURCE)
            if key is None:
                return None
            numbers = [number for one in texts if (number := _whole_text(one)) is not None]
            if not all(map(is_exact, numbers)) or not self._serves(key, "text", *(["number"] if numbers else [])):
                return None
            sources = [self.one_of(key, texts), *(self.between(key, {"gte": one, "lte": one}) for one in numbers)]
            found.append(self.combine(must=[self.empty(f"{OWN}.id"), self.combine(should=sources)]))
        return self.combine(should=found) if found else self.ids(())

    def _with_page(self, values: tuple[Any, ...]) -> Any | None:
        key = self._page_key
        numbers = [self._payloads.number(one) for one in values if not isinstance(one, str | bool)]
        if not all(map(is_exact, numbers)) or not self.ranges(key, len(numbers)):
            return None
        texts = [one for one in values if isinstance(one, str) and is_storable(one) and _whole_text(one) is None]
        texts += [str(int(one)) for one in numbers if one == int(one)]
        kinds = {"text": texts, "number": numbers, "bool": [one for one in values if isinstance(one, bool)]}
        if not self._serves(key, *(kind for kind, some in kinds.items() if some)):
            return None
        found = [self.one_of(key, texts)] if texts else []
        found += [self.equals(key, one) for one in values if isinstance(one, bool)]
        found += [self.between(key, {"gte": one, "lte": one}) for one in numbers]
        return self.combine(should=found) if found else self.ids(())

    def _page_range(self, where: Condition) -> Any:
        """Numbers within a bound, and points whose page is another kind of value, mostly none: they are read."""
        key, bound = self._page_key, self._payloads.number(where.value)
        others = self.combine(must_not=[self.empty(key), self.between(key, {"gte": _LOWEST})])
        fitting = {self.point(one["id"]) for one in self._read(others, (_PAGE,)) if matches(where, one)}
        numbers = self.between(key, {_BOUNDS[where.op]: bound})
        return self.combine(should=[numbers, self.ids(fitting)]) if fitting else numbers


def _written(key: str) -> str:
    """The path to a key of the payload, with quotes only where they are needed, as servers show it."""
    return key if _PLAIN.fullmatch(key) else f'"{key}"'


def _paths(keys: Collection[str | None]) -> list[str] | bool:
    """The paths to some keys and our own; True where one of them cannot be written."""
    names = [key for key in keys if key is not None]
    return [OWN, *sorted(map(_written, names))] if all(map(storable_path, names)) else True


def _put(metadata: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        metadata.pop(key, None)
    else:
        metadata[key] = value


def _whole_text(text: str) -> int | None:
    """The number of a text that is written as Python and JSON write it; None for another text."""
    digits = text.removeprefix("-")
    if not 0 < len(digits) <= 20 or not digits.isascii() or not digits.isdigit():
        return None
    return int(text) if str(int(text)) == text else None


def _document(source: Any) -> str | None:
    if isinstance(source, list) and len(source) == 1:
        [source] = source  # as filters and facets of the server see it
    if isinstance(source, str):
        return source or None
    if isinstance(source, float) and is_exact(source) and source == int(source):
        source = int(source)  # as which a server may return it
    return str(source) if isinstance(source, int) and not isinstance(source, bool) else None


def _name(metadata: Mapping[str, Any]) -> str | None:
    source, number = metadata.get(_SOURCE), metadata.get(_PAGE)
    is_page = isinstance(source, str) and isinstance(number, int) and not isinstance(number, bool)
    return page_name(str(source), int(number)) if is_page and number is not None else None
