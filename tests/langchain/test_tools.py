"""An agent's search for pages: what its answers show, and what the chat APIs get."""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatResult
from langchain_core.retrievers import BaseRetriever
from PIL import Image
from pydantic import PrivateAttr, TypeAdapter

from colpali_integrations import ColPali
from colpali_integrations.errors import ConfigurationError, InputError, StoreError
from colpali_integrations.langchain import ColPaliEmbeddings, ColPaliVectorStore, PageSearchTool
from tests.langchain.cases import word_pdf
from tests.stores.documents import draw, save_pdf

WORDS = ["violin", "mitochondria", "invoice"]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return word_pdf(tmp_path_factory.mktemp("tools") / "report.pdf")


@pytest.fixture(scope="module")
def store(report: Path, coltiny: ColPali) -> ColPaliVectorStore:
    """A document of three pages for two tenants, and a text."""
    made = ColPaliVectorStore(ColPaliEmbeddings())
    for tenant in ("north", "south"):
        made.add_pdf(report, metadata={"tenant": tenant})
    made.add_documents([Document("Low tide is at six.", metadata={"tenant": "south"})])
    return made


def call(question: str, id_: str = "1", **arguments: Any) -> dict[str, Any]:
    return {"type": "tool_call", "id": id_, "name": "search_pages", "args": {"question": question, **arguments}}


def answer(tool: PageSearchTool, question: str, id_: str = "1", **arguments: Any) -> ToolMessage:
    message = tool.invoke(call(question, id_, **arguments))
    assert isinstance(message, ToolMessage)
    return message


def pictures(content: Any) -> list[Image.Image]:
    """The pictures among blocks, decoded."""
    blocks = [block for block in content if block["type"] == "image"]
    decoded: list[Image.Image] = [Image.open(io.BytesIO(base64.b64decode(block["base64"]))) for block in blocks]
    assert [f"image/{(image.format or '').lower()}" for image in decoded] == [one["mime_type"] for one in blocks]
    return decoded


# -- the answer -----------------------------------------------------------------------------------------------------


async def test_an_answer_has_name_number_text_and_picture_of_each_page(store: ColPaliVectorStore) -> None:
    tool = PageSearchTool(store, k=2, filter={"tenant": "north"})
    message = answer(tool, "mitochondria")
    blocks: Any = message.content
    assert blocks[0]["text"].splitlines()[0] == "report.pdf, page 2"
    assert [block["type"] for block in blocks] == ["text", "image"] * 2
    assert [image.size for image in pictures(message.content)] == [pytest.approx((1250, 536), abs=1)] * 2
    assert message.artifact[0].metadata["page"] == 2
    again = await tool.ainvoke(call("mitochondria"))
    assert (again.content, again.artifact) == (message.content, message.artifact)


def test_a_text_layer_is_shown_up_to_a_length() -> None:
    page = Document("x" * 50, metadata={"source": "notes.txt"})
    store = ColPaliVectorStore.from_documents([page])
    assert answer(PageSearchTool(store), "x" * 50).content == f"notes.txt\n{'x' * 50}"
    assert answer(PageSearchTool(store, max_text=20), "x" * 50).content == f"notes.txt\n{'x' * 20} [30 more characters]"
    assert answer(PageSearchTool(store, max_text=0), "x" * 50).content == "notes.txt"


def test_without_pictures_the_answer_is_a_text(store: ColPaliVectorStore) -> None:
    silent = answer(PageSearchTool(store, images=False, k=1), "invoice")
    assert silent.content == "report.pdf, page 3"
    following = answer(PageSearchTool(store, images="user", k=1), "invoice")
    assert following.content == "report.pdf, page 3\n\nThe pictures of these pages are in the user's next message."
    assert following.artifact[0].metadata["page"] == 3


def test_pictures_keep_to_a_budget(store: ColPaliVectorStore) -> None:
    blocks = answer(PageSearchTool(store, k=3, budget=9_000, filter={"tenant": "north"}), "violin").content
    sizes = [len(block["base64"]) for block in blocks if isinstance(block, dict) and block["type"] == "image"]
    assert len(sizes) == 3
    assert sum(sizes) <= 9_000


def test_a_page_that_cannot_be_drawn_has_the_reason(tmp_path: Path) -> None:
    path = word_pdf(tmp_path / "lost.pdf", ["violin"])
    store = ColPaliVectorStore()
    store.add_pdf(path)
    path.unlink()
    content = answer(PageSearchTool(store), "violin").content
    assert isinstance(content, str)
    assert content.startswith("lost.pdf, page 1\n[no picture: cannot draw lost.pdf, page 1: no file at ")
    drawn = answer(PageSearchTool(store, roots=[tmp_path / "elsewhere"]), "violin").content
    assert "is in none of the folders" in str(drawn)


