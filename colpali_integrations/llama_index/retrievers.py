"""`ColPaliRetriever`: finds the pages that answer a question, by late interaction."""

from __future__ import annotations

import copy
import inspect
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.indices.vector_store.base import VectorStoreIndex
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters, VectorStoreQuery, VectorStoreQueryMode

from colpali_integrations._options import unknown_option
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index._filters import store_filter
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding, embedding_for
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.fusion import Hybrid
from colpali_integrations.stores.search import Mode

__all__ = ["ColPaliRetriever"]

_GUESSES: Mapping[str, str] = {
    **dict.fromkeys(("k", "top_k"), "the number of nodes is similarity_top_k="),
    **dict.fromkeys(("filter", "where"), "metadata filters are filters=MetadataFilters(...)"),
    **dict.fromkeys(("score_threshold", "similarity_cutoff"), "the lowest relevance is min_relevance="),
    "mode": "exact or two-stage search is search_mode=, hybrid search or MMR vector_store_query_mode=",
    "embedding": "the encoder is embed_model=",
}


class ColPaliRetriever(BaseRetriever):
    """Finds the pages that answer a question: every vector of the question against every vector of a page.

    It calls `ColPaliVectorStore.query`. Nodes are equal to those that were added. Pages that the command line or
    LangChain indexed are like `PdfPageReader`'s: an `ImageNode` with the text layer, or "report.pdf, page 7" for a
    scan, and `source` and `page` (1-based) in the metadata. A page draws its picture when a multimodal model needs it,
    so that `RetrieverQueryEngine.from_args(retriever, llm=llm, multimodal=True)` works without a postprocessor.

    The score is the relevance, in [0, 1]: MaxSim over the highest possible for the question. Choose a fixed cutoff
    (`SimilarityPostprocessor`, `min_relevance`) per model, because relevant pages have higher values with some models
    than with others. In a hybrid search, which is the default with ColTiny, the score is the fused one, where 1 is the
    best by both: it ranks the answers to one question, and a cutoff on it tells little. `min_relevance` is a cutoff on
    the relevance of MaxSim in both; `hybrid=False` makes the score the relevance.

    Where no page seems to answer the question, as `stores.Hits.doubtful` tells, each node has
    `metadata["doubtful"]`, True; other nodes do not have the key. Language models do not see it.

    A `QueryBundle` with `custom_embedding_strs`, such as of a `HyDEQueryTransform`, is searched for by the vectors of
    all of these.

    Args:
        store: a `ColPaliVectorStore`, an index over one, a `MultiVectorStore`, or the folder of one.
        embed_model: encodes the questions; None for the store's model.
        similarity_top_k: number of nodes at most.
        vector_store_query_mode: "default", "hybrid" or "mmr".
        alpha: in mode "hybrid" the weight of the vectors, in [0, 1]; None lets each question decide.
        filters: only nodes that match them.
        node_ids: only these nodes.
        doc_ids: only nodes of these source documents.
        hybrid_top_k: number of nodes in mode "hybrid", instead of `similarity_top_k`.
        sparse_top_k: without effect.
        vector_store_kwargs: more options of `ColPaliVectorStore.query`, such as `mmr_threshold`.
        hybrid: fuse with BM25 over the texts, in mode "default": True by a weight that each question decides, a number
            as the weight of the text, "rrf" by ranks; False for MaxSim alone. "auto" is what the model's description
            says that pays (`auto_hybrid`), if any node has a text.
        min_relevance: leave out nodes of a lower relevance, in [0, 1].
        search_mode: "exact", "two_stage" or "auto"; None for the vector store's. See `stores.SearchOptions`.
        oversampling: number of candidates of a two-stage search, as a multiple of the requested number of nodes.
        regions: put the boxes of the answer on the page into `metadata["regions"]`, as fractions of the page and in
            points (pixels for images). Language models do not see them.
        halves: put the shares by sight and by words of a hybrid search, and the weight of the words, into
            `metadata["halves"]`; see `stores.Halves`. Language models do not see them.
        callback_manager: as every retriever's.
        object_map: as every retriever's.
        verbose: as every retriever's.
        unknown: refused, with the right name for common guesses.

    Raises:
        StoreError: the folder holds no store.
        ConfigurationError: an option is unknown or has an invalid value.
        FingerprintError: `embed_model` is of another space than the store's model.

    Example:
        >>> with MultiVectorStore.open("my-index") as store:  # or its folder as it is: ColPaliRetriever("my-index")
        ...     [best] = ColPaliRetriever(store, similarity_top_k=1).retrieve("diverging palettes")
        >>> best.metadata["page"], 0 < best.score <= 1
        (1, True)
    """

    def __init__(
        self,
        store: ColPaliVectorStore | VectorStoreIndex | MultiVectorStore | str | os.PathLike[str],
        *,
        embed_model: ColPaliEmbedding | None = None,
        similarity_top_k: int = 5,
        vector_store_query_mode: VectorStoreQueryMode | str = VectorStoreQueryMode.DEFAULT,
        alpha: float | None = None,
        filters: MetadataFilters | None = None,
        node_ids: list[str] | None = None,
        doc_ids: list[str] | None = None,
        hybrid_top_k: int | None = None,
        sparse_top_k: int | None = None,
        vector_store_kwargs: Mapping[str, Any] | None = None,
        hybrid: Hybrid = "auto",
        min_relevance: float | None = None,
        search_mode: Mode | None = None,
        oversampling: float | None = None,
        regions: bool = False,
        halves: bool = False,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        verbose: bool = False,
        **unknown: Any,
    ) -> None:
        if unknown:
            raise unknown_option("ColPaliRetriever", unknown, option_names(), _GUESSES)
        self.vector_store = _vector_store(store, embed_model)
        self.query = VectorStoreQuery(
            similarity_top_k=similarity_top_k,
            mode=vector_store_query_mode,  # type: ignore[arg-type]  # compared by value
            alpha=alpha,
            filters=filters,
            node_ids=node_ids,
            doc_ids=doc_ids,
            hybrid_top_k=hybrid_top_k,
            sparse_top_k=sparse_top_k,
        )
        options = {"search_mode": search_mode, "oversampling": oversampling, "min_relevance": min_relevance}
        self.options = {
            **{name: value for name, value in options.items() if value is not None},
            **{"hybrid": hybrid, "regions": regions, "halves": halves},
            **(vector_store_kwargs or {}),
        }
        self.vector_store.check_query(self.query, **self.options)
        super().__init__(callback_manager=callback_manager, object_map=object_map, verbose=verbose)

    def narrowed(self, *filters: MetadataFilters | None) -> ColPaliRetriever:
        """Make a retriever that finds only the nodes that match its own filters and all of these.

        Args:
            filters: further filters; None restricts nothing.

        Raises:
            InputError: the filters are invalid.

        Example:
            >>> from llama_index.core.vector_stores import MetadataFilter
            >>> retriever = ColPaliRetriever("my-index")
            >>> second = MetadataFilters(filters=[MetadataFilter(key="page", value=2)])
            >>> [found.metadata["page"] for found in retriever.narrowed(second).retrieve("palettes")]
            [2]
        """
        for one in filters:
            store_filter(one, scan=lambda where: ())  # raises the error of invalid ones
        several: list[Any] = [one for one in (self.query.filters, *filters) if one is not None]
        twin = copy.copy(self)
        twin.query = replace(self.query, filters=MetadataFilters(filters=several) if several else None)
        return twin

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        query = replace(self.query, query_str=query_bundle.query_str)
        result = self.vector_store.query(query, **self.options, embedding_strs=query_bundle.custom_embedding_strs)
        pairs = zip(result.nodes or [], result.similarities or [], strict=True)
        return [NodeWithScore(node=node, score=score) for node, score in pairs]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await offload(lambda: self._retrieve(query_bundle), "queries")


def option_names() -> frozenset[str]:
    """The options of `ColPaliRetriever`."""
    return frozenset(inspect.signature(ColPaliRetriever).parameters) - {"store", "unknown"}


def _vector_store(store: Any, embed_model: ColPaliEmbedding | None) -> ColPaliVectorStore:
    if isinstance(store, (str, os.PathLike)):
        store = MultiVectorStore.open(store)
    if isinstance(store, MultiVectorStore):
        return ColPaliVectorStore(store, embed_model=embed_model)
    vector_store = store.vector_store if isinstance(store, VectorStoreIndex) else store
    if not isinstance(vector_store, ColPaliVectorStore):
        raise ConfigurationError(
            "a ColPaliRetriever searches a ColPaliVectorStore, an index over one, a MultiVectorStore or the folder of "
            f"one, got {type(vector_store).__name__}"
        )
    if embed_model is None:
        return vector_store
    embed_model = embedding_for(embed_model, vector_store.client.settings, where=vector_store.client.where)
    vector_store.client.require_space(embed_model.model)
    return vector_store.model_copy(update={"embed_model": embed_model})
