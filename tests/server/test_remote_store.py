"""The store of a server, used from elsewhere; `tests/stores` runs its assertions over its engine as well."""

from __future__ import annotations

import base64
import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_index.core.vector_stores.types import VectorStoreQuery

from colpali_integrations import ColPali
from colpali_integrations._keys import KEY_VARIABLE
from colpali_integrations.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings
from colpali_integrations.langchain import ColPaliVectorStore as LangChainStore
from colpali_integrations.llama_index import ColPaliEmbedding, PdfPageReader
from colpali_integrations.llama_index import ColPaliVectorStore as LlamaIndexStore
from colpali_integrations.models.connection import Connection
from colpali_integrations.models.shared import release_shared_models
from colpali_integrations.stores import Entry, Hits, MultiVectorStore, index_documents, stored_settings
from colpali_integrations.stores.engine import Engine, Point, Search
from colpali_integrations.stores.filters import parse_filter
from colpali_integrations.stores.served.answers import CALLS
from colpali_integrations.stores.served.engine import ServedEngine
from colpali_integrations.stores.served.wire import packed, packed_filter, read_filter
from tests.server.conftest import KEY, Running, Start
from tests.server.test_remote_model import answering
from tests.server.test_search import QUESTION, SEARCHES
from tests.stores.stored_models import made_up


def seen(hits: Hits) -> list[Any]:
    return [(hit.entry, hit.score, hit.max_sim, hit.relevance, hit.bm25, hit.matches) for hit in hits]


@pytest.mark.parametrize("options", SEARCHES, ids=json.dumps)
def test_a_search_from_elsewhere_is_that_of_the_store(
    options: dict[str, Any], served: Running, coltiny: ColPali
) -> None:
    given = {"where" if name == "filter" else name: value for name, value in options.items() if value is not None}
    with MultiVectorStore.open(served.url, model=coltiny) as far:
        found, expected = far.search(QUESTION, **given), served.store.search(QUESTION, **given)
        assert seen(found) == seen(expected)
        ids = [hit.id for hit in found]
        assert found.tokens is not None
        assert found.query is not None
        boxes = far.regions(found.query, ids, tokens=found.tokens)
        assert boxes == served.store.regions(found.query, ids, tokens=found.tokens)


@pytest.mark.parametrize("named", [False, True])
def test_a_search_from_elsewhere_is_as_doubtful(named: bool, served: Running, coltiny: ColPali) -> None:
    with MultiVectorStore.open(served.url, model=coltiny if named else None) as far:
        for question, doubtful in ((QUESTION, False), ("flights from Berlin to Tokyo", True)):
            assert far.search(coltiny.embed_query(question)).doubtful is doubtful


def test_it_is_listed_and_described_as_there(served: Running) -> None:
    with MultiVectorStore.open(served.url) as far:
        assert far.settings == served.store.settings == stored_settings(served.url)
        assert far.where == f"the store on the server {served.url}"
        assert (len(far), far.count({"page": 2})) == (2, 1)
        assert far.documents() == served.store.documents()
        assert far.info().bytes is None
        with pytest.raises(ConfigurationError):
            far.verify()
    with pytest.raises(StoreError, match="was closed"):
        len(far)


def test_documents_are_indexed_and_deleted_from_elsewhere(start: Start, papers: Path, coltiny: ColPali) -> None:
    server = start()
    with MultiVectorStore.open(server.url, model=server.url) as far:
        report = index_documents(papers / "report.pdf", model=server.url, store=far, metadata={"year": 2024})
        assert (report.added, report.failures) == (2, [])
        again = index_documents(papers / "report.pdf", model=coltiny, store=server.store, metadata={"year": 2024})
        assert (again.added, again.present) == (0, 2)
        assert seen(far.search(QUESTION, 2)) == seen(server.store.search(QUESTION, 2))
        [answer] = server.client.post("/v1/search", json={"query": QUESTION, "k": 1}).json()["hits"]
        assert answer["name"] == "report.pdf, page 1"
        large = (Entry(id="large"), np.ones((40_000, coltiny.dim), np.float16))
        with pytest.raises(StoreError, match="too many for the store on the server"):
            far.add([large])
        assert far.delete(where={"year": 2024}) == 2
        assert len(server.store) == 0
    release_shared_models()


