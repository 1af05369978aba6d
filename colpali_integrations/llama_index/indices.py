"""`ColPaliIndex`: LlamaIndex's `VectorStoreIndex` for a store that encodes pages itself and keeps them whole."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cache
from typing import Any

from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.data_structs.data_structs import IndexDict
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import BaseNode
from llama_index.core.storage.storage_context import StorageContext
from llama_index.core.utils import iter_batch

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index.embeddings import DeferredEmbedding
from colpali_integrations.llama_index.ingestion import WholeDocuments
from colpali_integrations.llama_index.retrievers import ColPaliRetriever, option_names
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore

__all__ = ["ColPaliIndex"]


class ColPaliIndex(VectorStoreIndex):
    """A `VectorStoreIndex` over a `ColPaliVectorStore` that needs no embedding model and no splitter.

    A plain `VectorStoreIndex` looks for OpenAI's embedding model, splits the text of a page away from its picture,
    drops pictures without text, and after `insert` of a page finds the inserted pages only. It works for a filled store
    with `embed_model=store.deferred_embedding`. `ColPaliIndex` does none of that. Query engines, insert, refresh and
    delete are `VectorStoreIndex`'s own; `as_retriever()` gives a `ColPaliRetriever`:

        index = ColPaliIndex.from_vector_store(store)
        index.as_query_engine(llm=llm, multimodal=True, similarity_top_k=3).query("revenue by region")

    A document becomes one node: pass chunks of long texts, or `transformations`.

    Args:
        nodes: to be added.
        storage_context: with a `ColPaliVectorStore`; None for one in memory.
        vector_store: the store, instead of `storage_context`.
        kwargs: as for `VectorStoreIndex`.

    Raises:
        ConfigurationError: the vector store is of another class.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> index = ColPaliIndex([TextNode(text="low tide in the harbour"), TextNode(text="tax return")])
        >>> index.as_retriever(similarity_top_k=1).retrieve("harbour")[0].text
        'low tide in the harbour'
    """

    def __init__(
        self,
        nodes: Sequence[BaseNode] | None = None,
        storage_context: StorageContext | None = None,
        *,
        vector_store: ColPaliVectorStore | None = None,
        **kwargs: Any,
    ) -> None:
        if isinstance(nodes, ColPaliVectorStore):
            raise ConfigurationError(
                "the first argument is nodes; for a store use ColPaliIndex.from_vector_store(store)"
            )
        context = _context(storage_context, vector_store)
        kwargs["embed_model"] = kwargs.get("embed_model") or DeferredEmbedding()
        kwargs["transformations"] = kwargs.get("transformations") or [WholeDocuments()]
        if nodes is None and kwargs.get("index_struct") is None:
            nodes = []
        super().__init__(nodes=nodes, storage_context=context, **kwargs)

    @classmethod
    def from_documents(  # type: ignore[override]  # pages are nodes
        cls,
        documents: Sequence[BaseNode],
        storage_context: StorageContext | None = None,
        *,
        vector_store: ColPaliVectorStore | None = None,
        **kwargs: Any,
    ) -> ColPaliIndex:
        """Make an index of the pages of `PdfPageReader` (or of other documents), which `refresh_ref_docs` recognises.

        Args:
            documents: kept whole, unless `transformations` split them.
            storage_context: as for the class.
            vector_store: as for the class.
            kwargs: as for `VectorStoreIndex.from_documents`.
        """
        kwargs["transformations"] = kwargs.get("transformations") or [WholeDocuments()]
        context = _context(storage_context, vector_store)
        return super().from_documents(documents, storage_context=context, **kwargs)  # type: ignore[arg-type]

    def as_retriever(self, **kwargs: Any) -> ColPaliRetriever:
        """Make a retriever over the whole vector store.

        Args:
            kwargs: options of `ColPaliRetriever`. Arguments of LlamaIndex's engines, which `as_query_engine` and
                `as_chat_engine` pass too, are ignored.

        Raises:
            ConfigurationError: an option is unknown or has an invalid value.
        """
        options = {"callback_manager": self._callback_manager, "object_map": self._object_map, **kwargs}
        ignored = _engine_options() - option_names()
        return ColPaliRetriever(self, **{name: value for name, value in options.items() if name not in ignored})

    def build_index_from_nodes(self, nodes: Sequence[BaseNode], **insert_kwargs: Any) -> IndexDict:
        """Add nodes, those with a picture and no text too."""
        return self._build_index_from_nodes(nodes, **insert_kwargs)

    # `VectorStoreIndex` embeds the nodes here, and stores pictures in the document store too, whose copies then replace
    # the nodes that the vector store returns. The vector store holds all that is needed.

    def _add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        for batch in iter_batch(nodes, self._insert_batch_size):
            self._vector_store.add(batch, progress=show_progress, **insert_kwargs)

    async def _async_add_nodes_to_index(
        self, index_struct: IndexDict, nodes: Sequence[BaseNode], show_progress: bool = False, **insert_kwargs: Any
    ) -> None:
        for batch in iter_batch(nodes, self._insert_batch_size):
            await self._vector_store.async_add(batch, progress=show_progress, **insert_kwargs)


def _context(storage_context: StorageContext | None, vector_store: ColPaliVectorStore | None) -> StorageContext:
    """A storage context over a `ColPaliVectorStore`.

    Raises:
        ConfigurationError: the caller passes both, or the vector store is of another class.
    """
    if storage_context is None:
        return StorageContext.from_defaults(vector_store=vector_store or ColPaliVectorStore())
    if vector_store is not None:
        raise ConfigurationError("pass storage_context= or vector_store=, not both")
    if not isinstance(storage_context.vector_store, ColPaliVectorStore):
        name = type(storage_context.vector_store).__name__
        raise ConfigurationError(f"a ColPaliIndex needs a ColPaliVectorStore, got {name}")
    return storage_context


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
