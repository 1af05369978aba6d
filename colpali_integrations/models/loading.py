"""Loading a model: from a name or folder and options to its family, its sessions and its description."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

from colpali_integrations._failures import failing_as
from colpali_integrations._paths import path_text, user_path
from colpali_integrations.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.base import base_configuration, find_base, is_repository, small_files
from colpali_integrations.models.builder.files import INDEX_FILE, MODULES_FILE
from colpali_integrations.models.connection import is_server, server_url
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.exported import compared
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.family import Family, family_class
from colpali_integrations.models.folder import describe_folder, describe_repository, revision_at
from colpali_integrations.models.hub import resolve_files, with_named_files
from colpali_integrations.models.opened import Opened
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.models.registry import find_model, not_registered, registered_model
from colpali_integrations.models.remote import RemoteFamily, RemoteSessions, open_remote
from colpali_integrations.runtime.graph_session import SessionConfig
from colpali_integrations.runtime.providers import Provider, check_onnxruntime, preferred_provider, resolve_providers
from colpali_integrations.runtime.session import ModelSessions

__all__ = ["ModelFiles", "ModelParts", "check_name", "describe", "find_files", "load_parts", "registered_description"]

_CUDA = "CUDAExecutionProvider"
# Fields of a description that are also options.
_SETTINGS = ("precision", "max_side", "max_num_visual_tokens", "dim", "allow_unused")

NameOrPath = str | os.PathLike[str]


class ModelParts(NamedTuple):
    """The arguments of `ColPali`."""

    family: Family
    sessions: list[ModelSessions]
    description: ModelDescription
    image_options: dict[str, Any]
    opened: Opened | None


def load_parts(name_or_path: NameOrPath, options: ModelOptions, *, lazy_load: bool = False) -> ModelParts:
    """Find or download the files of a model, and open them.

    Args:
        name_or_path: as for `ColPali.from_pretrained`.
        options: as for `ColPali.from_pretrained`.
        lazy_load: make the sessions at first use.

    Raises:
        ColPaliError: as `ColPali.from_pretrained`.
    """
    if is_server(name_or_path):
        return _remote_parts(os.fspath(name_or_path), options)
    providers = _providers(options)
    if providers is not None:
        resolve_providers(providers)  # before a download, so that a missing provider is an error at once
    files = find_files(name_or_path, options)
    family = files.family()
    config = SessionConfig(
        providers=None if providers is None else tuple(providers),
        threads=options.threads,
        enable_cpu_mem_arena=options.enable_cpu_mem_arena,
        split=options.split_graph,
        cache_dir=None if options.cache_dir is None else os.fspath(options.cache_dir),
    )
    devices: Sequence[int | None] = options.device_ids or (None,)
    sessions = [ModelSessions(family.graphs, replace(config, device_id=device)) for device in devices]
    if not lazy_load:
        for one in sessions:
            one.load()
    opened = Opened.by(os.fspath(name_or_path), options, files.description)
    return ModelParts(family, sessions, files.description, options.image_options, opened)


def _remote_parts(url: str, options: ModelOptions) -> ModelParts:
    connection, served = open_remote(url, options)
    # They have all that `ColPali` uses of a family and of sessions, and no files and graphs.
    family = cast("Family", RemoteFamily(connection, served))
    sessions = cast("ModelSessions", RemoteSessions(connection, served))
    return ModelParts(family, [sessions], served.description, options.image_options, None)


def _providers(options: ModelOptions) -> Sequence[Provider] | None:
    """The execution providers that the caller requested, by name or by device; None for any."""
    return (_CUDA,) if options.providers is None and options.device_ids else options.providers


class ModelFiles(NamedTuple):
    """The files of a model.

    Attributes:
        description: of the model by its exact revision, with the options' settings.
        folder: where they are.
        base: the folder of the checkpoint that an adapter adapts; None for other models.
    """

    description: ModelDescription
    folder: Path
    base: Path | None = None

    def family(self) -> Family:
        """The model's family, bound to the files."""
        family = family_class(self.description.family)
        with failing_as(ModelLoadError, f"the model in {self.folder}"):
            if self.base is None:
                return family(self.description, self.folder)
            return family(self.description, self.folder, base=self.base)


