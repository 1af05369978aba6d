"""`Layout`: where a collection that another program has made keeps vectors, documents, pages, texts and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from colpali_integrations._options import checked_text, checked_texts, checked_whole, shown, unknown_option
from colpali_integrations._text import is_unicode
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.scoring.fastembed_muvera import FastembedMuvera
from colpali_integrations.stores.payload_paths import path_of

__all__ = ["Layout", "LayoutLike"]

_KEYS = ("source", "page", "text", "image")
_MUVERA = {"k_sim": 5, "dim_proj": 16, "r_reps": 20, "random_seed": 42}  # fastembed's defaults


@dataclass(frozen=True, kw_only=True, repr=False)
class Layout:
    """The names in a Qdrant collection that another program has made, for `MultiVectorStore.open(layout=...)`.

    Opening such a collection without a layout raises an error that has the one to pass. The payload of a page becomes
    its metadata, under its own keys, and `source`, `page`, the text and the picture are read from the keys that are
    named here. A dot reaches into an object, as in Qdrant's filters: LangChain's store writes "metadata.source" and
    "metadata.page". A key that has a dot itself stands in quotes: '"a.b"'.

    Attributes:
        full: the vector that holds all vectors of a page, compared by MaxSim; "" for the one without a name.
        first: the vectors that choose the candidates of a two-stage search, 100 each by default, such as the means of
            rows and of columns; empty to leave the first stage to the server's own graph or quantised copies.
        source: the key of the document: its path, URL, name or id.
        page: the key of the page's number, which is a whole number or a text of one.
        page_base: the number of a document's first page: 1 or 0. `metadata["page"]` counts from 1 in either case.
        text: the key of the page's text.
        image: the key of the page's picture: base64, a data URL, or the path of a file, which is opened only in the
            folders that a caller permits (`roots=`). A picture at an address is never fetched.
        muvera: the arguments of fastembed's `Muvera` that made a vector of `first`, as {"k_sim": 5, "dim_proj": 16,
            "r_reps": 20, "random_seed": 42}, which are those that are left out; None without such a vector.

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
    image: str | None = None
    muvera: Mapping[str, int] | None = None

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
        for name in (self.full, *self.first, *(getattr(self, name) or "" for name in _KEYS)):
            if not is_unicode(name):
                raise ConfigurationError(
                    f"the layout has {name!a}, which holds a half of a surrogate pair: no collection has such a name"
                )
        if self.full in self.first:
            raise ConfigurationError(f"first has {self.full!r}, which is full: the candidates are compared by that one")
        if self.muvera is not None:
            object.__setattr__(self, "muvera", _checked_muvera(self.muvera))
            if not self.first:
                raise ConfigurationError(
                    "muvera says how a vector of first was made, and first has none; add that vector to first"
                )

    def encoder(self, dim: int) -> FastembedMuvera | None:
        """The transform of `muvera`, for vectors of a length; None without one.

        Raises:
            ConfigurationError: it does not take vectors of this length.
        """
        return None if self.muvera is None else FastembedMuvera(dim, **self.muvera)

    @property
    def own_keys(self) -> frozenset[str]:
        """The keys of a payload in which the values of the layout are."""
        return frozenset(path_of(key)[0] for name in _KEYS if (key := getattr(self, name)) is not None)

    def reaches(self, field: str) -> bool:
        """Whether the field of a filter is a path into an object in which the layout has a value.

        >>> layout = Layout(page="metadata.page")
        >>> layout.reaches("metadata.tenant"), layout.reaches("other.tenant")
        (True, False)
        """
        paths = (path_of(key) for name in _KEYS if (key := getattr(self, name)) is not None)
        first, *rest = path_of(field)
        return bool(rest) and first in {path[0] for path in paths if len(path) > 1}

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
        return {name: list(value) if name == "first" else _copied(value) for name, value in changed.items()}

    def __repr__(self) -> str:
        return f"Layout({', '.join(f'{name}={value!r}' for name, value in self.to_dict().items())})"


def _copied(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _checked_muvera(values: object) -> dict[str, int]:
    if not isinstance(values, Mapping):
        raise ConfigurationError(f"muvera must be a dict of arguments, such as {_MUVERA}, got {shown(values)}")
    if unknown := [name for name in values if name not in _MUVERA]:
        raise unknown_option("muvera", unknown, _MUVERA)
    return {**_MUVERA, **{name: checked_whole(value, name, 0) for name, value in values.items()}}


LayoutLike: TypeAlias = Layout | Mapping[str, Any]
"""A layout as callers write it."""
