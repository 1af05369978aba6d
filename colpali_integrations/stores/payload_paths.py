"""Paths into the payloads of a collection: "page", "metadata.page", and '"a.b"' for a key that has a dot itself."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Path", "path_of", "value_at", "with_value", "without_value", "written_path"]

Path: TypeAlias = tuple[str, ...]
"""The keys from the payload down to a value."""

_PART = re.compile(r'"([^"]*)"|([^."]+)')
_PATH = re.compile(rf"(?:{_PART.pattern})(?:\.(?:{_PART.pattern}))*")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def path_of(text: str) -> Path:
    """The keys of a path, as Qdrant's filters write it; a text that is no path is a key.

    >>> path_of("metadata.page"), path_of('"a.b".c'), path_of("a..b")
    (('metadata', 'page'), ('a.b', 'c'), ('a..b',))
    """
    if not _PATH.fullmatch(text):
        return (text,)
    return tuple(found[1] if found[2] is None else found[2] for found in _PART.finditer(text))


def written_path(path: Path) -> str:
    """A path as a text, with quotes only where they are needed, as servers show it.

    >>> written_path(("metadata", "sp ace"))
    'metadata."sp ace"'
    """
    return ".".join(key if _PLAIN.fullmatch(key) else f'"{key}"' for key in path)


def value_at(payload: Mapping[str, Any], path: Path) -> Any:
    """The value at a path; None where there is none.

    >>> value_at({"metadata": {"page": 3}}, ("metadata", "page")), value_at({"metadata": 3}, ("metadata", "page"))
    (3, None)
    """
    value: Any = payload
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def with_value(payload: Mapping[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy of a payload with a value at a path.

    Raises:
        ValueError: a key on the way has a value that is no object.

    Example:
        >>> with_value({"metadata": {"page": 3}}, ("metadata", "source"), "a.pdf")
        {'metadata': {'page': 3, 'source': 'a.pdf'}}
    """
    key, *rest = path
    if not rest:
        return {**payload, key: value}
    inside = payload.get(key)
    if inside is not None and not isinstance(inside, Mapping):
        raise ValueError(f"{key!r} is no object")
    return {**payload, key: with_value(inside or {}, tuple(rest), value)}


def without_value(payload: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A copy of a payload without the value at a path.

    >>> without_value({"metadata": {"page": 3, "text": "a"}}, ("metadata", "text"))
    {'metadata': {'page': 3}}
    """
    key, *rest = path
    inside = payload.get(key)
    if rest and isinstance(inside, Mapping):
        return {**payload, key: without_value(inside, tuple(rest))}
    return {one: value for one, value in payload.items() if one != key or rest}
