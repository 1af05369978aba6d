"""Types of the inputs and outputs of graphs, and where the graphs of a model come from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from colpali_integrations.runtime.graph import Graph

__all__ = ["BuiltGraph", "BuiltPair", "Feed", "Float32", "GraphFiles", "Graphs", "Outputs"]

Float32: TypeAlias = NDArray[np.float32]
Feed: TypeAlias = dict[str, NDArray[Any]]
Outputs: TypeAlias = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class GraphFiles:
    """The ONNX files of a model.

    Attributes:
        pages: the graph that encodes pages.
        queries: the graph that encodes queries. An equal path means a merged export, which is split so that queries
            skip the vision tower.
    """

    pages: Path
    queries: Path

    @property
    def merged(self) -> bool:
        """Whether one graph encodes both pages and queries."""
        return self.pages == self.queries


class BuiltGraph(Protocol):
    """A graph that is built when a session is made. Alone, it encodes both pages and queries."""

    @property
    def name(self) -> str:
        """What messages call it."""

    def read(self, cache_dir: str | os.PathLike[str] | None) -> Graph:
        """Build it.

        Args:
            cache_dir: where files that are made for it are kept; None for a default.

        Raises:
            ModelLoadError: a file is missing or damaged, or does not fit.
        """


@dataclass(frozen=True)
class BuiltPair:
    """The graphs of a model with a vision tower.

    Attributes:
        tower: from the pixels of pages to image features.
        text: from token ids and image features to vectors. The feed of queries holds no features, 0 rows of them.
    """

    tower: BuiltGraph
    text: BuiltGraph


Graphs: TypeAlias = GraphFiles | BuiltGraph | BuiltPair
"""Where the graphs of a model come from."""
