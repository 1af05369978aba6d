"""Ids, payloads and filters of a collection that another program has made, by its `Layout`.

A point's payload becomes the metadata of an entry, under its own keys; `source`, `page` and the text come from the keys
that the layout names. Pages that this package adds keep what the layout has no key for under `OWN`.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from hashlib import sha256
from types import MappingProxyType
from typing import Any

from colpali_integrations._text import is_unicode
from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.identity import page_name
from colpali_integrations.pages.metadata import source_text
from colpali_integrations.stores.engine import Payload
from colpali_integrations.stores.entries import fitting_fields
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
from colpali_integrations.stores.payload_paths import (
    Path,
    path_of,
    value_at,
    with_value,
    without_value,
    written_path,
)
from colpali_integrations.stores.qdrant.filters import (
    ClientDialect,
    Served,
    is_exact,
    point_id,
    storable_path,
)
from colpali_integrations.stores.qdrant.foreign_pictures import PICTURE_KEYS, picture_metadata, stored_picture

__all__ = ["OWN", "ForeignDialect", "ForeignPayloads", "fields_of", "known_point"]

OWN = "colpali_integrations"
"""The key of a payload under which added pages keep their id, document, content hash, grid and adapter's data."""

_KEPT = ("id", "text", "document_id", "content_hash", "grid", "extra", "exact")
_PAGE, _SOURCE = "page", "source"
_EQUALS = (Operator.EQ, Operator.CONTAINS, Operator.IN, Operator.ANY)
_BOUNDS = {Operator.GT: "gt", Operator.GTE: "gte", Operator.LT: "lt", Operator.LTE: "lte"}
_LOWEST = -1e308


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
        sample: a payload of it, which shows whether its numbers of pages are texts, and its pictures data URLs.
    """

    def __init__(
        self, layout: Layout, *, whole_ids: bool = False, sample: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self.layout, self._whole_ids = layout, whole_ids
        self._source, self._page_at = _path(layout.source), _path(layout.page)
        self._text, self._image = _path(layout.text), _path(layout.image)
        self._text_pages = isinstance(_value(sample, self._page_at), str)
        self._data_urls = str(_value(sample, self._image)).startswith("data:")
        self._shift = 1 - layout.page_base

    def point(self, id_: str) -> str | int:
        """The id of an entry's point: the number or UUID that the entry's id is, else one made of it.

        The ids of pages of documents are 32 hexadecimal digits, which is a UUID too. Where the ids are whole numbers,
        only a UUID as servers write it, with hyphens, is one: a page that is added gets a number.

        >>> ForeignPayloads(Layout()).point("17")
        17
        """
        if (number := _whole_text(id_)) is not None and 0 <= number < 2**64:
            return number
        with suppress(ValueError):
            known = known_point(id_)
            if known == id_ or not self._whole_ids:
                return known
        return _hashed(id_) if self._whole_ids else point_id(id_)

    def _points(self, id_: str) -> tuple[str | int, ...]:
        """The ids that `point` may have made, also when the collection had others than today."""
        known: list[str | int] = []
        with suppress(ValueError):
            known.append(known_point(id_))
        return self.point(id_), *known, _hashed(id_), point_id(id_)

    def payload(self, point: str | int, raw: Mapping[str, Any], *, fields: Collection[str] | None = None) -> Payload:
        """The payload of an entry, as `Entry.from_payload` reads it. A value of another type than expected is left out.

        Args:
            point: its id on the server.
            raw: its payload there.
            fields: that a filter asks for: these are among the metadata, under their own names, the text too.
        """
        layout, own = self.layout, raw.get(OWN)
        metadata = {key: value for key, value in raw.items() if key != OWN}
        if self._source is not None:
            _put(metadata, _SOURCE, value_at(raw, self._source))
        if self._page_at is not None:
            _put(metadata, _PAGE, self._page(value_at(raw, self._page_at)))
        text = _value(raw, self._text)
        if fields is not None:
            metadata |= {field: value_at(raw, path_of(field)) for field in fields if layout.reaches(field)}
        else:
            metadata = self._shown(metadata, raw, text)
        fitting = fitting_fields(own) if isinstance(own, Mapping) else {}
        if "id" in fitting and known_point(point) in self._points(fitting["id"]):
            return {"text": text if isinstance(text, str) else "", **self._own(fitting), "metadata": metadata}
        return {
            "id": str(point),
            "text": text if isinstance(text, str) and text else _name(metadata) or "",
            "metadata": metadata,
            "document_id": None if self._source is None else _document(value_at(raw, self._source)),
        }

    def _shown(self, metadata: dict[str, Any], raw: Mapping[str, Any], text: Any) -> dict[str, Any]:
        """The metadata of an entry, without the text, and with the picture where all adapters look for it."""
        if self._text is not None and isinstance(text, str):
            metadata = without_value(metadata, self._text)
        picture = picture_metadata(_value(raw, self._image))
        if self._image is not None and "image_base64" in picture:
            metadata = without_value(metadata, self._image)
        return {**metadata, **picture}

    def _own(self, fitting: Payload) -> Payload:
        """What the package keeps of a page that it has added; a grid that cannot be read is left out."""
        kept = {key: fitting[key] for key in _KEPT if key in fitting}
        if "grid" in kept:
            try:
                PageGrid.from_json(kept["grid"])
            except InputError:
                del kept["grid"]
        return kept

    def raw(self, payload: Payload, before: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The payload on the server of an entry that is added or changed; undoes `payload`.

        Args:
            payload: of the entry.
            before: the payload on the server of an entry that is changed, whose picture stays.

        Raises:
            StoreError: the metadata have the key that is the package's own, or a value in the place of an object of the
                layout.
        """
        metadata = dict(payload.get("metadata") or {})
        if OWN in metadata:
            raise StoreError(
                f"{payload['id']}: metadata cannot have the key {OWN!r}, under which the package keeps its own values "
                "in a collection of another program; rename it"
            )
        kept = {key: payload[key] for key in _KEPT if key in payload}
        values: list[tuple[Path, Any]] = []
        if self._text is not None and kept.get("text") not in (None, _name(metadata)):
            values.append((self._text, kept.pop("text")))
        if self._page_at is not None:
            number = metadata.pop(_PAGE, None)
            if number is not None and self._page(value_at(metadata, self._page_at)) != number:
                values.append((self._page_at, self._own_page(number)))
        if self._source is not None and (source := metadata.pop(_SOURCE, None)) is not None:
            values.append((self._source, source))
        if self._image is not None:
            picture = stored_picture(metadata, as_url=self._data_urls) if before is None else before
            metadata = {key: value for key, value in metadata.items() if key not in PICTURE_KEYS}
            if isinstance(picture, Mapping):
                metadata |= {key: picture[key] for key in PICTURE_KEYS if key in picture}
                picture = value_at(picture, self._image)
            values += [] if picture is None else [(self._image, picture)]
        try:
            for path, value in values:
                metadata = with_value(metadata, path, value)
        except ValueError as error:
            raise StoreError(f"{payload['id']}: metadata: {error}, as the layout has it; rename the key") from error
        return {**metadata, OWN: kept}

    def keys(self, fields: Collection[str] | None) -> list[str] | bool:
        """The paths of the server's payloads that are needed for some fields of an entry's payload; True for all."""
        if fields is None or "metadata" in fields:
            return True
        paths = {self._source} if "document_id" in fields else set()
        return _paths({*paths, *((self._text, self._source, self._page_at) if "text" in fields else ())})

    def filtered_keys(self, fields: Iterable[str]) -> list[str] | bool:
        """The paths of the server's payloads that filters on some fields read; True for all."""
        return _paths({self.path(field) for field in fields})

    def path(self, field: str) -> Path | None:
        """The path to the field of a filter; None for the entry's own fields.

        >>> ForeignPayloads(Layout(page="metadata.page")).path("metadata.tenant")
        ('metadata', 'tenant')
        """
        mapped = {_PAGE: self._page_at, _SOURCE: self._source, DOCUMENT: self._source}.get(field)
        if mapped is not None or field in RESERVED:
            return mapped
        return path_of(field) if self.layout.reaches(field) else (field,)

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
        path = self._payloads.path(field)
        if field in (ID, DOCUMENT) or path is None or field == OWN or not all(map(storable_path, path)):
            return None
        return written_path(path)

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
        texts = [one for one in values if isinstance(one, str) and one and is_unicode(one)]
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
        texts = [one for one in values if isinstance(one, str) and is_unicode(one) and _whole_text(one) is None]
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


def _hashed(id_: str) -> int:
    return int.from_bytes(sha256(id_.encode("utf-8", "surrogatepass")).digest()[:8], "big") >> 1


def _path(key: str | None) -> Path | None:
    return None if key is None else path_of(key)


def _value(payload: Mapping[str, Any], path: Path | None) -> Any:
    return None if path is None else value_at(payload, path)


def _paths(paths: Collection[Path | None]) -> list[str] | bool:
    """The paths to some values and to our own, as texts; True where one of them cannot be written."""
    known = [path for path in paths if path is not None]
    is_storable_path = all(storable_path(key) for path in known for key in path)
    return [OWN, *sorted(map(written_path, known))] if is_storable_path else True


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
    source, number = source_text(metadata), metadata.get(_PAGE)
    if source is None or isinstance(number, bool) or not isinstance(number, int):
        return None
    return page_name(source, number)
