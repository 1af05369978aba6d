"""Many retrievals answered together, each with a run of its own for callbacks and traces.

`BaseRetriever.batch` calls `invoke` from several threads, one question each. Here all runs are started, all questions
answered by one call, and all runs ended, each with its own Documents or its own error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from langchain_core.callbacks import AsyncCallbackManager, CallbackManager
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import get_config_list

from colpali_integrations.runtime.threads import offload

__all__ = ["Answers", "abatch_retrievals", "batch_retrievals"]

_Result: TypeAlias = "list[Document] | Exception"
Answers: TypeAlias = Callable[[Sequence[str], dict[str, Any]], "list[_Result]"]
"""Questions and options to Documents, or to the error of a question."""

_Configs: TypeAlias = "RunnableConfig | list[RunnableConfig] | None"


def batch_retrievals(
    retriever: BaseRetriever,
    answers: Answers,
    inputs: list[str],
    config: _Configs,
    return_exceptions: bool,
    options: dict[str, Any],
) -> list[Any]:
    """Answer several questions in one call.

    Args:
        retriever: whose runs these are.
        answers: answers them.
        inputs: the questions.
        config: for all, or of each.
        return_exceptions: whether errors come in the place of results.
        options: for `answers`.

    Returns:
        Documents of each question.

    Raises:
        Exception: of the first question that failed, unless `return_exceptions`; all runs are ended before.
    """
    runs = []
    for question, one in zip(inputs, _configs(config, inputs), strict=True):
        manager = CallbackManager.configure(**_callbacks(retriever, one, options))
        runs.append(manager.on_retriever_start(None, question, **_named(retriever, one)))
    results: Sequence[_Result]
    try:
        results = answers(inputs, options) if inputs else []
    except Exception as error:
        results = [error] * len(inputs)
    except BaseException as error:  # such as KeyboardInterrupt: the runs end, and so does everything else
        for run in runs:
            run.on_retriever_error(error)
        raise
    for run, result in zip(runs, results, strict=True):
        if isinstance(result, Exception):
            run.on_retriever_error(result)
        else:
            run.on_retriever_end(result)
    return _checked(results, return_exceptions)


async def abatch_retrievals(
    retriever: BaseRetriever,
    answers: Answers,
    inputs: list[str],
    config: _Configs,
    return_exceptions: bool,
    options: dict[str, Any],
) -> list[Any]:
    """`batch_retrievals` with the questions answered in a thread."""
    runs = []
    for question, one in zip(inputs, _configs(config, inputs), strict=True):
        manager = AsyncCallbackManager.configure(**_callbacks(retriever, one, options))
        runs.append(await manager.on_retriever_start(None, question, **_named(retriever, one)))
    results: Sequence[_Result]
    try:
        results = await offload(lambda: answers(inputs, options), "queries") if inputs else []
    except Exception as error:
        results = [error] * len(inputs)
    except BaseException as error:  # such as CancelledError
        for run in runs:
            await run.on_retriever_error(error)
        raise
    for run, result in zip(runs, results, strict=True):
        if isinstance(result, Exception):
            await run.on_retriever_error(result)
        else:
            await run.on_retriever_end(result)
    return _checked(results, return_exceptions)


def _configs(config: _Configs, inputs: list[str]) -> list[RunnableConfig]:
    return get_config_list(config, len(inputs)) if inputs else []


def _callbacks(retriever: BaseRetriever, config: RunnableConfig, options: dict[str, Any]) -> dict[str, Any]:
    """What `BaseRetriever.invoke` configures its callbacks with."""
    return {
        "inheritable_callbacks": config.get("callbacks"),
        "inheritable_tags": config.get("tags"),
        "local_tags": retriever.tags,
        "inheritable_metadata": {**(config.get("metadata") or {}), **retriever._get_ls_params(**options)},
        "local_metadata": retriever.metadata,
    }


def _named(retriever: BaseRetriever, config: RunnableConfig) -> dict[str, Any]:
    return {"name": config.get("run_name") or retriever.get_name(), "run_id": config.get("run_id")}


def _checked(results: Sequence[_Result], return_exceptions: bool) -> list[Any]:
    for result in results:
        if isinstance(result, Exception) and not return_exceptions:
            raise result
    return list(results)