# -- what the agent may do -------------------------------------------------------------------------------------------


def test_an_agent_cannot_leave_the_filter(store: ColPaliVectorStore, report: Path) -> None:
    """Whatever arguments it passes, with the filter on the tool or on its retriever."""
    north = store.as_retriever(search_kwargs={"filter": {"tenant": "north"}})
    attempts: list[dict[str, Any]] = [
        {},
        {"document": "report.pdf"},
        {"document": str(report)},
        {"filter": {"tenant": "south"}},
        {"k": 99, "search_kwargs": {"filter": None}},
        {"document": {"$ne": ""}},
        {"document": '{"$or": [{"tenant": "south"}]}'},
    ]
    for tool in (
        PageSearchTool(store, filter={"tenant": "north"}),
        PageSearchTool(north, filter={"page": {"$gte": 1}}),
    ):
        for arguments in attempts:
            try:
                found = answer(tool, "violin", **arguments).artifact or []
            except ValueError:  # an argument of another type
                continue
            assert {one.metadata["tenant"] for one in found} <= {"north"}, arguments
    assert len(answer(PageSearchTool(north, k=9, filter={"page": 1}), "violin").artifact) == 1
    assert set(PageSearchTool(store).args) == {"question", "document"}


def test_an_agent_may_choose_a_document(store: ColPaliVectorStore, tmp_path: Path) -> None:
    south = lambda document: document.metadata.get("tenant") == "south"  # noqa: E731
    tool = PageSearchTool(store, k=9, filter=south, images=False)
    assert len(answer(tool, "violin").artifact) == 4, "with the text"
    assert len(answer(tool, "violin", document="report.pdf").artifact) == 3
    assert len(answer(tool, "violin", document="REPORT.pdf").artifact) == 3, "as the agent writes it"
    for document, names in (("repot.pdf", "the closest are 'report.pdf'"), ("other.odt", "report.pdf")):
        nothing = answer(tool, "violin", document=document)
        assert nothing.status == "error"
        assert f"the index has no document '{document}'; of its " in nothing.content
        assert names in nothing.content
        assert "leave document out to search all" in nothing.content
        assert "list_documents" not in nothing.content
    hidden = PageSearchTool(store, filter={"tenant": "no such"}, images=False)
    assert "report.pdf" not in str(answer(hidden, "violin", document="repot.pdf").content).replace("repot.pdf", "")


async def test_an_agent_learns_the_names_without_blocking(store: ColPaliVectorStore) -> None:
    message = await PageSearchTool(store).ainvoke(call("violin", document="repot.pdf"))
    assert (message.status, "'report.pdf'" in message.content) == ("error", True)


async def test_an_agent_learns_of_an_empty_question(store: ColPaliVectorStore) -> None:
    tool = PageSearchTool(store)
    for message in (answer(tool, " "), await tool.ainvoke(call(" "))):
        assert message.status == "error"
        assert "white space" in message.content


def test_wrong_options_are_refused(store: ColPaliVectorStore, tmp_path: Path) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"images": True}, "images must be 'tool', 'user' or False, got True"),
        ({"images": "none"}, "images must be"),
        ({"k": 0}, "k must be"),
        ({"budget": 0}, "budget must be"),
        ({"top_k": 3}, "k="),
        ({"filters": {}}, "filter="),
    ]
    for options, message in wrong:
        with pytest.raises(ConfigurationError, match=message):
            PageSearchTool(store, **options)
    with pytest.raises(InputError, match=r"\$near"):
        PageSearchTool(store, filter={"page": {"$near": 1}})
    with pytest.raises(StoreError):
        PageSearchTool(tmp_path / "missing")
    with pytest.raises(ConfigurationError, match="got dict"):
        PageSearchTool({})  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="images='user'"):
        PageSearchTool(store).show_pages({"messages": []})


def test_another_retriever_is_searched_by_the_question_alone(store: ColPaliVectorStore) -> None:
    class Other(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: Any) -> list[Document]:
            return store.similarity_search(query, k=1)

    tool = PageSearchTool(Other())
    assert set(tool.args) == {"question"}
    assert len(pictures(answer(tool, "invoice").content)) == 1
    for options in ({"k": 1}, {"filter": {"tenant": "north"}}):
        with pytest.raises(ConfigurationError, match="Other itself"):
            PageSearchTool(Other(), **options)


# -- pictures in a message of the user -------------------------------------------------------------------------------


def conversation(tool: PageSearchTool) -> list[BaseMessage]:
    """Two calls at once, and the answers in their order, as LangGraph has them."""
    calls = [call("violin", "a"), call("invoice", "b")]
    answers = [tool.invoke(one) for one in calls]
    return [HumanMessage("Compare them."), AIMessage("", tool_calls=calls), *answers]


