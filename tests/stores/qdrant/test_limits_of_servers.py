"""Limits of entries and of names are the same over REST, over gRPC and in the client's imitation of a server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from qdrant_client import QdrantClient

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.stores import Entry, MultiVectorStore
from colpali_integrations.stores.ingestion.failures import Failure
from colpali_integrations.stores.limits import MAX_BYTES, MAX_DEPTH, MAX_ID_LENGTH
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.grpc_stand_in import grpc_stand_in
from tests.stores.qdrant.refusals import LIMIT
from tests.stores.qdrant.stand_in import stand_in
from tests.stores.test_limits import nested

Open = Callable[..., MultiVectorStore]


@pytest.fixture(params=["local", "REST", "gRPC"])
def open_(request: pytest.FixtureRequest) -> Iterator[Open]:
    def opened(place: dict[str, Any]) -> Open:
        return lambda **options: MultiVectorStore.open(**{"model": MODEL, **place, **options})

    if request.param == "local":
        client = QdrantClient(":memory:")
        yield opened({"client": client})
        client.close()
    elif request.param == "REST":
        with stand_in() as server:
            yield opened({"url": server.url})
    else:
        with grpc_stand_in() as grpc_server:
            url = f"http://127.0.0.1:{grpc_server.port}"
            yield opened({"url": url, "prefer_grpc": True, "grpc_port": grpc_server.port})


def test_entries_at_the_limits_come_back_unchanged(open_: Open) -> None:
    with open_() as store:
        for record in (
            entry(1, id="é" * MAX_ID_LENGTH, metadata=nested(MAX_DEPTH), extra=nested(MAX_DEPTH + 8)),
            entry(3, metadata={"a.b": 1, 'quo"te': 2, "nul\0": 3, "": 4, "long" * 10_000: 5}),
            entry(4, id="nul\0 and\nlines"),
        ):
            store.add([(record, page(1))])
            assert store.get([record.id]) == [record]
            store.update_entries([record])
            [hit] = store.search(page(1), 1, where={"$id": record.id})
            assert hit.entry == record
        assert store.count({"nul\0": 3}) == store.count({"": 4}) == store.count({'quo"te': 2}) == 1


@pytest.mark.slow
def test_a_text_of_the_largest_size_is_taken(open_: Open) -> None:
    with open_() as store:
        record = entry(2, text="é" * (MAX_BYTES // 2 - 1000))
        store.add([(record, page(1))])
        assert store.get([record.id]) == [record]


def test_a_large_payload_leaves_room_for_the_vectors() -> None:
    numbers = 12 * (1 << 20)  # bytes of the decimals of the largest page, with commas
    assert MAX_BYTES + numbers + 65_536 < LIMIT


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 256, "half\ud800", 7])
def test_names_that_no_collection_has(open_: Open, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="collection_name must be a text of 1 to 255 characters") as caught:
        open_(collection_name=name)
    str(caught.value.args[0]).encode()


@pytest.mark.parametrize("letter", '<>:"/\\|?*\0\x1f')
def test_letters_that_no_new_name_has(open_: Open, letter: str) -> None:
    with pytest.raises(ConfigurationError, match="names of collections have none of"):
        open_(collection_name=f"a{letter}b")


@pytest.mark.parametrize("name", ["x" * 255, "a b", "é", "a.b", "-", "a%2Fb"])
def test_other_names_are_taken(open_: Open, name: str) -> None:
    with open_(collection_name=name) as store:
        store.add([(entry(1), page(1))])
    with open_(collection_name=name) as store:
        assert len(store) == 1


def test_half_of_a_character_is_named_in_words_that_can_be_printed(open_: Open) -> None:
    half = "half\ud800"
    with open_() as store:
        for record, words in (
            (Entry(id=half), "its id must be valid Unicode"),
            (Entry(id="a", text=half), "its text must be valid Unicode"),
            (Entry(id="a", metadata={"title": half}), "JSON cannot hold 'title'"),
            (Entry(id="a", metadata={half: 1}), "JSON cannot hold 'half"),
            (Entry(id="a", document_id=half), "its document_id must be valid Unicode"),
        ):
            with pytest.raises(StoreError, match=words) as caught:
                store.add([(record, page(1))])
            for text in (str(caught.value), caught.value.args[0], Failure("a", caught.value).reason):
                assert text.encode().decode() == text
        assert store.get([half]) == [None]
        assert store.count({"title": half}) == store.count({half: 1}) == store.delete([half]) == 0
