"""From a checkpoint's folder to graphs that sessions can run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.adapters import merge_adapter
from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.half import check_range, to_half
from colpali_integrations.models.builder.quantization import quantization_of
from colpali_integrations.models.builder.quantized import quantized_tensors, write_tensors
from colpali_integrations.models.builder.weights import Checkpoint, StoredTensor
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.runtime.arrays import BuiltPair
from colpali_integrations.runtime.graph import Graph, read_graph

__all__ = ["Architecture", "CheckpointGraph", "ExportedGraph", "checkpoint_graph", "checkpoint_graphs"]


class Architecture(Protocol):
    """An architecture with the configuration of one checkpoint.

    Attributes:
        prefix: as in `weights.canonical_name`.
        permitted: as in `weights.Checkpoint.check_all_read`.
    """

    prefix: str
    permitted: tuple[str, ...]

    @property
    def graphs(self) -> Mapping[str, Callable[[GraphBuilder], None]]:
        """What adds the nodes of each graph, by the graph's name."""


@dataclass(frozen=True)
class CheckpointGraph:
    """One graph of a checkpoint, built when it is read: a `runtime.arrays.BuiltGraph`.

    Attributes:
        architecture: what to build.
        part: which of its graphs.
        folder: of the checkpoint, with its safetensors files.
        precision: one of `quantization.PRECISIONS`.
        allow_unused: beginnings of the names of tensors that need not be read, beside those that the architecture
            permits.
        adapter: the folder of a LoRA adapter of the checkpoint; None for the checkpoint as it is.
    """

    architecture: Architecture
    part: str
    folder: Path
    precision: str = "float32"
    allow_unused: tuple[str, ...] = ()
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """The folder, the part and the precision."""
        return f"{self.adapter or self.folder} ({self.part}, {self.precision})"

    def read(self, cache_dir: str | os.PathLike[str] | None = None) -> Graph:
        """Build the graph over the checkpoint's files, or over the cached file of its quantized weights.

        The nodes of the other graphs are made too, which takes hundredths of a second and reads no weights: only all of
        them together tell whether a tensor is unread, and the cache has one file for all.

        Args:
            cache_dir: as in `quantized.quantized_tensors`.

        Raises:
            ModelLoadError: a tensor is missing, unread or damaged, or the cache cannot be written.
        """
        builders, quantization = self._builders(), quantization_of(self.precision)
        builder = builders[self.part]
        if quantization is None:
            return self._graph(builder, builder.stored)
        return self._graph(builder, quantized_tensors(list(builders.values()), quantization, cache_dir))

    def write(self, folder: Path) -> None:
        """Write the graph as `<part>.onnx`, and the tensors that it reads, as `<part>.safetensors`.

        Args:
            folder: an existing one.

        Raises:
            ModelLoadError: as `read`.
        """
        builder = self._builders()[self.part]
        tensors = write_tensors(folder / f"{self.part}.safetensors", [builder], quantization_of(self.precision))
        graph = self._graph(builder, tensors)
        (folder / f"{self.part}.onnx").write_bytes(graph.model.SerializeToString())

    def _graph(self, builder: GraphBuilder, tensors: dict[str, StoredTensor]) -> Graph:
        graph = builder.build(tensors)
        if self.precision != "float16":
            return graph
        check_range(builder.stored.values())
        return Graph(to_half(graph.model), graph.weights)

    def _builders(self) -> dict[str, GraphBuilder]:
        """The nodes of every graph of the checkpoint."""
        checkpoint = Checkpoint(self.folder, prefix=self.architecture.prefix)
        if self.adapter is not None:
            merge_adapter(checkpoint, self.adapter, prefix=self.architecture.prefix)
        quantization = quantization_of(self.precision)
        builders: dict[str, GraphBuilder] = {}
        for part, build in self.architecture.graphs.items():
            builders[part] = GraphBuilder(checkpoint, quantization)
            build(builders[part])
        checkpoint.check_all_read((*self.architecture.permitted, *self.allow_unused))
        return builders


@dataclass(frozen=True)
class ExportedGraph:
    """A graph that `CheckpointGraph.write` wrote: a `runtime.arrays.BuiltGraph`.

    Attributes:
        file: the ONNX file.
    """

    file: Path

    @property
    def name(self) -> str:
        """The file."""
        return str(self.file)

    def read(self, cache_dir: str | os.PathLike[str] | None = None) -> Graph:
        """Read the file.

        Args:
            cache_dir: not used, because nothing is made.

        Raises:
            ModelLoadError: a file is missing or damaged.
        """
        if not self.file.is_file():
            raise ModelLoadError(
                f"{self.file.parent} lacks {self.file.name}; copy it and {self.file.stem}.safetensors from the whole "
                "export, or pass lazy_load=True where only the other side of the model is used"
            )
        return read_graph(self.file)


def checkpoint_graph(
    architecture: Architecture, part: str, folder: Path, description: ModelDescription, base: Path | None
) -> CheckpointGraph | ExportedGraph:
    """One graph of a model at the precision of its description; of an exported folder, the one that was written.

    Args:
        architecture: what to build.
        part: which of its graphs.
        folder: of a checkpoint, or of an adapter.
        description: of the model.
        base: the folder of the checkpoint that an adapter adapts; None for a checkpoint.
    """
    if description.origin is not None:
        return ExportedGraph(folder / f"{part}.onnx")
    precision, adapter = description.precision or "float32", None if base is None else folder
    return CheckpointGraph(architecture, part, base or folder, precision, description.allow_unused, adapter)


def checkpoint_graphs(
    architecture: Architecture, folder: Path, description: ModelDescription, base: Path | None
) -> BuiltPair:
    """The two graphs of a model with a vision tower, as `checkpoint_graph` makes one."""
    tower, text = (checkpoint_graph(architecture, part, folder, description, base) for part in ("tower", "text"))
    return BuiltPair(tower, text)
