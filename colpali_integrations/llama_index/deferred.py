"""An embedding model that embeds nothing, for a store that does it all by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding, Embedding
from llama_index.core.bridge.pydantic import ConfigDict, model_validator
from llama_index.core.schema import BaseNode

from colpali_integrations.errors import ConfigurationError

__all__ = ["DeferredEmbedding"]


class DeferredEmbedding(BaseEmbedding):
    """Tells `VectorStoreIndex` and `IngestionPipeline` that the vector store will encode.

    Both want an embedding model: the one resolves OpenAI's without it, the other drops nodes without an embedding. A
    `ColPaliVectorStore` encodes nodes by itself, and whatever was embedded before would be thrown away. This gives
    every node the embedding `[0.0]`, at no cost; asked to embed a question, for a store that would compare it, it
    refuses.

    Example:
        >>> DeferredEmbedding().get_text_embedding("low tide")
        [0.0]
    """

    model_config = ConfigDict(extra="forbid")

    model_name: str = "deferred to ColPaliVectorStore"
    embed_batch_size: int = 2048

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("class_name") == cls.class_name():
            return {key: value for key, value in data.items() if key != "class_name"}
        return data

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
