"""One set of assertions for all kinds of store: searches return the stored entries by exact MaxSim, and no others."""

from __future__ import annotations

import asyncio
import copy
import math
import os
import pickle
import re
import tempfile
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colpali_integrations import max_sim
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.explain import PageGrid
from colpali_integrations.scoring.codes import VectorCode
from colpali_integrations.stores import Entry, MultiVectorStore, SearchOptions, adding
from colpali_integrations.stores.engine import Point, Scored, Search
from colpali_integrations.stores.memory import MemoryEngine
from colpali_integrations.stores.settings import BITS, Settings
from tests.stores.backends import BACKENDS, DIM, MODEL, Open, entry, in_memory, opening, page
from tests.stores.qdrant.real import server_version
from tests.stores.stored_models import made_up

QUERY = page(0, seed=7, rows=4)
# Rounding: queries and pages are float16 in the engine, and sums of a few products differ in their last bits.
TOLERANCE = 5e-3


def fill(store: MultiVectorStore, count: int = 20) -> MultiVectorStore:
    assert store.add((entry(number), page(number)) for number in range(count)) == count
    return store


def names(found: Any) -> list[str]:
    return [hit.id for hit in found]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 2**32), count=st.integers(0, 30), k=st.integers(1, 40), weighted=st.booleans())
def test_search_is_brute_force_max_sim(backend: str, seed: int, count: int, k: int, weighted: bool) -> None:
    pages = [page(number, seed=seed, weighted=weighted) for number in range(count)]
    query = page(99, seed=seed, rows=5, weighted=True)
    truth = max_sim(query, pages) if pages else np.zeros(0)
    with tempfile.TemporaryDirectory() as folder, opening(backend, Path(folder)) as open_store:
        store = open_store()
        store.add((entry(number), vectors) for number, vectors in enumerate(pages))
        found = store.search(query, k)
        assert len(found) == min(k, count)
        for hit in found:
            assert hit.score == hit.max_sim == pytest.approx(truth[int(hit.id.split()[1])], abs=TOLERANCE)
        assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
        best = sorted(truth.tolist(), reverse=True)[: len(found)]
        assert [hit.score for hit in found] == pytest.approx(best, abs=TOLERANCE)
        scores = store.score(query, [f"page {number}" for number in range(count + 1)])
        assert len(scores) == count
        assert [scores[f"page {number}"] for number in range(count)] == pytest.approx(truth.tolist(), abs=TOLERANCE)


def test_stored_entries_and_vectors_are_returned(open_store: Open) -> None:
    store = open_store()
    grid = PageGrid(2, 2, np.array([0, 3, -1], np.int32))
    metadata = {
        "source": "ä/ü 東京.pdf",
        "page": 7,
        "ratio": 1.0,
        "none": None,
        "list": [1, "a", None],
        "in": {"a.b": {}},
    }
    rich = Entry(
        id="any string, ünï ✓",
        text="line\u2028line \U0001f600",
        metadata=metadata,
        document_id="g",
        content_hash="h",
        grid=grid,
        extra={"framework": {"kind": "node"}},
    )
    poor = Entry(id="1")
    store.add([(rich, page(1, rows=3)), (poor, page(2))])
    store = store if in_memory(store) else open_store()
    found, unknown, other = store.get([rich.id, "unknown", "1"])
    assert (found, unknown, other) == (rich, None, poor)
    assert found is not None
    assert {type(value) for value in found.metadata.values()} == {str, int, float, type(None), list, dict}
    assert store.search(page(1, rows=3), 1)[0].entry == rich
    [vectors, nothing] = store.vectors([rich.id, "unknown"])
    np.testing.assert_array_equal(vectors, page(1, rows=3))
    assert nothing is None
    assert vectors is not None
    assert vectors.dtype == np.float32


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
def test_any_json_metadata_are_returned_unchanged(open_store: Open) -> None:
    store = open_store()

    @settings(max_examples=80, deadline=None)
    @given(metadata=st.lists(st.dictionaries(st.text(), JSON, max_size=4), min_size=1, max_size=8), id_=st.text())
    def comes_back(metadata: list[dict[str, Any]], id_: str) -> None:
        made = [Entry(id=f"{id_}{number}", metadata=one, extra=one) for number, one in enumerate(metadata)]
        store.add((one, page(1)) for one in made)
        found = store.get([one.id for one in made])
        assert found == made
        assert repr(found) == repr(made), "1.0 is not 1 and True is not 1"
        assert store.delete(one.id for one in made) == len(made)

    comes_back()


