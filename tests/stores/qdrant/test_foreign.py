"""Collections that other programs have made, searched by their layout: the same as qdrant-client's own queries."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.explain import PageGrid
from colpali_integrations.pages.identity import page_id
from colpali_integrations.stores import Entry, Layout, MultiVectorStore, SearchOptions, copy_store, index_documents
from colpali_integrations.stores.filters import And, Condition, Filter, Not, Or, matches, parse_filter
from colpali_integrations.stores.qdrant.collection import connect
from colpali_integrations.stores.qdrant.foreign_payloads import ForeignPayloads
from tests.stores.backends import DIM, MODEL, page
from tests.stores.filter_cases import filters, metadata, scalars
from tests.stores.qdrant.collections import COUNT, LAYOUTS, Made, direct, made
from tests.stores.qdrant.grpc_stand_in import GrpcStandIn, grpc_stand_in
from tests.stores.qdrant.stand_in import StandIn, stand_in
from tests.stores.stored_models import made_up

QUERIES = [page(number, seed=7, rows=4) for number in range(6)]
KINDS = list(LAYOUTS)


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[GrpcStandIn]:
    with grpc_stand_in() as running:
        yield running


@pytest.fixture(scope="module", params=["local", "REST", "gRPC"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    if request.param == "gRPC":
        port = request.getfixturevalue("grpc_server").port
        made_client = connect(f"http://127.0.0.1:{port}", prefer_grpc=True, grpc_port=port)
    else:
        made_client = connect(":memory:" if request.param == "local" else request.getfixturevalue("server").url)
    yield made_client
    made_client.close()


@pytest.fixture(scope="module", params=KINDS)
def collection(request: pytest.FixtureRequest, client: QdrantClient) -> Iterator[Made]:
    yield from made(client, request.param, [page(number, seed=3, rows=12) for number in range(COUNT)])


@pytest.fixture
def own(client: QdrantClient) -> Iterator[Made]:
    """A collection for one test, which may change it."""
    yield from made(client, "tutorial", [page(number, seed=3, rows=12) for number in range(6)])


def opened(one: Made, **options: Any) -> MultiVectorStore:
    given = {"client": one.client, "collection_name": one.name, "model": MODEL, "layout": one.layout}
    return MultiVectorStore.open(**{**given, **options})


def ranked(store: MultiVectorStore, query: NDArray[np.float32], k: int, **options: Any) -> list[tuple[str, float]]:
    return [(hit.id, hit.score) for hit in store.search(query, k, **options)]


def same(found: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [id_ for id_, _ in found] == [id_ for id_, _ in expected]
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=1e-5)


def test_exact_searches_are_direct_queries(collection: Made) -> None:
    store = opened(collection)
    assert len(store) == COUNT
    for query in QUERIES:
        same(ranked(store, query, 10, mode="exact"), direct(collection, query, 10))
        same(ranked(store, query, 10), direct(collection, query, 10))


def test_two_stages_are_prefetches_of_each_first_stage(collection: Made) -> None:
    store = opened(collection)
    for query in QUERIES:
        few = ranked(store, query, 4, mode="two_stage", oversampling=1.5)
        same(few, direct(collection, query, 4, candidates=6))
        same(ranked(store, query, 4, mode="two_stage"), direct(collection, query, 4, candidates=100))


def test_first_stages_decide_which_pages_are_found(own: Made) -> None:
    both = opened(own)
    single = opened(own, layout=Layout(full="original", first=["mean_pooling_rows"]))
    query = QUERIES[0]
    [best] = ranked(both, query, 1, mode="two_stage", oversampling=1)
    asked: Any = query.tolist()
    names = ("mean_pooling_rows", "mean_pooling_columns")
    requests = [models.QueryRequest(query=asked, using=name, limit=1, with_payload=False) for name in names]
    by_rows, by_columns = (one.points[0].id for one in own.client.query_batch_points(own.name, requests))
    assert ranked(single, query, 1, mode="two_stage", oversampling=1)[0][0] == str(by_rows)
    assert best[0] in (str(by_rows), str(by_columns))


def test_one_vector_per_page_chooses_candidates_too(client: QdrantClient) -> None:
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    dot = models.Distance.DOT
    full = models.VectorParams(size=DIM, distance=dot, multivector_config=multi)
    vectors = {"all": full, "mean": models.VectorParams(size=DIM, distance=dot)}
    client.create_collection("with-mean", vectors)
    pages = [page(number, seed=5, rows=6) for number in range(9)]
    client.upsert(
        "with-mean",
        [
            models.PointStruct(id=at, vector={"all": one.tolist(), "mean": one.mean(axis=0).tolist()})
            for at, one in enumerate(pages)
        ],
    )
    store = MultiVectorStore.open(
        client=client, collection_name="with-mean", model=MODEL, layout=Layout(full="all", first=["mean"])
    )
    expected = max(range(9), key=lambda at: float((QUERIES[0] @ pages[at].mean(axis=0)).sum()))
    assert [hit.id for hit in store.search(QUERIES[0], 1, mode="two_stage", oversampling=1)] == [str(expected)]
    client.delete_collection("with-mean")


def test_entries_have_the_payload_and_our_names(collection: Made) -> None:
    store, layout = opened(collection), collection.layout
    for entry in store.scroll():
        id_ = entry.id if entry.id in collection.payloads else int(entry.id)
        payload = collection.payloads[id_]
        own = {key: value for key, value in payload.items() if key != layout.text}
        assert {key: value for key, value in entry.metadata.items() if key not in ("source", "page")} | own == {
            key: value for key, value in entry.metadata.items() if key not in ("source", "page") or key in own
        }
        source, number = payload.get(str(layout.source)), payload.get(str(layout.page))
        assert entry.metadata.get("source") == source
        assert entry.document_id == (None if source is None else str(source))
        assert entry.page == (None if number is None else int(number) + 1 - layout.page_base)
        assert entry.has_text == (layout.text in payload)
        assert not entry.is_page
        assert store.get([entry.id]) == [entry]
        assert entry.id in store
    assert store.get(["no such page", "99999", "6f1c8d0e-54ab-5c5b-9f0e-3c1a7b6d2e90"]) == [None] * 3
    assert sum(store.documents().values()) == sum(str(layout.source) in one for one in collection.payloads.values())


def test_stored_vectors_are_returned(collection: Made) -> None:
    store = opened(collection)
    ids = [str(id_) for id_ in [*collection.payloads][:3]]
    given = [page(number, seed=3, rows=12) for number in range(3)]
    for stored, expected in zip(store.vectors([*ids, "unknown"]), [*given, None], strict=True):
        if expected is None:
            assert stored is None
        else:
            assert stored is not None
            assert stored == pytest.approx(expected, abs=2e-3)  # of length 1 but for float16
    assert store.score(QUERIES[0], ids) == pytest.approx(
        {id_: score for id_, score in direct(collection, QUERIES[0], COUNT) if id_ in ids}, rel=1e-5
    )


FILTERS: dict[str, list[dict[str, Any]]] = {
    "tutorial": [
        {"document": "1.pdf"},
        {"source": "1.pdf", "page": {"$lte": 4}},
        {"page_number": 0},
        {"page": {"$in": [1, 3]}},
        {"tags": "a"},
        {"tags": {"$exists": False}},
    ],
    "fastembed": [
        {"filename": {"$text": "2"}},
        {"page": {"$gt": 3, "$lt": 12}},
        {"page_num": "3"},
        {"page": 3.0},
        {"text": {"$itext": "PAGE 1"}},
        {"score": {"$gte": 0.5}},
    ],
    "unnamed": [
        {"doc_id": 2},
        {"$document": {"$in": ["1", "x"]}},
        {"page": {"$ne": 4}},
        {"source": {"$gte": 1}},
        {"$id": {"$in": ["10", "20", "nothing"]}},
        {"$nor": [{"page": 1}, {"$document": "0"}]},
    ],
}


def view(store: MultiVectorStore, one: Made) -> dict[str, dict[str, Any]]:
    """The payloads that filters see, by id: the entries', with the text under its own key."""
    seen = {}
    for entry in store.scroll():
        text = {one.layout.text: entry.text} if one.layout.text and entry.has_text else {}
        payload = {"id": entry.id, "metadata": {**entry.metadata, **text}, "document_id": entry.document_id}
        seen[entry.id] = payload
    return seen


