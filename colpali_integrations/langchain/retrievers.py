"""`ColPaliRetriever`: questions to the pages of a `PageStore`, by late interaction."""

from __future__ import annotations

import os
from typing import Annotated, Any

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables.config import run_in_executor
from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from colpali_integrations.core.errors import ConfigurationError
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.stores import Fingerprint, Hit, PageStore

__all__ = ["ColPaliRetriever"]


def _opened(value: Any) -> Any:
    return PageStore(value) if isinstance(value, (str, os.PathLike)) else value


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

    Example:
        >>> retriever = ColPaliRetriever(store="my-index", k=3)             # doctest: +SKIP
        >>> for page in retriever.invoke("revenue by region"):              # doctest: +SKIP
        ...     print(page.metadata["source"], page.metadata["page"], page.metadata["score"])
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: Annotated[PageStore, BeforeValidator(_opened)]
    embeddings: ColPaliEmbeddings = Field(default=None, validate_default=False)  # type: ignore[assignment]
    k: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _take_model_of_store(self) -> ColPaliRetriever:
        if self.embeddings is None:
            self.embeddings = ColPaliEmbeddings(model_name=self.store.model.name)
        return self

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_document(hit) for hit in self._search(query, k)]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, k: int | None = None
    ) -> list[Document]:
        return [_document(hit) for hit in await run_in_executor(None, self._search, query, k)]

    def _search(self, query: str, k: int | None) -> list[Hit]:
        if k is not None and k < 1:
            raise ConfigurationError(f"k must be at least 1, got {k}")
        at_hand = Fingerprint.of(self.embeddings.client.description)
        self.store.model.require(at_hand, where=str(self.store.folder))
        return self.store.search(self.embeddings.embed_query_multi_vector(query), k=self.k if k is None else k)


def _document(hit: Hit) -> Document:
    metadata = {**hit.page.reference, "score": hit.score}
    return Document(page_content=hit.page.content, metadata=metadata, id=hit.page.key)
