"""Make public names report the package that users import them from, instead of the file that defines them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

__all__ = ["publish"]


def publish(namespace: Mapping[str, Any]) -> None:
    """Set `__module__` of the classes and functions in a package's `__all__` to the package.

    Args:
        namespace: the package's `globals()`.
    """
    for name in namespace["__all__"]:
        if inspect.isclass(namespace[name]) or inspect.isfunction(namespace[name]):
            namespace[name].__module__ = namespace["__name__"]
