"""Limits of what requests send: bytes, and seconds."""

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
_SLOWEST = 4096  # bytes per second, after the first seconds
_SHORT = 2**16  # bytes of a body that need no room
_ROOM_FOR_JSON = 256 * 2**20
_UPLOADS_AT_ONCE = 4  # of the largest size


class Limited:
    """Ends requests whose bodies are too long or too slow, or for which there is no room beside those of others.

    Args:
        app: that gets the bodies.
        max_upload_bytes: of an uploaded file; a search and a call of a tool have 1 MiB, pages and points of other
            machines have 128 MiB, and other bodies have 32 MiB.
    """

    def __init__(self, app: ASGIApp, max_upload_bytes: int) -> None:
        self._app, self._upload = app, max_upload_bytes + _FORM
        self._uploads, self._others = _Room(_UPLOADS_AT_ONCE * self._upload), _Room(_ROOM_FOR_JSON)

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
        body = _Body(receive, most, self._uploads if most == self._upload else self._others)
        try:
            await self._app(scope, body.receive, send)
        except asyncio.CancelledError:  # by uvicorn, once the seconds for an end have passed
            await answer(stopping())(scope, receive, send)
        finally:
            body.leave()


class _Room:
    """Bytes that the bodies of several requests may have together.

    Args:
        most: number of them.

    Attributes:
        used: number of them that bodies have now.
    """

    def __init__(self, most: int) -> None:
        self.most, self.used = most, 0


class _Body:
    """The body of one request, which has its place in a room until the request is answered."""

    def __init__(self, receive: Receive, most: int, room: _Room) -> None:
        self._receive, self._most, self._room = receive, most, room
        self._size = self._held = 0
        self._ended = False
        self._began = time.monotonic()

    async def receive(self) -> Message:
        """The next piece.

        Raises:
            RequestError: 408, 413 or 429: it is too slow, too long, or there is no room for it.
        """
        if self._ended:  # what follows is the end of the connection
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), self._seconds_left())
        except (asyncio.TimeoutError, TimeoutError):
            raise RequestError(408, "the body did not come in time; send it again", "too_slow") from None
        self._size += len(message.get("body", b""))
        self._ended = message["type"] != "http.request" or not message.get("more_body", False)
        if self._size > self._most:
            raise _too_long(self._most)
        self._hold(max(0, self._size - _SHORT))
        return message

    def leave(self) -> None:
        """Give its place back."""
        self._room.used -= self._held
        self._held = 0

    def _seconds_left(self) -> float:
        in_all = min(_ALL_SECONDS, _IDLE_SECONDS + self._size / _SLOWEST)
        return max(0.0, min(_IDLE_SECONDS, self._began + in_all - time.monotonic()))

    def _hold(self, size: int) -> None:
        if size and self._room.used - self._held + size > self._room.most:
            raise RequestError(
                429,
                f"the bodies of all requests have more than {self._room.most:,} bytes now; ask again in 1 s",
                "no_room",
                {"Retry-After": "1"},
            )
        self._room.used += size - self._held
        self._held = size


def _too_long(most: int) -> RequestError:
    return RequestError(
        413, f"the body has more than {most:,} bytes, which is the most here; send less at a time", "too_long"
    )
