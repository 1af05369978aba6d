"""`Layout`: where a collection that another program has made keeps the vectors, documents, pages and texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from colpali_integrations._options import checked_text, checked_texts, checked_whole, shown, unknown_option
from colpali_integrations.errors import ConfigurationError

__all__ = ["Layout", "LayoutLike"]

_KEYS = ("source", "page", "text")


@dataclass(frozen=True, kw_only=True, repr=False)
class Layout:
    """The names in a Qdrant collection that another program has made, for `MultiVectorStore.open(layout=...)`.

    Opening such a collection without a layout raises an error that has the one to pass. The payload of a page becomes
    its metadata, under its own keys, and `source`, `page` and the text are read from the keys that are named here.

    Attributes:
        full: the vector that holds all vectors of a page, compared by MaxSim; "" for the one without a name.
        first: the vectors that choose the candidates of a two-stage search, 100 each by default, such as the means of
            rows and of columns; empty to leave the first stage to the server's own graph or quantised copies.
        source: the key of the document: its path, URL, name or id.
        page: the key of the page's number, which is a whole number or a text of one.
        page_base: the number of a document's first page: 1 or 0. `metadata["page"]` counts from 1 in either case.
        text: the key of the page's text.

    Raises:
        ConfigurationError: an attribute has an invalid value.

    Example:
        >>> Layout(full="original", first=["mean_pooling_rows"], source="document", page="page_number", page_base=0)
        Layout(full='original', first=['mean_pooling_rows'], source='document', page='page_number', page_base=0)
    """

    full: str = ""
    first: Sequence[str] = ()
    source: str | None = None
    page: str | None = None
    page_base: int = 1
    text: str | None = None

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        checked_text(self.full, "full")
        object.__setattr__(self, "first", checked_texts(self.first, "first", "['mean_pooling_rows']"))
        for name in _KEYS:
            if getattr(self, name) is not None and not checked_text(getattr(self, name), name):
                raise ConfigurationError(f"{name} must be a key of the payload, or None for none, got ''")
        object.__setattr__(self, "page_base", checked_whole(self.page_base, "page_base", 0))
        if self.page_base > 1:
            raise ConfigurationError(f"page_base must be 0 or 1, the number of a first page, got {self.page_base}")
        if self.full in self.first:
            raise ConfigurationError(f"first has {self.full!r}, which is full: the candidates are compared by that one")

    @classmethod
    def of(cls, value: LayoutLike) -> Layout:
        """A layout, or the one that a mapping describes, as a JSON file does.

        Raises:
            ConfigurationError: an unknown key, or an invalid value.

        Example:
            >>> Layout.of({"full": "colpali", "page": "page_num"})
            Layout(full='colpali', page='page_num')
        """
        if isinstance(value, Layout):
            return value
        if not isinstance(value, Mapping):
            raise ConfigurationError(f"layout must be a Layout, or a dict of its attributes, got {shown(value)}")
        names = [field.name for field in fields(cls)]
        if unknown := [name for name in value if name not in names]:
            raise unknown_option("Layout", unknown, names)
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """The attributes that differ from the defaults, JSON-safe.

        Example:
            >>> Layout(full="colpali", first=["mean"]).to_dict()
            {'full': 'colpali', 'first': ['mean']}
        """
        own = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        changed = {name: value for name, (value, default) in own.items() if value != default}
        return {name: list(value) if name == "first" else value for name, value in changed.items()}

    def __repr__(self) -> str:
        return f"Layout({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


LayoutLike: TypeAlias = "Layout | Mapping[str, Any]"
"""A layout as callers write it."""
