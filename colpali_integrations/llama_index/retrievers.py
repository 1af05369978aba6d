"""`ColPaliRetriever`: questions to the pages of a `PageStore`, by late interaction."""

from __future__ import annotations

import mimetypes
import os

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.callbacks.base import CallbackManager
from llama_index.core.schema import NodeWithScore, QueryBundle

from colpali_integrations.core.errors import ConfigurationError
from colpali_integrations.core.offload import offload
from colpali_integrations.llama_index.embeddings import ColPaliEmbedding
from colpali_integrations.llama_index.pages import page_node
from colpali_integrations.stores import Fingerprint, Hit, PageStore

__all__ = ["ColPaliRetriever"]


class ColPaliRetriever(BaseRetriever):
    """Finds the pages of a `PageStore` that answer a question: every vector of the question against every page.

    A page comes as `PdfPageReader` gives it: an `ImageNode` with the text layer, or "report.pdf, page 7" where it has
    none; `source` and `page` (1-based) in the metadata; and a reference to its picture. `PageImagePostprocessor` puts
    the pictures in, for `RetrieverQueryEngine.from_args(retriever, multimodal=True, node_postprocessors=[...])`.

    The score is MaxSim. It grows with the number of the question's words, so it ranks the answers to one question; a
    fixed similarity cutoff means nothing.

    Args:
        store: a `PageStore`, or the folder of one.
        embed_model: what embeds the questions; None for the model that the store was made by.
        similarity_top_k: how many pages.
        callback_manager: as every retriever's.
        verbose: as every retriever's.

    Raises:
        StoreError: no store in that folder.
        ConfigurationError: `similarity_top_k` is below 1.

    Example:
        >>> retriever = ColPaliRetriever("my-index", similarity_top_k=3)    # doctest: +SKIP
        >>> for found in retriever.retrieve("revenue by region"):           # doctest: +SKIP
        ...     print(found.metadata["source"], found.metadata["page"], found.score)
    """

    def __init__(
        self,
        store: PageStore | str | os.PathLike[str],
        *,
        embed_model: ColPaliEmbedding | None = None,
        similarity_top_k: int = 5,
        callback_manager: CallbackManager | None = None,
        verbose: bool = False,
    ) -> None:
        if similarity_top_k < 1:
            raise ConfigurationError(f"similarity_top_k must be at least 1, got {similarity_top_k}")
        self.store = store if isinstance(store, PageStore) else PageStore(store)
        self.embed_model = embed_model or ColPaliEmbedding(model_name=self.store.model.name)
        self.similarity_top_k = similarity_top_k
        super().__init__(callback_manager=callback_manager, verbose=verbose)

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [_node(hit) for hit in self._search(query_bundle.query_str)]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await offload(lambda: self._retrieve(query_bundle), "queries")

    def _search(self, query: str) -> list[Hit]:
        at_hand = Fingerprint.of(self.embed_model.model.description)
        self.store.model.require(at_hand, where=str(self.store.folder))
        return self.store.search(self.embed_model.get_query_multi_vector(query), k=self.similarity_top_k)


def _node(hit: Hit) -> NodeWithScore:
    node = page_node(hit.page.content, hit.page.reference)
    if node.image_mimetype is None and node.image is None:
        # A multimodal query engine writes "data:None;base64,..." for an image file whose type nobody named.
        node.image_mimetype = mimetypes.guess_type(hit.page.source)[0] if hit.page.dpi is None else None
    return NodeWithScore(node=node, score=hit.score)
