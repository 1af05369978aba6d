"""The engine on a Qdrant server: the client's local mode, over the wire, and a real one where QDRANT_URL is set."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grpc import StatusCode
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.scoring.bm25 import Bm25, bm25_scores
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.scoring.maxsim import max_sim
from colpali_integrations.stores.engine import FIRST, FULL, WORDS, Point, Search, VectorSpec
from colpali_integrations.stores.filters import Condition, Filter, Operator, matches, parse_filter
from colpali_integrations.stores.qdrant import server as server_module
from colpali_integrations.stores.qdrant.server import (
    QdrantServerEngine,
    connect,
    query_request,
    read_manifest,
)
from tests.stores.filter_cases import filters, payloads
from tests.stores.qdrant.grpc_stand_in import GrpcStandIn, grpc_stand_in
from tests.stores.qdrant.profiles import CLOUD
from tests.stores.qdrant.real import client_options, server_url
from tests.stores.qdrant.refusals import LIMIT
from tests.stores.qdrant.stand_in import StandIn, stand_in

DIM = 8
SCHEMA = {FULL: VectorSpec(dim=DIM), FIRST: VectorSpec(dim=DIM)}
MANIFEST = {"model": {"name": "coltiny", "dim": DIM}, "pooling": None, "factor": 1.0, "list": [1, "a"]}
SERVER = server_url()
PLACES = ["local", "REST", "cloud", "gRPC", *(["server"] if SERVER else [])]

Make = Callable[..., QdrantServerEngine]


@pytest.fixture(scope="module")
def server() -> Iterator[StandIn]:
    with stand_in() as running:
        yield running


@pytest.fixture(scope="module")
def cloud() -> Iterator[StandIn]:
    """With the strict mode that collections on Qdrant Cloud have."""
    with stand_in(profile=CLOUD) as running:
        yield running


@pytest.fixture(scope="module")
def grpc_server() -> Iterator[GrpcStandIn]:
    with grpc_stand_in() as running:
        yield running


def grpc_client(server: GrpcStandIn) -> QdrantClient:
    return connect(f"http://127.0.0.1:{server.port}", prefer_grpc=True, grpc_port=server.port)


@pytest.fixture(params=PLACES)
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    if request.param == "gRPC":
        made = grpc_client(request.getfixturevalue("grpc_server"))
    elif request.param in ("REST", "cloud"):
        made = connect(request.getfixturevalue({"REST": "server"}.get(request.param, request.param)).url)
    else:
        made = connect(":memory:") if request.param == "local" else connect(str(SERVER), **client_options())
    yield made
    made.close()


@pytest.fixture
def make(client: QdrantClient) -> Iterator[Make]:
    """Engines on a new collection each, unless one is named; gone afterwards."""
    used = set()

    def make(collection: str | None = None, **changed: Any) -> QdrantServerEngine:
        name = collection or f"test-{uuid.uuid4()}"
        used.add(name)
        return QdrantServerEngine(client, name, **{"schema": SCHEMA, "manifest": MANIFEST, **changed})

    yield make
    for name in used:
        client.delete_collection(name)


def unit(array: NDArray[Any]) -> NDArray[np.float32]:
    made: NDArray[np.float32] = (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)
    return made


def page(number: int, *, text: str = "", count: int = 6, **metadata: Any) -> Point:
    random = np.random.default_rng(number)
    full = unit(random.standard_normal((count, DIM))).astype(np.float16)
    words = Bm25().document(text) if text else None
    payload = {"id": str(number), "document_id": f"g{number % 3}", "metadata": {"page": number, **metadata}}
    return Point(str(number), {FULL: full, FIRST: full[:2]}, words, payload)


def query(seed: int, count: int = 3) -> NDArray[np.float32]:
    return unit(np.random.default_rng(1000 + seed).standard_normal((count, DIM)))


def scores(array: NDArray[np.float32], points: list[Point], name: str = FULL) -> dict[str, float]:
    found = max_sim(array, [point.vectors[name].astype(np.float32) for point in points])
    return {point.id: float(score) for point, score in zip(points, np.ravel(found), strict=True)}


def test_points_stay_until_they_are_deleted(make: Make) -> None:
    engine = make()
    points = [page(number) for number in range(5)]
    engine.upsert(points)
    assert engine.count() == 5
    assert engine.retrieve(["3", "unknown", "1", "3"]) == [
        points[3].payload,
        None,
        points[1].payload,
        points[3].payload,
    ]
    kept = engine.vectors(["4", "unknown"])
    assert kept[1] is None
    assert kept[0] is not None
    assert kept[0].dtype == np.float32
    np.testing.assert_array_equal(kept[0].astype(np.float16), points[4].vectors[FULL])
    other = page(77)
    engine.upsert([Point("4", other.vectors, None, {"id": "4", "metadata": {"new": True}})])
    assert engine.count() == 5
    assert engine.retrieve(["4"]) == [{"id": "4", "metadata": {"new": True}}]
    engine.delete(["4", "unknown", "0"])
    assert engine.count() == 3
    assert engine.retrieve(["4", "0"]) == [None, None]
    assert engine.vectors([]) == engine.retrieve([]) == []
    engine.upsert([])
    engine.delete([])
    engine.optimize()
    assert engine.count() == 3


def test_payloads_are_replaced_where_the_content_is_the_same(make: Make) -> None:
    engine = make()
    points = [page(number, text="low tide") for number in range(4)]
    other = page(4, text="high water")
    for point, content in zip(points, ("a", "b", "c", None), strict=True):
        point.payload.update({} if content is None else {"content_hash": content})
    engine.upsert([*points, other])
    new: dict[str, dict[str, Any]] = {
        "0": {"id": "0", "content_hash": "a", "metadata": {"year": 2024, "exact": 1.5}},
        "1": {"id": "1", "content_hash": "another", "metadata": {"year": 2024}},
        "2": {"id": "2", "metadata": {"year": 2024}},
        "3": {"id": "3", "metadata": {"year": 2024, "ü": "東京"}},
        "gone": {"id": "gone", "content_hash": "a", "metadata": {"year": 2024}},
    }
    engine.update(new)
    engine.update({})
    stored = [new["0"], points[1].payload, points[2].payload, new["3"], None]
    assert engine.retrieve(["0", "1", "2", "3", "gone"]) == stored
    assert engine.count() == 5
    assert engine.count(parse_filter({"year": 2024})) == 2
    for point, kept in zip(points, engine.vectors([point.id for point in points]), strict=True):
        assert kept is not None
        np.testing.assert_array_equal(kept.astype(np.float16), point.vectors[FULL])
    [found] = engine.search([Search(query=Bm25().query("tide"), using=WORDS, limit=9)])
    assert {hit.id for hit in found} == {"0", "1", "2", "3"}


def test_search_is_max_sim(make: Make) -> None:
    engine = make()
    points = [page(number, count=2 + number % 5) for number in range(30)]
    engine.upsert(points)
    searches = [Search(query=query(seed), limit=7) for seed in range(4)]
    for search, found in zip(searches, engine.search(searches), strict=True):
        expected = scores(search.query, points)  # type: ignore[arg-type]
        best = sorted(expected, key=lambda id_: -expected[id_])[:7]
        assert [hit.id for hit in found] == best
        np.testing.assert_allclose([hit.score for hit in found], [expected[id_] for id_ in best], rtol=1e-3, atol=1e-4)
        assert found[0].payload == points[int(best[0])].payload
    assert engine.search([]) == []


def test_filters_and_ids_hold_for_both_stages(make: Make) -> None:
    engine = make()
    points = [page(number, title=f"Page {number}") for number in range(40)]
    engine.upsert(points)
    array = query(1)
    where = parse_filter({"page": {"$gte": 20}, "title": {"$itext": "pAGE"}})
    few = ["1", "21", "22", "30", "nowhere"]
    inner = Search(query=array, using=FIRST, limit=5)
    for prefetch in (None, inner):
        [found] = engine.search([Search(query=array, limit=10, where=where, prefetch=prefetch)])
        assert len(found) == (10 if prefetch is None else 5)
        assert all(int(hit.id) >= 20 for hit in found)
        [found] = engine.search([Search(query=array, limit=10, where=where, ids=few, prefetch=prefetch)])
        assert {hit.id for hit in found} == {"21", "22", "30"}
        [found] = engine.search([Search(query=array, limit=10, ids=few, prefetch=prefetch, scores_only=True)])
        assert {hit.id for hit in found} == {"1", "21", "22", "30"}
        assert [hit.payload for hit in found] == [{}] * 4
    assert engine.search([Search(query=array, limit=10, ids=[])]) == [[]]
    [found] = engine.search([Search(query=array, limit=10, scores_only=True)])
    assert {hit.id for hit in found} <= {point.id for point in points}


def test_both_stages_are_sent_the_conditions() -> None:
    conditions = models.Filter(must=[models.HasIdCondition(has_id=[])])
    inner = Search(query=query(1), using=FIRST, limit=5)
    for local in (True, False):
        sent = query_request(Search(query=query(1), limit=2, prefetch=inner), conditions, local=local)
        assert isinstance(sent.prefetch, models.Prefetch)
        assert sent.filter == sent.prefetch.filter == conditions
        assert (sent.params is None) == (sent.prefetch.params is None) == local


def test_prefetch_chooses_and_the_full_vectors_rank(make: Make) -> None:
    engine = make()
    points = [page(number) for number in range(40)]
    engine.upsert(points)
    array = query(2)
    [found] = engine.search([Search(query=array, limit=3, prefetch=Search(query=array, using=FIRST, limit=8))])
    first, full = scores(array, points, FIRST), scores(array, points)
    candidates = sorted(first, key=lambda id_: -first[id_])[:8]
    assert [hit.id for hit in found] == sorted(candidates, key=lambda id_: -full[id_])[:3]
    np.testing.assert_allclose([hit.score for hit in found], [full[hit.id] for hit in found], rtol=1e-3)


def test_words_are_scored_by_bm25(make: Make) -> None:
    engine = make()
    texts = ["the quick brown fox", "a lazy dog and a fox", "", "nothing of the kind", "fox fox fox"]
    points = [page(number, text=text) for number, text in enumerate(texts)]
    engine.upsert(points)
    bm25 = Bm25()
    asked = bm25.query("brown fox")
    [found, nothing, without] = engine.search(
        [
            Search(query=asked, using=WORDS, limit=10),
            Search(query=bm25.query("zebra"), using=WORDS, limit=10),
            Search(query=bm25.query("..."), using=WORDS, limit=10),
        ]
    )
    assert nothing == without == []
    words = {point.id: point.words for point in points if point.words is not None}
    expected = bm25_scores(asked, list(words.values()))
    best = {id_: float(score) for id_, score in zip(words, expected, strict=True) if score > 0}
    assert {hit.id: pytest.approx(hit.score, rel=1e-3) for hit in found} == best
    assert [hit.id for hit in found] == sorted(best, key=lambda id_: -best[id_])


def test_words_that_all_points_have_are_left_out(make: Make) -> None:
    """Of texts, not of points: some have none. A server gives such words an IDF above 0."""
    engine, bm25 = make(), Bm25()
    points = [page(number, text=f"low tide {'fox' if number else 'hen'} w{number}x") for number in range(30)]
    engine.upsert([*points, page(30), page(31)])

    def found(text: str) -> dict[str, float]:
        [answer] = engine.search([Search(query=bm25.query(text), using=WORDS, limit=40)])
        return {hit.id: hit.score for hit in answer}

    assert found("tides") == found("low low tide") == {}
    assert found("fox").keys() == {str(number) for number in range(1, 30)}, "all but one have it"
    assert found("w7x low tide") == found("w7x")
    by_ids = Search(query=bm25.query("low w7x"), using=WORDS, limit=3, ids=["6", "7"], scores_only=True)
    assert [hit.id for hit in engine.search([by_ids])[0]] == ["7"]
    engine.upsert([page(30, text="high water")])
    assert len(found("tide")) == 30, "what this process writes counts at once"
    engine.delete(["0", "30"])
    assert found("fox") == found("tide") == {}
    engine.delete([point.id for point in points])
    assert found("fox") == {}


def test_common_words_take_few_requests(server: StandIn) -> None:
    client = connect(server.url)
    engine = QdrantServerEngine(client, "common", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    engine.upsert([page(number, text=f"low tide w{number}x") for number in range(30)])
    searches = [Search(query=Bm25().query(text), using=WORDS, limit=9) for text in ("low w3x", "a hen")]

    def requests(*some: Search) -> list[str]:
        server.asked.clear()
        engine.search(some)
        return [path.rpartition("points/")[2] for _, path, _ in server.asked]

    assert requests(Search(query=query(1), limit=9)) == ["query/batch"]
    assert requests(*searches) == ["count", "scroll", "query/batch", "query/batch"]
    assert requests(*searches) == ["query/batch"], "the number of texts and the IDF of the word are known"
    tide = Search(query=Bm25().query("tide"), using=WORDS, limit=9)
    assert requests(tide, searches[0]) == ["query/batch", "query/batch"]
    assert requests(tide) == [], "nothing is left to ask for"
    engine.close()


def test_points_without_the_vector_are_not_found(make: Make) -> None:
    engine = make()
    points = [page(number) for number in range(4)]
    bare = Point("bare", {}, None, {"id": "bare", "metadata": {}})
    engine.upsert([*points, bare])
    assert engine.count() == 5
    [found] = engine.search([Search(query=query(3), limit=10)])
    assert {hit.id for hit in found} == {"0", "1", "2", "3"}
    assert engine.vectors(["bare"]) == [None]


def test_scroll_goes_through_everything_once(make: Make) -> None:
    engine = make()
    engine.upsert([page(number) for number in range(25)])
    where = parse_filter({"page": {"$ne": 7}})
    seen: list[str] = []
    after = None
    for _ in range(10):
        some, after = engine.scroll(where, limit=7, after=after, fields=["document_id"])
        assert all(payload.keys() == {"id", "document_id"} for payload in some)
        seen += [payload["id"] for payload in some]
        if after is None:
            break
    assert sorted(seen, key=int) == [str(number) for number in range(25) if number != 7]
    some, after = engine.scroll(limit=100)
    assert (len(some), after) == (25, None)
    assert "metadata" in some[0]


@pytest.mark.slow
@pytest.mark.parametrize("grpc", [False, True], ids=["REST", "gRPC"])
@settings(max_examples=25, deadline=None)
@given(
    stored=st.lists(payloads(st.uuids().map(str)), min_size=1, max_size=6),
    wheres=st.lists(filters, min_size=3, max_size=6),
)
def test_filters_over_the_wire_agree_with_matches(
    server: StandIn, grpc_server: GrpcStandIn, grpc: bool, stored: list[dict[str, Any]], wheres: list[Filter]
) -> None:
    client = grpc_client(grpc_server) if grpc else connect(server.url)
    engine = QdrantServerEngine(client, "filters", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    try:
        vectors = page(1).vectors
        engine.upsert([Point(payload["id"], vectors, None, payload) for payload in stored])
        for where in wheres:
            expected = {payload["id"] for payload in stored if matches(where, payload)}
            assert {payload["id"] for payload in engine.scroll(where)[0]} == expected
            assert engine.count(where) == len(expected)
            [found] = engine.search([Search(query=query(1), limit=100, where=where)])
            assert {hit.id for hit in found} == expected
    finally:
        client.delete_collection("filters")
        engine.close()


def test_the_first_manifest_counts(make: Make, client: QdrantClient) -> None:
    name = f"test-{uuid.uuid4()}"
    assert read_manifest(client, name) is None
    assert make(name).manifest == MANIFEST
    assert read_manifest(client, name) == MANIFEST
    assert make(name, manifest={"another": 1}).manifest == MANIFEST


def test_foreign_collections_are_refused(make: Make, client: QdrantClient) -> None:
    name = f"test-{uuid.uuid4()}"
    client.create_collection(name, {FULL: models.VectorParams(size=DIM, distance=models.Distance.DOT)})
    with pytest.raises(StoreError, match=f"{name}.*not made by colpali-integrations"):
        make(name)
    with pytest.raises(StoreError, match="choose another collection name"):
        read_manifest(client, name)


def test_vectors_of_another_length_are_refused(make: Make) -> None:
    name = f"test-{uuid.uuid4()}"
    engine = make(name)
    with pytest.raises(StoreError, match=f"lengths .*{DIM}.*expected .*{2 * DIM}"):
        make(name, schema={FULL: VectorSpec(dim=2 * DIM), FIRST: VectorSpec(dim=DIM)})
    wide = Point("1", {FULL: np.ones((2, 2 * DIM), np.float16)}, None, {"id": "1"})
    with pytest.raises(StoreError, match=name):
        engine.upsert([wide])
    assert engine.count() == 0


def test_a_lost_collection_is_an_error(make: Make, client: QdrantClient) -> None:
    name = f"test-{uuid.uuid4()}"
    engine = make(name)
    client.delete_collection(name)
    with pytest.raises(StoreError, match=name):
        engine.count()


def test_threads_share_an_engine(make: Make) -> None:
    engine = make()

    def work(number: int) -> list[str]:
        engine.upsert([page(number)])
        [found] = engine.search([Search(query=query(number), limit=100, where=Condition("page", Operator.EQ, number))])
        return [hit.id for hit in found]

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(work, range(24))) == [[str(number)] for number in range(24)]
    assert engine.count() == 24


def test_closing_an_engine_closes_its_own_client(server: StandIn) -> None:
    client = connect(server.url)
    engine = QdrantServerEngine(client, "closing", schema=SCHEMA, manifest=MANIFEST)
    engine.close()
    engine.close()
    with pytest.raises(StoreError, match="was closed"):
        engine.count()
    client.delete_collection("closing")
    engine = QdrantServerEngine(client, "closing", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    client.delete_collection("closing")
    engine.close()
    with pytest.raises(Exception, match="closed"):
        client.get_collections()


@pytest.mark.parametrize(("bits", "datatype", "since"), [(8, "turbo8", "1.20.0"), (4, "turbo4", "1.19.2")])
def test_codes_are_those_of_the_server(server: StandIn, bits: int, datatype: str, since: str) -> None:
    client, name = connect(server.url), f"coded-{bits}"
    schema = {FULL: VectorSpec(dim=DIM, code=VectorCode(DIM, bits))}
    try:
        server.version = "1.18.3"
        with pytest.raises(ConfigurationError, match=f"Qdrant 1.18 does not have .{datatype}.*datatype='float16'"):
            QdrantServerEngine(client, name, schema=schema, manifest=MANIFEST)
        assert not server.client.collection_exists(name)
        server.version = since
        engine = QdrantServerEngine(client, name, schema=schema, manifest=MANIFEST, owns_client=True)
    finally:
        server.version = "1.20.0"
    params = server.client.get_collection(name).config.params.vectors
    assert isinstance(params, dict) and params[FULL].datatype == datatype
    assert engine.has_own_codes
    engine.close()


@pytest.mark.parametrize(("copies", "bits"), [("int4", "bits4"), ("int2", "bits2")])
def test_small_copies_of_few_bits_are_turbo_quantised(server: StandIn, copies: str, bits: str) -> None:
    schema = {FULL: VectorSpec(dim=DIM, quantization=copies)}
    QdrantServerEngine(
        connect(server.url), f"copies-{bits}", schema=schema, manifest=MANIFEST, owns_client=True
    ).close()
    params = server.client.get_collection(f"copies-{bits}").config.params.vectors
    assert isinstance(params, dict)
    made = params[FULL].quantization_config
    assert isinstance(made, models.TurboQuantization) and made.turbo.bits == bits


def test_collections_are_made_for_scans_of_multi_vectors(server: StandIn) -> None:
    client = connect(server.url)
    schema = {
        FULL: VectorSpec(dim=DIM, quantization="binary"),
        FIRST: VectorSpec(dim=64, multi=False, quantization="int8"),
    }
    engine = QdrantServerEngine(client, "layout", schema=schema, manifest={"a": 1}, owns_client=True)
    params = server.client.get_collection("layout").config.params
    assert isinstance(params.vectors, dict)
    full, first = params.vectors[FULL], params.vectors[FIRST]
    assert (full.on_disk, full.datatype, full.distance) == (True, "float16", "Dot")
    assert full.multivector_config is not None
    assert full.hnsw_config is not None
    assert full.hnsw_config.m == 0
    assert isinstance(full.quantization_config, models.BinaryQuantization)
    assert (first.on_disk, first.multivector_config) == (False, None)
    assert first.hnsw_config is not None and first.hnsw_config.m == 0
    assert isinstance(first.quantization_config, models.ScalarQuantization)
    assert params.sparse_vectors is not None
    assert params.sparse_vectors[WORDS].modifier == "idf"
    assert server.strict.kinds("layout") == {
        "document_id": "keyword",
        "content_hash": "keyword",
        "metadata.source": "keyword",
        "metadata.page": "float",
    }
    vector = np.random.default_rng(0).standard_normal(64).astype(np.float32)
    engine.upsert([Point("1", {FIRST: vector}, None, {"id": "1"})])
    [kept] = engine.vectors(["1"], FIRST)
    assert kept is not None
    np.testing.assert_array_equal(kept, vector)
    [found] = engine.search([Search(query=vector, using=FIRST, limit=1, oversampling=4.0)])
    assert found[0].score == pytest.approx(float(vector @ vector), rel=1e-5)
    client.delete_collection("layout")
    engine.close()


def test_large_updates_are_split_below_the_server_s_limit(server: StandIn) -> None:
    client = connect(server.url)
    engine = QdrantServerEngine(client, "long", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    payloads = {str(number): {"id": str(number), "text": "é" * 4_000_000} for number in range(3)}
    engine.upsert([Point(id_, page(1).vectors, None, {"id": id_}) for id_ in payloads])
    server.asked.clear()
    engine.update(payloads)
    sizes = [size for _, path, size in server.asked if path.endswith("/points/batch")]
    assert len(sizes) == 3
    assert max(sizes) < LIMIT
    assert engine.retrieve([*payloads]) == [*payloads.values()]
    client.delete_collection("long")
    engine.close()


@pytest.mark.slow
def test_large_batches_are_split_below_the_server_s_limit(server: StandIn) -> None:
    client = connect(server.url)
    schema = {FULL: VectorSpec(dim=128)}
    engine = QdrantServerEngine(client, "large", schema=schema, manifest={"a": 1}, owns_client=True)
    random = np.random.default_rng(0)
    pages = unit(random.standard_normal((30, 1030, 128))).astype(np.float16)
    server.asked.clear()
    engine.upsert([Point(str(number), {FULL: array}, None, {"id": str(number)}) for number, array in enumerate(pages)])
    sizes = [size for method, path, size in server.asked if method == "PUT" and path.endswith("/points")]
    assert len(sizes) == 2
    assert 30 * 1030 * 128 * 7 < sum(sizes) < 30 * 1030 * 128 * 9
    assert max(sizes) < LIMIT
    assert engine.count() == 30
    [kept] = engine.vectors(["29"])
    assert kept is not None
    np.testing.assert_array_equal(kept.astype(np.float16), pages[29])
    client.delete_collection("large")
    engine.close()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (400, "refused: some words"),
        (401, "api_key= "),
        (403, "does not allow"),
        (404, "open the store again"),
        (413, "max_request_size_mb"),
        (429, "try again later"),
        (500, "refused: some words"),
        (503, "address and port"),
    ],
)
def test_refusals_name_the_place_and_the_remedy(status: int, said: str) -> None:
    with stand_in() as server:
        client = connect(server.url, retry_seconds=0)
        engine = QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
        server.refuse = (status, "some words")
        for ask in (engine.count, lambda: engine.upsert([page(1)]), lambda: read_manifest(client, "mine")):
            with pytest.raises(StoreError) as caught:
                ask()
            for words in (said, "some words", "'mine'", server.url):
                assert words in str(caught.value)
        engine.close()


def test_a_filter_without_an_index_in_strict_mode() -> None:
    with stand_in() as server:
        client = connect(server.url)
        engine = QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
        server.refuse = (400, 'Bad request: Index required but not found for "metadata.year" of one of: [float]')
        with pytest.raises(StoreError, match=r"metadata\.year.*indexes="):
            engine.count(parse_filter({"year": 2026}))
        engine.close()


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (StatusCode.UNAUTHENTICATED, "api_key= "),
        (StatusCode.PERMISSION_DENIED, "does not allow"),
        (StatusCode.NOT_FOUND, "open the store again"),
        (StatusCode.DEADLINE_EXCEEDED, "timeout="),
        (StatusCode.RESOURCE_EXHAUSTED, "try again later"),
        (StatusCode.INVALID_ARGUMENT, "refused: some words"),
    ],
)
def test_refusals_over_grpc_have_the_same_messages(code: StatusCode, said: str) -> None:
    with grpc_stand_in() as server:
        client = grpc_client(server)
        engine = QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
        server.refuse = code
        with pytest.raises(StoreError) as caught:
            engine.count()
        for words in (said, "some words", "'mine'", str(server.port)):
            assert words in str(caught.value)
        engine.close()


def test_a_float_takes_four_bytes_over_grpc(grpc_server: GrpcStandIn) -> None:
    client = grpc_client(grpc_server)
    engine = QdrantServerEngine(
        client, "bytes", schema={FULL: VectorSpec(dim=128)}, manifest={"a": 1}, owns_client=True
    )
    array = unit(np.random.default_rng(0).standard_normal((1030, 128))).astype(np.float16)
    grpc_server.received = 0
    engine.upsert([Point("1", {FULL: array}, None, {"id": "1"})])
    assert 4 * array.size < grpc_server.received < 4.1 * array.size
    [kept] = engine.vectors(["1"])
    assert kept is not None
    np.testing.assert_array_equal(kept.astype(np.float16), array)
    assert grpc_server.indexes == {"document_id", "content_hash", "metadata.source", "metadata.page"}
    client.delete_collection("bytes")
    engine.close()


def closed_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@pytest.mark.parametrize("grpc", [False, True], ids=["REST", "gRPC"])
def test_a_missing_server_is_an_error(grpc: bool) -> None:
    port = closed_port()
    client = connect(f"http://127.0.0.1:{port}", prefer_grpc=grpc, grpc_port=port)
    with pytest.raises(StoreError, match=rf"'mine' at http://127.0.0.1:{port}.*cannot be reached.*address and port"):
        read_manifest(client, "mine")
    client.close()


def test_a_server_without_an_answer_is_an_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=1)
        with pytest.raises(StoreError, match=r"took too long.*timeout="):
            read_manifest(client, "mine")
        client.close()


def test_a_server_without_collection_metadata_is_too_old() -> None:
    with stand_in(version="1.15.5") as server:
        client = connect(server.url)
        with pytest.raises(StoreError, match=r"version 1\.15.*1\.16"):
            QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST)
        assert not server.client.collection_exists("mine")
        client.close()


def test_substrings_are_matched_locally_for_servers_before_1_20() -> None:
    with stand_in(version="1.18.0") as server:
        client = connect(server.url)
        engine = QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
        engine.upsert([page(1, title="report"), page(2, title="letter")])
        server.asked.clear()
        assert engine.count(parse_filter({"title": {"$text": "epo"}})) == 1
        assert [path.rpartition("/")[2] for _, path, _ in server.asked] == ["scroll", "count"]
        engine.close()


def test_a_server_that_never_keeps_the_metadata_is_an_error(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(server.url)
    engine = QdrantServerEngine(client, "forgetful", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
    monkeypatch.setattr(server_module, "write_manifest", lambda *arguments: None)
    monkeypatch.setattr(server_module, "_MANIFEST_ATTEMPTS", 3)
    with pytest.raises(StoreError, match=r"forgetful.*accepted new metadata.*3 times.*still tells others"):
        engine.change_manifest(lambda manifest: {**manifest, "more": 1})
    assert engine.change_manifest(lambda manifest: manifest) == engine.manifest
    engine.close()


def test_two_processes_that_create_a_collection_share_it(server: StandIn) -> None:
    clients = [connect(server.url) for _ in range(4)]
    start = threading.Barrier(4)

    def work(number: int) -> Any:
        start.wait()
        made = QdrantServerEngine(clients[number], "race", schema=SCHEMA, manifest={"by": number}, owns_client=True)
        return made.manifest

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(work, range(4)))
    assert all(manifest == found[0] for manifest in found)
    clients[0].delete_collection("race")
    for client in clients:
        client.close()


def test_the_api_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture) -> None:
    with stand_in() as server:
        with pytest.warns(UserWarning, match="insecure"):
            client = connect(server.url.replace("//", "//user:password@"), api_key="very-secret")
        engine = QdrantServerEngine(client, "mine", schema=SCHEMA, manifest=MANIFEST, owns_client=True)
        assert server.keys == {"very-secret"}
        server.refuse = (403, "forbidden")
        with pytest.raises(StoreError) as caught:
            engine.count()
        for shown in (str(caught.value), repr(caught.value), engine.where, repr(engine), caplog.text):
            assert "very-secret" not in shown
            assert "password" not in shown
        engine.close()


def test_without_qdrant_client_the_extra_is_named() -> None:
    code = "import sys; sys.modules['qdrant_client'] = None; import colpali_integrations.stores.qdrant.server"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "MissingExtraError" in done.stderr
    assert "colpali-integrations[qdrant]" in done.stderr


def test_invalid_client_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no Qdrant client can be made for ftp://somewhere"):
        connect("ftp://somewhere")
    with pytest.raises(ConfigurationError, match=r"no Qdrant client can be made for http://\[::1:") as caught:
        connect("http://user:secret@[::1")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="url"):
        connect("http://localhost", url_prefix="x", prefix="/a", host="b")


@pytest.mark.parametrize(("bits", "worst"), [(8, 0.011), (4, 0.125)])
def test_codes_of_qdrant_s_engine_are_as_near_as_those_of_a_folder(tmp_path: Path, bits: int, worst: float) -> None:
    """By the engine itself, in this process: MaxSim of stored vectors, which differ little from those given."""
    import qdrant_edge as edge

    pages = [unit(np.random.default_rng(number).standard_normal((30, 128))) for number in range(6)]
    params = edge.EdgeVectorParams(
        128,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim),
        datatype=getattr(edge.VectorStorageDatatype, f"Turbo{bits}"),
        hnsw_config=edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10),
    )
    shard = edge.EdgeShard.create(str(tmp_path), edge.EdgeConfig(vectors={FULL: params}))
    points = [edge.Point(number, {FULL: page.tolist()}, {}) for number, page in enumerate(pages)]
    shard.update(edge.UpdateOperation.upsert_points(points))
    records: list[Any] = shard.retrieve([*range(6)], False, [FULL])
    stored = [np.array(one.vector[FULL], np.float32) for one in records]
    for page, restored in zip(pages, stored, strict=True):
        error = np.linalg.norm(restored - page, axis=1)  # of vectors of length 1
        assert np.sqrt((error**2).mean()) < worst
    query = unit(np.random.default_rng(99).standard_normal((4, 128)))
    nearest = edge.Query.Nearest(query.tolist(), using=FULL)
    found = shard.query(edge.QueryRequest(query=nearest, limit=6, params=edge.SearchParams(exact=True)))
    shard.close()
    expected = max_sim(query, stored)
    for one in found:
        assert one.score == pytest.approx(float(expected[int(one.id)]), rel=0.02)
