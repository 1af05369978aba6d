"""A proxy in front of a server: what its pages of HTML mean over REST, and its statuses over gRPC."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus

import h2.config
import h2.connection
import h2.events
import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.collection import connect
from colpali_integrations.stores.qdrant.errors import is_refusal, reaching
from colpali_integrations.stores.runs import GaveUpError
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.stand_in import stand_in


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(retries, "CLOCK", made)
    return made


@pytest.mark.parametrize("status", [502, 503])
def test_a_proxy_whose_server_restarts_is_waited_for(clock: FakeClock, status: int) -> None:
    with stand_in() as server, MultiVectorStore.open(url=server.url, model=MODEL) as store:

        def records() -> Iterator[object]:
            for number in range(200):
                if number == 100:
                    server.proxy = status
                    clock.then = lambda time: setattr(server, "proxy", None) if time >= 30 else None
                yield entry(number), page(number)

        assert store.add(records()) == 200  # type: ignore[arg-type]
        assert clock.time >= 30
        assert len({one.id for one in store.scroll()}) == 200


def test_the_error_has_the_status_and_not_the_page(clock: FakeClock) -> None:
    with stand_in() as server, MultiVectorStore.open(url=server.url, model=MODEL) as store:
        for status, words, seconds in (
            (502, "the server cannot be reached (502 Bad Gateway). Does it run", 5),
            (503, "the server cannot be reached (503 Service Unavailable). Does it run", 5),
            (504, "allow more time by timeout= (seconds), and more in a proxy before it (504 Gateway Timeout)", 0),
        ):
            server.proxy, before = status, clock.time
            with pytest.raises(StoreError) as caught:
                len(store)
            assert words in str(caught.value)
            assert "<" not in str(caught.value)
            assert clock.time - before == pytest.approx(seconds)
        server.proxy = 413
        phrase = HTTPStatus(413).phrase  # Python 3.13 has the words of RFC 9110
        with pytest.raises(StoreError, match=rf"or the limit of a proxy before it \(413 {phrase}\)"):
            store.add([(entry(1), page(1))])


@contextmanager
def http2_proxy(status: int) -> Iterator[int]:
    """A port where each request over HTTP/2 gets a page of HTML."""
    body = b"<html><body><h1>nginx</h1></body></html>"

    def answer(connection: socket.socket) -> None:
        state = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        state.initiate_connection()
        with connection, suppress(OSError):
            connection.sendall(state.data_to_send())
            while received := connection.recv(1 << 16):
                for event in state.receive_data(received):
                    if isinstance(event, h2.events.StreamEnded):
                        headers = [(":status", str(status)), ("content-type", "text/html")]
                        state.send_headers(event.stream_id, headers)
                        state.send_data(event.stream_id, body, end_stream=True)
                connection.sendall(state.data_to_send())

    def accept() -> None:
        with suppress(OSError):  # until it is closed
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize(("status", "seconds"), [(502, 5), (503, 5), (504, 0), (413, 0)])
def test_over_grpc(clock: FakeClock, status: int, seconds: int) -> None:
    with http2_proxy(status) as port:
        client = connect(f"http://127.0.0.1:{port}", prefer_grpc=True, grpc_port=port)
        with pytest.raises(StoreError) as caught, reaching("it"):
            client.collection_exists("pages")
        client.close()
    assert clock.time == pytest.approx(seconds)
    assert isinstance(caught.value, GaveUpError) is bool(seconds)
    assert f"status: {status}" in str(caught.value)
    expected = {504: "took too long", 413: "limit of a proxy"}.get(status, "the server cannot be reached")
    assert expected in str(caught.value)
    assert is_refusal(caught.value.__cause__) is (status == 413)  # type: ignore[arg-type]
