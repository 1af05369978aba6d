"""The right page as an ImageNode that RetrieverQueryEngine and a multimodal model can use."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata
from llama_index.core.callbacks import CallbackManager, CBEventType
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.instrumentation.events.retrieval import RetrievalEndEvent, RetrievalStartEvent
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.retrievers import QueryFusionRetriever
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from llama_index_instrumentation import get_dispatcher
from PIL import Image
from pydantic import PrivateAttr

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, FingerprintError, QueryError, StoreError
from colpali_integrations.llama_index import (
    ColPaliEmbedding,
    ColPaliIndex,
    ColPaliRetriever,
    ColPaliVectorStore,
    DeferredEmbedding,
    PageImagePostprocessor,
    PdfPageReader,
    image_blocks,
)
from colpali_integrations.stores import MultiVectorStore
from tests.llama_index.suite import CountingEmbedding, counting_model
from tests.llama_index.test_conformance import Listener, Recorder
from tests.stores.documents import DPI, make_store
from tests.stores.stored_models import made_up


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("llama_index")


@pytest.fixture(scope="module")
def store(root: Path, coltiny: ColPali) -> Iterator[MultiVectorStore]:
    """As the command line makes it: no node was ever in it."""
    with make_store(root, coltiny) as made:
        yield made


def only(key: str, operator: FilterOperator, value: Any) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, operator=operator, value=value)])


# -- results --------------------------------------------------------------------------------------------------------


def test_a_page_comes_as_an_image_node_with_its_reference(
    store: MultiVectorStore, root: Path, coltiny: ColPali
) -> None:
    [found] = ColPaliRetriever(str(root / "store"), similarity_top_k=1).retrieve("bananas in the market")
    assert isinstance(found.node, ImageNode)
    assert found.node.text == "fruit.pdf, page 2"
    assert Path(found.metadata["source"]).name == "fruit.pdf"
    assert found.metadata["page"] == 2
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    [query] = coltiny.embed_queries("bananas in the market")
    [hit] = store.search(query, k=1)
    assert found.node.node_id == hit.id
    assert found.score == pytest.approx(hit.relevance)
    assert "content_hash" not in found.node.get_content(MetadataMode.LLM)
    assert "page: 2" in found.node.get_content(MetadataMode.LLM)
    assert ImageNode.from_json(found.node.to_json()) == found.node


def test_a_page_is_what_the_reader_gives_but_of_its_document(store: MultiVectorStore) -> None:
    [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("bananas")
    read = PdfPageReader(dpi=DPI).load_data(found.metadata["source"])[1]
    kept = {"id_", "relationships", "class_name"}
    assert {k: v for k, v in found.node.to_dict().items() if k not in kept} == {
        k: v for k, v in read.to_dict().items() if k not in kept
    }
    assert found.node.ref_doc_id == found.metadata["source"], "deleting it deletes the document's pages"
    [block] = image_blocks([found])
    assert Image.open(io.BytesIO(block.resolve_image().read())).size == (700, 300)
    [train] = ColPaliRetriever(store, similarity_top_k=1).retrieve("railway timetable")
    assert isinstance(train.node, ImageNode)
    assert (train.node.image_path, train.node.image_mimetype) == (train.metadata["source"], "image/png")


def test_scores_fall_within_0_and_1_and_top_k_bounds(store: MultiVectorStore) -> None:
    found = ColPaliRetriever(store, similarity_top_k=99).retrieve("prices of bananas")
    scores = [node.score or 0.0 for node in found]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert 1 >= scores[0] > scores[1] >= 0
    assert len({node.node.node_id for node in found}) == 3


def test_a_similarity_cutoff_drops_worse_pages(store: MultiVectorStore) -> None:
    [best, *_] = everything = ColPaliRetriever(store, similarity_top_k=9).retrieve("bananas")
    cutoff = SimilarityPostprocessor(similarity_cutoff=best.score or 1.0)
    assert cutoff.postprocess_nodes(everything) == [best]
    assert ColPaliRetriever(store, min_relevance=best.score).retrieve("bananas") == [best]


def test_filters_and_modes(store: MultiVectorStore) -> None:
    pages = ColPaliRetriever(store, filters=only("page_count", FilterOperator.EQ, 2)).retrieve("railway timetable")
    assert {node.metadata["page"] for node in pages} == {1, 2}
    fruit = only("source", FilterOperator.TEXT_MATCH, "fruit")
    assert len(ColPaliRetriever(store, filters=fruit, search_mode="exact").retrieve("railway")) == 2
    with pytest.raises(ConfigurationError, match="first_stage"):
        ColPaliRetriever(store, search_mode="two_stage").retrieve("railway")


def test_hybrid_reads_the_text_too(coltiny: ColPali) -> None:
    """A page whose picture shows none of the words of its text layer."""
    made = ColPaliVectorStore(embed_model=ColPaliEmbedding())
    hidden = TextNode(id_="hidden", text="appendix\n\ncontract of 1997", excluded_embed_metadata_keys=["k"])
    made.add([hidden, TextNode(id_="other", text="contracts and other papers")])
    found = ColPaliRetriever(made, hybrid=0.5).retrieve("contract of 1997")
    assert found[0].node.node_id == "hidden"
    assert 1 >= (found[0].score or 0) > (found[1].score or 0) > 0
    decided = ColPaliRetriever(made, hybrid=True, halves=True).retrieve("contract of 1997")
    assert decided[0].score == pytest.approx(1), "the first by both"
    for node in decided:
        halves = node.metadata["halves"]
        parts = (1 - halves["weight"]) * halves["sight"] + halves["weight"] * halves["words"]
        assert node.score == pytest.approx(parts)
        for mode in MetadataMode.LLM, MetadataMode.EMBED:
            assert "halves" not in node.node.get_content(mode)
    by_sight = ColPaliRetriever(made, hybrid=False, halves=True).retrieve("contract of 1997")
    assert "halves" not in {*found[0].metadata, *by_sight[0].metadata}


def test_regions_lie_on_the_words(store: MultiVectorStore) -> None:
    [found] = ColPaliRetriever(store, similarity_top_k=1, regions=True).retrieve("bananas")
    [region] = found.metadata["regions"]
    left, top, right, bottom = region["box"]
    assert region["token"] == "bananas"
    # "Prices of bananas" is drawn from (40, 40) on, of 700 x 300, in letters of 26 pixels.
    assert 0.1 < left < right < 0.6
    assert 0.05 < top < bottom < 0.35
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "regions" not in found.node.get_content(mode)
    assert "regions" not in ColPaliRetriever(store, similarity_top_k=1).retrieve("bananas")[0].metadata


def test_questions_of_a_transform_are_searched_for(store: MultiVectorStore) -> None:
    retriever = ColPaliRetriever(store, similarity_top_k=1)
    bundle = QueryBundle("what does it cost?", custom_embedding_strs=["bananas", "prices in the market"])
    assert retriever.retrieve(bundle)[0].metadata["page"] == 2


# -- asynchronously -------------------------------------------------------------------------------------------------


async def test_async_answers_the_same_and_does_not_block(store: MultiVectorStore) -> None:
    retriever = ColPaliRetriever(store, similarity_top_k=2)
    questions = ["apples", "bananas", "railway"] * 3
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    together = await asyncio.gather(*(retriever.aretrieve(question) for question in questions))
    ticking.cancel()
    assert together == [retriever.retrieve(question) for question in questions]
    assert ticks > 1


# -- in LlamaIndex's own machines -----------------------------------------------------------------------------------


class SeeingLLM(MockLLM):
    """A chat model that remembers the pictures it was shown."""

    _seen: list[tuple[str, tuple[int, int]]] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def chat(self, messages: list[ChatMessage], **kwargs: object) -> ChatResponse:  # type: ignore[override]
        for block in (block for message in messages for block in message.blocks if isinstance(block, ImageBlock)):
            picture = Image.open(io.BytesIO(block.resolve_image().read()))
            assert picture.format == "PNG"
            self._seen.append((block.image_mimetype or "", picture.size))
        return ChatResponse(message=ChatMessage(role="assistant", content="seen"))

    async def achat(self, messages: list[ChatMessage], **kwargs: object) -> ChatResponse:  # type: ignore[override]
        return self.chat(messages)


@pytest.mark.parametrize("postprocessors", [[], [PageImagePostprocessor()]], ids=["alone", "with pictures put in"])
async def test_a_multimodal_query_engine_sees_the_pages(
    store: MultiVectorStore, monkeypatch: pytest.MonkeyPatch, postprocessors: list[Any]
) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)  # whatever asked for it would get OpenAI's and fail
    llm = SeeingLLM(max_tokens=None)
    engine = RetrieverQueryEngine.from_args(
        ColPaliRetriever(store), llm=llm, multimodal=True, node_postprocessors=postprocessors
    )
    response = engine.query("prices of bananas")
    assert str(response) == "seen"
    assert llm._seen == [("image/png", (700, 300))] * 3, "two pages of a PDF and an image file"
    assert response.source_nodes[0].metadata["page"] == 2
    llm._seen.clear()
    assert str(await engine.aquery("prices of bananas")) == "seen"
    assert len(llm._seen) == 3


def test_the_right_page_s_picture_is_shown(root: Path, store: MultiVectorStore) -> None:
    [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("bananas")
    [*_, block] = found.node.get_content_blocks(MetadataMode.LLM)
    assert isinstance(block, ImageBlock)
    [expected] = image_blocks(PdfPageReader(dpi=DPI).load_data(root / "documents" / "fruit.pdf")[1])
    assert block.resolve_image().read() == expected.resolve_image().read()


def test_rankings_can_be_fused(store: MultiVectorStore) -> None:
    retrievers: Any = [ColPaliRetriever(store), ColPaliRetriever(store, search_mode="exact")]
    fusion = QueryFusionRetriever(retrievers, llm=MockLLM(), num_queries=1, similarity_top_k=1, use_async=False)
    assert fusion.retrieve("bananas")[0].metadata["page"] == 2


def test_events_are_emitted(store: MultiVectorStore) -> None:
    recorder, listener = Recorder(), Listener()
    dispatcher = get_dispatcher()
    dispatcher.add_event_handler(listener)
    try:
        retriever = ColPaliRetriever(store, callback_manager=CallbackManager([recorder]))
        found = retriever.retrieve("bananas")
    finally:
        dispatcher.event_handlers.remove(listener)
    assert [type(event) for event in listener.events] == [
        RetrievalStartEvent, EmbeddingStartEvent, EmbeddingEndEvent, RetrievalEndEvent,
    ]  # fmt: skip
    assert listener.events[1].model_dict["model_name"] == "coltiny"
    assert listener.events[2].chunks == ["bananas"]
    assert listener.events[3].nodes == found
    assert CBEventType.RETRIEVE in [kind for kind, _ in recorder.starts]


def test_a_question_costs_one_encoding(store: MultiVectorStore) -> None:
    retriever, encoded = ColPaliRetriever(store, embed_model=CountingEmbedding()), counting_model()
    encoded.reset()
    assert isinstance(retriever.retrieve("bananas")[0], NodeWithScore)
    assert (encoded.texts, encoded.pages) == (1, 0)


# -- refusals -------------------------------------------------------------------------------------------------------


def test_another_model_is_refused() -> None:
    other = made_up("other", identity="0" * 16)
    with pytest.raises(FingerprintError, match="other"):
        ColPaliRetriever(MultiVectorStore.open(model=other), embed_model=ColPaliEmbedding())


def test_it_takes_every_kind_of_store(store: MultiVectorStore, root: Path) -> None:
    vector_store = ColPaliVectorStore(store, search_mode="exact")
    kinds: list[Any] = [store, root / "store", vector_store, ColPaliIndex.from_vector_store(vector_store)]
    expected = ColPaliRetriever(store).retrieve("bananas")
    for kind in kinds:
        assert ColPaliRetriever(kind).retrieve("bananas") == expected
        assert ColPaliRetriever(kind, embed_model=CountingEmbedding()).retrieve("bananas") == expected
    with pytest.raises(ConfigurationError, match="got int"):
        ColPaliRetriever(3)  # type: ignore[arg-type]
    other: Any = VectorStoreIndex([], embed_model=DeferredEmbedding())
    with pytest.raises(ConfigurationError, match="got SimpleVectorStore"):
        ColPaliRetriever(other)


def test_invalid_arguments_are_refused(store: MultiVectorStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such store"):
        ColPaliRetriever(tmp_path / "nothing")
    wrong = [("similarity_top_k", 0), ("min_relevance", 2), ("hybrid", 2.0), ("oversampling", 0), ("search_mode", "x")]
    for option, value in wrong:
        with pytest.raises(ConfigurationError, match="mode" if option == "search_mode" else option):
            ColPaliRetriever(store, **{option: value})  # type: ignore[arg-type]
    with pytest.raises(QueryError, match="white space"):
        ColPaliRetriever(store).retrieve("  ")
