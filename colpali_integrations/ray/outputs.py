"""Where multi-vectors go: Parquet files in a folder, or a Qdrant server. Both know what they hold already.

Their `write` is a generator because of errors: see `embedding._Worker`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.fs
import pyarrow.parquet
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.opening import ModelLike, fingerprint
from colpali_integrations.stores.settings import Fingerprint
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["MANIFEST", "ParquetFolder", "QdrantWriter", "parquet_pages"]

MANIFEST = "_colpali_integrations.json"
"""In a folder of Parquet files: by which model they were made. Readers of datasets pass over names that begin so."""
_OUTCOME = ["id", "source", "page", "error"]
_METADATA = ("source", "page", "page_count", "width", "height", "dpi", "content_hash")
_READERS = 16  # threads that look into files: in object storage each takes a while to answer


class ParquetFolder:
    """Parquet files of one model's vectors, in a local folder or in object storage.

    Args:
        place: a path or a URI that pyarrow knows (s3://, gs://, hdfs://).
        made_by: the model.
        kind: what else must be the same in all files, such as the vectors' type.

    Raises:
        FingerprintError: the folder's vectors are another model's.
        ConfigurationError: they are of another kind, or the folder holds Parquet files of somebody else.
    """

    def __init__(self, place: str | os.PathLike[str], made_by: Fingerprint, kind: Mapping[str, Any]) -> None:
        self._files, self._root = _filesystem(place)
        found = _manifest(self._files, self._root, place)
        self._note = json.dumps({"model": made_by.to_dict(), **kind})
        if found is None:
            if _parts(self._files, self._root):
                raise ConfigurationError(f"{place} holds Parquet files that are not ours; name another folder")
            self._files.create_dir(self._root, recursive=True)
            with self._files.open_output_stream(f"{self._root}/{MANIFEST}") as file:
                file.write(self._note.encode())
            return
        there, theirs = found
        there.require(made_by, where=str(place))
        if theirs != dict(kind):
            raise ConfigurationError(
                f"{place} was made with {_options(theirs)}, not with {_options(kind)}; name another folder"
            )

    def known(self) -> set[str]:
        """Ids of the pages that are there."""

        def ids(path: str) -> list[str]:
            found: list[str] = _read(self._files, path, ["id"]).column("id").to_pylist()
            return found

        with ThreadPoolExecutor(_READERS) as threads:
            return {one for found in threads.map(ids, _parts(self._files, self._root)) for one in found}

    def write(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Write a file of the pages that are well; yields what became of each row."""
        well = _well(batch)
        if len(well):
            # The same pages have the same name, so that a task that is run again replaces what it wrote.
            digest = hashlib.sha256("\0".join(well.column("id").to_pylist()).encode()).hexdigest()[:24]
            # Under another name until it is whole: of a run that is killed no half of a file is taken for one.
            unfinished = f"{self._root}/_{digest}.unfinished"
            marked = well.drop_columns(["error"]).replace_schema_metadata({"colpali_integrations": self._note})
            pa.parquet.write_table(marked, unfinished, filesystem=self._files)
            self._files.move(unfinished, f"{self._root}/part-{digest}.parquet")
        yield batch.select(_OUTCOME)


def parquet_pages(place: str | os.PathLike[str], *, model: ModelLike) -> Iterator[tuple[Entry, NDArray[np.float32]]]:
    """The pages of a folder of Parquet files that `embed_pages` wrote, as a store's `add` takes them.

    Args:
        place: the folder; a path or a URI that pyarrow knows.
        model: what they are to be compared by: a `ColPali`, its description or its name.

    Yields:
        An entry and its vectors, float32 (n_vectors, dim).

    Raises:
        StoreError: there is no such folder, or a file cannot be read.
        FingerprintError: the vectors are another model's.

    Example:
        >>> import ray
        >>> from colpali_integrations.ray import embed_pages
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> report = embed_pages(ray.data.from_items([{"path": "report.pdf"}]), output="made-by-ray")
        >>> with MultiVectorStore.open(model="coltiny") as store:
        ...     store.add(parquet_pages("made-by-ray", model="coltiny"))
        2
    """
    files, root = _filesystem(place)
    found = _manifest(files, root, place)
    if found is None:
        raise StoreError(f"{place} is no folder that embed_pages wrote: it has no {MANIFEST}")
    found[0].require(fingerprint(model), where=str(place))
    for path in _parts(files, root):
        yield from _records(_read(files, path))


class QdrantWriter:
    """A collection on a Qdrant server, as every other store of this package reads it.

    Args:
        options: for `MultiVectorStore.open`: `url`, `collection` and so on.
        made_by: the model.
    """

    def __init__(self, options: Mapping[str, Any], made_by: Fingerprint) -> None:
        self._options, self._made_by = json.dumps(dict(options), sort_keys=True), made_by

    def known(self) -> set[str]:
        """Ids of the pages that are there. Makes the collection where there is none."""
        with MultiVectorStore.open(model=self._made_by, **json.loads(self._options)) as store:
            return set(store.hashes())

    def write(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Store the pages that are well; yields what became of each row."""
        _opened(self._options, self._made_by).add(_records(_well(batch)))
        yield batch.select(_OUTCOME)


@lru_cache(2)
def _opened(options: str, made_by: Fingerprint) -> MultiVectorStore:
    """A connection that the tasks of one process share, for as long as it lives."""
    return MultiVectorStore.open(model=made_by, **json.loads(options))


def _well(batch: pa.Table) -> pa.Table:
    return batch.filter(pa.compute.is_null(batch.column("error")))


def _records(table: pa.Table) -> Iterator[tuple[Entry, NDArray[np.float32]]]:
    for batch in table.to_batches():
        vectors = batch.column("vectors")
        for index, said in enumerate(batch.drop_columns(["vectors"]).to_pylist()):
            rows = vectors[index].values
            numbers = rows.flatten().to_numpy(zero_copy_only=False)
            yield _entry(said), numbers.astype(np.float32).reshape(len(rows), -1)


def _entry(said: dict[str, Any]) -> Entry:
    own = json.loads(said["metadata"]) if said["metadata"] else {}
    return Entry(
        id=said["id"],
        text=said["text"],
        metadata={**own, **{name: said[name] for name in _METADATA if said[name] is not None}},
        group=said["source"],
        content_hash=said["content_hash"],
        grid=PageGrid.from_json(json.loads(said["grid"])),
    )


def _filesystem(place: str | os.PathLike[str]) -> tuple[Any, str]:
    if "://" in (text := os.fspath(place)):
        found: tuple[Any, str] = pa.fs.FileSystem.from_uri(text)
        return found
    return pa.fs.LocalFileSystem(), str(Path(text).expanduser().absolute())


def _manifest(files: Any, root: str, place: object) -> tuple[Fingerprint, dict[str, Any]] | None:
    """By which model a folder's files were made, and how; None where nothing says so."""
    path = f"{root}/{MANIFEST}"
    if files.get_file_info(path).type == pa.fs.FileType.NotFound:
        return None
    try:
        with files.open_input_stream(path) as file:
            content = json.loads(file.read())
        return Fingerprint.from_dict(content.pop("model")), content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{place} has a damaged {MANIFEST} ({error}); name another folder") from error


def _parts(files: Any, root: str) -> list[str]:
    inside = files.get_file_info(pa.fs.FileSelector(root, allow_not_found=True))
    return sorted(info.path for info in inside if info.extension == "parquet")


def _read(files: Any, path: str, columns: list[str] | None = None) -> pa.Table:
    try:
        return pa.parquet.read_table(path, columns=columns, filesystem=files, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"cannot read {path}: {error}. Remove it and run again, which embeds its pages") from error


def _options(kind: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in kind.items())
