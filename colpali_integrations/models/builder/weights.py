"""Where the tensors of a checkpoint are stored: safetensors headers, shards, and names that do not depend on versions.

Only headers are read. The bytes of a tensor are touched when its array is needed, or by ONNX Runtime, which maps them.

A file is 8 bytes (little-endian length of the header), a JSON header ``{name: {dtype, shape, data_offsets}}``, and the
bytes of the tensors (https://github.com/huggingface/safetensors#format).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.files import read_names, weight_names

__all__ = [
    *("DATA_TYPES", "Checkpoint", "LowRank", "StoredTensor", "Weight", "canonical_name", "read_header"),
]

# Parts of a name that say how a version's classes are nested, and nothing about the tensor.
_WRAPPERS = frozenset({"model", "vlm", "base_model", "base_layer", "backbone"})


class DataType(NamedTuple):
    """A data type of safetensors.

    Attributes:
        onnx: its number in ONNX.
        numpy: the type of its bytes in numpy, which has no bfloat16: uint16 instead.
    """

    onnx: int
    numpy: type[np.number[Any]]


DATA_TYPES = {
    "F32": DataType(TensorProto.FLOAT, np.float32),
    "F16": DataType(TensorProto.FLOAT16, np.float16),
    "BF16": DataType(TensorProto.BFLOAT16, np.uint16),
    "I64": DataType(TensorProto.INT64, np.int64),
    "I32": DataType(TensorProto.INT32, np.int32),
    "I8": DataType(TensorProto.INT8, np.int8),
    "U8": DataType(TensorProto.UINT8, np.uint8),
}
"""By safetensors' name. Files of 8-bit floats, GPTQ and the like hold other types, and are refused."""

_FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class StoredTensor:
    """One tensor in a file.

    Attributes:
        name: its name in the file.
        dtype: a key of `DATA_TYPES`.
        shape: its shape; () for a scalar.
        file: the file, with every link followed.
        offset: position of its first byte in the file.
        length: number of bytes.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    length: int

    def stored(self) -> NDArray[Any]:
        """The values as they are stored, mapped from the file; bfloat16 as uint16."""
        flat = np.memmap(self.file, DATA_TYPES[self.dtype].numpy, "r", self.offset, math.prod(self.shape))
        return flat.reshape(self.shape)

    def array(self) -> NDArray[np.float32]:
        """The values as float32; exact, because float16 and bfloat16 are subsets of it.

        Raises:
            ModelLoadError: the tensor does not hold floats.
        """
        if self.dtype not in _FLOATS:
            raise ModelLoadError(f"{self.file}: {self.name} holds {self.dtype}, expected one of {', '.join(_FLOATS)}")
        values = self.stored()
        if self.dtype == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        floats: NDArray[np.float32] = np.asarray(values, np.float32)
        return floats


class LowRank(NamedTuple):
    """A LoRA adapter's change of a weight: ``scale * up @ down``.

    Attributes:
        down: LoRA's A, (rank, in).
        up: LoRA's B, (out, rank).
        scale: the factor.
    """

    down: StoredTensor
    up: StoredTensor
    scale: float


@dataclass(frozen=True)
class Weight:
    """A tensor of a checkpoint with the adapter's change of it.

    Attributes:
        base: the stored tensor.
        low_rank: the change, for a tensor that a LoRA adapter adapts.
    """

    base: StoredTensor
    low_rank: LowRank | None = None

    @property
    def matrix_shape(self) -> tuple[int, ...]:
        """The shape with all axes but the first as one: a convolution whose stride is its kernel is a linear layer."""
        shape = self.base.shape
        return shape if len(shape) < 3 else (shape[0], math.prod(shape[1:]))

    def array(self) -> NDArray[np.float32]:
        """The values as float32, of `matrix_shape`, with the adapter merged."""
        values = self.base.array().reshape(self.matrix_shape)
        if self.low_rank is None:
            return values
        down, up, scale = self.low_rank
        merged: NDArray[np.float32] = values + np.float32(scale) * (up.array() @ down.array())
        return merged


def read_header(file: Path) -> dict[str, StoredTensor]:
    """List the tensors of a safetensors file, by their names in it.

    Args:
        file: the file; links are followed.

    Raises:
        ModelLoadError: it is not a safetensors file, is cut off, or holds a data type that is not supported.
    """
    file = file.resolve()
    entries, start = read_names(file)
    try:
        size = file.stat().st_size
        return {name: _tensor(file, size, start, name, entry) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:  # OverflowError: a shape of infinity
        raise ModelLoadError(f"{file} has a damaged header ({error!r}); delete it and download it again") from error


def _tensor(file: Path, size: int, start: int, name: str, entry: Mapping[str, Any]) -> StoredTensor:
    begin, end = map(int, entry["data_offsets"])
    dtype, shape = str(entry["dtype"]), tuple(map(int, entry["shape"]))
    if dtype not in DATA_TYPES:
        raise ModelLoadError(
            f"{file}: {name} has data type {dtype}; supported are {', '.join(DATA_TYPES)}. Take a float32, bfloat16 or "
            "float16 version of the checkpoint: precision= makes int8 weights from it"
        )
    expected = math.prod(shape) * np.dtype(DATA_TYPES[dtype].numpy).itemsize
    if begin < 0 or min(shape, default=0) < 0 or end - begin != expected or start + end > size:
        raise ModelLoadError(
            f"{file}: {name} should have {expected} bytes and does not fit into the file of {size}; it is cut off or "
            "damaged, delete it and download it again"
        )
    return StoredTensor(name, dtype, shape, file, start + begin, expected)


def canonical_name(name: str, prefix: str = "") -> str:
    """A tensor's name without the parts that differ between versions of transformers, colpali-engine and PEFT.

    Args:
        name: the name in a file.
        prefix: what the names of the language model begin with, where a version's class does not nest it.

    Example: one tensor in three layouts.
        >>> canonical_name("vlm.model.language_model.layers.0.mlp.up_proj.weight")
        'language_model.layers.0.mlp.up_proj.weight'
        >>> canonical_name("base_model.model.model.language_model.model.layers.0.mlp.up_proj.weight")
        'language_model.layers.0.mlp.up_proj.weight'
        >>> canonical_name("model.layers.0.mlp.up_proj.weight", prefix="language_model")
        'language_model.layers.0.mlp.up_proj.weight'
    """
    parts = name.split(".")
    first_number = next((index for index, part in enumerate(parts) if part.isdigit()), len(parts))
    parts = [part for index, part in enumerate(parts) if index > first_number or part not in _WRAPPERS]
    # SigLIP's class nested itself once more than those of today; the second name says nothing.
    if parts[1:2] == ["vision_model"] and parts[0] in ("vision_tower", "vision_model"):
        del parts[1]
    if prefix and parts[0] in ("layers", "embed_tokens", "norm"):
        parts.insert(0, prefix)
    return ".".join(parts)


class Checkpoint(Mapping[str, StoredTensor]):
    """The tensors of a folder by canonical name, and which of them were read.

    Args:
        folder: with `model.safetensors`, or shards and `model.safetensors.index.json`.
        prefix: as in `canonical_name`.

    Attributes:
        folder: the folder.

    Raises:
        ModelLoadError: the files are missing, damaged or pickled, or two names in them mean the same tensor.
    """

    def __init__(self, folder: Path, *, prefix: str = "") -> None:
        self.folder = folder
        self._tensors: dict[str, StoredTensor] = {}
        self._low_rank: dict[str, LowRank] = {}
        self._read: set[str] = set()
        for file in weight_names(folder):
            for name, tensor in read_header(folder / file).items():
                self._add(canonical_name(name, prefix), tensor)

    def __getitem__(self, name: str) -> StoredTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def weight(self, name: str) -> Weight:
        """A tensor and the adapter's change of it, noted as read.

        Args:
            name: its canonical name.

        Raises:
            ModelLoadError: the checkpoint lacks it.
        """
        if name not in self._tensors:
            raise ModelLoadError(
                f"{self.folder} lacks the tensor {name!r}, which its architecture needs; is it a retrieval checkpoint "
                "of that architecture, completely downloaded?"
            )
        self._read.add(name)
        return Weight(self._tensors[name], self._low_rank.get(name))

    def adapt(self, replaced: Mapping[str, StoredTensor], changed: Mapping[str, LowRank]) -> None:
        """Take the tensors of an adapter.

        Args:
            replaced: tensors that take the place of those of the checkpoint, or are new, by canonical name.
            changed: changes of the checkpoint's tensors, by canonical name.

        Raises:
            ModelLoadError: a change is of a tensor that the checkpoint lacks, or does not fit its shape.
        """
        self._tensors.update(replaced)
        for name, change in changed.items():
            if name not in self._tensors:
                raise ModelLoadError(
                    f"{change.up.file} adapts {name!r}, which {self.folder} lacks; is that the adapter's base?"
                )
            expected = Weight(self._tensors[name]).matrix_shape
            shape = (change.up.shape[0], *change.down.shape[1:])
            if shape != expected:
                raise ModelLoadError(
                    f"{change.up.file}: the adapter of {name!r} has shape {shape}, the tensor in {self.folder} has "
                    f"{expected}; is that the adapter's base?"
                )
        self._low_rank.update(changed)

    def check_all_read(self, permitted: Collection[str]) -> None:
        """Refuse a checkpoint with tensors that nothing has read: a sign that a name was misunderstood.

        Args:
            permitted: beginnings of the names of tensors that need not be read, such as "lm_head".

        Raises:
            ModelLoadError: with the names of other unread tensors.
        """
        unread = [name for name in self._tensors if name not in self._read]
        unread = [name for name in unread if not any(name == one or name.startswith(f"{one}.") for one in permitted)]
        if unread:
            shown = ", ".join(self._tensors[name].name for name in unread[:5])
            more = f" and {len(unread) - 5} more" if len(unread) > 5 else ""
            raise ModelLoadError(
                f"{self.folder}: nothing reads {shown}{more}, so the vectors would not be those of this checkpoint. If "
                f"it has parts that do not matter for retrieval, pass allow_unused={sorted(unread)[:5]!r}"
            )

    def _add(self, name: str, tensor: StoredTensor) -> None:
        if (other := self._tensors.get(name)) is not None:
            raise ModelLoadError(f"{self.folder}: {other.name} and {tensor.name} are names of the same tensor, {name}")
        if not tensor.length:
            raise ModelLoadError(f"{tensor.file}: the tensor {tensor.name} is empty")
        self._tensors[name] = tensor
