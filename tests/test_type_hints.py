"""Programs that read the type hints of public functions and methods can: LangChain's and LlamaIndex's tools do."""

from __future__ import annotations

import asyncio
import importlib
import inspect
from typing import Any, get_type_hints

import pytest
from langchain_core.tools import StructuredTool
from llama_index.core.tools import FunctionTool

from colpali_integrations.langchain import ColPaliVectorStore
from tests.test_docstrings import PUBLIC

# matplotlib is an extra, so the name of its class is imported for type checkers alone.
NAMES = {"Axes": object}


def functions() -> dict[str, Any]:
    """All public functions, and the methods of public classes that this package defines."""
    found: dict[str, Any] = {}
    for part in PUBLIC:
        module = importlib.import_module(f"colpali_integrations{part}")
        for name in module.__all__:
            one = getattr(module, name)
            methods = vars(one) if inspect.isclass(one) else {"": one}
            for method, value in methods.items():
                value = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
                known = inspect.isfunction(value) and value.__module__.startswith(module.__name__)
                if known and (method == "__init__" or not method.startswith("_")):
                    found[f"{module.__name__}.{name}.{method}".rstrip(".")] = value
    return found


def test_the_hints_of_public_functions_can_be_read() -> None:
    every, unread = functions(), {}
    for name, function in every.items():
        try:
            get_type_hints(function, localns=NAMES)
        except (NameError, TypeError) as error:
            unread[name] = str(error)

    assert not unread
    assert {
        f"colpali_integrations.langchain.ColPaliVectorStore.{name}" for name in ("aadd_pdf", "find")
    } <= every.keys()


@pytest.mark.parametrize("name", ["similarity_search", "similarity_search_with_score", "delete"])
def test_langchain_reads_the_arguments_of_a_method(name: str) -> None:
    assert "filter" in StructuredTool.from_function(getattr(ColPaliVectorStore(), name)).args


def test_both_frameworks_read_the_arguments_of_asynchronous_twins() -> None:
    store = ColPaliVectorStore()

    tool = StructuredTool.from_function(coroutine=store.asimilarity_search_by_image)
    assert {"image", "k", "filter"} <= tool.args.keys()
    tool = StructuredTool.from_function(coroutine=store.embeddings.aembed_query_multi_vector)
    assert asyncio.run(tool.ainvoke({"text": "apples"})).shape[1] == store.model.description.dim
    metadata = FunctionTool.from_defaults(async_fn=store.embeddings.aembed_query_multi_vector).metadata
    assert metadata.get_parameters_dict()["properties"].keys() == {"text"}
