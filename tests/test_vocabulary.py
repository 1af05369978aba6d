"""One vocabulary: parameters and attributes of the public names use the words of the glossary.

Run `python -m tests.test_vocabulary` for the offences of today.
"""

from __future__ import annotations

import dis
import importlib
import inspect
import pkgutil
from collections.abc import Iterator
from typing import Any

import colpali_integrations

ROOT = "colpali_integrations"
APART = {"cli"}  # a command, which is not called from a caller's code

# Wrong name: right name. A parameter is one of any public function, method or constructor.
EVERYWHERE = {
    "collection": "collection_name",
    "cover": "boxes",
    "group": "document_id",
    "licence": "license",
    "persist_directory": "path",
    "places": "regions",
    "reach": "boxes",
}
PARAMETERS = {
    "langchain": {"embed_model": "embedding", "embeddings": "embedding", "filters": "filter"},
    "llama_index": {"embedding": "embed_model", "embeddings": "embed_model", "filter": "filters"},
}


def packages() -> list[str]:
    names = [module.name for module in pkgutil.iter_modules(colpali_integrations.__path__) if module.name not in APART]
    modules = {f".{name}": importlib.import_module(f"{ROOT}.{name}") for name in names if not name.startswith("_")}
    return ["", *(name for name, module in modules.items() if hasattr(module, "__all__"))]


def parameters(value: Any) -> Iterator[str]:
    """Names of what is passed to a function or a constructor."""
    try:
        yield from inspect.signature(value).parameters
    except (TypeError, ValueError):  # a builtin's, such as that of an exception
        return


def members(owner: type) -> Iterator[tuple[str, Any]]:
    """Public methods and attributes that our own classes give a class, with those that its methods set."""
    for base in owner.__mro__:
        if base.__module__.partition(".")[0] in (ROOT, "tests"):
            yield from ((name, value) for name, value in vars(base).items() if not name.startswith("_"))
            yield from ((name, None) for name in inspect.get_annotations(base))
            # By their code: the source of a class cannot be found once its `__module__` is the public package.
            for function in filter(inspect.isfunction, vars(base).values()):
                steps = dis.get_instructions(function)
                yield from ((step.argval, None) for step in steps if step.opname == "STORE_ATTR")


def names(value: Any) -> Iterator[tuple[str, str, bool]]:
    """Where a name stands, the name, and whether it is a parameter's."""
    yield from (("", name, True) for name in parameters(value))
    if inspect.isclass(value):
        for name, member in members(value):
            yield f".{name}", name, False
            function = getattr(member, "__func__", member)
            if inspect.isfunction(function):
                yield from ((f".{name}", parameter, True) for parameter in parameters(function))


def offences(package: str) -> set[str]:
    module = importlib.import_module(f"{ROOT}{package}")
    found = set()
    for public in module.__all__:
        for where, name, is_parameter in names(getattr(module, public)):
            only_here = PARAMETERS.get(package.lstrip("."), {}) if is_parameter else {}
            if right := (EVERYWHERE | only_here).get(name):
                shown = f"({name}=)" if is_parameter else ""
                found.add(f"{ROOT}{package}.{public}{where}{shown} -> {right}")
    return found


def everywhere() -> list[str]:
    return sorted(offence for package in packages() for offence in offences(package))


def test_public_names_keep_to_the_glossary() -> None:
    assert everywhere() == []


def test_parameters_and_attributes_are_looked_at() -> None:
    class Store:
        kind: str

        def __init__(self, path: str) -> None:
            self.place: str = path

        @classmethod
        def open(cls, url: str) -> Store:
            return cls(url)

    found = {(where, name) for where, name, is_parameter in names(Store) if is_parameter}
    assert found == {("", "path"), (".open", "cls"), (".open", "url")}
    assert {name for _, name, is_parameter in names(Store) if not is_parameter} == {"kind", "place", "open"}


def main() -> None:
    print(*everywhere(), sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
