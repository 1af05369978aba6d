"""Exit codes, and the opening of stores and models, for all commands."""

from __future__ import annotations

from enum import IntEnum

from colpali_integrations.cli.collections import (
    described,
    has_layout,
    is_collection,
    named_model,
    opened_store,
    place_settings,
)
from colpali_integrations.cli.model_options import CheckpointOptions
from colpali_integrations.cli.places import StorePlace
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import is_server
from colpali_integrations.models.loading import describe
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.stores import MultiVectorStore
from colpali_integrations.stores.model_choice import continued_options, registered_options, stored_model

__all__ = ["EPILOG", "NAME", "ExitCode", "open_encoder", "open_store", "require_store"]

NAME = "colpali-integrations"
EPILOG = (
    "Exit codes: 0 done; 1 error; 2 wrong usage; 3 nothing found, some documents could not be indexed, entries were "
    "lost, or verify or doctor found a problem; 130 interrupted."
)


class ExitCode(IntEnum):
    """Exit codes, for scripts."""

    OK = 0
    ERROR = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


def require_store(store: StorePlace) -> None:
    """Refuse a folder without a store, a URL without a server, and a collection that cannot be opened.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    if place_settings(store) is None and not has_layout(store):
        make = f"{NAME} index PATH --store {store}"
        if is_collection(store):
            raise StoreError(f"{described(store)} does not exist: check its name, or make it with {make}")
        raise StoreError(f"there is no store at {store}: make one with {make}")


def open_store(store: StorePlace, model: ColPali | None = None, *, read_only: bool = False) -> MultiVectorStore:
    """Open an existing store.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    require_store(store)
    return opened_store(store, model, read_only=read_only and not is_server(store))


def open_encoder(model: str | None, options: CheckpointOptions, store: StorePlace) -> ColPali:
    """The model of --model, else the one that made the store, else ColTiny; with the store's settings by default.

    A store of another space refuses the model before anything is downloaded. For the store of a server the default is
    the server's own model, so that nothing is downloaded here.
    """
    settings, given = place_settings(store), options.given()
    model = model or named_model(store)
    if model is None and is_server(store):
        return ColPali.from_pretrained(store, lazy_load=True, **given)
    if settings is None:
        if model is None and has_layout(store):
            raise ConfigurationError(f"{store} has a layout and names no model; pass the one that made it by --model")
        if model is None:
            options.require_model("ColTiny, which makes a new index, has no such option; name a checkpoint by --model")
        return ColPali.from_pretrained(model or "coltiny", lazy_load=True, **given)
    where = f"the store {store}"
    if model is None:
        given = {**registered_options(settings.model, where=where, advice="name its folder by --model"), **given}
    else:
        given = continued_options(settings.model, model, given)
    name = model or settings.model.name
    described, _ = describe(name, ModelOptions(**given))
    settings.model.require_space(stored_model(described), where=where)
    return ColPali.from_pretrained(name, lazy_load=True, **given)
