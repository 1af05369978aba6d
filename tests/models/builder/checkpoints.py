"""Safetensors files of arrays, written by these few lines and not by the code under test."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_NAMES = {"float32": "F32", "float16": "F16", "uint16": "BF16", "int64": "I64", "int8": "I8", "uint8": "U8"}


def save(path: Path, arrays: Mapping[str, NDArray[Any]], **names: str) -> Path:
    """Write arrays; uint16 ones are bfloat16. `names` gives data types of another spelling, by numpy's name."""
    header, data = {}, b""
    for name, array in arrays.items():
        dtype = names.get(array.dtype.name, _NAMES[array.dtype.name])
        start, data = len(data), data + array.tobytes()
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, len(data)]}
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def bfloat16(array: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper half of each float32: exact for small integers."""
    return (array.view(np.uint32) >> 16).astype(np.uint16)


def read(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file; bfloat16 as uint16."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    kinds = {short: np.dtype(name) for name, short in _NAMES.items()}
    arrays = {}
    for name, entry in json.loads(content[8 : 8 + length]).items():
        if name != "__metadata__":
            start, end = (8 + length + offset for offset in entry["data_offsets"])
            arrays[name] = np.frombuffer(content[start:end], kinds[entry["dtype"]]).reshape(entry["shape"])
    return arrays
