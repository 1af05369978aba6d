"""Limits of what a request sends: bytes, and seconds."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colpali_integrations.server.errors import RequestError, answer, stopping

__all__ = ["AGENTS", "CALLS", "ENCODINGS", "MOST_OF_PAGES", "SEARCHES", "UPLOADS", "Limited"]

UPLOADS = "/v1/documents"
"""The address that takes files."""
SEARCHES = "/v1/search"
"""The address that takes questions and filters, which are short."""
ENCODINGS = "/v1/encode"
"""The address that takes pages of other machines, as PNG."""
CALLS = "/v1/engine"
"""The address that takes points of stores on other machines."""
MOST_OF_PAGES = 128 * 2**20
"""The most bytes of such a request: a page as PNG has about two bytes per pixel."""
AGENTS = "/mcp"
"""The address of tools for agents, whose arguments are short."""
_MOST_JSON, _MOST_OF_SEARCH = 32 * 2**20, 2**20
_FORM = 2**20  # of an upload's other fields
_IDLE_SECONDS, _ALL_SECONDS = 30.0, 900.0


class Limited:
    """Ends requests whose bodies are too long or too slow.

    Args:
        app: that gets the bodies.
        max_upload_bytes: of an uploaded file; a search and a call of a tool have 1 MiB, pages and points of other
            machines have 128 MiB, and other bodies have 32 MiB.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self._app, self._upload = app, max_upload_bytes + _FORM

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limits = {
            UPLOADS: self._upload,
            **dict.fromkeys((SEARCHES, AGENTS), _MOST_OF_SEARCH),
            **dict.fromkeys((ENCODINGS, CALLS), MOST_OF_PAGES),
        }
        most = limits.get(scope["path"], _MOST_JSON) if scope["method"] == "POST" else _MOST_JSON
        length = Headers(scope=scope).get("content-length", "")
        if length.isdecimal() and len(length) < 20 and int(length) > most:
            await answer(_too_long(most))(scope, receive, send)
            return
        try:
            await self._app(scope, _limited(receive, most), send)
        except asyncio.CancelledError:  # by uvicorn, once the seconds for an end have passed
            await answer(stopping())(scope, receive, send)


def _limited(receive: Receive, most: int) -> Receive:
    size, ended, until = 0, False, time.monotonic() + _ALL_SECONDS

    async def limited() -> Message:
        nonlocal size, ended
        if ended:  # what follows is the end of the connection
            return await receive()
        try:
            left = min(_IDLE_SECONDS, until - time.monotonic())
            message = await asyncio.wait_for(receive(), max(left, 0))
        except (asyncio.TimeoutError, TimeoutError):
            raise RequestError(408, "the body did not come in time; send it again", "too_slow") from None
        size += len(message.get("body", b""))
        ended = message["type"] != "http.request" or not message.get("more_body", False)
        if size > most:
            raise _too_long(most)
        return message

    return limited


def _too_long(most: int) -> RequestError:
    return RequestError(
        413, f"the body has more than {most:,} bytes, which is the most here; send less at a time", "too_long"
    )