def test_pictures_stand_behind_all_answers_once(store: ColPaliVectorStore) -> None:
    tool = PageSearchTool(store, images="user", k=2, filter={"tenant": "north"})
    messages = conversation(tool)
    update = tool.show_pages({"messages": messages})
    assert update is not None
    [shown] = update["messages"]
    assert isinstance(shown, HumanMessage)
    names = [block["text"] for block in shown.content if isinstance(block, dict) and block["type"] == "text"][1:]
    found = {f"report.pdf, page {one.metadata['page']}" for message in messages[2:] for one in message.artifact}  # type: ignore[attr-defined]
    assert set(names) == found
    assert len(names) == len(found) == len(pictures(shown.content))
    assert tool.show_pages({"messages": [*messages, shown]}) is None, "they are shown already"
    assert tool.show_pages({"messages": messages[:2]}) is None
    other = ToolMessage("42", tool_call_id="c", name="calculator")
    assert tool.show_pages({"messages": [*messages, other]}) == update
    assert tool.show_pages({"messages": [messages[1], other]}) is None


# -- the chat APIs ---------------------------------------------------------------------------------------------------


def test_openai_s_chat_completions_get_texts_of_tools_and_pictures_of_the_user(store: ColPaliVectorStore) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI(model="gpt-5", api_key="none")
    from openai.types.chat import (
        ChatCompletionContentPartImageParam,
        ChatCompletionContentPartTextParam,
        ChatCompletionToolMessageParam,
    )

    tool = PageSearchTool(store, images="user", k=2)
    messages = conversation(tool)
    update = tool.show_pages({"messages": messages})
    assert update is not None
    sent = chat._get_request_payload([*messages, *update["messages"]])["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "tool", "tool", "user"]
    assert [one["id"] for one in sent[1]["tool_calls"]] == [one["tool_call_id"] for one in sent[2:4]]
    for one in sent[2:4]:
        TypeAdapter(ChatCompletionToolMessageParam).validate_python(one)
        assert isinstance(one["content"], str)
    part = ChatCompletionContentPartTextParam | ChatCompletionContentPartImageParam
    parts = TypeAdapter(list[part]).validate_python(sent[4]["content"])
    assert parts == sent[4]["content"], "no keys that the API does not know"
    urls = [one["image_url"]["url"] for one in sent[4]["content"] if one["type"] == "image_url"]
    assert all(decoded(url).size[0] > 600 for url in urls)
    assert len(urls) == len({one.id for message in messages[2:] for one in message.artifact})  # type: ignore[attr-defined]


def test_openai_s_responses_get_pictures_of_tools(store: ColPaliVectorStore) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI(model="gpt-5", api_key="none", use_responses_api=True)
    from openai.types.responses import ResponseFunctionCallOutputItemListParam

    messages = conversation(PageSearchTool(store, k=1))
    sent = chat._get_request_payload(messages)["input"]
    assert [one.get("type") for one in sent[-4:]] == ["function_call"] * 2 + ["function_call_output"] * 2
    for item, message in zip(sent[-2:], messages[2:], strict=True):
        output = TypeAdapter(ResponseFunctionCallOutputItemListParam).validate_python(item["output"])
        assert output == item["output"]
        text, image = item["output"]
        assert text == {"type": "input_text", "text": message.content[0]["text"]}  # type: ignore[index]
        assert decoded(image["image_url"]).size == pictures(message.content)[0].size


@pytest.mark.parametrize("images", ["tool", "user"])
def test_anthropic_gets_pictures_behind_the_results_of_tools(store: ColPaliVectorStore, images: Any) -> None:
    chat = pytest.importorskip("langchain_anthropic").ChatAnthropic(model="claude-sonnet-4-5", api_key="none")
    from anthropic.types import ImageBlockParam, TextBlockParam

    tool = PageSearchTool(store, images=images, k=1)
    messages = conversation(tool)
    if images == "user":
        messages += (tool.show_pages({"messages": messages}) or {})["messages"]
    sent = chat._get_request_payload(messages)["messages"]
    assert [one["role"] for one in sent] == ["user", "assistant", "user"]
    results = [one for one in sent[2]["content"] if one["type"] == "tool_result"]
    assert [one["tool_use_id"] for one in results] == ["a", "b"]
    assert sent[2]["content"][:2] == results, "the API refuses anything before them"
    found: list[Any] = sent[2]["content"][2:]
    if images == "tool":
        assert not found
        found = [block for result in results for block in result["content"]]
    for block in found:
        kind: Any = ImageBlockParam if block["type"] == "image" else TextBlockParam
        assert TypeAdapter(kind).validate_python(block) == block
    sources = [block["source"] for block in found if block["type"] == "image"]
    assert len(sources) == 2
    for source in sources:
        assert decoded(f"data:{source['media_type']};base64,{source['data']}").size[0] > 600


def decoded(url: str) -> Image.Image:
    head, _, data = url.partition(";base64,")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{(image.format or '').lower()}"
    return image


# -- agents ----------------------------------------------------------------------------------------------------------


class Reader(GenericFakeChatModel):
    """Replies with its messages, and keeps what it got."""

    _got: list[list[BaseMessage]] = PrivateAttr(default_factory=list)

    def bind_tools(self, tools: Sequence[Any], **options: Any) -> Reader:
        return self

    def _generate(self, messages: list[BaseMessage], *further: Any, **options: Any) -> ChatResult:
        self._got.append(messages)
        return super()._generate(messages, *further, **options)


@pytest.mark.parametrize("images", ["tool", "user", False])
async def test_an_agent_sees_the_pages(store: ColPaliVectorStore, images: Any) -> None:
    agents = pytest.importorskip("langchain.agents")
    from langchain.agents.middleware import before_model

    tool = PageSearchTool(store, images=images, k=1)
    calls: list[Any] = [call("violin", "a"), call("invoice", "b")]
    model = Reader(messages=iter([AIMessage("", tool_calls=calls), AIMessage("Pages 1 and 3.")] * 2))
    middleware = [before_model(tool.show_pages)] if images == "user" else []
    agent = agents.create_agent(model, [tool], middleware=middleware)
    asked: Any = {"messages": [HumanMessage("Where are violin and invoice?")]}
    for result in (agent.invoke(asked), await agent.ainvoke(asked)):
        assert result["messages"][-1].content == "Pages 1 and 3."
        got = model._got[-1]
        kinds = ["human", "ai", "tool", "tool", *(["human"] if images == "user" else [])]
        assert [message.type for message in got] == kinds
        assert [message.tool_call_id for message in got[2:4]] == ["a", "b"]  # type: ignore[attr-defined]
        texts = [str(message.content) for message in got[2:4]]
        assert ["page 1" in texts[0], "page 3" in texts[1]] == [True, True]
        blocks = [block for message in got[2:] for block in message.content if isinstance(block, dict)]
        assert len(pictures(blocks)) == (2 if images else 0)


def test_a_graph_shows_pages_by_a_node(store: ColPaliVectorStore) -> None:
    graphs = pytest.importorskip("langgraph.graph")
    from langgraph.prebuilt import ToolNode

    tool = PageSearchTool(store, images="user", k=1)
    graph = graphs.StateGraph(graphs.MessagesState)
    graph.add_node("tools", ToolNode([tool]))
    graph.add_node("pages", tool.show_pages)
    graph.add_edge(graphs.START, "tools")
    graph.add_edge("tools", "pages")
    calls: list[Any] = [call("violin", "a"), call("", "b")]
    result = graph.compile().invoke({"messages": [AIMessage("", tool_calls=calls)]})
    _, found, failed, shown = result["messages"]
    assert (found.status, failed.status) == ("success", "error")
    assert len(pictures(shown.content)) == 1


def test_pages_are_shown_after_a_checkpoint(store: ColPaliVectorStore) -> None:
    serde = pytest.importorskip("langgraph.checkpoint.serde.jsonplus").JsonPlusSerializer()
    tool = PageSearchTool(store, images="user", k=1)
    messages = conversation(tool)
    read = serde.loads_typed(serde.dumps_typed(messages))
    assert tool.show_pages({"messages": read}) == tool.show_pages({"messages": messages}) is not None


def test_a_tool_can_be_pickled(tmp_path: Path, report: Path) -> None:
    with ColPaliVectorStore(path=tmp_path / "index") as store:
        store.add_pdf(report)
        tool = PageSearchTool(store, k=1, filter={"page": 1}, budget=9_000, images=False)
        again = pickle.loads(pickle.dumps(tool))
        assert answer(again, "violin").content == answer(tool, "violin").content == "report.pdf, page 1"
        again.retriever.vectorstore.close()


def test_an_image_file_is_a_page(tmp_path: Path) -> None:
    store = ColPaliVectorStore()
    draw("violin").save(tmp_path / "scan.png")
    save_pdf(tmp_path / "other.pdf", draw("invoice"))
    store.add_pdf(tmp_path)
    message = answer(PageSearchTool(store, k=1), "violin")
    assert [image.size for image in pictures(message.content)] == [(700, 300)]
    assert message.content[0]["text"] == "scan.png, page 1"  # type: ignore[index]
