"""The tools through langchain-mcp-adapters, as a LangChain agent gets them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.agents.clients import COMMAND, roots_of

client_module = pytest.importorskip(
    "langchain_mcp_adapters.client", reason="langchain-mcp-adapters needs version 1 of the SDK"
)


async def test_a_langchain_agent_gets_texts_and_pictures(library: Path) -> None:
    server = {"transport": "stdio", "command": sys.executable, "args": [*COMMAND, *roots_of(library)]}
    client = client_module.MultiServerMCPClient({"pages": server})
    tools: dict[str, Any] = {tool.name: tool for tool in await client.get_tools()}
    assert set(tools) == {"list_documents", "search_pages", "read_page"}
    call = {
        "type": "tool_call",
        "id": "1",
        "name": "search_pages",
        "args": {"question": "diverging palettes", "k": 2},
    }
    answer = await tools["search_pages"].ainvoke(call)
    blocks = [(block["type"], block.get("mime_type", "")) for block in answer.content_blocks]
    assert [kind for kind, _ in blocks] == ["text", "image", "text", "image"]
    assert all(mime in ("image/webp", "image/png") for kind, mime in blocks if kind == "image")
    assert answer.content_blocks[0]["text"].startswith("1. report.pdf, page 1 of 2")
