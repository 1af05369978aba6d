"""The Qdrant engine inside this process: a folder on disk, no server.

A folder has one owner at a time. Stores that are opened on the same folder within a process share it; another process
gets an error that says so, because the engine's log is locked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colpali_integrations.core.bm25 import SparseVector
from colpali_integrations.core.errors import MissingExtraError, StoreError
from colpali_integrations.stores.engine import FULL, WORDS, Payload, Point, Scored, Search, VectorSpec
from colpali_integrations.stores.filters import Filter
from colpali_integrations.stores.qdrant_filters import EDGE, point_id, translate

try:
    import qdrant_edge as edge
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-edge-py", "store", "a store on disk") from error

__all__ = ["EdgeEngine", "read_manifest"]

_MANIFEST, _SHARD = "store.json", "shard"
# The scan of all vectors is split between cores by segments; without an index of its own, a segment is only a range.
_NO_GRAPH = edge.HnswIndexConfig(m=0, ef_construct=100, full_scan_threshold=10)
# What indexing and users filter by most. Pages as floats, because the index of integers misses a 3.0.
_INDEXES = {
    "id": edge.PayloadSchemaType.Keyword,
    "group": edge.PayloadSchemaType.Keyword,
    "metadata.source": edge.PayloadSchemaType.Keyword,
    "metadata.page": edge.PayloadSchemaType.Float,
}
_QUANTIZATION: dict[str, Callable[[], Any]] = {
    "int8": lambda: edge.ScalarQuantizationConfig(edge.ScalarType.Int8, memory=edge.Memory.Cached),
    "binary": lambda: edge.BinaryQuantizationConfig(memory=edge.Memory.Cached),
}


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of the store in a folder; None where there is none.

    Raises:
        StoreError: it cannot be read.
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


class EdgeEngine:
    """Points in a folder, kept and searched by the Qdrant engine.

    What was written is in the engine's log when a method returns, and survives the death of the process.

    Args:
        folder: opened if it holds a store, otherwise made.
        schema: the points' vectors.
        manifest: kept in the folder when it is made; afterwards the folder's own holds.

    Raises:
        StoreError: another process has it open, or it cannot be read or written.
    """

    def __init__(self, folder: Path, *, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> None:
        self._folder = folder
        self._shard: _Shard | None = _acquire(folder, schema, manifest)
        self.manifest: Mapping[str, Any] = self._shard.manifest

    @property
    def where(self) -> str:
        """The folder."""
        return f"the store {self._folder}"

    def upsert(self, points: Sequence[Point]) -> None:
        """Store points, in place of those with the same ids."""
        made = [_edge_point(point) for point in points]
        if made:
            self._update(edge.UpdateOperation.upsert_points(made))

    def delete(self, ids: Collection[str]) -> None:
        """Remove points; unknown ids are passed over."""
        if ids:
            self._update(edge.UpdateOperation.delete_points([point_id(id_) for id_ in ids]))

    def retrieve(self, ids: Sequence[str]) -> list[Payload | None]:
        """Payloads in the order of `ids`, None for an unknown one."""
        with self._using() as shard:
            records = shard.retrieve([point_id(id_) for id_ in ids], True, False) if ids else []
        found = {str(record.id): record.payload or {} for record in records}
        return [found.get(point_id(id_)) for id_ in ids]

    def vectors(self, ids: Sequence[str], name: str = FULL) -> list[NDArray[np.float32] | None]:
        """A named vector of each point, in the order of `ids`; None for an unknown one."""
        with self._using() as shard:
            records = shard.retrieve([point_id(id_) for id_ in ids], False, [name]) if ids else []
        # The engine hands vectors over as lists of Python floats.
        found = {
            str(record.id): np.array(record.vector[name], np.float32)
            for record in records
            if isinstance(record.vector, dict) and name in record.vector
        }
        return [found.get(point_id(id_)) for id_ in ids]

    def scroll(
        self,
        where: Filter | None = None,
        *,
        limit: int = 256,
        after: Any = None,
        fields: Collection[str] | None = None,
    ) -> tuple[list[Payload], Any]:
        """Payloads, a piece at a time, in the order of the engine's own ids."""
        wanted: Any = True if fields is None else [*{*fields, "id"}]
        with self._using() as shard:
            request = edge.ScrollRequest(
                offset=after, limit=limit, filter=self._filter(where), with_payload=wanted, with_vector=False
            )
            records, following = shard.scroll(request)
        return [record.payload or {} for record in records], following

    def count(self, where: Filter | None = None) -> int:
        """Number of points."""
        with self._using() as shard:
            return int(shard.count(edge.CountRequest(filter=self._filter(where), exact=True)))

    def search(self, searches: Sequence[Search]) -> list[list[Scored]]:
        """Answer several searches in one pass of the engine."""
        if not searches:
            return []
        requests = [self._request(search) for search in searches]
        with self._using() as shard:
            answers = shard.query_batch(edge.QueryBatchRequest(requests))
        known = [{point_id(id_): id_ for id_ in search.ids or ()} for search in searches]
        return [
            [
                Scored(found["id"] if (found := point.payload) else names[str(point.id)], point.score, found or {})
                for point in points
            ]
            for points, names in zip(answers, known, strict=True)
        ]

    def optimize(self) -> None:
        """Give back the space of removed points and make the quantised copies, if any. Rewrites what changed."""
        with self._using() as shard:
            shard.optimize()
            shard.flush()

    def close(self) -> None:
        """Release the folder, if no other store of this process uses it."""
        shard, self._shard = self._shard, None
        if shard is not None:
            _release(shard)

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self.close()

    # -- translation --------------------------------------------------------------------------------------------

    def _request(self, search: Search) -> Any:
        inner = search.prefetch
        conditions = self._filter(search.where, search.ids)
        return edge.QueryRequest(
            limit=search.limit,
            query=self._query(search),
            prefetches=[]
            if inner is None
            else [
                edge.Prefetch(limit=inner.limit, query=self._query(inner), params=_parameters(inner), filter=conditions)
            ],
            filter=conditions,
            params=_parameters(search),
            with_payload=not (search.scores_only and search.ids is not None),
            with_vector=False,
        )

    def _query(self, search: Search) -> Any:
        vector: Any
        if isinstance(search.query, SparseVector):
            vector = _sparse(search.query)
        else:
            vector = np.ascontiguousarray(search.query, np.float32)
        return edge.Query.Nearest(vector, using=search.using)

    def _filter(self, where: Filter | None, ids: Collection[str] | None = None) -> Any:
        parts = []
        if where is not None:
            parts.append(translate(where, EDGE, self._payloads))
        if ids is not None:
            parts.append(edge.HasIdCondition({point_id(id_) for id_ in ids}))
        return edge.Filter(must=parts) if parts else None

    def _payloads(self, condition: Any) -> Iterator[Payload]:
        """What the part of a filter that the engine cannot express is decided by."""
        after = None
        while True:
            fields = ["id", "group", "metadata"]
            with self._using() as shard:
                request = edge.ScrollRequest(
                    offset=after, limit=1024, filter=condition, with_payload=fields, with_vector=False
                )
                records, after = shard.scroll(request)
            yield from (record.payload for record in records)
            if after is None:
                return

    # -- the shard ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _using(self) -> Iterator[Any]:
        shard = self._shard
        if shard is None:
            raise StoreError(f"{self.where} was closed; open it again")
        if shard.process != os.getpid():
            raise StoreError(
                f"{self.where} was opened before this process was forked, and belongs to the parent. Use a Qdrant "
                "server (url=) for several processes"
            )
        try:
            yield shard.handle
        except StoreError:
            raise
        except Exception as error:  # the engine raises nothing more special
            raise StoreError(f"{self.where}: {error}") from error

    def _update(self, operation: Any) -> None:
        with self._using() as handle:
            handle.update(operation)