def test_filters_on_their_own_keys(collection: Made, request: pytest.FixtureRequest) -> None:
    store, kind = opened(collection), next(name for name in KINDS if LAYOUTS[name] == collection.layout)
    payloads = view(store, collection)
    for given_filter in FILTERS[kind]:
        where = parse_filter(given_filter)
        assert where is not None
        expected = {id_ for id_, payload in payloads.items() if matches(where, payload)}
        assert 0 < len(expected) < COUNT, given_filter
        assert {entry.id for entry in store.scroll(where)} == expected, given_filter
        assert {hit.id for hit in store.search(QUERIES[0], COUNT, where=where)} == expected, given_filter
        found = store.search(QUERIES[0], COUNT, where=where, mode="two_stage")
        assert {hit.id for hit in found} == expected, given_filter
        assert store.count(where) == expected.__len__()


MAPPED = {"page": "page_number", "source": "document"}
page_values = st.one_of(scalars, st.lists(scalars, max_size=2), st.sampled_from(["2", "03", "iii", 2, 4.0, 1.5]))
raw_payloads = st.builds(
    lambda other, **own: {**other, **{key: value for key, value in own.items() if value is not None}},
    metadata,
    page_number=st.none() | page_values,
    document=st.none() | st.one_of(scalars),
)


