"""`ColPaliRetriever`: the retriever of a `ColPaliVectorStore`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from threading import Lock
from typing import Any, TypeAlias, TypeVar

from langchain_core.callbacks import AsyncCallbackManagerForRetrieverRun, CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.retrievers import LangSmithRetrieverParams
from langchain_core.runnables import RunnableConfig
from langchain_core.vectorstores import VectorStoreRetriever
from pydantic import ConfigDict

from colpali_integrations._options import checked_whole, unknown_option
from colpali_integrations.errors import QueryError
from colpali_integrations.langchain._documents import document_of
from colpali_integrations.langchain._searching import OPTION_GUESSES, SEARCH_OPTIONS, search_options
from colpali_integrations.langchain.vectorstores import ColPaliVectorStore, open_vectorstore
from colpali_integrations.models.encoding import check_query
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import Hit, MultiVectorStore
from colpali_integrations.stores.hits import DOUBTFUL
from colpali_integrations.stores.mmr import diverse

__all__ = ["ColPaliRetriever"]

T = TypeVar("T")
# The answers to each question of a batch; a question may be asked several times.
_Answers: TypeAlias = dict[str, list[list[Document]]]

# Defaults of `k` and of the options that only a retriever has.
_DEFAULTS = {"k": 4, "regions": False, "fetch_k": 20, "lambda_mult": 0.5}
_OPTIONS = SEARCH_OPTIONS.keys() | _DEFAULTS.keys()
# The option by which a batch passes its answers to the run of each question.
_BATCH = "_batch"


class ColPaliRetriever(VectorStoreRetriever):
    """Retriever of the pages and texts that answer a question best, by late interaction.

    A Document is returned as it was stored, with its id and these additional metadata:

    - `score`: the ranking score: the fused score of a hybrid search, in [0, 1], else MaxSim, which grows with the
      number of words in the question. It ranks the answers to one question and compares nothing else.
    - `relevance_score`: MaxSim as a share of the highest possible for the question, in [0, 1].
    - `doubtful`: whether no page seems to answer the question, as `stores.Hits.doubtful`; the same on all of an answer.
      False for models of which nothing was measured.
    - `halves`, of a hybrid search: `sight` and `words`, the shares by look and by text that the score is made of, and
      `weight`, that of the words for this question; see `stores.Halves`.
    - `regions`, on request: a list of the boxes on the page that match the question's words, best first, each with
      `token`, `score`, `share`, `box` (left, top, right, bottom as fractions of the page) and the box in `points` (of a
      PDF) or `pixels` (of an image). It is empty for a text, and where no word matches.

    Options are set in `search_kwargs` and may be overridden per call: `invoke(question, k=3)`. Only the `filter` of a
    call does not replace the retriever's own: Documents must fit both, so that a call cannot leave the tenant of its
    retriever. `batch` and `abatch` encode all questions together and search once; each question keeps its own
    callbacks, trace and error.

    Attributes:
        vectorstore: a `ColPaliVectorStore`, a `MultiVectorStore`, or the folder of one.
        search_type: "similarity", "similarity_score_threshold" or "mmr".
        search_kwargs: `k`, `filter`, `score_threshold`, `mode`, `oversampling` and `hybrid` as in
            `ColPaliVectorStore.similarity_search`, where `hybrid` is "auto" by default; `regions=True`;
            `fetch_k` and `lambda_mult` for "mmr".

    Raises:
        StoreError: the folder has no store.
        ConfigurationError: an option is unknown or has an invalid value.
        InputError: the filter is invalid.
        pydantic.ValidationError: a field has the wrong type.

    Example:
        >>> store = ColPaliVectorStore.from_texts(["the harbour at low tide", "rates of tax"])
        >>> retriever = store.as_retriever(search_kwargs={"k": 1})
        >>> retriever.invoke("when is the tide low")[0].page_content
        'the harbour at low tide'
        >>> [documents[0].page_content for documents in retriever.batch(["tide", "tax"])]
        ['the harbour at low tide', 'rates of tax']

        Pages with regions:

        >>> with ColPaliVectorStore(path="my-index") as store:
        ...     retriever = ColPaliRetriever(vectorstore=store, search_kwargs={"k": 1, "hybrid": True, "regions": True})
        ...     [page] = retriever.invoke("diverging palettes")
        >>> page.metadata["page"], {region["token"] for region in page.metadata["regions"]} <= {"diverging", "palettes"}
        (1, True)
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    vectorstore: ColPaliVectorStore

    def __init__(
        self,
        *,
        vectorstore: ColPaliVectorStore | MultiVectorStore | str | os.PathLike[str],
        search_type: str = "similarity",
        search_kwargs: dict[str, Any] | None = None,
        **fields: Any,
    ) -> None:
        if fields.keys() - type(self).model_fields:
            inside = {name: f"pass search_kwargs={{{name!r}: {fields.get(name)!r}}}" for name in _OPTIONS}
            raise unknown_option(type(self).__name__, fields, type(self).model_fields, inside)
        options = search_kwargs or {}
        if options.keys() - _OPTIONS:
            raise unknown_option("search_kwargs", options, _OPTIONS, OPTION_GUESSES)
        where = options.get("filter")
        search_options({**options, "filter": None if callable(where) else where})  # refuses invalid values
        opened = open_vectorstore(vectorstore)
        super().__init__(vectorstore=opened, search_type=search_type, search_kwargs=options, **fields)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        batch: Callable[[], _Answers] | None = options.pop(_BATCH, None)
        if batch is not None and _is_question(query):
            return batch()[query].pop()
        return self._answers([query], options)[0]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **options: Any
    ) -> list[Document]:
        batch: asyncio.Future[_Answers] | None = options.pop(_BATCH, None)
        try:
            if batch is not None and _is_question(query):
                return (await asyncio.shield(batch))[query].pop()
            return await offload(lambda: self._answers([query], options)[0], "queries")
        except asyncio.CancelledError as error:
            await run_manager.on_retriever_error(error)  # LangChain ends a run only at an `Exception`
            raise

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Do `invoke` for several questions, which are encoded together and answered in one pass.

        Args:
            inputs: the questions.
            config: for all questions, or one per question.
            return_exceptions: put the error of a question in the place of its Documents, instead of raising the first.
            **kwargs: options of `invoke`, for all.
        """
        if inputs and type(self)._get_relevant_documents is ColPaliRetriever._get_relevant_documents:
            kwargs[_BATCH] = _once(partial(self._batch, inputs, dict(kwargs)))
        return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

    async def abatch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`batch` without blocking the event loop."""
        if inputs and type(self)._aget_relevant_documents is ColPaliRetriever._aget_relevant_documents:
            answers = offload(partial(self._batch, inputs, dict(kwargs)), "queries")
            kwargs[_BATCH] = asyncio.ensure_future(answers)
        found: list[Any] = await super().abatch(inputs, config, return_exceptions=True, **kwargs)
        # Without this, LangChain raises the error that comes first in time, so that two runs may differ.
        errors = [one for one in found if isinstance(one, BaseException)]
        if errors and not return_exceptions:
            raise errors[0]
        return found

    # -----------------------------------------------------------------------------------------------------------

    def _batch(self, questions: Sequence[str], call: dict[str, Any]) -> _Answers:
        """Answer several questions in one pass, without the invalid ones, whose runs raise errors of their own."""
        questions = [question for question in questions if _is_question(question)]
        answers: _Answers = {}
        for question, documents in zip(questions, self._answers(questions, call) if questions else [], strict=True):
            answers.setdefault(question, []).append(documents)
        return answers

    def _answers(self, questions: Sequence[str], call: dict[str, Any]) -> list[list[Document]]:
        """Find the Documents per question."""
        if call.keys() - _OPTIONS:
            raise unknown_option("invoke", call, _OPTIONS, OPTION_GUESSES)
        for question in questions:
            check_query(question)  # an error of its own, without a position
        store, options = self.vectorstore, {**_DEFAULTS, **self.search_kwargs, **call}
        ours, theirs = self.search_kwargs.get("filter"), call.get("filter")
        options["filter"] = store.parsed_filter(ours, theirs) if ours and theirs else ours or theirs
        k, fetch_k, lambda_mult, regions = (options.pop(name) for name in ("k", "fetch_k", "lambda_mult", "regions"))
        mmr = self.search_type == "mmr"
        vectors = store.embeddings.embed_queries_multi_vector(questions)
        most = max(checked_whole(k, "k"), checked_whole(fetch_k, "fetch_k")) if mmr else k
        results = store.find(vectors, texts=questions, k=most, **options)
        answers = []
        for question, array, hits in zip(questions, vectors, results, strict=True):
            chosen = diverse(store.store, hits, k, lambda_mult=lambda_mult) if mmr else hits
            documents = [_document(hit, doubtful=hits.doubtful) for hit in chosen]
            if regions:
                tokens = store.model.query_tokens(question)
                boxes = store.store.regions(array, [hit.id for hit in chosen], tokens=tokens)
                for hit, document in zip(chosen, documents, strict=True):
                    document.metadata["regions"] = boxes.get(hit.id, [])
            answers.append(documents)
        return answers

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """Add the model to the metadata of a trace."""
        params = super()._get_ls_params(**kwargs)
        params["ls_embedding_model"] = str(self.vectorstore.embeddings.model_name)
        return params


ColPaliVectorStore._retriever = ColPaliRetriever


def _document(hit: Hit, *, doubtful: bool) -> Document:
    halves: dict[str, Any] = {} if hit.halves is None else {"halves": hit.halves.to_dict()}
    return document_of(hit.entry, score=hit.score, relevance_score=hit.relevance, **halves, **{DOUBTFUL: doubtful})


def _is_question(query: object) -> bool:
    try:
        check_query(query)
    except QueryError:
        return False
    return True


def _once(call: Callable[[], T]) -> Callable[[], T]:
    """Make a function whose first caller runs `call`; callers in other threads wait, and share result or error."""
    lock, future = Lock(), Future[T]()

    def result() -> T:
        with lock:
            if not future.done():
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
        return future.result()

    return result
