"""The checkpoint that a LoRA adapter adapts: which one it is, and where its files are."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from colpali_integrations.errors import ModelNotFoundError
from colpali_integrations.models.builder.files import (
    ADAPTER_CONFIG,
    ADAPTER_FILE,
    DESCRIPTION_FILE,
    INDEX_FILE,
    LENGTHS_FILE,
    MODULES_FILE,
    WEIGHTS_FILE,
    is_adapter,
    module_files,
    shard_names,
    weight_names,
)
from colpali_integrations.models.chat_template import TEMPLATE_FILE
from colpali_integrations.models.content import content_revision
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.folder import revision_at
from colpali_integrations.models.hub import read_json, resolve_files
from colpali_integrations.models.options import ModelOptions

__all__ = ["BaseFiles", "base_configuration", "find_base", "is_repository", "small_files"]

_SMALL_FILES = (
    DESCRIPTION_FILE,
    *("processor_config.json", "preprocessor_config.json", "config_sentence_transformers.json", MODULES_FILE),
    *(TEMPLATE_FILE, LENGTHS_FILE, INDEX_FILE, ADAPTER_CONFIG),
)

# A repository's owner and name.
_REPOSITORY = re.compile(r"\w[\w.-]*/\w[\w.-]*")


class BaseFiles(NamedTuple):
    """The files of a base.

    Attributes:
        folder: with config.json and the safetensors files.
        name: its repository, or the name of its folder.
        revision: its commit, or a hash of its files.
    """

    folder: Path
    name: str
    revision: str | None


def is_repository(name_or_path: str | os.PathLike[str]) -> bool:
    """Whether a name has the form "owner/name"."""
    return isinstance(name_or_path, str) and _REPOSITORY.fullmatch(name_or_path) is not None


def small_files(name: str, options: ModelOptions, revision: str | None = None) -> Path:
    """Find or download the configuration files of a repository, its index of shards, and the tensors of an adapter.

    Those of its modules too, where it is of sentence-transformers' layout.

    Where an adapter_config.json lies beside model.safetensors, that file is found or downloaded too: only its tensors
    tell whether they are an adapter's.

    Raises:
        ModelNotFoundError: it has neither config.json nor adapter_config.json, or cannot be fetched.
    """
    small = _repository(name, revision)
    folder = _resolve(small, options)
    if modules := [name for name in module_files(folder) if name.endswith("/config.json")]:
        folder = _resolve(replace(small, additional_files=(*small.additional_files, *modules)), options)
    if not (folder / ADAPTER_CONFIG).is_file() or any(folder.glob("*.safetensors")):
        return folder  # where weights are cached already, they tell without a request
    try:
        return _resolve(_with(small, ADAPTER_FILE), options)
    except ModelNotFoundError as error:
        if (folder / INDEX_FILE).is_file():
            return folder
        try:
            return _resolve(_with(small, WEIGHTS_FILE), options)
        except ModelNotFoundError:
            raise error from None


def _with(description: ModelDescription, name: str) -> ModelDescription:
    """The description with one more required file."""
    return replace(description, additional_files=(*description.additional_files, name))


def base_configuration(adapter: Path, options: ModelOptions) -> Path | None:
    """A folder with the config.json of the checkpoint that a folder's adapter adapts; None where it holds no adapter.

    Raises:
        ModelNotFoundError: the base cannot be found.
        ModelLoadError: its files are damaged.
    """
    if not is_adapter(adapter):
        return None
    source = _source(adapter, options, None)
    if isinstance(source, Path):
        return source
    with _explained(adapter, source):
        return small_files(source, options)


def find_base(adapter: Path, description: ModelDescription, options: ModelOptions) -> BaseFiles:
    """Find or download the checkpoint that a folder's adapter adapts.

    Raises:
        ModelNotFoundError: the base cannot be found.
        ModelLoadError: its files are damaged.
    """
    source = _source(adapter, options, description.base)
    if isinstance(source, Path):
        names = ["config.json", INDEX_FILE, *weight_names(source)]
        return BaseFiles(source, source.name, content_revision(source, names))
    with _explained(adapter, source):
        small = small_files(source, options, description.base_revision)
    shards = shard_names(small) if (small / INDEX_FILE).is_file() else []
    whole = replace(
        _repository(source, description.base_revision),
        model_file=INDEX_FILE if shards else WEIGHTS_FILE,
        additional_files=("config.json", *shards),
    )
    with _explained(adapter, source):
        folder = _resolve(whole, options)
    return BaseFiles(folder, source, revision_at(whole, folder))


def _source(adapter: Path, options: ModelOptions, described: str | None) -> Path | str:
    """The base's folder or repository: the caller's, else the description's, else that of adapter_config.json."""
    if options.base is not None and (folder := Path(options.base)).is_dir():
        return folder
    named = options.base or described or read_json(adapter, ADAPTER_CONFIG).get("base_model_name_or_path")
    if isinstance(named, str) and is_repository(named):
        return named
    raise ModelNotFoundError(
        f"{adapter} is an adapter of {named!r}, which is neither a folder nor a repository; pass base= with the folder "
        "or the repository of the checkpoint that it adapts"
    )


@contextmanager
def _explained(adapter: Path, base: str) -> Iterator[None]:
    try:
        yield
    except ModelNotFoundError as error:
        raise ModelNotFoundError(
            f"{adapter} is an adapter of {base!r}, which cannot be found: {error} Or pass base= with its folder."
        ) from error


def _repository(name: str, revision: str | None) -> ModelDescription:
    return ModelDescription(
        name=name,
        family="",
        dim=1,
        repository=name,
        revision=revision,
        model_file="config.json",
        additional_files=_SMALL_FILES,
    )


def _resolve(description: ModelDescription, options: ModelOptions) -> Path:
    return resolve_files(description, cache_dir=options.cache_dir, local_files_only=options.local_files_only)
