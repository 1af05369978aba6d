"""The cache of quantized weights: one safetensors file per checkpoint and precision, made at first use.

The file holds every tensor that the graphs read, so a process that runs int8 maps this file alone. Its name is a hash
of what it is made of. One process makes it, under a lock, and others wait; it appears by a rename, so it is complete
or absent.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from colpali_integrations._logs import package_logger
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, ModelLoadError
from colpali_integrations.models.builder.graph import GraphBuilder, QuantizedWeight
from colpali_integrations.models.builder.quantization import Quantization
from colpali_integrations.models.builder.weights import StoredTensor, read_header
from colpali_integrations.models.builder.writing import Source, write_file
from colpali_integrations.models.content import samples
from colpali_integrations.models.hub import cache_folder

__all__ = ["CACHE_VARIABLE", "quantized_tensors", "write_tensors"]

logger = package_logger(__name__)

CACHE_VARIABLE = "COLPALI_INTEGRATIONS_CACHE"
"""The environment variable that names the folder of quantized weights."""

# Changes whenever the same checkpoint gives other bytes.
_VERSION = 2
_BLOB = re.compile(r"[0-9a-f]{64}")


def quantized_tensors(
    builders: Sequence[GraphBuilder], quantization: Quantization, cache_dir: str | os.PathLike[str] | None
) -> dict[str, StoredTensor]:
    """Find or make the tensors that quantized graphs read.

    Args:
        builders: the graphs of a checkpoint, complete.
        quantization: how their weights are quantized.
        cache_dir: the folder of the cache; None for the environment's, else a folder beside huggingface_hub's cache. A
            temporary folder, with a warning, where that cannot be written.

    Returns:
        Where each tensor is, by the name of its initializer.

    Raises:
        ModelLoadError: the file cannot be written.
    """
    name = f"{quantization.name}-{_key(builders, quantization)}.safetensors"
    folder = _folder(cache_dir)
    if (folder / name).is_file():  # a cache that others made may be read-only
        return read_header(folder / name)
    path = _writable(folder) / name
    try:
        with FileLock(f"{path}.lock"):
            if not path.is_file():
                logger.info("quantizing weights into %s (once)", path)
                write_file(path, list(_sources(builders, quantization)))
    except OSError as error:
        raise ModelLoadError(
            f"cannot write {path}: {error}. Make room, or name another folder by cache_dir= or {CACHE_VARIABLE}"
        ) from error
    return read_header(path)


def write_tensors(
    path: Path, builders: Sequence[GraphBuilder], quantization: Quantization | None
) -> dict[str, StoredTensor]:
    """Write the tensors that graphs read into one safetensors file: stored ones as they are.

    Args:
        path: the file; it appears when it is complete.
        builders: the graphs, complete.
        quantization: how their weights are quantized; None where no weight is.

    Returns:
        As `quantized_tensors`.

    Raises:
        ModelLoadError: the file cannot be written.
    """
    try:
        write_file(path, list(_sources(builders, quantization)))
    except OSError as error:
        raise ModelLoadError(f"cannot write {path}: {error}. Make room, or name another folder") from error
    return read_header(path)


def _sources(builders: Sequence[GraphBuilder], quantization: Quantization | None) -> Iterator[Source]:
    """The tensors that the graphs read: stored ones as they are, and the parts of quantized weights."""
    for name, tensor in _stored(builders).items():
        yield Source({name: (tensor.dtype, tensor.shape)}, partial(_copy, name, tensor))
    if quantization is None:
        return
    for name, one in _quantized(builders).items():
        parts = quantization.parts(*one.weight.matrix_shape)
        shapes = {f"{name}.{part}": kind for part, kind in parts.items()}
        yield Source(shapes, partial(_quantize, name, one, quantization))


def _copy(name: str, tensor: StoredTensor) -> dict[str, NDArray[Any]]:
    return {name: tensor.stored()}


def _quantize(name: str, one: QuantizedWeight, quantization: Quantization) -> dict[str, NDArray[Any]]:
    weight = one.weight.array() * np.float32(one.factor)
    return {f"{name}.{part}": values for part, values in quantization.quantize(weight).items()}


def _key(builders: Sequence[GraphBuilder], quantization: Quantization) -> str:
    """A hash of all that the bytes of the file follow from."""
    stored, quantized = _stored(builders), _quantized(builders)
    tensors = [*stored.values(), *(one.weight.base for one in quantized.values())]
    changes = [one.weight.low_rank for one in quantized.values() if one.weight.low_rank is not None]
    tensors += [part for change in changes for part in (change.down, change.up)]
    made_of = {
        "version": _VERSION,
        "precision": quantization.name,
        "files": sorted(_identity(file, file.stat().st_mtime_ns) for file in {tensor.file for tensor in tensors}),
        "stored": sorted((name, tensor.name) for name, tensor in stored.items()),
        "quantized": sorted((name, one.factor, one.weight.low_rank is not None) for name, one in quantized.items()),
        "scales": [change.scale for change in changes],
    }
    return hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]


def _stored(builders: Sequence[GraphBuilder]) -> dict[str, StoredTensor]:
    return {name: tensor for builder in builders for name, tensor in builder.stored.items()}


def _quantized(builders: Sequence[GraphBuilder]) -> dict[str, QuantizedWeight]:
    return {name: one for builder in builders for name, one in builder.quantized.items()}


@lru_cache(maxsize=64)
def _identity(file: Path, changed: int) -> str:
    """What is in a safetensors file: the sha256 by which huggingface_hub's cache names it, else a hash of samples.

    Args:
        file: the file.
        changed: the time of its last change; a file is hashed anew after one.
    """
    if _BLOB.fullmatch(file.name):
        return file.name
    digest = hashlib.sha256()
    for piece in samples(file):
        digest.update(piece)
    return digest.hexdigest()


def _folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """The folder of the cache, which need not exist."""
    if cache_dir is not None:
        return user_path(cache_dir, ConfigurationError, "cache_dir") / "colpali-integrations"
    if named := os.environ.get(CACHE_VARIABLE):
        return user_path(named, ConfigurationError, CACHE_VARIABLE)
    return cache_folder().parent / "colpali-integrations"


def _writable(folder: Path) -> Path:
    """The folder, or a temporary one where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        temporary = _temporary_folder()
        logger.warning(
            "cannot write %s (%s); quantized weights are made anew in %s by every process. Name a folder by cache_dir= "
            "or %s",
            folder,
            error,
            temporary,
            CACHE_VARIABLE,
        )
        return temporary


@cache
def _temporary_folder() -> Path:
    """One folder per process, removed at its end."""
    folder = Path(tempfile.mkdtemp(prefix="colpali-integrations-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
