"""Write a checkpoint as a folder of ONNX graphs, for machines that do not have the checkpoint.

The graphs are those that `ColPali.from_pretrained` builds, over the same tensors, so the vectors are equal bit for bit.
A LoRA adapter is in the folder with its base; ONNX Runtime adds it to the weights when it opens a float32 graph, and
int8 weights contain it.

| file | holds |
|---|---|
| `text.onnx`, `text.safetensors` | the side of questions and texts, which works without the next two |
| `tower.onnx`, `tower.safetensors` | the vision tower |
| `encoder.onnx`, `encoder.safetensors` | the one graph of NeoMME, in place of those four |
| `colpali_integrations.json` | prompts, settings, the checkpoint, whose fingerprint it has, and a hash of each file |
| others | tokenizer, configuration and processor, as they are in the checkpoint |
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, cast

from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, ModelLoadError
from colpali_integrations.models.builder.checkpoint_graph import CheckpointGraph
from colpali_integrations.models.builder.files import ADAPTER_CONFIG, DESCRIPTION_FILE, INDEX_FILE
from colpali_integrations.models.builder.quantization import Precision
from colpali_integrations.models.description import ModelDescription, Origin
from colpali_integrations.models.exported import FILES, hashes
from colpali_integrations.models.folder import new_folder
from colpali_integrations.models.loading import ModelFiles, find_files
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.runtime.arrays import BuiltPair

__all__ = ["Exported", "export_model"]

# Fields of a description that the folder's has of its own, that name the checkpoint, or that help to choose a model.
_LEFT_OUT = {
    *("model_file", "additional_files", "size_in_bytes", "allow_unused", "origin"),
    *("vidore", "vidore_source", "summary"),
    *(field.name for field in fields(Origin)),
}


@dataclass(frozen=True)
class Exported:
    """The result of `export_model`.

    Attributes:
        folder: open it with `ColPali.from_pretrained(folder)`.
        checkpoint: the name of the checkpoint.
        precision: how the graphs compute.
        size_in_bytes: size of the graphs and their weights.
    """

    folder: Path
    checkpoint: str
    precision: str
    size_in_bytes: int


def export_model(
    name_or_path: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    precision: Precision | None = None,
    max_side: int | None = None,
    max_num_visual_tokens: int | None = None,
    drop_blank: bool = False,
    dim: int | None = None,
    base: str | os.PathLike[str] | None = None,
    allow_unused: Sequence[str] | None = None,
    local_dir: str | os.PathLike[str] | None = None,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Exported:
    """Write a checkpoint as a folder of ONNX graphs, which opens without the checkpoint.

    Needs no PyTorch, and memory for a few of the largest weights.

    Args:
        name_or_path: as in `ColPali.from_pretrained`.
        out: a folder that does not exist yet, or is empty; a link is followed.
        precision: as in `ColPali.from_pretrained`; the folder has this one only.
        max_side: as in `ColPali.from_pretrained`; the default of the folder.
        max_num_visual_tokens: as in `ColPali.from_pretrained`; the default of the folder.
        drop_blank: as in `ColPali.from_pretrained`; the folder then never keeps the vectors of plain paper.
        dim: as in `ColPali.from_pretrained`; the folder has this one only.
        base: as in `ColPali.from_pretrained`.
        allow_unused: as in `ColPali.from_pretrained`.
        local_dir: as in `ColPali.from_pretrained`.
        revision: as in `ColPali.from_pretrained`.
        cache_dir: as in `ColPali.from_pretrained`.
        local_files_only: as in `ColPali.from_pretrained`.

    Raises:
        ConfigurationError: `out` exists and is not an empty folder, or cannot be written; or an option is not one of
            the model's.
        ModelNotFoundError: as `ColPali.from_pretrained`.
        ModelLoadError: the model is an ONNX export already, or as `ColPali.from_pretrained`.
    """
    options = ModelOptions(
        precision=precision,
        max_side=max_side,
        max_num_visual_tokens=max_num_visual_tokens,
        drop_blank=drop_blank,
        dim=dim,
        base=base,
        allow_unused=allow_unused,
        local_dir=local_dir,
        revision=revision,
        cache_dir=cache_dir,
        local_files_only=local_files_only,
    )
    with new_folder(out) as folder:
        files = find_files(name_or_path, options)
        graphs = _graphs(files)
        for graph in graphs:
            graph.write(folder)
        written = list(folder.iterdir())
        small = sorted(_copy_small_files(files, folder))
        description = _description(files.description, graphs[-1].part, [*(path.name for path in written), *small])
        recorded = hashes(folder, [*(path.name for path in written), *small])
        text = json.dumps({"description": description, FILES: recorded}, indent=2, ensure_ascii=False)
        (folder / DESCRIPTION_FILE).write_text(f"{text}\n", encoding="utf-8")
        size = sum(path.stat().st_size for path in written)
    return Exported(user_path(out, ConfigurationError), files.description.name, graphs[0].precision, size)


def _graphs(files: ModelFiles) -> list[CheckpointGraph]:
    """The graphs of a checkpoint, the one that questions need last."""
    graphs = files.family().graphs
    parts = [graphs.tower, graphs.text] if isinstance(graphs, BuiltPair) else [graphs]
    if not all(isinstance(part, CheckpointGraph) for part in parts):
        raise ModelLoadError(
            f"{files.description.name} is an ONNX export already; copy its folder, or export the checkpoint in "
            "safetensors from which it was made"
        )
    return cast("list[CheckpointGraph]", parts)


def _copy_small_files(files: ModelFiles, folder: Path) -> Iterator[str]:
    """Copy tokenizer, configurations and templates, and give their names."""
    weights = (INDEX_FILE, ADAPTER_CONFIG)
    for name in dict.fromkeys([*files.description.files, "config.json"]):
        source = (files.base if files.base is not None and name == "config.json" else files.folder) / name
        if source.is_file() and name not in weights and source.suffix != ".safetensors":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, folder / name)
            yield name


def _description(model: ModelDescription, part: str, names: Sequence[str]) -> dict[str, Any]:
    """The description that the folder holds: that of the checkpoint, where it differs from the defaults."""
    defaults = {field.name: field.default for field in fields(model) if field.name not in _LEFT_OUT}
    values = {name: value for name, default in defaults.items() if (value := getattr(model, name)) != default}
    origin = Origin(**{field.name: getattr(model, field.name) for field in fields(Origin)})
    graph = f"{part}.onnx"
    others = [name for name in names if name != graph]
    return {**values, "model_file": graph, "additional_files": others, "origin": asdict(origin)}
