"""Open folders with a Qdrant shard, each opened once per process.

The engine locks its log, so a second process cannot open a folder. Within a process the stores on a folder share it,
and closing the last of them closes the folder.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qdrant_edge as edge

from colpali_integrations.errors import StoreError
from colpali_integrations.runtime.machine import available_cores
from colpali_integrations.stores.engine import FULL, WORDS, VectorSpec

__all__ = ["Shard", "acquire", "edge", "read_manifest", "release"]

_MANIFEST, _SHARD = "store.json", "shard"
# A search runs over the segments in parallel, and over each segment on one core. New points go to one segment, which is
# sealed after this number of bytes; then another one begins. Sealed segments are merged, up to a size, while there are
# more of them than cores. On 2 cores, exact search of 800 ColPali pages took twice as long in one segment as in four.
SEALED_BYTES = 16 << 20
_LARGEST_KB = 256_000
# Multi-vectors are scanned without a graph, which would take long to build and miss pages.
_NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10)
# Fields that indexing and users filter by most often. Pages are floats because the integer index misses 3.0.
_INDEXES = {
    "id": edge.PayloadSchemaType.Keyword,
    "document_id": edge.PayloadSchemaType.Keyword,
    "content_hash": edge.PayloadSchemaType.Keyword,
    "metadata.source": edge.PayloadSchemaType.Keyword,
    "metadata.page": edge.PayloadSchemaType.Float,
}
_QUANTIZATION: dict[str, Callable[[], Any]] = {
    "int8": lambda: edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=edge.Memory.Cached),
    "binary": lambda: edge.BinaryQuantizationConfig(memory=edge.Memory.Cached),
}


class Shard:
    """An open folder, the number of engines of this process that use it, and the bytes written since the last seal."""

    def __init__(self, folder: Path, handle: Any, manifest: Mapping[str, Any]) -> None:
        self.folder, self.handle, self.manifest = folder, handle, manifest
        self.users, self.unsealed = 1, 0
        self.process = os.getpid()


# Re-entrant: the garbage collector may release an engine while its thread opens another.
_lock = threading.RLock()
_shards: dict[Path, Shard] = {}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Read the manifest of the store in a folder; None for a folder without a store.

    Raises:
        StoreError: the manifest cannot be read.
    """
    try:
        found = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except NotADirectoryError as error:
        raise StoreError(f"{folder} is a file; a store is a folder") from error
    except (OSError, ValueError) as error:
        raise StoreError(f"cannot read {folder / _MANIFEST}: {error}") from error
    return found if isinstance(found, dict) else {}


def acquire(folder: Path, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> Shard:
    """Open a folder, or create it; `release` it afterwards.

    Raises:
        StoreError: another process has the folder open, or it cannot be read or written.
    """
    key = folder.expanduser().resolve()
    with _lock:
        while (shard := _shards.get(key)) is not None and shard.process == os.getpid():
            shard.users += 1
            if _shards.get(key) is shard:  # else the garbage collector has just released its last user
                return shard
        _shards[key] = _open(key, schema, manifest)
        return _shards[key]


def release(shard: Shard) -> None:
    """Close the folder unless another engine of this process uses it."""
    with _lock:
        shard.users -= 1
        if shard.users or shard.process != os.getpid():
            return
        if _shards.get(shard.folder) is shard:
            del _shards[shard.folder]
        shard.handle.flush()
        shard.handle.close()


def _after_fork() -> None:
    """Replace the lock: another thread may have held it at the time of the fork."""
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _open(folder: Path, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> Shard:
    where = folder / _SHARD
    try:
        if (kept := read_manifest(folder)) is not None:
            return Shard(folder, edge.EdgeShard.load(str(where), _config({})), kept)
        # The manifest is written last: without it the creation was interrupted, and the store is empty.
        if where.exists():
            edge.EdgeShard.load(str(where)).close()  # fails while another process creates it
            shutil.rmtree(where)
        where.mkdir(parents=True)
        handle = edge.EdgeShard.create(str(where), _config(schema))
        for field, kind in _INDEXES.items():
            handle.update(edge.UpdateOperation.create_field_index(field, kind))
        temporary = folder / f"{_MANIFEST}.new"
        temporary.write_text(json.dumps(dict(manifest), indent=1), encoding="utf-8")
        temporary.replace(folder / _MANIFEST)
        return Shard(folder, handle, dict(manifest))
    except StoreError:
        raise
    except Exception as error:
        if "WouldBlock" in str(error):
            raise StoreError(
                f"the store {folder} is open in another process; close it there. A store on disk serves one process at "
                "a time: for more, use a Qdrant server (url=)"
            ) from error
        raise StoreError(f"cannot open the store {folder}: {error}") from error


def _config(schema: Mapping[str, VectorSpec]) -> Any:
    return edge.EdgeConfig(
        vectors={name: _vector_params(name, spec) for name, spec in schema.items()} or None,
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(
            default_segment_number=max(2, available_cores()),
            indexing_threshold=max(1, SEALED_BYTES >> 11),
            max_segment_size=_LARGEST_KB,
        ),
        max_search_threads=available_cores(),  # the default of the engine leaves one core out
    )


def _vector_params(name: str, spec: VectorSpec) -> Any:
    return edge.EdgeVectorParams(
        spec.dim,
        edge.Distance.Dot,
        multivector_config=edge.MultiVectorConfig(edge.MultiVectorComparator.MaxSim) if spec.multi else None,
        datatype=edge.VectorStorageDatatype.Float16,
        quantization_config=None if spec.quantization is None else _QUANTIZATION[spec.quantization](),
        hnsw_config=_NO_GRAPH,
        memory=edge.Memory.Cold if name == FULL else edge.Memory.Cached,
    )
