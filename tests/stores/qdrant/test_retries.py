"""Calls go on while a server restarts, and on the next node while one is gone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from qdrant_client import QdrantClient
from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.collection import connect, describe
from colpali_integrations.stores.qdrant.errors import TriedError, reaching
from colpali_integrations.stores.qdrant.retries import Patience, calling, retrying
from colpali_integrations.stores.runs import GaveUpError, count_stored, current_run, running
from tests.stores.qdrant.clocks import FakeClock

UNAVAILABLE = (
    "Service internal error: 4 out of 6 shards failed to apply operation. First error captured: Service internal "
    "error: Tonic status error: code: 'The service is currently unavailable', message: \"tcp connect error\""
)


def answer(status: int, message: str = "some words", **headers: str) -> UnexpectedResponse:
    content = json.dumps({"status": {"error": message}}).encode()
    return UnexpectedResponse(status, "reason", content, httpx.Headers(headers))


def lost(source: Exception) -> ResponseHandlingException:
    return ResponseHandlingException(source)


REFUSED = lost(httpx.ConnectError("[Errno 111] Connection refused"))
RESET = lost(httpx.ReadError("[Errno 104] Connection reset by peer"))


class Scripted:
    """In the place of a client: a call fails with the errors in turn, and then answers."""

    def __init__(self, *errors: Exception, url: str = "http://one:6333") -> None:
        self.errors, self.calls, self.closed = list(errors), 0, False
        self.init_options = {"url": url}

    def count(self, name: str, *, exact: bool) -> tuple[str, bool]:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return name, exact

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeClock]:
    made = FakeClock()
    monkeypatch.setattr(retries, "CLOCK", made)
    yield made


def asked(*clients: Scripted, seconds: Any = None, known: bool = True) -> Callable[[], Any]:
    client: Any = retrying(list(clients), seconds)  # type: ignore[arg-type]
    if known:
        first, clients[0].errors = clients[0].errors, []
        client.count("pages", exact=True)
        clients[0].errors, clients[0].calls = first, 0
    return lambda: client.count("pages", exact=True)


PASSING = [
    REFUSED,
    RESET,
    lost(httpx.WriteError("[Errno 32] Broken pipe")),
    lost(httpx.RemoteProtocolError("Server disconnected without sending a response.")),
    answer(502),
    answer(503),
    answer(500, UNAVAILABLE),
    ResourceExhaustedResponse("Rate limiting exceeded", 3),
]
LASTING = [
    lost(httpx.ReadTimeout("timed out")),
    lost(httpx.WriteTimeout("timed out")),
    lost(httpx.ConnectTimeout("timed out")),
    lost(httpx.PoolTimeout("timed out")),
    *map(answer, (400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 504)),
    answer(500, "Service internal error: Waiting for consensus operation commit failed. Timeout set at: 3 seconds"),
    ValueError("wrong input"),
]


@pytest.mark.parametrize("error", PASSING, ids=str)
def test_what_passes_is_tried_again(clock: FakeClock, error: Exception) -> None:
    client = Scripted(error)
    assert asked(client)() == ("pages", True)
    assert client.calls == 2
    assert len(clock.waits) == 1


@pytest.mark.parametrize("error", LASTING, ids=str)
def test_what_does_not_pass_is_an_error_at_once(clock: FakeClock, error: Exception) -> None:
    client = Scripted(error)
    with pytest.raises(type(error)) as caught:
        asked(client)()
    assert caught.value is error
    assert (client.calls, clock.waits) == (1, [])


def test_a_connection_refused_before_any_answer_is_an_error_at_once(clock: FakeClock) -> None:
    for refused in (REFUSED, lost(httpx.ConnectError("[Errno -2] Name or service not known"))):
        client = Scripted(refused)
        with pytest.raises(ResponseHandlingException):
            asked(client, known=False)()
        assert (client.calls, clock.waits) == (1, [])
    for error in (RESET, answer(503)):  # a server is there
        assert asked(Scripted(error), known=False)() == ("pages", True)
    refusal = Scripted(answer(404), REFUSED)  # which is an answer
    ask = asked(refusal, known=False)
    with pytest.raises(UnexpectedResponse):
        ask()
    assert ask() == ("pages", True)
    with running(None, reached=True):  # as another process knows
        assert asked(Scripted(REFUSED), known=False)() == ("pages", True)


@pytest.mark.parametrize(("seconds", "call", "run"), [(None, 5, 60), (2, 2, 2), ((1, 30), 1, 30), ([0, 90], 0, 90)])
def test_a_call_and_a_run_give_up_after_their_seconds(clock: FakeClock, seconds: Any, call: float, run: float) -> None:
    ask = asked(Scripted(*[REFUSED] * 1000), seconds=seconds)
    with pytest.raises(TriedError if call else ResponseHandlingException):
        ask()
    assert clock.time == pytest.approx(call)
    with pytest.raises(TriedError, match=f"tried again for {run} s"), running(None):
        ask()
    assert clock.time == pytest.approx(call + run)
    assert current_run() is None


def test_waits_grow_and_differ(clock: FakeClock) -> None:
    for _ in range(2):
        with pytest.raises(TriedError), running(None):
            asked(Scripted(*[RESET] * 1000))()
    first, second = clock.waits[: len(clock.waits) // 2], clock.waits[len(clock.waits) // 2 :]
    assert first != second
    for number, wait in enumerate(first[:-1]):
        assert 0.75 * min(0.1 * 2**number, 5) <= wait <= 1.25 * min(0.1 * 2**number, 5)


def test_waits_that_the_server_orders_do_not_count(clock: FakeClock) -> None:
    ordered = ResourceExhaustedResponse("Retry after 40s", 40)
    errors = [RESET, ordered, RESET, answer(503, **{"retry-after": "20"}), ordered, RESET]
    client = Scripted(*errors)
    assert asked(client)() == ("pages", True)
    assert client.calls == 7
    assert 100 <= clock.time < 105
    assert sum(wait for wait in clock.waits if wait < 20) < 5


def test_orders_of_any_length(clock: FakeClock) -> None:
    digits = "9" * 400
    for error in (
        ResourceExhaustedResponse("Retry later", int(digits)),
        answer(503, **{"retry-after": digits}),
        answer(503, **{"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}),
    ):
        before = clock.time
        assert asked(Scripted(error))() == ("pages", True)
        assert 24 * 3600 <= clock.time - before < 24 * 3600 + 2
    before = clock.time
    for past in ("-5", "Fri, 31 Dec 1999 23:59:59 GMT"):
        assert asked(Scripted(answer(503, **{"retry-after": past})))() == ("pages", True)
    with pytest.raises(QdrantException, match="not a valid integer") as dated:
        ResourceExhaustedResponse("Too many requests", "Fri, 31 Dec 1999 23:59:59 GMT")  # type: ignore[arg-type]
    assert asked(Scripted(dated.value))() == ("pages", True)
    assert clock.time - before < 1


def test_the_caller_ends_a_wait(clock: FakeClock) -> None:
    stop = threading.Event()
    clock.then = lambda time: stop.set() if time > 10 else None
    with pytest.raises(TriedError), running(None, stop=stop):
        asked(Scripted(*[RESET] * 1000))()
    assert 10 < clock.time < 20


def test_the_next_node_answers_when_one_is_gone(clock: FakeClock) -> None:
    for error in (REFUSED, RESET, answer(503), answer(500, UNAVAILABLE), lost(httpx.ConnectTimeout("timed out"))):
        one, two = Scripted(error, error), Scripted(url="http://two:6333")
        ask = asked(one, two, known=False)
        assert [ask(), ask()] == [("pages", True)] * 2
        assert (one.calls, two.calls, clock.waits) == (1, 2, [])  # and stays the one that is asked
    gone = [Scripted(*[REFUSED] * 9) for _ in range(3)]
    with pytest.raises(ResponseHandlingException):
        asked(*gone, known=False)()
    assert ([one.calls for one in gone], clock.waits) == ([1, 1, 1], [])


def test_nodes_that_are_gone_for_a_while_are_asked_in_turn(clock: FakeClock) -> None:
    one, two = Scripted(*[REFUSED] * 1000), Scripted(*[lost(httpx.ConnectTimeout("timed out"))] * 3)
    assert asked(one, two)() == ("pages", True)
    assert (one.calls, two.calls, len(clock.waits)) == (4, 4, 3)
    dead = Scripted(*[lost(httpx.ConnectTimeout("timed out"))] * 2)
    with pytest.raises(ResponseHandlingException):
        asked(dead, Scripted(lost(httpx.ConnectTimeout("timed out"))))()


def test_other_requests_are_tried_again_too(clock: FakeClock) -> None:
    client = Scripted(RESET)
    made: Any = retrying([client])  # type: ignore[list-item]
    bare: Any = Scripted()
    for one in (made, bare):
        found: Any = calling(one, lambda node: node.count("other", exact=False))
        assert found == ("other", False)
    assert retrying(made) is made
    made.close()
    assert client.closed
    local = QdrantClient(":memory:")
    assert retrying(local) is local
    local.close()


def test_the_error_names_the_place_the_cause_and_the_time(clock: FakeClock) -> None:
    with pytest.raises(GaveUpError) as caught, reaching("the collection"), running(None):
        asked(Scripted(*[REFUSED] * 100))()
    message = str(caught.value)
    assert message.startswith("the collection: the server cannot be reached ([Errno 111] Connection refused)")
    assert "address and port right" in message
    assert message.endswith("(tried again for 60 s)")
    part = r"nodes of the cluster cannot be reached \(Service internal error: 4 out"
    with pytest.raises(GaveUpError, match=part), reaching("it"):
        asked(Scripted(*[answer(500, UNAVAILABLE)] * 100))()
    with pytest.raises(StoreError, match="took too long"), reaching("it"):
        asked(Scripted(answer(500, "Timeout expired after 60s")))()


def test_a_run_says_how_much_is_stored(clock: FakeClock) -> None:
    seen: list[str | None] = []
    ask = asked(Scripted(RESET, RESET, ResourceExhaustedResponse("Retry after 3s", 3)))
    with running("{stored}; run it again", waiting=seen.append):
        ask()
        ask()
    assert seen == [
        "http://one:6333: [Errno 104] Connection reset by peer; trying again for 60 s",
        "http://one:6333: [Errno 104] Connection reset by peer; trying again for 60 s",
        "http://one:6333: Retry after 3s; waiting 3 s",
        None,
    ]
    for stored, words in ((0, "No page is stored"), (1, "1 page is stored"), (7, "7 pages are stored")):
        with pytest.raises(GaveUpError, match=rf"^gone\. {words}; again$"), running("{stored}; again"):
            count_stored(stored)
            with running("of no account"):
                raise GaveUpError("gone")


def test_an_outage_is_logged_once_with_its_end(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    ask = asked(Scripted(*[RESET] * 5))
    with caplog.at_level(logging.WARNING):
        ask()
        ask()
    assert [entry.message for entry in caplog.records] == [
        "http://one:6333: [Errno 104] Connection reset by peer; trying again for 5 s",
        "http://one:6333 answers again",
    ]


@pytest.mark.parametrize("seconds", ["5", -1, [1], [1, 2, 3], [1, "2"], float("nan"), True])
def test_seconds_are_one_number_or_two(seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match="retry_seconds"):
        Patience.of(seconds)
    with pytest.raises(ConfigurationError, match="retry_seconds"):
        connect("http://localhost:1", retry_seconds=seconds)


def test_several_urls_are_shown_without_their_secrets() -> None:
    client = connect(["http://user:secret@one:6333", "http://two:6333"])
    assert describe(client, "mine") == "the Qdrant collection 'mine' at http://one:6333, http://two:6333"
    client.close()
    with pytest.raises(ConfigurationError, match="names no server"):
        connect([])
