"""Targets that read where a collection on a Qdrant server is, its options and the layout of another program's."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import httpx
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import ResponseHandlingException
from typer import BadParameter

from colpali_integrations.cli import collections
from colpali_integrations.cli.options import store_place
from colpali_integrations.errors import ColPaliError
from colpali_integrations.stores import Entry, Layout, MultiVectorStore
from colpali_integrations.stores.collection_options import checked_options
from colpali_integrations.stores.qdrant.foreign_payloads import OWN, ForeignPayloads
from colpali_integrations.stores.qdrant.index_kinds import checked_indexes
from colpali_integrations.stores.qdrant.retries import Patience
from colpali_integrations.stores.qdrant.suggestion import not_ours
from tests.fuzz.choices import Choices, json_text
from tests.fuzz.engine import Target
from tests.fuzz.mutators import changed_bytes
from tests.fuzz.servers import Faithful
from tests.fuzz.targets.models import work
from tests.fuzz.targets.qdrant import place_on, qdrant_server
from tests.stores.backends import MODEL, entry, page

_NAMES = ("full", "first", "source", "page", "page_base", "text", "image")
_KEYS = ("document", "page", "page_number", "source", "text", OWN, "mean_pooling_rows", "original", "id", "a.b", "a")
_FILE: dict[str, Any] = {
    "url": ["http://localhost:6333", "localhost"],
    "collection_name": "pages",
    "model": "coltiny",
    "layout": {"full": "colpali", "first": ["mean"], "source": "doc", "page": "page_no", "page_base": 0},
    "indexes": {"year": "number"},
    "auto_index": True,
    "writable": False,
    "options": {"timeout": 5, "prefer_grpc": False, "headers": {"a": "b"}, "https": False, "prefix": "x"},
}
_OPTIONS = (
    *("timeout", "https", "port", "grpc_port", "prefix", "headers", "metadata", "grpc_options", "api_key", "location"),
    *("verify", "proxy", "cert", "auth", "limits", "http2", "pool_size", "retry_seconds", "transport", "trust_env"),
    *("cloud_inference", "auth_token_provider", "params", "cookies", "base_url", "event_hooks", "mounts", "model"),
)
_URLS = (
    *("http://localhost:6333", "https://[::1]:6333", "http://[", "localhost", "//", "http://", "http://a:b", "ftp://a"),
    *(
        "http://user:secret@a",
        "http://a:99999",
        "http://a:6333/prefix?x=1",
        "https://xn--a",
        "http://\x00",
        "unix:///a",
    ),
    *("http://a b", "qdrant+http://a", "", "http://é.example", "http://a#b", "HTTP://A", "data:,x", "http://%zz"),
)


@contextmanager
def _offline() -> Iterator[None]:
    """No request leaves this process."""

    def refused(*args: Any, **options: Any) -> Any:
        raise ResponseHandlingException(httpx.ConnectError("[Errno 111] Connection refused"))

    with (
        patch.object(QdrantClient, "collection_exists", refused),
        patch.object(httpx.HTTPTransport, "handle_request", refused),
    ):
        yield


def place(data: bytes) -> None:
    """The JSON file that names a collection, and URLs, as `--store` takes them; no request is made."""
    choices = Choices(data)
    if choices.byte() % 4 == 0:
        text = choices.pick(_URLS) + choices.text()
        store_place(text)
        with _offline():
            MultiVectorStore.open(url=choices.pick((text, [text, "http://b"])), model=MODEL).close()
        return
    file = {key: value for key, value in _FILE.items() if choices.byte() % 4}
    if choices.flag():
        file["options"] = {choices.pick(_OPTIONS): choices.value(2, _OPTIONS) for _ in range(choices.byte() % 3)}
    if choices.byte() % 4 == 0:
        file["url"] = choices.pick(_URLS)
    content = json_text(choices.changed(file, (*_FILE, *_OPTIONS))).encode()
    path = work() / "collection.json"
    path.write_bytes(changed_bytes(choices, content) if choices.byte() % 16 == 1 else content)
    with _offline():
        collections.has_layout(path)
        for read in (collections.named_model, collections.place_settings):
            with suppress(ColPaliError):
                read(path)
        collections.opened_store(path).close()


_VALUES: tuple[Any, ...] = (
    *(1, 2, 3, 10, 1.0, None, True, False, "majority", "all", "auto", "custom"),
    *({}, {"m": 16}, {"enabled": True}),
)


def collection(data: bytes) -> None:
    """`collection_options`, `indexes`, `retry_seconds` and the others of a new collection, which is then used."""
    choices = Choices(data)
    names = (
        *("shard_number", "replication_factor", "write_consistency_factor", "read_consistency", "graph", "timeout"),
        *("sharding_method", "on_disk_payload", "hnsw_config", "optimizers_config", "wal_config", "strict_mode_config"),
    )
    options: Any = {
        choices.pick(names): choices.value(2) if choices.byte() % 8 == 1 else choices.pick(_VALUES)
        for _ in range(choices.byte() % 3)
    }
    if choices.byte() % 8 == 1:
        options = choices.value(2, names)
    fields = ("year", "a.b", "source", "page", "$id", '"', "text", "number", "bool", "datetime", "tenant")
    indexes: Any = {choices.pick(fields): choices.pick(fields[5:]) for _ in range(choices.byte() % 3)}
    if choices.byte() % 4 == 1:
        indexes = choices.value(2, fields)
    seconds: Any = choices.pick((None, 0, 1.5, (1, 2), choices.value(2), [choices.number(), choices.number()]))
    checks = (lambda: checked_options(options), lambda: checked_indexes(indexes), lambda: Patience.of(seconds))
    refused = sum(map(_is_refused, checks))
    name, given = "made", {"collection_options": options, "indexes": indexes}
    if options is None or indexes is None:
        given = {key: value for key, value in given.items() if value is not None}
        refused = sum(_is_refused(check) for check, value in zip(checks, (options, indexes, 0), strict=True) if value)
    server = qdrant_server()
    try:
        place = place_on(Faithful(server), name, model=MODEL, first_vectors=2, **given)
        with MultiVectorStore.open(**{**place, "retry_seconds": seconds}) as store:
            assert not refused
            assert store.add([(entry(1), page(1, rows=3))]) == 1
            assert [hit.entry.id for hit in store.search(page(1, rows=2), 1)] == ["page 1"]
    finally:
        if server.client.collection_exists(name):
            server.client.delete_collection(name)
        server.strict.forget(name)


def _is_refused(check: Any) -> bool:
    try:
        check()
    except ColPaliError:
        return True
    return False


def layout(data: bytes) -> None:
    """Layouts, the payloads of a foreign point and their way back, and the layout that is suggested."""
    choices = Choices(data)
    payloads = [choices.mapping(3, _KEYS) for _ in range(1 + choices.byte() % 3)]
    vectors = {
        (choices.pick(_KEYS) if choices.byte() % 4 else choices.text()): _params(choices)
        for _ in range(choices.byte() % 4)
    }
    info = SimpleNamespace(config=SimpleNamespace(params=SimpleNamespace(vectors=vectors)))
    records = [models.Record(id=number, payload=one) for number, one in enumerate(payloads)]
    client: Any = SimpleNamespace(get_collection=lambda name: info, scroll=lambda name, **options: (records, None))
    str(not_ours(client, "a", "the collection"))
    written: Any = {name: choices.pick((*_KEYS, 0, 1, [], [choices.text()], None)) for name in _NAMES if choices.flag()}
    if choices.byte() % 4 == 1:
        written = choices.changed(written, _NAMES)
    read = Layout.of(written)
    assert eval(repr(read), {"Layout": Layout}) == read == Layout.of(json.loads(json.dumps(read.to_dict())))
    foreign = ForeignPayloads(read, whole_ids=choices.flag(), sample=payloads[0])
    for raw in payloads:
        point: Any = choices.pick((7, "00000000-0000-0000-0000-000000000007"))
        Entry.from_payload(foreign.payload(point, raw, fields=choices.pick((["text"], ["page", "a.b"], ["source"]))))
        found = Entry.from_payload(foreign.payload(point, raw))
        _ = found.name, found.page, found.source, found.has_text, found.is_page
        assert foreign.point(str(point)) == point
        back = foreign.raw(found.to_payload())
        json.dumps(back, allow_nan=False)
        named = {str(one).split(".")[0] for one in (read.source, read.page, read.text, read.image)}
        named |= {"source", "page", OWN}
        before, after = ({key: one for key, one in some.items() if key not in named} for some in (raw, back))
        assert _as_a_server_has_them(before) == _as_a_server_has_them(after)


def _as_a_server_has_them(value: Any) -> Any:
    """The value with whole numbers beyond 64 bits as floats."""
    if isinstance(value, dict):
        return {key: _as_a_server_has_them(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_as_a_server_has_them(one) for one in value]
    is_large = isinstance(value, int) and not -(2**63) <= value < 2**63
    return float(max(-(10**300), min(value, 10**300))) if is_large else value


def _params(choices: Choices) -> models.VectorParams:
    several = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return models.VectorParams(
        size=choices.pick((1, 8, 128)),
        distance=choices.pick([*models.Distance]),
        multivector_config=choices.pick((several, several, None)),
    )


TARGETS = [
    Target("place", place, refusals=(BadParameter,)),
    Target("collection", collection),
    Target("layout", layout),
]
