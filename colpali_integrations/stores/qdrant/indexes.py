"""Indexes of payload fields on a Qdrant server.

A collection in strict mode refuses conditions on fields without an index, and conditions of another kind than the
field's index. `Indexes` knows which conditions the server takes, and makes the index of a field that is filtered by, if
the server permits it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores.engine import Payload
from colpali_integrations.stores.qdrant.collection import QdrantClient, is_local, models
from colpali_integrations.stores.qdrant.errors import is_denied
from colpali_integrations.stores.qdrant.index_kinds import IndexKind
from colpali_integrations.stores.qdrant.strict import StrictMode

__all__ = ["Indexes"]

_logger = package_logger(__name__)

# Float, not integer: the integer index misses 3.0.
_SCHEMAS: dict[str, Any] = {
    "text": models.PayloadSchemaType.KEYWORD,
    "number": models.PayloadSchemaType.FLOAT,
    "bool": models.PayloadSchemaType.BOOL,
    "datetime": models.PayloadSchemaType.DATETIME,
    "tenant": models.KeywordIndexParams(type=models.KeywordIndexType.KEYWORD, is_tenant=True),
}
_SHOWN = {"keyword": "text", "float": "number", "text": "words"}
# Fields that are filtered by most often, in the order of their need.
_OWN: dict[str, IndexKind] = {
    "document_id": "text",
    "content_hash": "text",
    "metadata.source": "text",
    "metadata.page": "number",
}
_COMPARED: dict[str, IndexKind] = {"text": "text", "number": "number", "bool": "bool"}
_SAMPLE = 64  # payloads
_MOST_MET = 1000  # fields that are noted


class Indexes:
    """The indexes of one collection.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        collection: its name.
        where: the collection and its server, for messages.
        strict: the limits of the collection.
        schema: `payload_schema` of the collection's info.
        auto: whether to make the indexes that filters need.
        sample: reads some payloads, for the kind of a field's values.
        ours: whether this package made the collection, so that openings may make indexes.
    """

    def __init__(
        self,
        using: Callable[[], AbstractContextManager[QdrantClient]],
        collection: str,
        where: str,
        *,
        strict: StrictMode,
        schema: Mapping[str, Any],
        auto: bool,
        sample: Callable[[int], Iterable[Payload]],
        ours: bool = True,
    ) -> None:
        self._using, self._collection, self._where = using, collection, where
        self._strict, self._auto, self._sample, self._ours = strict, auto, sample, ours
        self._kinds = _kinds(schema)
        self._warned: set[tuple[str, ...]] = set()
        self._met: dict[str, IndexKind] = {}  # metadata fields of pages that were written, or read for filters
        self._lock = threading.RLock()
        with using() as client:
            self._none = is_local(client)  # the local mode has no indexes, and warns about them

    def make_own(self) -> None:
        """Make the indexes of the fields that the package itself filters by, as far as the server permits it.

        Raises:
            StoreError: the server cannot be reached.
        """
        missing = [(key, kind) for key, kind in _OWN.items() if _path(key) not in self._kinds and not self._none]
        all(self._try(key, kind) for key, kind in missing)  # until one is refused, as the others would be

    def make(self, indexes: Mapping[str, IndexKind]) -> None:
        """Make the indexes that the caller wants, but for those that are there.

        Raises:
            ConfigurationError: a field has an index of another kind.
            StoreError: the server cannot be reached, or refuses.
        """
        for field, kind in indexes.items():
            there = self._kinds.get(("metadata", field))
            if there is None and not self._none:
                self._create(f'metadata."{field}"', kind)
            elif there not in (None, kind):
                raise ConfigurationError(
                    f"{self._where} has an index of the kind {there!r} for {field!r}, not {kind!r}. Leave the field "
                    "out of indexes=, or remove its index by QdrantClient.delete_payload_index and open the store again"
                )

    def fields(self) -> dict[str, str]:
        """The kinds of the indexes by metadata field; kinds that only other programs make have Qdrant's names."""
        return {".".join(path[1:]): kind for path, kind in self._kinds.items() if path[0] == "metadata"}

    def all(self) -> dict[str, str]:
        """The kinds of the indexes by the path of their field in the payload."""
        return {".".join(path): kind for path, kind in self._kinds.items()}

    def kind(self, key: str) -> str | None:
        """The kind of a field's index; None without one.

        Args:
            key: the path of the field in the payload.
        """
        return self._kinds.get(_path(key))

    def serves(self, key: str, kind: str) -> bool:
        """Whether the server takes a condition, if need be after the index has been made.

        It is made for a field that some page has, as far as is known: one of a sample, or one that was noted. Another
        field may be misspelt, and would take the place of one of the few indexes.

        Args:
            key: the path of the field in the payload.
            kind: of the values that it is compared with: "text", "number" or "bool"; "substring"; "any" for the
                question whether the field is empty.

        Raises:
            StoreError: the server cannot be reached.
        """
        if self.has(key, kind):
            return True
        path = _path(key)
        with self._lock:
            is_new = path not in self._warned or path[-1] in self._met
            wanted = self._kind_of(path, kind) if kind != "substring" and is_new and self._may_make(path) else None
            self._try(key, wanted)
            served = self.has(key, kind)
            if not served and path not in self._warned:
                self._warned.add(path)
                there = self._kinds.get(path)
                is_met = path[-1] in self._met or wanted is not None
                _logger.warning(
                    "%s is in strict mode and %s for %s: filters on it read the payloads, which takes longer%s",
                    self._where,
                    "has no index" if there is None else f"has an index of the kind {there!r}, no other,",
                    path[-1] if self._ours else ".".join(path),
                    self._advice(path, is_met=is_met) if there is None else "",
                )
        return served

    def _advice(self, path: tuple[str, ...], *, is_met: bool) -> str:
        if not self._ours:
            return ". An index of it on the server makes them faster (QdrantClient.create_payload_index)"
        if len(path) != 2:
            return ""
        advice = f". Open the store with indexes={{{path[-1]!r}: ...}}"
        most = self._strict.indexes
        if is_met or not self._auto or (most is not None and len(self._kinds) >= most):
            return advice
        return f". No page is known to have it; is the name right?{advice.removeprefix('.')}, if it is"

    def has(self, key: str, kind: str) -> bool:
        """Whether the server takes a condition as it is; as `serves`, without making an index."""
        if not self._strict.indexed_only:
            return True
        there = self._kinds.get(_path(key))
        if kind == "any":
            return there is not None
        return there == kind or (there == "tenant" and kind == "text")

    def note(self, payload: Payload) -> None:
        """Note the metadata fields of a stored page, which may then get an index."""
        metadata = payload.get("metadata")
        if not (self._strict.indexed_only and self._auto and isinstance(metadata, Mapping)):
            return
        for name, value in metadata.items():
            if name not in self._met and len(self._met) < _MOST_MET:
                self._met.update((name, kind) for kind in _kinds_of(value)[:1])

    def _may_make(self, path: tuple[str, ...]) -> bool:
        """Whether an index is missing, and may be made."""
        most = self._strict.indexes
        if path in self._kinds or not self._auto or (most is not None and len(self._kinds) >= most):
            return False
        with self._using() as client:  # another process may have made it
            self._kinds |= _kinds(client.get_collection(self._collection).payload_schema)
        return path not in self._kinds and (most is None or len(self._kinds) < most)

    def _kind_of(self, path: tuple[str, ...], kind: str) -> IndexKind | None:
        """The kind of most of the field's stored values, as far as any are known.

        They may be of a kind that no index has, such as objects: then the kind of the values that it is compared with.
        """
        kinds: Counter[IndexKind] = Counter()
        is_met = False
        for payload in self._sample(_SAMPLE):
            value: Any = payload
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            is_met = is_met or value is not None
            kinds.update(_kinds_of(value))
        if kinds:
            return kinds.most_common(1)[0][0]
        noted = self._met.get(path[-1]) if path[0] == "metadata" else None
        return noted or (_COMPARED.get(kind) if is_met else None)

    def _try(self, key: str, kind: IndexKind | None) -> bool:
        """Make an index of a kind that is known; False where the server refuses it."""
        if kind is None:
            return True
        try:
            self._create(key, kind)
        except StoreError as error:
            if not is_denied(error):
                raise
            self._auto = False
            _logger.warning("%s: no index is made for %s: %s", self._where, _path(key)[-1], error)
            return False
        _logger.info("%s: made an index of the kind %r for %s", self._where, kind, _path(key)[-1])
        return True

    def _create(self, key: str, kind: IndexKind) -> None:
        with self._using() as client:
            client.create_payload_index(self._collection, key, field_schema=_SCHEMAS[kind], wait=True)
        self._kinds[_path(key)] = kind


def _path(key: str) -> tuple[str, ...]:
    """The names of a path; servers write them with quotes only where these are needed.

    >>> _path('metadata."a.b"'), _path("metadata.page")
    (('metadata', 'a.b'), ('metadata', 'page'))
    """
    first, quote, rest = key.partition('."')
    return (*first.split("."), rest.removesuffix('"')) if quote else tuple(key.split("."))


def _kinds(schema: Mapping[str, Any]) -> dict[tuple[str, ...], str]:
    kinds: dict[tuple[str, ...], str] = {}
    for key, index in schema.items():
        name = str(getattr(index.data_type, "value", index.data_type))
        tenant = name == "keyword" and getattr(index.params, "is_tenant", None)
        kinds[_path(key)] = "tenant" if tenant else _SHOWN.get(name, name)
    return kinds


def _kinds_of(value: Any) -> list[IndexKind]:
    """The kinds of a field's value, which may be a list."""
    kinds = map(_kind, value if isinstance(value, list) else [value])
    return [kind for kind in kinds if kind is not None]


def _kind(value: object) -> IndexKind | None:
    """The kind of a stored value."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return "text" if isinstance(value, str) else None
