"""Answers of a Qdrant server that are damaged raise errors, and give no wrong results. `tests/fuzz` found them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Layout, MultiVectorStore, SearchOptions
from tests.fuzz.servers import Answer, Faithful
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.collections import LAYOUTS, made
from tests.stores.qdrant.stand_in import StandIn

Change = Callable[[Any], None]


class Changing(Faithful):
    """Changes the results of the requests whose path has an end.

    Attributes:
        end: of the path; "" for none.
        change: changes the result in place.
    """

    end = "none"
    change: Change

    def answer(self, request: httpx.Request) -> Answer:
        status, headers, content = super().answer(request)
        if request.url.path.endswith(self.end):
            body = json.loads(content)
            self.change(body["result"])
            content = json.dumps(body).encode()
        return status, headers, content


@pytest.fixture
def server() -> Iterator[StandIn]:
    server = StandIn()
    server.server_close()
    yield server
    server.client.close()


@pytest.fixture(params=["own", *LAYOUTS])
def opened(request: pytest.FixtureRequest, server: StandIn) -> Iterator[tuple[MultiVectorStore, Changing]]:
    """A store of five pages, of this package's own collection and of those of others."""
    transport = Changing(server)
    place: dict[str, Any] = {"url": "http://qdrant:6333", "transport": transport, "retry_seconds": 0, "model": MODEL}
    if request.param == "own":
        with MultiVectorStore.open(**place) as store:
            store.add((entry(number), page(number, rows=6)) for number in range(5))
            yield store, transport
        return
    for one in made(server.client, request.param, [page(number, rows=6) for number in range(5)]):
        layout: Layout = one.layout
        with MultiVectorStore.open(**place, collection_name=one.name, layout=layout) as store:
            yield store, transport


def _first_vectors(records: Any) -> list[Any]:
    vector = records[0]["vector"]
    return vector if isinstance(vector, list) else vector[next(iter(vector))]


def _set(records: Any, key: str, value: Any) -> None:
    records[0][key] = value


def _last_is_nan(records: Any) -> None:
    _first_vectors(records)[-1][-1] = float("inf")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda records: _first_vectors(records)[0].pop(), "inhomogeneous"),
        (lambda records: [row.pop() for row in _first_vectors(records)], r"have the shape \(6, 7\), expected \(n, 8\)"),
        (lambda records: _first_vectors(records).clear(), r"have the shape \(0,\), expected \(n, 8\)"),
        (lambda records: _first_vectors(records)[0].__setitem__(0, {}), "TypeError"),
        (_last_is_nan, "numbers that are not finite"),
        (lambda records: _set(records, "id", "5f0d8f5e-0000-0000-0000-000000000000"), None),
        (lambda records: _set(records, "id", "five"), "ValueError|KeyError"),
    ],
)
def test_damaged_vectors_are_refused(
    opened: tuple[MultiVectorStore, Changing], change: Change, message: str | None
) -> None:
    store, transport = opened
    ids = [one.id for one in store.scroll()]
    transport.end, transport.change = "/points", change
    if message is None and "made-" in store.where:  # the vectors of a point that was not asked for are not used
        assert store.vectors(ids)[0] is None
        return
    with pytest.raises(StoreError, match=rf"the server's answer is damaged: .*({message or 'KeyError'}).* Ask again"):
        store.vectors(ids)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda answers: answers.clear(), "there are 0 answers to 1 questions"),
        (lambda answers: answers.append(answers[0]), "there are 2 answers to 1 questions"),
        (lambda answers: _set(answers[0]["points"], "score", float("nan")), "a point has the score nan"),
        (lambda answers: _set(answers[0]["points"], "score", float("-inf")), "a point has the score -inf"),
    ],
)
def test_damaged_scores_are_refused(opened: tuple[MultiVectorStore, Changing], change: Change, message: str) -> None:
    store, transport = opened
    transport.end, transport.change = "/query/batch", change
    with pytest.raises(StoreError, match=f"the server's answer is damaged: {message}. Ask again"):
        store.search_batch([page(0)], SearchOptions(k=3, hybrid=False))


def test_hits_are_in_the_order_of_their_scores(opened: tuple[MultiVectorStore, Changing]) -> None:
    store, transport = opened
    transport.end, transport.change = "/query/batch", lambda answers: answers[0]["points"].reverse()
    [hits] = store.search_batch([page(0)], SearchOptions(k=3, hybrid=False))
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


@pytest.mark.parametrize("count", [-1, 2**63, 10**400])
def test_impossible_counts_are_refused(opened: tuple[MultiVectorStore, Changing], count: int) -> None:
    store, transport = opened
    transport.end, transport.change = "/count", lambda result: result.update(count=count)
    with pytest.raises(StoreError, match="the server's answer is damaged: it counts "):
        len(store)


@pytest.mark.parametrize("after", [0, "00000000-0000-0000-0000-000000000000", "none"])
def test_a_listing_that_does_not_go_on_ends(opened: tuple[MultiVectorStore, Changing], after: int | str) -> None:
    """Such an answer once made the listing go on for ever."""
    store, transport = opened
    transport.end, transport.change = "/scroll", lambda result: result.update(next_page_offset=after)
    with pytest.raises(StoreError, match=r"the server's answer is damaged: (a listing goes on at|ValueError)"):
        [*store.scroll()]
    assert transport.requests < 30


@pytest.mark.parametrize("opened", ["own"], indirect=True)
def test_words_and_documents_of_a_damaged_answer_are_refused(opened: tuple[MultiVectorStore, Changing]) -> None:
    store, transport = opened
    transport.end, transport.change = "/facet", lambda result: _set(result["hits"], "value", 5)
    with pytest.raises(StoreError, match="it counts the points of 5, which is no text"):
        store.documents()
    transport.end, transport.change = "/scroll", lambda result: result["points"][0]["vector"]["words"]["values"].pop()
    with pytest.raises(StoreError, match="the server's answer is damaged: ValueError"):
        store.search_batch([page(0)], SearchOptions(k=3, hybrid=True), texts=["text of page 1"])
