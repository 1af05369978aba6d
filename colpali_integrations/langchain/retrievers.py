"""`ColPaliRetriever`: questions to the pages of a `PageStore`, by late interaction."""

from __future__ import annotations

import os
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from pydantic import ConfigDict, Field

from colpali_integrations.core.errors import ConfigurationError
from colpali_integrations.core.offload import offload
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.stores import Fingerprint, Hit, PageStore

__all__ = ["ColPaliRetriever"]


class ColPaliRetriever(BaseRetriever):
    """Finds the pages of a `PageStore` that answer a question: every vector of the question against every page.

    A page comes as a Document: `page_content` is its text layer, or "report.pdf, page 7" where it has none; metadata
    hold `source`, `page` (1-based), `score` and what `PdfPageLoader` gives, so that `image_blocks` can show the page to
    a multimodal chat model.

    The score is MaxSim. It grows with the number of the question's words, so it ranks the answers to one question; a
    fixed threshold means nothing.

    Attributes:
        store: a `PageStore`, or the folder of one.
        embeddings: what embeds the questions; None for the model that the store was made by.
        k: how many pages; `invoke(question, k=3)` says it for one call.

    Raises:
        StoreError: no store in that folder.
        pydantic.ValidationError: an argument of the wrong kind, or an unknown one.

    Example:
        >>> retriever = ColPaliRetriever(store="my-index", k=3)             # doctest: +SKIP
        >>> for page in retriever.invoke("revenue by region"):              # doctest: +SKIP
        ...     print(page.metadata["source"], page.metadata["page"], page.metadata["score"])
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: PageStore
    embeddings: ColPaliEmbeddings
    k: int = Field(default=5, ge=1)

    def __init__(
        self, *, store: PageStore | str | os.PathLike[str], embeddings: ColPaliEmbeddings | None = None, **fields: Any
    ) -> None:
        opened = store if isinstance(store, PageStore) else PageStore(store)
        fields |= {"store": opened, "embeddings": embeddings or ColPaliEmbeddings(model_name=opened.model.name)}
        super().__init__(**fields)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_document(hit) for hit in self._search(query, k)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_document(hit) for hit in await offload(lambda: self._search(query, k), "queries")]

    def _search(self, query: str, k: int | None) -> list[Hit]:
        if k is not None and k < 1:
            raise ConfigurationError(f"k must be at least 1, got {k}")
        at_hand = Fingerprint.of(self.embeddings.client.description)
        self.store.model.require(at_hand, where=str(self.store.folder))
        return self.store.search(self.embeddings.embed_query_multi_vector(query), k=self.k if k is None else k)


def _document(hit: Hit) -> Document:
    metadata = {**hit.page.reference, "score": hit.score}
    return Document(page_content=hit.page.content, metadata=metadata, id=hit.page.key)