def test_langchain_opens_it_by_its_url(start: Start, papers: Path) -> None:
    server = start()
    with LangChainStore(ColPaliEmbeddings(model=server.url), path=server.url) as far:
        far.add_pdf(papers / "report.pdf")
        far.add_texts(["low tide at six"], [{"kind": "note"}], ids=["note"])
        assert [one.metadata["page"] for one in far.similarity_search(QUESTION, k=1)] == [1]
        copied = pickle.loads(pickle.dumps(far))
        assert [one.id for one in copied.similarity_search("tide", filter={"kind": "note"})] == ["note"]
        copied.store.close()
        far.delete(["note"])
    assert len(server.store) == 2
    release_shared_models()


def test_llama_index_opens_it_by_its_url(start: Start, papers: Path, tmp_path: Path) -> None:
    server = start()
    far = LlamaIndexStore(path=server.url, embed_model=ColPaliEmbedding(model_name=server.url))
    assert len(far.add(PdfPageReader().load_data(papers / "report.pdf"))) == 2
    copied = pickle.loads(pickle.dumps(far))
    [node] = copied.query(VectorStoreQuery(query_str=QUESTION, similarity_top_k=1)).nodes or []
    assert node.metadata["page"] == 1
    far.persist(str(tmp_path / "persisted"))
    with pytest.raises(StoreError, match=f"names the store on the server {server.url}; pass it as path="):
        LlamaIndexStore.from_persist_path(str(tmp_path / "persisted"), embed_model=far.embed_model)
    opened = LlamaIndexStore.from_persist_path(
        str(tmp_path / "persisted"), embed_model=far.embed_model, path=server.url
    )
    for one in (far, copied, opened):
        one.client.close()
    release_shared_models()


def test_the_key_is_needed_and_given_by_file_or_variable(
    locked: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match="Set the environment variable COLPALI_API_KEY"):
        MultiVectorStore.open(locked.url)
    file = tmp_path / "key"
    file.write_text(KEY)
    with MultiVectorStore.open(locked.url, api_key_file=file) as far:
        assert len(far) == 0
        assert KEY not in repr(far)
    assert stored_settings(locked.url, api_key_file=file) == locked.store.settings
    near = LangChainStore(ColPaliEmbeddings(), path=locked.url, api_key_file=file)
    assert KEY.encode() not in pickle.dumps(near)
    near.store.close()
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    with MultiVectorStore.open(locked.url) as far:
        assert len(far) == 0


def test_options_of_other_places_and_other_models_are_refused(served: Running) -> None:
    with pytest.raises(ConfigurationError, match=r"read_only: for a store in a folder"):
        MultiVectorStore.open(served.url, read_only=True)
    with pytest.raises(ConfigurationError, match="api_key, timeout: options of a server's client need url="):
        MultiVectorStore.open(served.url, api_key="secret-of-the-tests", timeout=3)
    with pytest.raises(ConfigurationError, match="first_stage='ward' was requested"):
        MultiVectorStore.open(served.url, first_stage="ward")
    with pytest.raises(FingerprintError):
        MultiVectorStore.open(served.url, model=made_up("another"))
    with pytest.raises(ConfigurationError, match="a store is in one place"):
        MultiVectorStore.open(served.url, url="http://localhost:6333")


def vectors(n: int, dim: int) -> dict[str, Any]:
    return {"dtype": "<f2", "shape": [n, dim], "data": base64.b64encode(bytes(2 * n * dim)).decode()}


HUGE = packed(np.full((1, 128), 7e4, np.float32))
"""Finite, but infinite as float16; the scores of much larger ones are not even JSON."""
HUGE_WORDS = {"indices": packed(np.array([1], np.uint32)), "values": packed(np.array([3e38], np.float32))}


def point(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "vectors": {"full": vectors(2, 128)}, "words": None, "payload": {"id": "a"}, **changes}


def search(**changes: Any) -> dict[str, Any]:
    rest = dict.fromkeys(("where", "ids", "prefetch", "oversampling"))
    return {"query": vectors(1, 128), "using": "full", "limit": 3, "scores_only": False, **rest, **changes}


