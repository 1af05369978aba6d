"""LangChain's own suite, and tests of pages, regions, options of a call, batches and traces."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.runnables import ConfigurableField, RunnableConfig, RunnableLambda
from langchain_tests.integration_tests import RetrieversIntegrationTests
from pydantic import ValidationError

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, InputError, QueryError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliRetriever, ColPaliVectorStore, image_blocks
from colpali_integrations.stores import MultiVectorStore
from tests.langchain.cases import CountingEmbeddings, with_texts
from tests.stores.documents import draw, make_store


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MultiVectorStore]:
    """Two pages of fruit.pdf and an image, indexed as the command line does it, in a folder."""
    with ColPali.from_pretrained() as model, make_store(tmp_path_factory.mktemp("langchain"), model) as store:
        yield store


@pytest.fixture(scope="module")
def store(index: MultiVectorStore) -> ColPaliVectorStore:
    return ColPaliVectorStore(store=index)


@pytest.fixture(scope="module")
def folder(index: MultiVectorStore) -> Path:
    return Path(index.where.removeprefix("the store "))


@pytest.fixture
def counting(index: MultiVectorStore) -> ColPaliVectorStore:
    return ColPaliVectorStore(CountingEmbeddings(), store=index)


@pytest.fixture
def encoded(counting: ColPaliVectorStore) -> Counter[str]:
    assert isinstance(counting.embeddings, CountingEmbeddings)
    return counting.embeddings.counts


def retriever_of(store: Any, **options: Any) -> ColPaliRetriever:
    return ColPaliRetriever(vectorstore=store, search_kwargs=options)


class TestStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, store: ColPaliVectorStore) -> None:
        self.store = store

    @property
    def retriever_constructor(self) -> Any:
        return retriever_of  # as with all VectorStoreRetrievers, k stands in search_kwargs

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"store": self.store}

    @property
    def retriever_query_example(self) -> str:
        return "prices of bananas"


# -- results --------------------------------------------------------------------------------------------------------


def test_a_page_comes_with_its_reference_and_scores(index: MultiVectorStore) -> None:
    [found] = retriever_of(index, k=1).invoke("bananas in the market")
    assert found.page_content == "fruit.pdf, page 2", "it has no text layer"
    assert Path(found.metadata["source"]).name == "fruit.pdf"
    assert (found.metadata["page"], found.metadata["page_count"]) == (2, 2)
    [query] = ColPali.from_pretrained().embed_queries("bananas in the market")
    [hit] = index.search(query, k=1)
    assert (found.id, found.metadata["score"]) == (hit.id, pytest.approx(hit.score))
    assert found.metadata["relevance_score"] == pytest.approx(hit.relevance)
    assert 0 < found.metadata["relevance_score"] < 1
    assert "relevance" not in found.metadata
    assert "regions" not in found.metadata
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    [block] = image_blocks([found])
    assert HumanMessage(content_blocks=[block]).content_blocks[0]["type"] == "image"


def test_a_folder_is_opened_as_a_store(folder: Path, store: ColPaliVectorStore) -> None:
    expected = retriever_of(store).invoke("railway timetable")
    assert expected[0].page_content == "train.PNG, page 1"
    for name in (folder, str(folder)):
        assert retriever_of(name).invoke("railway timetable") == expected
    by_store = store.as_retriever(search_kwargs={"k": 1})
    assert isinstance(by_store, ColPaliRetriever)
    assert by_store.invoke("railway timetable") == expected[:1]


async def test_all_search_types(store: ColPaliVectorStore) -> None:
    question = "prices of bananas"
    options = {"k": 2, "score_threshold": 0.2, "fetch_k": 3, "lambda_mult": 0.5, "regions": True}
    for kind in ("similarity", "similarity_score_threshold", "mmr"):
        retriever = ColPaliRetriever(vectorstore=store, search_type=kind, search_kwargs=options)
        found = retriever.invoke(question)
        assert found[0].page_content == "fruit.pdf, page 2", kind
        assert found[0].metadata["regions"]
        assert found[0].metadata["relevance_score"] >= 0.2
        assert await retriever.ainvoke(question) == retriever.batch([question])[0] == found
    plain = store.max_marginal_relevance_search(question, k=2, fetch_k=3, score_threshold=0.2)
    assert [document.id for document in plain] == [document.id for document in found]


def test_regions_are_boxes_around_the_words(store: ColPaliVectorStore) -> None:
    """`draw` writes 26 px letters: the first line 40 px below the top of 300, the second 60 px lower."""
    retriever = retriever_of(store, k=1, regions=True)
    [page] = retriever.invoke("bananas in the market")
    boxes = {region["token"]: region for region in page.metadata["regions"]}
    for word, top in {"bananas": 40, "market": 100}.items():
        left, upper, right, lower = boxes[word]["box"]
        assert 0 <= left < right <= 1
        assert upper * 300 < top + 26
        assert lower * 300 > top
    assert boxes["market"]["box"][1] > boxes["bananas"]["box"][1]
    assert boxes["market"]["points"][3] <= page.metadata["height"]
    [image] = retriever.invoke("railway timetable")
    assert set(image.metadata["regions"][0]) == {"token", "score", "share", "box", "pixels"}
    assert json.loads(json.dumps(page.metadata)) == page.metadata
    [plain] = retriever.invoke("bananas in the market", regions=False)
    assert "regions" not in plain.metadata


def test_a_text_has_no_regions() -> None:
    store = ColPaliVectorStore.from_texts(["the tide is low"])
    [found] = retriever_of(store, regions=True).invoke("tide")
    assert found.metadata["regions"] == []


# -- options ------------------------------------------------------------------------------------------------------


def test_k_of_the_call_overrides_k_of_the_retriever(store: ColPaliVectorStore) -> None:
    retriever = retriever_of(store, k=2)
    assert len(retriever.invoke("apples")) == 2
    assert len(retriever.invoke("apples", k=1)) == 1
    assert len(retriever.invoke("apples", k=99)) == 3
    with pytest.raises(ConfigurationError, match="k must be"):
        retriever.invoke("apples", k=0)


async def test_every_option_may_be_given_per_call(store: ColPaliVectorStore) -> None:
    options: list[tuple[dict[str, Any], list[str]]] = [
        ({"filter": {"page_count": 1}}, ["train.PNG, page 1"]),
        ({"filter": {"page": {"$gt": 1}}}, ["fruit.pdf, page 2"]),
        ({"filter": lambda document: "train" in document.page_content}, ["train.PNG, page 1"]),
        ({"score_threshold": 0.2}, ["fruit.pdf, page 1"]),
        ({"score_threshold": 1.0}, []),
        ({"mode": "exact", "k": 1}, ["fruit.pdf, page 1"]),
        ({"oversampling": 2.0, "k": 1}, ["fruit.pdf, page 1"]),
    ]
    for given, expected in options:
        question = "harvest of apples"
        by_field = retriever_of(store, **given).invoke(question)
        assert [found.page_content for found in by_field] == expected, given
        assert retriever_of(store).invoke(question, **given) == by_field
        assert await retriever_of(store).ainvoke(question, **given) == by_field
        assert retriever_of(store).batch([question], **given) == [by_field]
    assert len(retriever_of(store, filter={}).invoke("apples")) == 3, "an empty filter leaves nothing out"


def test_filters_of_the_retriever_and_the_call_must_both_hold(store: ColPaliVectorStore) -> None:
    narrow = retriever_of(store, filter={"page": 7})
    assert narrow.invoke("apples") == narrow.invoke("apples", filter={}) == narrow.invoke("apples", filter=None) == []
    fruit = retriever_of(store, filter={"file_name": "fruit.pdf"})
    calls: list[tuple[Any, list[int]]] = [
        ({"page": 2}, [2]),
        (lambda document: document.metadata["page"] == 1, [1]),
        ({"file_name": "train.PNG"}, []),
        ({"$or": [{"file_name": "train.PNG"}, {"page": 1}]}, [1]),
    ]
    for given, expected in calls:
        assert [found.metadata["page"] for found in fruit.invoke("apples", filter=given)] == expected
        assert [found.metadata["page"] for found in fruit.batch(["apples"], filter=given)[0]] == expected


async def test_hybrid_search_finds_words_that_only_the_text_has() -> None:
    """Two pages whose texts have other words than their pictures."""
    store = ColPaliVectorStore()
    pages = with_texts([draw("violin"), draw("invoice")], ["a quartet", "a serenade for strings"])
    ids = store.add_documents(pages)
    question = "violin serenade"
    assert [found.id for found in retriever_of(store, k=1).invoke(question)] == ids[:1]
    for weight, expected in ((0.9, ids[1:]), (0.0, ids[:1])):
        retriever = retriever_of(store, k=1, hybrid=weight)
        found = retriever.invoke(question)
        assert [document.id for document in found] == expected
        assert await retriever.ainvoke(question) == found
        assert retriever_of(store, k=1).batch([question, "violin"], hybrid=weight)[0] == found
    fused = {document.id: document for document in retriever_of(store, hybrid=True).invoke(question)}
    by_sight = {document.id: document for document in retriever_of(store, hybrid=False).invoke(question)}
    for id_ in ids:
        one, other = fused[id_].metadata, by_sight[id_].metadata
        assert one["relevance_score"] == other["relevance_score"], "it is MaxSim's in both"
        assert one["score"] != other["score"]
        halves = one["halves"]
        parts = (1 - halves["weight"]) * halves["sight"] + halves["weight"] * halves["words"]
        assert one["score"] == pytest.approx(parts)
        assert "halves" not in other


def test_invalid_options_are_refused(store: ColPaliVectorStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        retriever_of(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists(), "a retriever makes no store"
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"top_k": 3}, "search_kwargs has no option 'top_k'; use k="),
        ({"filters": {}}, "use filter="),
        ({"region": True}, "did you mean 'regions'"),
        ({"k": 0}, "k must be"),
        ({"score_threshold": 2}, "score_threshold must be"),
        ({"mode": "fast"}, "mode must be"),
        ({"oversampling": 0.5}, "oversampling must be"),
        ({"hybrid": 2.0}, "weight of the text"),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            retriever_of(store, **options)
        with pytest.raises(ConfigurationError, match=message.replace("search_kwargs", "invoke")):
            retriever_of(store).invoke("apples", **options)
    with pytest.raises(InputError, match=r"\$near"):
        retriever_of(store, filter={"page": {"$near": 1}})
    with pytest.raises(ConfigurationError, match=r"pass search_kwargs=\{'k': 3\}"):
        ColPaliRetriever(vectorstore=store, k=3)
    with pytest.raises(ValidationError, match="search_type of closest not allowed"):
        ColPaliRetriever(vectorstore=store, search_type="closest")
    with pytest.raises(QueryError, match="white space"):
        retriever_of(store).invoke("  ")


# -- batches ------------------------------------------------------------------------------------------------------

QUESTIONS = ["harvest of apples", "prices of bananas", "railway timetable", "bananas"] * 3


async def test_a_batch_is_encoded_and_searched_at_once(counting: ColPaliVectorStore, encoded: Counter[str]) -> None:
    retriever = retriever_of(counting, k=2)
    expected = [retriever.invoke(question) for question in QUESTIONS]
    encoded.clear()
    assert retriever.batch(QUESTIONS) == expected
    assert (encoded["calls"], encoded["texts"]) == (1, 12)
    assert await retriever.abatch(QUESTIONS) == expected
    assert (encoded["calls"], encoded["texts"]) == (2, 24)
    assert retriever.batch([]) == await retriever.abatch([]) == []
    assert encoded["calls"] == 2


async def test_an_invalid_question_does_not_affect_the_others(store: ColPaliVectorStore) -> None:
    retriever = retriever_of(store, k=1)
    questions: list[Any] = ["apples", " ", "bananas", 7]
    for found in (
        retriever.batch(questions, return_exceptions=True),
        await retriever.abatch(questions, return_exceptions=True),
    ):
        assert [type(one) for one in found] == [list, QueryError, list, QueryError]
        assert found[2] == retriever.invoke("bananas")
    with pytest.raises(QueryError, match="white space"):
        retriever.batch(questions)
    with pytest.raises(QueryError, match="white space"):
        await retriever.abatch(questions)


async def test_an_error_of_the_store_is_that_of_every_question(tmp_path: Path) -> None:
    store = ColPaliVectorStore(path=tmp_path / "store")
    retriever = retriever_of(store)
    store.close()
    found = retriever.batch(["a", "b"], return_exceptions=True)
    assert [type(one) for one in found] == [StoreError, StoreError]
    with pytest.raises(StoreError, match="closed"):
        await retriever.abatch(["a", "b"])
    with pytest.raises(ConfigurationError, match="top_k"):
        retriever.batch(["a"], top_k=3)


class Recorder(BaseCallbackHandler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, Any]] = []
        self.metadata: list[dict[str, Any] | None] = []
        self.names: list[str | None] = []

    def on_retriever_start(self, serialized: Any, query: str, **more: Any) -> None:
        self.seen.append(("start", query))
        self.metadata.append(more["metadata"])
        self.names.append(more["name"])

    def on_retriever_end(self, documents: Any, **more: Any) -> None:
        self.seen.append(("end", [document.page_content for document in documents]))

    def on_retriever_error(self, error: BaseException, **more: Any) -> None:
        self.seen.append(("error", type(error)))


class AsyncRecorder(AsyncCallbackHandler):
    def __init__(self) -> None:
        self.recorder = Recorder()

    async def on_retriever_start(self, serialized: Any, query: str, **more: Any) -> None:
        self.recorder.on_retriever_start(serialized, query, **more)

    async def on_retriever_end(self, documents: Any, **more: Any) -> None:
        self.recorder.on_retriever_end(documents, **more)

    async def on_retriever_error(self, error: BaseException, **more: Any) -> None:
        self.recorder.on_retriever_error(error, **more)


EXPECTED_RUNS = [
    *(("start", "apples"), ("start", " "), ("start", "railway")),
    *(("end", ["fruit.pdf, page 1"]), ("error", QueryError), ("end", ["train.PNG, page 1"])),
]


async def test_every_question_of_a_batch_has_a_run_of_its_own(store: ColPaliVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 1}, tags=["mine"], metadata={"team": "north"})
    recorder, later = Recorder(), AsyncRecorder()
    questions = ["apples", " ", "railway"]
    retriever.batch(questions, {"callbacks": [recorder], "metadata": {"a": 1}}, return_exceptions=True)
    assert sorted(recorder.seen, key=str) == sorted(EXPECTED_RUNS, key=str)
    configs: list[RunnableConfig] = [{"callbacks": [later], "run_name": f"run {n}"} for n in range(3)]
    await retriever.abatch(questions, configs, return_exceptions=True)
    assert sorted(later.recorder.seen, key=str) == sorted(EXPECTED_RUNS, key=str)
    assert sorted(map(str, later.recorder.names)) == ["run 0", "run 1", "run 2"]
    assert recorder.names == ["ColPaliRetriever"] * 3


def test_a_batch_is_traced_as_single_calls_are(store: ColPaliVectorStore) -> None:
    retriever = store.as_retriever(search_kwargs={"k": 1}, metadata={"team": "north"})
    one, many = Recorder(), Recorder()
    retriever.invoke("apples", {"callbacks": [one], "metadata": {"a": 1}})
    retriever.batch(["apples"], {"callbacks": [many], "metadata": {"a": 1}})
    assert one.seen == many.seen
    assert one.names == many.names
    assert (
        many.metadata
        == one.metadata
        == [
            {
                "a": 1,
                "team": "north",
                "ls_retriever_name": "colpali",
                "ls_vector_store_provider": "ColPaliVectorStore",
                "ls_embedding_provider": "ColPaliEmbeddings",
                "ls_embedding_model": "coltiny",
            }
        ]
    )


async def test_a_chain_s_batch_is_coalesced_too(counting: ColPaliVectorStore, encoded: Counter[str]) -> None:
    chain = retriever_of(counting, k=1) | RunnableLambda(lambda found: found[0].page_content)
    expected = ["fruit.pdf, page 1", "fruit.pdf, page 2", "train.PNG, page 1"]
    assert chain.batch(QUESTIONS[:3]) == expected
    assert encoded["calls"] == 1
    assert await chain.abatch(QUESTIONS[:3]) == expected
    assert encoded["calls"] == 2


def test_an_overridden_search_runs_per_question(store: ColPaliVectorStore) -> None:
    class Shouting(ColPaliRetriever):
        def _get_relevant_documents(
            self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
        ) -> list[Document]:
            return [Document(query.upper())]

    shouting = Shouting(vectorstore=store)
    assert shouting.batch(["a", "b"]) == [[Document("A")], [Document("B")]]


async def test_async_answers_the_same_and_does_not_block(store: ColPaliVectorStore) -> None:
    retriever = retriever_of(store, k=2)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    together = await asyncio.gather(*(retriever.ainvoke(question) for question in QUESTIONS))
    batch = await retriever.abatch(QUESTIONS)
    ticking.cancel()
    assert together == batch == retriever.batch(QUESTIONS)
    assert ticks > 1


@pytest.mark.parametrize("method", ["ainvoke", "abatch"])
async def test_a_cancelled_search_ends_its_run(method: str, store: ColPaliVectorStore) -> None:
    recorder = AsyncRecorder()
    searching, go_on = threading.Event(), threading.Event()

    def slow(document: Document) -> bool:
        searching.set()
        return go_on.wait(30)

    retriever = retriever_of(store, k=1, filter=slow)
    question = {"ainvoke": "apples", "abatch": ["apples"]}[method]
    task = asyncio.create_task(getattr(retriever, method)(question, {"callbacks": [recorder]}))
    assert await asyncio.to_thread(searching.wait, 30)
    while not recorder.recorder.seen:  # a batch searches before its runs begin
        await asyncio.sleep(0.01)
    for _ in range(100):  # the callbacks of the start have steps of the event loop left
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go_on.set()
    assert recorder.recorder.seen == [("start", "apples"), ("error", asyncio.CancelledError)]


# -- copies -------------------------------------------------------------------------------------------------------


def test_copies_find_the_same(folder: Path) -> None:
    opened = ColPaliVectorStore(ColPaliEmbeddings(threads=1), path=folder)
    retriever = retriever_of(opened, k=1, filter={"page": 1})
    expected = retriever.invoke("apples")
    for twin in (copy.copy(retriever), copy.deepcopy(retriever), retriever.model_copy(deep=True)):
        assert twin.invoke("apples") == expected
        assert twin.vectorstore.store is opened.store
    assert pickle.loads(pickle.dumps(retriever)).invoke("apples") == expected


def test_configurable_fields(store: ColPaliVectorStore) -> None:
    field = ConfigurableField(id="search", name="search", description="options")
    retriever = store.as_retriever().configurable_fields(search_kwargs=field)
    assert len(retriever.with_config(configurable={"search": {"k": 2}}).invoke("apples")) == 2
    assert len(retriever.invoke("apples")) == 3
    tenant = retriever.with_config(configurable={"search": {"filter": {"page_count": 1}}})
    assert [found.page_content for found in tenant.invoke("apples")] == ["train.PNG, page 1"]


def test_pages_added_later_are_found_at_once() -> None:
    store = ColPaliVectorStore()
    retriever = retriever_of(store, k=1)
    assert retriever.invoke("violin") == []
    store.add_images([draw("violin")], [{"source": "a.png"}])
    assert [found.metadata["source"] for found in retriever.invoke("violin")] == ["a.png"]