def test_adding_again_replaces(open_store: Open) -> None:
    store = fill(open_store(), 5)
    store.add([(entry(3, text="new", metadata={"only": "this"}), 3 * page(3))])
    assert len(store) == 5
    assert store.get(["page 3"])[0] == entry(3, text="new", metadata={"only": "this"})
    [three] = store.vectors(["page 3"])
    assert three is not None
    np.testing.assert_allclose(three, 3 * page(3), rtol=1e-3)
    # Twice in one call: the later one counts.
    store.add([(entry(9, text="first"), page(1)), (entry(9, text="second"), page(2))])
    [nine] = store.get(["page 9"])
    assert nine is not None
    assert nine.text == "second"


def test_delete_removes_the_entries_that_match_all_criteria(open_store: Open) -> None:
    store = fill(open_store())
    assert store.delete(["page 0", "page 0", "unknown"]) == 1
    assert store.delete("page 1") == 1, "one id is one id, not its letters"
    assert store.delete(where={"even": True, "page": {"$gte": 10}}) == 5
    assert store.delete(document_id="2.pdf") == len({2, 5, 8, 11, 14, 17}) - 1
    assert store.delete([], where={"even": True}) == 0
    left = {number for number in range(2, 20) if not (number % 2 == 0 and number >= 10) and number % 3 != 2}
    assert store.hashes() == {f"page {number}": f"hash {number}" for number in left}
    assert set(names(store.search(QUERY, 30))) == {f"page {number}" for number in left}
    assert store.documents() == {"0.pdf": sum(n % 3 == 0 for n in left), "1.pdf": sum(n % 3 == 1 for n in left)}
    with pytest.raises(InputError, match="ids, where or document_id"):
        store.delete()
    assert store.delete(where={"$id": {"$exists": True}}) == len(left)
    assert len(store) == 0
    assert store.search(QUERY) == []


def test_ids_that_are_not_strings_are_unknown(open_store: Open) -> None:
    store = fill(open_store(), 8)
    strange: list[Any] = [7, True, None, 1.5, b"page 7", ("page 7",), ["page 7"], {}, "\ud800", np.str_("page 7")]
    known = [None] * 9 + [entry(7)]
    assert store.get(strange) == known
    assert [one is not None for one in store.vectors(strange)] == [one is not None for one in known]
    for reading in (store.score, store.regions, store.similarity_maps):
        assert set(reading(QUERY, strange)) <= {"page 7"}
    assert set(store.score(QUERY, strange)) == set(store.regions(QUERY, strange)) == {"page 7"}
    search = Search(query=QUERY, limit=9, ids=strange)
    assert [one.id for one in store._engine.search([search])[0]] == ["page 7"]
    assert not any(one in store for one in strange[:-1])
    updated: dict[Any, Any] = {one: {"metadata": {}} for one in (7, None, "\ud800")}
    store._engine.update(updated)
    store._engine.delete(strange[:-1])
    assert (store.delete(strange[:-1]), store.delete(strange), len(store)) == (0, 1, 7)


ALWAYS = [{"$and": []}, {"$nor": []}, {"x": {"$nin": []}}, {"$and": [{}]}, {"$not": {"$or": []}}, {"$or": [{}]}]


@pytest.mark.parametrize("where", ALWAYS)
def test_delete_refuses_filters_that_fit_every_entry(open_store: Open, where: dict[str, Any]) -> None:
    store = fill(open_store(), 3)
    choices: list[dict[str, Any]] = [{}, {"ids": ["page 1"]}, {"document_id": "1.pdf"}]
    for options in choices:
        with pytest.raises(InputError, match="fits every entry"):
            store.delete(where=where, **options)
    assert len(store) == store.count(where) == 3
    with pytest.raises(InputError, match="pass ids, where or document_id"):
        store.delete(where={})


