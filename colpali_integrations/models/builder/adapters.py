"""PEFT LoRA adapters: their tensors merged into the weights of a base checkpoint.

``W + alpha / rank * B A`` (or ``alpha / sqrt(rank)`` with rsLoRA), as `peft.tuners.lora` computes it when it merges.
Nothing is written: ONNX Runtime folds the sum when it loads a graph, and quantization computes it in numpy.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import ADAPTER_CONFIG, adapter_file
from colpali_integrations.models.builder.weights import Checkpoint, LowRank, StoredTensor, canonical_name, read_header
from colpali_integrations.models.hub import read_json

__all__ = ["merge_adapter"]

_HALVES = {"lora_A": "down", "lora_B": "up"}
# Settings of PEFT under which the merged weight is another formula, and the value under which it is not.
_REQUIRED = {"use_dora": False, "bias": "none", "fan_in_fan_out": False, "lora_bias": False}


def merge_adapter(checkpoint: Checkpoint, folder: Path, *, prefix: str = "") -> None:
    """Merge a LoRA adapter into a base checkpoint.

    Args:
        checkpoint: the base, which changes.
        folder: with adapter_config.json and adapter_model.safetensors, or its tensors in model.safetensors.
        prefix: as in `weights.canonical_name`.

    Raises:
        ModelLoadError: the adapter is not a plain LoRA adapter, is damaged or pickled, or does not fit the base.
    """
    config = read_json(folder, ADAPTER_CONFIG)
    _check(config, folder)
    path = folder / adapter_file(folder)
    replaced: dict[str, StoredTensor] = {}
    halves: defaultdict[str, dict[str, StoredTensor]] = defaultdict(dict)
    for name, tensor in read_header(path).items():
        short = canonical_name(name, prefix).replace(".modules_to_save", "")
        parts = short.split(".")
        half = next((part for part in _HALVES if part in parts), None)
        if half is not None:
            halves[".".join(parts[: parts.index(half)])][_HALVES[half]] = tensor
        elif "lora_" in short:
            raise ModelLoadError(f"{path}: {name} is of a kind of adapter that is not supported; merge it with PEFT")
        else:
            replaced[short] = tensor
    changed = {}
    for module, pair in halves.items():
        if pair.keys() != {"down", "up"}:
            raise ModelLoadError(f"{path} has one half of the adapter of {module!r}; download it again")
        scale = _scale(config, module, rank=pair["down"].shape[0])
        changed[f"{module}.weight"] = LowRank(pair["down"], pair["up"], scale)
    checkpoint.adapt(replaced, changed)


def _check(config: Mapping[str, Any], folder: Path) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelLoadError(f"{folder} is an adapter of type {config.get('peft_type')!r}; only LORA is supported")
    for name, value in _REQUIRED.items():
        if (config.get(name) or value) != value:
            raise ModelLoadError(
                f"{folder}: an adapter with {name}={config[name]!r} is not supported; merge it into its base with "
                "PEFT's merge_and_unload() and save the result"
            )


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """The factor of ``B A`` for one module; `alpha_pattern` holds exceptions by the end of the module's name."""
    patterns: Mapping[str, float] = config.get("alpha_pattern") or {}
    matching = (alpha for pattern, alpha in patterns.items() if re.search(rf"(^|\.){pattern}$", module))
    alpha = next(matching, config.get("lora_alpha", 8))
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
