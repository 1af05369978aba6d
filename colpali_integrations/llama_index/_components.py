"""The base of this package's LlamaIndex components: an unknown argument is an error that names the right one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, TypeAlias

from llama_index.core.bridge.pydantic import BeforeValidator, PlainSerializer, model_validator
from llama_index.core.schema import BaseComponent
from pydantic import PlainValidator

from colpali_integrations._options import unknown_option
from colpali_integrations.pages.access import root_folders
from colpali_integrations.stores.layout import Layout

__all__ = ["FolderStrings", "LayoutField", "PathString", "StrictComponent"]

PathString: TypeAlias = Annotated[
    str, BeforeValidator(lambda path: os.fspath(path) if isinstance(path, os.PathLike) else path)
]
"""A field for a path: a `Path` is stored as a string, which JSON can hold."""

FolderStrings: TypeAlias = Annotated[list[str] | None, BeforeValidator(root_folders)]
"""A field for folders whose files may be opened, or one; they are stored as strings, which JSON can hold."""

# Its own validation is used: pydantic would read the annotations of the class in the public package.
LayoutField: TypeAlias = Annotated[
    Any,
    PlainValidator(lambda layout: None if layout is None else Layout.of(layout)),
    PlainSerializer(lambda layout: layout and layout.to_dict()),
]
"""A field for a `Layout`, or the dict of one; it is serialised as a dict."""


class StrictComponent(BaseComponent):
    """A component that refuses unknown arguments, and accepts the result of its own `to_dict()`."""

    guesses: ClassVar[Mapping[str, str]] = {}
    """Advice by names that users of other libraries try."""

    @classmethod
    def class_name(cls) -> str:
        """The name under which this class is serialised."""
        return cls.__name__

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        # LlamaIndex adds the name of the class to `to_dict()` and `model_dump()`.
        return cls._checked({name: value for name, value in data.items() if name != "class_name"})

    @classmethod
    def _checked(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments of the constructor, without unknown ones.

        Raises:
            ConfigurationError: an argument is unknown.
        """
        if unknown := arguments.keys() - cls.model_fields:
            raise unknown_option(cls.__name__, sorted(unknown), cls.model_fields, cls.guesses)
        return arguments