def find_files(name_or_path: NameOrPath, options: ModelOptions) -> ModelFiles:
    """Describe a model by its exact revision, and find or download its files.

    Raises:
        ConfigurationError: an option is not one of the model's.
        ModelNotFoundError: the name is unknown, or files are missing and cannot be fetched.
        ModelLoadError: a file is damaged or does not fit the family, or onnxruntime is too old for it.
    """
    named = path_text(name_or_path, ConfigurationError, "the name of a model")
    if is_server(name_or_path):
        raise ConfigurationError(
            f"{server_url(named)} is a server, and the files of a model are needed here; give its name or its folder"
        )
    with failing_as(ModelLoadError, f"the model {named}"):
        return _find_files(name_or_path, options)


def _find_files(name_or_path: NameOrPath, options: ModelOptions) -> ModelFiles:
    description, given = describe(name_or_path, options)
    if description.is_checkpoint:
        check_onnxruntime(FAMILIES[description.family].onnxruntime, description.name)
    description = _with_files(description, options, given)
    folder = resolve_files(
        description, local_dir=given, cache_dir=options.cache_dir, local_files_only=options.local_files_only
    )
    if description.repository is not None and description.origin is not None:
        description = compared(description, folder)
    description = replace(description, revision=revision_at(description, folder))
    if not description.is_adapter:
        return ModelFiles(description, folder)
    base = find_base(folder, description, options)
    return ModelFiles(replace(description, base=base.name, base_revision=base.revision), folder, base.folder)


def _with_files(description: ModelDescription, options: ModelOptions, given: NameOrPath | None) -> ModelDescription:
    """The description of a registered model with the files that its index of shards and its modules.json name."""
    if description.repository is None or not {INDEX_FILE, MODULES_FILE} & set(description.files):
        return description
    folder = small_files(description.repository, options, description.revision) if given is None else Path(given)
    return with_named_files(description, folder)


def describe(name_or_path: NameOrPath, options: ModelOptions) -> tuple[ModelDescription, NameOrPath | None]:
    """Describe the model of a name, folder or server with the options' settings, without downloading weights.

    Every entry point that takes a model's name resolves it here. A registered name reads no file; of a repository that
    is not registered, the small files are fetched.

    Returns:
        The description, and the folder with the model's files where the caller gave one.

    Raises:
        ConfigurationError: an option is not one of the model's.
        ModelNotFoundError: the name is unknown and there is no such folder.
        ModelLoadError: the files of the folder cannot be described.
    """
    if is_server(name_or_path):
        connection, served = open_remote(os.fspath(name_or_path), options)
        connection.close()
        return served.description, None
    if options.api_key_file is not None:
        raise ConfigurationError("api_key_file: for a model on a server, which is named by its URL; leave it out")
    description, folder = _find(name_or_path, options)
    if options.revision is not None:
        if folder is not None or description.repository is None:
            raise ConfigurationError(
                f"revision: the files of {description.name} are in a folder, and only a repository has revisions; "
                "leave it out"
            )
        description = replace(description, revision=options.revision)
    return _with_settings(description, options), folder


def _find(name_or_path: NameOrPath, options: ModelOptions) -> tuple[ModelDescription, NameOrPath | None]:
    description = registered_model(name_or_path, options.local_dir)
    if description is not None:
        return description, options.local_dir
    check_name(name_or_path, options.local_dir)
    folder = user_path(name_or_path, ModelNotFoundError)
    with failing_as(ModelLoadError, f"the model {os.fspath(name_or_path)}"):
        if folder.is_dir():
            return describe_folder(folder, base=base_configuration(folder, options)), folder
        return _describe_unregistered(os.fspath(name_or_path), options), None