def test_metadata_of_a_document_are_updated_and_the_rest_stays(open_store: Open) -> None:
    store = fill(open_store(first_stage="ward", first_vectors=2), 200)
    grid = PageGrid(4, 4, np.arange(9, dtype=np.int32))
    store.add([(entry(1, grid=grid, extra={"adapter": "x"}), page(1, rows=9))])
    before = dict(zip(store.hashes(), store.vectors(list(store.hashes())), strict=True))
    searches: list[dict[str, Any]] = [{"mode": "exact"}, {"mode": "two_stage", "oversampling": 2}, {"hybrid": 1.0}]
    found = [[(hit.id, hit.score) for hit in store.search(QUERY, 9, text="page 7", **one)] for one in searches]
    assert store.update_metadata("1.pdf", {"even": None, "year": 2024, "wide": 2**70}) == 67
    assert store.count({"year": 2024}) == 67
    assert {one.id for one in store.scroll({"year": {"$gt": 2023}})} == {f"page {n}" for n in range(1, 200, 3)}
    assert store.count({"even": {"$exists": False}}) == 67
    assert store.count({"even": True}) + store.count({"even": False}) == 200 - 67
    metadata = {"source": "1.pdf", "page": 7, "year": 2024, "wide": 2**70}
    assert store.get(["page 7", "page 8"]) == [entry(7, metadata=metadata), entry(8)]
    [one] = store.get(["page 1"])
    assert one == entry(1, metadata={**metadata, "page": 1}, grid=grid, extra={"adapter": "x"})
    assert {one.id for one in store.scroll()} == before.keys()
    assert store.documents() == {"0.pdf": 67, "1.pdf": 67, "2.pdf": 66}
    for id_, vectors in zip(before, store.vectors(list(before)), strict=True):
        np.testing.assert_array_equal(vectors, before[id_])
    again = [[(hit.id, hit.score) for hit in store.search(QUERY, 9, text="page 7", **one)] for one in searches]
    assert again == found
    [hit] = store.search(page(7), 1, where={"year": 2024, "page": 7})
    assert hit.entry == entry(7, metadata=metadata)
    with pytest.raises(InputError, match="page, source describe the page"):
        store.update_metadata("1.pdf", {"source": "x", "page": 1})
    with pytest.raises(StoreError, match="JSON"):
        store.update_metadata("1.pdf", {"year": object()})
    assert store.update_metadata("unknown", {"year": 1}) == 0
    assert store.count({"year": 2024}) == 67


def test_payloads_of_replaced_and_removed_entries_are_not_updated(open_store: Open) -> None:
    store = fill(open_store(), 4)
    payloads = {f"page {n}": entry(n, metadata={"year": 2024}).to_payload() for n in range(5)}
    store.add([(entry(1, content_hash="new"), page(1)), (entry(3, content_hash=""), page(3))])
    store.delete(["page 2"])
    store._engine.update(payloads)
    assert {one.id for one in store.scroll({"year": 2024})} == {"page 0"}
    assert {one.id for one in store.scroll()} == {"page 0", "page 1", "page 3"}


