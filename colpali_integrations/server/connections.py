"""The open connections of a server: how many there may be, and how long each may wait for its client.

A connection waits for its client while it is idle, and while a head, a body or the reading of an answer is incomplete.
It does not wait while the server works for it. Where all places are taken, a new connection gets the place of one that
waits, so that clients which only hold connections open cannot close the server to others.

    asyncio's transport
     |  bytes
    Guarded       counts connections, and the bytes and seconds of heads
     |
    uvicorn       HTTP; it limits neither the seconds of a head nor, by httptools, its bytes
     |  requests
    Attended      notes when the server works, and when it waits for the client
     |
    application
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colpali_integrations.server.errors import problem

__all__ = ["Attended", "Connection", "Connections", "Guarded"]

_IDLE_SECONDS = 30.0  # before the first request, between two, and for the rest of a refused body
_HEAD_SECONDS = 10.0  # from the first byte of a head to its last
_SEND_SECONDS = 60.0  # until the client has read a piece of its answer
_LONGEST_HEAD = 2**19  # a question of 32,768 characters may be in an address, with 12 bytes per character

Address = tuple[str, int]


class Connection:
    """One connection.

    Args:
        transport: of its bytes.
        address: of the client, with its port.

    Attributes:
        since: the time since which it waits for its client; None while the server works for it.
        until: the time at which it is closed; None while the server works, or where a limit of bodies holds.
    """

    def __init__(self, transport: asyncio.Transport, address: Address) -> None:
        self.address = address
        self.since: float | None = None
        self.until: float | None = None
        self._transport = transport
        self._requests = 0  # that the server works for
        self._came = 0  # bytes since the head of the last request
        self._body = 0  # bytes of the last request's body, as far as its head tells
        self._most = _LONGEST_HEAD  # bytes that may come before the next head is complete
        self._in_head = False
        self._unsent = 0  # bytes of answers, at the last look
        self.wait(_IDLE_SECONDS)

    def wait(self, seconds: float | None) -> None:
        """Note that the client is waited for, and for how long at most; None: another limit holds."""
        self.since = time.monotonic()
        self.until = None if seconds is None else self.since + seconds

    def work(self) -> None:
        """Note that the server works."""
        self.since = self.until = None

    def begin(self, length: int | None) -> None:
        """Note that the head of a request has come.

        Args:
            length: number of bytes of its body; None for one in chunks, whose end `end_body` tells.
        """
        self._requests += 1
        self._came, self._body, self._in_head = 0, length or 0, False
        self._most = 2**63 if length is None else length + _LONGEST_HEAD
        self.work()

    def end_body(self) -> None:
        """Note that all of a body has come, or that no more of it is read."""
        self._most = min(self._most, max(self._came, self._body) + _LONGEST_HEAD)

    def end(self) -> None:
        """Note that a request has been answered."""
        self._requests -= 1
        if not self._requests:
            self.end_body()
            self.wait(_IDLE_SECONDS)

    def receive(self, size: int) -> bool:
        """Note that so many bytes have come; whether the connection may go on."""
        fits = self._came <= self._most  # the bytes before these: a body may come in one piece with its head
        self._came += size
        if not self._requests and not self._in_head and self._came > self._body:
            self._in_head = True
            self.wait(_HEAD_SECONDS)
        return fits

    def is_late(self, now: float) -> bool:
        """Whether the client has not done in time what it should; one that reads an answer slowly gets more time."""
        if self.until is None or self.until > now:
            return False
        unsent = self._transport.get_write_buffer_size()
        if unsent and unsent != self._unsent:
            self._unsent = unsent
            self.until = now + _SEND_SECONDS
            return False
        return True

    def close(self) -> None:
        """Close the connection; a client that has not sent all of a head is told why."""
        if self._in_head and not self._requests:
            if self._came > self._most:
                self._transport.write(_raw(400, f"the head has more than {_LONGEST_HEAD:,} bytes", "long_head"))
            else:
                self._transport.write(_raw(408, "the head did not come in time; send it again", "slow_head"))
            self._transport.close()
        else:
            self._transport.abort()


class Connections:
    """The open connections of a server. All methods run in the event loop's thread.

    Args:
        most: number of connections.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[Address, Connection] = {}

    def __len__(self) -> int:
        """Number of open connections."""
        return len(self._open)

    def add(self, transport: asyncio.Transport) -> Connection | None:
        """Take a new connection; None, after an answer of 503, where the server works for all the others."""
        peer = transport.get_extra_info("peername") or ("", id(transport))
        if len(self._open) >= self._most and not self._make_room():
            text = f"all {self._most} connections of the server are at work; ask again"
            transport.write(_raw(503, text, "no_connection", wait=1))
            transport.close()
            return None
        address = (str(peer[0]), int(peer[1]))
        connection = self._open[address] = Connection(transport, address)
        return connection

    def remove(self, connection: Connection) -> None:
        """Forget a connection, once it has been closed."""
        if self._open.get(connection.address) is connection:
            del self._open[connection.address]

    def of(self, client: object) -> Connection | None:
        """The connection of the client in an ASGI scope; None for one that came another way."""
        return self._open.get((str(client[0]), int(client[1]))) if isinstance(client, tuple | list) else None

    def close_late_ones(self) -> None:
        """Close the connections whose clients have not sent or read in time what they should."""
        now = time.monotonic()
        for connection in [one for one in self._open.values() if one.is_late(now)]:
            self._close(connection)

    def _make_room(self) -> bool:
        """Close a connection that waits: of the client with the most connections, the one that waits longest."""
        numbers = Counter(host for host, _ in self._open)
        waiting = [(numbers[one.address[0]], -one.since, one) for one in self._open.values() if one.since is not None]
        if not waiting:
            return False
        _, _, chosen = max(waiting, key=lambda entry: entry[:2])
        self._close(chosen)
        return True

    def _close(self, connection: Connection) -> None:
        self.remove(connection)
        connection.close()


