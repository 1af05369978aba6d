"""Collections in strict mode: indexes, limits of requests, tokens per minute, and no exact searches."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from qdrant_client.http.exceptions import UnexpectedResponse

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.scoring.bm25 import Bm25
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.engine import FIRST, FULL, WORDS, Point, Search, VectorSpec
from colpali_integrations.stores.filters import matches, parse_filter
from colpali_integrations.stores.qdrant import retries
from colpali_integrations.stores.qdrant.errors import is_denied
from colpali_integrations.stores.qdrant.filters import point_id, translate
from colpali_integrations.stores.qdrant.server import QdrantServerEngine, connect
from colpali_integrations.stores.qdrant.strict import StrictMode, divided
from tests.stores.backends import MODEL, entry, page
from tests.stores.qdrant.clocks import FakeClock
from tests.stores.qdrant.profiles import CLOUD, NARROW
from tests.stores.qdrant.stand_in import StandIn, stand_in

QUERY = page(1000, rows=4)
OWN = {"document_id": "keyword", "content_hash": "keyword", "metadata.source": "keyword", "metadata.page": "float"}


@pytest.fixture(scope="module")
def cloud() -> Iterator[StandIn]:
    with stand_in(profile=CLOUD) as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest, cloud: StandIn) -> Iterator[str]:
    """A collection of the test."""
    made = request.node.name
    yield made
    cloud.read_only = False
    cloud.client.delete_collection(made)


def opened(server: StandIn, name: str, **options: Any) -> MultiVectorStore:
    return MultiVectorStore.open(url=server.url, collection_name=name, **{"model": MODEL, **options})


def records(count: int) -> list[tuple[Any, Any]]:
    metadata = [
        {"source": f"{n % 3}.pdf", "page": n, "year": 2000 + n % 5, "open": n % 2 == 0, "title": f"Title {n % 4}"}
        for n in range(count)
    ]
    for number, one in enumerate(metadata):
        one["mixed"] = [number, number + 0.5, str(number), True][number % 4]
    return [(entry(number, metadata=one), page(number)) for number, one in enumerate(metadata)]


def schemas(server: StandIn, name: str) -> dict[str, str]:
    """The kinds of the indexes beyond those of every collection, as the server shows them."""
    shown = connect(server.url).get_collection(name).payload_schema
    return {key: str(index.data_type.value) for key, index in shown.items() if key not in OWN}


def asked(server: StandIn) -> list[str]:
    """The last parts of the paths of all requests since the last call."""
    paths = [path.rpartition("/")[2] for _, path, _ in server.asked]
    server.asked.clear()
    return paths


FILTERS: list[dict[str, Any]] = [
    {"year": 2003},
    {"year": {"$gte": 2002, "$lt": 2004}, "page": {"$gt": 5}},
    {"title": "Title 1"},
    {"title": {"$nin": ["Title 1", "Title 2"]}},
    {"open": True},
    {"page": True},
    {"source": {"$in": ["1.pdf", 3]}},
    {"mixed": {"$in": [3, "4", True]}},
    {"mixed": {"$exists": False}},
    {"absent": {"$exists": True}},
    {"absent": {"$ne": 3}},
    {"title": {"$itext": "TITLE 3"}, "year": {"$ne": 2001}},
    {"title": {"$text": "itle 2"}},
    {"$or": [{"year": 2001}, {"$not": {"open": True}}]},
    {"title": {"$in": [*range(100)]}},
    {"year": {"$in": [*range(2001, 2100)]}},
    {"$id": {"$exists": True}},
    {"$id": {"$exists": False}},
    {"$document": "1.pdf", "$content": {"$exists": True}},
]


@pytest.mark.parametrize("auto_index", [True, False])
def test_filters_mean_the_same_in_strict_mode(cloud: StandIn, name: str, auto_index: bool) -> None:
    with opened(cloud, name, auto_index=auto_index) as store:
        stored = [one for one, _ in records(20)]
        store.add(records(20))
        for where in FILTERS:
            parsed = parse_filter(where)
            assert parsed is not None
            expected = {one.id for one in stored if matches(parsed, one.to_payload())}
            assert {one.id for one in store.scroll(where)} == expected, where
            assert store.count(where) == len(expected), where
            assert {hit.id for hit in store.search(QUERY, 50, where=where)} == expected, where
    made = {"metadata.year": "float", "metadata.title": "keyword", "metadata.open": "bool", "metadata.mixed": "float"}
    assert schemas(cloud, name) == (made if auto_index else {})


def test_a_filter_makes_its_index_once(cloud: StandIn, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with opened(cloud, name) as store, caplog.at_level(logging.INFO, "colpali_integrations"):
        store.add(records(6))
        asked(cloud)
        assert store.count({"year": 2001}) == 1
        # Some payloads tell the kind of the field's values.
        assert asked(cloud) == [name, "scroll", "index", "count"]
        assert store.count({"year": {"$gt": 2002}}) == 2
        assert asked(cloud) == ["count"]
        assert store.info().indexes == {"source": "text", "page": "number", "year": "number"}
    assert [record.message for record in caplog.records if "index" in record.message] == [
        f"the Qdrant collection {name!r} at {cloud.url}: made an index of the kind 'number' for year"
    ]


def test_a_field_that_no_page_has_gets_no_index(cloud: StandIn, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with opened(cloud, name) as store, caplog.at_level(logging.WARNING, "colpali_integrations"):
        store.add(records(100))
        for _ in range(2):
            assert store.count({"yaer": 2001}) == 0
        assert schemas(cloud, name) == {}
        asked(cloud)
        assert store.count({"yaer": {"$gt": 2001}}) == 0
        assert asked(cloud) == ["scroll", "count"]  # that of all payloads: no sample is read again
        [told] = [record.message for record in caplog.records]
        assert told.endswith(
            "is in strict mode and has no index for yaer: filters on it read the payloads, which takes longer. No page "
            "is known to have it; is the name right? Open the store with indexes={'yaer': ...}, if it is"
        )
        store.add([(entry(500, metadata={"yaer": 2001}), page(500))])
        assert store.count({"yaer": 2001}) == 1
        assert schemas(cloud, name) == {"metadata.yaer": "float"}


def test_a_rare_field_gets_its_index_once_a_filter_has_met_it(cloud: StandIn, name: str) -> None:
    with opened(cloud, name) as store:
        last = sorted(range(200), key=lambda number: point_id(f"page {number}"))[-2:]  # servers list them by their ids
        store.add([*records(200), *((entry(one, metadata={"rare": [True]}), page(one)) for one in last)])
    with opened(cloud, name) as store:  # which has written none of them
        first = [one.metadata for one, _ in zip(store.scroll(), range(64), strict=False)]
        assert not any("rare" in one for one in first), "the sample has no page with it"
        assert store.count({"rare": True}) == 2
        assert schemas(cloud, name) == {}
        asked(cloud)
        assert store.count({"rare": True}) == 2
        assert schemas(cloud, name) == {"metadata.rare": "bool"}
        asked(cloud)
        assert store.count({"rare": True}) == 2
        assert asked(cloud) == ["count"]


def test_the_stored_values_decide_the_kind_of_an_index(cloud: StandIn, name: str) -> None:
    with opened(cloud, name) as store:
        store.add(records(6))
        assert store.count({"year": "2001"}) == 0
        assert store.count({"open": {"$exists": True}}) == 6
    assert schemas(cloud, name) == {"metadata.year": "float", "metadata.open": "bool"}


def test_the_caller_says_which_fields_get_an_index(cloud: StandIn, name: str) -> None:
    indexes = {"year": "number", "title": "text", "open": "bool", "when": "datetime", "tenant": "tenant"}
    opened(cloud, name, indexes=indexes).close()
    kinds = {"year": "float", "title": "keyword", "open": "bool", "when": "datetime", "tenant": "keyword"}
    assert schemas(cloud, name) == {f"metadata.{field}": kind for field, kind in kinds.items()}
    assert cloud.strict.indexes[name]["metadata.tenant"].is_tenant is True
    asked(cloud)
    with opened(cloud, name, indexes={"year": "number", "a.b": "text", "page": "number"}) as store:  # later, some more
        assert asked(cloud).count("index") == 1
        assert store.info().indexes == {"source": "text", "page": "number", **indexes, "a.b": "text"}
        assert store.info().to_dict()["indexes"] == store.info().indexes
        assert store.count({"a.b": "x"}) == 0
        assert "index" not in asked(cloud)
    with pytest.raises(ConfigurationError, match=r"has an index of the kind 'number' for 'year', not 'text'.*delete_p"):
        opened(cloud, name, indexes={"year": "text"})


def test_an_index_of_dates_narrows_the_payloads_that_are_read(cloud: StandIn, name: str) -> None:
    dates = [f"2024-{month:02}-{day:02}" for month in (1, 2, 3) for day in range(1, 28, 2)]
    times = ["2024-02-10T23:30:00-05:00", "2024-02-10T00:30:00+09:00", "2024-02-10 12:00:00", "2024-02-10T12:00:00Z"]
    stored = [entry(number, metadata={"when": when}) for number, when in enumerate([*dates, *times])]
    with opened(cloud, name, indexes={"when": "datetime"}) as store:
        store.add([(one, page(number)) for number, one in enumerate(stored)])
        wheres: list[dict[str, Any]] = [
            *({"when": {op: "2024-02-10"}} for op in ("$gt", "$gte", "$lt", "$lte", "$eq", "$ne")),
            *({"when": {op: "2024-02-10T12:00:00Z"}} for op in ("$gt", "$gte", "$lt", "$lte", "$eq", "$ne")),
            {"when": {"$gte": "2024-02-09", "$lt": "2024-02-11"}},
            {"when": {"$gte": "2024"}},
            {"when": {"$lt": "2024-13-45"}},
            {"when": {"$gt": "0001-01-01"}},
            {"when": {"$in": ["2024-02-01", "2024-02-10 12:00:00"]}},
            {"when": {"$not": {"$gte": "2024-02-10"}}},
        ]
        for where in wheres:
            parsed = parse_filter(where)
            assert parsed is not None
            expected = {one.id for one in stored if matches(parsed, one.to_payload())}
            assert {one.id for one in store.scroll(where)} == expected, where
        engine = store._engine
        assert isinstance(engine, QdrantServerEngine)
        read: list[Any] = []
        day = parse_filter({"when": {"$gte": "2024-02-10", "$lt": "2024-02-11"}})
        assert day is not None

        def reading(native: Any) -> list[Any]:
            read.extend(engine._payloads(native))
            return read

        translate(day, engine._dialect, reading)
        assert {one["metadata"]["when"] for one in read} == {
            *times,
            *(f"2024-02-{number:02}" for number in range(7, 15, 2)),
        }


@pytest.mark.parametrize(
    ("indexes", "said"),
    [
        (["year"], "indexes must be a dict"),
        ({"year": "integer"}, "'year' must be one of text, number, bool, datetime, tenant, got 'integer'"),
        ({"$id": "text"}, "no metadata field"),
        ({'a"b': "text"}, "without a quote"),
        ({"\udcff": "text"}, "no metadata field"),
        ({3: "text"}, "3 is no metadata field"),
    ],
)
def test_indexes_that_cannot_be_are_refused_before_a_request(indexes: Any, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        MultiVectorStore.open(url="http://127.0.0.1:9", model=MODEL, indexes=indexes)


@pytest.mark.parametrize("options", [{"indexes": {"year": "number"}}, {"auto_index": False}])
def test_indexes_are_for_a_server(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=rf"{next(iter(options))}: for a collection on a Qdrant server"):
        MultiVectorStore.open(model=MODEL, **options)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_key_that_may_only_read_makes_no_index(cloud: StandIn, name: str, caplog: pytest.LogCaptureFixture) -> None:
    with opened(cloud, name) as store:
        store.add(records(9))
    del cloud.strict.indexes[name]["metadata.page"]  # as in a collection that an older version has made
    cloud.read_only = True
    with opened(cloud, name) as store:
        assert store.count({"page": {"$lt": 4}}) == 4
        assert store.count({"year": 2001}) == 2
        assert [hit.entry.metadata["year"] for hit in store.search(QUERY, 9, where={"year": 2001})] == [2001] * 2
        assert store.count({"title": "Title 1"}) == 2
    assert schemas(cloud, name) == {}
    said = warnings_of(caplog)
    assert sum("no index is made" in one and "does not allow" in one for one in said) == 1
    # One warning for each field.
    assert [one.partition(" for ")[2].partition(":")[0] for one in said if "has no index" in one] == [
        "page",
        "year",
        "title",
    ]
    with pytest.raises(StoreError, match="API key does not allow"):
        opened(cloud, name, indexes={"year": "number"})


def test_no_more_indexes_than_the_collection_may_have(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with stand_in(profile={**CLOUD, "max_payload_index_count": 5}) as server:
        with opened(server, name) as store:
            store.add(records(9))
            assert (store.count({"year": 2001}), store.count({"title": "Title 1"})) == (2, 2)
            assert schemas(server, name) == {"metadata.year": "float"}
        with pytest.raises(StoreError, match=r"maximum number of payload indices \(5\)"):
            opened(server, name, indexes={"title": "text"})
    assert [one for one in warnings_of(caplog) if "title" in one] == [
        f"the Qdrant collection {name!r} at {server.url} is in strict mode and has no index for title: filters on it "
        "read the payloads, which takes longer. Open the store with indexes={'title': ...}"
    ]


def test_a_collection_that_may_have_no_index_works(name: str, caplog: pytest.LogCaptureFixture) -> None:
    with stand_in(profile={**CLOUD, "max_payload_index_count": 0}) as server, opened(server, name) as store:
        store.add(records(9))
        assert store.count({"page": {"$lt": 3}, "source": "1.pdf"}) == 1
        assert store.update_metadata("1.pdf", {"year": 1999}) == 3
        assert store.count({"year": 1999}) == 3
        assert store.delete(document_id="1.pdf") == 3
        assert server.strict.kinds(name) == {}
        assert len([one for one in warnings_of(caplog) if "no index is made" in one]) == 1


def test_another_process_has_made_the_index(cloud: StandIn, name: str) -> None:
    with opened(cloud, name) as store, opened(cloud, name) as other:
        store.add(records(6))
        asked(cloud)
        assert (store.count({"year": 2001}), asked(cloud).count("index")) == (1, 1)
        assert (other.count({"year": 2001}), asked(cloud).count("index")) == (1, 0)


def test_sets_of_values_are_as_long_as_the_collection_permits(name: str) -> None:
    with stand_in(profile={**CLOUD, "condition_max_size": 4}) as server, opened(server, name) as store:
        store.add(records(20))
        titles = [f"Title {number}" for number in range(1, 12)]
        assert store.count({"title": {"$in": titles}}) == 15
        assert store.count({"title": {"$itext": "TITLE 1"}}) == 5  # a set of ids
        assert store.delete([f"page {number}" for number in range(10)]) == 10
        assert len(store.score(QUERY, [f"page {number}" for number in range(20)])) == 10


@pytest.mark.parametrize("strict", [CLOUD, {}], ids=["cloud", "no strict mode"])
def test_frameworks_pass_indexes_on(strict: dict[str, Any], name: str, coltiny: Any) -> None:
    with stand_in(profile=strict) as server:
        place: dict[str, Any] = {"url": server.url, "collection_name": name, "auto_index": False}
        with LangChainStore(**place, indexes={"year": "number"}) as chained:
            chained.add_texts(["low tide", "rates of tax"], [{"year": 2023}, {"year": 2024}])
            assert len(chained.similarity_search("tide", filter={"year": 2023})) == 1
            chained.delete(filter={"year": {"$lt": 2024}})
            assert len(chained.store) == 1
        indexed = LlamaIndexStore(**place, indexes={"title": "text"})
        assert indexed.client.info().indexes == {
            "source": "text",
            "page": "number",
            "year": "number",
            "title": "text",
        }
        indexed.clear()
        assert len(indexed.client) == 0
        indexed.client.close()


# -- limits of requests ------------------------------------------------------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    made = FakeClock()
    monkeypatch.setattr(retries, "CLOCK", made)
    return made


def test_sixty_pages_within_narrow_limits(name: str, clock: FakeClock) -> None:
    """At most 100 results and 10 points per request, no exact search, 30 and 10 tokens per minute."""
    stored = records(60)
    with (
        stand_in(profile=NARROW, clock=clock.now) as server,
        opened(server, name, first_stage="ward", first_vectors=2) as store,
        MultiVectorStore.open(model=MODEL) as memory,
    ):
        memory.add(stored)
        assert store.add(stored) == 60
        assert clock.time > 240  # 60 tokens, of which 10 are there at the beginning
        assert store.hashes() == memory.hashes()
        assert store.documents() == memory.documents()
        assert {one.id for one in store.scroll({"year": 2001})} == {one.id for one in memory.scroll({"year": 2001})}
        assert len(store) == 60
        for options in (
            {"k": 5},
            {"k": 20},
            {"k": 60},
            {"k": 5, "where": {"open": True}},
            {"k": 4, "oversampling": 40},
        ):
            found, expected = (one.search(QUERY, **options) for one in (store, memory))
            assert [hit.id for hit in found] == [hit.id for hit in expected], options
        found, expected = (one.search(QUERY, 5, hybrid=0.5, text="text of page 7") for one in (store, memory))
        assert {hit.id for hit in found} == {hit.id for hit in expected}
        ids = [f"page {number}" for number in range(0, 60, 2)]
        assert store.score(QUERY, ids) == pytest.approx(memory.score(QUERY, ids), rel=1e-3)
        with pytest.raises(ConfigurationError, match=r"search_allow_exact=false.*mode='two_stage'"):
            store.search(QUERY, 5, mode="exact")
        assert store.update_metadata("1.pdf", {"year": 1999}) == 20
        assert store.delete(where={"year": 1999}) == 20
        assert store.delete(ids) == 20
        assert store.delete(where={"$id": {"$exists": True}}) == 20
        assert len(store) == 0


def test_more_candidates_than_a_request_may_ask_for() -> None:
    """Rounds find the same as one request."""
    schema = {FULL: VectorSpec(dim=8), FIRST: VectorSpec(dim=8)}
    answers = []
    for limit in (None, 7):
        profile = {} if limit is None else {"enabled": True, "max_query_limit": limit}
        with stand_in(profile=profile) as server:
            engine = QdrantServerEngine(connect(server.url), "c", schema=schema, manifest={"a": 1}, owns_client=True)
            for number in range(40):
                vectors, words = page(number), Bm25().document("low tide " * (number % 7 + 1) if number else "reef")
                payload = {"id": str(number), "metadata": {"page": number}}
                engine.upsert([Point(str(number), {FULL: vectors, FIRST: vectors[:1]}, words, payload)])
            where = parse_filter({"page": {"$gte": 3}})
            inner = Search(query=QUERY, using=FIRST, limit=20)
            searches = [
                Search(query=QUERY, limit=30),
                Search(query=QUERY, limit=30, where=where),
                Search(query=QUERY, limit=5, prefetch=inner, where=where),
                Search(query=QUERY, limit=50, prefetch=inner),
                Search(query=QUERY, limit=3),
                Search(query=Bm25().query("tide"), using=WORDS, limit=40),
            ]
            found = engine.search(searches)
            answers.append([[one.id for one in results] for results in found[:-1]])
            answers[-1].append(sorted(one.id for one in found[-1]))  # many have equal scores
            engine.close()
    assert [len(one) for one in answers[0]] == [30, 30, 5, 20, 3, 39]
    assert answers[0] == answers[1]


@pytest.mark.parametrize("first_stage", ["exact", "int8"])
def test_a_store_without_a_graph_says_why_it_cannot_search(name: str, first_stage: Any) -> None:
    with (
        stand_in(profile={**CLOUD, "search_allow_exact": False}) as server,
        opened(server, name, first_stage=first_stage) as store,
    ):
        store.add(records(3))
        for mode in ("auto", "exact"):
            with pytest.raises(ConfigurationError, match=r"forbids exact searches .*search_allow_exact=false.*ward"):
                store.search(QUERY, mode=mode)
        with pytest.raises(ConfigurationError, match="forbids exact searches"):
            store.score(QUERY, ["page 1"])


def test_the_first_stage_gets_a_graph_where_exact_searches_are_forbidden(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with stand_in() as server:
        opened(server, name).close()
        connect(server.url).update_collection(
            name,
            strict_mode_config={"enabled": True, "search_allow_exact": False},  # type: ignore[arg-type]
        )
        server.read_only = True
        opened(server, name).close()
        assert [one for one in warnings_of(caplog) if "the first stage has a graph" in one]
        server.read_only = False
        with opened(server, name) as store:
            assert server.strict.graphs[name] == {FIRST: 32}
            store.add(records(3))
            assert len(store.search(QUERY, 9)) == 3


def test_a_strict_mode_that_came_after_the_opening_is_named(name: str) -> None:
    with stand_in() as server, opened(server, name) as store:
        store.add(records(3))
        changed = {"enabled": True, "unindexed_filtering_retrieve": False, "search_allow_exact": False}
        connect(server.url).update_collection(name, strict_mode_config=changed)  # type: ignore[arg-type]
        with pytest.raises(StoreError, match="strict mode has changed since the store was opened: open it again"):
            store.count({"year": 2001})
        with pytest.raises(StoreError, match="strict mode has changed"):
            store.search(QUERY)
        with opened(server, name) as again:
            assert again.count({"year": 2001}) == len(again.search(QUERY, where={"year": 2001})) == 1


def test_a_request_dearer_than_a_minute_is_divided(clock: FakeClock) -> None:
    profile = {"enabled": True, "read_rate_limit": 9}
    schema = {FULL: VectorSpec(dim=8)}
    with stand_in(profile=profile, clock=clock.now) as server:
        engine = QdrantServerEngine(connect(server.url), "c", schema=schema, manifest={"a": 1}, owns_client=True)
        points = [Point(str(number), {FULL: page(number)}, None, {"id": str(number)}) for number in range(20)]
        engine.upsert(points)
        found = engine.search([Search(query=page(number), limit=1) for number in range(8)])  # 16 tokens
        assert [len(one) for one in found] == [1] * 8
        assert engine.retrieve([point.id for point in points]) == [point.payload for point in points]
        engine.close()


def test_one_item_that_is_too_dear_is_an_error() -> None:
    error = StoreError("429: request larger than rate limiter capacity, please try to split your request")

    def refuse(some: Any) -> list[Any]:
        raise error

    with pytest.raises(StoreError, match="larger than rate limiter capacity"):
        divided([1, 2, 3], refuse)
    other = StoreError("another")

    def fail(some: Any) -> list[Any]:
        assert len(some) == 2
        raise other

    with pytest.raises(StoreError, match="another"):
        divided([1, 2], fail)


def test_limits_are_those_of_an_enabled_strict_mode() -> None:
    from types import SimpleNamespace

    from qdrant_client import models

    def info(**strict: Any) -> Any:
        return SimpleNamespace(config=SimpleNamespace(strict_mode_config=models.StrictModeConfigOutput(**strict)))

    assert (
        StrictMode.of(info(max_query_limit=5)) == StrictMode.of(info(enabled=False, max_query_limit=5)) == StrictMode()
    )
    mode = StrictMode.of(info(enabled=True, unindexed_filtering_update=False, search_max_hnsw_ef=64))
    assert (mode.indexed_only, mode.exact, mode.candidates(100), StrictMode().candidates(100)) == (True, True, 64, 800)
    mode = StrictMode.of(info(enabled=True, search_max_oversampling=2.0))
    assert (mode.oversampled(3.0), mode.oversampled(1.5)) == (2.0, 1.5)


class _Answer(grpc.RpcError, grpc.Call):  # type: ignore[misc]  # grpc has no types
    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code


_Answer.__abstractmethods__ = frozenset()


@pytest.mark.parametrize(
    ("cause", "denied"),
    [
        (UnexpectedResponse(403, "Forbidden", b"", None), True),  # type: ignore[arg-type]
        (UnexpectedResponse(400, "Bad request", b"", None), True),  # type: ignore[arg-type]
        (UnexpectedResponse(500, "Internal", b"", None), False),  # type: ignore[arg-type]
        (_Answer(grpc.StatusCode.PERMISSION_DENIED), True),
        (_Answer(grpc.StatusCode.INVALID_ARGUMENT), True),
        (_Answer(grpc.StatusCode.UNAVAILABLE), False),
        (None, False),
    ],
)
def test_a_denial_is_told_from_an_outage(cause: Exception | None, denied: bool) -> None:
    error = StoreError("words")
    error.__cause__ = cause
    assert is_denied(error) is denied