REFUSED: list[tuple[str, Any, str]] = [
    ("upsert", {}, "'points' is missing"),
    ("upsert", {"points": 3}, "the call upsert is not as expected"),
    ("upsert", {"points": [point(id="b")]}, "the id is 'b', and that of the payload 'a'"),
    ("upsert", {"points": [point(payload={"id": 3})]}, "its id is 3"),
    (
        "upsert",
        {"points": [point(vectors={"full": vectors(2, 64)})]},
        r"must be floats \(n, 128\), got float16 \(2, 64\)",
    ),
    ("upsert", {"points": [point(vectors={"full": vectors(0, 128)})]}, r"must be floats \(n, 128\)"),
    ("upsert", {"points": [point(vectors={})]}, "vectors must be full, got"),
    ("upsert", {"points": [point(vectors={"full": {**vectors(1, 128), "dtype": "O"}})]}, "dtype must be one of"),
    ("upsert", {"points": [point(vectors={"full": {**vectors(1, 128), "data": "AAAA"}})]}, "not as expected"),
    ("upsert", {"points": [point(words={"indices": vectors(1, 2), "values": vectors(1, 2)})]}, "ascending indices"),
    ("upsert", {"points": [point(vectors={"full": HUGE})]}, "must be finite in float16"),
    ("upsert", {"points": [point(words=HUGE_WORDS)]}, "the values of words must be finite in float16"),
    ("update", {"payloads": {"a": {"id": "b"}}}, "the id is 'a'"),
    ("update", {"payloads": {"a": 3}}, "a payload is not as expected"),
    ("delete", {"ids": "a"}, "ids must be a list of strings"),
    ("retrieve", {"ids": [3]}, "ids must be a list of strings"),
    ("retrieve", {"ids": ["a"] * 5000}, "ids must be at most 4096"),
    ("vectors", {"ids": ["a"], "name": "words"}, "name must be one of full"),
    ("vectors", {"ids": ["a"] * 65}, "ids must be at most 64"),
    ("scroll", {}, "'limit' is missing"),
    ("scroll", {"limit": 3, "after": {}}, "after must be that of the last batch"),
    ("scroll", {"limit": 3, "after": 2**70}, "after must be that of the last batch"),
    ("scroll", {"limit": 3, "where": '{"a": {"$near": 3}}'}, "a filter is not as expected"),
    ("count", {"where": '{"a": {"$eq": 3}, "b": {"$eq": 3}}'}, "a filter is not as expected"),
    ("count", {"where": [3]}, "a filter is not as expected"),
    ("search", {"searches": [search(using="first")]}, "using must be one of full, words, got 'first'"),
    ("search", {"searches": [search(query=vectors(1, 3))]}, r"the query must be floats \(n, 128\)"),
    ("search", {"searches": [search(query=HUGE)]}, "must be finite in float16"),
    ("search", {"searches": [search(query=vectors(0, 128))]}, r"the query must be floats \(n, 128\)"),
    ("search", {"searches": [search(using="words")]}, "a search is not as expected"),
    ("search", {"searches": [search(limit=-1)]}, "limit must be a whole number"),
    ("search", {"searches": [search(oversampling=0)]}, "oversampling must be"),
    ("search", {"searches": [search(prefetch=search(prefetch=search()))]}, "a prefetch has no prefetch"),
    ("search", {"searches": [search()] * 65}, "searches must be at most 64, got 65; send the others in another call"),
    ("search", {"searches": [search(query=vectors(4096, 128))] * 17}, "at most 65536 vectors together, got 69632"),
    ("delete", {"ids": ["a"] * 4097}, "ids must be at most 4096, got 4097"),
    ("upsert", {"points": [0] * 4097}, "points must be at most 4096"),
    ("update", {"payloads": {str(id_): 0 for id_ in range(4097)}}, "payloads must be at most 4096"),
    ("change_manifest", {"expected": {}, "manifest": {}}, "the new manifest has format None"),
]


@pytest.mark.parametrize(("call", "arguments", "message"), REFUSED)
def test_calls_of_another_form_are_refused(call: str, arguments: Any, message: str, served: Running) -> None:
    answer = served.client.post("/v1/engine", json={"call": call, "arguments": arguments})
    assert answer.status_code in (400, 409)
    assert re.search(message, answer.json()["message"]), answer.text


