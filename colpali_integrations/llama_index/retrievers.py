"""`ColPaliRetriever`: questions to pages, by late interaction."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import BaseNode, NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from colpali_integrations.errors import ConfigurationError
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.filters import store_filter
from colpali_integrations.llama_index.nodes import node_of
from colpali_integrations.llama_index.searching import encode_question, search
from colpali_integrations.llama_index.vector_stores import ColPaliVectorStore
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.fusion import Hybrid, text_weight
from colpali_integrations.stores.store import Mode

__all__ = ["ColPaliRetriever"]


class ColPaliRetriever(BaseRetriever):
    """Finds the pages that answer a question: every vector of the question against every vector of a page.

    Nodes come as they were added; pages that the command line or LangChain indexed come as `PdfPageReader` gives them:
    an `ImageNode` with the text layer, or "report.pdf, page 7" where it has none, and `source` and `page` (1-based) in
    the metadata. A page draws its picture when a multimodal model asks for it, so that
    `RetrieverQueryEngine.from_args(retriever, llm=llm, multimodal=True)` works as it is.

    The score is the relevance, in [0, 1]: MaxSim over the highest possible for the question. A fixed cutoff
    (`SimilarityPostprocessor`, `min_relevance`) is to be chosen for the model: relevant pages have higher values with
    some than others. In a hybrid search the score is the fused one, where 1 is the best by both.

    A `QueryBundle` with `custom_embedding_strs`, such as of a `HyDEQueryTransform`, is searched for by the vectors of
    all of these.

    Args:
        store: a `ColPaliVectorStore`, a `MultiVectorStore`, or the folder of one.
        embed_model: what embeds the questions; None for the store's model.
        similarity_top_k: how many nodes at most.
        filters: only nodes that fit.
        min_relevance: leave out nodes of a lower relevance, in [0, 1].
        mode: "exact", "two_stage", or "auto", which is two stages for large stores that have them.
        oversampling: how many times `similarity_top_k` the first of two stages hands on.
        hybrid: fuse with BM25 over the texts: True or "rrf" by ranks, a number as the weight of the text.
        regions: put into `metadata["regions"]` where on the page the answer is: boxes as fractions of the page and in
            points (pixels for images). Models do not see it.
        callback_manager: as every retriever's.
        object_map: as every retriever's.
        verbose: as every retriever's.

    Raises:
        StoreError: no store in that folder.
        ConfigurationError: an option that cannot be.
        FingerprintError: `embed_model` is not the store's model; raised at the first question.

    Example:
        >>> with MultiVectorStore.open("my-index") as store:  # or its folder as it is: ColPaliRetriever("my-index")
        ...     [found] = ColPaliRetriever(store, similarity_top_k=1).retrieve("diverging palettes")
        >>> found.metadata["page"], 0 < found.score <= 1
        (1, True)
    """

    def __init__(
        self,
        store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str],
        *,
        embed_model: ColPaliEmbedding | None = None,
        similarity_top_k: int = 5,
        filters: MetadataFilters | None = None,
        min_relevance: float | None = None,
        mode: Mode = "auto",
        oversampling: float | None = None,
        hybrid: Hybrid = False,
        regions: bool = False,
        callback_manager: CallbackManager | None = None,
        object_map: dict[str, Any] | None = None,
        verbose: bool = False,
    ) -> None:
        if similarity_top_k < 1:
            raise ConfigurationError(f"similarity_top_k must be at least 1, got {similarity_top_k}")
        if min_relevance is not None and not 0 <= min_relevance <= 1:
            raise ConfigurationError(f"min_relevance must be between 0 and 1, got {min_relevance}")
        if hybrid is not False:
            text_weight(hybrid)
        if isinstance(store, ColPaliVectorStore):
            self.store, embed_model = store.client, embed_model or store.embedding
        else:
            self.store = store if isinstance(store, MultiVectorStore) else MultiVectorStore.open(store)
        self.embed_model = embed_model or ColPaliEmbedding(model_name=self.store.model.name)
        self.similarity_top_k = similarity_top_k
        self.filters, self.min_relevance = filters, min_relevance
        self.mode, self.oversampling, self.hybrid, self.regions = mode, oversampling, hybrid, regions
        self._checked: object = None
        super().__init__(callback_manager=callback_manager, object_map=object_map, verbose=verbose)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        model = self.embed_model.model
        if model is not self._checked:
            self.store.require(model)
            self._checked = model
        texts = query_bundle.custom_embedding_strs or [query_bundle.query_str]
        vectors = encode_question(self.embed_model, texts)
        found = search(
            self.store,
            vectors,
            query_bundle.query_str,
            self.similarity_top_k,
            where=store_filter(self.filters, self.store.scroll),
            mode=self.mode,
            oversampling=self.oversampling,
            min_relevance=self.min_relevance,
            hybrid=self.hybrid,
        )
        places: Mapping[str, Any] = {}
        if self.regions:
            tokens = [token for text in texts for token in model.query_tokens(text)]
            places = self.store.regions(vectors, [one.hit.id for one in found], tokens=tokens)
        nodes = []
        for one in found:
            node = node_of(one.hit.entry)
            if self.regions:
                _put_regions(node, places.get(one.hit.id, []))
            nodes.append(NodeWithScore(node=node, score=one.similarity))
        return nodes

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await offload(lambda: self._retrieve(query_bundle), "queries")


def _put_regions(node: BaseNode, boxes: list[dict[str, Any]]) -> None:
    node.metadata["regions"] = boxes
    for hidden in (node.excluded_llm_metadata_keys, node.excluded_embed_metadata_keys):
        if "regions" not in hidden:
            hidden.append("regions")
