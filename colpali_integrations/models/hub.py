"""Find the files of a model: bundled, local, cached, or downloaded from the Hugging Face Hub.

The cache is huggingface_hub's own (HF_HOME, HF_HUB_CACHE), so a model that another tool fetched is not fetched again,
and cached files are used without a request to the network.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from colpali_integrations._logs import package_logger
from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.builder.files import (
    ADAPTER_CONFIG,
    DESCRIPTION_FILE,
    INDEX_FILE,
    MODULES_FILE,
    WEIGHTS_FILE,
    is_adapter,
    module_files,
    module_folders,
    shard_names,
    weight_names,
)
from colpali_integrations.models.description import ModelDescription

__all__ = [
    *("CacheState", "bundled_folder", "cache_folder", "cache_state", "read_json", "resolve_files", "with_named_files"),
]

logger = package_logger(__name__)


# Small configuration files differ between exports of one family; the family raises an error if it needs a missing one.
_OPTIONAL = {
    *("special_tokens_map.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"),
    *("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *(INDEX_FILE, ADAPTER_CONFIG, DESCRIPTION_FILE),
}
# Seconds until the Hub's first answer; huggingface_hub would wait minutes where the network drops packets. (It may
# spend three of its own on a registry of agents before.) HF_HUB_ETAG_TIMEOUT overrides it.
_FIRST_ANSWER = 4.0


def bundled_folder(description: ModelDescription) -> Path:
    """The folder of a model inside this package."""
    return Path(__file__).parent / description.name / "weights"


def resolve_files(
    description: ModelDescription,
    *,
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that holds the files of a model, after downloading missing ones.

    Args:
        description: the model; its `revision` is honoured.
        local_dir: a folder with the files; nothing is downloaded.
        cache_dir: instead of huggingface_hub's default cache.
        local_files_only: never touch the network (as HF_HUB_OFFLINE=1 does).

    Raises:
        ModelNotFoundError: a file is missing and cannot be fetched.
    """
    if local_dir is not None:
        return _complete(user_path(local_dir, ConfigurationError, "local_dir"), description)
    if description.repository is None:
        return _complete(bundled_folder(description), description)
    folder, complete = _cached(description, cache_dir)
    absent = list(description.files) if folder is None else _missing(folder, description)
    if folder is not None and complete and not absent:
        return folder
    if local_files_only or _offline():
        if folder is not None and not absent:
            return folder
        revision = f" --revision {description.revision}" if description.revision else ""
        raise ModelNotFoundError(
            f"{description.name} is not in the cache (missing: {', '.join(absent)}) and downloading is off "
            f"({'local_files_only=True' if local_files_only else 'HF_HUB_OFFLINE is set'}). Fetch it once on a machine "
            f"with a network: hf download {description.repository}{revision}; or pass local_dir= with a folder that "
            "holds it."
        )
    logger.info(
        "downloading %s from the Hugging Face Hub (%.1f GB)", description.repository, description.size_in_bytes / 1e9
    )
    try:
        downloaded = _download(description, cache_dir)
    except Exception as error:  # errors of HTTP library, Hub and file system share no base class
        if folder is not None and not absent:
            logger.warning("using the cached files of %s; the Hub failed: %s", description.name, _first_line(error))
            return folder
        raise ModelNotFoundError(
            f"cannot fetch {description.repository} from the Hugging Face Hub: {_first_line(error)}. Check the "
            "network, the name and (for gated repositories) `hf auth login`; or pass local_dir= with a folder that "
            "holds the files."
        ) from error
    if not downloaded.is_dir():  # huggingface_hub makes no folder where it downloads nothing
        raise ModelNotFoundError(
            f"{description.repository} has none of the files {', '.join(description.files)}; is it a model?"
        )
    return _complete(downloaded, description)


def with_named_files(description: ModelDescription, folder: Path) -> ModelDescription:
    """Add the files that an index of shards and a modules.json name to those of a model that has such lists.

    Args:
        description: the model.
        folder: with those lists, as far as it has them; without an index of shards, the weights are one file.

    Raises:
        ModelLoadError: a list is damaged.
    """
    weights: list[str] = []
    if description.model_file == INDEX_FILE:
        weights = shard_names(folder) if (folder / INDEX_FILE).is_file() else [WEIGHTS_FILE]
    modules = module_files(folder) if MODULES_FILE in description.files else []
    names = dict.fromkeys([*description.additional_files, *weights, *modules])
    return replace(description, additional_files=tuple(names))