def renamed(where: Filter, draw: Any) -> Filter:
    """A filter on a few fields of made-up payloads, some of them those that a layout maps."""
    if isinstance(where, Condition):
        return Condition(
            draw(st.sampled_from([where.field, "page", "source", "page_number", "$document"])), where.op, where.value
        )
    if isinstance(where, Not):
        return Not(renamed(where.part, draw))
    assert isinstance(where, And | Or)
    return type(where)(tuple(renamed(part, draw) for part in where.parts))


@settings(max_examples=60, deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    stored=st.lists(raw_payloads, min_size=1, max_size=6),
    wheres=st.lists(filters, min_size=4, max_size=8),
    data=st.data(),
)
def test_generated_filters_have_the_meaning_of_matches(
    stored: list[dict[str, Any]], wheres: list[Filter], data: st.DataObject
) -> None:
    client = QdrantClient(":memory:")
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection("c", models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi))
    vector = page(1, rows=1).tolist()
    stored = [*stored, {"document": "known.pdf", "page_number": 7}]
    client.upsert("c", [models.PointStruct(id=at, vector=vector, payload=one) for at, one in enumerate(stored)])
    layout = Layout(source="document", page="page_number", page_base=0)
    store = MultiVectorStore.open(client=client, collection_name="c", model=MODEL, layout=layout)
    seen = [ForeignPayloads(layout).payload(at, one) for at, one in enumerate(stored)]
    for where in (renamed(one, data.draw) for one in wheres):
        expected = {payload["id"] for payload in seen if matches(where, payload)}
        assert {entry.id for entry in store.scroll(where)} == expected, where
    store.close()


def test_pages_of_documents_get_ids_of_the_collections_kind(own: Made) -> None:
    store = opened(own, writable=True)
    pages = [page_id("/data/new.pdf", number) for number in (1, 2)]  # 32 hexadecimal digits, which is a UUID too
    store.add([(Entry(id=one, document_id="/data/new.pdf"), page(7 + at, rows=3)) for at, one in enumerate(pages)])
    points = [record.id for record in own.client.scroll(own.name, limit=99)[0]]
    assert len(points) == 8
    assert all(isinstance(one, int) for one in points)
    again = opened(own, writable=True)
    assert [entry and entry.id for entry in again.get(pages)] == pages
    assert {entry.id for entry in again.scroll({"$id": {"$in": pages}})} == {*pages}
    assert again.documents()["/data/new.pdf"] == 2
    assert again.delete(pages[:1]) == 1
    assert pages[1] in again


def test_points_with_uuids_among_whole_numbers_are_found(own: Made) -> None:
    other = "3fda6e90-8140-620e-ef33-a60303feb360"
    full = page(9, rows=3).tolist()
    vectors = dict.fromkeys(("original", "mean_pooling_rows", "mean_pooling_columns"), full)
    own.client.upsert(own.name, [models.PointStruct(id=other, vector=vectors, payload={"document": "u.pdf"})])
    store = opened(own, writable=True)
    assert [entry and entry.id for entry in store.get([other])] == [other]
    assert store.delete([other]) == 1
    assert store.get([other]) == [None]


def test_a_filter_is_a_direct_query_with_it(own: Made) -> None:
    where = models.Filter(
        must=[
            models.FieldCondition(key="document", match=models.MatchValue(value="1.pdf")),
            models.FieldCondition(key="page_number", range=models.Range(lt=1)),
        ]
    )
    expected = direct(own, QUERIES[1], 5, where)
    assert expected
    same(ranked(opened(own), QUERIES[1], 5, where={"document": "1.pdf", "page": 1}), expected)


