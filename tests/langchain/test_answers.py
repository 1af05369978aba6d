"""From PDFs to a chat model's answer, as a user writes it: what the model is shown are the right pages."""

from __future__ import annotations

import asyncio
import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.documents import Document
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.messages.content import create_text_block
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import Runnable, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from PIL import Image
from pydantic import Field

from colpali_integrations import pdf_pages
from colpali_integrations.langchain import (
    ColPaliReranker,
    ColPaliVectorStore,
    PdfPageLoader,
    image_blocks,
)

PDFS = Path(__file__).parents[2] / "demo" / "pdfs"
SLIDES, FORM = PDFS / "metropolis-slides.pdf", PDFS / "dd-form-293.pdf"


class Seeing(BaseChatModel):
    """A chat model that remembers what it was shown, and reads the caption before the first image aloud."""

    shown: list[list[BaseMessage]] = Field(default_factory=list)

    @property
    def _llm_type(self) -> str:
        return "seeing"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **more: Any,
    ) -> ChatResult:
        self.shown.append(messages)
        texts = [block["text"] for block in messages[-1].content_blocks if block["type"] == "text"]
        return ChatResult(generations=[ChatGeneration(message=AIMessage(f"It is on {texts[1]}."))])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ColPaliVectorStore]:
    with ColPaliVectorStore(path=tmp_path_factory.mktemp("answers") / "index") as made:
        made.add_documents(PdfPageLoader(SLIDES, pages=[1, 4, 5, 12], dpi=100).load())
        made.add_pdf(FORM, pages=[1], dpi=100)
        yield made


def prompt(found: dict[str, Any]) -> list[BaseMessage]:
    blocks = image_blocks(found["pages"], captions=True)
    return [HumanMessage(content_blocks=[create_text_block(found["question"]), *blocks])]


def chain(retriever: Runnable[str, list[Document]], model: BaseChatModel) -> Runnable[str, str]:
    return {"pages": retriever, "question": RunnablePassthrough()} | RunnableLambda(prompt) | model | StrOutputParser()


def images(message: BaseMessage) -> list[Image.Image]:
    blocks: list[Any] = [block for block in message.content_blocks if block["type"] == "image"]
    assert {block["mime_type"] for block in blocks} == {"image/png"}
    return [Image.open(io.BytesIO(base64.b64decode(block["base64"]))) for block in blocks]


async def test_a_chat_model_is_shown_the_pages_that_answer(store: ColPaliVectorStore) -> None:
    model = Seeing()
    answer = chain(store.as_retriever(search_kwargs={"k": 2}), model)
    question = "application for the review of discharge from the armed forces"
    assert answer.invoke(question) == "It is on dd-form-293.pdf, page 1."
    [message] = model.shown[0]
    assert isinstance(message, HumanMessage)
    kinds = [block["type"] for block in message.content_blocks]
    assert kinds == ["text", "text", "image", "text", "image"]
    [first, _] = images(message)
    assert first.tobytes() == next(pdf_pages(FORM, pages=[1], dpi=100)).image.tobytes()
    assert await answer.ainvoke(question) == answer.invoke(question)


def test_with_a_reranker_between(store: ColPaliVectorStore) -> None:
    model = Seeing()
    reranker = ColPaliReranker(vectorstore=store, top_n=1)
    broad = store.as_retriever(search_kwargs={"k": 5})

    def best(question: str) -> list[Document]:
        return list(reranker.compress_documents(broad.invoke(question), question))

    question = "application for the review of discharge from the armed forces"
    assert chain(RunnableLambda(best), model).invoke(question) == "It is on dd-form-293.pdf, page 1."
    assert len(images(model.shown[0][0])) == 1


def test_many_questions_at_once(store: ColPaliVectorStore) -> None:
    answers = chain(store.as_retriever(search_kwargs={"k": 1}), Seeing()).batch(
        ["application for the review of discharge from the armed forces", "Metropolis, a modern beamer theme"]
    )
    assert answers == ["It is on dd-form-293.pdf, page 1.", "It is on metropolis-slides.pdf, page 1."]


def test_an_agent_s_tool_names_the_pages(store: ColPaliVectorStore) -> None:
    """What `create_retriever_tool` gives an agent, with and without the Documents themselves."""
    retriever = store.as_retriever(search_kwargs={"k": 1})
    tool = create_retriever_tool(retriever, "pages", "Finds pages.", response_format="content_and_artifact")
    call = {"name": "pages", "args": {"query": "a modern beamer theme"}, "id": "1", "type": "tool_call"}
    found = asyncio.run(tool.ainvoke(call))
    assert "Metropolis" in found.content
    assert [document.metadata["page"] for document in found.artifact] == [1]
    assert len(image_blocks(found.artifact)) == 1
