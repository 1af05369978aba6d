"""The files of a folder that `exporting` wrote: it records them, and they are compared whenever the folder is opened.

As long as they are the same, the folder has the fingerprint of the checkpoint. A folder whose weights were trained
further, or whose graph was replaced, is a model of its own: it opens, and stores of the checkpoint refuse it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from colpali_integrations._logs import package_logger, warn_once
from colpali_integrations.models.builder.files import ADAPTER_CONFIG, DESCRIPTION_FILE
from colpali_integrations.models.content import content_revision
from colpali_integrations.models.description import ModelDescription, Origin
from colpali_integrations.models.hub import read_json
from colpali_integrations.models.registry import list_supported_models

__all__ = ["FILES", "compared", "hashes"]

logger = package_logger(__name__)

FILES = "files"
"""The key of `DESCRIPTION_FILE` under which the hash of each file stands."""

# A machine that only asks questions needs no vision tower, and has the fingerprint all the same.
_WEIGHTS = (".onnx", ".safetensors")


def hashes(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """A `content_revision` of each of these files that exists, by its name."""
    return {name: content_revision(folder, [name]) for name in sorted(set(names)) if (folder / name).is_file()}


def compared(description: ModelDescription, folder: Path) -> ModelDescription:
    """The description of an exported folder, by the content of its files.

    Args:
        description: with the folder's origin.
        folder: where its files are.

    Returns:
        The description with a hash of the files as its revision. Where they are not those of the export, which is
        logged, its origin and space are its own.

    Raises:
        ModelLoadError: a file cannot be read.
    """
    recorded = read_json(folder, DESCRIPTION_FILE, optional=True).get(FILES)
    recorded = recorded if isinstance(recorded, dict) else {}
    found = hashes(folder, [*description.files, *recorded, *_read_where_present(description.family)])
    names = {*found, *(name for name in recorded if not name.endswith(_WEIGHTS))}
    changed = sorted(name for name in names if found.get(name) != recorded.get(name))
    content = json.dumps({**recorded, **found}, sort_keys=True).encode()
    described = replace(description, revision=f"sha256:{hashlib.sha256(content).hexdigest()[:12]}")
    if not changed or description.origin is None:
        return described
    warn_once(
        logger,
        f"{folder} is not as it was exported from {description.origin.name} ({', '.join(changed)}); it has a "
        f"fingerprint of its own, and stores of {description.origin.name} refuse it. If the change was not intended, "
        "copy the folder again, or export it again",
    )
    origin = Origin(name=description.origin.name, model_file=description.origin.model_file, revision=described.revision)
    return replace(described, origin=origin, space=None)


def _read_where_present(family: str) -> set[str]:
    """The names of small files that a family may read: also one that is added to a folder changes the vectors."""
    models = (model for model in list_supported_models() if model.family == family)
    names = {name for model in models for name in model.additional_files if name.endswith((".json", ".jinja"))}
    return names - {ADAPTER_CONFIG}
