"""`ColPaliVectorStore`: pages and texts with all their vectors, behind LlamaIndex's vector store interface."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Sequence
from typing import Annotated, Any, TypeVar

import fsspec  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.llama_index.adding import add_nodes
from colpali_integrations.llama_index.deferred import DeferredEmbedding
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.filters import store_filter
from colpali_integrations.llama_index.nodes import node_of
from colpali_integrations.llama_index.persistence import copied_records, load_store, save_store
from colpali_integrations.llama_index.querying import answer
from colpali_integrations.runtime.threads import Lane, offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.filters import GROUP, ID, And, Condition, Operator, Or
from colpali_integrations.stores.settings import FirstStage
from colpali_integrations.stores.store import Mode

__all__ = ["ColPaliVectorStore"]

T = TypeVar("T")

_Folder = Annotated[str, BeforeValidator(lambda given: os.fspath(given) if isinstance(given, os.PathLike) else given)]


class ColPaliVectorStore(BasePydanticVectorStore):
    """A vector store that keeps every vector of a page, and finds by late interaction.

    Nodes with a picture are encoded as images, others as texts (`MetadataMode.EMBED`); the store encodes them itself,
    and a question too, so it needs no embedding from outside. A node whose content is stored already is not encoded
    again. Nodes come back as they went in, without `embedding`; pages draw their picture when a multimodal model asks
    for it. A folder that `colpali-integrations index` or LangChain filled can be opened as well; a page of it that is
    added here is not encoded again, but stored a second time under its node's id.

    `VectorStoreIndex` and `IngestionPipeline` want an embedding model all the same. Give them `embed_model`, which
    costs nothing; with another one every node is encoded twice, and with none `VectorStoreIndex` looks for OpenAI.
    `ColPaliIndex.from_vector_store(store)` needs no telling.

    Similarities are relevances in [0, 1]: MaxSim over the highest possible for the question. In mode HYBRID they are
    the fused scores, where 1 is the best by both. `alpha` weighs the vectors against BM25 (1: vectors only); without
    it ranks are fused. In mode MMR (`mmr_threshold`, `mmr_prefetch_k`) they are relevances, in the order of choice.
    `query(..., min_relevance=, oversampling=, search_mode=)` go to `MultiVectorStore.search`. Empty `node_ids` and
    `doc_ids` restrict nothing: an index that nothing was inserted into passes them.

    Metadata filters: see `filters`. `sparse_top_k`, `output_fields` and `embedding_field` have no effect.

    Attributes:
        embedding: what encodes; by default with the model that the store was made by, or else ColTiny.
        path: a folder, for the Qdrant engine inside this process.
        url: of a Qdrant server. Without either (and without `store`) everything is in memory.
        collection: on the server.
        first_stage: see `MultiVectorStore.open`.
        first_vectors: likewise.
        language: likewise.
        search_mode: "auto", "exact" or "two_stage".
        oversampling: how many times what is wanted the first of two stages hands on.
        client_options: for `QdrantClient`, such as `api_key`; not part of `to_dict()`.

    Args:
        store: a ready `MultiVectorStore`, or the folder of one.

    Raises:
        StoreError: the store cannot be opened.
        FingerprintError: it was made by another model than `embedding`'s.
        ValidationError: an unknown argument, or a value that cannot be.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores.types import VectorStoreQuery
        >>> store = ColPaliVectorStore()  # in memory; path="my-index" for a folder
        >>> store.add([TextNode(id_="a", text="low tide in the harbour"), TextNode(id_="b", text="tax return")])
        ['a', 'b']
        >>> store.query(VectorStoreQuery(query_str="harbour", similarity_top_k=1)).ids
        ['a']
    """

    model_config = ConfigDict(extra="forbid")

    stores_text: bool = True
    is_embedding_query: bool = False

    embedding: ColPaliEmbedding | None = Field(default=None, description="What encodes nodes and questions.")
    path: _Folder | None = Field(default=None, description="A folder.")
    url: str | None = Field(default=None, description="A Qdrant server.")
    collection: str = Field(default="pages", description="On the server.")
    first_stage: FirstStage | None = Field(default=None, description="What a two-stage search scans first.")
    first_vectors: int | None = Field(default=None, gt=0, description="Vectors a page in the first stage.")
    language: str | None = Field(default=None, description="Of the texts, for BM25.")
    search_mode: Mode = Field(default="auto", description="Exact or in two stages.")
    oversampling: float | None = Field(default=None, ge=1, description="What the first stage hands on.")
    client_options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)

    _store: MultiVectorStore = PrivateAttr()

    @model_validator(mode="before")
    @classmethod
    def _drop_class_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("class_name") == cls.class_name():
            return {key: value for key, value in data.items() if key != "class_name"}
        return data

    def __init__(self, store: MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any) -> None:
        if isinstance(store, (str, os.PathLike)):
            if fields.get("path") is not None:
                raise ConfigurationError(
                    f"a store is in one place: got {os.fspath(store)!r} and path={fields['path']!r}"
                )
            fields, store = {**fields, "path": os.fspath(store)}, None
        super().__init__(**fields)
        if not self.stores_text or self.is_embedding_query:
            raise ConfigurationError("stores_text is True and is_embedding_query False: the store encodes by itself")
        if store is not None and (self.path is not None or self.url is not None):
            raise ConfigurationError("a store is in one place: pass store=, path= or url=")
        self._store = self._opened() if store is None else store
        if self.embedding is None:
            self.embedding = ColPaliEmbedding(model_name=self._store.model.name)
        elif store is not None:
            self._store.require(self.embedding.model)

    def _opened(self) -> MultiVectorStore:
        options: dict[str, Any] = {
            "url": self.url,
            "collection": self.collection,
            "first_stage": self.first_stage,
            "first_vectors": self.first_vectors,
            "language": self.language,
            **self.client_options,
        }
        if self.embedding is None:
            try:
                return MultiVectorStore.open(self.path, **options)  # what is there knows its model
            except FingerprintError:
                raise
            except StoreError:
                self.embedding = ColPaliEmbedding()
        return MultiVectorStore.open(self.path, model=self.embedding.model, **options)

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "ColPaliVectorStore"

    @property
    def client(self) -> MultiVectorStore:
        """The `MultiVectorStore` underneath, with what LlamaIndex has no words for."""
        return self._store

    @property
    def embed_model(self) -> DeferredEmbedding:
        """For `VectorStoreIndex` and `IngestionPipeline`: leaves the encoding to the store."""
        return DeferredEmbedding()

    # -- changing it --------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], *, show_progress: bool = False, **kwargs: Any) -> list[str]:
        """Encode and store nodes, in place of those with the same ids.

        Args:
            nodes: pages and texts; left as they are.
            show_progress: a progress bar over the pages that are encoded.
            kwargs: for other stores.

        Returns:
            Their ids.

        Raises:
            InputError: a picture that cannot be read, or a node with neither picture nor text; the error names it.
            StoreError: the store cannot be written.
        """
        return add_nodes(nodes, store=self._store, embedding=self._embedding, show_progress=show_progress)

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """`add` without blocking the event loop."""
        return await self._offload(lambda: self.add(nodes, **kwargs), "pages")

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document; an unknown one is passed over.

        A node without a source document is its own: that is how pipelines without a splitter delete a `Document`.
        """
        itself = And((Condition(ID, Operator.EQ, ref_doc_id), Condition(GROUP, Operator.EXISTS, False)))
        self._store.delete(where=Or((Condition(GROUP, Operator.EQ, ref_doc_id), itself)))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` without blocking the event loop."""
        await self._offload(lambda: self.delete(ref_doc_id), "queries")

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove nodes that have one of the ids and fit the filters, as far as given; unknown ids are passed over.

        Raises:
            InputError: nothing was given; `clear()` removes everything.
        """
        where = store_filter(filters, self._store.scroll)
        if node_ids is None and where is None:
            raise InputError("delete_nodes: pass node_ids or filters; to remove everything, call clear()")
        self._store.delete(node_ids, where=where)

    async def adelete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """`delete_nodes` without blocking the event loop."""
        await self._offload(lambda: self.delete_nodes(node_ids, filters), "queries")

    def clear(self) -> None:
        """Remove everything."""
        self._store.delete(where={ID: {"$exists": True}})

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await self._offload(self.clear, "queries")

    # -- reading it ---------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes that have one of the ids and fit the filters, as far as given; everything without either.

        Returns:
            In the order of `node_ids`, without unknown ones; in no particular order without ids.
        """
        where = store_filter(filters, self._store.scroll)
        if node_ids is None:
            return [node_of(entry) for entry in self._store.scroll(where)]
        wanted = list(dict.fromkeys(node_ids))
        entries = [entry for entry in self._store.get(wanted) if entry is not None] if wanted else []
        if where is not None and entries:
            both = And((Condition(ID, Operator.IN, tuple(entry.id for entry in entries)), where))
            fitting = set(self._store.hashes(both))
            entries = [entry for entry in entries if entry.id in fitting]
        return [node_of(entry) for entry in entries]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` without blocking the event loop."""
        return await self._offload(lambda: self.get_nodes(node_ids, filters), "queries")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes; see the class.

        Args:
            query: with `query_str`: a single vector is not what this store compares.
            kwargs: `mmr_threshold`, `mmr_prefetch_k`, `min_relevance`, `oversampling`, `search_mode`.

        Returns:
            Nodes, similarities and ids, the best first.

        Raises:
            QueryError: the question is empty.
            InputError: a filter that cannot be read, or a query without `query_str`.
            ConfigurationError: a mode other than DEFAULT, HYBRID and MMR, or an option that cannot be.
        """
        return answer(
            query,
            kwargs,
            store=self._store,
            embedding=self._embedding,
            defaults={"search_mode": self.search_mode, "oversampling": self.oversampling},
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` without blocking the event loop."""
        return await self._offload(lambda: self.query(query, **kwargs), "queries")

    # -- copies and files ---------------------------------------------------------------------------------------

    def persist(self, persist_path: str, fs: fsspec.AbstractFileSystem | None = None) -> None:
        """Write down where the store is, and what is in it if that is this process's memory.

        A folder or server keeps everything by itself. Instead of "default__vector_store.json", which `StorageContext`
        would take for its own, the file is called "default__colpali_store.json".

        Args:
            persist_path: as `StorageContext.persist` passes it.
            fs: another file system; not for a store in memory.

        Raises:
            ConfigurationError: a store in memory and another file system.
            MissingExtraError: a store in memory needs qdrant-edge-py to be written.
        """
        save_store(self.to_dict(), self._store, persist_path, fs)

    @classmethod
    def from_persist_path(
        cls, persist_path: str, fs: fsspec.AbstractFileSystem | None = None, **fields: Any
    ) -> ColPaliVectorStore:
        """Open what `persist` wrote down.

        Args:
            persist_path: as it was given to `persist`.
            fs: likewise.
            fields: in place of those written, such as `client_options`.

        Raises:
            StoreError: nothing was written there.
        """
        written, pages = load_store(persist_path, fs)
        if pages is None:
            return cls(**{**written, **fields})
        made = cls(**{**written, **fields})
        with MultiVectorStore.open(pages) as kept:
            made._store.add(copied_records(kept))
        return made

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str = "./storage",
        namespace: str = "default",
        fs: fsspec.AbstractFileSystem | None = None,
        **fields: Any,
    ) -> ColPaliVectorStore:
        """Open what `StorageContext.persist(persist_dir)` wrote down; hand it to `from_defaults(vector_store=...)`."""
        return cls.from_persist_path(f"{persist_dir}/{namespace}__vector_store.json", fs, **fields)

    def close(self) -> None:
        """Release the folder or the connection. What was in memory is gone then."""
        self._store.close()

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> ColPaliVectorStore:
        return copy.copy(self)  # a copy looks into the same store

    def __getstate__(self) -> dict[str, Any]:
        if self.path is None and self.url is None:
            raise ConfigurationError(
                "a store in memory, or made with store=, cannot be pickled: give it a path or a url"
            )
        return {"__dict__": dict(self.__dict__)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state["__dict__"])  # type: ignore[misc]

    # -----------------------------------------------------------------------------------------------------------

    @property
    def _embedding(self) -> ColPaliEmbedding:
        if self.embedding is None:
            raise ConfigurationError("embedding was set to None")
        return self.embedding

    async def _offload(self, call: Callable[[], T], lane: Lane) -> T:
        return await offload(call, lane)
