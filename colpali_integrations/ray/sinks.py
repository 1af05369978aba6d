"""Where multi-vectors go: Parquet files in a folder, or a Qdrant server. Both know what they hold already."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet

from colpali_integrations.core.errors import ConfigurationError, FingerprintError, StoreError
from colpali_integrations.core.page_grid import PageGrid
from colpali_integrations.core.registry import ModelDescription
from colpali_integrations.ray.drawing import PAGE
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.multi_vector_store import MultiVectorStore
from colpali_integrations.stores.settings import Fingerprint

__all__ = ["MANIFEST", "ParquetFolder", "QdrantWriter"]

MANIFEST = "_colpali_integrations.json"
"""In a folder of Parquet files: by which model they were made. Readers of datasets pass over names that begin so."""
_OUTCOME = ["id", "source", "page", "error"]
_METADATA = ("source", "page", "page_count", "width", "height", "dpi", "content_hash")


class ParquetFolder:
    """Parquet files of one model's vectors, in a local folder or in object storage.

    Args:
        place: a path or a URI that pyarrow knows (s3://, gs://, hdfs://).
        model: what makes the vectors.
        kind: what else must be the same in all files, such as the vectors' type.

    Raises:
        FingerprintError: the folder's vectors are another model's.
        ConfigurationError: they are of another kind, or the folder holds Parquet files of somebody else.
    """

    def __init__(self, place: str, model: ModelDescription, kind: Mapping[str, Any]) -> None:
        self.place = place
        self._files, self._root = _filesystem(place)
        made_by = Fingerprint.of(model)
        self._files.create_dir(self._root, recursive=True)
        manifest = f"{self._root}/{MANIFEST}"
        if self._files.get_file_info(manifest).type == pa.fs.FileType.NotFound:
            if self._parts():
                raise ConfigurationError(f"{place} holds Parquet files that are not ours; name another folder")
            content = {"model": made_by.to_dict(), **kind}
            with self._files.open_output_stream(manifest) as file:
                file.write(json.dumps(content, indent=2).encode())
            return
        with self._files.open_input_file(manifest) as file:
            content = json.loads(file.read())
        there = Fingerprint.from_dict(content.pop("model"))
        if not there.matches(made_by):
            raise FingerprintError(
                f"{place} holds vectors of {there.name} (revision {there.revision or 'unknown'}), not of "
                f"{made_by.name} (revision {made_by.revision or 'unknown'}); name another folder"
            )
        if content != dict(kind):
            raise ConfigurationError(f"{place} was made with {content}, not with {dict(kind)}; name another folder")

    def known(self) -> frozenset[str]:
        """Ids of the pages that are there."""
        found: set[str] = set()
        for path in self._parts():
            try:
                table = pa.parquet.read_table(path, columns=["id"], filesystem=self._files, partitioning=None)
            except (pa.ArrowException, OSError) as error:
                raise StoreError(f"cannot read {path}: {error}. Remove it; its pages are embedded again") from error
            found.update(table.column("id").to_pylist())
        return frozenset(found)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write a file of the pages that are well; returns what became of each row."""
        well = batch.filter(pa.compute.is_null(batch.column("error")))
        if len(well):
            # The same pages have the same name, so that a task that is run again replaces what it wrote.
            digest = hashlib.sha256("\0".join(well.column("id").to_pylist()).encode()).hexdigest()[:24]
            unfinished = f"{self._root}/_{digest}.unfinished"
            pa.parquet.write_table(well.drop_columns(["error"]), unfinished, filesystem=self._files)
            self._files.move(unfinished, f"{self._root}/part-{digest}.parquet")
        return batch.select(_OUTCOME)

    def _parts(self) -> list[str]:
        selector = pa.fs.FileSelector(self._root, allow_not_found=True)
        return sorted(info.path for info in self._files.get_file_info(selector) if info.extension == "parquet")


def _filesystem(place: str) -> tuple[Any, str]:
    if "://" in place:
        return pa.fs.FileSystem.from_uri(place)  # type: ignore[no-any-return, unused-ignore]
    return pa.fs.LocalFileSystem(), place


class QdrantWriter:
    """A collection on a Qdrant server, as every other store of this package reads it.

    Args:
        options: for `MultiVectorStore.open`: `url`, `collection` and so on.
        model: what makes the vectors.
    """

    def __init__(self, options: Mapping[str, Any], model: ModelDescription) -> None:
        self._options, self._model = json.dumps(dict(options), sort_keys=True), model

    def known(self) -> frozenset[str]:
        """Ids of the pages that are there. Makes the collection where there is none."""
        return frozenset(_opened(self._options, self._model).hashes())

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Store the pages that are well; returns what became of each row."""
        store = _opened(self._options, self._model)
        records = []
        for row in batch.filter(pa.compute.is_null(batch.column("error"))).to_batches():
            vectors = row.column("vectors")
            for index, said in enumerate(row.drop_columns(["vectors"]).to_pylist()):
                numbers = vectors[index].values.flatten().to_numpy(zero_copy_only=False)
                records.append((_entry(said), np.asarray(numbers, np.float32).reshape(-1, self._model.dim)))
        store.add(records)
        return batch.select(_OUTCOME)


@lru_cache(2)
def _opened(options: str, model: ModelDescription) -> MultiVectorStore:
    """A connection that the tasks of one process share."""
    return MultiVectorStore.open(model=model, **json.loads(options))


def _entry(said: dict[str, Any]) -> Entry:
    return Entry(
        id=said["id"],
        text=said["text"],
        metadata={name: said[name] for name in _METADATA if said[name] is not None},
        group=said["source"],
        content_hash=said["content_hash"],
        grid=PageGrid.from_json(json.loads(said["grid"])),
    )


assert set(_METADATA) <= set(PAGE.names)
