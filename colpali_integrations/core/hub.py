"""A model description -> a folder with its files: bundled, local, cached, or downloaded from the Hugging Face Hub.

The cache is huggingface_hub's own (HF_HOME, HF_HUB_CACHE), so a model that another tool fetched is not fetched again,
and what is cached is used without asking the network.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from colpali_integrations.core.errors import ModelLoadError, ModelNotFoundError
from colpali_integrations.core.registry import ModelDescription

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["BUNDLED", "read_json", "resolve_files"]

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).parent.parent / "models"


def resolve_files(
    description: ModelDescription,
    *,
    local_dir: str | os.PathLike[str] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder that holds the files of a model, after downloading what is missing.

    Args:
        description: the model; its `revision` is honoured.
        local_dir: a folder that holds the files already.
        cache_dir: instead of huggingface_hub's default cache.
        local_files_only: never touch the network (as HF_HUB_OFFLINE=1 does).

    Raises:
        ModelNotFoundError: a file is missing and cannot be fetched; the message says why and what to do.
    """
    if local_dir is not None:
        return _complete(Path(local_dir), description)
    if description.repository is None:
        return _complete(BUNDLED / description.name, description)
    cached = _snapshot(description, cache_dir, local_only=True)
    if isinstance(cached, Path) and not _missing(cached, description):
        return cached
    if local_files_only or os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        absent = _missing(cached, description) if isinstance(cached, Path) else list(description.files)
        raise ModelNotFoundError(
            f"{description.name} is not in the cache (missing: {', '.join(absent)}) and downloading is off "
            f"({'local_files_only=True' if local_files_only else 'HF_HUB_OFFLINE is set'}). Fetch it once on a machine "
            f"with a network: hf download {_hf_arguments(description)}; or pass local_dir= with a folder that holds it."
        )
    logger.info(
        "downloading %s from the Hugging Face Hub (%.1f GB)", description.repository, description.size_in_bytes / 1e9
    )
    fetched = _snapshot(description, cache_dir, local_only=False)
    if isinstance(fetched, Exception):
        raise ModelNotFoundError(
            f"cannot fetch {description.repository} from the Hugging Face Hub: {_first_line(fetched)}. Check the "
            "network, the name and (for gated repositories) `hf auth login`; or pass local_dir= with a folder that "
            "holds the files."
        ) from fetched
    return _complete(fetched, description)


def read_json(directory: Path, name: str, *, optional: bool = False) -> dict[str, Any]:
    """A JSON object from a model's folder; {} when it is optional and absent.

    Raises:
        ModelLoadError: absent, not JSON, or not an object.
    """
    path = directory / name
    if optional and not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelLoadError(f"cannot read {path}: {error}") from error
    if not isinstance(content, dict):
        raise ModelLoadError(f"{path} holds a {type(content).__name__}, expected a JSON object")
    return content


def _snapshot(
    description: ModelDescription, cache_dir: str | os.PathLike[str] | None, *, local_only: bool
) -> Path | Exception:
    # Imported here: huggingface_hub costs more import time than the rest of this package.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    assert description.repository is not None
    try:
        return Path(
            snapshot_download(
                description.repository,
                revision=description.revision,
                cache_dir=None if cache_dir is None else Path(cache_dir),
                local_files_only=local_only,
                allow_patterns=list(description.files),
            )
        )
    # A connection error is an OSError of some kind whatever the HTTP library; the others are the Hub's own answers.
    except (OSError, ValueError, RuntimeError, HfHubHTTPError, HFValidationError) as error:
        return error


def _missing(directory: Path, description: ModelDescription) -> list[str]:
    return [name for name in description.files if name in _required(description) and not (directory / name).exists()]


def _required(description: ModelDescription) -> Sequence[str]:
    """Small configuration files differ between exports of one family: only these must exist."""
    optional = {"special_tokens_map.json", "tokenizer_config.json", "processor_config.json", "model.onnx_data"}
    return [name for name in description.files if name not in optional]


def _complete(directory: Path, description: ModelDescription) -> Path:
    if not directory.is_dir():
        raise ModelNotFoundError(f"{description.name}: no folder at {directory}")
    if missing := _missing(directory, description):
        raise ModelNotFoundError(
            f"{description.name}: {directory} lacks {', '.join(missing)}; it should hold {', '.join(description.files)}"
        )
    return directory


def _hf_arguments(description: ModelDescription) -> str:
    revision = f" --revision {description.revision}" if description.revision else ""
    return f"{description.repository}{revision}"


def _first_line(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
