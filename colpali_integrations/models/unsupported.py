"""The error for architectures that are not supported, raised before any weights are downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import DESCRIPTION_FILE
from colpali_integrations.models.families import FAMILIES

__all__ = ["ADDING", "check_architecture", "describe_by_hand", "unknown_architecture"]

ADDING = "https://github.com/colpali-integrations/colpali-integrations/blob/main/docs/adding_a_model.md"
"""The page on adding a model."""

# Words in the names of classes and types, without underscores. Some of these models have the model_type of a supported
# one, and would be refused only after gigabytes.
_REASONS = {
    "jinaembeddingsv4": "it has a LoRA adapter per task, which only the code in its repository chooses",
    "gemma3": "no graph is written for Gemma 3, whose image tokens see each other and whose text is causal in windows",
    "lfm2": "no graph is written for LFM2's convolutions, and the class stands in a fork of colpali-engine",
    "omni": "it takes sound and films beside pages",
    "llamanemotron": "its vision model and its tiles are those of code in its repository",
    "llavanext": "no graph is written for Granite Vision, whose class stands in code of its repository",
    "topk": "its class stands in code of its repository",
}


def describe_by_hand(problem: str, call: str) -> ModelLoadError:
    """The error about a model whose files do not tell its prompts.

    Args:
        problem: what is missing.
        call: of `register_model`, with the fields that are known.
    """
    return ModelLoadError(
        f"{problem}. Register the model with the prompts of its training, and open its folder with local_dir=: {call}",
        command=f"{problem}. Write the prompts of its training into a {DESCRIPTION_FILE} in its folder, see {ADDING}",
    )


def check_architecture(name: str, config: Mapping[str, Any]) -> None:
    """Refuse a model of which it is known that it is not supported.

    Args:
        name: of the model, for the message.
        config: its config.json.

    Raises:
        ModelLoadError: it is one.
    """
    words = f"{config.get('model_type', '')} {config.get('architectures', '')}".lower().replace("_", "")
    for word, reason in _REASONS.items():
        if word in words:
            raise unknown_architecture(name, config, reason)


def unknown_architecture(name: str, config: Mapping[str, Any], reason: str = "") -> ModelLoadError:
    """The error that names an architecture, those that are supported, and the page on adding one.

    Args:
        name: of the model.
        config: its config.json.
        reason: why it is not supported; "" where nothing is known of it.
    """
    classes = config.get("architectures")
    named = ", ".join(map(str, classes)) if isinstance(classes, list) and classes else "none"
    problem = (
        f"{name}: the architecture of its config.json (model_type {config.get('model_type')!r}, architectures {named}) "
        f"is not supported{f': {reason}' if reason else ''}. Supported are the families {', '.join(FAMILIES)}. A "
        "checkpoint of one of them under other names is described by"
    )
    return ModelLoadError(
        f"{problem} register_model(ModelDescription(...)) and opened with local_dir=. For a new family see {ADDING}",
        command=f"{problem} a {DESCRIPTION_FILE} in its folder. For that, and a new family, see {ADDING}",
    )
