"""Destinations of multi-vectors: Parquet files in a folder, or a Qdrant server.

`keys` lists the stored pages. `write` is a generator because of errors: see `pipeline._Worker`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.fs
import pyarrow.parquet
from numpy.typing import NDArray

from colpali_integrations._failures import failing_as
from colpali_integrations._paths import user_path
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ConfigurationError, StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.pages.identity import READER_KEYS
from colpali_integrations.ray.pages import PAGE
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import DOCUMENT
from colpali_integrations.stores.model_choice import ModelLike, stored_model
from colpali_integrations.stores.opening import settings_at
from colpali_integrations.stores.runs import running
from colpali_integrations.stores.settings import Settings, StoredModel
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["MANIFEST", "ParquetFolder", "QdrantWriter", "parquet_pages", "recorded_model"]

MANIFEST = "_colpali_integrations.json"
"""The file that records a folder's model. Readers of datasets ignore names that begin with an underscore."""
_OUTCOME = ["id", "document_id", "source", "page", "error", "missing_fonts"]
_METADATA = [name for name in PAGE.names if name in READER_KEYS]
_READ = ["id", "key", "document_id", "page", "page_count", "run"]
_NUMBERS = ((name, pa.int64()) for name in ("run", "part", "row"))
_VERSION = pa.schema([*(PAGE.field(name) for name in _READ[:-1]), *_NUMBERS])
_Record: TypeAlias = tuple[Entry, NDArray[np.float32]]
_READERS = 16  # threads that read files: object storage answers slowly