@pytest.mark.parametrize("result", [None, 3, "a", [], [3], [[]], [["a", None, {}]], {"payloads": [3], "after": None}])
def test_answers_of_another_form_are_one_error(result: Any, served: Running) -> None:
    opened = served.client.post("/v1/engine", json={"call": "manifest", "arguments": {}}).json()
    query = np.zeros((1, 128), np.float32)
    with answering((200, {}, opened), (200, {}, {"result": result})) as (url, _):
        engine = ServedEngine(Connection(url))
        calls: list[Callable[[], Any]] = [
            lambda: engine.retrieve(["a", "b"]),
            lambda: engine.vectors(["a", "b"]),
            lambda: engine.scroll(),
            lambda: engine.search([Search(query=query, using="full", limit=3)] * 2),
            lambda: engine.change_manifest(lambda manifest: {**manifest, "a": 1}),
            lambda: ServedEngine(Connection(url)),
        ]
        for call in calls:
            with pytest.raises(StoreError, match="answers in another way"):
                call()


class Recorded:
    """A caller that notes how much each call has, and hands it on."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self.url, self.calls = connection, connection.url, list[tuple[str, int]]()

    def post(self, path: str, body: Any, kind: Any) -> dict[str, Any]:
        items = [value for value in body["arguments"].values() if isinstance(value, list | dict)]
        self.calls.append((body["call"], len(items[0]) if items else 0))
        return self._connection.post(path, body, kind)

    def close(self) -> None:
        self._connection.close()


def test_many_searches_and_points_are_several_calls(start: Start) -> None:
    server = start()
    caller = Recorded(Connection(server.url))
    engine = ServedEngine(caller)
    rows = np.full((1, 128), 1 / 16, np.float32)
    engine.upsert([Point(str(id_), {"full": rows.astype(np.float16)}, None, {"id": str(id_)}) for id_ in range(4100)])
    engine.update({str(id_): {"id": str(id_), "text": "new"} for id_ in range(4100)})
    assert engine.count() == len(server.store) == 4100
    query = Search(query=rows, limit=1)
    assert len(engine.search([query] * 130)) == 130
    assert len(engine.search([Search(query=np.repeat(rows, 40_000, 0), limit=1)] * 2)) == 2
    engine.delete([str(id_) for id_ in range(4100)])
    assert engine.count() == 0
    most = {"upsert": 4096, "update": 4096, "delete": 4096, "search": 64}
    assert all(size <= most[call] for call, size in caller.calls if call in most)
    assert [size for call, size in caller.calls if call == "search"] == [64, 64, 2, 1, 1]
    engine.close()


def test_any_number_of_results_may_be_asked_for(served: Running) -> None:
    searches = [search(limit=10**400, oversampling=1e308), search(prefetch=search(limit=2**70), oversampling=1e308)]
    answer = served.client.post("/v1/engine", json={"call": "search", "arguments": {"searches": searches}})
    assert [len(found) for found in answer.json()["result"]] == [2, 2]


def test_only_revisions_of_the_manifest_change(start: Start) -> None:
    server = start()
    manifest = dict(server.store._engine.manifest)

    def change(new: dict[str, Any], expected: dict[str, Any] = manifest) -> Any:
        arguments = {"expected": expected, "manifest": new}
        return server.client.post("/v1/engine", json={"call": "change_manifest", "arguments": arguments})

    assert change(manifest).json() == {"result": {"manifest": manifest}}
    model = manifest["model"]
    fingerprint = {**model["fingerprint"], "space": "0123456789abcdef@+"}
    for new in (
        {**manifest, "language": "german"},
        {**manifest, "more": 1},
        {**manifest, "model": {**model, "name": "x"}},
        {**manifest, "model": {**model, "fingerprint": fingerprint}},
    ):
        assert change(new).status_code == 400
    assert change({**manifest, "language": "german"}, {}).json() == {"result": {"manifest": manifest}}
    assert dict(server.store._engine.manifest) == manifest


def test_every_method_of_an_engine_is_a_call_and_filters_of_all_levels_come_through() -> None:
    methods = {name for name, value in vars(Engine).items() if not name.startswith("_") and callable(value)}
    # "holds_more_than" asks for the count, and "loading" puts nothing off.
    assert methods - {"close", "holds_more_than", "loading"} <= CALLS.keys()
    deep: dict[str, Any] = {"page": {"$gte": 3}}
    for level in range(28):
        deep = {"$not": deep} if level % 2 else {"$or": [deep, {"a": {"$in": [1, "b", True]}}], "c": None}
    where = parse_filter(deep)
    assert where is not None
    assert read_filter(packed_filter(where)) == where