@pytest.mark.parametrize("hybrid", [True, "rrf", 0.5])
def test_hybrid_without_words_is_refused_with_the_reason(own: Made, hybrid: Any) -> None:
    store = opened(own)
    with pytest.raises(ConfigurationError, match="has no vector of words for a hybrid search: pass hybrid=False, or"):
        store.search(QUERIES[0], hybrid=hybrid, text="words")
    with pytest.raises(ConfigurationError, match="has no vector of words"):
        store.rank_batch([QUERIES[0]], SearchOptions(hybrid=hybrid), texts=["words"])


def test_without_a_layout_the_error_has_it(collection: Made) -> None:
    with pytest.raises(StoreError) as raised:
        opened(collection, layout=None)
    message = str(raised.value)
    assert f"layout={collection.layout!r} and model= " in message
    for name in {key for payload in collection.payloads.values() for key in payload}:
        assert repr(name) in message
    assert message.count("several vectors per page, 8 numbers") == max(1, 3 * bool(collection.layout.first))


@pytest.mark.parametrize(
    ("layout", "model", "error", "message"),
    [
        (
            Layout(full="orignal"),
            MODEL,
            StoreError,
            "has no vector 'orignal', which the layout has as full; it has 'mean_p",
        ),
        (Layout(), MODEL, StoreError, r"has no vector '' \(without a name\)"),
        (Layout(full="original", first=["x"]), MODEL, StoreError, "has no vector 'x', which the layout has as first"),
        (
            Layout(full="original"),
            made_up("other", dim=16),
            FingerprintError,
            "'original' have 8 numbers, and those of the model 'other' have 16; pass the model",
        ),
        (Layout(full="original"), None, ConfigurationError, "needs the model that made the collection's vectors"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused(
    own: Made, layout: Layout, model: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        opened(own, layout=layout, model=model)


def test_vectors_that_late_interaction_cannot_compare_are_refused(client: QdrantClient) -> None:
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    client.create_collection(
        "others",
        {
            "single": models.VectorParams(size=DIM, distance=models.Distance.DOT),
            "euclid": models.VectorParams(size=DIM, distance=models.Distance.EUCLID, multivector_config=multi),
            "full": models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi),
            "muvera": models.VectorParams(size=40, distance=models.Distance.DOT),
        },
    )
    place: dict[str, Any] = {"client": client, "collection_name": "others", "model": MODEL}
    with pytest.raises(StoreError, match="'single' is one vector per page, and late interaction compares several"):
        MultiVectorStore.open(**place, layout=Layout(full="single"))
    with pytest.raises(StoreError, match="compares 'euclid' by Euclid, and late interaction needs the dot product"):
        MultiVectorStore.open(**place, layout=Layout(full="euclid"))
    with pytest.raises(ConfigurationError, match=r"'muvera' has 40 numbers.*; otherwise leave it out of the"):
        MultiVectorStore.open(**place, layout=Layout(full="full", first=["muvera"]))
    store = MultiVectorStore.open(**place, layout=Layout(full="full"))  # an empty one
    assert len(store) == len(store.search(QUERIES[0])) == len(store.search(QUERIES[0], mode="two_stage")) == 0
    client.delete_collection("others")
    with pytest.raises(StoreError, match="does not exist, and a layout makes none; check its name"):
        MultiVectorStore.open(**place, layout=Layout(full="full"))


def test_other_options_contradict_a_layout(own: Made) -> None:
    with pytest.raises(ConfigurationError, match="first_stage, language: for a new store; a collection with a layout"):
        opened(own, first_stage="ward", language="german")
    with pytest.raises(ConfigurationError, match="writable is for a collection that another program has made"):
        MultiVectorStore.open(model=MODEL, writable=True)
    with pytest.raises(ConfigurationError, match="a layout is for a collection on a Qdrant server: pass its url"):
        MultiVectorStore.open(model=MODEL, layout=own.layout)
    with pytest.raises(ConfigurationError, match="the first stage 'layout' is that of collections that exist already"):
        MultiVectorStore.open(model=MODEL, first_stage="layout")  # type: ignore[arg-type]
    store = MultiVectorStore.open(client=own.client, collection_name="our-own", model=MODEL)
    with pytest.raises(ConfigurationError, match="was made by colpali-integrations: open it without a layout"):
        MultiVectorStore.open(client=own.client, collection_name="our-own", model=MODEL, layout=Layout(full="full"))
    assert len(store) == 0
    own.client.delete_collection("our-own")


def test_nothing_is_written_by_default(server: StandIn) -> None:
    client = connect(server.url)
    [one, *_] = collected = list(made_once(client))
    before = [*server.asked]
    store = opened(one)
    store.search(QUERIES[0], where={"tags": "a", "page": {"$lte": 3}})
    store.documents()
    changes: list[Callable[[], object]] = [
        lambda: store.add([(Entry(id="a"), page(1, rows=3))]),
        lambda: store.delete(["0"]),
        lambda: store.update_metadata("0.pdf", {"year": 2024}),
    ]
    for change in changes:
        with pytest.raises(StoreError, match="is open for reading; pass writable=True to change it in its own layout"):
            change()
    asked = [(method, path.rpartition("/")[2]) for method, path, _ in server.asked[len(before) :]]
    assert not [one for one in asked if one[0] not in ("GET", "POST")]
    assert {name for method, name in asked if method == "POST"} <= {"scroll", "batch", "points", "count"}
    assert len(asked) > 3
    assert len(collected) == 1
    client.close()


def test_changes_are_refused_before_any_work(own: Made, coltiny: ColPali, examples_folder: Path) -> None:
    def unread() -> Iterator[Any]:
        raise AssertionError("the records were read, and pages encoded, in vain")
        yield

    store = opened(own)
    folder = MultiVectorStore.open(examples_folder / "my-index", read_only=True)
    memory = MultiVectorStore.open(model=MODEL)
    memory.add([(Entry(id="a"), page(1, rows=3))])
    changes: list[Callable[[MultiVectorStore], object]] = [
        lambda one: one.add(unread()),
        lambda one: one.delete([]),
        lambda one: one.update_metadata("none.pdf", {"year": 2024}),
        lambda one: index_documents("report.pdf", model=coltiny, store=one, progress=lambda _: next(unread())),
        lambda one: copy_store(memory, one, progress=lambda *_: next(unread())),
    ]
    for change in changes:
        with pytest.raises(StoreError, match="is open for reading; pass writable=True"):
            change(store)
        with pytest.raises(StoreError, match="was opened with read_only=True"):
            change(folder)
    memory.require_writable()
    opened(own, writable=True).require_writable()
    folder.close()


def made_once(client: QdrantClient) -> Iterator[Made]:
    making = made(client, "tutorial", [page(number, seed=3, rows=12) for number in range(6)])
    yield next(making)


def test_pages_are_added_in_the_collections_own_layout(own: Made) -> None:
    store = opened(own, writable=True)
    grid = PageGrid(2, 3, np.array([0, 1, 2, 3, 4, 5, -1]))
    vectors = page(50, rows=7)
    entry = Entry(
        id="report.pdf, page 3",
        text="low tide",
        metadata={"source": "report.pdf", "page": 3, "tags": ["c"]},
        document_id="reports",
        content_hash="abc",
        grid=grid,
        extra={"adapter": 1},
    )
    assert store.add([(entry, vectors)], model=MODEL) == 1
    added = models.FieldCondition(key="document", match=models.MatchValue(value="report.pdf"))
    [found] = own.client.scroll(own.name, models.Filter(must=[added]))[0]
    [record] = own.client.retrieve(own.name, [found.id], with_vectors=True)
    assert isinstance(record.id, int)
    payload = dict(record.payload or {})
    kept = payload.pop("colpali_integrations")
    assert payload == {"document": "report.pdf", "page_number": 2, "tags": ["c"]}
    assert kept["id"] == entry.id
    assert isinstance(record.vector, dict)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = np.stack([unit[:3].mean(axis=0), unit[3:6].mean(axis=0), unit[6]])
    columns = np.stack([*(unit[[at, at + 3]].mean(axis=0) for at in range(3)), unit[6]])
    for name, expected in {"original": unit, "mean_pooling_rows": rows, "mean_pooling_columns": columns}.items():
        expected = expected / np.linalg.norm(expected, axis=1, keepdims=True)
        assert np.asarray(record.vector[name]) == pytest.approx(expected, abs=3e-3), name
    own_keys = {"document": "report.pdf", "page_number": 2}
    entry = replace(entry, metadata={**entry.metadata, **own_keys}, grid=grid)
    assert store.get([entry.id]) == [entry]
    assert store.hashes({"$content": "abc"}) == {entry.id: "abc"}
    assert store.search(vectors, 1, mode="two_stage")[0].entry == entry
    assert store.documents()["reports"] == 1
    assert store.regions(vectors[:1], [entry.id]).keys() == {entry.id}  # its grid is known
    with pytest.raises(StoreError, match="no regions or heatmaps, because the program that made"):
        store.regions(vectors[:1], ["0"])
    with pytest.raises(StoreError, match="recorded no grid"):
        store.similarity_maps(vectors[:1], ["0"])


def test_added_pages_are_changed_and_removed(own: Made) -> None:
    store = opened(own, writable=True)
    store.add([(Entry(id="note", text="a text", metadata={"source": "a.txt"}), page(8, rows=3))], model=MODEL)
    store.add([(Entry(id="note", text="another", metadata={"source": "a.txt"}), page(9, rows=3))], model=MODEL)
    assert len(store) == 7
    assert store.update_metadata("1.pdf", {"year": 2024}) == 2  # of the other program's pages
    [changed, *_] = store.scroll({"year": 2024})
    assert (changed.document_id, changed.page, changed.metadata["document"]) == ("1.pdf", 1, "1.pdf")
    assert own.client.retrieve(own.name, [int(changed.id)])[0].payload["page_number"] == 0  # type: ignore[index]
    assert (store.delete(["note"]), len(store), "note" in store) == (1, 6, False)
    assert (store.delete(document_id="2.pdf"), len(store)) == (2, 4)


def test_keys_of_the_layout_and_our_own_are_not_metadata(own: Made) -> None:
    store = opened(own, writable=True)
    before = {record.id: record.payload for record in own.client.scroll(own.name, limit=99)[0]}
    for key in ("document", "page_number", "source", "page"):
        with pytest.raises(InputError, match=f"update_metadata: {key} describes the page and cannot be changed"):
            store.update_metadata("1.pdf", {key: "another", "year": 2024})
    with pytest.raises(StoreError, match="a: metadata cannot have the key 'colpali_integrations', under which the"):
        store.add([(Entry(id="a", metadata={"colpali_integrations": 5}), page(1, rows=3))])
    assert {record.id: record.payload for record in own.client.scroll(own.name, limit=99)[0]} == before
    assert store.update_metadata("1.pdf", {"year": 2024}) == 2


def test_how_unknown_first_stages_are_made_is_not_guessed(client: QdrantClient) -> None:
    multi = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    one = models.VectorParams(size=DIM, distance=models.Distance.DOT, multivector_config=multi)
    client.create_collection("strange", {"full": one, "summary": one})
    store = MultiVectorStore.open(
        client=client,
        collection_name="strange",
        model=MODEL,
        layout=Layout(full="full", first=["summary"]),
        writable=True,
    )
    with pytest.raises(ConfigurationError, match="how the vectors 'summary' are made of a page is not known here"):
        store.add([(Entry(id="a"), page(1, rows=3))])
    client.delete_collection("strange")


def test_a_store_with_a_layout_is_pickled(server: StandIn) -> None:
    client = connect(server.url)
    [one] = made_once(client)
    model = made_up("coltiny", dim=DIM)
    store = MultiVectorStore.open(url=server.url, collection_name=one.name, model=model, layout=one.layout)
    again = pickle.loads(pickle.dumps(store))
    assert again.settings == store.settings
    assert again.where == store.where
    for each in (store, again):
        each.close()
    with pytest.raises(StoreError, match="was closed; open it again"):
        len(store)
    client.close()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"first": "rows"}, "first must be a list such as"),
        ({"page_base": 2}, "page_base must be 0 or 1"),
        ({"page_base": "0"}, "page_base must be a whole number"),
        ({"source": 3}, "source must be a str"),
        ({"text": ""}, "text must be a key of the payload, or None for none"),
        ({"full": "a", "first": ["a"]}, "first has 'a', which is full"),
        ({"first": ["a\udce4"]}, r"the layout has 'a\\udce4', which holds a half of a surrogate pair"),
        ({"source": "\ud83d.name"}, "which holds a half of a surrogate pair"),
        ({"pages": "page"}, "Layout has no option 'pages'; did you mean 'page'"),
    ],
)
def test_wrong_layouts_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        Layout.of(wrong)
    with pytest.raises(ConfigurationError, match="layout must be a Layout, or a dict of its attributes, got 3"):
        Layout.of(3)  # type: ignore[arg-type]


def test_a_layout_is_a_dict_and_back() -> None:
    for layout in (*LAYOUTS.values(), Layout()):
        assert Layout.of(layout.to_dict()) == layout
        assert eval(repr(layout)) == layout
