"""Clients that hold connections open, are slow, or send or read without end: the server answers the others."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
import uvicorn.config

from colpali_integrations.server import bodies, connections, routes
from colpali_integrations.server.connections import Connection, Connections
from tests.server.conftest import Running, Start, wait_until

PROTOCOLS = {"h11": "h11_impl:H11Protocol", "httptools": "httptools_impl:HttpToolsProtocol"}


@pytest.fixture(params=PROTOCOLS)
def protocol(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations of HTTP that uvicorn has: the faster one is used where it is installed."""
    pytest.importorskip(request.param)
    path = f"uvicorn.protocols.http.{PROTOCOLS[request.param]}"
    monkeypatch.setitem(uvicorn.config.HTTP_PROTOCOLS, "auto", path)
    return str(request.param)


@contextmanager
def connected(server: Running) -> Iterator[socket.socket]:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as made:
        yield made


def rest(client: socket.socket) -> bytes:
    """What the server sends until it closes the connection."""
    received = b""
    try:
        while piece := client.recv(2**16):
            received += piece
    except ConnectionError:
        pass
    return received


def healthy(server: Running) -> bool:
    with connected(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return rest(client).startswith(b"HTTP/1.1 200")


def test_idle_connections_do_not_close_the_server_to_others(start: Start, protocol: str) -> None:
    server = start(max_connections=8)
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(server)) for _ in range(40)]
        for client in clients[::2]:
            client.sendall(b"GET /healthz HTTP/1.1\r\nHost: local")
        assert all(healthy(server) for _ in range(5))
        assert len(server.service.connections) <= 8
        rest(clients[0])  # it ends, because it waited longest
        clients[-1].sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert rest(clients[-1]).startswith(b"HTTP/1.1 200")


def test_a_slow_head_ends_and_a_connection_of_several_requests_does_not(
    start: Start, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_HEAD_SECONDS", 0.5)
    server = start()
    request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connected(server) as ordinary, connected(server) as slow:
        slow.settimeout(0.1)
        received, began = b"", time.monotonic()
        for number in range(len(request) - 1):  # a byte each tenth of a second
            slow.sendall(request[number : number + 1])
            ordinary.sendall(request)
            assert b"200 OK" in ordinary.recv(2**16)
            try:
                received += slow.recv(2**16)
            except TimeoutError:
                continue
            break
        assert 0.4 < time.monotonic() - began < 4
        assert received.startswith(b"HTTP/1.1 408 Request Timeout")


def test_an_endless_head_ends(start: Start, protocol: str) -> None:
    server = start()
    with connected(server) as client:
        client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
        with pytest.raises(ConnectionError):  # with any of the lines
            for number in range(200_000):
                client.sendall(b"X-%d: %s\r\n" % (number, b"a" * 1000))
    assert healthy(server)


def test_a_slow_body_ends(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_IDLE_SECONDS", 0.6)
    server = start()
    with connected(server) as client:
        client.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 1000\r\n\r\n")
        began = time.monotonic()
        client.settimeout(0.2)
        received = b""
        while b"408" not in received:  # a byte each fifth of a second: it is never idle
            assert time.monotonic() - began < 10
            client.sendall(b" ")
            try:
                received += client.recv(2**16)
            except TimeoutError:
                continue
    assert b"the body did not come in time" in received


def test_a_client_that_stops_reading_is_left_and_a_slow_one_gets_its_answer(
    start: Start, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "_IDLE_SECONDS", 0.3)
    monkeypatch.setattr(connections, "_SEND_SECONDS", 1.5)
    monkeypatch.setattr(routes, "described", lambda *_, **__: "a" * 2**24)  # more than the system buffers
    server = start()
    content = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    with connected(server) as stopped, connected(server) as slow:
        for client in (stopped, slow):
            client.sendall(content)
        received, began = slow.recv(2**16), time.monotonic()
        while time.monotonic() < began + 3:
            received += slow.recv(2**16)
            time.sleep(0.05)
        received += rest(slow)
        length = re.search(rb"content-length: (\d+)", received)
        assert length is not None
        assert len(received.partition(b"\r\n\r\n")[2]) == int(length[1])
        assert int(length[1]) == 2**24 + 2
        wait_until(lambda: len(server.service.connections) == 0)
        assert len(rest(stopped)) < int(length[1])
    assert healthy(server)


def test_a_refused_body_is_read_so_that_its_client_sees_the_answer(start: Start, protocol: str) -> None:
    server = start(max_upload_bytes=2**20)
    content = b"a" * (4 * 2**20)
    answer = server.client.post("/v1/documents", files={"file": ("a.pdf", content)})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_long")
    assert server.client.get("/healthz").status_code == 200


def test_bodies_have_a_limit_together_and_give_their_room_back(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "_ROOM_FOR_JSON", 2**17)
    server = start()
    for _ in range(4):  # each has a part of the room
        small = server.client.post("/v1/rerank", json={"query": "tide", "documents": ["tide " * 6000] * 5})
        assert small.status_code == 200
    large = server.client.post("/v1/rerank", json={"query": "tide", "documents": ["tide " * 6000] * 10})
    assert (large.status_code, large.headers["retry-after"]) == (429, "1")
    assert large.json()["error"]["code"] == "no_room"


def test_a_client_that_goes_away_leaves_no_traceback_in_the_log(
    start: Start, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    with connected(server) as client:
        client.sendall(b"POST /v1/search HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n")
        client.sendall(b"Content-Length: 1000\r\n\r\n{")
        wait_until(lambda: len(server.service.connections) == 1)
    wait_until(lambda: 'status="400"' in server.client.get("/metrics").text)
    assert "Traceback" not in caplog.text


class Recorded:
    """A transport that notes what is written, and whether it has ended."""

    def __init__(self, host: str, port: int) -> None:
        self.peer, self.written, self.ended = (host, port), b"", False

    def get_extra_info(self, name: str) -> Any:
        return self.peer

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.ended = True

    abort = close


def test_the_client_with_most_connections_makes_room_and_work_is_not_ended() -> None:
    open_ones = Connections(4)
    transports: list[Any] = [Recorded("192.0.2.1", 1), *(Recorded("192.0.2.2", port) for port in (1, 2, 3))]
    added: list[Connection] = [made for one in transports if (made := open_ones.add(one)) is not None]
    assert [one.address for one in added] == [one.peer for one in transports]
    added[1].begin(0)  # the oldest of 192.0.2.2
    fifth: Any = Recorded("192.0.2.1", 2)
    assert open_ones.add(fifth) is not None
    assert [one.ended for one in transports] == [False, False, True, False]
    open_ones.remove(added[2])  # asyncio tells of the end later
    assert len(open_ones) == 4
    for one in (added[0], added[3], open_ones.of(("192.0.2.1", 2))):
        assert one is not None
        one.begin(0)
    sixth: Any = Recorded("192.0.2.3", 1)
    assert open_ones.add(sixth) is None
    assert sixth.ended
    head, _, body = sixth.written.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n")
    assert b"Retry-After: 1".lower() in head.lower()
    assert json.loads(body)["error"]["code"] == "no_connection"
    added[1].end()
    assert open_ones.add(sixth) is not None
    assert transports[1].ended
