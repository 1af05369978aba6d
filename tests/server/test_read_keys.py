"""A second API key, whose callers search and read, and cannot add, change or delete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.server.routes import TABLE
from colpali_integrations.server.settings import ApiKey, ServerSettings
from colpali_integrations.stores import Entry, MultiVectorStore, index_documents
from colpali_integrations.stores.engine import Engine
from colpali_integrations.stores.served.answers import CALLS, WRITES
from tests.server.conftest import KEY, Running, Start, cookie_of
from tests.server.test_search import QUESTION

READ_KEY = "another-key-that-only-reads"


def keys(*names: str) -> dict[str, ApiKey]:
    values = {"key": KEY, "read_key": READ_KEY}
    return {name: ApiKey(values[name], where="the tests") for name in names}


@pytest.fixture
def shared(start: Start, papers: Path, coltiny: ColPali) -> Running:
    """A server with both keys and the report."""
    server = start(**keys("key", "read_key"), roots=[papers])
    index_documents(papers / "report.pdf", model=coltiny, store=server.store)
    return server


READING = {"Authorization": f"Bearer {READ_KEY}"}
CHANGING = {"Authorization": f"Bearer {KEY}"}
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
READS: list[tuple[str, str, Any]] = [
    ("POST", "/v1/search", {"query": QUESTION}),
    ("GET", "/v1/documents", None),
    ("GET", "/v1/jobs", None),
    ("GET", "/metrics", None),
    ("GET", "/v1/models", None),
    ("POST", "/v1/embeddings", {"input": "tide"}),
    ("POST", "/v1/encode", {"queries": ["tide"]}),
    ("POST", "/v1/rerank", {"query": "tide", "documents": ["low tide"]}),
    ("POST", "/v1/engine", {"call": "count", "arguments": {}}),
    ("POST", "/mcp", LIST),
]


@pytest.mark.parametrize(("method", "path", "body"), READS)
def test_the_key_for_reading_reads(method: str, path: str, body: Any, shared: Running) -> None:
    headers = {**READING, "Accept": "application/json, text/event-stream"}
    assert shared.client.request(method, path, json=body, headers=headers).status_code == 200


def test_it_changes_nothing(shared: Running) -> None:
    client, before = shared.client, shared.store.documents()
    [document] = before
    refused = [
        client.post("/v1/documents", files={"file": ("a.pdf", b"%PDF-1.7")}, headers=READING),
        client.delete(f"/v1/documents/{document}", headers=READING),
        *(
            client.post("/v1/engine", json={"call": call, "arguments": {"ids": list[str]()}}, headers=READING)
            for call in sorted(WRITES)
        ),
    ]
    for answer in refused:
        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "read_only_key")
        assert "that needs the server's other key" in answer.json()["message"]
        assert READ_KEY not in answer.text
    assert shared.store.documents() == before
    assert client.delete(f"/v1/documents/{document}", headers=CHANGING).json()["removed"] == 2
    assert client.get("/v1/documents", headers={"Authorization": f"Bearer {READ_KEY}x"}).status_code == 401
    assert client.get("/v1/documents").status_code == 401


def test_every_address_and_call_that_changes_the_index_is_marked() -> None:
    changing = {(one.method, one.path) for one in TABLE if one.changes}
    assert changing == {("POST", "/v1/documents"), ("DELETE", "/v1/documents/{id:path}")}
    assert {one.method for one in TABLE} == {"GET", "POST", "DELETE"}
    reading = {"manifest", "retrieve", "vectors", "scroll", "count", "documents", "has_words", "search"}
    assert CALLS.keys() - WRITES == reading
    assert reading < vars(Engine).keys()


def test_a_reader_signs_in_with_it_and_still_only_reads(shared: Running) -> None:
    client = shared.client
    signed_in = client.post("/session", json={"key": READ_KEY})
    assert signed_in.json() == {"needs_key": True, "signed_in": True, "may_change": False, "chat": None}
    own = {"Origin": shared.url}
    assert client.cookies[cookie_of(shared)]
    assert client.get("/session").json()["may_change"] is False
    assert client.post("/v1/search", json={"query": QUESTION}, headers=own).status_code == 200
    assert client.delete("/v1/documents/a", headers=own).json()["error"]["code"] == "read_only_key"
    # The key counts more than the session.
    assert client.delete("/v1/documents/a", headers={**own, **CHANGING}).status_code == 404


def test_with_it_alone_nobody_changes_anything(start: Start) -> None:
    server = start(**keys("read_key"))
    assert server.client.get("/v1/documents").status_code == 401
    assert server.client.get("/v1/documents", headers=CHANGING).status_code == 401
    assert server.client.get("/v1/documents", headers=READING).status_code == 200
    assert server.client.delete("/v1/documents/a", headers=READING).status_code == 403
    assert ServerSettings(host="0.0.0.0", read_key=keys("read_key")["read_key"]).needs_key


def test_a_store_elsewhere_is_read_with_it_and_not_written(shared: Running, tmp_path: Path, coltiny: ColPali) -> None:
    file = tmp_path / "key"
    file.write_text(READ_KEY)
    with MultiVectorStore.open(shared.url, model=coltiny, api_key_file=file) as far:
        assert [hit.id for hit in far.search(QUESTION)] == [hit.id for hit in shared.store.search(QUESTION)]
        with pytest.raises(ConfigurationError, match="may search and read, and not add, change or delete"):
            far.add([(Entry(id="a"), coltiny.embed_query("tide"))])
        with pytest.raises(ConfigurationError, match="may search and read"):
            far.delete(where={"page": 1})
    assert len(shared.store) == 2


def test_two_keys_are_two() -> None:
    with pytest.raises(ConfigurationError, match="are the same API key") as raised:
        ServerSettings(key=ApiKey(KEY, where="a"), read_key=ApiKey(KEY, where="b"))
    assert "--read-key-file" in (raised.value.command or "")
    assert KEY not in str(raised.value)