class ParquetFolder:
    """Parquet files of one model's vectors, in a local folder or in object storage.

    Files are only added. The folder is made with the first of them, so that a run whose model cannot be loaded leaves
    nothing behind. A page that was embedded again has rows in several files, and the row of the newest run counts; the
    column `run` holds the start of the row's run, in nanoseconds.

    Args:
        folder: a path or a URI that pyarrow can open (s3://, gs://, hdfs://).
        made_by: the model.
        kind: other properties that all files share, such as the vectors' type.

    Raises:
        FingerprintError: the folder's vectors are another model's, or made with other settings.
        ConfigurationError: the vectors are of another kind, or the folder holds other Parquet files.
        StoreError: the folder cannot be made.
    """

    def __init__(self, folder: str | os.PathLike[str], made_by: StoredModel, kind: Mapping[str, Any]) -> None:
        self._files, self._root = _filesystem(folder)
        self._where, self._made_by, self._kind = str(folder), made_by, dict(kind)
        manifest = _manifest(self._files, self._root, folder)
        self._note = json.dumps({"model": made_by.to_dict(), **kind})
        self._run = time.time_ns()
        if manifest is not None:
            return self._require(*manifest)
        if isinstance(self._files, pa.fs.LocalFileSystem):
            _check_place(Path(self._root))
        if _parts(self._files, self._root):
            raise ConfigurationError(f"{folder} holds Parquet files of another origin; name another folder")

    def make(self) -> None:
        """Make the folder, if there is none; the first write does so too.

        Raises:
            FingerprintError: another run has made it meanwhile, with another model.
            ConfigurationError: or with vectors of another kind.
        """
        if (manifest := _manifest(self._files, self._root, self._where)) is not None:
            return self._require(*manifest)
        with failing_as(StoreError, self._where):
            self._files.create_dir(self._root, recursive=True)
            unfinished = f"{self._root}/_{uuid4().hex}.unfinished"  # other workers may read the manifest at once
            with self._files.open_output_stream(unfinished) as file:
                file.write(self._note.encode())
            self._files.move(unfinished, f"{self._root}/{MANIFEST}")

    def _require(self, recorded: StoredModel, kind: Mapping[str, Any]) -> None:
        recorded.require_pages(self._made_by, where=self._where)
        if self._kind != kind:
            raise ConfigurationError(
                f"{self._where} was made with {_options(kind)}, not with {_options(self._kind)}; name another folder"
            )

    def keys(self) -> dict[str, str]:
        """Return the content key by id of the stored pages."""
        rows = _newest(self._files, _parts(self._files, self._root))
        self._run = max([self._run, *(1 + run for run in rows.column("run").to_pylist())])  # clocks may be set back
        return dict(zip(rows.column("id").to_pylist(), rows.column("key").to_pylist(), strict=True))

    def write(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Write a file of the pages that were embedded, and yield the outcome of each row."""
        embedded = _embedded(batch)
        if len(embedded):
            self.make()
            # The name depends on the pages alone, so that a task that is run again replaces its file.
            digest = hashlib.sha256("\0".join(embedded.column("id").to_pylist()).encode()).hexdigest()[:24]
            # Under another name until it is complete: readers never see the half of a file of a killed run.
            unfinished = f"{self._root}/_{digest}.unfinished"
            run = pa.array([self._run] * len(embedded), pa.int64())
            table = embedded.drop_columns(["error"]).append_column("run", run)
            table = table.replace_schema_metadata({"colpali_integrations": self._note})
            pa.parquet.write_table(table, unfinished, filesystem=self._files)
            self._files.move(unfinished, f"{self._root}/part-{digest}.parquet")
        yield _outcome(batch)


def parquet_pages(folder: str | os.PathLike[str], *, model: ModelLike) -> Iterator[tuple[Entry, NDArray[np.float32]]]:
    """Read the pages of a folder of Parquet files that `embed_pages` wrote, for a store's `add`.

    Of a page that was embedded several times, because its file had changed, only the newest version counts; pages
    beyond the end of the newest version of their document are left out.

    Args:
        folder: a path or a URI that pyarrow can open.
        model: the model of the store: `store.model`, a `ColPali`, its description or its name.

    Yields:
        An entry and its vectors, float32 (n_vectors, dim).

    Raises:
        StoreError: the folder does not exist, or a file cannot be read.
        FingerprintError: the vectors are another model's, or made with other settings.

    Example:
        >>> import ray
        >>> from colpali_integrations.ray import embed_pages
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> report = embed_pages(ray.data.from_items([{"path": "report.pdf"}]), output="made-by-ray")
        >>> with MultiVectorStore.open(model="coltiny") as store:
        ...     store.add(parquet_pages("made-by-ray", model="coltiny"))
        2
    """
    files, root = _filesystem(folder)
    manifest = _manifest(files, root, folder)
    if manifest is None:
        raise StoreError(f"{folder} was not written by embed_pages: it has no {MANIFEST}")
    manifest[0].require_pages(stored_model(model, beside=manifest[0]), where=str(folder))
    parts = _parts(files, root)
    rows = _newest(files, parts).sort_by([("part", "ascending"), ("row", "ascending")])
    bounds = np.searchsorted(rows.column("part").to_numpy(), np.arange(len(parts) + 1))
    for part, path in enumerate(parts):
        first, end = int(bounds[part]), int(bounds[part + 1])
        if first < end:
            yield from _checked(_stored(files, path, rows.column("row").slice(first, end - first)), path)


class QdrantWriter:
    """A collection on a Qdrant server, which every store of this package can open.

    Args:
        options: for `MultiVectorStore.open`: `url`, `collection_name` and so on.
        made_by: the model.
    """

    def __init__(self, options: Mapping[str, Any], made_by: StoredModel) -> None:
        self._options, self._made_by = json.dumps(dict(options), sort_keys=True), made_by

    def keys(self) -> dict[str, str]:
        """Return the content key by id of the stored pages. The first write makes the collection if there is none."""
        options = json.loads(self._options)
        settings, _ = settings_at(**options)
        if settings is None:
            named = (one.name for one in fields(Settings))
            wanted = {name: options[name] for name in named if options.get(name) is not None}
            Settings(**{**wanted, "model": self._made_by})  # refuses invalid values
            return {}
        with running(None, reached=True), MultiVectorStore.open(model=self._made_by, **options) as store:
            store.require_writable()  # before any page is encoded
            store.require_pages(self._made_by)
            return store.hashes()

    def make(self) -> None:
        """Make the collection, if there is none; the first write does so too."""
        with running(None, reached=True):
            MultiVectorStore.open(model=self._made_by, **json.loads(self._options)).close()

    def write(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Store the pages that were embedded, and yield the outcome of each row."""
        with running(None, reached=True):  # by the driver, before this process has begun
            outcome = self._write(batch)
        yield outcome

    def _write(self, batch: pa.Table) -> pa.Table:
        store, embedded = _open(self._options, self._made_by), _embedded(batch)
        lengths = dict(zip(*(embedded.column(name).to_pylist() for name in ("document_id", "page_count")), strict=True))
        beyond = [{DOCUMENT: document, "page": {"$gt": count}} for document, count in lengths.items()]
        # Before the others are stored: a run that is killed in between then still has pages to embed, and comes back.
        removed = store.delete(where={"$or": beyond}) if beyond else 0
        refused: dict[str, str] = {}
        store.add(_records(embedded), on_error=lambda entry, error: refused.update({entry.id: str(error)}))
        return _outcome(_with_errors(batch, refused), removed)


@lru_cache(2)
def _open(options: str, made_by: StoredModel) -> MultiVectorStore:
    """Open the connection that the tasks of one process share until it ends."""
    return MultiVectorStore.open(model=made_by, **json.loads(options))


def _outcome(batch: pa.Table, removed: int = 0) -> pa.Table:
    """Return the outcome of each row, with the number of removed pages in the first one."""
    counts = pa.array([removed, *[0] * len(batch)], pa.int64()).slice(0, len(batch))
    return batch.select(_OUTCOME).append_column("removed", counts)


def _with_errors(batch: pa.Table, errors: Mapping[str, str]) -> pa.Table:
    """Return the rows with errors by id, beside those that they have."""
    both = zip(*(batch.column(name).to_pylist() for name in ("id", "error")), strict=True)
    column = pa.array([errors.get(id_, error) for id_, error in both], batch.schema.field("error").type)
    return batch.set_column(batch.schema.get_field_index("error"), "error", column)


def _embedded(batch: pa.Table) -> pa.Table:
    return batch.filter(pa.compute.is_null(batch.column("error")))


def _newest(files: Any, parts: list[str]) -> pa.Table:
    """Return the rows that count: `id`, `key` and `run`, and `part` and `row`, which are indices of files and rows."""

    def version(part: int) -> pa.Table:
        with failing_as(StoreError, parts[part]):
            rows = _read(files, parts[part], _READ).select(_READ)
            position = [pa.array(np.full(len(rows), part)), pa.array(np.arange(len(rows)))]
            table = pa.Table.from_arrays([*rows.columns, *position], schema=_VERSION)
            table.validate(full=True)  # such as texts that are not UTF-8
            return table

    with ThreadPoolExecutor(_READERS) as threads:
        rows = pa.concat_tables([_VERSION.empty_table(), *threads.map(version, range(len(parts)))])
    rows = rows.sort_by([("run", "descending")])
    # `first` needs the order of the rows, and so a single thread.
    lengths = rows.group_by("document_id", use_threads=False).aggregate([("page_count", "first")])
    rest = [name for name in rows.column_names if name != "id"]
    newest = rows.group_by("id", use_threads=False).aggregate([(name, "first") for name in rest])
    newest = newest.rename_columns([name.removesuffix("_first") for name in newest.column_names])
    newest = newest.join(lengths, "document_id")
    return newest.filter(pa.compute.less_equal(newest.column("page"), newest.column("page_count_first")))


def _checked(records: Iterator[_Record], path: str) -> Iterator[_Record]:
    """The records of a file, which may come from elsewhere, so that anything may be in it."""
    while True:
        with failing_as(StoreError, path):
            record = next(records, None)
        if record is None:
            return
        yield record


def _stored(files: Any, path: str, numbers: pa.ChunkedArray) -> Iterator[_Record]:
    yield from _records(_read(files, path).take(numbers))


def _records(table: pa.Table) -> Iterator[_Record]:
    for batch in table.to_batches():
        vectors = batch.column("vectors")
        for index, row in enumerate(batch.drop_columns(["vectors"]).to_pylist()):
            rows = vectors[index].values
            numbers = rows.flatten().to_numpy(zero_copy_only=False)
            yield _entry(row), numbers.astype(np.float32).reshape(len(rows), -1)


def _entry(row: dict[str, Any]) -> Entry:
    tags = parse_json(row["metadata"]) if row["metadata"] else {}
    row = {**row, "missing_fonts": ", ".join(row["missing_fonts"] or ()) or None}  # as in a page's metadata
    return Entry(
        id=row["id"],
        text=row["text"],
        metadata={**tags, **{name: row[name] for name in _METADATA if row[name] is not None}},
        document_id=row["document_id"],
        content_hash=row["key"],
        grid=PageGrid.from_json(parse_json(row["grid"])),
    )


def _filesystem(folder: str | os.PathLike[str]) -> tuple[Any, str]:
    if "://" in (text := os.fspath(folder)):
        files, root = pa.fs.FileSystem.from_uri(text)
        return files, root
    return pa.fs.LocalFileSystem(), str(user_path(text).absolute())


def _check_place(folder: Path) -> None:
    """Refuse a folder that cannot be made, before the work whose result it gets.

    Raises:
        StoreError: it is a file, or writing is not permitted.
    """
    with failing_as(StoreError, str(folder)):
        place = next(one for one in (folder, *folder.parents) if one.exists())
    if not place.is_dir():
        raise StoreError(f"{place} is a file and not a folder; name another folder")
    if not os.access(place, os.W_OK):
        raise StoreError(f"writing into {place} is not permitted; name another folder")


def recorded_model(folder: str | os.PathLike[str]) -> StoredModel | None:
    """Return the model that made the Parquet files of a folder; None where there are none."""
    files, root = _filesystem(folder)
    manifest = _manifest(files, root, folder)
    return None if manifest is None else manifest[0]


def _manifest(files: Any, root: str, folder: object) -> tuple[StoredModel, dict[str, Any]] | None:
    """Return the model and the kind of a folder's files; None if there is no manifest."""
    path = f"{root}/{MANIFEST}"
    if files.get_file_info(path).type == pa.fs.FileType.NotFound:
        return None
    try:
        with files.open_input_stream(path) as file:
            content = parse_json(file.read())
        return StoredModel.from_dict(content.pop("model")), content
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder} has a damaged {MANIFEST} ({error}); name another folder") from error


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
