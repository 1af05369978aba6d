"""The registry of models: one frozen description per model, and a function to add others.

A description holds everything that a checkpoint needs beside its files, above all its prompts: a checkpoint works well
only with the exact prompt it was trained with.

>>> from colpali_integrations.models import list_supported_models
>>> [model.name for model in list_supported_models()][0]
'coltiny'
"""

from __future__ import annotations

import difflib
import os

from colpali_integrations._forks import ForkLock
from colpali_integrations._options import checked_text
from colpali_integrations._paths import path_text
from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.known import KNOWN_MODELS, TRAINED_AS

__all__ = ["find_model", "list_supported_models", "not_registered", "register_model", "registered_model", "trained_as"]

_lock = ForkLock()
_models: dict[str, ModelDescription] = {model.name.lower(): model for model in KNOWN_MODELS}


def list_supported_models() -> list[ModelDescription]:
    """Every registered model: the bundled one first, then those of the Hub, then added ones.

    Returns:
        Frozen descriptions, in the order of registration.

    Example:
        >>> [model.name for model in list_supported_models() if model.size_in_bytes < 600_000_000]
        ['coltiny', 'Hcompany/NeoMME-260M-Retriever', 'athrael-soju/ColUltraVBERT']
    """
    with _lock:
        return list(_models.values())


def register_model(description: ModelDescription, *, replace: bool = False) -> ModelDescription:
    """Make a checkpoint of a known family available by name.

    Args:
        description: the model; its `name` must be new, compared without case.
        replace: allow an existing name.

    Returns:
        The same description.

    Raises:
        ConfigurationError: the name is taken, or the family is unknown.

    Example:
        >>> from dataclasses import replace
        >>> colpali = find_model("Qdrant/colpali-v1.3-fp16")
        >>> register_model(replace(colpali, name="me/my-colpali", repository="me/my-colpali")).dim
        128
    """
    if description.family not in FAMILIES:
        raise ConfigurationError(
            f"register_model({description.name!r}): unknown family {description.family!r}; known: {', '.join(FAMILIES)}"
        )
    with _lock:
        if description.name.lower() in _models and not replace:
            raise ConfigurationError(
                f"register_model: a model named {description.name!r} is registered already; "
                "pass replace=True to replace it"
            )
        _models[description.name.lower()] = description
    return description


def registered_model(
    name_or_path: str | os.PathLike[str], local_dir: str | os.PathLike[str] | None
) -> ModelDescription | None:
    """The description registered under a name; None for a path without `local_dir`, or an unknown string.

    Raises:
        ConfigurationError: it is neither a string nor a path.
    """
    name = path_text(name_or_path, ConfigurationError, "the name of a model")
    return None if local_dir is None and isinstance(name_or_path, os.PathLike) else _models.get(name.lower())


def trained_as(repository: str) -> ModelDescription | None:
    """The registered model with the prompts that a repository's checkpoint was trained with; None if not known."""
    name = TRAINED_AS.get(repository, repository)
    models = list_supported_models()
    return next((model for model in models if repository and name in (model.repository, model.name)), None)


def find_model(name: str) -> ModelDescription:
    """The description registered under a name.

    Args:
        name: in capitals or not.

    Raises:
        ModelNotFoundError: no such model; the message lists the registered names.
        ConfigurationError: the name is no string.

    Example:
        >>> find_model("ColTiny").dim
        128
        >>> find_model("vidore/colflor")
        Traceback (most recent call last):
        colpali_integrations.errors.ModelNotFoundError: no model is registered as 'vidore/colflor' ...
    """
    if (model := _models.get(checked_text(name, "the name of a model").lower())) is not None:
        return model
    others = f"{not_registered(name)} Checkpoints of the same architectures ({', '.join(FAMILIES)}) can be"
    opened = "opened as a folder, with config.json, tokenizer and weights; others are not supported."
    raise ModelNotFoundError(f"{others} added with register_model(...) or {opened}", command=f"{others} {opened}")


def not_registered(name: str) -> str:
    """What an error says of a name that is neither registered nor a folder, with the nearest registered one."""
    names = {model.name.lower(): model.name for model in list_supported_models()}
    near = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    near = near or [key for key in names if key.rpartition("/")[2].startswith(name.lower())][:1]
    return (
        f"no model is registered as {name!r} and no folder has that name. "
        + "".join(f"Did you mean {names[key]!r}? " for key in near)
        + f"Registered are {', '.join(names.values())}."
    )
