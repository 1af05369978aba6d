"""The base of this package's LlamaIndex components: an unknown argument is an error that names the right one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from llama_index.core.bridge.pydantic import model_validator
from llama_index.core.schema import BaseComponent

from colpali_integrations._options import unknown_option

__all__ = ["StrictComponent"]


class StrictComponent(BaseComponent):
    """A component that refuses unknown arguments, and accepts the result of its own `to_dict()`."""

    guesses: ClassVar[Mapping[str, str]] = {}
    """Advice by names that users of other libraries try."""

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        given = {key: value for key, value in data.items() if (key, value) != ("class_name", cls.class_name())}
        if unknown := given.keys() - cls.model_fields:
            raise unknown_option(cls.__name__, sorted(unknown), cls.model_fields, cls.guesses)
        return given