@dataclass(frozen=True)
class CacheState:
    """The files of a model on this machine, found without the network and without reading the weights.

    Attributes:
        folder: the folder of its files; None without any.
        missing: required files that are missing.
        short: files that are shorter than the graph, or their own header, requires; and lists of files that cannot be
            read.
        partial: pieces of interrupted downloads.
        size: bytes of the present files, pieces included.
    """

    folder: Path | None
    missing: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    partial: tuple[Path, ...] = ()
    size: int = 0

    @property
    def complete(self) -> bool:
        """Whether the model can be loaded from here."""
        return self.folder is not None and not self.missing and not self.short


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder of downloaded models: `cache_dir`, or huggingface_hub's default.

    Raises:
        ConfigurationError: no folder can have this path.
    """
    if cache_dir is not None:
        return user_path(cache_dir, ConfigurationError, "cache_dir")
    from huggingface_hub import constants

    return user_path(constants.HF_HUB_CACHE, ConfigurationError, "HF_HUB_CACHE (or HF_HOME)")


def cache_state(
    description: ModelDescription,
    *,
    cache_dir: str | os.PathLike[str] | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    base: str | os.PathLike[str] | None = None,
) -> CacheState:
    """Check which files of a model are here. Never touches the network.

    Args:
        description: the model.
        cache_dir: instead of huggingface_hub's default cache.
        local_dir: the folder of the model's files; None for the cache.
        base: the checkpoint that an adapter adapts, as for `ColPali.from_pretrained`.
    """
    root = bundled_folder(description)
    if local_dir is not None:
        root = user_path(local_dir, ConfigurationError, "local_dir")
    folder: Path | None = root
    if local_dir is None and description.repository is not None:
        root = cache_folder(cache_dir) / f"models--{description.repository.replace('/', '--')}"
        folder, _ = _cached(description, cache_dir)
    files = list(root.rglob("*"))
    partial = tuple(path for path in files if path.suffix == ".incomplete")
    if folder is None:
        return CacheState(None, partial=partial, size=_bytes(files))
    if damaged := _damaged_lists(folder, description):
        return CacheState(folder, short=damaged, partial=partial, size=_bytes(files))
    description = with_named_files(description, folder)
    short = _cut_off(folder, description) if description.is_checkpoint else _shorter(folder, description)
    missing = _missing(folder, description)
    if description.is_adapter and not missing and not _has_base(folder, description, cache_dir, base):
        missing = ["its base checkpoint"]
    return CacheState(folder, tuple(missing), short, partial, _bytes(files))


def _damaged_lists(folder: Path, description: ModelDescription) -> tuple[str, ...]:
    """The lists of a model's files that cannot be read."""
    damaged = []
    for name, read in ((INDEX_FILE, shard_names), (MODULES_FILE, module_folders)):
        if name in description.files and (folder / name).is_file():
            try:
                read(folder)
            except ModelLoadError:
                damaged.append(name)
    return tuple(damaged)


def _has_base(
    folder: Path,
    description: ModelDescription,
    cache_dir: str | os.PathLike[str] | None,
    base: str | os.PathLike[str] | None,
) -> bool:
    """Whether the weights of an adapter's base are here."""
    name = base or description.base or read_json(folder, ADAPTER_CONFIG).get("base_model_name_or_path")
    found: Path | None = None if base is None else user_path(base, ConfigurationError, "base")
    if found is None or not found.is_dir():
        whole = replace(description, repository=str(name), revision=description.base_revision, model_file="config.json")
        found, _ = _cached(replace(whole, additional_files=()), cache_dir)
    try:
        return found is not None and bool(weight_names(found))
    except ModelLoadError:
        return False


def _cut_off(folder: Path, description: ModelDescription) -> tuple[str, ...]:
    """The safetensors files whose header names more bytes than they have."""
    from colpali_integrations.models.builder.weights import read_header

    short = []
    for name in description.files:
        if name.endswith(".safetensors") and (folder / name).is_file():
            try:
                read_header(folder / name)
            except ModelLoadError:
                short.append(name)
    return tuple(short)


