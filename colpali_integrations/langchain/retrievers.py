"""`ColPaliRetriever`: questions to the pages that answer them, by late interaction."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever, LangSmithRetrieverParams
from langchain_core.runnables import RunnableConfig
from pydantic import ConfigDict, Field, field_validator

from colpali_integrations.errors import ColPaliError
from colpali_integrations.langchain.batching import abatch_retrievals, batch_retrievals
from colpali_integrations.langchain.embeddings import ColPaliEmbeddings
from colpali_integrations.langchain.pages import document_of
from colpali_integrations.langchain.searching import Where, find
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore, opened
from colpali_integrations.models.prompt import check_query
from colpali_integrations.runtime.arrays import Float32
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import Hit, MultiVectorStore, parse_filter
from colpali_integrations.stores.fusion import Hybrid, text_weight
from colpali_integrations.stores.store import Mode

__all__ = ["ColPaliRetriever"]


class ColPaliRetriever(BaseRetriever):
    """Finds the pages and texts of a store that answer a question: all its vectors against all of theirs.

    A Document comes as it was stored, with its id, and in its metadata beside what was there:

    - `score`: what it is ranked by, MaxSim or in a hybrid search the fused score. It grows with the number of the
      question's words: it ranks the answers to one question and compares nothing else.
    - `relevance`: MaxSim as a share of the highest possible for the question, in [0, 1].
    - `regions`, on request: where on the page the question's words are answered, best first, each with `token`,
      `score`, `share`, `box` (left, top, right, bottom as fractions of the page) and the box in `points` (a PDF's) or
      `pixels` (an image's); [] for a text.

    So `image_blocks` can show the page to a multimodal chat model. Every field but the first two may also be an
    argument of one call: `invoke(question, k=3, filter={"year": 2024})`. `batch` and `abatch` encode all questions
    together and search once; each question keeps its own callbacks, trace and error.

    Attributes:
        store: a `ColPaliVectorStore`, a `MultiVectorStore`, or the folder of one.
        embeddings: what embeds the questions; None for the store's own, or the model that the store was made by.
        k: how many Documents at most.
        filter: only Documents whose metadata fit; see `ColPaliVectorStore.similarity_search`.
        score_threshold: only Documents of at least this relevance, in [0, 1]. What is a good one differs between
            models, and is far below what single vectors make usual: see `scoring.maxsim.relevance`.
        mode: "exact", "two_stage" or "auto"; see `MultiVectorStore.search`.
        oversampling: how many times `k` the first of two stages hands on.
        hybrid: fuse with BM25 over the texts: True or "rrf" by reciprocal ranks, a number as the weight of the text.
        regions: whether Documents come with `regions`.

    Raises:
        StoreError: no store in that folder.
        FingerprintError: the store was made by another model than the embeddings'.
        pydantic.ValidationError: an argument of the wrong kind, or an unknown one.

    Example:
        >>> store = ColPaliVectorStore.from_texts(["the harbour at low tide", "rates of tax"])
        >>> retriever = ColPaliRetriever(store=store, k=1)
        >>> retriever.invoke("when is the tide low")[0].page_content
        'the harbour at low tide'
        >>> [found[0].page_content for found in retriever.batch(["tide", "tax"])]
        ['the harbour at low tide', 'rates of tax']

        Pages, and where on them:

        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     retriever = ColPaliRetriever(store=store, k=1, hybrid=True, regions=True)
        ...     [page] = retriever.invoke("diverging palettes")
        >>> page.metadata["page"], page.metadata["regions"][0]["token"] in ("diverging", "palettes")
        (1, True)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    store: ColPaliVectorStore
    embeddings: ColPaliEmbeddings
    k: int = Field(default=5, ge=1)
    filter: Any = None
    score_threshold: float | None = Field(default=None, ge=0, le=1)
    mode: Mode = "auto"
    oversampling: float | None = Field(default=None, ge=1)
    hybrid: bool | Literal["rrf"] | float = False
    regions: bool = False

    def __init__(
        self,
        *,
        store: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str],
        embeddings: ColPaliEmbeddings | None = None,
        **fields: Any,
    ) -> None:
        there = opened(store, embeddings)
        super().__init__(**fields | {"store": there, "embeddings": embeddings or there.embeddings})

    @field_validator("filter")
    @classmethod
    def _check_filter(cls, given: Any) -> Any:
        if not callable(given):
            parse_filter(given)
        return given

    @field_validator("hybrid")
    @classmethod
    def _check_hybrid(cls, given: Hybrid) -> Hybrid:
        if given is not False:
            text_weight(given)
        return given

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return self._answer(query, options)

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        return await offload(lambda: self._answer(query, options), "queries")

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`invoke` for several questions, which are encoded together and searched for in one pass.

        Args:
            inputs: the questions.
            config: for all, or of each. `max_concurrency` has no meaning here.
            return_exceptions: put the error of a question in the place of its Documents; otherwise the first is
                raised, after all questions were answered.
            **kwargs: options of `invoke`, for all.
        """
        if type(self)._get_relevant_documents is not ColPaliRetriever._get_relevant_documents:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return batch_retrievals(self, self._answers, inputs, config, return_exceptions, kwargs)

    async def abatch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`batch` without blocking the event loop."""
        if type(self)._aget_relevant_documents is not ColPaliRetriever._aget_relevant_documents:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        return await abatch_retrievals(self, self._answers, inputs, config, return_exceptions, kwargs)

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """What a trace says of the retriever."""
        return LangSmithRetrieverParams(
            **super()._get_ls_params(**kwargs),
            ls_vector_store_provider=type(self.store).__name__,
            ls_embedding_provider=type(self.embeddings).__name__,
            ls_embedding_model=str(self.embeddings.model_name),
        )

    # -----------------------------------------------------------------------------------------------------------

    def _answer(self, query: str, options: dict[str, Any]) -> list[Document]:
        [found] = self._answers([query], options)
        if isinstance(found, Exception):
            raise found
        return found

    def _answers(self, queries: Sequence[str], options: dict[str, Any]) -> list[list[Document] | Exception]:
        """The Documents for each question, or the error of one that cannot be encoded."""
        return self._found(queries, **options)

    def _found(
        self,
        queries: Sequence[str],
        *,
        k: int | None = None,
        filter: Where = None,
        score_threshold: float | None = None,
        mode: Mode | None = None,
        oversampling: float | None = None,
        hybrid: Hybrid | None = None,
        regions: bool | None = None,
    ) -> list[list[Document] | Exception]:
        encoded = self._encoded(queries)
        good = [index for index, one in enumerate(encoded) if not isinstance(one, Exception)]
        vectors = [one for one in encoded if not isinstance(one, Exception)]
        found = find(
            self.store.store,
            vectors,
            self.k if k is None else k,
            texts=[queries[index] for index in good],
            filter=self.filter if filter is None else filter,
            score_threshold=self.score_threshold if score_threshold is None else score_threshold,
            mode=mode or self.mode,
            oversampling=self.oversampling if oversampling is None else oversampling,
            hybrid=self.hybrid if hybrid is None else hybrid,
        )
        with_places = self.regions if regions is None else regions
        results: list[list[Document] | Exception] = [one if isinstance(one, Exception) else [] for one in encoded]
        for index, array, hits in zip(good, vectors, found, strict=True):
            places = self._places(queries[index], array, hits) if with_places else None
            results[index] = [_document(hit, places) for hit in hits]
        return results

    def _encoded(self, queries: Sequence[str]) -> list[Float32 | Exception]:
        """The vectors of each question, or its error; all in one run of the encoder."""
        results: list[Float32 | Exception | None] = []
        for query in queries:
            try:
                check_query(query)
            except ColPaliError as error:
                results.append(error)
            else:
                results.append(None)
        good = [query for query, result in zip(queries, results, strict=True) if result is None]
        vectors = iter(self.embeddings.embed_queries_multi_vector(good))
        return [next(vectors) if result is None else result for result in results]

    def _places(self, query: str, vectors: Float32, hits: Sequence[Hit]) -> dict[str, list[dict[str, Any]]]:
        tokens = self.embeddings.model.query_tokens(query)
        return self.store.store.regions(vectors, [hit.id for hit in hits], tokens=tokens)


def _document(hit: Hit, places: dict[str, list[dict[str, Any]]] | None) -> Document:
    found = document_of(hit.entry)
    found.metadata |= {"score": hit.score, "relevance": hit.relevance}
    if places is not None:
        found.metadata["regions"] = places.get(hit.id, [])
    return found
