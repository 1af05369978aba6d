"""`ColPaliVectorStore`: pages and texts with all their vectors, behind LlamaIndex's vector store interface."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Annotated, Any, ClassVar

import fsspec  # type: ignore[import-untyped]
import numpy as np
from llama_index.core.bridge.pydantic import BeforeValidator, Field, PrivateAttr
from llama_index.core.callbacks.schema import CBEventType, EventPayload
from llama_index.core.instrumentation.events.embedding import EmbeddingEndEvent, EmbeddingStartEvent
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)
from llama_index_instrumentation import get_dispatcher

from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.llama_index._components import StrictComponent
from colpali_integrations.llama_index._filters import store_filter
from colpali_integrations.llama_index._persistence import copied_records, load_store, save_store
from colpali_integrations.llama_index._query import QueryRequest
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.schema import entry_node, node_item
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import Hit, MultiVectorStore, ingest
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Condition, Filter, Operator, Or
from colpali_integrations.stores.mmr import mmr_select
from colpali_integrations.stores.search import Mode
from colpali_integrations.stores.settings import FirstStage

__all__ = ["ColPaliVectorStore"]

dispatcher = get_dispatcher(__name__)

_Folder = Annotated[str, BeforeValidator(lambda given: os.fspath(given) if isinstance(given, os.PathLike) else given)]


class ColPaliVectorStore(StrictComponent, BasePydanticVectorStore):
    """A vector store that keeps every vector of a page, and finds by late interaction.

    Nodes with a picture are encoded as images, others as texts (`MetadataMode.EMBED`); the store encodes them itself,
    and a question too, so it needs no embedding from outside. A node whose content is stored already is not encoded
    again. Nodes come back as they went in, without `embedding`; pages draw their picture when a multimodal model asks
    for it. A folder that `colpali-integrations index` or LangChain filled can be opened as well; a page of it that is
    added here is not encoded again, but stored a second time under its node's id.

    `VectorStoreIndex` and `IngestionPipeline` want an embedding model all the same. Give them a `DeferredEmbedding()`,
    which costs nothing; with another one every node is encoded twice, and with none `VectorStoreIndex` looks for
    OpenAI. `ColPaliIndex.from_vector_store(store)` needs no embedding model.

    Similarities are relevances in [0, 1]: MaxSim over the highest possible for the question. In mode HYBRID they are
    the fused scores, where 1 is the best by both. `alpha` weighs the vectors against BM25 (1: vectors only); without
    it ranks are fused. In mode MMR (`mmr_threshold`, `mmr_prefetch_k`) they are relevances, in the order of choice.
    Empty `node_ids` and `doc_ids` restrict nothing: an index that nothing was inserted into passes them.

    Metadata filters are LlamaIndex's; a list in the metadata fits a comparison that one of its values fits.
    `sparse_top_k`, `output_fields` and `embedding_field` have no effect.

    Attributes:
        embed_model: encodes nodes and questions; by default with the model that the store was made by, or else ColTiny.
        path: a folder, for the Qdrant engine inside this process.
        url: of a Qdrant server. Without either (and without `store`) everything is in memory.
        collection_name: on the server.
        first_stage: see `MultiVectorStore.open`.
        first_vectors: likewise.
        language: likewise.
        search_mode: "auto", "exact" or "two_stage"; see `stores.SearchOptions`.
        oversampling: the first of two stages hands on this many times the requested number.
        client_options: for `QdrantClient`, such as `api_key`; not part of `to_dict()`.

    Args:
        store: a ready `MultiVectorStore`, or the folder of one.

    Raises:
        StoreError: the store cannot be opened.
        FingerprintError: it was made by another model than `embed_model`'s.
        ValidationError: an unknown argument, or an invalid value.

    Example:
        >>> from llama_index.core.schema import TextNode
        >>> from llama_index.core.vector_stores.types import VectorStoreQuery
        >>> store = ColPaliVectorStore()  # in memory; path="my-index" for a folder
        >>> store.add([TextNode(id_="a", text="low tide in the harbour"), TextNode(id_="b", text="tax return")])
        ['a', 'b']
        >>> store.query(VectorStoreQuery(query_str="harbour", similarity_top_k=1)).ids
        ['a']
    """

    guesses: ClassVar[Mapping[str, str]] = {
        "collection": "the collection on a Qdrant server is collection_name=",
        "persist_dir": "the folder is path=",
        "persist_directory": "the folder is path=",
        "location": "a folder is path=, a Qdrant server url=; without either the store is in memory",
        "embedding": "the encoder is embed_model=",
    }

    stores_text: bool = True
    is_embedding_query: bool = False

    embed_model: ColPaliEmbedding | None = Field(default=None, description="Encodes nodes and questions.")
    path: _Folder | None = Field(default=None, description="A folder.")
    url: str | None = Field(default=None, description="A Qdrant server.")
    collection_name: str = Field(default="pages", description="On the server.")
    first_stage: FirstStage | None = Field(default=None, description="Scanned first by a two-stage search.")
    first_vectors: int | None = Field(default=None, gt=0, description="Vectors per page in the first stage.")
    language: str | None = Field(default=None, description="Of the texts, for BM25.")
    search_mode: Mode = Field(default="auto", description="Exact or in two stages.")
    oversampling: float | None = Field(default=None, ge=1, description="Candidates per requested node.")
    client_options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)

    _store: MultiVectorStore = PrivateAttr()

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
        if self.embed_model is None:
            self.embed_model = ColPaliEmbedding(model_name=self._store.model.name)
        elif store is not None:
            self._store.require(self.embed_model.model)

    def _opened(self) -> MultiVectorStore:
        names = ("url", "collection_name", "first_stage", "first_vectors", "language")
        options = {**{name: getattr(self, name) for name in names}, **self.client_options}
        if self.embed_model is None:
            try:
                return MultiVectorStore.open(self.path, **options)  # an existing store records its model
            except FingerprintError:
                raise
            except StoreError:
                self.embed_model = ColPaliEmbedding()
        return MultiVectorStore.open(self.path, model=self.embed_model.model, **options)

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return "ColPaliVectorStore"

    @property
    def client(self) -> MultiVectorStore:
        """The `MultiVectorStore` underneath: the client to the data, with the operations that LlamaIndex lacks."""
        return self._store

    # -- changing it --------------------------------------------------------------------------------------------

    def add(self, nodes: Sequence[BaseNode], *, show_progress: bool = False, **kwargs: Any) -> list[str]:
        """Encode and store nodes, in place of those with the same ids.

        Nodes are stored as they are encoded: those before an error or an interruption are kept, and not encoded again.

        Args:
            nodes: pages and texts; left as they are. Of several with one id the last one counts.
            show_progress: a progress bar over the nodes that are encoded.
            kwargs: for other stores.

        Returns:
            Their ids.

        Raises:
            InputError: a picture that cannot be read, or a node with neither picture nor text; the error names it.
            EncodingError: the model cannot encode a page.
            StoreError: JSON cannot hold a node, or the store cannot be written.
        """
        return self._ingest(nodes, show_progress, Event())

    async def async_add(self, nodes: Sequence[BaseNode], *, show_progress: bool = False, **kwargs: Any) -> list[str]:
        """`add` without blocking the event loop; when the task is cancelled, it ends after the page at hand."""
        stop = Event()
        try:
            return await offload(lambda: self._ingest(nodes, show_progress, stop), "pages")
        finally:
            stop.set()

    def _ingest(self, nodes: Sequence[BaseNode], show_progress: bool, stop: Event) -> list[str]:
        encoder = self._encoder
        ingest(
            [node_item(node, index) for index, node in enumerate(nodes)],
            store=self._store,
            model=encoder.model,
            batch_size=encoder.embed_batch_size,
            parallel=encoder.num_workers,
            progress=show_progress,
            stop=stop,
        )
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document; an unknown one is passed over.

        A node without a source document is its own: that is how pipelines without a splitter delete a `Document`.
        """
        itself = And((Condition(ID, Operator.EQ, ref_doc_id), Condition(DOCUMENT, Operator.EXISTS, False)))
        self._store.delete(where=Or((Condition(DOCUMENT, Operator.EQ, ref_doc_id), itself)))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` without blocking the event loop."""
        await offload(lambda: self.delete(ref_doc_id), "queries")

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
        await offload(lambda: self.delete_nodes(node_ids, filters), "queries")

    def clear(self) -> None:
        """Remove everything."""
        self._store.delete(where={ID: {"$exists": True}})

    async def aclear(self) -> None:
        """`clear` without blocking the event loop."""
        await offload(self.clear, "queries")

    # -- reading it ---------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """Nodes that have one of the ids and fit the filters, as far as given; everything without either.

        Returns:
            In the order of `node_ids`, without unknown ones; in no particular order without ids.
        """
        where = store_filter(filters, self._store.scroll)
        if node_ids is None:
            return [entry_node(entry) for entry in self._store.scroll(where)]
        wanted = list(dict.fromkeys(node_ids))
        entries = [entry for entry in self._store.get(wanted) if entry is not None] if wanted else []
        if where is not None and entries:
            both = And((Condition(ID, Operator.IN, tuple(entry.id for entry in entries)), where))
            fitting = set(self._store.hashes(both))
            entries = [entry for entry in entries if entry.id in fitting]
        return [entry_node(entry) for entry in entries]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` without blocking the event loop."""
        return await offload(lambda: self.get_nodes(node_ids, filters), "queries")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes; see the class.

        Args:
            query: with `query_str`: this store does not compare single vectors.
            kwargs: `search_mode`, `oversampling`, `min_relevance` and `hybrid`: see `stores.SearchOptions`;
                `mmr_threshold` and `mmr_prefetch_k`; `regions=True` for the boxes of the answer on each page in
                `metadata["regions"]`; `embedding_strs`: texts that are encoded instead of the question.

        Returns:
            Nodes, similarities and ids, the best first.

        Raises:
            QueryError: the question is empty.
            InputError: a filter that cannot be read, or a query without `query_str`.
            ConfigurationError: a mode other than DEFAULT, HYBRID and MMR, an unknown option, or an invalid value.
        """
        request = self.check_query(query, **kwargs)
        if query.query_str is None:
            raise InputError(
                "the query has no query_str. A ColPaliVectorStore compares all vectors of a question, which it encodes "
                "itself; a query_embedding (one vector) says too little"
            )
        texts = request.texts or [query.query_str]
        vectors, hybrid = self._encode(texts), request.options.hybrid is not False
        options = replace(request.options, where=self._where(query))
        hits: Sequence[Hit]
        [hits] = self._store.search_batch([vectors], options, texts=[query.query_str] if hybrid else None)
        if request.threshold is not None:
            hits = self._diverse(hits, request.k, request.threshold)
        nodes = [entry_node(hit.entry) for hit in hits]
        if request.regions:
            self._put_regions(nodes, vectors, texts)
        return VectorStoreQueryResult(
            nodes=nodes,
            similarities=[hit.score if hybrid else hit.relevance for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def check_query(self, query: VectorStoreQuery, **kwargs: Any) -> QueryRequest:
        """Check a query and its options without answering it; see `query`.

        Raises:
            ConfigurationError: as `query`.
        """
        defaults = {"search_mode": self.search_mode, "oversampling": self.oversampling}
        return QueryRequest.of(query, {**defaults, **kwargs})

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` without blocking the event loop."""
        return await offload(lambda: self.query(query, **kwargs), "queries")

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
    def _encoder(self) -> ColPaliEmbedding:
        if self.embed_model is None:
            raise ConfigurationError("embed_model was set to None")
        return self.embed_model

    def _encode(self, texts: Sequence[str]) -> Float32:
        """The vectors of a question, (n, dim), with the events of an embedding."""
        encoder, chunks = self._encoder, list(texts)
        described = encoder.to_payload()
        dispatcher.event(EmbeddingStartEvent(model_dict=described))
        payload: dict[Any, Any] = {EventPayload.SERIALIZED: described}
        with encoder.callback_manager.event(CBEventType.EMBEDDING, payload=payload) as event:
            vectors: Float32 = np.concatenate(encoder.get_query_multi_vectors(chunks))
            # Events have one vector per text; these have many, and are left out.
            event.on_end(payload={EventPayload.CHUNKS: chunks, EventPayload.EMBEDDINGS: []})
        dispatcher.event(EmbeddingEndEvent(chunks=chunks, embeddings=[]))
        return vectors

    def _where(self, query: VectorStoreQuery) -> Filter | None:
        parts: list[Filter] = []
        if (condition := store_filter(query.filters, self._store.scroll)) is not None:
            parts.append(condition)
        if query.node_ids:
            parts.append(Condition(ID, Operator.IN, tuple(query.node_ids)))
        if query.doc_ids:
            parts.append(Condition(DOCUMENT, Operator.IN, tuple(query.doc_ids)))
        return And(tuple(parts)) if parts else None

    def _diverse(self, hits: Sequence[Hit], k: int, threshold: float) -> list[Hit]:
        """The `k` hits that are relevant and do not repeat each other, by maximal marginal relevance."""
        arrays = self._store.vectors([hit.id for hit in hits])
        kept = [(hit, array) for hit, array in zip(hits, arrays, strict=True) if array is not None]
        relevances, vectors = [hit.relevance for hit, _ in kept], [array for _, array in kept]
        return [kept[index][0] for index in mmr_select(relevances, vectors, k, lambda_mult=threshold)]

    def _put_regions(self, nodes: Sequence[BaseNode], vectors: Float32, texts: Sequence[str]) -> None:
        tokens = [token for text in texts for token in self._encoder.model.query_tokens(text)]
        boxes = self._store.regions(vectors, [node.node_id for node in nodes], tokens=tokens)
        for node in nodes:
            node.metadata["regions"] = boxes.get(node.node_id, [])
            for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
                if "regions" not in hidden:
                    hidden.append("regions")
