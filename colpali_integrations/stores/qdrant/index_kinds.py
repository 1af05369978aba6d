"""The kinds of indexes of metadata fields on a Qdrant server, as callers name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, get_args

from colpali_integrations._options import shown
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores.qdrant.filters import storable_path

__all__ = ["IndexKind", "checked_indexes"]

IndexKind: TypeAlias = Literal["text", "number", "bool", "datetime", "tenant"]
"""The kind of an index, by the values of its field; "tenant" holds texts, and keeps the pages of each together."""

_KINDS: tuple[IndexKind, ...] = get_args(IndexKind)


def checked_indexes(indexes: object) -> dict[str, IndexKind]:
    """The indexes that a caller wants, by metadata field.

    Args:
        indexes: kinds by field.

    Raises:
        ConfigurationError: a field whose path cannot be written, or an unknown kind.

    Example:
        >>> checked_indexes({"year": "number"})
        {'year': 'number'}
    """
    if not isinstance(indexes, Mapping):
        raise ConfigurationError(f"indexes must be a dict such as {{'year': 'number'}}, got {shown(indexes)}")
    for field, kind in indexes.items():
        if not isinstance(field, str) or not field or not storable_path(field) or field.startswith("$"):
            raise ConfigurationError(
                f"indexes: {field!r} is no metadata field that can have an index: a field is a text, not an empty one, "
                "without a quote, a backslash or a $ at its beginning"
            )
        if kind not in _KINDS:
            raise ConfigurationError(f"indexes: {field!r} must be one of {', '.join(_KINDS)}, got {shown(kind)}")
    return dict(indexes)
