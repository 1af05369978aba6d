"""`PageSearchTool`: an agent's search for pages, whose answer shows their texts and pictures."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.base.llms.types import ChatMessage, ContentBlock, ImageBlock, MessageRole, TextBlock
from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore
from llama_index.core.tools.types import AsyncBaseTool, ToolMetadata, ToolOutput
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters

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
from colpali_integrations.errors import ColPaliError, ConfigurationError, InputError
from colpali_integrations.llama_index._pictures import image_label, picture_metadata
from colpali_integrations.llama_index._queries import query_filter
from colpali_integrations.llama_index.retrievers import ColPaliRetriever
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.pages.access import PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS
from colpali_integrations.pages.metadata import source_text
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.hits import marked_doubtful

__all__ = ["PageSearchTool"]


class _Question(BaseModel):
    """The arguments of a search over any retriever."""

    question: str = Field(description="A question, or the words to look for, in the language of the documents.")


class _Search(_Question):
    """The arguments of a search over our store."""

    document: str | None = Field(
        default=None, description='Search this document only: its file name, such as "report.pdf".'
    )


class PageSearchTool(AsyncBaseTool):
    """A tool by which an agent finds pages, and sees them.

    The blocks of the `ToolOutput` are per page its name with the page number ("report.pdf, page 7") and its text, and
    its picture; its `raw_output` is the list of nodes with their scores. Where no page seems to answer the question, a
    text before them tells the agent. All pictures of an answer keep to `budget` bytes. A page that cannot be drawn has
    the reason in the place of its picture.

    LlamaIndex passes the blocks on to the class of the LLM, and some of these drop pictures from the answers of tools,
    such as `OpenAI` of llama-index-llms-openai. For them there is `images="user"`: `PageAgent` puts the pictures into a
    message of the user behind all answers of tools, and a workflow of your own does so by `picture_message`.

    An agent chooses the question, and may restrict it to one document. It cannot change `filters`, which hold for every
    search together with the retriever's own.

    Args:
        retriever: a `ColPaliRetriever`, a `ColPaliVectorStore`, an index over one, a `MultiVectorStore`, the folder of
            one, or another retriever, which then takes no `filters`.
        name: by which the agent calls the tool.
        description: tells the agent when to call it; name the documents here.
        images: "tool", "user" or False; see above.
        similarity_top_k: number of pages; None for the retriever's. Only a retriever that this class makes takes it.
        filters: only nodes that match them.
        budget: bytes of all pictures of an answer, in base64.
        max_text: characters of the text of a page; 0 for none.
        password: for encrypted PDFs.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        roots: as for `pages.page_image`: show files in these folders alone.
        return_direct: whether the agent ends with the tool's answer, as for LlamaIndex's tools.

    Raises:
        StoreError: the folder has no store.
        ConfigurationError: an option has an invalid value.
        InputError: the filters are invalid.

    Example:
        >>> from colpali_integrations.llama_index import ColPaliVectorStore
        >>> store = ColPaliVectorStore(path="my-index")
        >>> output = PageSearchTool(store, similarity_top_k=1)("diverging palettes")
        >>> [block.block_type for block in output.blocks], output.blocks[0].text.splitlines()[0]
        (['text', 'image'], 'report.pdf, page 1')
        >>> output.raw_output[0].metadata["page"]
        1
        >>> store.close()
    """

    def __init__(
        self,
        retriever: BaseRetriever | ColPaliVectorStore | VectorStoreIndex | MultiVectorStore | str | os.PathLike[str],
        *,
        name: str = NAME,
        description: str = DESCRIPTION,
        images: Images = "tool",
        similarity_top_k: int | None = None,
        filters: MetadataFilters | None = None,
        budget: int = BUDGET,
        max_text: int = MAX_TEXT,
        password: str | None = None,
        max_pixels: int = MAX_PIXELS,
        image_formats: Iterable[str] = (),
        roots: Roots = None,
        return_direct: bool = False,
    ) -> None:
        self._presentation = Presentation(
            images=images,
            budget=budget,
            max_text=max_text,
            access=PageAccess.of(password=password, max_pixels=max_pixels, image_formats=image_formats, roots=roots),
        )
        self.retriever = _retriever(retriever, similarity_top_k, filters)
        schema = _Search if isinstance(self.retriever, ColPaliRetriever) else _Question
        self._metadata = ToolMetadata(description, name, schema, return_direct)

    @property
    def metadata(self) -> ToolMetadata:
        """Name, description and arguments of the tool."""
        return self._metadata

    @property
    def shows_pictures_later(self) -> bool:
        """Whether the pictures belong into a message of the user, `images="user"`."""
        return self._presentation.images == "user"

    def call(self, question: str, document: str | None = None) -> ToolOutput:
        """Find pages.

        Args:
            question: of the agent.
            document: search this document only: its file name, path or id. For another one the answer, which then has
                `is_error`, names the closest.

        Raises:
            QueryError: the question is empty. LlamaIndex's agents show it to the LLM.
        """
        try:
            retriever = self._narrowed(document)
        except InputError as error:
            return self._refused(error, question, document)
        return self._output(retriever.retrieve(question), question, document)

    async def acall(self, question: str, document: str | None = None) -> ToolOutput:
        """`call` without blocking the event loop."""
        try:
            retriever = await offload(partial(self._narrowed, document), "pages")
        except InputError as error:
            return self._refused(error, question, document)
        found = await retriever.aretrieve(question)
        return await offload(partial(self._output, found, question, document), "pages")

    def picture_message(self, outputs: Iterable[ToolOutput]) -> ChatMessage | None:
        """Show the pictures of the pages that calls of this tool found, in a message of the user.

        For `images="user"`. The message belongs behind the answers of all tools that the LLM called together, as chat
        APIs require. Each page is in it once. Outputs of other tools are passed over.

        Args:
            outputs: of tools.

        Returns:
            The message; None without pages.

        Raises:
            ConfigurationError: the tool has other `images` than "user".

        Example:
            >>> tool = PageSearchTool("my-index", similarity_top_k=1, images="user")
            >>> output = tool("diverging palettes")
            >>> [block.block_type for block in output.blocks]
            ['text', 'text']
            >>> [block.block_type for block in tool.picture_message([output]).blocks]
            ['text', 'text', 'image']
        """
        if self._presentation.images != "user":
            raise ConfigurationError(
                f"picture_message is for images='user', and this tool has images={self._presentation.images!r}"
            )
        ours = [output for output in outputs if output.tool_name == self.metadata.name and not output.is_error]
        nodes = {one.node.node_id: one for output in ours for one in _nodes(output.raw_output)}
        pages = [page for page in self._pages(list(nodes.values())) if page.metadata is not None or page.problem]
        if not pages:
            return None
        opening = TextBlock(text=f"The pictures of the pages that {self.metadata.name} found:")
        blocks = [opening, *_blocks(self._presentation.captions(pages))]
        return ChatMessage(role=MessageRole.USER, blocks=blocks)

    def _narrowed(self, document: str | None) -> BaseRetriever:
        if document is None:
            return self.retriever
        assert isinstance(self.retriever, ColPaliRetriever)  # the others' arguments have no document
        store = self.retriever.vector_store
        ids = searched_documents(store.client, query_filter(self.retriever.query, store.client.scroll), document)
        either: list[Any] = [MetadataFilter(key="doc_id", value=ids, operator=FilterOperator.IN)]
        if not ids:  # texts of no document
            either = [MetadataFilter(key=key, value=document) for key in ("file_name", "source")]
        return self.retriever.narrowed(MetadataFilters(filters=either, condition=FilterCondition.OR))

    def _refused(self, error: InputError, question: str, document: str | None) -> ToolOutput:
        """The answer for a document that there is not: it has the names of others."""
        return ToolOutput(
            tool_name=self.metadata.get_name(),
            blocks=[TextBlock(text=str(error))],
            raw_input={"question": question, "document": document},
            raw_output=list[NodeWithScore](),
            is_error=True,
        )

    def _output(self, found: list[NodeWithScore], question: str, document: str | None) -> ToolOutput:
        images, pages = self._presentation.images, self._pages(found)
        blocks = _blocks(self._presentation.parts(pages, pictures=images == "tool"))
        if marked_doubtful(one.node.metadata for one in found):
            blocks.insert(0, TextBlock(text=SEEMS_UNANSWERED))
        if not pages:
            blocks.append(TextBlock(text=nothing_found(document)))
        elif images == "user" and any(page.metadata is not None for page in pages):
            blocks.append(TextBlock(text=PICTURES_FOLLOW))
        return ToolOutput(
            tool_name=self.metadata.get_name(),
            blocks=blocks,
            raw_input={"question": question, "document": document},
            raw_output=found,
        )

    def _pages(self, found: Sequence[NodeWithScore]) -> list[FoundPage]:
        return [self._page(result.node, number) for number, result in enumerate(found, 1)]

    def _page(self, node: BaseNode, number: int) -> FoundPage:
        text = node.get_content(MetadataMode.NONE)
        try:
            metadata, problem = picture_metadata(node, self._presentation.access), ""
        except ColPaliError as error:
            metadata, problem = None, str(error)
        is_text = metadata is None and not problem
        source = source_text(node.metadata) or node.metadata.get("file_name")
        name = (str(source) if source else f"text {number}") if is_text else image_label(node)
        return FoundPage(name=name, text=text, metadata=metadata, problem=problem)


def _retriever(
    retriever: BaseRetriever | ColPaliVectorStore | VectorStoreIndex | MultiVectorStore | str | os.PathLike[str],
    similarity_top_k: int | None,
    filters: MetadataFilters | None,
) -> BaseRetriever:
    if not isinstance(retriever, BaseRetriever):
        options: dict[str, Any] = {} if similarity_top_k is None else {"similarity_top_k": similarity_top_k}
        retriever = ColPaliRetriever(retriever, **options)
    elif similarity_top_k is not None:
        raise ConfigurationError("similarity_top_k= is an option of the retriever; set it there")
    if filters is None:
        return retriever
    if not isinstance(retriever, ColPaliRetriever):
        raise ConfigurationError(
            f"filters= is an option of a ColPaliRetriever; set that of the {type(retriever).__name__} itself"
        )
    return retriever.narrowed(filters)


def _nodes(found: object) -> list[NodeWithScore]:
    return [one for one in found if isinstance(one, NodeWithScore)] if isinstance(found, list) else []


def _blocks(parts: Iterable[tuple[str, PagePicture | None]]) -> list[ContentBlock]:
    blocks: list[ContentBlock] = []
    for text, picture in parts:
        blocks.append(TextBlock(text=text))
        if picture is not None:
            blocks.append(ImageBlock(image=picture.content, image_mimetype=picture.mime_type))
    return blocks
