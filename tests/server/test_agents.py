"""`/mcp`: the tools of agents over HTTP, behind the rules of all addresses."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

from tests.agents.clients import called, over_http, pictures_of, plain, texts_of
from tests.server.conftest import KEY, Running, Start
from tests.server.test_documents import ended, send

HEADERS = {"Accept": "application/json, text/event-stream", "Content-Type": "application/json"}


def message(method: str, **parameters: Any) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})


async def test_the_sdks_client_searches_over_http(served: Running) -> None:
    async with over_http(served.url) as session:
        assert len(plain(await session.list_tools())["tools"]) == 3
        found = await called(session, "search_pages", question="diverging palettes", k=2)
        assert texts_of(found)[0].startswith("1. report.pdf, page 1 of 2") and len(pictures_of(found)) == len(
            texts_of(found)
        )
        refused = await called(session, "read_page", document="none.pdf", page=1)
        assert refused["isError"] and "list_documents lists its 1 document" in texts_of(refused)[0]
    loads = [line for line in served.client.get("/metrics").text.splitlines() if 'route="/mcp"' in line]
    assert loads, "requests of agents are counted"


async def test_a_key_is_needed(locked: Running) -> None:
    async with over_http(locked.url, {"Authorization": f"Bearer {KEY}"}) as session:
        assert (await called(session, "list_documents"))["structuredContent"]["total"] == 0
    assert locked.client.post("/mcp", content=message("tools/list"), headers=HEADERS).status_code == 401


def test_other_hosts_origins_methods_and_long_bodies_are_refused(served: Running) -> None:
    post = served.client.post
    assert post("/mcp", content=message("tools/list"), headers={**HEADERS, "Host": "evil.example"}).status_code == 421
    other = {**HEADERS, "Origin": "https://evil.example"}
    assert post("/mcp", content=message("tools/list"), headers=other).status_code == 403
    assert served.client.get("/mcp").status_code == 405
    assert post("/mcp", content=b"x" * (2**20 + 1), headers=HEADERS).status_code == 413
    pieces = iter([b"x" * 2**20, b"x"])
    assert post("/mcp", content=pieces, headers=HEADERS).status_code == 413
    assert post("/mcp", content=b"{", headers=HEADERS).status_code == 400


async def test_an_upload_is_found_and_shown(start: Start, papers: Path) -> None:
    server = start()
    ended(server.client, send(server.client, papers / "report.pdf"))
    async with over_http(server.url) as session:
        found = await called(session, "search_pages", question="diverging palettes", k=1)
        assert texts_of(found)[0].startswith("1. report.pdf, page 1 of 2") and len(pictures_of(found)) == 1


def test_without_the_sdk_the_address_says_what_to_install(served: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "colpali_integrations.server.agents.find_spec", lambda name: None if name == "mcp" else found(name)
    )
    answer = served.client.post("/mcp", content=message("tools/list"), headers=HEADERS)
    assert answer.status_code == 501
    assert 'pip install "colpali-integrations[mcp]"' in answer.json()["error"]["message"]