class RecordingEngine(MemoryEngine):
    """A memory engine that records its batches and searches."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(schema=settings.schema, manifest=settings.to_dict())
        self.batches: list[list[str]] = []
        self.searches: list[Search] = []

    def upsert(self, points: Sequence[Point]) -> None:
        self.batches.append([point.id for point in points])
        super().upsert(points)

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        self.searches += searches
        return super().search(searches)


def recording(**options: Any) -> tuple[MultiVectorStore, RecordingEngine]:
    options = {"model": MODEL, **options}
    engine = RecordingEngine(Settings(**options))
    return MultiVectorStore(engine, Settings(**options)), engine


@pytest.mark.parametrize(
    ("k", "oversampling", "candidates"),
    [(1, None, 100), (10, None, 100), (11, None, 110), (5, 1, 5), (3, 2.5, 8), (3, 1e308, 2**31 - 1)],
)
def test_candidates_are_ten_per_result_and_at_least_a_hundred(k: int, oversampling: float, candidates: int) -> None:
    store, engine = recording(first_stage="ward")
    fill(store, 120)
    found = store.search(QUERY, k, mode="two_stage", oversampling=oversampling)
    [search] = engine.searches
    assert (len(found), search.limit) == (k, k)
    assert search.prefetch is not None
    assert search.prefetch.limit == candidates
    engine.searches.clear()
    store.search(QUERY, k, mode="two_stage", hybrid=True, text="text", oversampling=oversampling)
    by_sight, by_words, *_ = engine.searches
    assert (by_sight.limit, by_words.limit) == (101, 101), "whatever the number of results and of candidates"
    assert by_sight.prefetch is not None
    assert by_sight.prefetch.limit == max(101, candidates)


def test_two_stages_begin_above_a_thousand_entries() -> None:
    store, engine = recording(first_stage="ward")
    store.add((entry(number), page(number, rows=2)) for number in range(1000))
    store.search(QUERY, 1)
    store.add([(entry(1000), page(1000))])
    store.search(QUERY, 1)
    store.search(QUERY, 1, mode="exact")
    assert [search.prefetch is not None for search in engine.searches] == [False, True, False]


def test_slow_records_are_stored_every_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    store, engine = recording()
    passed = 0.0
    monkeypatch.setattr(adding, "time", SimpleNamespace(monotonic=lambda: passed))

    def slow() -> Iterator[tuple[Entry, Any]]:
        nonlocal passed
        yield entry(0), page(0)
        passed = 1.9
        yield entry(1), page(1)
        assert engine.batches == []
        passed = 2.0
        yield entry(2), page(2)
        assert engine.batches == [["page 0", "page 1", "page 2"]]
        passed = 3.9
        yield entry(3), page(3)
        assert len(engine.batches) == 1, "the two seconds begin anew"

    assert store.add(slow()) == 4
    assert engine.batches == [["page 0", "page 1", "page 2"], ["page 3"]]


@pytest.mark.parametrize(
    ("option", "advice"),
    [
        *[
            ("collection", "use collection_name="),
            ("host", "use url='http://<host>:6333'"),
            ("modle", "did you mean 'model'"),
        ],
        *[(name, "use path= for a folder") for name in ("persist_directory", "persist_dir", "location", "folder")],
        *[(name, "use model=") for name in ("embedding", "embed_model", "embedding_function")],
        ("api_key", "options of a server's client need url="),
    ],
)
def test_wrong_guesses_get_the_right_option(option: str, advice: str) -> None:
    options: dict[str, Any] = {option: "x"}
    with pytest.raises(ConfigurationError, match=re.escape(advice)) as caught:
        MultiVectorStore.open(model=MODEL, **options)
    assert option in str(caught.value)
    if option not in ("modle", "api_key"):
        with pytest.raises(ConfigurationError, match=re.escape(advice)):
            MultiVectorStore.open(model=MODEL, url="http://localhost:1", **options)


def test_count_scroll_and_contains(open_store: Open) -> None:
    store = open_store()
    assert (len(store), list(store.scroll()), store.search(QUERY), store.get([]), store.vectors([])) == (
        0,
        [],
        [],
        [],
        [],
    )
    assert store.score(QUERY, []) == {}
    fill(store, 600)
    assert len(store) == store.count() == 600
    assert store.count({"page": {"$lt": 10}}) == 10
    assert {one.id for one in store.scroll()} == {f"page {number}" for number in range(600)}
    assert len(list(store.scroll({"even": True}))) == 300
    assert "page 7" in store
    assert "page 600" not in store
    assert 7 not in store
    assert "fake" in repr(store)


def test_filters_hold_in_both_stages(open_store: Open) -> None:
    store = fill(open_store(first_stage="ward", first_vectors=2), 40)
    for mode in ("exact", "two_stage"):
        found = store.search(QUERY, 30, where={"page": {"$gte": 10, "$lt": 20}}, mode=mode, oversampling=1)
        assert set(names(found)) == {f"page {number}" for number in range(10, 20)}
    assert store.search(QUERY, where={"page": -1}) == []
    assert names(store.search(QUERY, where={"$id": "page 3"})) == ["page 3"]
    with pytest.raises(InputError, match=r"\$gtt"):
        store.search(QUERY, where={"page": {"$gtt": 1}})


@pytest.mark.parametrize("first_stage", ["ward", "rows", "muvera"])
def test_two_stages_that_pass_on_all_entries_are_exact(open_store: Open, first_stage: str) -> None:
    store = open_store(first_stage=first_stage, first_vectors=4 if first_stage == "ward" else None)
    grids = {number: PageGrid(4, 4, np.arange(len(page(number))) % 16) for number in range(30)}
    store.add((entry(number, grid=grids[number]), page(number)) for number in range(29))
    store.add([(Entry(id="text"), page(29))])
    exact = store.search(QUERY, 10, mode="exact")
    staged = store.search(QUERY, 10, mode="two_stage", oversampling=3)
    assert names(staged) == names(exact)
    assert [hit.score for hit in staged] == pytest.approx([hit.score for hit in exact], abs=1e-4)
    assert names(store.search(QUERY, 10, mode="auto")) == names(exact), "a small store is searched whole"


@pytest.mark.parametrize("first_stage", ["int8", "int4", "int2", "binary"])
def test_candidates_of_quantised_copies_are_scored_exactly(open_store: Open, first_stage: str) -> None:
    try:
        store = open_store(first_stage=first_stage)
    except ConfigurationError as error:
        assert "memory" in str(error)
        return
    fill(store, 30).optimize()
    exact = store.search(QUERY, 5, mode="exact")
    assert names(store.search(QUERY, 5, mode="two_stage", oversampling=6)) == names(exact)


@pytest.mark.parametrize("datatype", ["int8", "int4", "int2", "binary"])
def test_a_datatype_means_the_same_in_every_engine_that_has_it(open_store: Open, datatype: str) -> None:
    try:
        store = fill(open_store(datatype=datatype), 30)
    except ConfigurationError as error:
        if datatype in ("int2", "binary"):
            assert "a server has the datatypes float16, int8 and int4" in str(error)
        else:
            assert server_version() < {"int8": (1, 20), "int4": (1, 19)}[datatype]
            assert f"does not have 'turbo{datatype[3:]}'" in str(error)
        return
    assert store.info().to_dict()["datatype"] == datatype
    ids = [f"page {number}" for number in range(30)]
    kept = {id_: one for id_, one in zip(ids, store.vectors(ids), strict=True) if one is not None}
    code = VectorCode(DIM, BITS[datatype])  # type: ignore[index]
    for number, id_ in enumerate(ids):
        restored = kept[id_]
        if store._engine.has_own_codes:  # a server, whose imitation keeps float32
            np.testing.assert_allclose(restored, page(number), atol=0.3 if "QDRANT_URL" in os.environ else 1e-3)
        else:
            np.testing.assert_array_equal(restored, code.decode(code.encode(page(number).astype(np.float16))))
    hits = store.search(QUERY, 30)
    expected = [float(max_sim(QUERY, [kept[hit.entry.id]])[0]) for hit in hits]
    assert [hit.score for hit in hits] == pytest.approx(expected, abs=1e-4)


def test_a_batch_returns_the_results_of_its_searches(open_store: Open) -> None:
    store = fill(open_store(first_stage="ward", first_vectors=2), 30)
    queries = [page(number, seed=3, rows=number + 1) for number in range(5)]
    texts = [f"text of page {number}" for number in range(5)]
    choices: list[dict[str, Any]] = [
        {"where": {"even": True}, "mode": "exact"},
        {"mode": "two_stage", "oversampling": 2},
        {"mode": "exact", "hybrid": True},
        {"mode": "two_stage", "oversampling": 1, "hybrid": 1.0},
    ]
    for options in choices:
        batch = store.search_batch(queries, SearchOptions(k=4, **options), texts=texts)
        for query, text, hits in zip(queries, texts, batch, strict=True):
            single = store.search(query, 4, text=text, **options)
            assert names(hits) == names(single)
            for name in ("score", "max_sim"):
                alone = [getattr(hit, name) for hit in single]
                assert [getattr(hit, name) for hit in hits] == pytest.approx(alone, rel=1e-6, abs=1e-6)
    assert store.search_batch([]) == []


def test_relevance_is_a_share_of_the_highest_score(open_store: Open) -> None:
    store = open_store()
    unit = np.eye(DIM, dtype=np.float32)
    store.add([(Entry(id="same"), unit[:2]), (Entry(id="half"), unit[1:3]), (Entry(id="opposite"), -unit[:2])])
    found = {hit.id: hit for hit in store.search(unit[:2])}
    assert found["same"].relevance == pytest.approx(1)
    assert found["half"].relevance == pytest.approx(0.5)
    assert (found["opposite"].max_sim, found["opposite"].relevance) == (0, 0)
    assert names(store.search(unit[:2], min_relevance=0.4)) == ["same", "half"]
    assert store.search(-unit[:1], 3)[-1].relevance == 0, "negative products are no share"


def test_hybrid_search_finds_by_look_or_text(open_store: Open) -> None:
    store = open_store()
    unit = np.eye(DIM, dtype=np.float32)
    store.add(
        [
            (Entry(id="seen", text="nothing of the kind"), unit[:1]),
            (Entry(id="said", text="the harbour crane lifts containers"), -unit[:1]),
            (Entry(id="both", text="a harbour"), 0.9 * unit[:1]),
            (Entry(id="neither", text=""), unit[3:4]),
        ]
    )
    query = unit[:1]
    assert names(store.search(query)) == ["seen", "both", "neither", "said"]
    assert names(store.search(query, hybrid="rrf", text="harbour crane"))[0] == "both"
    found = store.search(query, hybrid=True, text="harbour crane")
    assert names(found)[:2] == ["seen", "both"]
    assert {hit.id: hit.bm25 is not None for hit in found} == {
        "both": True,
        "said": True,
        "seen": False,
        "neither": False,
    }
    assert [hit.score for hit in found] == sorted((hit.score for hit in found), reverse=True)
    assert {hit.id: hit.max_sim for hit in found} == pytest.approx(
        {"seen": 1, "both": 0.9, "neither": 0, "said": -1}, abs=1e-3
    )
    for hit in found:
        assert hit.halves is not None
        parts = (1 - hit.halves.weight) * hit.halves.sight + hit.halves.weight * hit.halves.words
        assert hit.score == pytest.approx(parts)
    assert names(store.search(query, hybrid=1.0, text="harbour crane"))[0] == "said"
    assert names(store.search(query, hybrid=0.0, text="harbour crane"))[:2] == ["seen", "both"]
    assert names(store.search(query, 1, hybrid=1.0, text="crane", where={"$id": {"$ne": "said"}})) != ["said"]
    assert names(store.search(query, hybrid="rrf", text="zzz"))[0] == "seen", (
        "words that no entry contains change nothing"
    )
    assert names(store.search(query, hybrid=True, text="?!"))[0] == "seen", "and so do no words"
    with pytest.raises(ConfigurationError, match="text="):
        store.search(query, hybrid=True)
    for wrong in (-0.1, 1.1, math.nan, "sum"):
        with pytest.raises(ConfigurationError, match="hybrid"):
            store.search(query, hybrid=wrong, text="x")  # type: ignore[arg-type]


def test_an_entry_that_only_its_text_finds_is_not_lost(open_store: Open) -> None:
    store = fill(open_store(), 150)
    store.add([(Entry(id="said", text="zeppelin"), -100 * np.abs(page(1)))])
    # 100 candidates of 151 are seen; the one with the word is not among them.
    assert "said" not in names(store.search(np.abs(QUERY), 100))
    [best, *_] = store.search(np.abs(QUERY), 5, hybrid=0.9, text="zeppelin")
    assert best.id == "said"
    assert best.max_sim < 0


def test_an_engine_tells_whether_it_has_words(open_store: Open) -> None:
    store = open_store()
    assert not store._engine.has_words()
    store.add([(entry(1, text=""), page(1)), (entry(2, text="2.pdf, page 2"), page(2))])
    assert not store._engine.has_words(), "the name of a page without a text layer is no text"
    store.add([(entry(3), page(3))])
    assert store._engine.has_words()
    assert in_memory(store) or open_store()._engine.has_words()
    store.delete(["page 3"])
    assert not store._engine.has_words()


def test_regions_are_boxes_in_fractions_and_points(open_store: Open) -> None:
    store = open_store()
    unit = np.eye(DIM, dtype=np.float32)
    grid = PageGrid(2, 2, np.array([1, 2, -1], np.int32))
    pdf = {"source": "a.pdf", "page": 1, "width": 200.0, "height": 100.0, "dpi": 150.0}
    store.add([(Entry(id="page", metadata=pdf, grid=grid), unit[:3]), (Entry(id="text"), unit[:2])])
    found = store.regions(unit[:1], ["page", "text", "unknown"], tokens=["word"])
    assert found["text"] == []
    assert "unknown" not in found
    [box] = found["page"]
    assert (box["token"], box["box"], box["points"]) == ("word", [0.5, 0, 1, 0.5], [100, 0, 200, 50])


@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((2, DIM + 1)), r"\(n, 8\)"),
        (np.ones(DIM), "shape"),
        (np.ones((0, DIM)), "n > 0"),
        (np.full((1, DIM), 1e6), "finite"),
        (np.full((1, DIM), np.nan), "finite"),
        (np.full((1, DIM), "x"), "<U1"),
    ],
)
def test_invalid_vectors_are_refused(open_store: Open, vectors: Any, message: str) -> None:
    store = open_store()
    with pytest.raises(StoreError, match=message) as caught:
        store.add([(entry(1), page(1)), (entry(2), vectors)])
    assert "page 2" in str(caught.value)
    assert names(store.search(QUERY)) == ["page 1"], "what came before is kept"
    if np.asarray(vectors).dtype.kind == "f" and np.isfinite(vectors).all() and np.max(vectors, initial=0) < 1e6:
        with pytest.raises(InputError, match=r"\(n, 8\)"):
            store.search(vectors)


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": {"a": object()}},
        {"metadata": {"a": math.inf}},
        {"extra": {"a": b"x"}},
        {"id": ""},
        {"id": 3},
        {"text": "\ud800"},
    ],
)
def test_invalid_entries_are_refused(open_store: Open, wrong: dict[str, Any]) -> None:
    store = open_store()
    with pytest.raises(StoreError):
        store.add([(entry(1, **wrong), page(1))])
    assert len(store) == 0


def test_a_grid_of_another_length_is_refused(open_store: Open) -> None:
    with pytest.raises(StoreError, match="positions"):
        open_store().add([(entry(1, grid=PageGrid(1, 1, np.zeros(2, np.int32))), page(1, rows=3))])


@pytest.mark.parametrize(
    "options",
    [{"k": 0}, {"mode": "fast"}, {"oversampling": 0.5}, {"oversampling": math.nan}, {"mode": "two_stage"}],
)
def test_invalid_search_options_are_refused(open_store: Open, options: dict[str, Any]) -> None:
    store = open_store(first_stage="exact")
    with pytest.raises(ConfigurationError, match=next(iter(options))):
        store.search(QUERY, **options)


def test_another_model_is_refused(open_store: Open) -> None:
    if in_memory(open_store()):
        return  # a store in memory cannot be opened again
    other = made_up("other", dim=MODEL.dim, identity="f" * 16)
    with pytest.raises(FingerprintError) as caught:
        open_store(model=other)
    for shown in ("fake", "other", "0123456789abcdef", "f" * 16, "use the model"):
        assert shown in str(caught.value)
    with pytest.raises(FingerprintError):
        open_store().require_space(other)
    assert open_store(model=replace(MODEL, name="a local copy", version="9")).model.name == "fake"


def test_other_settings_are_refused(open_store: Open) -> None:
    store = open_store(first_stage="ward", first_vectors=4, language="german")
    if in_memory(store):
        return
    again = open_store()
    assert (
        again.settings
        == store.settings
        == Settings(model=MODEL, first_stage="ward", first_vectors=4, language="german")
    )
    for option, value in {"first_stage": "muvera", "first_vectors": 5, "language": "english"}.items():
        with pytest.raises(ConfigurationError, match=f"{option}={value!r}"):
            open_store(**{option: value})


def test_threads_share_a_store(open_store: Open) -> None:
    store = fill(open_store(), 30)
    expected = names(store.search(QUERY, 5, where={"page": {"$lt": 30}}))
    errors: list[BaseException] = []

    def write(worker: int) -> None:
        try:
            for number in range(1000 * worker, 1000 * worker + 20):
                store.add([(entry(number), page(number))])
                store.delete([f"page {number - 1}"] if number % 2 else [])
        except BaseException as error:
            errors.append(error)

    writers = [threading.Thread(target=write, args=(worker,)) for worker in (1, 2)]
    for writer in writers:
        writer.start()
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: names(store.search(QUERY, 5, where={"page": {"$lt": 30}})), range(40)))
    for writer in writers:
        writer.join()
    assert not errors
    assert all(one == expected for one in found)
    assert len(store) == 30 + 2 * 10


async def test_tasks_share_a_store(open_store: Open) -> None:
    store = fill(open_store(), 10)
    found = await asyncio.gather(*(asyncio.to_thread(store.search, QUERY, 3) for _ in range(8)))
    assert len({tuple(names(one)) for one in found}) == 1


def test_a_stored_grid_is_unpacked_on_first_use(open_store: Open) -> None:
    store = open_store()
    grid = PageGrid(2, 2, np.array([0, 3, -1], np.int32))
    store.add([(entry(1, grid=grid), page(1, rows=3)), (entry(2), page(2))])
    [one, two] = store.get(["page 1", "page 2"])
    assert one is not None
    assert two is not None
    assert (one.is_page, two.is_page) == (True, False)
    for copied in (one, pickle.loads(pickle.dumps(one)), copy.deepcopy(one), replace(one)):
        assert copied.grid == grid
        assert copied == entry(1, grid=grid)
    damaged = Entry.from_payload({**entry(1).to_payload(), "grid": {"rows": 1}})
    with pytest.raises(InputError, match="grid"):
        damaged.grid  # noqa: B018
    with pytest.raises(AttributeError, match="nothing"):
        damaged.nothing  # noqa: B018


def test_a_payload_of_many_levels_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(20_000):
        deep = [deep]
    for payload in ({"id": "a", "metadata": {"deep": deep}}, {"id": deep}):
        with pytest.raises(StoreError, match="too many levels") as caught:
            Entry.from_payload(payload)
        assert len(str(caught.value)) < 200


def test_changing_a_result_does_not_change_the_store(open_store: Open) -> None:
    store = open_store()
    nested = {"tags": ["a"], "deep": {"list": [{"key": 1}]}, "wide": 2**70}
    metadata, extra = copy.deepcopy(nested), {"adapter": {"names": ["b"]}}
    store.add([(entry(1, metadata=metadata, extra=extra), page(1))])
    metadata["tags"].append("of the caller")  # type: ignore[attr-defined]
    [got], [scrolled], [hit] = store.get(["page 1"]), store.scroll(), store.search(page(1), 1)
    assert got is not None
    for changed in (got, scrolled, hit.entry):
        assert changed.metadata == nested
        changed.metadata["tags"].append("changed")
        changed.metadata["deep"]["list"][0]["key"] = 2
        changed.metadata["new"] = True  # type: ignore[index]
        changed.extra["adapter"]["names"].clear()
        if changed.grid is not None:
            with pytest.raises(ValueError, match="read-only"):
                changed.grid.cells[0] = 7
    [again] = store.get(["page 1"])
    assert again is not None
    assert (again.metadata, again.extra) == (nested, {"adapter": {"names": ["b"]}})
    [vectors] = store.vectors(["page 1"])
    assert vectors is not None
    vectors[:] = 0
    np.testing.assert_array_equal(store.vectors(["page 1"])[0], page(1))


def test_a_closed_store_answers_nothing(open_store: Open) -> None:
    store = open_store()
    store.add([(entry(1), page(1))])
    store.close()
    store.close()
    for use in (store.count, store.hashes, lambda: store.search(page(1)), lambda: store.add([(entry(2), page(2))])):
        with pytest.raises(StoreError, match="closed"):
            use()
