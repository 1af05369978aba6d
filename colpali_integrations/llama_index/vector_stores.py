"""`ColPaliVectorStore`: pages and texts with all their vectors, behind LlamaIndex's vector store interface."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from threading import Event
from typing import Any, ClassVar

import fsspec  # type: ignore[import-untyped]
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.ingestion import DocstoreStrategy
from llama_index.core.schema import BaseNode, TransformComponent
from llama_index.core.storage.docstore.types import BaseDocumentStore
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryResult,
)

from colpali_integrations._options import checked_several, unknown_option
from colpali_integrations.errors import ConfigurationError, FingerprintError, InputError, StoreError
from colpali_integrations.llama_index._components import LayoutField
from colpali_integrations.llama_index._entries import entry_node, node_item
from colpali_integrations.llama_index._filters import store_filter
from colpali_integrations.llama_index._persistence import copied_records, load_store, save_store, store_like
from colpali_integrations.llama_index._queries import (
    checked_query,
    encode_question,
    put_hidden,
    query_filter,
    take_hidden,
)
from colpali_integrations.llama_index._stores import StoreComponent
from colpali_integrations.llama_index.embeddings import (
    ColPaliEmbedding,
    DeferredEmbedding,
    embedding_for,
    stored_embedding,
)
from colpali_integrations.llama_index.ingestion import PageIngestionPipeline, pipeline_into
from colpali_integrations.pages.access import PageAccess, Roots, root_folders
from colpali_integrations.runtime.threads import cancellable, offload
from colpali_integrations.stores import Entry, Hit, MultiVectorStore, SearchOptions, ingest
from colpali_integrations.stores.engine import several_ids
from colpali_integrations.stores.filters import DOCUMENT, ID, And, Condition, Operator, Or
from colpali_integrations.stores.hits import DOUBTFUL
from colpali_integrations.stores.ingestion.failures import OnError
from colpali_integrations.stores.ingestion.progress import ProgressCallback
from colpali_integrations.stores.mmr import diverse
from colpali_integrations.stores.opening import settings_at
from colpali_integrations.stores.qdrant.index_kinds import IndexKind
from colpali_integrations.stores.runs import GaveUpError
from colpali_integrations.stores.search import Mode
from colpali_integrations.stores.settings import Datatype, FirstStage

__all__ = ["ColPaliVectorStore"]

# Fields that are options of `MultiVectorStore.open`.
_OPENING = (
    *("url", "collection_name", "first_stage", "first_vectors", "datatype", "pool_factor", "language"),
    *("read_only", "file_mode", "indexes", "auto_index", "layout", "writable"),
)
_ADD_GUESSES = {"show_progress": "use progress=True"}


class ColPaliVectorStore(StoreComponent, BasePydanticVectorStore):
    """A vector store that keeps every vector of a page, and finds pages by late interaction.

    The store encodes nodes and questions itself, so it needs no embedding from outside: nodes with a picture as images,
    others as texts (`MetadataMode.EMBED`). A text with the metadata of a page, such as a LangChain Document after
    `Document.from_langchain_format`, is a page. A node whose content is stored already is not encoded again. The nodes
    that it returns are equal to those that were added, without `embedding`; a picture in a file gains the metadata of a
    page, by which a changed file is refused. Pages draw their picture when a multimodal model needs it. The store also
    opens a folder that `colpali-integrations index` or LangChain filled. Adding a page of such a folder copies the
    vectors, and stores the page a second time under its node's id.

    `ColPaliIndex.from_vector_store(store)` and `store.ingestion_pipeline()` need no embedding model. LlamaIndex's own
    `VectorStoreIndex` and `IngestionPipeline` do: pass them `store.deferred_embedding`, which costs nothing. With
    another one every node is encoded twice. Without one `VectorStoreIndex` looks for OpenAI's, and `IngestionPipeline`
    stores nothing.

    Similarities are relevances in [0, 1]: MaxSim over the highest possible for the question. In mode HYBRID they are
    the fused scores, where 1 is the best by both. `alpha` weighs the vectors against BM25 (1: vectors only); without
    it each question decides the weight. In mode MMR (`mmr_threshold`, `mmr_prefetch_k`) they are relevances, in the
    order of choice.
    Empty `node_ids` and `doc_ids` restrict nothing, because `VectorStoreIndex` passes them before its first insert.

    Metadata filters are LlamaIndex's; a list in the metadata fits a comparison that one of its values fits.
    `sparse_top_k`, `output_fields` and `embedding_field` have no effect.

    Attributes:
        embed_model: encodes nodes and questions; by default with the store's model, and with ColTiny for a new store.
            Options that it leaves out, such as `precision`, are those of the store's pages.
        path: a folder, which is made if it is missing, once the model is loaded; or the URL of a server.
        url: of a Qdrant server, or of the nodes of a cluster. Without either (and without `store`) everything is in
            memory.
        collection_name: of the collection on the server.
        first_stage: see `MultiVectorStore.open`.
        first_vectors: see `MultiVectorStore.open`.
        datatype: see `MultiVectorStore.open`.
        pool_factor: see `MultiVectorStore.open`.
        language: see `MultiVectorStore.open`.
        read_only: see `MultiVectorStore.open`.
        file_mode: see `MultiVectorStore.open`.
        search_mode: "auto", "exact" or "two_stage"; see `stores.SearchOptions`.
        oversampling: the first of two stages hands on this many times the requested number.
        client_options: for `QdrantClient`, such as `api_key`, and `retry_seconds`; not part of `to_dict()`. A pickle
            holds no API key: unpickling takes that of the environment variable QDRANT_API_KEY.
        collection_options: for a collection on a server; see `CollectionOptions`. Not part of `to_dict()`.
        indexes: for a collection on a server: the metadata fields that get an index, and its kind, such as
            {"year": "number", "title": "text"}; see `MultiVectorStore.open`. Not part of `to_dict()`.
        auto_index: for a collection on a server; see `MultiVectorStore.open`.
        layout: for a collection that another program has made, see `stores.Layout`; it needs `embed_model`.
        writable: with `layout`: nodes may be added, changed and removed.

    Args:
        store: an open `MultiVectorStore`, or the folder of one.

    Raises:
        StoreError: the store cannot be opened.
        ModelError: the model of a new store cannot be loaded; no folder or collection is made then.
        FingerprintError: the store was made by a model of another space than `embed_model`'s.
        ValidationError: an argument is unknown or has an invalid value.

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
        **dict.fromkeys(("persist_dir", "persist_directory"), "the folder is path="),
        "location": "a folder is path=, a Qdrant server url=; without either the store is in memory",
        "embedding": "the encoder is embed_model=",
    }

    stores_text: bool = True
    is_embedding_query: bool = False

    url: str | list[str] | None = Field(default=None, description="A Qdrant server, or the nodes of a cluster.")
    collection_name: str = Field(default="pages", description="On the server.")
    first_stage: FirstStage | None = Field(default=None, description="Scanned first by a two-stage search.")
    first_vectors: int | None = Field(default=None, gt=0, description="Vectors per page in the first stage.")
    datatype: Datatype | None = Field(default=None, description="Of the stored vectors.")
    pool_factor: int | None = Field(default=None, gt=0, description="Similar vectors of a page per stored mean.")
    language: str | None = Field(default=None, description="Of the texts, for BM25.")
    read_only: bool = Field(default=False, description="Neither make nor change anything in the folder.")
    file_mode: int | None = Field(default=None, description="Permissions of the files of a new folder.")
    layout: LayoutField = Field(default=None, description="Of a collection that another program has made.")
    writable: bool = Field(default=False, description="Whether a collection with a layout may be changed.")
    search_mode: Mode = Field(default="auto", description="Exact or in two stages.")
    oversampling: float | None = Field(default=None, ge=1, description="Candidates per requested node.")
    client_options: dict[str, Any] = Field(default_factory=dict, exclude=True, repr=False)
    collection_options: dict[str, Any] | None = Field(default=None, exclude=True, repr=False)
    indexes: dict[str, IndexKind] | None = Field(default=None, exclude=True, repr=False)
    auto_index: bool | None = Field(default=None, description="Make the indexes that filters need in strict mode.")

    _store: MultiVectorStore = PrivateAttr()

    def __init__(self, store: MultiVectorStore | str | os.PathLike[str] | None = None, **fields: Any) -> None:
        super().__init__(store, **fields)
        if not self.stores_text or self.is_embedding_query:
            raise ConfigurationError("stores_text is True and is_embedding_query False: the store encodes by itself")
        if self._store is None:
            self._store = self._opened()
        elif self.embed_model is not None:
            self.embed_model = embedding_for(self.embed_model, self._store.settings, where=self._store.where)
            self._store.require_space(self.embed_model.model)
        if self.embed_model is None:
            self.embed_model = stored_embedding(self._store)

    def _opened(self) -> MultiVectorStore:
        options = {name: getattr(self, name) for name in _OPENING} | self.client_options
        options["collection_options"] = self.collection_options
        if self.embed_model is None:
            try:
                return MultiVectorStore.open(self.path, **options)  # an existing store records its model
            except (FingerprintError, GaveUpError):
                raise
            except StoreError:
                self.embed_model = ColPaliEmbedding()
        place: dict[str, Any] = {"path": self.path, "url": self.url, "collection_name": self.collection_name}
        settings, where = settings_at(**place, layout=self.layout, **self.client_options)
        self.embed_model = embedding_for(self.embed_model, settings, where=where)
        return MultiVectorStore.open(self.path, model=self.embed_model.model, **options)

    @property
    def client(self) -> MultiVectorStore:
        """The `MultiVectorStore` underneath, with the operations that LlamaIndex lacks."""
        return self._store

    @property
    def deferred_embedding(self) -> DeferredEmbedding:
        """The `embed_model` for LlamaIndex classes that require one although this store encodes.

        Example:
            >>> from llama_index.core import VectorStoreIndex
            >>> store = ColPaliVectorStore()
            >>> index = VectorStoreIndex.from_vector_store(store, embed_model=store.deferred_embedding)
        """
        return DeferredEmbedding()

    def ingestion_pipeline(
        self,
        transformations: Sequence[TransformComponent] | None = None,
        *,
        docstore: BaseDocumentStore | None = None,
        docstore_strategy: DocstoreStrategy | str = DocstoreStrategy.UPSERTS,
        **options: Any,
    ) -> PageIngestionPipeline:
        """Make an `IngestionPipeline` into this store.

        An `IngestionPipeline(vector_store=store)` without an embedding stores nothing, because LlamaIndex hands only
        nodes with an embedding on. This one needs no embedding and splits no document.

        Args:
            transformations: applied before the nodes are stored, such as a splitter for texts; none by default.
            docstore: recognises documents, so that unchanged ones are passed over.
            docstore_strategy: as for LlamaIndex's: "upserts" replaces changed documents, "upserts_and_delete" also
                deletes those that a run does not have, "duplicates_only" passes over equal ones.
            **options: `name`, `project_name`, `cache` and `disable_cache` of LlamaIndex's. The cache of transformations
                is off: it would take pictures without a text for each other.

        Raises:
            ConfigurationError: an option is unknown.

        Example:
            >>> from llama_index.core.storage.docstore import SimpleDocumentStore
            >>> from colpali_integrations.llama_index import PdfPageReader
            >>> store = ColPaliVectorStore()
            >>> pipeline = store.ingestion_pipeline(docstore=SimpleDocumentStore())
            >>> pages = PdfPageReader().load_data("report.pdf")
            >>> [len(pipeline.run(documents=pages)) for _ in range(2)]  # the second run finds them unchanged
            [2, 0]
            >>> len(store.get_nodes())
            2
        """
        return pipeline_into(self, transformations, docstore, docstore_strategy, **options)

    # -- changes ------------------------------------------------------------------------------------------------

    def add(
        self,
        nodes: Sequence[BaseNode],
        *,
        password: str | None = None,
        roots: Roots = None,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Encode and store nodes. A node replaces a stored one of the same id.

        Each batch is stored once it is encoded: after an error or an interruption, a second call encodes the rest only.

        Args:
            nodes: pages and texts; they stay unchanged. Of several with one id the last one is stored.
            password: for pages of encrypted PDFs; it is not stored.
            roots: open only files in these folders, links followed; None for all files.
            on_error: "raise" the error of a node that cannot be read or encoded, after storing those before it; or
                "skip" it with a log entry.
            progress: a function that is called after each encoded node, or True for a progress bar on stderr.
            stop: an event; once it is set, the call ends after the node at hand, and the stored nodes stay.
            kwargs: ignored; LlamaIndex passes options of other stores.

        Returns:
            The ids of the nodes, in order, without those skipped.

        Raises:
            InputError: an item is no node, a picture cannot be read, or a node has neither picture nor text; the error
                names the node.
            EncodingError: the model cannot encode a page.
            StoreError: JSON cannot hold a node, or the store cannot be written.
            ConfigurationError: `show_progress`, or an option has an invalid value.
        """
        if "show_progress" in kwargs:
            raise unknown_option("add", ["show_progress"], ("on_error", "progress", "stop"), _ADD_GUESSES)
        several = checked_several(nodes, "a list of nodes")
        access = PageAccess(password, self._encoder.options.image_limits, root_folders(roots))
        return ingest(
            [node_item(node, index, access) for index, node in enumerate(several)],
            store=self._store,
            model=self._encoder.model,
            batch_size=self._encoder.embed_batch_size,
            parallel=self._encoder.num_workers,
            on_error=on_error,
            progress=progress,
            stop=stop,
        ).ids

    async def async_add(
        self,
        nodes: Sequence[BaseNode],
        *,
        password: str | None = None,
        roots: Roots = None,
        on_error: OnError = "raise",
        progress: ProgressCallback | bool = False,
        stop: Event | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """`add` without blocking the event loop. A cancelled task stops after the current page."""
        options: dict[str, Any] = {"password": password, "roots": roots, **kwargs}
        options |= {"on_error": on_error, "progress": progress}
        return await cancellable(lambda either: self.add(nodes, stop=either, **options), stop)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Remove the nodes of a document. An unknown id is ignored.

        A node without a source document is its own source, so that pipelines without a splitter can delete a
        `Document`.
        """
        itself = And((Condition(ID, Operator.EQ, ref_doc_id), Condition(DOCUMENT, Operator.EXISTS, False)))
        self._store.delete(where=Or((Condition(DOCUMENT, Operator.EQ, ref_doc_id), itself)))

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """`delete` without blocking the event loop."""
        await offload(lambda: self.delete(ref_doc_id), "queries")

    def delete_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None, **delete_kwargs: Any
    ) -> None:
        """Remove the nodes that match all of the given criteria. Unknown ids are ignored.

        Raises:
            InputError: the caller passes neither ids nor filters; `clear()` removes everything.
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

    # -- reads --------------------------------------------------------------------------------------------------

    def get_nodes(self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None) -> list[BaseNode]:
        """The nodes that match all of the given criteria; all nodes without any.

        Returns:
            Nodes in the order of `node_ids`, without unknown ones; in no particular order without ids.
        """
        where = store_filter(filters, self._store.scroll)
        if node_ids is None:
            return [self._node(entry) for entry in self._store.scroll(where)]
        entries = [entry for entry in self._store.get(list(dict.fromkeys(several_ids(node_ids)))) if entry is not None]
        if where is not None and entries:
            both = And((Condition(ID, Operator.IN, tuple(entry.id for entry in entries)), where))
            matching_ids = self._store.hashes(both).keys()
            entries = [entry for entry in entries if entry.id in matching_ids]
        return [self._node(entry) for entry in entries]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """`get_nodes` without blocking the event loop."""
        return await offload(lambda: self.get_nodes(node_ids, filters), "queries")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find nodes; see the class.

        Args:
            query: with `query_str`, because this store does not compare single vectors.
            kwargs: `search_mode`, `oversampling`, `min_relevance` and `hybrid`: see `stores.SearchOptions`; without
                `hybrid`, mode DEFAULT ranks by MaxSim alone;
                `mmr_threshold` and `mmr_prefetch_k`; `regions=True` for the boxes of the answer on each page in
                `metadata["regions"]`; `halves=True` for the shares of sight and words in a hybrid search, and the
                weight of the words, in `metadata["halves"]`; `embedding_strs`: texts that are encoded instead of the
                question.

        Returns:
            Nodes, similarities and ids, the best first. Where no page seems to answer the question, as
            `stores.Hits.doubtful` tells, each node has `metadata["doubtful"]`, True, which language models do not see.

        Raises:
            QueryError: the question is empty.
            InputError: the filters are invalid, or the query has no `query_str`.
            ConfigurationError: the mode is none of DEFAULT, HYBRID and MMR, or an option is unknown or has an invalid
                value.
            FingerprintError: `embed_model` is of another space than the store's model.
        """
        options, k, threshold = self.check_query(query, **kwargs)
        if query.query_str is None:
            raise InputError(
                "the query has no query_str. A ColPaliVectorStore compares all vectors of a question, which it encodes "
                "itself; it cannot search by a query_embedding (one vector)"
            )
        self._store.require_space(self._encoder.model)
        texts = kwargs.get("embedding_strs") or [query.query_str]
        vectors = encode_question(self._encoder, texts)
        options = replace(options, where=query_filter(query, self._store.scroll))
        options = self._store.decide_hybrid(options, self._encoder.model)
        hybrid = options.ranks_by_words
        [found] = self._store.search_batch([vectors], options, texts=[query.query_str] if hybrid else None)
        hits: Sequence[Hit] = found if threshold is None else diverse(self._store, found, k, lambda_mult=threshold)
        nodes = [self._node(hit.entry) for hit in hits]
        for node, hit in zip(nodes, hits, strict=True):
            take_hidden(node, DOUBTFUL)  # of the answer that a stored node came from
            if found.doubtful:
                put_hidden(node, DOUBTFUL, True)
            if kwargs.get("halves") and hit.halves is not None:
                put_hidden(node, "halves", hit.halves.to_dict())
        if kwargs.get("regions"):
            tokens = [token for text in texts for token in self._encoder.model.query_tokens(text)]
            boxes = self._store.regions(vectors, [node.node_id for node in nodes], tokens=tokens)
            for node in nodes:
                put_hidden(node, "regions", boxes.get(node.node_id, []))
        return VectorStoreQueryResult(
            nodes=nodes,
            similarities=[hit.score if hybrid else hit.relevance for hit in hits],
            ids=[hit.id for hit in hits],
        )

    def check_query(self, query: VectorStoreQuery, **kwargs: Any) -> tuple[SearchOptions, int, float | None]:
        """Check a query and its options without answering it; see `query`. The filters are not read.

        Returns:
            Options of the search without a filter, where `k` is the number of candidates; the number of nodes at most;
            the threshold of MMR, from 0 (only unlike each other) to 1 (only relevant), and None in other modes.

        Raises:
            ConfigurationError: as `query`.
        """
        return checked_query(query, kwargs, search_mode=self.search_mode, oversampling=self.oversampling)

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """`query` without blocking the event loop."""
        return await offload(lambda: self.query(query, **kwargs), "queries")

    # -- copies and files ---------------------------------------------------------------------------------------

    def persist(self, persist_path: str, fs: fsspec.AbstractFileSystem | None = None) -> None:
        """Write the location of the store to a file, and for a store in memory its pages too.

        The file is called "default__colpali_store.json", because `StorageContext` would read a
        "default__vector_store.json" as its own.

        Args:
            persist_path: as `StorageContext.persist` passes it.
            fs: another file system; not for a store in memory.

        Raises:
            ConfigurationError: the store is in memory, and `fs` is not local.
        """
        save_store(self.to_dict(), self._store, persist_path, fs)

    @classmethod
    def from_persist_path(
        cls, persist_path: str, fs: fsspec.AbstractFileSystem | None = None, **fields: Any
    ) -> ColPaliVectorStore:
        """Open a store that `persist` wrote.

        Args:
            persist_path: the path that was passed to `persist`.
            fs: the file system that was passed to `persist`.
            fields: in place of those in the file, such as `client_options`. A model that is neither registered nor in
                a folder has to be named here, because it would be downloaded: `embed_model`.

        Raises:
            StoreError: no store was written there, or the file is damaged.
            ConfigurationError: the file names a model that would have to be downloaded.
            FingerprintError: `embed_model` is of another space than the pages of a store in memory.
        """
        options, pages = load_store(persist_path, fs, fields)
        if pages is None:
            return cls(**options)
        with MultiVectorStore.open(pages) as source:
            elsewhere = options.get("path") or options.get("url")
            store = cls(**options) if elsewhere else cls(store_like(source.settings), **options)
            store._store.add(copied_records(source), model=source.model)
        return store

    @classmethod
    def from_persist_dir(
        cls,
        persist_dir: str = "./storage",
        namespace: str = "default",
        fs: fsspec.AbstractFileSystem | None = None,
        **fields: Any,
    ) -> ColPaliVectorStore:
        """Open a store that `StorageContext.persist(persist_dir)` wrote, for `from_defaults(vector_store=...)`."""
        return cls.from_persist_path(f"{persist_dir}/{namespace}__vector_store.json", fs, **fields)

    def close(self) -> None:
        """Release the folder or the connection. The pages of a store in memory are gone then."""
        self._store.close()

    # -----------------------------------------------------------------------------------------------------------

    def _node(self, entry: Entry) -> BaseNode:
        if self.embed_model is None:
            return entry_node(entry)
        return entry_node(entry, self.embed_model.options.image_limits)