class _Shard:
    """An open folder, and how many engines of this process use it."""

    def __init__(self, folder: Path, handle: Any, manifest: Mapping[str, Any]) -> None:
        self.folder, self.handle, self.manifest = folder, handle, manifest
        self.users = 1
        self.process = os.getpid()


_lock = threading.Lock()
_shards: dict[Path, _Shard] = {}


def _acquire(folder: Path, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> _Shard:
    key = folder.expanduser().resolve()
    with _lock:
        shard = _shards.get(key)
        if shard is not None and shard.process == os.getpid():
            shard.users += 1
            return shard
        _shards[key] = _open(key, schema, manifest)
        return _shards[key]


def _release(shard: _Shard) -> None:
    with _lock:
        shard.users -= 1
        if shard.users or shard.process != os.getpid():
            return
        if _shards.get(shard.folder) is shard:
            del _shards[shard.folder]
        shard.handle.flush()
        shard.handle.close()


def _open(folder: Path, schema: Mapping[str, VectorSpec], manifest: Mapping[str, Any]) -> _Shard:
    where = folder / _SHARD
    try:
        if (kept := read_manifest(folder)) is not None:
            return _Shard(folder, edge.EdgeShard.load(str(where)), kept)
        # Without its manifest, which is written last, the making of a store was interrupted: nothing is in it.
        if where.exists():
            edge.EdgeShard.load(str(where)).close()  # fails while another process is making it
            shutil.rmtree(where)
        where.mkdir(parents=True)
        handle = edge.EdgeShard.create(str(where), _config(schema))
        for field, kind in _INDEXES.items():
            handle.update(edge.UpdateOperation.create_field_index(field, kind))
        temporary = folder / f"{_MANIFEST}.new"
        temporary.write_text(json.dumps(dict(manifest), indent=1), encoding="utf-8")
        temporary.replace(folder / _MANIFEST)
        return _Shard(folder, handle, dict(manifest))
    except StoreError:
        raise
    except Exception as error:
        if "WouldBlock" in str(error):
            raise StoreError(
                f"the store {folder} is open in another process; close it there. A store on disk has one process at a "
                "time: for more, use a Qdrant server (url=)"
            ) from error
        raise StoreError(f"cannot open the store {folder}: {error}") from error


def _edge_point(point: Point) -> Any:
    vectors: dict[str, Any] = {name: np.ascontiguousarray(one, np.float32) for name, one in point.vectors.items()}
    if point.words is not None:
        vectors[WORDS] = _sparse(point.words)
    return edge.Point(point_id(point.id), vectors, dict(point.payload))


def _config(schema: Mapping[str, VectorSpec]) -> Any:
    return edge.EdgeConfig(
        vectors={name: _vector_params(name, spec) for name, spec in schema.items()},
        sparse_vectors={WORDS: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
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


def _parameters(search: Search) -> Any:
    if search.oversampling is None:
        return edge.SearchParams(exact=True, quantization=edge.QuantizationSearchParams(ignore=True))
    return edge.SearchParams(
        quantization=edge.QuantizationSearchParams(ignore=False, rescore=True, oversampling=search.oversampling)
    )


def _sparse(words: SparseVector) -> Any:
    return edge.SparseVector(words.indices.tolist(), words.values.tolist())
