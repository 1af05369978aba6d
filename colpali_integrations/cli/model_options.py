"""The options of a model, written once for all commands that take a model, and their parsing."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import Annotated, Any, get_type_hints

from typer import BadParameter, Option

from colpali_integrations.models.builder.quantization import Precision

__all__ = ["CheckpointOptions", "with_checkpoint_options"]


_PANEL = "Options of a checkpoint"


def _option(metavar: str, text: str, *, least: int | None = None) -> Any:
    return Option(metavar=metavar, help=text, rich_help_panel=_PANEL, min=least)


@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """The options of `ColPali.from_pretrained` for models that are not bundled; None where not given."""

    precision: Annotated[Precision | None, _option("NAME", "float32, float16, int8, int8-dynamic or int4.")] = None
    max_side: Annotated[int | None, _option("PIXELS", "Longest edge of a page, for NeoMME.", least=1)] = None
    max_num_visual_tokens: Annotated[
        int | None, _option("N", "Most visual tokens of a page, for ColQwen and its kin.", least=1)
    ] = None
    drop_blank: Annotated[
        bool | None,
        Option("--drop-blank", help="Leave out a page's vectors of plain paper.", rich_help_panel=_PANEL),
    ] = None
    dim: Annotated[int | None, _option("N", "Length of a vector, where the model leaves it open.", least=1)] = None
    base: Annotated[str | None, _option("NAME", "The checkpoint that a LoRA adapter adapts: a name or folder.")] = None
    revision: Annotated[str | None, _option("REV", "Commit, tag or branch of the model's repository.")] = None
    allow_unused: Annotated[
        list[str] | None, _option("NAME", "Beginning of the names of tensors that need not be read. Repeatable.")
    ] = None

    def given(self, **defaults: Any) -> dict[str, Any]:
        """The arguments of `ColPali.from_pretrained`: those given, and defaults for others."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return {**defaults, **{name: value for name, value in values.items() if value is not None}}

    def require_model(self, advice: str) -> None:
        """Refuse options that no model is named for.

        Raises:
            BadParameter: an option is given.
        """
        if given := self.given():
            names = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise BadParameter(f"{names}: {advice}")


def with_checkpoint_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `CheckpointOptions`, in place of its argument `options`."""
    hints = get_type_hints(CheckpointOptions, include_extras=True)
    names = [one.name for one in fields(CheckpointOptions)]
    expanded = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=hints[name]) for name in names
    ]
    signature = inspect.signature(command, eval_str=True)
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        one = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
        parameters += expanded if parameter.name == "options" else [one]

    @wraps(command)
    def expanding(**arguments: Any) -> None:
        options = CheckpointOptions(**{name: arguments.pop(name) for name in names})
        command(**arguments, options=options)

    # typer reads both.
    expanding.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    expanding.__annotations__ = {one.name: one.annotation for one in parameters}
    return expanding
