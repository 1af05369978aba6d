"""An agent's search for pages: what its answers show, and what the LLM of an agent gets."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock, ToolCallBlock
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.schema import ImageNode, NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import ToolOutput
from llama_index.core.tools.calling import acall_tool, call_tool
from llama_index.core.vector_stores.types import FilterOperator, MetadataFilter, MetadataFilters
from PIL import Image

from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.llama_index import (
    ColPaliIndex,
    ColPaliRetriever,
    ColPaliVectorStore,
    PageAgent,
    PageSearchTool,
    PdfPageReader,
)
from tests.llama_index.suite import counting_store
from tests.stores.documents import DPI, draw, save_pdf

WORDS = ("violin", "mitochondria", "invoice")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pdf(tmp_path_factory.mktemp("tools") / "report.pdf", *(draw(word) for word in WORDS))


@pytest.fixture(scope="module")
def store(report: Path) -> ColPaliVectorStore:
    """A document of three pages for two tenants, and a text."""
    made = counting_store()
    for tenant in ("north", "south"):
        made.add(PdfPageReader(dpi=DPI, metadata={"tenant": tenant}).load_data(report))
    made.add([TextNode(text="Low tide is at six.", metadata={"tenant": "south"})])
    return made


def only(key: str, value: Any, operator: FilterOperator = FilterOperator.EQ) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


NORTH = only("tenant", "north")


def texts(blocks: Sequence[Any]) -> list[str]:
    return [block.text for block in blocks if isinstance(block, TextBlock)]


def pictures(blocks: Sequence[Any]) -> list[Image.Image]:
    several = [block for block in blocks if isinstance(block, ImageBlock)]
    decoded: list[Image.Image] = [Image.open(io.BytesIO(block.resolve_image().read())) for block in several]
    assert [f"image/{(image.format or '').lower()}" for image in decoded] == [one.image_mimetype for one in several]
    return decoded


# -- the answer -----------------------------------------------------------------------------------------------------


async def test_an_answer_has_name_number_text_and_picture_of_each_page(store: ColPaliVectorStore) -> None:
    tool = PageSearchTool(store, similarity_top_k=2, filters=NORTH)
    output = tool(question="mitochondria")
    assert [block.block_type for block in output.blocks] == ["text", "image"] * 2
    assert texts(output.blocks)[0] == "report.pdf, page 2"
    assert [image.size for image in pictures(output.blocks)] == [pytest.approx((1250, 536), abs=1)] * 2
    assert output.raw_output[0].metadata["page"] == 2
    again = await acall_tool(tool, {"question": "mitochondria"})
    assert again.blocks == call_tool(tool, {"question": "mitochondria"}).blocks == output.blocks
    assert not again.is_error


def test_without_pictures_the_answer_is_a_text(store: ColPaliVectorStore) -> None:
    index = ColPaliIndex.from_vector_store(store)
    silent = PageSearchTool(index.as_retriever(similarity_top_k=1), images=False)("invoice")
    assert (silent.content, len(silent.blocks)) == ("report.pdf, page 3", 1)
    with_text = PageSearchTool(store, images=False, max_text=8)("low tide at six")
    assert "text 1\nLow tide [11 more characters]" in texts(with_text.blocks)


def test_pictures_that_a_node_carries_are_shown(store: ColPaliVectorStore, tmp_path: Path) -> None:
    from tests.llama_index.test_indices import base64_of

    draw("railway").save(tmp_path / "train.png")
    carried = ImageNode(id_="carried", image=base64_of(tmp_path / "train.png"))
    linked = ImageNode(id_="linked", image_url="https://example.org/a.png", text="a")

    class Other(BaseRetriever):
        def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
            return [NodeWithScore(node=node) for node in (carried, linked)]

    output = PageSearchTool(Other())("anything")
    assert [image.size for image in pictures(output.blocks)] == [(700, 300)]
    assert texts(output.blocks)[0] == "ImageNode carried"
    assert texts(output.blocks)[1].endswith(
        "[no picture: the picture of ImageNode linked is at https://example.org/a.png, which is not fetched]"
    )
    for options in ({"similarity_top_k": 1}, {"filters": NORTH}):
        with pytest.raises(ConfigurationError, match="option of "):
            PageSearchTool(Other(), **options)


def test_a_page_that_cannot_be_drawn_has_the_reason(tmp_path: Path) -> None:
    path = save_pdf(tmp_path / "lost.pdf", draw("violin"))
    store = counting_store()
    store.add(PdfPageReader(dpi=DPI).load_data(path))
    path.unlink()
    [text] = texts(PageSearchTool(store)("violin").blocks)
    assert text.startswith("lost.pdf, page 1\n[no picture: cannot draw lost.pdf, page 1: no file at ")


# -- what the agent may do -------------------------------------------------------------------------------------------


def test_an_agent_cannot_leave_the_filter(store: ColPaliVectorStore, report: Path) -> None:
    """Whatever arguments it passes, with the filter on the tool or on its retriever."""
    attempts: list[dict[str, Any]] = [
        {},
        {"document": "report.pdf"},
        {"document": str(report)},
        {"filters": only("tenant", "south")},
        {"similarity_top_k": 99},
        {"document": {"operator": "!="}},
        {"document": "south"},
    ]
    restricted = ColPaliRetriever(store, filters=NORTH, similarity_top_k=9)
    narrower = PageSearchTool(restricted, filters=only("page", 1, FilterOperator.GTE), images=False)
    for tool in (PageSearchTool(store, filters=NORTH, similarity_top_k=9, images=False), narrower):
        for arguments in attempts:
            output = call_tool(tool, {"question": "violin", **arguments})
            found = [] if output.is_error else output.raw_output
            assert {one.metadata["tenant"] for one in found} <= {"north"}, arguments
    assert restricted.query.filters == NORTH, "the caller's retriever stays as it is"
    assert set(narrower.metadata.get_parameters_dict()["properties"]) == {"question", "document"}
    with pytest.raises(InputError, match="MetadataFilters"):
        PageSearchTool(store, filters={"tenant": "north"})  # type: ignore[arg-type]


def test_an_agent_may_choose_a_document(store: ColPaliVectorStore) -> None:
    south = only("tenant", "south")
    tool = PageSearchTool(store, filters=south, similarity_top_k=9, images=False)
    assert len(tool("violin").raw_output) == 4, "with the text"
    assert len(tool("violin", document="report.pdf").raw_output) == 3
    assert len(tool("violin", document="REPORT.pdf").raw_output) == 3, "as the agent writes it"
    nothing = tool("violin", document="repot.pdf")
    assert (nothing.raw_output, nothing.is_error) == ([], True)
    assert "the index has no document 'repot.pdf'; of its " in nothing.content
    assert "the closest are 'report.pdf'; leave document out to search all" in nothing.content
    hidden = PageSearchTool(store, filters=only("tenant", "no such"), images=False)
    assert "report.pdf" not in hidden("violin", document="repot.pdf").content.replace("repot.pdf", "")


async def test_an_agent_learns_the_names_without_blocking(store: ColPaliVectorStore) -> None:
    output = await PageSearchTool(store).acall("violin", document="repot.pdf")
    assert (output.is_error, "'report.pdf'" in output.content) == (True, True)


# -- agents ----------------------------------------------------------------------------------------------------------


def replies(*, got: list[list[ChatMessage]]) -> Callable[..., ChatMessage]:
    """Two searches at once, an answer, and so on; `got` keeps what the LLM gets."""

    def reply(messages: Sequence[ChatMessage], **options: Any) -> ChatMessage:
        got.append([message.model_copy(deep=True) for message in messages])
        if any(message.role == "tool" for message in messages):
            return ChatMessage(role="assistant", content="Pages 1 and 3.")
        arguments: list[dict[str, Any]] = [{"question": "violin"}, {"question": "invoice", "document": None}]
        blocks: list[Any] = [
            ToolCallBlock(tool_call_id=id_, tool_name="search_pages", tool_kwargs=one)
            for id_, one in zip("ab", arguments, strict=True)
        ]
        return ChatMessage(role="assistant", blocks=blocks)

    return reply


@pytest.mark.parametrize("streaming", [False, True])
async def test_an_agent_sees_the_pages(store: ColPaliVectorStore, streaming: bool) -> None:
    got: list[list[ChatMessage]] = []
    llm = MockFunctionCallingLLM(response_generator=replies(got=got))
    tool = PageSearchTool(store, similarity_top_k=1)
    agent = FunctionAgent(tools=[tool], llm=llm, streaming=streaming)
    assert str(await agent.run("Where are violin and invoice?")) == "Pages 1 and 3."
    answers = [message for message in got[-1] if message.role == "tool"]
    assert sorted(texts(one.blocks)[0] for one in answers) == ["report.pdf, page 1", "report.pdf, page 3"]
    assert [len(pictures(one.blocks)) for one in answers] == [1, 1]


@pytest.mark.parametrize("several", [False, True], ids=["alone", "in a workflow"])
@pytest.mark.parametrize("choice", [None, "search_pages"])
async def test_an_llm_that_takes_only_texts_of_tools_sees_them_too(
    store: ColPaliVectorStore, several: bool, choice: str | None
) -> None:
    got: list[list[ChatMessage]] = []
    llm = MockFunctionCallingLLM(response_generator=replies(got=got))
    tool = PageSearchTool(store, similarity_top_k=2, images="user", filters=NORTH)
    agent = PageAgent(name="reader", tools=[tool], llm=llm, streaming=False, initial_tool_choice=choice)
    runner: Any = AgentWorkflow(agents=[agent], root_agent="reader") if several else agent
    assert str(await runner.run(user_msg="Where are violin and invoice?")) == "Pages 1 and 3."
    assert [message.role for message in got[-1]] == ["user", "assistant", "tool", "tool", "user"]
    assert not any(pictures(message.blocks) for message in got[-1][:-1])
    shown = got[-1][-1].blocks
    names = texts(shown)[1:]
    assert len(names) == len(set(names)) == len(pictures(shown))
    assert {"report.pdf, page 1", "report.pdf, page 3"} <= set(names)


def test_a_workflow_of_one_s_own_shows_pages_by_a_message(store: ColPaliVectorStore) -> None:
    tool = PageSearchTool(store, similarity_top_k=1, images="user")
    output = tool("violin")
    assert not pictures(output.blocks)
    assert output.content.endswith("The pictures of these pages are in the user's next message.")
    message = tool.picture_message([output, output])
    assert message is not None
    assert (message.role, len(pictures(message.blocks))) == ("user", 1)
    others = [
        ToolOutput(content="42", tool_name="calculator", raw_input={}),
        ToolOutput("search_pages", "an error", raw_input={}, raw_output=output.raw_output, is_error=True),
    ]
    assert tool.picture_message(others) is None
    with pytest.raises(ConfigurationError, match="images='user'"):
        PageSearchTool(store).picture_message([output])
