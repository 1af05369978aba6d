"""Nodes that somebody else found are ranked by late interaction, from stored vectors where there are any."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from pydantic import ValidationError

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliRerank,
    ColPaliRetriever,
    ColPaliVectorStore,
    PdfPageReader,
)
from colpali_integrations.llama_index._persistence import copied_records
from colpali_integrations.stores import Fingerprint, MultiVectorStore
from tests.llama_index.suite import Encoded
from tests.llama_index.test_conformance import Listener, Recorder
from tests.stores.documents import DPI, make_store

TEXTS = ["tax return", "low tide in the harbour", "harvest of apples"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rerank")


@pytest.fixture(scope="module")
def store(root: Path, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    with make_store(root, coltiny) as made:
        yield made


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> Encoded:
    return Encoded(monkeypatch)


@pytest.fixture
def listener() -> Iterator[Listener]:
    dispatcher, made = get_dispatcher(), Listener()
    dispatcher.add_event_handler(made)
    yield made
    dispatcher.event_handlers.remove(made)


def texts() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(id_=text, text=text), score=0.5) for text in TEXTS]


def pages(root: Path) -> list[NodeWithScore]:
    nodes = PdfPageReader(dpi=DPI).load_data(root / "documents" / "fruit.pdf")
    return [NodeWithScore(node=node, score=0.9) for node in nodes]


def ids(nodes: list[NodeWithScore]) -> list[str]:
    return [one.node.node_id for one in nodes]


# -- ranking --------------------------------------------------------------------------------------------------------


def test_the_best_come_first_and_top_n_bounds() -> None:
    found = ColPaliRerank(top_n=2).postprocess_nodes(texts(), query_str="harbour")
    assert ids(found) == ["low tide in the harbour", "tax return"], "equal ones in the order in which they came"
    assert 1 >= (found[0].score or 0) > (found[1].score or 0) >= 0
    assert len(ColPaliRerank(top_n=99).postprocess_nodes(texts(), query_str="harbour")) == 3


def test_stored_vectors_are_used(store: MultiVectorStore, encoded: Encoded) -> None:
    retriever = ColPaliRetriever(store)
    found = retriever.retrieve("apples")
    encoded.reset()
    ranked = ColPaliRerank(store=store).postprocess_nodes(found, query_str="bananas")
    assert (encoded.pages, encoded.texts) == (0, 1), "the question"
    expected = retriever.retrieve("bananas")
    assert ranked[0].node.node_id == expected[0].node.node_id
    scores = {one.node.node_id: one.score for one in ranked}
    assert scores == pytest.approx({one.node.node_id: one.score for one in expected})


def test_nodes_of_a_vector_store_are_stored_nodes(root: Path, store: MultiVectorStore, encoded: Encoded) -> None:
    vector_store = ColPaliVectorStore(store=store)
    nodes = pages(root)
    vector_store.add([one.node for one in nodes])
    assert encoded.pages == 0, "the command line had encoded these pages"
    ranked = ColPaliRerank(vector_store).postprocess_nodes(nodes, query_str="bananas")
    assert ranked[0].node.metadata["page"] == 2
    assert encoded.pages == 0
    vector_store.delete_nodes(ids(nodes))


def test_others_are_encoded_once(root: Path, encoded: Encoded) -> None:
    reranker = ColPaliRerank()
    first = reranker.postprocess_nodes(pages(root), query_str="bananas")
    assert first[0].node.metadata["page"] == 2
    assert encoded.pages == 2
    assert reranker.postprocess_nodes(pages(root), query_str="apples")[0].node.metadata["page"] == 1
    assert encoded.pages == 2
    copied = copy.deepcopy(reranker)
    assert copied.postprocess_nodes(pages(root), query_str="bananas") == first
    assert encoded.pages == 2, "a copy shares what was encoded"


def test_stored_and_encoded_scores_agree(store: MultiVectorStore) -> None:
    found = ColPaliRetriever(store).retrieve("bananas")
    # In memory, because the Qdrant engine rounds the question to float16 too.
    memory = MultiVectorStore.open(model="coltiny")
    memory.add(copied_records(store))
    for one, other in zip(
        ColPaliRerank(store=memory).postprocess_nodes(found, query_str="bananas"),
        ColPaliRerank().postprocess_nodes(found, query_str="bananas"),
        strict=True,
    ):
        assert one.node == other.node
        assert one.score == pytest.approx(other.score, abs=1e-6)


def test_a_file_that_changed_is_encoded_anew(root: Path, tmp_path: Path, encoded: Encoded) -> None:
    path = tmp_path / "page.png"
    picture = (root / "documents" / "deep" / "er" / "train.PNG").read_bytes()
    path.write_bytes(picture)
    reranker, node = ColPaliRerank(), ImageNode(image_path=str(path))
    for content, expected in [(picture, 1), (None, 1), (picture + b"\0", 2)]:
        if content is not None:
            path.write_bytes(content)
        reranker.postprocess_nodes([NodeWithScore(node=node)], query_str="railway")
        assert encoded.pages == expected


async def test_async_ranks_the_same(store: MultiVectorStore) -> None:
    found = ColPaliRetriever(store).retrieve("apples")
    reranker = ColPaliRerank(store=store)
    together = await asyncio.gather(
        *(reranker.apostprocess_nodes(found, query_str=words) for words in ("apples", "bananas") * 3)
    )
    assert together == [reranker.postprocess_nodes(found, query_str=words) for words in ("apples", "bananas") * 3]


# -- what is left as it was -----------------------------------------------------------------------------------------


def test_the_earlier_score_can_be_kept() -> None:
    given = texts()
    before = [one.to_json() for one in given]
    found = ColPaliRerank(keep_retrieval_score=True).postprocess_nodes(given, query_str="harbour")
    assert [one.node.metadata["retrieval_score"] for one in found] == [0.5] * 3
    assert [one.to_json() for one in given] == before
    plain = ColPaliRerank().postprocess_nodes(given, query_str="harbour")
    assert all("retrieval_score" not in one.node.metadata for one in plain)


def test_nothing_in_nothing_out(encoded: Encoded, listener: Listener) -> None:
    assert ColPaliRerank().postprocess_nodes([], query_str="harbour") == []
    assert (encoded.pages, encoded.texts, listener.events) == (0, 0, [])


# -- as a component -------------------------------------------------------------------------------------------------


def test_events_tell_of_it(listener: Listener) -> None:
    recorder = Recorder()
    reranker = ColPaliRerank(top_n=1, callback_manager=CallbackManager([recorder]))
    found = reranker.postprocess_nodes(texts(), query_str="harbour")
    start, end = listener.events
    assert isinstance(start, ReRankStartEvent)
    assert isinstance(end, ReRankEndEvent)
    assert (start.top_n, start.model_name, ids(start.nodes)) == (1, "coltiny", TEXTS)
    assert isinstance(start.query, QueryBundle)
    assert ids(end.nodes) == ids(found) == ["low tide in the harbour"]
    [(kind, payload)] = recorder.starts
    assert kind is CBEventType.RERANKING
    assert payload[EventPayload.QUERY_STR] == "harbour"
    assert recorder.ends[0][1][EventPayload.NODES] == found


def test_in_a_query_engine(store: MultiVectorStore) -> None:
    engine = RetrieverQueryEngine.from_args(
        ColPaliRetriever(store),
        llm=MockLLM(),
        node_postprocessors=[ColPaliRerank(store=store, top_n=1)],
    )
    assert [one.metadata["page"] for one in engine.query("bananas").source_nodes] == [2]


def test_fields_survive_json_and_pickling(store: MultiVectorStore, root: Path, encoded: Encoded) -> None:
    reranker = ColPaliRerank(root / "store", top_n=2, keep_retrieval_score=True, cache_size=3, on_error="skip")
    fields = json.loads(json.dumps(reranker.to_dict()))
    assert fields["class_name"] == "ColPaliRerank"
    assert fields["path"] == str(root / "store")
    found = ColPaliRetriever(store).retrieve("bananas")
    expected = reranker.postprocess_nodes(found, query_str="bananas")
    for other in (ColPaliRerank.from_dict(fields), ColPaliRerank(**fields), pickle.loads(pickle.dumps(reranker))):
        assert other.to_dict() == reranker.to_dict()
        assert other.postprocess_nodes(found, query_str="bananas") == expected
    assert encoded.pages == 0
    with pytest.raises(ConfigurationError, match="folder"):
        pickle.dumps(ColPaliRerank(MultiVectorStore.open(model="coltiny")))


# -- refusals -------------------------------------------------------------------------------------------------------


def test_a_bad_node_is_named_or_comes_last(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    gone = ImageNode(id_="gone", image_path=str(tmp_path / "gone.png"))
    broken = ImageNode(id_="broken", image="not base64!")
    given = [NodeWithScore(node=gone), *texts(), NodeWithScore(node=broken)]
    with pytest.raises(InputError, match="gone") as caught:
        ColPaliRerank().postprocess_nodes(given, query_str="harbour")
    assert caught.value.index == 0
    with caplog.at_level(logging.WARNING):
        found = ColPaliRerank(on_error="skip").postprocess_nodes(given, query_str="harbour")
    assert ids(found)[0] == "low tide in the harbour"
    assert ids(found)[-2:] == ["gone", "broken"]
    assert "ImageNode gone" in caplog.text
    assert "ImageNode broken" in caplog.text


@pytest.mark.parametrize(
    "options", [{"top_n": 0}, {"cache_size": -1}, {"on_error": "ignore"}, {"topn": 3}, {"model": "coltiny"}]
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColPaliRerank(**options)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="question"):
        ColPaliRerank().postprocess_nodes(texts())
    with pytest.raises(StoreError, match="no such store"):
        ColPaliRerank(tmp_path / "nothing")
    other = Fingerprint(name="other", family="coltiny", dim=128, description="0" * 16)
    mismatch = ColPaliRerank(MultiVectorStore.open(model=other), embed_model=ColPaliEmbedding())
    with pytest.raises(FingerprintError, match="other"):
        mismatch.postprocess_nodes(texts(), query_str="harbour")
