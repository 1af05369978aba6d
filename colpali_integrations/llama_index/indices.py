"""`ColPaliIndex`: LlamaIndex's `VectorStoreIndex` for a store that encodes by itself and keeps pages whole."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    MetadataMode,
    NodeRelationship,
    TextNode,
    TransformComponent,
)
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.utils import iter_batch

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index._components import StrictComponent
from colpali_integrations.llama_index.retrievers import ColPaliRetriever, option_names
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore

__all__ = ["ColPaliIndex", "DeferredEmbedding"]


class DeferredEmbedding(StrictComponent, BaseEmbedding):
    """Tells `VectorStoreIndex` and `IngestionPipeline` that the vector store will encode.

    Both want an embedding model: the one resolves OpenAI's without it, the other drops nodes without an embedding. A
    `ColPaliVectorStore` encodes nodes by itself, and whatever was embedded before would be thrown away. This gives
    every node the embedding `[0.0]`, at no cost; asked to embed a question, for a store that would compare it, it
    refuses.

    Example:
        >>> DeferredEmbedding().get_text_embedding("low tide")
        [0.0]
    """

    model_name: str = "deferred to ColPaliVectorStore"
    embed_batch_size: int = 2048

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "DeferredEmbedding"

    def _get_text_embedding(self, text: str) -> Embedding:
        return [0.0]

    async def _aget_text_embedding(self, text: str) -> Embedding:
        return [0.0]

    def _get_query_embedding(self, query: str) -> Embedding:
        raise ConfigurationError(
            "a DeferredEmbedding embeds no questions: it belongs to a ColPaliVectorStore, which encodes them itself. "
            "For another vector store use ColPaliEmbedding"
        )

    async def _aget_query_embedding(self, query: str) -> Embedding:
        return self._get_query_embedding(query)

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """Mark the nodes as embedded; without looking at them, for a page's text may be empty."""
        for node in nodes:
            node.embedding = [0.0]
        return nodes

    async def acall(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """`__call__`, which has nothing to wait for."""
        return self(nodes, **kwargs)


class _Whole(TransformComponent):
    """Makes one node of each document: without any transformation LlamaIndex takes its default splitter."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        return [_node(one) if isinstance(one, Document) else one for one in nodes]


def _node(document: Document) -> BaseNode:
    """What a splitter would make of it, in one piece. The id stays, so that a changed document replaces itself."""
    fields: dict[str, Any] = {
        "id_": document.id_,
        "text": document.get_content(MetadataMode.NONE),
        "metadata": dict(document.metadata),
        "excluded_embed_metadata_keys": list(document.excluded_embed_metadata_keys),
        "excluded_llm_metadata_keys": list(document.excluded_llm_metadata_keys),
        "metadata_separator": document.metadata_separator,
        "metadata_template": document.metadata_template,
        "text_template": document.text_template,
        "relationships": {**document.relationships, NodeRelationship.SOURCE: document.as_related_node_info()},
    }
    resource = document.image_resource
    if resource is None:
        return TextNode(**fields)
    return ImageNode(
        **fields,
        image=bytes(resource.data).decode("ascii") if resource.data else None,  # base64 already
        image_path=None if resource.path is None else str(resource.path),
        image_url=None if resource.url is None else str(resource.url),
        image_mimetype=resource.mimetype,
    )


class ColPaliIndex(VectorStoreIndex):
    """A `VectorStoreIndex` over a `ColPaliVectorStore` that needs no embedding model and no splitter.

    `VectorStoreIndex` itself works with `embed_model=DeferredEmbedding()` and `transformations=[DeferredEmbedding()]`.
    Left to itself it looks for OpenAI, splits the text of a page away from its picture, drops pictures without text,
    and after `insert` of a page finds the inserted pages only. This does none of that. Query engines, insert, refresh
    and delete are `VectorStoreIndex`'s own; `as_retriever()` gives a `ColPaliRetriever`:

        index = ColPaliIndex.from_vector_store(store)
        index.as_query_engine(llm=llm, multimodal=True, similarity_top_k=3).query("revenue by region")

    A document becomes one node: hand over chunks of long texts, or pass `transformations`.

    Args:
        nodes: to be added.
        storage_context: with a `ColPaliVectorStore`; None for one in memory.
        kwargs: as for `VectorStoreIndex`.

    Raises:
        ConfigurationError: another vector store.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> index = ColPaliIndex([TextNode(text="low tide in the harbour"), TextNode(text="tax return")])
        >>> index.as_retriever(similarity_top_k=1).retrieve("harbour")[0].text
        'low tide in the harbour'
    """

    def __init__(
        self, nodes: Sequence[BaseNode] | None = None, storage_context: StorageContext | None = None, **kwargs: Any
    ) -> None:
        storage_context = storage_context or StorageContext.from_defaults(vector_store=ColPaliVectorStore())
        if not isinstance(storage_context.vector_store, ColPaliVectorStore):
            found = type(storage_context.vector_store).__name__
            raise ConfigurationError(f"a ColPaliIndex is over a ColPaliVectorStore, got {found}")
        if kwargs.get("embed_model") is None:
            kwargs["embed_model"] = DeferredEmbedding()
        if not kwargs.get("transformations"):
            kwargs["transformations"] = [_Whole()]
        if nodes is None and kwargs.get("index_struct") is None:
            nodes = []
        super().__init__(nodes=nodes, storage_context=storage_context, **kwargs)

    @classmethod
    def from_documents(  # type: ignore[override]  # pages are nodes
        cls, documents: Sequence[BaseNode], storage_context: StorageContext | None = None, **kwargs: Any
    ) -> ColPaliIndex:
        """An index of the pages of `PdfPageReader` (or of other documents), whose hashes `refresh_ref_docs` looks at.

        Args:
            documents: kept whole, unless `transformations` say otherwise.
            storage_context: as for the class.
            kwargs: as for `VectorStoreIndex.from_documents`.
        """
        kwargs["transformations"] = kwargs.get("transformations") or [_Whole()]
        return super().from_documents(
            documents,  # type: ignore[arg-type]
            storage_context=storage_context or StorageContext.from_defaults(vector_store=ColPaliVectorStore()),
            **kwargs,
        )

    def as_retriever(self, **kwargs: Any) -> ColPaliRetriever:
        """A retriever over the whole vector store.

        Args:
            kwargs: options of `ColPaliRetriever`. Arguments of LlamaIndex's engines, which `as_query_engine` and
                `as_chat_engine` pass too, are ignored.

        Raises:
            ConfigurationError: an unknown option, or an invalid value.
        """
        own = {"callback_manager": self._callback_manager, "object_map": self._object_map, **kwargs}
        others = _engine_options() - option_names()
        return ColPaliRetriever(self, **{name: value for name, value in own.items() if name not in others})

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> IndexDict:
        """Add nodes, those with a picture and no text too."""
        return self._build_index_from_nodes(nodes, **insert_kwargs)

    # `VectorStoreIndex` embeds here, and then keeps pictures in the document store too, from where it fetches them in
    # place of what the vector store found. The store has it all.

    def _add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        for batch in iter_batch(nodes, self._insert_batch_size):
            self._vector_store.add(batch, show_progress=show_progress, **insert_kwargs)

    async def _async_add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        for batch in iter_batch(nodes, self._insert_batch_size):
            await self._vector_store.async_add(batch, show_progress=show_progress, **insert_kwargs)


@cache
def _engine_options() -> frozenset[str]:
    """The arguments of LlamaIndex's engines."""
    makers = (
        RetrieverQueryEngine.from_args,
        CondenseQuestionChatEngine.from_defaults,
        ContextChatEngine.from_defaults,
        CondensePlusContextChatEngine.from_defaults,
        SimpleChatEngine.from_defaults,
    )
    return frozenset(name for maker in makers for name in inspect.signature(maker).parameters)