def registered_description(name_or_path: NameOrPath, options: ModelOptions) -> ModelDescription | None:
    """The description of a registered model with the options' settings, without reading or fetching a file.

    Returns:
        None for other models, and for one whose files are in `local_dir`.
    """
    description = None if options.local_dir is not None else registered_model(name_or_path, None)
    if description is not None and options.revision is not None:
        description = replace(description, revision=options.revision)
    return None if description is None else _with_settings(description, options)


def _describe_unregistered(name: str, options: ModelOptions) -> ModelDescription:
    try:
        folder = small_files(name, options, options.revision)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"{not_registered(name)} As a repository of the Hub: {error}") from error
    return describe_repository(name, folder, base=base_configuration(folder, options))


def _with_settings(description: ModelDescription, options: ModelOptions) -> ModelDescription:
    """The description with the settings of a checkpoint that the caller chose."""
    chosen = {name: value for name in _SETTINGS if (value := getattr(options, name))}
    if description.origin is not None:
        _check_exported(description, description.origin.name, chosen)
    if chosen and not description.is_checkpoint:
        raise ConfigurationError(
            f"{', '.join(chosen)}: {description.name} is an ONNX export, whose precision and page size are those of "
            "its files; these options are for checkpoints in safetensors"
        )
    permitted = FAMILIES[description.family].settings
    if others := [name for name in chosen if name not in permitted]:
        raise ConfigurationError(
            f"{', '.join(others)}: not an option of the family {description.family!r} of {description.name}, which has "
            + ", ".join(f"{name}=" for name in permitted)
        )
    on_gpu = description.is_checkpoint and preferred_provider(_providers(options)) == _CUDA
    if on_gpu and (chosen.get("precision") or description.precision) == "int8-dynamic":
        raise ConfigurationError(
            f"{description.name}: precision='int8-dynamic' is for CPUs; on a GPU use 'float16', 'int8' or 'float32'"
        )
    if on_gpu and description.origin is None and description.precision is None:
        chosen.setdefault("precision", "float16")
    if options.drop_blank:
        if not FAMILIES[description.family].patches:
            raise ConfigurationError(
                f"drop_blank: {description.name} reads ink only, and has no vectors of plain paper; leave it out"
            )
        chosen["drop_blank"] = True
    if options.base is not None and not description.is_adapter:
        raise ConfigurationError(f"base: {description.name} is not an adapter, its weights are whole")
    return replace(description, **chosen)


def _check_exported(description: ModelDescription, checkpoint: str, chosen: Mapping[str, Any]) -> None:
    """Refuse settings that were fixed when the folder was exported."""
    fixed = {"precision": description.precision or "float32", "dim": description.dim}
    if any(chosen.get(name, value) != value for name, value in fixed.items()) or "allow_unused" in chosen:
        made = ", ".join(f"{name}={value!r}" for name, value in fixed.items())
        raise ConfigurationError(
            f"{description.name} was exported from {checkpoint} with {made}, which cannot be changed; export the "
            "checkpoint again with other options"
        )


def check_name(name_or_path: NameOrPath, local_dir: NameOrPath | None) -> None:
    """Refuse a name that is neither registered, nor a folder, "owner/name" or a URL, without reading any file.

    Raises:
        ModelNotFoundError: it is none of these, or the URL is not one of a server.
    """
    if is_server(name_or_path):
        try:
            server_url(os.fspath(name_or_path))
        except ConfigurationError as error:  # as a ValueError, pydantic would show it with the URL and its password
            raise ModelNotFoundError(str(error)) from None
        return
    if registered_model(name_or_path, local_dir) is not None:
        return
    path = user_path(name_or_path, ModelNotFoundError)
    if local_dir is None and path.is_file():
        raise ModelNotFoundError(f"{path} is a file; name the folder of the model's files")
    if local_dir is None and (path.is_dir() or is_repository(name_or_path)):
        return
    if isinstance(name_or_path, os.PathLike):
        raise ModelNotFoundError(f"no folder at {os.fspath(name_or_path)}")
    find_model(name_or_path)
