"""Which model a store goes with: from what a caller names to its record, its options and the encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, TypeAlias

from colpali_integrations.errors import ConfigurationError, ModelNotFoundError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import is_server
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.fingerprint import same_identity
from colpali_integrations.models.loading import describe, registered_description
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import find_model, registered_model
from colpali_integrations.models.shared import shared_model
from colpali_integrations.stores.settings import StoredModel

__all__ = [
    "ModelLike",
    "continued",
    "continued_options",
    "open_model",
    "question_model",
    "refuse_other_model",
    "registered",
    "registered_options",
    "stored_model",
]

ModelLike: TypeAlias = ColPali | ModelDescription | StoredModel | str | os.PathLike[str]


def stored_model(model: ModelLike, *, beside: StoredModel | None = None) -> StoredModel:
    """The record of a model, of its description, or of the model of a name or folder.

    Args:
        model: any of these.
        beside: the model of a store, with whose settings a name or folder goes on; see `continued_options`.

    Raises:
        ConfigurationError: it is none of these.
        ModelNotFoundError: the name is unknown and there is no such folder.
        ModelLoadError: the files of the folder cannot be described.
    """
    if isinstance(model, StoredModel):
        return model
    if isinstance(model, str | os.PathLike):
        options = {} if beside is None else continued_options(beside, model)
        model, _ = describe(model, ModelOptions(**options))
    elif isinstance(model, ColPali):
        model = model.description
    if not isinstance(model, ModelDescription):
        raise ConfigurationError(
            f"model must be a ColPali, a ModelDescription, or the name or folder of a model, got {type(model).__name__}"
        )
    return StoredModel.of(model)


def registered(model: StoredModel) -> ModelDescription | None:
    """The description that is registered under the name of a store's model, if it is of the same space."""
    found = registered_model(model.name, None)
    return found if found is not None and found.fingerprint.same_space(model.fingerprint) else None


def registered_options(model: StoredModel, *, where: str, advice: str) -> dict[str, Any]:
    """The options that make a store's pages, of a model that is registered under the name that the store records.

    Only a registered name is opened, because opening it may download it: a store is a file that anybody may have made.

    Args:
        model: of the store.
        where: the store, for the message.
        advice: for the message: how the caller names the model.

    Raises:
        ConfigurationError: no model is registered by that name.
    """
    try:
        description = find_model(model.name)
    except ModelNotFoundError as error:
        raise ConfigurationError(
            f"{where} was made by the model {model.name!r}, which is not registered here; {advice}"
        ) from error
    return _settings_of_pages(model, description)


def continued_options(
    model: StoredModel, name_or_path: str | os.PathLike[str], options: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The caller's options for a model, and beside them those that make a store's pages, if it is the store's model.

    So a store goes on with its settings, whether its model is named again or not. Another model of the same space, and
    one of another space, gets the caller's options alone.

    Args:
        model: of the store.
        name_or_path: that the caller gives for a model.
        options: that the caller gives, which count more.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`, of a name or folder that cannot be described.
    """
    if is_server(name_or_path):  # it decides the settings, and checks compare them with those of the store
        return dict(options)
    described, _ = describe(name_or_path, ModelOptions(**options))
    settings = _settings_of_pages(model, described)
    weights = replace(described, **settings).fingerprint.pages.weights
    if not same_identity(weights, model.fingerprint.pages.weights):
        return dict(options)
    own = described.fingerprint.pages.options
    return {**{name: value for name, value in settings.items() if value != own.get(name)}, **options}


def continued(
    model: StoredModel, name_or_path: str | os.PathLike[str], options: ModelOptions, *, where: str
) -> ModelOptions:
    """The options of an adapter's encoder for a store: those that the caller left out go on with the store's.

    Args:
        model: of the store.
        name_or_path: of the encoder's model.
        options: of the encoder.
        where: the store, for messages.

    Raises:
        FingerprintError: a registered model of another space; it is refused before it is loaded, which may download it.
        ColPaliError: as `continued_options`.
    """
    refuse_other_model(model, registered_description(name_or_path, options), where=where)
    given = {one.name: value for one in fields(options) if (value := getattr(options, one.name)) != one.default}
    return replace(options, **continued_options(model, name_or_path, given))


def open_model(model: ColPali | str | os.PathLike[str], stored: StoredModel) -> ColPali:
    """The model itself; of a name or folder the process's model, which goes on with the settings of a store's pages.

    Args:
        model: of the caller.
        stored: the model of the store.

    Raises:
        ConfigurationError: it is neither a `ColPali` nor a name or folder.
        ColPaliError: as `ColPali.from_pretrained`, of a name or folder.
    """
    if isinstance(model, ColPali):
        return model
    if not isinstance(model, str | os.PathLike):
        raise ConfigurationError(
            f"model must be a ColPali, or the name or folder of a model, got {type(model).__name__}"
        )
    return shared_model(model, ModelOptions(**continued_options(stored, model)))


def _settings_of_pages(model: StoredModel, description: ModelDescription) -> dict[str, Any]:
    """The options by which a model makes a store's pages, as far as they are options of its family."""
    settings = {**model.fingerprint.pages.options, "dim": model.dim}
    if description.origin is not None:
        settings.pop("precision", None)  # an exported folder has its own
    names = FAMILIES[description.family].settings if description.is_checkpoint else ()
    chosen = {name: value for name, value in settings.items() if name in (*names, "drop_blank")}
    if chosen.get("dim") == description.dim:
        del chosen["dim"]
    return chosen


def question_model(stored: StoredModel, named: str | os.PathLike[str] | None, *, where: str) -> ColPali:
    """The process's model for a store that was opened without a `ColPali`.

    Args:
        stored: the model of the store.
        named: the name or folder that the store was opened with; None for the registered model of the store's name.
        where: the store, for the message.

    Raises:
        ConfigurationError: nothing was named, and the store's model is not registered here.
    """
    if named is not None:
        return open_model(named, stored)
    options = registered_options(stored, where=where, advice="open it with model=<the folder of the model>")
    return shared_model(stored.name, ModelOptions(**options))


def refuse_other_model(stored: StoredModel | None, model: ModelDescription | None, *, where: str) -> None:
    """Refuse a model of another space than a store's before it is loaded, which may download it.

    Args:
        stored: the store's; None where there is none yet.
        model: a registered model; None for another, whose files decide.
        where: the store, for the message.

    Raises:
        FingerprintError: it is of another space.
    """
    if stored is not None and model is not None and model.name.lower() != stored.name.lower():
        stored.require_space(StoredModel.of(model), where=where)
