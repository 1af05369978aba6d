"""Folders of models: their descriptions, the hash of their content, and new ones."""

from __future__ import annotations

import glob
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from colpali_integrations._logs import package_logger, warn_once
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, ModelLoadError, ModelNotFoundError
from colpali_integrations.models.builder.files import (
    ADAPTER_CONFIG,
    DESCRIPTION_FILE,
    INDEX_FILE,
    MODULES_FILE,
    WEIGHTS_FILE,
    adapter_file,
    module_files,
    shard_names,
    weight_names,
)
from colpali_integrations.models.content import content_revision
from colpali_integrations.models.description import ModelDescription, Origin
from colpali_integrations.models.exported import compared
from colpali_integrations.models.families import FAMILIES
from colpali_integrations.models.family import family_class
from colpali_integrations.models.fingerprint import COMMIT
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.registry import list_supported_models, trained_as
from colpali_integrations.models.saved_prompts import PROMPTS_FILE, SavedPrompts
from colpali_integrations.models.sentence_transformers import Modules, check_template, without_modules
from colpali_integrations.models.unsupported import ADDING, check_architecture, describe_by_hand, unknown_architecture

__all__ = [
    *("DESCRIPTION_FILE", "describe_folder", "describe_repository", "new_folder", "revision_at", "weight_files"),
]

logger = package_logger(__name__)

_PROMPTS = ("query_prefix", "query_suffix", "image_prompt")
# In the names of all classes that are trained to retrieve, and of their processors.
_RETRIEVAL = re.compile(r"\bcol|forretrieval")
_HINT_KEYS = ("model_type", "processor_class", "image_processor_type", "_name_or_path", "family", "architectures")


def describe_folder(folder: Path, *, base: Path | None = None) -> ModelDescription:
    """Describe the model in a folder: its family, prompts and dimension, read from its files.

    A folder with a `colpali_integrations.json`, as `colpali-integrations export` writes it, needs no guessing: its
    "description" holds fields of `ModelDescription`. A folder made from a registered repository (config.json's
    `_name_or_path`) gets that model's prompts; a folder of sentence-transformers gets those of its
    config_sentence_transformers.json. Another one gets those of its class, with a log entry where checkpoints of the
    family have different query prompts: a wrong one costs quality without an error.

    Args:
        folder: the folder.
        base: a folder with the config.json of the checkpoint that an adapter adapts; None for models that are none.

    Raises:
        ModelNotFoundError: there is no such folder.
        ModelLoadError: the family or the prompts cannot be recognised, there is no ONNX file and no checkpoint in
            safetensors, or the description is invalid.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"no folder at {folder}")
    described = (folder / DESCRIPTION_FILE).exists()
    model = _read_description(folder) if described else _guess_description(folder, base=base)
    present = tuple(name for name in model.additional_files if name != ADAPTER_CONFIG and (folder / name).exists())
    if model.origin is not None:
        model = compared(model, folder)
        model_file, weights = model.model_file, []  # the weights are among the additional files
    elif base is not None:
        model_file = adapter_file(folder)
        weights = [model_file]
        present = tuple(dict.fromkeys([*present, ADAPTER_CONFIG]))
    elif model.is_checkpoint or (FAMILIES[model.family].settings and _has_only_weights(folder)):
        weights = weight_names(folder)
        model_file = INDEX_FILE if (folder / INDEX_FILE).is_file() else WEIGHTS_FILE
        present = tuple(name for name in dict.fromkeys([*present, *weights]) if name != model_file)
    else:
        model_file = _onnx_file(folder, model.model_file)
        weights = [path.relative_to(folder).as_posix() for path in weight_files(folder / model_file)]
    content = model.revision if model.origin else content_revision(folder, {*present, model_file, *weights})
    return replace(
        model,
        name=folder.resolve().name.strip() or "model",
        repository=None,
        revision=content,
        model_file=model_file,
        additional_files=present,
        size_in_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
    )


def describe_repository(name: str, folder: Path, *, base: Path | None = None) -> ModelDescription:
    """Describe a repository of the Hub that is not registered, from its small files.

    It holds a checkpoint, an adapter, or what `colpali-integrations export` wrote.

    Args:
        name: "owner/name".
        folder: with its configuration files, its index of shards and the tensors of an adapter, as far as it has them.
        base: as for `describe_folder`.

    Raises:
        ModelLoadError: the family cannot be recognised, or is one whose checkpoints are not run as they are.
    """
    if (folder / DESCRIPTION_FILE).is_file() and (exported := _read_description(folder)).origin is not None:
        return replace(exported, name=name, repository=name)
    model = _guess_description(folder, name, base=base)
    if not FAMILIES[model.family].settings:
        problem = f"{name} is of the family {model.family!r}, of which ONNX exports are supported"
        raise ModelLoadError(
            f"{problem}: register one with register_model(ModelDescription(...))",
            command=f"{problem}: download one, and name its folder by --model",
        )
    small = [file for file in model.additional_files if file != ADAPTER_CONFIG and not file.endswith("_data")]
    if base is not None:
        model_file, more = adapter_file(folder), [ADAPTER_CONFIG]
    else:
        more = shard_names(folder) if (folder / INDEX_FILE).is_file() else []
        model_file = INDEX_FILE if more else WEIGHTS_FILE
    return replace(
        model,
        name=name,
        repository=name,
        revision=None,
        model_file=model_file,
        additional_files=tuple(dict.fromkeys([*small, *more])),
        size_in_bytes=0,
        summary=f"The repository {name}, which is not registered.",
    )


def weight_files(graph: Path) -> list[Path]:
    """Files beside a graph that hold its weights.

    Exports name them after the graph: model.onnx_data, model.onnx.data, model.onnx_data_1.
    """
    return [file for file in sorted(graph.parent.glob(f"{glob.escape(graph.name)}?*")) if file.is_file()]


@contextmanager
def new_folder(out: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary folder that becomes `out` when the block ends without an error.

    Args:
        out: a folder that does not exist yet, or is empty; of a link, the folder that it leads to.

    Raises:
        ConfigurationError: `out` exists and is not an empty folder, or cannot be written.
    """
    try:
        target = user_path(out, ConfigurationError).resolve()
        if target.is_symlink():  # from Python 3.13 on, links in a circle are no error
            raise OSError("its links lead in a circle")
        if target.exists() and not (target.is_dir() and not any(target.iterdir())):
            raise ConfigurationError(f"{out} exists already; name a folder that does not exist yet")
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle, before Python 3.13
        raise ConfigurationError(f"{out} cannot be written ({error}); name another folder") from error
    with temporary as folder:
        draft = Path(folder) / "model"
        draft.mkdir()
        yield draft
        if target.exists():
            target.rmdir()
        draft.rename(target)


