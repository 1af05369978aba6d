"""Collections whose values lie in objects, as LangChain's own store writes them, and whose values are of any type."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import InputError, StoreError
from colpali_integrations.stores import Entry, Layout, MultiVectorStore
from colpali_integrations.stores.filters import matches, parse_filter
from colpali_integrations.stores.qdrant.collection import connect
from tests.stores.backends import DIM, MODEL, page
from tests.stores.qdrant.stand_in import stand_in

LAYOUT = Layout(source="metadata.source", page="metadata.page", page_base=0, text="page_content")
QUERY = page(7, rows=4)


@pytest.fixture(scope="module", params=["local", "REST"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    with stand_in() as server:
        made = connect(":memory:" if request.param == "local" else server.url)
        yield made
        made.close()


def collection(client: QdrantClient, payloads: list[Any]) -> None:
    """The collection "docs", made anew."""
    if client.collection_exists("docs"):
        client.delete_collection("docs")
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    params = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi)
    client.create_collection("docs", params)
    points = [
        models.PointStruct(id=number, vector=page(number, rows=4).tolist(), payload=payload)
        for number, payload in enumerate(payloads)
    ]
    client.upsert("docs", points)


def opened(client: QdrantClient, layout: Layout = LAYOUT, **options: Any) -> MultiVectorStore:
    return MultiVectorStore.open(client=client, collection_name="docs", model=MODEL, layout=layout, **options)


def langchain(number: int) -> dict[str, Any]:
    """A payload as langchain-qdrant writes it, of a page that PyPDFLoader has read."""
    metadata = {"source": f"{number % 2}.pdf", "page": number // 2, "author": ["Ann", "Ben"][number % 2]}
    return {"page_content": f"text {number}", "metadata": {**metadata, "a.b": number}}


def test_keys_reach_into_objects(client: QdrantClient) -> None:
    collection(client, [langchain(number) for number in range(6)])
    store = opened(client)
    [entry] = [one for one in store.get(["5"]) if one]
    assert (entry.source, entry.page, entry.document_id, entry.text) == ("1.pdf", 3, "1.pdf", "text 5")
    assert entry.metadata == {"metadata": langchain(5)["metadata"], "source": "1.pdf", "page": 3}
    assert store.documents() == {"0.pdf": 3, "1.pdf": 3}
    cases: list[tuple[dict[str, Any], set[int]]] = [
        ({"source": "1.pdf", "page": {"$lte": 2}}, {1, 3}),
        ({"$document": "0.pdf"}, {0, 2, 4}),
        ({"metadata.author": "Ann", "page": 3}, {4}),
        ({"metadata.author": {"$itext": "BEN"}}, {1, 3, 5}),  # decided over the payloads
        ({"metadata.author": {"$gte": "B"}}, {1, 3, 5}),
        ({"metadata.page": 0}, {0, 1}),
        ({'metadata."a.b"': {"$gt": 3}}, {4, 5}),
        ({"metadata.nothing": {"$exists": True}}, set()),
        ({"page_content": {"$text": "text 2"}}, {2}),
        ({"other.author": "Ann"}, set()),
    ]
    for where, expected in cases:
        assert {int(one.id) for one in store.scroll(where)} == expected, where
        assert {int(hit.id) for hit in store.search(QUERY, 9, where=where)} == expected, where


def test_an_index_within_an_object_serves(client: QdrantClient) -> None:
    collection(client, [langchain(number) for number in range(6)])
    expected = opened(client).documents()
    is_imitation = client.init_options.get("location") == ":memory:"
    with pytest.warns(UserWarning) if is_imitation else nullcontext():
        client.create_payload_index("docs", "metadata.source", field_schema=models.PayloadSchemaType.KEYWORD)
    store = opened(client)
    assert store.documents() == expected
    assert store.info().indexes == ({} if is_imitation else {"metadata.source": "text"})


def test_pages_are_added_and_changed_within_objects(client: QdrantClient) -> None:
    collection(client, [langchain(number) for number in range(4)])
    store = opened(client, writable=True)
    entry = Entry(
        id="new", text="low tide", metadata={"source": "new.pdf", "page": 2, "tag": "x"}, document_id="new.pdf"
    )
    store.add([(entry, page(50, rows=3))])
    [record] = [one for one in client.scroll("docs", limit=99)[0] if (one.payload or {}).get("tag")]
    payload = dict(record.payload or {})
    assert payload.pop("colpali_integrations")["id"] == "new"
    assert payload == {"page_content": "low tide", "metadata": {"source": "new.pdf", "page": 1}, "tag": "x"}
    [found] = store.get(["new"])
    assert found is not None
    assert (found.text, found.source, found.page, found.document_id) == ("low tide", "new.pdf", 2, "new.pdf")
    before = {record.id: record.payload or {} for record in client.scroll("docs", limit=99)[0]}
    assert store.update_metadata("1.pdf", {"year": 2024}) == 2
    for record in client.scroll("docs", limit=99)[0]:
        changed, kept, own = record.payload or {}, before[record.id], {"year", "colpali_integrations"}
        assert {key: changed[key] for key in {*changed} - own} == {key: kept[key] for key in {*kept} - own}
    for key in ("metadata", "metadata.author", "page_content", "source"):
        with pytest.raises(InputError, match="describes the page and cannot be changed"):
            store.update_metadata("1.pdf", {key: "another"})
    with pytest.raises(StoreError, match="'metadata' is no object, as the layout has it"):
        store.add([(Entry(id="b", metadata={"metadata": 3, "page": 1, "source": "a"}), page(1, rows=3))])


def test_the_error_without_a_layout_finds_them(client: QdrantClient) -> None:
    collection(client, [langchain(number) for number in range(4)])
    with pytest.raises(StoreError) as raised:
        MultiVectorStore.open(client=client, collection_name="docs", model=MODEL)
    message = str(raised.value)
    expected = Layout(source="metadata.source", page="metadata.page", page_base=0, text="page_content")
    assert f"layout={expected!r}" in message
    assert "'metadata.author' (text, such as 'Ann')" in message
    assert "'metadata.\"a.b\"' (whole number, such as 0)" in message


def test_a_key_with_a_dot_stands_in_quotes(client: QdrantClient) -> None:
    collection(client, [{"file.name": "a.pdf", "n": {"file.name": 1}}, {"file.name": "b.pdf"}])
    with pytest.raises(StoreError, match=r"'n\.\"file\.name\"'"):
        MultiVectorStore.open(client=client, collection_name="docs", model=MODEL)
    store = opened(client, Layout(source='"file.name"', page='n."file.name"'))
    assert store.documents() == {"a.pdf": 1, "b.pdf": 1}
    assert [one.id for one in store.scroll({"source": "a.pdf", "page": 1})] == ["0"]
    assert [one.id for one in store.scroll({"file.name": "b.pdf"})] == ["1"]  # literally, as in every store


ODD: list[Any] = [
    None,
    "p. 3",
    "",
    [],
    [3, "4"],
    [[]],
    {"a": 1},
    True,
    -1,
    0,
    2**63 - 1,
    1e300,
    -0.5,
    "\ud7ff",
    "9" * 30,
]
OWN: list[Any] = [
    *(None, 3, "text", [], True),
    *({}, {"id": 3}, {"id": "a"}, {"id": ""}, {"text": 5}, {"grid": {}}, {"grid": "x"}, {"extra": []}),
    *({"exact": "{"}, {"exact": 3}, {"exact": '{"metadata": 3}'}, {"document_id": 7}, {"content_hash": ["x"]}),
]
odd = st.sampled_from(ODD)
raw = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("page", "source", "text", "document", "image", "metadata", "content_hash", "grid"), odd),
        "colpali_integrations": st.sampled_from(OWN),
    },
)


@settings(max_examples=80, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(payloads=st.lists(raw, min_size=1, max_size=5), nested=st.booleans())
def test_values_of_any_type_fail_no_search(payloads: list[dict[str, Any]], nested: bool) -> None:
    client = QdrantClient(":memory:")
    named = dict.fromkeys(("source", "page", "document", "text", "image"), None)
    payloads = [*payloads, {**named, "metadata": named}]
    collection(client, payloads)
    own = Layout(source="metadata.source", page="metadata.page", text="metadata.text") if nested else None
    layout = own or Layout(source="document", page="page", text="text", image="image")
    store = opened(client, layout)
    hits = store.search(QUERY, 9)
    assert len(hits) == len(store) == len(payloads) == len([*store.scroll()])
    for hit in hits:
        raw_payload = payloads[int(hit.id)]
        shown = {key: one for key, one in hit.entry.metadata.items() if key not in ("page", "source", "page_picture")}
        assert shown.items() <= raw_payload.items()
        assert hit.entry.name
        assert hit.entry.page is None or isinstance(hit.entry.page, int)
    assert set(store.documents()) == {one.document_id for one in store.scroll() if one.document_id}
    assert len(store.search(QUERY, 9, where={"page": {"$gte": -1e9}})) <= len(payloads)
    assert repr(hits)
    assert hits.to_html("question")
    assert store.hashes().keys() == {hit.id for hit in hits}
    store.close()


def test_one_damaged_mapping_costs_only_itself(client: QdrantClient) -> None:
    collection(client, [langchain(0), langchain(1)])
    store = opened(client, writable=True)
    entry = Entry(id="new", text="t", metadata={"source": "new.pdf", "page": 1}, document_id="d", extra={"a": 1})
    store.add([(entry, page(50, rows=3))])
    [added] = [one for one in client.scroll("docs", limit=99)[0] if "colpali_integrations" in (one.payload or {})]
    for value in ("damaged", {"id": "new", "grid": {"rows": "x"}, "extra": 3, "document_id": "d"}, {"id": "other"}):
        where = models.Filter(must=[models.HasIdCondition(has_id=[added.id])])
        payload = {**(added.payload or {}), "colpali_integrations": value}
        operation = models.OverwritePayloadOperation(overwrite_payload=models.SetPayload(payload=payload, filter=where))
        client.batch_update_points("docs", [operation])
        assert len(store.search(QUERY, 9)) == 3
        [found] = store.scroll({"source": "new.pdf"})
        assert found.page == 1
        assert found.id == ("new" if isinstance(value, dict) and value["id"] == "new" else str(added.id))
        assert found.grid is None
        assert store.delete([found.id] if found.id != "new" else []) == (found.id != "new")
        client.upsert("docs", [models.PointStruct(id=added.id, vector=np.ones((2, DIM)).tolist(), payload=payload)])


def test_the_filters_of_a_nested_layout_have_the_meaning_of_matches(client: QdrantClient) -> None:
    payloads = [langchain(number) for number in range(4)] + [{"metadata": "text"}, {"metadata": None}, {}]
    collection(client, payloads)
    store = opened(client)
    author = "metadata.author"
    for asked in ({author: {"$ne": "Ann"}}, {author: {"$exists": False}}, {"page": {"$nin": [1]}}):
        where = parse_filter(asked)
        assert where is not None
        seen = []
        for one in store.scroll():
            inside = one.metadata.get("metadata")
            value = inside.get("author") if isinstance(inside, dict) else None
            seen.append({"id": one.id, "metadata": {**one.metadata, author: value}})
        expected = {one["id"] for one in seen if matches(where, one)}
        assert {one.id for one in store.scroll(asked)} == expected
        assert 0 < len(expected) < len(payloads)
