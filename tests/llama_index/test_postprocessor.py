"""Nodes of any retriever are ranked by late interaction, from stored vectors where there are any."""

from __future__ import annotations

import asyncio
import base64
import copy
import io
import json
import logging
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.indices.multi_modal import MultiModalVectorStoreIndex
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index_instrumentation import get_dispatcher
from PIL import Image
from pydantic import PrivateAttr, ValidationError

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliRerank,
    ColPaliRetriever,
    ColPaliVectorStore,
    PageImagePostprocessor,
    PdfPageReader,
)
from colpali_integrations.llama_index._persistence import copied_records
from colpali_integrations.stores import MultiVectorStore
from tests.llama_index.suite import CountingEmbedding, CountingModel
from tests.llama_index.test_conformance import Listener, Recorder
from tests.llama_index.test_utils import COLOURS, drawn, jpeg, opened
from tests.stores.documents import DPI, make_store
from tests.stores.stored_models import made_up

TEXTS = ["tax return", "low tide in the harbour", "harvest of apples"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rerank")


@pytest.fixture(scope="module")
def store(root: Path, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    with make_store(root, coltiny) as made:
        yield made


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


def test_stored_vectors_are_used(store: MultiVectorStore, encoded: CountingModel) -> None:
    retriever = ColPaliRetriever(store)
    found = retriever.retrieve("apples")
    ranked = ColPaliRerank(store=store, embed_model=CountingEmbedding()).postprocess_nodes(found, query_str="bananas")
    assert (encoded.pages, encoded.texts) == (0, 1), "the question"
    expected = retriever.retrieve("bananas")
    assert ranked[0].node.node_id == expected[0].node.node_id
    scores = {one.node.node_id: one.score for one in ranked}
    assert scores == pytest.approx({one.node.node_id: one.score for one in expected})


def test_nodes_of_a_vector_store_are_stored_nodes(root: Path, store: MultiVectorStore, encoded: CountingModel) -> None:
    vector_store = ColPaliVectorStore(store=store, embed_model=CountingEmbedding())
    nodes = pages(root)
    vector_store.add([one.node for one in nodes])
    assert encoded.pages == 0, "the command line had encoded these pages"
    ranked = ColPaliRerank(vector_store).postprocess_nodes(nodes, query_str="bananas")
    assert ranked[0].node.metadata["page"] == 2
    assert encoded.pages == 0
    vector_store.delete_nodes(ids(nodes))


def test_others_are_encoded_once(root: Path, encoded: CountingModel) -> None:
    reranker = ColPaliRerank(embed_model=CountingEmbedding())
    first = reranker.postprocess_nodes(pages(root), query_str="bananas")
    assert first[0].node.metadata["page"] == 2
    assert encoded.pages == 2
    assert reranker.postprocess_nodes(pages(root), query_str="apples")[0].node.metadata["page"] == 1
    assert encoded.pages == 2
    copied = copy.deepcopy(reranker)
    assert copied.postprocess_nodes(pages(root), query_str="bananas") == first
    assert encoded.pages == 2, "a copy shares the cache"


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


def test_a_file_that_changed_is_encoded_anew(root: Path, tmp_path: Path, encoded: CountingModel) -> None:
    path = tmp_path / "page.png"
    picture = (root / "documents" / "deep" / "er" / "train.PNG").read_bytes()
    path.write_bytes(picture)
    reranker, node = ColPaliRerank(embed_model=CountingEmbedding()), ImageNode(image_path=str(path))
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


# -- unchanged nodes ------------------------------------------------------------------------------------------------


def test_the_earlier_score_can_be_kept() -> None:
    given = texts()
    before = [one.to_json() for one in given]
    found = ColPaliRerank(keep_retrieval_score=True).postprocess_nodes(given, query_str="harbour")
    assert [one.node.metadata["retrieval_score"] for one in found] == [0.5] * 3
    assert [one.to_json() for one in given] == before
    plain = ColPaliRerank().postprocess_nodes(given, query_str="harbour")
    assert all("retrieval_score" not in one.node.metadata for one in plain)


def test_nothing_in_nothing_out(encoded: CountingModel, listener: Listener) -> None:
    assert ColPaliRerank(embed_model=CountingEmbedding()).postprocess_nodes([], query_str="harbour") == []
    assert (encoded.pages, encoded.texts, listener.events) == (0, 0, [])


# -- as a component -------------------------------------------------------------------------------------------------


def test_events_are_emitted(listener: Listener) -> None:
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


def test_fields_survive_json_and_pickling(store: MultiVectorStore, root: Path, encoded: CountingModel) -> None:
    options: dict[str, Any] = {"top_n": 2, "keep_retrieval_score": True, "cache_size": 3, "on_error": "skip"}
    reranker = ColPaliRerank(root / "store", embed_model=CountingEmbedding(), **options)
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
def test_invalid_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ColPaliRerank(**options)


def test_invalid_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="question"):
        ColPaliRerank().postprocess_nodes(texts())
    with pytest.raises(StoreError, match="no such store"):
        ColPaliRerank(tmp_path / "nothing")
    other = made_up("other", identity="0" * 16)
    mismatch = ColPaliRerank(MultiVectorStore.open(model=other), embed_model=ColPaliEmbedding())
    with pytest.raises(FingerprintError, match="other"):
        mismatch.postprocess_nodes(texts(), query_str="harbour")


# -- pictures ----------------------------------------------------------------------------------------------


async def test_found_pages_get_their_pictures(tmp_path: Path) -> None:
    [page] = PdfPageReader(dpi=30).load_data(COLOURS, pages=[2])
    before = page.model_copy(deep=True)
    others = [TextNode(text="words"), ImageNode(image_path=str(jpeg(tmp_path))), ImageNode(image="aGVsbG8=")]
    given = [NodeWithScore(node=page, score=0.7), *(NodeWithScore(node=node, score=0.1) for node in others)]
    postprocessor = PageImagePostprocessor()
    for made in (postprocessor.postprocess_nodes(given), await postprocessor.apostprocess_nodes(given)):
        assert made[1:] == given[1:]
        node = made[0].node
        assert isinstance(node, ImageNode)
        assert (node.node_id, node.text, node.metadata) == (page.node_id, page.text, page.metadata)
        assert (made[0].score, node.image_path, node.image_mimetype) == (0.7, None, "image/png")
        assert Image.open(io.BytesIO(base64.b64decode(node.image or ""))).tobytes() == drawn(2, 30)
    assert page == before
    [coarse] = PageImagePostprocessor(dpi=15).postprocess_nodes(given[:1])
    assert Image.open(io.BytesIO(base64.b64decode(coarse.node.image))).tobytes() == drawn(2, 15)  # type: ignore[attr-defined]


def test_the_postprocessor_is_a_component() -> None:
    postprocessor = PageImagePostprocessor(dpi=72)
    data = postprocessor.to_dict()
    assert (data["class_name"], data["dpi"]) == ("PageImagePostprocessor", 72)
    assert PageImagePostprocessor.from_dict(json.loads(json.dumps(data))).to_dict() == data
    with pytest.raises(ValidationError, match="dpi"):
        PageImagePostprocessor(dpi=0)


class Reader(MockLLM):
    """A chat model that keeps its messages."""

    _seen: list[ChatMessage] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    @property
    def images(self) -> list[ImageBlock]:
        return [block for message in self._seen for block in message.blocks if isinstance(block, ImageBlock)]

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        self._seen = list(messages)
        return ChatResponse(message=ChatMessage(role="assistant", content="from page 2"))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self.chat(messages, **kwargs)


async def test_a_query_engine_answers_from_page_images() -> None:
    embedding = ColPaliEmbedding()
    nodes = PdfPageReader(dpi=40).load_data(COLOURS, pages=[2])
    index = MultiModalVectorStoreIndex(nodes=nodes, embed_model=embedding, image_embed_model=embedding)
    retriever = index.as_retriever(similarity_top_k=0, image_similarity_top_k=1)
    llm = Reader(max_tokens=None)
    engine = RetrieverQueryEngine.from_args(
        retriever, llm=llm, multimodal=True, node_postprocessors=[PageImagePostprocessor()]
    )
    for response in (engine.query("which palette?"), await engine.aquery("which palette?")):
        assert isinstance(response, Response)
        assert response.response == "from page 2"
        assert {opened(block).tobytes() for block in llm.images} == {drawn(2, 40)}
        assert {node.metadata["page"] for node in response.source_nodes} == {2}
        shown = " ".join(message.content or "" for message in llm._seen)
        assert "page: 2" in shown
        assert "content_hash" not in shown