def _read_description(folder: Path) -> ModelDescription:
    path = folder / DESCRIPTION_FILE
    entry = read_json(folder, DESCRIPTION_FILE).get("description")
    if not isinstance(entry, Mapping) or "family" not in entry:
        raise ModelLoadError(f'{path} must hold {{"description": {{"family": ..., ...}}}}')
    allowed = {field.name for field in fields(ModelDescription)} - {"name", "repository", "revision"}
    if unknown := sorted(set(entry) - allowed):
        raise ModelLoadError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(sorted(allowed))}")
    if entry["family"] not in FAMILIES:
        raise ModelLoadError(f"{path}: unknown family {entry['family']!r}; known are {', '.join(FAMILIES)}")
    base = next((model for model in list_supported_models() if model.family == entry["family"]), None)
    defaults = (
        ["additional_files", "dim", "unit_length", "best_match", "auto_hybrid", "low_relevance"]
        if base is not None
        else []
    )
    if base is not None and base.is_checkpoint:
        defaults.append("model_file")
    values = {**{name: getattr(base, name) for name in defaults}, "summary": f"Read from {folder}.", **entry}
    try:
        values |= {name: tuple(values.get(name, ())) for name in ("additional_files", "allow_unused")}
        if "origin" in values:
            values["origin"] = Origin(**values["origin"])
        described = ModelDescription(name="model", **values)
        for name in described.files:
            _check_inside(name)
    except (TypeError, ValueError, AttributeError) as error:
        raise ModelLoadError(f"{path}: {error}") from error
    return described


def _check_inside(name: str) -> None:
    """Refuse the name of a file that is not in the folder: files of the list are copied, into a folder of the user."""
    for path in (PurePosixPath(name), PureWindowsPath(name)):
        if path.is_absolute() or path.drive or ".." in path.parts:
            raise ValueError(f"the file {name!r} is not in the folder")


