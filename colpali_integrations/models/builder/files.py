"""The names of a checkpoint's files."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any

from colpali_integrations._text import parse_json
from colpali_integrations.errors import ModelLoadError

__all__ = [
    *("ADAPTER_CONFIG", "ADAPTER_FILE", "DENSE", "DESCRIPTION_FILE", "INDEX_FILE", "LENGTHS_FILE", "MODULES_FILE"),
    *("WEIGHTS_FILE", "adapter_file", "check_adapter_file", "is_adapter", "module_files", "module_folders"),
    *("read_names", "shard_names", "weight_names"),
]

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
ADAPTER_FILE = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
DESCRIPTION_FILE = "colpali_integrations.json"
"""In a model's folder: `{"description": {fields of ModelDescription}}`, which then need not be guessed."""

MODULES_FILE = "modules.json"
"""In folders of sentence-transformers: the modules of a model, and the folder of each."""

LENGTHS_FILE = "sentence_bert_config.json"
"""In the same folders: the most tokens of a query and of a text."""

DENSE = "Dense"
"""The class of sentence-transformers' linear layer, which has weights of its own."""

# The limit of the safetensors library; a larger header is a damaged file.
_LONGEST_HEADER = 100_000_000


def weight_names(folder: Path) -> list[str]:
    """The safetensors files of a folder: the shards of its index, or the one file; and that of a `DENSE` module.

    Raises:
        ModelLoadError: a file is missing, or the weights are pickled.
    """
    names = shard_names(folder) if (folder / INDEX_FILE).is_file() else [WEIGHTS_FILE]
    if (dense := module_folders(folder).get(DENSE)) is not None:
        names.append(f"{dense}/{WEIGHTS_FILE}")
    # False also for a name that no file can have, such as one of 300 characters.
    missing = [name for name in names if not os.path.isfile(folder / name)]  # noqa: PTH113
    folders = {(folder / name).parent for name in missing}
    if pickled := sorted(path.relative_to(folder).as_posix() for one in folders for path in one.glob("*.bin")):
        raise ModelLoadError(
            f"{folder} has its weights in {pickled[0]}, a pickle, which may run any code when it is opened. Take a "
            "revision with safetensors files, or convert it on a machine with PyTorch (save_pretrained writes them)"
        )
    if missing:
        raise ModelLoadError(f"{folder} lacks {', '.join(missing)}; download the rest of the checkpoint")
    return names


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a PEFT adapter, and not the merged weights beside an adapter_config.json left over.

    A folder with both is an adapter, as it is for transformers.
    """
    if not (folder / ADAPTER_CONFIG).is_file():
        return False
    if (folder / ADAPTER_FILE).is_file():
        return True
    if (folder / WEIGHTS_FILE).is_file():
        return _holds_lora(folder / WEIGHTS_FILE)
    return not (folder / INDEX_FILE).is_file()


def adapter_file(folder: Path) -> str:
    """The name of the file of an adapter's tensors: PEFT's, or model.safetensors as trainers may save them.

    Raises:
        ModelLoadError: its weights are missing or pickled.
    """
    check_adapter_file(folder)
    return ADAPTER_FILE if (folder / ADAPTER_FILE).is_file() else WEIGHTS_FILE


def check_adapter_file(folder: Path) -> None:
    """Refuse an adapter without safetensors.

    Raises:
        ModelLoadError: its weights are missing or pickled.
    """
    if any((folder / name).is_file() for name in (ADAPTER_FILE, WEIGHTS_FILE)):
        return
    if (folder / "adapter_model.bin").is_file():
        raise ModelLoadError(
            f"{folder} has its weights in adapter_model.bin, a pickle, which may run any code when it is opened. Take "
            f"a revision with {ADAPTER_FILE}"
        )
    raise ModelLoadError(f"{folder} lacks {ADAPTER_FILE}; download the rest of the adapter")


def module_folders(folder: Path) -> dict[str, str]:
    """The folder of each module that a folder's modules.json names, by its class; {} without that file.

    Raises:
        ModelLoadError: the file is damaged, names a class twice, or folders outside its own.
    """
    path = folder / MODULES_FILE
    if not path.is_file():
        return {}
    try:
        modules = [(str(one["type"]).rpartition(".")[2], str(one["path"])) for one in _read_list(path)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelLoadError(f"cannot read the modules of the model from {path}: {error!r}") from error
    if len(dict(modules)) < len(modules) or any(Path(name).name != name for _, name in modules):
        raise ModelLoadError(f"{path} must name each kind of module once, in a folder beside it; got {modules}")
    return dict(modules)


def module_files(folder: Path) -> list[str]:
    """The files of sentence-transformers that stand beside those of the backbone; [] for other folders.

    Args:
        folder: with its modules.json.

    Raises:
        ModelLoadError: as `module_folders`.
    """
    folders = module_folders(folder)
    if not folders:
        return []
    configurations = [f"{path}/config.json" for path in folders.values() if path]
    weights = [f"{folders[DENSE]}/{WEIGHTS_FILE}"] if DENSE in folders else []
    return [MODULES_FILE, LENGTHS_FILE, *configurations, *weights]


def _read_list(path: Path) -> list[Any]:
    content = parse_json(path.read_text(encoding="utf-8"))
    if not isinstance(content, list):
        raise TypeError(f"expected a list, got {type(content).__name__}")
    return content


def shard_names(folder: Path) -> list[str]:
    """The shards that the index of a folder names, in order.

    Raises:
        ModelLoadError: the index is damaged, or names files outside its folder.
    """
    index = folder / INDEX_FILE
    try:
        names = sorted(set(parse_json(index.read_text(encoding="utf-8"))["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"cannot read the names of the shards from {index}: {error!r}") from error
    if outside:
        raise ModelLoadError(f"{index} names files outside its folder ({outside[0]!r}), which is refused")
    return names


def read_names(file: Path) -> tuple[dict[str, Any], int]:
    """Read the header of a safetensors file: the entry of each tensor, and the number of bytes before the tensors.

    Raises:
        ModelLoadError: it is not a safetensors file, or is cut off.
    """
    damaged = f"{file} is not a safetensors file, or is cut off; delete it and download it again"
    try:
        size = file.stat().st_size
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            if length > min(_LONGEST_HEADER, size - 8):
                raise ModelLoadError(damaged)
            header = parse_json(stream.read(length))
        return {name: entry for name, entry in header.items() if name != "__metadata__"}, 8 + length
    except (OSError, struct.error, ValueError, AttributeError, RecursionError) as error:
        raise ModelLoadError(f"{damaged} ({error})") from error


def _holds_lora(file: Path) -> bool:
    """Whether a file holds LoRA tensors without the weights that they adapt."""
    try:
        names, _ = read_names(file)
    except ModelLoadError:
        return False  # the reader of the weights reports the damage
    return any(".lora_A." in name for name in names) and not any(".base_layer." in name for name in names)
