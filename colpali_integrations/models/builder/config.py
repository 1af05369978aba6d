"""Reading a part of a config.json into a dataclass; files hold only what differs from a class's defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colpali_integrations.errors import ModelLoadError

__all__ = ["part_of", "read_fields"]


def read_fields(cls: Any, config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The values of a dataclass's fields that a configuration holds, None left out.

    Args:
        cls: the dataclass, with a default for each field that may be absent.
        config: the configuration.
        where: its name, for messages.

    Raises:
        ModelLoadError: a value has another type than the default.
    """
    values = {}
    for name, field in cls.__dataclass_fields__.items():
        if (value := config.get(name)) is None:
            continue
        default = field.default
        kinds = (int, float) if isinstance(default, float) else type(default)
        if not isinstance(value, kinds) or (isinstance(value, bool) and not isinstance(default, bool)):
            raise ModelLoadError(
                f"config.json: {where} has {name} {value!r}, expected a value of type {type(default).__name__}"
            )
        values[name] = value
    return values


def part_of(config: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    """A nested configuration: the first of the names that is an object; the configuration itself without any.

    Example:
        >>> part_of({"vlm_config": {"text_config": {}}}, "vlm_config")
        {'text_config': {}}
    """
    return next((config[name] for name in names if isinstance(config.get(name), Mapping)), config)
