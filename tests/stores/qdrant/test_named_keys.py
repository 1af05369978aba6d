"""A layout with a key that no page has, such as a misspelt one, is refused when the collection is opened."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import StoreError
from colpali_integrations.stores import Entry, Layout, MultiVectorStore
from tests.stores.backends import DIM, MODEL, page
from tests.stores.qdrant.profiles import CLOUD
from tests.stores.qdrant.stand_in import StandIn, stand_in

COUNT = 40  # more than are looked at first
LAYOUT = Layout(full="late", source="metadata.source", page="metadata.page", text="page_content", image="image")


@pytest.fixture
def server() -> Iterator[StandIn]:
    with stand_in() as server:
        yield server


def made(server: StandIn, payloads: list[dict[str, Any]]) -> None:
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi)
    client = QdrantClient(url=server.url, check_compatibility=False)
    client.create_collection("docs", {"late": params})
    vectors = [{"late": page(at, rows=1).tolist()} for at in range(len(payloads))]
    points = [models.PointStruct(id=at, vector=vectors[at], payload=one) for at, one in enumerate(payloads)]
    if points:
        client.upsert("docs", points)
    client.close()


def opened(server: StandIn, layout: Layout, **options: Any) -> MultiVectorStore:
    return MultiVectorStore.open(url=server.url, collection_name="docs", model=MODEL, layout=layout, **options)


def payload(number: int) -> dict[str, Any]:
    metadata = {"source": "a.pdf", "page": number + 1}
    return {"metadata": metadata, "page_content": None, "image": "iVBORw0KGgo="}


@pytest.mark.parametrize("count", [3, COUNT])
@pytest.mark.parametrize(
    ("role", "key", "message"),
    [
        ("source", "metadata.sorce", "; did you mean 'metadata.source'\\? The keys of its payload are 'image' .text"),
        ("source", "source", "Name one of them as source, or leave source out of the layout"),
        ("page", "metadata.page.number", "no page with the key 'metadata.page.number', which the layout has as page"),
        ("text", "ocr", "as text. The keys of its payload are"),
        ("image", "images", "did you mean 'image'"),
    ],
)
def test_a_key_that_no_page_has_is_refused(server: StandIn, count: int, role: str, key: str, message: str) -> None:
    made(server, [payload(number) for number in range(count)])
    with pytest.raises(StoreError, match=message):
        opened(server, Layout.of({**LAYOUT.to_dict(), role: key}))
    assert len(opened(server, LAYOUT)) == count


def test_a_key_of_one_page_among_many_is_enough(server: StandIn) -> None:
    made(server, [*({"page_content": str(number)} for number in range(COUNT)), payload(COUNT)])
    assert opened(server, LAYOUT).documents() == {"a.pdf": 1}


@pytest.mark.parametrize("first", [0, "0", 0.0])
def test_a_page_0_where_the_layout_counts_from_1_is_told(
    server: StandIn, first: Any, caplog: pytest.LogCaptureFixture
) -> None:
    made(server, [{"source": "a.pdf", "page": number} for number in (2, first, 1)])
    layout = Layout(full="late", source="source", page="page")
    assert {entry.page for entry in opened(server, layout).scroll()} == {0, 1, 2}
    assert "has a page of the number 0, and its layout counts from 1: if the first page" in caplog.text
    assert "set page_base to 0 in the layout" in caplog.text
    caplog.clear()
    assert {entry.page for entry in opened(server, replace(layout, page_base=0)).scroll()} == {1, 2, 3}
    assert caplog.text == ""


@pytest.mark.parametrize("other", [False, None, "", "00", [0]])
def test_what_is_no_page_0_is_not_told_as_one(server: StandIn, other: Any, caplog: pytest.LogCaptureFixture) -> None:
    made(server, [{"source": "a.pdf", "page": number} for number in (2, other, 1)])
    opened(server, Layout(full="late", source="source", page="page"))
    assert caplog.text == ""


def test_an_empty_collection_has_no_keys_yet(server: StandIn) -> None:
    made(server, [])
    assert len(opened(server, LAYOUT)) == 0


def test_the_first_text_may_be_that_of_an_added_page(server: StandIn) -> None:
    made(server, [{"source": "a.pdf"}])
    layout = Layout(full="late", source="source", text="ocr")
    with pytest.raises(StoreError, match="as text"):
        opened(server, layout)
    store = opened(server, layout, writable=True)
    store.add([(Entry(id="7", text="low tide", metadata={"source": "b.pdf"}), page(7, rows=1))])
    [entry] = opened(server, layout).get(["7"])
    assert entry is not None
    assert entry.text == "low tide"
    with pytest.raises(StoreError, match="as source"):  # pages would be added under a misspelt key
        opened(server, Layout(full="late", source="sorce"), writable=True)


def test_strict_mode_looks_at_some_pages_only() -> None:
    with stand_in(profile=CLOUD) as server:
        made(server, [payload(number) for number in range(COUNT)])
        assert len(opened(server, Layout(full="late", source="elsewhere"))) == COUNT
        with pytest.raises(StoreError, match="has no vector 'full'"):
            opened(server, Layout(full="full"))
    with stand_in(profile=CLOUD) as server:
        made(server, [payload(number) for number in range(3)])  # all of them are looked at
        with pytest.raises(StoreError, match="no page with the key 'elsewhere'"):
            opened(server, Layout(full="late", source="elsewhere"))


@pytest.mark.parametrize("path", ["/collections/docs", "/collections/docs/points/scroll"])
def test_a_collection_that_goes_while_it_is_opened(server: StandIn, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made(server, [payload(1)])
    respond = server.respond

    def going(method: str, target: str, key: str | None, body: bytes) -> Any:
        if target == path:
            server.client.delete_collection("docs")
        return respond(method, target, key, body)

    monkeypatch.setattr(server, "respond", going)
    with pytest.raises(StoreError, match="another program made it, and opening it again makes none"):
        opened(server, LAYOUT)
