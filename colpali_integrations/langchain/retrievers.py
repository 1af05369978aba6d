"""`ColPaliRetriever`: the retriever of a `ColPaliVectorStore`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManager,
    AsyncCallbackManagerForRetrieverRun,
    CallbackManager,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.retrievers import LangSmithRetrieverParams
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list
from langchain_core.vectorstores import VectorStoreRetriever
from numpy.typing import ArrayLike
from pydantic import ConfigDict

from colpali_integrations._options import unknown_option
from colpali_integrations.errors import ColPaliError
from colpali_integrations.langchain._documents import document_of
from colpali_integrations.langchain.vectorstores import (
    SEARCH_OPTIONS,
    ColPaliVectorStore,
    check_options,
    open_vectorstore,
    search_options,
)
from colpali_integrations.models.prompt import check_query
from colpali_integrations.runtime.threads import offload
from colpali_integrations.stores import Hit, MultiVectorStore

__all__ = ["ColPaliRetriever"]

_OPTIONS = (*SEARCH_OPTIONS, "regions", "fetch_k", "lambda_mult")


class ColPaliRetriever(VectorStoreRetriever):
    """Finds the pages and texts of a store that answer a question, by late interaction.

    A Document comes as it was stored, with its id, and with these metadata:

    - `score`: the value by which it is ranked, MaxSim or in a hybrid search the fused score. It grows with the number
      of the question's words: it ranks the answers to one question and compares nothing else.
    - `relevance_score`: MaxSim as a share of the highest possible for the question, in [0, 1].
    - `regions`, on request: a list of the boxes on the page that answer the question's words, best first, each with
      `token`, `score`, `share`, `box` (left, top, right, bottom as fractions of the page) and the box in `points` (of a
      PDF) or `pixels` (of an image). It is empty for a text, and where no word matches.

    Options stand in `search_kwargs`, and may be overridden per call: `invoke(question, k=3)`. Only `filter` of a call
    does not replace the retriever's own: both must hold, so that a retriever of one tenant's pages stays one. `batch`
    and `abatch` encode all questions together and search once; each question keeps its own callbacks, trace and error.

    Attributes:
        vectorstore: a `ColPaliVectorStore`, a `MultiVectorStore`, or the folder of one.
        search_type: "similarity", "similarity_score_threshold" or "mmr".
        search_kwargs: `k`, `filter`, `score_threshold`, `mode`, `oversampling` and `hybrid` as in
            `ColPaliVectorStore.similarity_search`; `regions=True`; `fetch_k` and `lambda_mult` for "mmr".

    Raises:
        StoreError: no store in that folder.
        ConfigurationError: an option is unknown or has an invalid value.
        InputError: a filter that cannot be read.
        pydantic.ValidationError: a field of the wrong type.

    Example:
        >>> store = ColPaliVectorStore.from_texts(["the harbour at low tide", "rates of tax"])
        >>> retriever = store.as_retriever(search_kwargs={"k": 1})
        >>> retriever.invoke("when is the tide low")[0].page_content
        'the harbour at low tide'
        >>> [found[0].page_content for found in retriever.batch(["tide", "tax"])]
        ['the harbour at low tide', 'rates of tax']

        Pages, and the regions that answer:

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
        _check_fields(type(self), fields)
        options = search_kwargs or {}
        check_options("search_kwargs", options, _OPTIONS)
        where = options.get("filter")
        search_options(options, None if callable(where) else where)  # refuses invalid values
        opened = open_vectorstore(vectorstore)
        super().__init__(vectorstore=opened, search_type=search_type, search_kwargs=options, **fields)

    def _get_relevant_documents(
        self, query: str, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found: list[list[Document]] = _unwrapped(self._answers([query], kwargs))
        return found[0]

    async def _aget_relevant_documents(
        self, query: str, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        found: list[list[Document]] = _unwrapped(await offload(lambda: self._answers([query], kwargs), "queries"))
        return found[0]

    def batch(
        self,
        inputs: list[str],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`invoke` for several questions, which are encoded together and answered in one pass.

        Args:
            inputs: the questions.
            config: for all, or of each. `max_concurrency` has no meaning here.
            return_exceptions: put the error of a question in the place of its Documents; otherwise the first is
                raised, after all questions were answered.
            **kwargs: options of `invoke`, for all.
        """
        if type(self)._get_relevant_documents is not ColPaliRetriever._get_relevant_documents:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)
        runs = []
        for question, one in zip(inputs, _configs(config, inputs), strict=True):
            manager = CallbackManager.configure(**self._callbacks(one, kwargs))
            runs.append(manager.on_retriever_start(None, question, **self._named(one)))
        results: Sequence[list[Document] | BaseException]
        try:
            results = self._answers(inputs, kwargs)
        except BaseException as error:  # KeyboardInterrupt too: the runs end before it is raised
            results = [error] * len(inputs)
        for run, result in zip(runs, results, strict=True):
            if isinstance(result, BaseException):
                run.on_retriever_error(result)
            else:
                run.on_retriever_end(result)
        return _unwrapped(results, return_exceptions)

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
        runs = []
        for question, one in zip(inputs, _configs(config, inputs), strict=True):
            manager = AsyncCallbackManager.configure(**self._callbacks(one, kwargs))
            runs.append(await manager.on_retriever_start(None, question, **self._named(one)))
        results: Sequence[list[Document] | BaseException]
        try:
            results = await offload(lambda: self._answers(inputs, kwargs), "queries")
        except BaseException as error:  # CancelledError too
            results = [error] * len(inputs)
        for run, result in zip(runs, results, strict=True):
            if isinstance(result, BaseException):
                await run.on_retriever_error(result)
            else:
                await run.on_retriever_end(result)
        return _unwrapped(results, return_exceptions)

    # -----------------------------------------------------------------------------------------------------------

    def _answers(self, questions: Sequence[str], call: dict[str, Any]) -> list[list[Document] | ColPaliError]:
        """The Documents for each question, or the error of one that cannot be encoded."""
        check_options("invoke", call, _OPTIONS)
        options = {**self.search_kwargs, **call}
        if not questions:
            return []
        options["filter"] = self.vectorstore.parsed_filter(self.search_kwargs.get("filter"), call.get("filter"))
        errors = [_error_of(question) for question in questions]
        good = [question for question, error in zip(questions, errors, strict=True) if error is None]
        vectors = self.vectorstore.embeddings.embed_queries_multi_vector(good)
        answers = iter(self._search(good, vectors, **options))
        return [next(answers) if error is None else error for error in errors]

    def _search(
        self,
        questions: Sequence[str],
        vectors: Sequence[ArrayLike],
        *,
        k: int = 4,
        regions: bool = False,
        fetch_k: int = 20,
        lambda_mult: float = 0.5,
        **options: Any,
    ) -> list[list[Document]]:
        mmr = self.search_type == "mmr"
        found: list[list[Hit]] = list(
            self.vectorstore.find(vectors, texts=questions, k=max(k, fetch_k) if mmr else k, **options)
        )
        if mmr:
            found = [self.vectorstore.diverse(hits, k, lambda_mult) for hits in found]
        if not regions:
            return [[_scored(hit) for hit in hits] for hits in found]
        answers = []
        for question, array, hits in zip(questions, vectors, found, strict=True):
            tokens = self.vectorstore.model.query_tokens(question)
            boxes = self.vectorstore.store.regions(array, [hit.id for hit in hits], tokens=tokens)
            answers.append([_scored(hit, regions=boxes.get(hit.id, [])) for hit in hits])
        return answers

    def _callbacks(self, config: RunnableConfig, options: dict[str, Any]) -> dict[str, Any]:
        """The arguments with which `BaseRetriever.invoke` configures its callbacks."""
        return {
            "inheritable_callbacks": config.get("callbacks"),
            "inheritable_tags": config.get("tags"),
            "local_tags": self.tags,
            "inheritable_metadata": {**(config.get("metadata") or {}), **self._get_ls_params(**options)},
            "local_metadata": self.metadata,
        }

    def _named(self, config: RunnableConfig) -> dict[str, Any]:
        return {"name": config.get("run_name") or self.get_name(), "run_id": config.get("run_id")}

    def _get_ls_params(self, **kwargs: Any) -> LangSmithRetrieverParams:
        """The retriever's part of a trace's metadata."""
        params = super()._get_ls_params(**kwargs)
        params["ls_embedding_model"] = str(self.vectorstore.embeddings.model_name)
        return params


ColPaliVectorStore._retriever = ColPaliRetriever


def _check_fields(cls: type[ColPaliRetriever], fields: dict[str, Any]) -> None:
    """Refuse fields that the retriever does not have, with the right words for the usual guesses."""
    known = cls.model_fields
    if any(name not in known for name in fields):
        inside = {name: f"pass search_kwargs={{{name!r}: {fields.get(name)!r}}}" for name in _OPTIONS}
        raise unknown_option(cls.__name__, fields, known, inside)


def _configs(config: RunnableConfig | list[RunnableConfig] | None, inputs: list[str]) -> list[RunnableConfig]:
    return get_config_list(config, len(inputs)) if inputs else []


def _error_of(question: str) -> ColPaliError | None:
    try:
        check_query(question)
    except ColPaliError as error:
        return error
    return None


def _unwrapped(results: Sequence[list[Document] | BaseException], return_exceptions: bool = False) -> list[Any]:
    """The results; the first error is raised, unless the caller wants errors and it is not one that ends the task."""
    for result in results:
        if isinstance(result, BaseException) and not (return_exceptions and isinstance(result, Exception)):
            raise result
    return list(results)


def _scored(hit: Hit, **metadata: Any) -> Document:
    return document_of(hit.entry, score=hit.score, relevance_score=hit.relevance, **metadata)