class Guarded(asyncio.Protocol):
    """A protocol of HTTP, within the limits of connections and heads.

    Args:
        protocol: that reads the requests.
        connections: of the server.
    """

    def __init__(self, protocol: Any, connections: Connections) -> None:
        self._protocol, self._connections = protocol, connections
        self._connection: Connection | None = None

    @staticmethod
    def around(protocols: Callable[..., Any], connections: Connections) -> Callable[..., asyncio.Protocol]:
        """The same factory of protocols, whose protocols are guarded."""
        return lambda *arguments, **options: Guarded(protocols(*arguments, **options), connections)

    def connection_made(self, transport: Any) -> None:
        """Take a connection, or refuse it."""
        self._connection = self._connections.add(transport)
        if self._connection is not None:
            self._protocol.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Hand bytes on, or close the connection where a head is too long."""
        if self._connection is None:
            return
        if self._connection.receive(len(data)):
            self._protocol.data_received(data)
        else:
            self._connection.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._connection is not None:
            self._connections.remove(self._connection)
            self._protocol.connection_lost(exc)

    def eof_received(self) -> Any:
        """Hand on that the client sends no more."""
        return self._protocol.eof_received() if self._connection is not None else None

    def pause_writing(self) -> None:
        """Hand on that the client is slow to read."""
        if self._connection is not None:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        """Hand on that the client has read."""
        if self._connection is not None:
            self._protocol.resume_writing()


class Attended:
    """Notes for which connections the server works, and which of them wait for their clients.

    Args:
        app: that gets the requests.
        connections: of the server.
    """

    def __init__(self, app: ASGIApp, connections: Connections) -> None:
        self._app, self._connections = app, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        connection = self._connections.of(scope.get("client")) if scope["type"] == "http" else None
        if connection is None:
            await self._app(scope, receive, send)
            return
        ended = False

        async def received() -> Message:
            nonlocal ended
            if ended:  # the application listens for the end of the connection, beside its work
                return await receive()
            connection.wait(None)
            message = await receive()
            connection.work()
            if not message.get("more_body", False):
                ended = True
                connection.end_body()
            return message

        async def sent(message: Message) -> None:
            connection.wait(_SEND_SECONDS)
            await send(message)
            connection.work()

        connection.begin(_length(Headers(scope=scope)))
        try:
            await self._app(scope, received, sent)
        finally:
            connection.end()


def _length(headers: Headers) -> int | None:
    """Number of bytes of a body, as its head tells; None for one in chunks."""
    if "transfer-encoding" in headers:
        return None
    length = headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 20 else 0


def _raw(status: int, message: str, code: str, *, wait: int | None = None) -> bytes:
    """An answer as bytes of HTTP, for connections that no application has."""
    answer = problem(status, message, code, {} if wait is None else {"Retry-After": str(wait)})
    head = [b"HTTP/1.1 %d %s" % (status, HTTPStatus(status).phrase.encode()), b"connection: close"]
    head += [b"%s: %s" % pair for pair in answer.raw_headers]
    return b"\r\n".join([*head, b"", bytes(answer.body)])