def _shorter(folder: Path, description: ModelDescription) -> tuple[str, ...]:
    """The files that are shorter than the graph requires."""
    sizes = _external_data(folder / description.model_file)
    return tuple(
        name
        for name in description.files
        if (folder / name).is_file() and (folder / name).stat().st_size < sizes.get(PurePosixPath(name).name, 1)
    )


def _bytes(paths: list[Path]) -> int:
    # A snapshot's files are links to blobs, and these may be links to a store of several repositories: count each once.
    return sum(path.stat().st_size for path in {path.resolve() for path in paths if path.is_file()})


def read_json(directory: Path, name: str, *, optional: bool = False) -> dict[str, Any]:
    """Read a JSON object from a model's folder; {} when it is optional and absent.

    Raises:
        ModelLoadError: the file is absent, not JSON, or not an object.
    """
    path = directory / name
    if optional and not path.is_file():
        return {}
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _cached(description: ModelDescription, cache_dir: str | os.PathLike[str] | None) -> tuple[Path | None, bool]:
    """The folder of the cached files, and whether huggingface_hub considers it complete."""
    # Imported here: huggingface_hub costs more import time than the rest of this package.
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(**_request(description, cache_dir), local_files_only=True)), True
    except (OSError, ValueError) as error:  # LocalEntryNotFoundError is both; a malformed name is a ValueError
        # huggingface_hub >= 1.32 keeps the list of a repository's files, and refuses a snapshot that lacks one.
        incomplete = getattr(error, "snapshot_path", None)
        return (None if incomplete is None else Path(incomplete)), False


def _download(description: ModelDescription, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Download missing files, with huggingface_hub's progress bars.

    Raises:
        Exception: any error of the network or the file system.
    """
    from huggingface_hub import HfApi, constants, snapshot_download

    assert description.repository is not None
    patience = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else _FIRST_ANSWER
    HfApi().repo_info(description.repository, revision=description.revision, timeout=patience)
    return Path(snapshot_download(**_request(description, cache_dir)))


def _request(description: ModelDescription, cache_dir: str | os.PathLike[str] | None) -> dict[str, Any]:
    return {
        "repo_id": description.repository,
        "revision": description.revision,
        "cache_dir": None if cache_dir is None else Path(cache_dir),
        "allow_patterns": list(description.files),
    }


def _offline() -> bool:
    """Whether the environment forbids the network; the variable may be set after huggingface_hub is imported."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def _missing(directory: Path, description: ModelDescription) -> list[str]:
    """The absent files that the model requires."""
    absent = [name for name in description.files if name not in _OPTIONAL and not (directory / name).is_file()]
    if is_adapter(directory):  # whose config.json is that of its base
        absent = [name for name in absent if name != "config.json"]
    only_configuration = description.model_file == "config.json"  # of a repository whose family is not known yet
    if only_configuration or (directory / "processor_config.json").is_file():  # transformers 5 writes no other
        absent = [name for name in absent if name != "preprocessor_config.json"]
    weights = [name for name in absent if name.endswith(("_data", ".data"))]
    if weights and description.model_file not in absent:
        # Some exports of a family hold their weights in the graph, others beside it.
        required = _external_data(directory / description.model_file)
        absent = [name for name in absent if name not in weights or PurePosixPath(name).name in required]
    return absent


def _external_data(model: Path) -> dict[str, int]:
    """Files beside a graph that hold its weights, and their sizes in bytes; {} if the graph cannot be read."""
    import onnx

    try:
        graph = onnx.load(os.fspath(model), load_external_data=False).graph
        sizes: dict[str, int] = {}
        for tensor in graph.initializer:
            entries = {entry.key: entry.value for entry in tensor.external_data}
            if "location" in entries:
                name = PurePosixPath(entries["location"]).name
                end = int(entries.get("offset", 0)) + int(entries.get("length", 0))
                sizes[name] = max(sizes.get(name, 0), end)
    except Exception:  # protobuf's DecodeError has no stable import path; loading the session reports the damage
        return {}
    return sizes


def _complete(directory: Path, description: ModelDescription) -> Path:
    if not directory.is_dir():
        raise ModelNotFoundError(f"{description.name}: no folder at {directory}")
    if missing := _missing(directory, description):
        raise ModelNotFoundError(
            f"{description.name}: {directory} lacks {', '.join(missing)}; it should hold {', '.join(description.files)}"
        )
    return directory


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
