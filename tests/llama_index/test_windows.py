"""A page's caption and picture reach the LLM in one prompt, at every context window and in every mode."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ImageBlock,
    LLMMetadata,
    TextBlock,
)
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import ImageNode, MetadataMode, NodeWithScore, TextNode
from pydantic import PrivateAttr

from colpali_integrations.llama_index import ColPaliIndex, ColPaliRetriever, ColPaliVectorStore, PdfPageReader
from colpali_integrations.llama_index._blocks import Caption, kept_together
from colpali_integrations.pages.reference import encode_base64
from tests.llama_index.suite import counting_store
from tests.stores.documents import DPI, draw, save_pdf

# One picture does not fit, one fits, two do, three do, all do.
WINDOWS = [2_500, 3_900, 5_200, 7_500, 128_000]
PAGES = 4


class Answering(MockLLM):
    """Keeps, per prompt, the pairs of a caption's page and the picture behind it."""

    _window: int = PrivateAttr(default=3_900)
    _prompts: list[list[tuple[int, bytes]]] = PrivateAttr(default_factory=list)
    _lonely: list[str] = PrivateAttr(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(is_chat_model=True, context_window=self._window, num_output=256)

    def chat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        blocks = [block for message in messages for block in message.blocks]
        pairs, page = [], 0
        for block in blocks:
            if isinstance(block, TextBlock):
                numbers = [line for line in block.text.splitlines() if line.startswith("page: ")]
                assert len(numbers) <= 1, "two captions in a row"
                page = int(numbers[0].removeprefix("page: ")) if numbers else 0
                self._lonely += numbers
            elif isinstance(block, ImageBlock):
                assert page, "a picture without its caption"
                pairs.append((page, block.resolve_image().read()))
                self._lonely.pop()
                page = 0
        self._prompts.append(pairs)
        return ChatResponse(message=ChatMessage(role="assistant", content="an answer"))

    async def achat(self, messages: Sequence[ChatMessage], **options: Any) -> ChatResponse:
        return self.chat(messages)


def answering(window: int) -> Answering:
    llm = Answering(max_tokens=None)
    llm._window = window
    return llm


@pytest.fixture(scope="module")
def store() -> ColPaliVectorStore:
    """Pages that carry their pictures, which are quick to show."""
    made, words = counting_store(), ("violin", "mitochondria", "invoice", "railway")
    made.add([ImageNode(image=encode_base64(draw(word)), metadata={"page": n}) for n, word in enumerate(words, 1)])
    return made


@pytest.fixture(scope="module")
def expected(store: ColPaliVectorStore) -> dict[int, bytes]:
    found = ColPaliRetriever(store, similarity_top_k=PAGES).retrieve("violin")
    drawn: dict[int, Any] = {one.metadata["page"]: one.node.get_content_blocks()[-1] for one in found}
    return {page: block.resolve_image().read() for page, block in drawn.items()}


@pytest.mark.parametrize(
    ("mode", "window"),
    [
        *(("compact", window) for window in WINDOWS),
        *((mode, 3_900) for mode in ("tree_summarize", "accumulate", "compact_accumulate")),
        *((mode, 2_500) for mode in ("refine", "tree_summarize")),
    ],
)
def test_caption_and_picture_stay_together(
    store: ColPaliVectorStore, expected: dict[int, bytes], window: int, mode: str
) -> None:
    llm = answering(window)
    index = ColPaliIndex.from_vector_store(store)
    engine = index.as_query_engine(llm=llm, multimodal=True, similarity_top_k=PAGES, response_mode=mode)
    for asynchronous in (False, True):
        llm._prompts.clear()
        answer = asyncio.run(engine.aquery("violin")) if asynchronous else engine.query("violin")
        assert "an answer" in str(answer)
        shown = [pair for prompt in llm._prompts for pair in prompt]
        assert sorted(shown) == sorted(expected.items()), "each page once, under its own caption"
        assert not llm._lonely
    if mode == "compact":
        most = max(1, (window - 500) // 2_150)
        assert max(len(prompt) for prompt in llm._prompts) == min(PAGES, most), "prompts are filled"


@pytest.mark.parametrize("window", [3_900, 5_200])
def test_pages_that_a_summary_has_no_room_for_are_left_out_whole(
    store: ColPaliVectorStore, expected: dict[int, bytes], window: int
) -> None:
    llm = answering(window)
    retriever = ColPaliRetriever(store, similarity_top_k=PAGES)
    engine = RetrieverQueryEngine.from_args(retriever, llm=llm, multimodal=True, response_mode="simple_summarize")  # type: ignore[arg-type]
    assert str(engine.query("violin")) == "an answer"
    [shown] = llm._prompts
    assert dict(shown).items() <= expected.items()
    assert len(shown) == (window - 500) // 2_150
    assert not llm._lonely


def test_pages_of_a_pdf_are_cited_rightly(tmp_path: Path) -> None:
    """At 3,900 tokens LlamaIndex puts the picture of page 2 behind the caption of page 1."""
    llm, store = answering(3_900), counting_store()
    store.add(PdfPageReader(dpi=DPI).load_data(save_pdf(tmp_path / "report.pdf", draw("violin"), draw("invoice"))))
    index = ColPaliIndex.from_vector_store(store)
    assert str(index.as_query_engine(llm=llm, multimodal=True).query("violin")) == "an answer"
    drawn = {node.metadata["page"]: node.get_content_blocks()[-1] for node in store.get_nodes()}
    shown = {page: picture for prompt in llm._prompts for page, picture in prompt}
    assert shown == {page: block.resolve_image().read() for page, block in drawn.items()}  # type: ignore[attr-defined]


def test_texts_between_pages_stay_where_they_are(store: ColPaliVectorStore, expected: dict[int, bytes]) -> None:
    llm = answering(128_000)
    nodes: list[Any] = ColPaliRetriever(store, similarity_top_k=2).retrieve("violin")
    note = NodeWithScore(node=TextNode(text="Low tide is at six."))
    get_response_synthesizer(llm=llm, multimodal=True).synthesize("violin", [nodes[0], note, nodes[1], note])
    [shown] = llm._prompts
    assert [page for page, _ in shown] == [one.metadata["page"] for one in nodes]
    assert dict(shown).items() <= expected.items()


async def test_a_caption_longer_than_the_window_is_split_before_its_picture() -> None:
    picture = ImageBlock(image=b"\x89PNG\r\n\x1a\n" + b"0" * 9, image_mimetype="image/png")
    *_, caption, shown = kept_together([TextBlock(text="word " * 900)], picture)
    assert isinstance(caption, Caption)
    assert (await shown.aestimate_tokens(), await caption.aestimate_tokens() > 2_900) == (0, True)
    parts = await caption.asplit(300)
    assert len(parts) == 3
    assert [type(part) for part in parts[:-1]] == [TextBlock] * (len(parts) - 1)
    assert [await part.aestimate_tokens() <= 300 for part in parts] == [True] * len(parts)
    assert isinstance(parts[-1], Caption)


def test_blocks_without_a_caption_and_messages_are_ordinary(store: ColPaliVectorStore) -> None:
    [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("violin")
    assert [type(block) for block in found.node.get_content_blocks()] == [ImageBlock]
    message = ChatMessage(blocks=found.node.get_content_blocks(MetadataMode.LLM))
    again = ChatMessage.model_validate_json(message.model_dump_json())
    assert [block.block_type for block in again.blocks] == ["text", "image"]
    assert again.content == message.content
