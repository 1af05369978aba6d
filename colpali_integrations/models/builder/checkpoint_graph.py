"""From a checkpoint's folder to a graph that a session can run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from colpali_integrations.models.builder.graph import GraphBuilder
from colpali_integrations.models.builder.quantization import quantization_of
from colpali_integrations.models.builder.quantized import quantized_tensors
from colpali_integrations.models.builder.weights import Checkpoint
from colpali_integrations.runtime.graph import Graph

__all__ = ["Architecture", "CheckpointGraph"]


class Architecture(Protocol):
    """An architecture with the configuration of one checkpoint.

    Attributes:
        prefix: as in `weights.canonical_name`.
        permitted: as in `weights.Checkpoint.check_all_read`.
    """

    prefix: str
    permitted: tuple[str, ...]

    def build(self, g: GraphBuilder) -> None:
        """Add the nodes of its graph."""


@dataclass(frozen=True)
class CheckpointGraph:
    """The graph of a checkpoint, built when it is read: a `runtime.arrays.BuiltGraph`.

    Attributes:
        architecture: what to build.
        folder: with config.json and the safetensors files.
        precision: one of `quantization.PRECISIONS`.
        allow_unused: beginnings of the names of tensors that need not be read, beside those that the architecture
            permits.
    """

    architecture: Architecture
    folder: Path
    precision: str = "float32"
    allow_unused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The folder and the precision."""
        return f"{self.folder} ({self.precision})"

    def read(self, cache_dir: str | os.PathLike[str] | None = None) -> Graph:
        """Build the graph over the checkpoint's files, or over the cached file of its quantized weights.

        Args:
            cache_dir: as in `quantized.quantized_tensors`.

        Raises:
            ModelLoadError: a tensor is missing, unread or damaged, or the cache cannot be written.
        """
        checkpoint = Checkpoint(self.folder, prefix=self.architecture.prefix)
        quantization = quantization_of(self.precision)
        builder = GraphBuilder(checkpoint, quantization)
        self.architecture.build(builder)
        checkpoint.check_all_read((*self.architecture.permitted, *self.allow_unused))
        if quantization is None:
            return builder.build(builder.stored)
        return builder.build(quantized_tensors([builder], quantization, cache_dir))
