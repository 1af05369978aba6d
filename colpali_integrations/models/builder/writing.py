"""Safetensors files, written tensor by tensor: no more than the tensors of one source are in memory."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.models.builder.weights import DATA_TYPES

__all__ = ["Source", "write_file"]


class Source(NamedTuple):
    """Tensors of a file that are made together.

    Attributes:
        shapes: data type and shape of each, by its name in the file.
        make: gives their values.
    """

    shapes: dict[str, tuple[str, tuple[int, ...]]]
    make: Callable[[], dict[str, NDArray[Any]]]


def write_file(path: Path, sources: Sequence[Source]) -> None:
    """Write a safetensors file under another name, and rename it when it is complete.

    Args:
        path: the file.
        sources: its tensors.

    Raises:
        OSError: the file cannot be written.
    """
    shapes = {name: kind for source in sources for name, kind in source.shapes.items()}
    widths = {name: np.dtype(DATA_TYPES[dtype].numpy).itemsize for name, (dtype, _) in shapes.items()}
    header, places, end = {}, {}, 0
    # Wide types first, so that each tensor is aligned to its own type.
    for name in sorted(shapes, key=lambda name: -widths[name]):
        dtype, shape = shapes[name]
        start, end = end, end + math.prod(shape) * widths[name]
        header[name], places[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}, start
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with draft.open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            for source in sources:
                for name, values in source.make().items():
                    file.seek(8 + len(text) + places[name])
                    file.write(np.ascontiguousarray(values).data)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
