"""An `IngestionPipeline` of LlamaIndex that stores pages, and documents as whole nodes.

LlamaIndex's own pipeline hands only nodes with an embedding on to its vector store, and drops all others without a
word. A `ColPaliVectorStore` encodes by itself, so its pipeline ends with a `DeferredEmbedding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.schema import (
    BaseNode,
    Document,
    ImageNode,
    MetadataMode,
    NodeRelationship,
    TextNode,
    TransformComponent,
)
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores.types import BasePydanticVectorStore

from colpali_integrations._options import unknown_option
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index.embeddings import DeferredEmbedding
from colpali_integrations.llama_index.schema import own_source

__all__ = ["PageIngestionPipeline", "WholeDocuments", "pipeline_into"]

_OPTIONS = ("name", "project_name", "cache", "disable_cache")
_GUESSES = {
    "readers": "pass run(documents=reader.load_data(...))",
    "documents": "pass run(documents=...)",
    "vector_store": "call the method of that store",
}


class WholeDocuments(TransformComponent):
    """Makes one node of each document, and passes nodes on. Without any transformation LlamaIndex splits documents."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        """The nodes."""
        return [_whole(node) if isinstance(node, Document) else node for node in nodes]


def _whole(document: Document) -> BaseNode:
    """The node of a whole document. It has the document's id, so that a changed document replaces itself."""
    fields: dict[str, Any] = {
        **{name: value for name, value in document if not name.endswith("_resource")},
        "text": document.get_content(MetadataMode.NONE),
        "relationships": {**document.relationships, NodeRelationship.SOURCE: document.as_related_node_info()},
    }
    resource = document.image_resource
    if resource is None:
        return TextNode(**fields)
    return ImageNode(
        **fields,
        image=resource.data and bytes(resource.data).decode("ascii"),  # base64 already
        image_path=resource.path and str(resource.path),
        image_url=resource.url and str(resource.url),
        image_mimetype=resource.mimetype,
    )


class _OwnSources(TransformComponent):
    """Makes each page its own source document again, as its reader did."""

    def __call__(self, nodes: Sequence[BaseNode], **kwargs: Any) -> Sequence[BaseNode]:
        return [_with_source(node) for node in nodes]


class PageIngestionPipeline(IngestionPipeline):
    """A pipeline for pages that are their own source documents.

    LlamaIndex's document stores raise an error when such a node is deleted. So they keep the pages without a source.
    """

    def run(
        self,
        show_progress: bool = False,
        documents: Sequence[BaseNode] | None = None,
        nodes: Sequence[BaseNode] | None = None,
        **kwargs: Any,
    ) -> Sequence[BaseNode]:
        """Store documents and nodes.

        Args:
            show_progress: as for LlamaIndex's.
            documents: pages of a reader, or other documents.
            nodes: nodes.
            kwargs: further arguments of LlamaIndex's.

        Returns:
            The stored nodes, without those that the document store knows as unchanged.
        """
        given: dict[str, Any] = {"documents": _sourceless(documents), "nodes": _sourceless(nodes)}
        return super().run(show_progress, **given, **kwargs)

    async def arun(
        self,
        show_progress: bool = False,
        documents: Sequence[BaseNode] | None = None,
        nodes: Sequence[BaseNode] | None = None,
        **kwargs: Any,
    ) -> Sequence[BaseNode]:
        """`run` without blocking the event loop."""
        given: dict[str, Any] = {"documents": _sourceless(documents), "nodes": _sourceless(nodes)}
        return await super().arun(show_progress, **given, **kwargs)


def pipeline_into(
    store: BasePydanticVectorStore,
    transformations: Sequence[TransformComponent] | None,
    docstore: BaseDocumentStore | None,
    docstore_strategy: DocstoreStrategy | str,
    **options: Any,
) -> PageIngestionPipeline:
    """Make the pipeline of a store; see `ColPaliVectorStore.ingestion_pipeline`."""
    if options.keys() - set(_OPTIONS):
        known = (*_OPTIONS, "transformations", "docstore", "docstore_strategy")
        raise unknown_option("ingestion_pipeline", options, known, _GUESSES)
    strategies = [one.value for one in DocstoreStrategy]
    if docstore_strategy not in strategies:  # by value: a DocstoreStrategy is a str
        raise ConfigurationError(f"docstore_strategy must be one of {', '.join(strategies)}, got {docstore_strategy!r}")
    # LlamaIndex's cache knows nodes by their texts, and would take pictures without a text for each other.
    options = {"disable_cache": True, **options}
    return PageIngestionPipeline(
        transformations=[*(transformations or ()), WholeDocuments(), _OwnSources(), DeferredEmbedding()],
        vector_store=store,
        docstore=docstore,
        docstore_strategy=DocstoreStrategy(docstore_strategy),
        **options,
    )


def _sourceless(nodes: Sequence[BaseNode] | None) -> list[BaseNode] | None:
    return None if nodes is None else [_without_own_source(node) for node in nodes]


def _without_own_source(node: BaseNode) -> BaseNode:
    if not _is_page(node) or node.ref_doc_id != node.node_id:
        return node
    relationships = {kind: one for kind, one in node.relationships.items() if kind != NodeRelationship.SOURCE}
    return node.model_copy(update={"relationships": relationships})


def _with_source(node: BaseNode) -> BaseNode:
    if not _is_page(node) or node.ref_doc_id is not None:
        return node
    relationships = {**node.relationships, **own_source(node.node_id, node.metadata["content_hash"])}
    return node.model_copy(update={"relationships": relationships})


def _is_page(node: BaseNode) -> bool:
    return isinstance(node, ImageNode) and "content_hash" in node.metadata
