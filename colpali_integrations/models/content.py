"""What identifies the files of a model: their content, without reading large ones in full."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from colpali_integrations.errors import ModelLoadError
from colpali_integrations.models.builder.weights import StoredTensor, read_header

__all__ = ["content_revision", "samples"]

# Files of up to this many bytes count whole: graphs, tokenizers, configurations.
_WHOLE_FILE = 64 * 2**20
_PIECE = 2**20
# Tensors of up to this many bytes count whole, larger ones by samples.
_WHOLE_TENSOR = 2**16
_TENSOR_SAMPLES, _TENSOR_SAMPLE = 8, 4096
# Samples of a large file that is not of safetensors, between its ends.
_FILE_SAMPLES, _FILE_SAMPLE = 64, 2**14


def content_revision(folder: Path, names: Iterable[str]) -> str:
    """Hash the content of files to "sha256:" and 12 hex digits: equal for copies, different for two checkpoints.

    Names, sizes and `samples` of the files count. Opening a model should not take a minute for a checksum.

    Args:
        folder: where the files are.
        names: relative to it, with forward slashes; missing files are skipped.

    Raises:
        ModelLoadError: a file cannot be read.
    """
    digest = hashlib.sha256()
    for name in sorted(set(names)):
        file = folder / name
        try:
            digest.update(f"{name}\0{file.stat().st_size}\0".encode("utf-8", "surrogateescape"))
            for piece in samples(file):
                digest.update(piece)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ModelLoadError(f"cannot read {file}: {error}") from error
    return f"sha256:{digest.hexdigest()[:12]}"


def samples(file: Path) -> Iterator[bytes]:
    """Read the bytes by which a file is told from others.

    Of a file of up to 64 MiB these are all. Of larger safetensors they are the header, small tensors, and 8 samples of
    each large one, so that a change of a single tensor is noticed. Of other large files they are the first and the last
    MiB, and 64 samples in between: further training changes nearly all bytes.

    Raises:
        ModelLoadError: a large file of safetensors is damaged.
        OSError: the file cannot be read.
    """
    size = file.stat().st_size
    places: Iterable[tuple[int, int]]
    if size <= _WHOLE_FILE:
        places = ((start, _PIECE) for start in range(0, size, _PIECE))
    elif file.suffix == ".safetensors":
        places = _of_tensors(list(read_header(file).values()))
    else:
        places = _of_file(size)
    with file.open("rb") as opened:
        for start, length in places:
            opened.seek(start)
            yield opened.read(length)


def _of_tensors(tensors: list[StoredTensor]) -> Iterator[tuple[int, int]]:
    """(start, length) of the header, and of the parts of each tensor that count."""
    yield 0, min((tensor.offset for tensor in tensors), default=0)
    for tensor in sorted(tensors, key=lambda tensor: tensor.offset):
        if tensor.length <= _WHOLE_TENSOR:
            yield tensor.offset, tensor.length
        else:
            starts = np.linspace(0, tensor.length - _TENSOR_SAMPLE, _TENSOR_SAMPLES).astype(np.int64)
            yield from ((tensor.offset + start, _TENSOR_SAMPLE) for start in starts.tolist())


def _of_file(size: int) -> Iterator[tuple[int, int]]:
    """(start, length) of the parts of a large file that count."""
    yield 0, _PIECE
    yield from ((size * part // (_FILE_SAMPLES + 1), _FILE_SAMPLE) for part in range(1, _FILE_SAMPLES + 1))
    yield size - _PIECE, _PIECE
