"""Clients of the SDK, in either of its major versions, whose results are read as the protocol writes them."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TextIO

import mcp.client.streamable_http as streamable
from mcp import ClientSession, StdioServerParameters, types
from mcp.client.stdio import stdio_client

COMMAND = ["-m", "colpali_integrations.cli", "mcp"]


@asynccontextmanager
async def over_stdio(
    *arguments: str, errors: TextIO = sys.stderr, variables: Mapping[str, str] | None = None
) -> AsyncIterator[ClientSession]:
    """A session with the command's own process."""
    environment = {**os.environ, **(variables or {})}
    parameters = StdioServerParameters(command=sys.executable, args=[*COMMAND, *arguments], env=environment)
    async with stdio_client(parameters, errlog=errors) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield session


@asynccontextmanager
async def over_http(url: str, headers: Mapping[str, str] | None = None) -> AsyncIterator[ClientSession]:
    """A session with the address `/mcp` of a server."""
    is_old = hasattr(streamable, "streamablehttp_client")
    if is_old:
        import httpx as client_library
    else:
        import httpx2 as client_library  # type: ignore[no-redef]
    client: Any = client_library.AsyncClient(headers=dict(headers or {}), timeout=60, trust_env=False)
    connection = streamable.streamable_http_client(f"{url}/mcp", http_client=client)
    async with client, connection as streams, ClientSession(streams[0], streams[1]) as session:
        await session.initialize()
        yield session


def plain(result: Any) -> Any:
    """A result as the protocol writes it."""
    return result.model_dump(by_alias=True, mode="json", exclude_none=True)


async def called(session: ClientSession, name: str, **arguments: Any) -> Any:
    """The result of a tool."""
    return plain(await session.call_tool(name, arguments))


async def read(session: ClientSession, uri: str) -> Any:
    """The contents of a resource."""
    address: Any = getattr(types, "AnyUrl", str)(uri)  # version 2 takes a string
    return plain(await session.read_resource(address))["contents"]


def texts_of(result: Any) -> list[str]:
    return [block["text"] for block in result["content"] if block["type"] == "text"]


def pictures_of(result: Any) -> list[str]:
    return [block["data"] for block in result["content"] if block["type"] == "image"]


def roots_of(folder: Path) -> list[str]:
    return ["--store", str(folder / "index"), "--root", str(folder)]