def _guess_description(folder: Path, repository: str = "", *, base: Path | None = None) -> ModelDescription:
    config = _read_config(base or folder)
    check_architecture(repository or str(folder), config)
    hints = _hints(folder, config)
    family = next((name for name, entry in FAMILIES.items() if any(word in hints for word in entry.hints)), None)
    models = [model for model in list_supported_models() if model.family == family]
    if family is None or not models:
        raise unknown_architecture(repository or str(folder), config)
    origin = trained_as(repository or str(config.get("_name_or_path", "")))
    origin = origin if origin is not None and origin.family == family else None
    processor = read_json(folder, "processor_config.json", optional=True)
    adapted = family_class(family).adapt(origin or models[0], config, processor, hints)
    if origin is not None:
        adapted = replace(adapted, **{name: getattr(origin, name) for name in _PROMPTS})
    elif FAMILIES[family].system_prompts:
        pass  # the family reads them itself
    elif saved := SavedPrompts(folder):
        adapted = saved.applied(adapted, config.get("architectures"))
    elif (folder / MODULES_FILE).is_file() and not _RETRIEVAL.search(hints):
        raise _unknown_prompts(folder, adapted)
    elif "query_prefix" not in processor and _several_prompts([adapted, *models]):
        known = f"the files of {folder} do not record the query prompt of the model's training; using"
        known = f"{known} {adapted.query_prefix!r}. For another one"
        warn_once(
            logger,
            f"{known} call register_model(ModelDescription(...)) with it and pass local_dir=",
            extra={"command": f"{known} write it into a {DESCRIPTION_FILE} in the folder, see {ADDING}"},
        )
    sizes = [config.get(key) for key in ("embedding_dim", "embed_dim", "dims", "dim")]
    files = (*without_modules(adapted.additional_files), *module_files(folder))
    if (modules := Modules.read(folder)) is not None:
        if modules.dim is not None and not FAMILIES[family].system_prompts:
            check_template(folder)
        sizes.insert(0, modules.dim)
        adapted = replace(adapted, max_query_tokens=modules.query_length or adapted.max_query_tokens)
    return replace(
        adapted,
        dim=next((size for size in sizes if isinstance(size, int) and size > 0), adapted.dim),
        additional_files=files,
        space=None,  # a checkpoint of the same class may be trained for another
        parameters=0,
        license="",
        vidore=(),
        vidore_source="",
        summary=f"Read from {folder}.",
    )


def _several_prompts(models: list[ModelDescription]) -> bool:
    """Whether checkpoints of a class have different query prompts, those that save theirs left out."""
    return len({model.query_prefix for model in models if PROMPTS_FILE not in model.additional_files}) > 1


def _read_config(folder: Path) -> dict[str, Any]:
    if not (folder / "config.json").is_file():
        raise ModelLoadError(
            f"{folder} has no config.json, which names a model's architecture; download it beside the weights, or "
            f"write a {DESCRIPTION_FILE} with the model's description (see {ADDING})"
        )
    return read_json(folder, "config.json")


def _unknown_prompts(folder: Path, model: ModelDescription) -> ModelLoadError:
    return describe_by_hand(
        f"{folder} names a backbone alone, and no file has the prompts of its training ({PROMPTS_FILE} may)",
        f"register_model(ModelDescription(name='my-model', family={model.family!r}, dim={model.dim}, model_file="
        f"{model.model_file!r}, query_prefix={model.query_prefix!r}, query_suffix={model.query_suffix!r}, "
        f"image_prompt={model.image_prompt!r})), whose prompts are those of the family's other checkpoints",
    )


def _hints(folder: Path, config: Mapping[str, Any]) -> str:
    """Type and class names of a folder's configuration files, in lower case."""
    configs = [config]
    for name in ("processor_config.json", "preprocessor_config.json"):
        configs.append(read_json(folder, name, optional=True))
    if isinstance(inner := config.get("vlm_config"), Mapping):
        configs.append({"model_type": inner.get("model_type", "")})
    return " ".join(str(one.get(key, "")) for one in configs for key in _HINT_KEYS).lower()


def revision_at(description: ModelDescription, directory: Path) -> str | None:
    """The exact revision of the files in a folder: a description may follow a branch, and a branch moves on.

    Args:
        description: the model.
        directory: where its files are.

    Returns:
        The commit, for a snapshot of huggingface_hub's cache; a `content_revision` for another folder with the files of
        a repository; the description's revision for a bundled model or a bare folder, which is a content hash already.

    Raises:
        ModelLoadError: a file cannot be read.
    """
    if description.repository is None:
        return description.revision
    if directory.parent.name == "snapshots" and COMMIT.fullmatch(directory.name):
        return directory.name
    return content_revision(directory, description.files)


def _has_only_weights(folder: Path) -> bool:
    """Whether a folder holds safetensors, and no ONNX file."""
    exported = any(folder.glob("*.onnx")) or (folder / "onnx" / "model.onnx").is_file()
    return not exported and any((folder / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE))


def _onnx_file(folder: Path, preferred: str) -> str:
    for name in (preferred, "model.onnx", "onnx/model.onnx"):
        if (folder / name).is_file():
            return name
    graphs = sorted(path.name for path in folder.glob("*.onnx"))
    if len(graphs) == 1:
        return graphs[0]
    raise ModelLoadError(f"{folder} should hold {preferred}; ONNX files there: {', '.join(graphs) or 'none'}")
