"""Describe the model in a folder by its files."""

from __future__ import annotations

import glob
import hashlib
import logging
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from colpali_integrations.errors import ModelLoadError, ModelNotFoundError
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.registry import ModelDescription, list_supported_models

__all__ = ["DESCRIPTION_FILE", "content_revision", "describe_folder", "revision_at"]

logger = logging.getLogger(__name__)

DESCRIPTION_FILE = "colpali_integrations.json"
"""In a model's folder: `{"description": {fields of ModelDescription}}`, which then need not be guessed."""

_HASHED_WHOLE = 64 * 2**20
_COMMIT = re.compile(r"[0-9a-f]{40}")

# The words by which config.json (model_type) and the processor configurations (processor_class) tell the family, and
# the registered model whose prompts a folder of that family gets. The first word found decides.
_TELLTALES: tuple[tuple[str, str], ...] = (
    ("coltiny", "coltiny"),
    ("vbert", "Qdrant/colmodernvbert"),
    ("colsmol", "Qdrant/colmodernvbert"),
    ("idefics3", "Qdrant/colmodernvbert"),
    ("smolvlm", "Qdrant/colmodernvbert"),
    ("colpali", "Qdrant/colpali-v1.3-fp16"),
    ("paligemma", "Qdrant/colpali-v1.3-fp16"),
)
# ColSmol's and ColIdefics3's page prompt begins differently; their processors say so.
_IM_START = ("colidefics3", "colsmol", "smolvlm")


def describe_folder(folder: Path) -> ModelDescription:
    """Describe the model in a folder: its family, prompts and dimension, read from its files.

    A folder with a `colpali_integrations.json`, as `colpali-integrations export` writes it, needs no guessing: its
    "description" holds fields of `ModelDescription`. A folder made from a registered repository (config.json's
    `_name_or_path`) gets that model's prompts. Another one gets those of its family's newest checkpoint, and the log
    says so, for a wrong query prompt costs quality and nothing else would tell.

    Raises:
        ModelNotFoundError: there is no such folder.
        ModelLoadError: its files do not tell the family, or it holds no ONNX file, or its description cannot be used.
    """
    if not folder.is_dir():
        raise ModelNotFoundError(f"no folder at {folder}")
    said = _said(folder)
    if said:
        return _finished(folder, _from_file(folder, said))
    config = read_json(folder, "config.json")
    processors = [
        read_json(folder, name, optional=True) for name in ("processor_config.json", "preprocessor_config.json")
    ]
    hints = " ".join(_hints(config, *processors)).lower()
    base_name = next((name for word, name in _TELLTALES if word in hints), None)
    if base_name is None:
        raise ModelLoadError(
            f"cannot tell the family of {folder} from config.json (model_type {config.get('model_type')!r}) or its "
            "processor configuration; call register_model(ModelDescription(...)) and pass local_dir="
        )
    known = {model.name: model for model in list_supported_models()}
    base = known[base_name]
    origin = str(config.get("_name_or_path", ""))
    exact = next((model for model in known.values() if origin and origin in (model.repository, model.name)), None)
    if exact is not None and exact.family == base.family:
        base = exact
    elif base.family == "paligemma":  # the other families have had one prompt each, ever
        logger.warning(
            "%s does not say which query prompt it was trained with; using that of %s (%r). If it is another "
            "checkpoint, register_model(ModelDescription(...)) with its own and pass local_dir=",
            folder,
            base.name,
            base.query_prefix,
        )
    prompt = base.image_prompt
    if base.family == "idefics3" and any(word in hints for word in _IM_START):
        prompt = prompt.replace("<|begin_of_text|>", "<|im_start|>")
    guessed = replace(
        base,
        image_prompt=prompt,
        dim=_dim(config, base.dim),
        best_match=_best_match(config, base),
        parameters=0,
        license="",
        vidore=(),
        vidore_source="",
        summary=f"Read from {folder}.",
    )
    return _finished(folder, guessed)


def _finished(folder: Path, model: ModelDescription) -> ModelDescription:
    """The description with what the folder's files are called, hold and weigh."""
    model_file = _onnx_file(folder, model.model_file)
    present = tuple(name for name in model.additional_files if (folder / name).exists())
    # Exports name the file of their weights after the graph's: model.onnx_data, model.onnx.data, model.onnx_data_1.
    weights = sorted((folder / model_file).parent.glob(f"{glob.escape(PurePosixPath(model_file).name)}?*"))
    contents = {*present, model_file, *(path.relative_to(folder).as_posix() for path in weights if path.is_file())}
    return replace(
        model,
        name=folder.resolve().name.strip() or "model",
        repository=None,
        revision=content_revision(folder, contents),
        model_file=model_file,
        additional_files=present,
        size_in_bytes=sum(file.stat().st_size for file in folder.iterdir() if file.is_file()),
    )


