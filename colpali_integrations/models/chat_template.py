"""The prompts of a checkpoint that was trained with its chat template, rendered from that template.

The template is a program of someone else's. It is rendered in Jinja's sandbox, which refuses access to Python's
internals, once per task with a marker in the place of the text, or with a picture; what stands around the marker, or
around the picture's token, is the prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.unsupported import describe_by_hand

__all__ = ["PICTURE", "TEMPLATE_FILE", "Prompt", "special_tokens", "template_prompt", "template_prompts"]

TEMPLATE_FILE = "chat_template.jinja"

PICTURE = "<image>"
"""What stands for the picture in a page prompt."""

# A text that no template contains: characters for private use.
_MARKER = "\ue000text\ue001"


class Prompt(NamedTuple):
    """What stands before and after a text.

    Attributes:
        prefix: special tokens spelled out.
        suffix: the same.
    """

    prefix: str
    suffix: str


def template_prompt(directory: Path, task: str, *, picture: bool = False, system: str = "") -> Prompt | None:
    """Render the prompt of a task; None where the folder has no chat template.

    Args:
        directory: with `chat_template.jinja`, or a "chat_template" in another configuration file.
        task: "query" or "document", which the template gets as its variable `task`.
        picture: render a message with a picture instead of a text.
        system: the text of a message of the system before it; "" for none.

    Raises:
        ModelLoadError: the template fails, or does not contain the text or the picture once.
    """
    found = _read(directory)
    if found is None:
        return None
    path, template = found
    content = {"type": "image"} if picture else {"type": "text", "text": _MARKER}
    messages = [{"role": "user", "content": [content]}]
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    text = _render(path, template, messages, task, special_tokens(directory))
    parts = text.split(PICTURE if picture else _MARKER)
    if len(parts) != 2:
        part = f"picture's {PICTURE}" if picture else "text"
        raise describe_by_hand(
            f"{path}: the template of task {task!r} contains the {part} {len(parts) - 1} times, expected once",
            "register_model(ModelDescription(query_prefix=..., ...))",
        )
    return Prompt(*parts)


def template_prompts(description: ModelDescription, directory: Path) -> tuple[Prompt, Prompt]:
    """The prompts of a query and of a text: the description's, else the chat template's.

    Raises:
        ModelLoadError: neither has them, or the template fails.
    """
    query = Prompt(description.query_prefix, description.query_suffix) if description.query_prefix else None
    query = query or template_prompt(directory, "query")
    before, _, after = description.image_prompt.partition("<image>")
    text = Prompt(before, after) if description.image_prompt else template_prompt(directory, "document")
    if query is None or text is None:
        raise describe_by_hand(
            f"{directory} has no chat template, so its prompts are unknown. Download chat_template.jinja if it has one",
            f"register_model(ModelDescription(name={description.name!r}, family={description.family!r}, "
            f"dim={description.dim}, model_file={description.model_file!r}, query_prefix='<query>', "
            "query_suffix='<mask>' * 10, image_prompt='<doc><image>'))",
        )
    return query, text


def special_tokens(directory: Path) -> dict[str, str]:
    """The named special tokens of a tokenizer, such as {"mask_token": "<mask>"}."""
    tokens: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        config = read_json(directory, name, optional=True)
        extra = config.get("extra_special_tokens")
        for key, value in {**config, **(extra if isinstance(extra, Mapping) else {})}.items():
            content = value.get("content") if isinstance(value, Mapping) else value
            if key.endswith("_token") and isinstance(content, str):
                tokens[key] = content
    return tokens


def _read(directory: Path) -> tuple[Path, str] | None:
    path = directory / TEMPLATE_FILE
    if path.is_file():
        try:
            return path, path.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelLoadError(f"cannot read {path}: {error}") from error
    for name in ("processor_config.json", "chat_template.json", "tokenizer_config.json"):
        template = read_json(directory, name, optional=True).get("chat_template")
        if isinstance(template, str):
            return directory / name, template
    return None


def _render(
    path: Path, template: str, messages: Sequence[Mapping[str, Any]], task: str, tokens: Mapping[str, str]
) -> str:
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    # The settings of transformers, under which templates are written.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = refuse
    try:
        return environment.from_string(template).render(messages=messages, task=task, **tokens)
    except Exception as error:  # a template may fail in any way that Python can
        raise ModelLoadError(f"{path}: the template of task {task!r} fails: {error}") from error
