"""Types of the inputs and outputs of graphs, and the files of the graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Feed", "Float32", "GraphFiles", "Outputs"]

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