def _said(folder: Path) -> Mapping[str, Any]:
    content = read_json(folder, DESCRIPTION_FILE, optional=True)
    said = content.get("description", {})
    if not isinstance(said, Mapping) or ("family" not in said and (folder / DESCRIPTION_FILE).exists()):
        raise ModelLoadError(f'{folder / DESCRIPTION_FILE} must hold {{"description": {{"family": ..., ...}}}}')
    return said


def _from_file(folder: Path, said: Mapping[str, Any]) -> ModelDescription:
    path, family = folder / DESCRIPTION_FILE, said["family"]
    allowed = {field.name for field in fields(ModelDescription)} - {"name", "repository", "revision"}
    if unknown := sorted(set(said) - allowed):
        raise ModelLoadError(f"{path}: unknown {', '.join(unknown)}; known are {', '.join(sorted(allowed))}")
    base = next((model for model in list_supported_models() if model.family == family), None)
    if base is None:
        known = sorted({model.family for model in list_supported_models()})
        raise ModelLoadError(f"{path}: unknown family {family!r}; known are {', '.join(known)}")
    try:
        files = {"additional_files": base.additional_files, "dim": base.dim, "unit_length": base.unit_length}
        made = {**files, "best_match": base.best_match, "summary": f"Read from {folder}.", **said}
        made["additional_files"] = tuple(made["additional_files"])
        return ModelDescription(name=folder.resolve().name.strip() or "model", **made)
    except (TypeError, ValueError) as error:
        raise ModelLoadError(f"{path}: {error}") from error


def content_revision(folder: Path, names: Iterable[str]) -> str:
    """What files hold, as "sha256:" and 12 hex digits: two checkpoints differ in it, copies of one do not.

    Names, sizes and all the bytes of files of up to 64 MiB count (graphs, tokenizers, configurations); of larger ones,
    which are weights, the first and the last MiB and 64 samples in between: a checkpoint that was trained further
    differs almost everywhere, and no model should take a minute to open for the sake of a checksum.

    Args:
        folder: where the files are.
        names: relative to it, with forward slashes; those that are not there are passed over.

    Raises:
        ModelLoadError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        try:
            with (folder / name).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                digest.update(f"{name}\0{size}\0".encode("utf-8", "surrogateescape"))
                for start, length in _samples(size):
                    file.seek(start)
                    digest.update(file.read(length))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelLoadError(f"cannot read {folder / name}: {error}") from error
    return f"sha256:{digest.hexdigest()[:12]}"


def revision_at(description: ModelDescription, directory: Path) -> str | None:
    """Which revision of a model a folder really holds: a description may follow a branch, and a branch moves on.

    Args:
        description: what was asked for.
        directory: where its files are.

    Returns:
        The commit, for a snapshot of huggingface_hub's cache; a `content_revision` for another folder with the files of
        a repository; for a bundled model or a bare folder what the description says, which is their content already.

    Raises:
        ModelLoadError: a file cannot be read.
    """
    if description.repository is None:
        return description.revision
    if directory.parent.name == "snapshots" and _COMMIT.fullmatch(directory.name):
        return directory.name
    return content_revision(directory, description.files)


def _samples(size: int) -> list[tuple[int, int]]:
    """(start, length) of the parts of a file that are hashed."""
    if size <= _HASHED_WHOLE:
        return [(start, 2**20) for start in range(0, size, 2**20)]
    between = [(size * part // 65, 2**14) for part in range(1, 65)]
    return [(0, 2**20), *between, (size - 2**20, 2**20)]


def _best_match(config: Mapping[str, Any], base: ModelDescription) -> float:
    if base.family != "coltiny":
        return base.best_match
    from colpali_integrations.models.coltiny.family import best_match

    k1, hinge = config.get("k1"), config.get("hinge")
    # The family says what is wrong with a configuration, when the model is loaded.
    return best_match(k1, hinge) if isinstance(k1, int | float) and isinstance(hinge, int | float) else base.best_match


def _hints(*configs: Mapping[str, Any]) -> list[str]:
    found: list[str] = []
    for config in configs:
        for key in ("model_type", "processor_class", "image_processor_type", "_name_or_path", "family"):
            found.append(str(config.get(key, "")))
        found.append(str(config.get("architectures", "")))
        if isinstance(inner := config.get("vlm_config"), Mapping):
            found.append(str(inner.get("model_type", "")))
    return found


def _onnx_file(folder: Path, preferred: str) -> str:
    for name in (preferred, "model.onnx", "onnx/model.onnx"):
        if (folder / name).is_file():
            return name
    found = sorted(path.name for path in folder.glob("*.onnx"))
    if len(found) == 1:
        return found[0]
    raise ModelLoadError(f"{folder} should hold {preferred}; ONNX files there: {', '.join(found) or 'none'}")


def _dim(config: Mapping[str, Any], default: int) -> int:
    for key in ("embedding_dim", "dim"):
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            return value
    return default
