"""The names of a checkpoint's files."""

from __future__ import annotations

import json
from pathlib import Path

from colpali_integrations.errors import ModelLoadError

__all__ = [
    *("ADAPTER_CONFIG", "ADAPTER_FILE", "INDEX_FILE", "WEIGHTS_FILE"),
    *("check_adapter_file", "is_adapter", "shard_names", "weight_names"),
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def weight_names(folder: Path) -> list[str]:
    """The safetensors files of a folder: the shards of its index, or the one file.

    Raises:
        ModelLoadError: a file is missing, or the weights are pickled.
    """
    names = shard_names(folder) if (folder / INDEX_FILE).is_file() else [WEIGHTS_FILE]
    missing = [name for name in names if not (folder / name).is_file()]
    if missing and (pickled := sorted(path.name for path in folder.glob("*.bin"))):
        raise ModelLoadError(
            f"{folder} has its weights in {pickled[0]}, a pickle, which may run any code when it is opened. Take a "
            "revision with safetensors files, or convert it on a machine with PyTorch (save_pretrained writes them)"
        )
    if missing:
        raise ModelLoadError(f"{folder} lacks {', '.join(missing)}; download the rest of the checkpoint")
    return names


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter without the weights that it adapts."""
    return (folder / ADAPTER_CONFIG).is_file() and not any(
        (folder / name).is_file() for name in (WEIGHTS_FILE, INDEX_FILE)
    )


def check_adapter_file(folder: Path) -> None:
    """Refuse an adapter without safetensors.

    Raises:
        ModelLoadError: its weights are missing or pickled.
    """
    if (folder / ADAPTER_FILE).is_file():
        return
    if (folder / "adapter_model.bin").is_file():
        raise ModelLoadError(
            f"{folder} has its weights in adapter_model.bin, a pickle, which may run any code when it is opened. Take "
            f"a revision with {ADAPTER_FILE}"
        )
    raise ModelLoadError(f"{folder} lacks {ADAPTER_FILE}; download the rest of the adapter")


def shard_names(folder: Path) -> list[str]:
    """The shards that the index of a folder names, in order.

    Raises:
        ModelLoadError: the index is damaged, or names files outside its folder.
    """
    index = folder / INDEX_FILE
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelLoadError(f"cannot read the names of the shards from {index}: {error!r}") from error
    if outside:
        raise ModelLoadError(f"{index} names files outside its folder ({outside[0]!r}), which is refused")
    return names
