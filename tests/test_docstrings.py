"""Every public name has an example, and every example in the package is true.

The files that examples speak of are those of the fixture `examples_folder`.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import linecache
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import colpali_integrations

PACKAGE = Path(colpali_integrations.__file__).parent
PUBLIC = [
    "",
    ".models",
    ".pages",
    ".scoring",
    ".explain",
    ".stores",
    ".evaluation",
    ".langchain",
    ".llama_index",
    ".ray",
]
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


def public_names() -> list[str]:
    modules = [f"colpali_integrations{part}" for part in PUBLIC]
    return [f"{module}.{name}" for module in modules for name in importlib.import_module(module).__all__]


def module_names() -> list[str]:
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in PACKAGE.rglob("*.py"))
    names = sorted(".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "__main__")
    # Those of `ray` need a running Ray; tests/ray runs them.
    return [name for name in names if not name.startswith("colpali_integrations.ray")]


def modules_with_examples() -> list[str]:
    return [name for name in module_names() if ">>> " in inspect.getsource(importlib.import_module(name))]


# Whose example is another's: there is no other way to make one.
ELSEWHERE = {"colpali_integrations.explain.PageEmbedding": "colpali_integrations.models.ColPali.embed_pages"}


class Finder(doctest.DocTestFinder):
    """Finds the examples of all classes and functions that a file defines.

    Public ones have another `__module__` than the file, by which doctest would leave them out.
    """

    def _from_module(self, module: ModuleType | None, object: Any) -> bool:
        if inspect.isfunction(object) and module is not None:
            return inspect.unwrap(object).__globals__ is module.__dict__
        if inspect.isclass(object) and module is not None:
            return object.__name__ in classes(module)
        return super()._from_module(module, object)  # type: ignore[misc, no-any-return]


@cache
def classes(module: ModuleType) -> set[str]:
    """Names of the classes that the file of a module defines."""
    tree = ast.parse(inspect.getsource(module))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


@pytest.mark.parametrize("name", public_names())
def test_every_public_name_has_a_description_and_an_example(name: str) -> None:
    documented = named(name)
    assert len(inspect.getdoc(documented) or "") > 40
    documented = named(ELSEWHERE.get(name, name))
    found = doctest.DocTestFinder().find(documented, name, module=False, globs={})  # False: any module
    examples = [example for test in found for example in test.examples if not example.options.get(doctest.SKIP)]
    assert examples, f"{name} has no example that runs, in its docstring or in those of its methods"


@pytest.mark.parametrize("name", public_names())
def test_public_functions_name_their_arguments(name: str) -> None:
    documented = named(name)
    text = inspect.getdoc(documented) or ""
    if inspect.isfunction(documented):
        for parameter in inspect.signature(documented).parameters:
            assert f"{parameter}:" in text, f"{name} does not say what {parameter} is"


def named(name: str) -> Any:
    found: Any = importlib.import_module("colpali_integrations")
    for part in name.split(".")[1:]:
        found = getattr(found, part)
    return found


@pytest.mark.usefixtures("own_registry", "examples_folder")
@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_are_true(name: str) -> None:
    module = importlib.import_module(name)
    linecache.clearcache()  # each run looks at all files in it, which other tests leave hundreds of
    runner = doctest.DocTestRunner(optionflags=FLAGS)
    for test in Finder().find(module, name, module):
        runner.run(test)
    assert runner.tries
    assert runner.failures == 0
