"""The right page as an ImageNode that RetrieverQueryEngine and a multimodal model can use."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ImageBlock, LLMMetadata
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import ImageNode, MetadataMode
from PIL import Image
from pydantic import PrivateAttr

from colpali_integrations import ColPali
from colpali_integrations.core.errors import ConfigurationError, FingerprintError, QueryError, StoreError
from colpali_integrations.llama_index import ColPaliEmbedding, PageImagePostprocessor, PdfPageReader, image_blocks
from colpali_integrations.llama_index.retrievers import ColPaliRetriever
from colpali_integrations.stores import Fingerprint, PageStore
from tests.stores.documents import DPI, make_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageStore]:
    with ColPali.from_pretrained("coltiny") as model:
        yield make_store(tmp_path_factory.mktemp("llama_index"), model)


def test_a_page_comes_as_an_image_node_with_its_reference(store: PageStore) -> None:
    [found] = ColPaliRetriever(str(store.folder), similarity_top_k=1).retrieve("bananas in the market")
    assert isinstance(found.node, ImageNode)
    assert found.node.text == "fruit.pdf, page 2"
    assert Path(found.metadata["source"]).name == "fruit.pdf"
    assert found.metadata["page"] == 2
    assert json.loads(json.dumps(found.metadata)) == found.metadata
    [query] = ColPali.from_pretrained("coltiny").embed_queries("bananas in the market")
    assert found.score == pytest.approx(store.search(query, k=1)[0].score)
    assert "content_hash" not in found.node.get_content(MetadataMode.LLM)
    assert "page: 2" in found.node.get_content(MetadataMode.LLM)
    assert ImageNode.from_json(found.node.to_json()) == found.node


def test_a_page_is_what_the_reader_gives(store: PageStore) -> None:
    [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("bananas")
    assert found.node == PdfPageReader(dpi=DPI).load_data(found.metadata["source"])[1]
    [block] = image_blocks([found])
    assert Image.open(io.BytesIO(block.resolve_image().read())).size == (700, 300)
    [train] = ColPaliRetriever(store, similarity_top_k=1).retrieve("railway timetable")
    assert isinstance(train.node, ImageNode)
    assert (train.node.image_path, train.node.image_mimetype) == (train.metadata["source"], "image/png")


def test_scores_fall_and_top_k_bounds(store: PageStore) -> None:
    found = ColPaliRetriever(store, similarity_top_k=99).retrieve("prices")
    scores = [node.score or 0.0 for node in found]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    assert len({node.node.node_id for node in found}) == 3


async def test_async_answers_the_same_and_does_not_block(store: PageStore) -> None:
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


class SeeingLLM(MockLLM):
    """A chat model that remembers the sizes of the pictures it was shown; a query engine asks it once a page."""

    _seen: list[tuple[int, int]] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True)

    def chat(self, messages: list[ChatMessage], **kwargs: object) -> ChatResponse:  # type: ignore[override]
        for block in (block for message in messages for block in message.blocks if isinstance(block, ImageBlock)):
            self._seen.append(Image.open(io.BytesIO(block.resolve_image().read())).size)
        return ChatResponse(message=ChatMessage(role="assistant", content="seen"))


def test_a_multimodal_query_engine_sees_the_pages(store: PageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Settings, "_embed_model", None)  # whatever asked for it would get OpenAI's and fail
    llm = SeeingLLM(max_tokens=None)
    engine = RetrieverQueryEngine.from_args(
        ColPaliRetriever(store), llm=llm, multimodal=True, node_postprocessors=[PageImagePostprocessor()]
    )
    response = engine.query("prices of bananas")
    assert str(response) == "seen"
    assert llm._seen == [(700, 300)] * 3, "two pages of a PDF and an image file"
    assert response.source_nodes[0].metadata["page"] == 2


def test_another_model_is_refused(tmp_path: Path) -> None:
    other = Fingerprint(name="other", family="coltiny", dim=128, description="0" * 16)
    retriever = ColPaliRetriever(PageStore(tmp_path, model=other), embed_model=ColPaliEmbedding())
    with pytest.raises(FingerprintError, match="other"):
        retriever.retrieve("apples")


def test_what_cannot_work_is_refused(store: PageStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store"):
        ColPaliRetriever(tmp_path)
    with pytest.raises(ConfigurationError, match="similarity_top_k"):
        ColPaliRetriever(store, similarity_top_k=0)
    with pytest.raises(QueryError, match="white space"):
        ColPaliRetriever(store).retrieve("  ")
