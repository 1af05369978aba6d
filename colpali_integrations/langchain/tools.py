"""`PageSearchTool`: an agent's search for pages, whose answer shows their texts and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any, Literal, TypeAlias

from langchain_core.callbacks import AsyncCallbackManagerForToolRun, CallbackManagerForToolRun
from langchain_core.documents import Document
from langchain_core.messages import BaseMessage, HumanMessage, ToolMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.tools import BaseTool, ToolException
from pydantic import BaseModel, Field, PrivateAttr

from colpali_integrations._options import checked_whole, unknown_option
from colpali_integrations.agents.documents import searched_documents
from colpali_integrations.agents.found import (
    DESCRIPTION,
    MAX_TEXT,
    NAME,
    PICTURES_FOLLOW,
    SEEMS_UNANSWERED,
    FoundPage,
    Images,
    Presentation,
    nothing_found,
)
from colpali_integrations.agents.pictures import BUDGET, PagePicture
from colpali_integrations.errors import ConfigurationError, InputError, QueryError
from colpali_integrations.langchain._documents import caption_of, has_picture
from colpali_integrations.langchain._searching import OPTION_GUESSES, FilterInput, search_options
from colpali_integrations.langchain.retrievers import ColPaliRetriever
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore, open_vectorstore
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.metadata import source_text
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.filters import DOCUMENT
from colpali_integrations.stores.hits import marked_doubtful

__all__ = ["PageSearchTool"]

_Content: TypeAlias = str | list[str | dict[str, Any]]
_GUESSES = {**OPTION_GUESSES, "max_bytes": "use budget=...", "search_kwargs": "pass store.as_retriever(...) instead"}


class _Question(BaseModel):
    """The arguments of a search over any retriever."""

    question: str = Field(description="A question, or the words to look for, in the language of the documents.")


class _Search(_Question):
    """The arguments of a search over our store."""

    document: str | None = Field(
        default=None, description='Search this document only: its file name, such as "report.pdf".'
    )


class PageSearchTool(BaseTool):
    """A tool by which an agent finds pages, and sees them.

    The `ToolMessage` has per page its name with the page number ("report.pdf, page 7"), its text and its picture; its
    `artifact` is the list of Documents. Where no page seems to answer the question, a text before them tells the
    agent. All pictures of an answer keep to `budget` bytes. A page that cannot be drawn has the reason in the place of
    its picture.

    Where the pictures are depends on the chat API. Anthropic's and OpenAI's Responses take pictures from a tool:
    `images="tool"`. OpenAI's Chat Completions, and the many servers that follow them, take only text from tools:
    `images="user"` and `show_pages`, which puts the pictures into a message of the user behind all answers of tools.

    An agent chooses the question, and may restrict it to one document. It cannot change `filter`, which holds for every
    search together with the retriever's own.

    Args:
        retriever: a `ColPaliRetriever`, a `ColPaliVectorStore`, a `MultiVectorStore`, the folder of one, or another
            retriever of pages, which then takes neither `k` nor `filter`.
        name: by which the agent calls the tool.
        description: tells the agent when to call it; name the documents here.
        images: "tool", "user" or False; see above.
        k: number of pages; None for the retriever's.
        filter: only pages that match it, as for `ColPaliVectorStore.similarity_search`.
        budget: bytes of all pictures of an answer, in base64.
        max_text: characters of the text of a page; 0 for none.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`: show files in these folders alone.
        **fields: of LangChain's tools, such as `return_direct`, `tags` and `extras`.

    Raises:
        StoreError: the folder has no store.
        ConfigurationError: an option is unknown or has an invalid value.
        InputError: the filter is invalid.

    Example:
        >>> from colpali_integrations.langchain import ColPaliVectorStore
        >>> store = ColPaliVectorStore(path="my-index")
        >>> tool = PageSearchTool(store, k=1)
        >>> call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"question": "diverging palettes"}}
        >>> message = tool.invoke(call)
        >>> [block["type"] for block in message.content], message.content[0]["text"].splitlines()[0]
        (['text', 'image'], 'report.pdf, page 1')
        >>> message.artifact[0].metadata["page"]
        1
        >>> store.close()
    """

    retriever: BaseRetriever
    k: int | None
    filter: Any

    # The tool's errors are those that the agent can mend; any other error is raised.
    handle_tool_error: Any = True
    response_format: Literal["content", "content_and_artifact"] = "content_and_artifact"

    _presentation: Presentation = PrivateAttr()

    def __init__(
        self,
        retriever: BaseRetriever | ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str],
        *,
        name: str = NAME,
        description: str = DESCRIPTION,
        images: Images = "tool",
        k: int | None = None,
        filter: FilterInput = None,
        budget: int = BUDGET,
        max_text: int = MAX_TEXT,
        password: str | None = None,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        roots: Roots = None,
        **fields: Any,
    ) -> None:
        if fields.keys() - BaseTool.model_fields:
            raise unknown_option(type(self).__name__, fields, [*BaseTool.model_fields, *_OPTIONS], _GUESSES)
        presentation = Presentation(
            images=images,
            budget=budget,
            max_text=max_text,
            access=PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots),
        )
        ours = _retriever(retriever)
        if not isinstance(ours, ColPaliRetriever) and (k is not None or filter is not None):
            raise ConfigurationError(
                f"k= and filter= are options of a ColPaliRetriever; set those of the {type(ours).__name__} itself"
            )
        if k is not None:
            checked_whole(k, "k")
        search_options({"filter": None if callable(filter) else filter})  # refuses an invalid one
        fields["args_schema"] = fields.get("args_schema") or (
            _Search if isinstance(ours, ColPaliRetriever) else _Question
        )
        super().__init__(
            retriever=ours,
            name=name,
            description=description,
            k=k,
            filter=filter,
            **fields,
        )
        self._presentation = presentation

    def show_pages(self, state: Any, runtime: Any = None) -> dict[str, list[BaseMessage]] | None:
        """Show the pictures of the pages that the last calls of this tool found, in a message of the user.

        For `images="user"`. In an agent of `create_agent` it is a middleware, `before_model(tool.show_pages)`; in a
        graph of LangGraph it is a node between the tools and the model. The message stands behind the answers of all
        tools that the model called together, as chat APIs require. Each page is in it once.

        Args:
            state: of the agent: a dict with "messages", or an object with `messages`.
            runtime: of the middleware; it has no effect.

        Returns:
            The update of the state, or None where the last messages are no answers of this tool with pages.

        Raises:
            ConfigurationError: the tool has other `images` than "user".

        Example:
            >>> from langchain_core.messages import AIMessage
            >>> tool = PageSearchTool("my-index", k=1, images="user")
            >>> call = {"type": "tool_call", "id": "1", "name": tool.name, "args": {"question": "diverging palettes"}}
            >>> messages = [AIMessage("", tool_calls=[call]), tool.invoke(call)]
            >>> [message] = tool.show_pages({"messages": messages})["messages"]
            >>> [block["type"] for block in message.content]
            ['text', 'text', 'image']
        """
        if self._presentation.images != "user":
            raise ConfigurationError(
                f"show_pages is for images='user', and this tool has images={self._presentation.images!r}"
            )
        messages = state["messages"] if isinstance(state, Mapping) else state.messages
        pages = [page for page in _found_pages(self._last_documents(messages)) if page.metadata is not None]
        if not pages:
            return None
        opening = {"type": "text", "text": f"The pictures of the pages that {self.name} found:"}
        return {"messages": [HumanMessage(content=[opening, *_blocks(self._presentation.captions(pages))])]}

    def _run(
        self, question: str, document: str | None = None, *, run_manager: CallbackManagerForToolRun | None = None
    ) -> tuple[_Content, list[Document]]:
        config: RunnableConfig = {"callbacks": run_manager.get_child()} if run_manager else {}
        options = self._options(document)
        try:
            documents = self.retriever.invoke(question, config, **options)
        except QueryError as error:
            raise ToolException(str(error)) from error
        return self._content(documents, document), documents

    async def _arun(
        self, question: str, document: str | None = None, *, run_manager: AsyncCallbackManagerForToolRun | None = None
    ) -> tuple[_Content, list[Document]]:
        config: RunnableConfig = {"callbacks": run_manager.get_child()} if run_manager else {}
        options = await offload(partial(self._options, document), "pages")
        try:
            documents = await self.retriever.ainvoke(question, config, **options)
        except QueryError as error:
            raise ToolException(str(error)) from error
        return await offload(partial(self._content, documents, document), "pages"), documents

    def _options(self, document: str | None) -> dict[str, Any]:
        """The options of the retriever for a call, which it combines with its own filter by AND.

        Raises:
            ToolException: there is no such document; the message has the closest names.
        """
        options: dict[str, Any] = {} if self.k is None else {"k": self.k}
        conditions: list[FilterInput] = [] if self.filter is None else [self.filter]
        if document is None and not conditions:
            return options
        assert isinstance(self.retriever, ColPaliRetriever)  # the constructor refuses the others
        store = self.retriever.vectorstore
        if document is not None:
            own = self.retriever.search_kwargs.get("filter")
            visible = store.parsed_filter(*conditions, *([] if own is None else [own]))
            try:
                ids = searched_documents(store.store, visible, document)
            except InputError as error:
                raise ToolException(str(error)) from error
            by_name = {"$or": [{"file_name": document}, {"source": document}]}
            conditions.append({DOCUMENT: {"$in": ids}} if ids else by_name)
        options["filter"] = store.parsed_filter(*conditions)
        return options

    def _content(self, documents: Sequence[Document], document: str | None) -> _Content:
        """The content of the `ToolMessage`: a text, or blocks of texts and pictures."""
        if not documents:
            return nothing_found(document)
        pages = _found_pages(documents)
        parts = self._presentation.parts(pages, pictures=self._presentation.images == "tool")
        if marked_doubtful(one.metadata for one in documents):
            parts.insert(0, (SEEMS_UNANSWERED, None))
        if any(picture for _, picture in parts):
            return _blocks(parts)
        texts = [text for text, _ in parts]
        if self._presentation.images == "user" and any(page.metadata is not None for page in pages):
            texts.append(PICTURES_FOLLOW)
        return "\n\n".join(texts)

    def _last_documents(self, messages: Sequence[BaseMessage]) -> list[Document]:
        """The Documents that this tool found in the calls behind which no other message stands, each once."""
        answers = list(takewhile(lambda message: isinstance(message, ToolMessage), reversed(messages)))
        ours = [one for one in reversed(answers) if one.name == self.name]
        artifacts = [one.artifact for one in ours if isinstance(one, ToolMessage) and isinstance(one.artifact, list)]
        documents = [_document(one) for artifact in artifacts for one in artifact]
        return list({one.id or id(one): one for one in documents if one is not None}.values())


_OPTIONS = (
    "retriever",
    "images",
    "k",
    "filter",
    "budget",
    "max_text",
    "password",
    "max_pixels",
    "image_formats",
    "roots",
)


def _retriever(
    retriever: BaseRetriever | ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str],
) -> BaseRetriever:
    if isinstance(retriever, BaseRetriever):
        return retriever
    if not isinstance(retriever, ColPaliVectorStore | MultiVectorStore | str | os.PathLike):
        raise ConfigurationError(
            "a PageSearchTool searches by a retriever, a ColPaliVectorStore, a MultiVectorStore or the folder of one, "
            f"got {type(retriever).__name__}"
        )
    return ColPaliRetriever(vectorstore=open_vectorstore(retriever))


def _document(found: object) -> Document | None:
    """A Document of an artifact, which is a dict once LangGraph has read the message from a checkpoint."""
    if isinstance(found, Mapping) and found.keys() >= {"page_content", "metadata"}:
        return Document(found["page_content"], id=found.get("id"), metadata=found["metadata"])
    return found if isinstance(found, Document) else None


def _found_pages(documents: Iterable[Document]) -> list[FoundPage]:
    return [_found_page(document, number) for number, document in enumerate(documents, 1)]


def _found_page(document: Document, number: int) -> FoundPage:
    if has_picture(document):
        return FoundPage(name=caption_of(document, number), text=document.page_content, metadata=document.metadata)
    named = bool(source_text(document.metadata))
    name = caption_of(document, number) if named else f"text {number}"
    return FoundPage(name=name, text=document.page_content)


def _blocks(parts: Iterable[tuple[str, PagePicture | None]]) -> list[str | dict[str, Any]]:
    # Without the ids that LangChain's own functions give blocks, because chat APIs refuse unknown keys in texts.
    blocks: list[str | dict[str, Any]] = []
    for text, picture in parts:
        blocks.append({"type": "text", "text": text})
        if picture is not None:
            blocks.append({"type": "image", "base64": picture.base64, "mime_type": picture.mime_type})
    return blocks
