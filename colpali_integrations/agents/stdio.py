"""MCP on this process's own streams, for clients that start a program: Claude Desktop, editors, command lines."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TypeVar

import anyio
import anyio.to_thread
from mcp.server.stdio import stdio_server

from colpali_integrations.agents.protocol import mcp_server
from colpali_integrations.agents.tools import PageTools

__all__ = ["run_stdio"]

Result = TypeVar("Result")

_QUESTIONS, _DRAWINGS = 4, 2  # at the same time


def run_stdio(tools: PageTools) -> None:
    """Serve tools until the client closes standard input, or a signal ends the process.

    From here on standard output belongs to the protocol: whatever else writes to it, even from a library in C, goes to
    standard error.

    Args:
        tools: over a store.
    """
    incoming, outgoing = _private_streams()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _end_process)
    try:
        anyio.run(_serve, tools, incoming, outgoing)
    except Exception as error:
        if not _is_of_client(error):
            raise
        os._exit(0)  # as after a signal


async def _serve(tools: PageTools, incoming: io.TextIOWrapper, outgoing: io.TextIOWrapper) -> None:
    questions, drawings = anyio.CapacityLimiter(_QUESTIONS), anyio.CapacityLimiter(_DRAWINGS)

    async def ask(work: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=questions)

    async def draw(work: Callable[[], Result]) -> Result:
        return await anyio.to_thread.run_sync(work, abandon_on_cancel=True, limiter=drawings)

    server = mcp_server(tools, ask=ask, draw=draw)
    async with stdio_server(anyio.wrap_file(incoming), anyio.wrap_file(outgoing)) as streams:
        await server.run(*streams, server.create_initialization_options())


def _private_streams() -> tuple[io.TextIOWrapper, io.TextIOWrapper]:
    """Standard input and output under new descriptors; the usual ones become an empty file and standard error."""
    sys.stdout.flush()
    incoming, outgoing = (os.dup(number) for number in (0, 1))  # processes that read PDFs do not inherit them
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    return (
        open(incoming, encoding="utf-8", errors="replace"),  # noqa: PTH123 - a descriptor, open until the end
        open(outgoing, "w", encoding="utf-8", newline="\n"),  # noqa: PTH123
    )


def _is_of_client(error: BaseException) -> bool:
    """Whether an error, or all errors of a group, mean that the client has closed its end."""
    several = getattr(error, "exceptions", None)
    if several is None:
        return isinstance(error, BrokenPipeError | anyio.BrokenResourceError | anyio.ClosedResourceError)
    return all(map(_is_of_client, several))


def _end_process(number: int, frame: FrameType | None) -> None:
    """End at once: the store is only read, and the thread that waits for standard input cannot be woken."""
    os._exit(0)
