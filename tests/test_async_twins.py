"""An `async` method has the parameters of the method that it is the twin of."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path
from typing import Any

import pytest

import colpali_integrations

PACKAGE = Path(colpali_integrations.__file__).parent
# Twins that differ today.
_KNOWN: set[str] = set()
# Of Python's asynchronous generators, where they are no twins of `send`, `throw` and `close` of its coroutines.
_PROTOCOL = ("asend", "athrow", "aclose")


def package_classes() -> list[type]:
    """Every class that the package defines; `ray` needs packages that may be missing."""
    files = (path.relative_to(PACKAGE.parent).with_suffix("") for path in sorted(PACKAGE.rglob("*.py")))
    names = (".".join(path.parts).removesuffix(".__init__") for path in files if path.name != "__main__")
    found: dict[type, None] = {}
    for name in names:
        if not name.startswith("colpali_integrations.ray"):
            module = importlib.import_module(name)
            classes = (one for one in vars(module).values() if inspect.isclass(one))
            found |= dict.fromkeys(one for one in classes if one.__module__.startswith("colpali_integrations"))
    return list(found)


def is_asynchronous(attribute: Any) -> bool:
    function = _function(attribute)
    if not inspect.isfunction(function):
        function = inspect.unwrap(function)  # LlamaIndex's decorators make objects
    if not inspect.isfunction(function):
        return False
    returned = str(inspect.signature(function).return_annotation)
    return (
        inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
        or returned.startswith(("AsyncGenerator", "AsyncIterator"))
    )


def twins() -> list[tuple[type, str]]:
    """Pairs of a class and the name of an asynchronous method whose synchronous one is ours too."""
    return [
        (owner, name)
        for owner in package_classes()
        for name, function in vars(owner).items()
        if name.startswith("a") and name not in _PROTOCOL and is_asynchronous(function)
        if defined_by_us(owner, name[1:])
    ]


def defined_by_us(owner: type, name: str) -> bool:
    defining = next((base for base in owner.__mro__ if name in vars(base)), None)
    return defining is not None and defining.__module__.startswith("colpali_integrations")


def _function(attribute: Any) -> Any:
    return attribute.__func__ if isinstance(attribute, (classmethod, staticmethod)) else attribute


def described(function: Any) -> list[tuple[str, Any, Any, Any]]:
    """Names, kinds, defaults and annotations of a function's parameters."""
    parameters = inspect.signature(_function(function)).parameters.values()
    return [(one.name, one.kind, one.default, one.annotation) for one in parameters]


@pytest.mark.parametrize(("owner", "name"), twins(), ids=lambda part: getattr(part, "__name__", part))
def test_a_twin_has_the_signature_of_the_synchronous_method(owner: type, name: str) -> None:
    label = f"{owner.__module__}.{owner.__name__}.{name}"
    ours, theirs = inspect.getattr_static(owner, name), inspect.getattr_static(owner, name[1:])
    same = described(ours) == described(theirs)
    if inspect.iscoroutinefunction(_function(ours)):
        same &= (
            inspect.signature(_function(ours)).return_annotation
            == inspect.signature(_function(theirs)).return_annotation
        )
    assert same != (label in _KNOWN), f"{label} and its synchronous twin differ" if not same else f"take {label} off"


def test_there_are_twins() -> None:
    assert len(twins()) > 10
