"""The whole pipeline, `embed_pages`, with its report."""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import pyarrow as pa
import ray
import ray.data

from colpali_integrations._options import checked_whole
from colpali_integrations._paths import user_path
from colpali_integrations.errors import ColPaliError, ConfigurationError, EncodingError, InputError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import is_server
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.loading import describe, registered_description
from colpali_integrations.models.options import ModelOptions
from colpali_integrations.pages.document import DEFAULT_DPI
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import page_name
from colpali_integrations.ray.cluster import cluster_nodes, plan_workers
from colpali_integrations.ray.encoder import Dtype, PageEncoder
from colpali_integrations.ray.outputs import ParquetFolder, QdrantWriter, recorded_model
from colpali_integrations.ray.pages import draw_pages
from colpali_integrations.runtime.pipeline import checked_batching
from colpali_integrations.stores.ingestion.failures import OnError, check_on_error, skipped
from colpali_integrations.stores.ingestion.report import IngestReport, font_warning
from colpali_integrations.stores.model_choice import continued_options, refuse_other_model
from colpali_integrations.stores.opening import settings_at
from colpali_integrations.stores.runs import GaveUpError, gave_up
from colpali_integrations.stores.settings import StoredModel

__all__ = ["QdrantServer", "embed_pages"]

# Ray Data appends advice about its own options to the messages of errors.
_RAYS_ADVICE = re.compile(r"\nFailed to .{1,100} after \d+/\d+ attempts \(.*", re.DOTALL)
# Pages per call of an encoder: several batches on a GPU; few on a CPU, so that no worker waits for another.
_BATCH_CPU, _BATCH_GPU = 4, 16
_CONTINUES = "{stored} by this run, and perhaps a few more; run it again, and it goes on with the others"


@dataclass(frozen=True)
class QdrantServer:
    """A collection on a Qdrant server to write into; every node must reach it.

    Attributes:
        url: of the server, or several of a cluster's nodes.
        collection_name: of the collection, which is made if it does not exist.
        options: further arguments of `MultiVectorStore.open`, such as `api_key`, `first_stage` or `retry_seconds`;
            JSON-safe. Not shown.

    Example:
        >>> QdrantServer("http://qdrant:6333", "manuals", {"first_stage": "ward", "api_key": "secret"})
        QdrantServer(url='http://qdrant:6333', collection_name='manuals')
    """

    url: str | Sequence[str]
    collection_name: str = "pages"
    options: Mapping[str, Any] = field(default_factory=dict, repr=False)


def embed_pages(
    dataset: Any,
    *,
    output: str | os.PathLike[str] | QdrantServer,
    model: str | os.PathLike[str] = "coltiny",
    dpi: float = DEFAULT_DPI,
    password: str | None = None,
    isolate: bool = True,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    metadata: Sequence[str] = (),
    dtype: Dtype = "float16",
    pooled: bool = False,
    workers: int | tuple[int, int] | None = None,
    threads: int | None = None,
    gpus: float = 0,
    batch_size: int | None = None,
    pages_per_file: int = 256,
    on_error: OnError = "skip",
    **options: Any,
) -> IngestReport:
    """Embed the pages of a dataset of files and write their multi-vectors, on all of a Ray cluster.

    Run it again after an interruption, or when files were added or changed: pages that the output holds are not
    embedded again, a changed document is replaced, and a page that failed is tried again. A document that is in the
    dataset twice, or whose node is lost in the middle, may be embedded twice.

    Args:
        dataset: a `ray.data.Dataset` of files, see `draw_pages`.
        output: a folder for Parquet files (a path that all nodes share, or s3://, gs://), or a `QdrantServer`.
        model: name or folder, as `ColPali.from_pretrained`; a folder must be on every node.
        dpi: resolution of PDF pages.
        password: for encrypted PDFs.
        isolate: as for `draw_pages`.
        max_pixels: as for `draw_pages`.
        image_formats: as for `draw_pages`.
        metadata: other columns of the dataset to store with each page, see `draw_pages`. They identify its document,
            and serve for filters on a server.
        dtype: of the vectors in Parquet files. A server's store keeps float16.
        pooled: also write the mean vector of each page, in the column `pooled` of Parquet files.
        workers: number of encoders, each with its own model; None for as many as the cores, or the GPUs, suffice for;
            (least, most) for a cluster that grows.
        threads: cores per encoder; None for 4, or 1 beside a GPU and where nodes have fewer.
        gpus: GPUs per encoder; 1 with `onnxruntime-gpu` on the nodes.
        batch_size: pages per call of an encoder; None for 4, or 16 beside a GPU.
        pages_per_file: pages in a Parquet file, or in a write to the server; an interrupted run loses at most as many
            per worker.
        on_error: "skip" documents and pages that cannot be read or encoded, with a log entry; or "raise" the first such
            error that reaches this process. Pages that are written by then stay.
        **options: for `ColPali.from_pretrained`, such as `local_files_only`. Those that are left out, such as
            `precision`, are those of the output's pages.

    Returns:
        Numbers, the failures, and warnings about documents with pages that lack fonts. `documents` counts documents
        with added pages, `present` earlier pages of the output that were neither replaced nor removed, `removed` the
        pages deleted on a server (Parquet files are never deleted; `parquet_pages` passes over the rows that no longer
        count).

    Raises:
        FingerprintError: the output holds vectors of another model, or made with other settings.
        ConfigurationError: an option has an invalid value, the dataset lacks columns, the cluster has no room for the
            workers, or the output's files are of another kind.
        ModelNotFoundError: as `ColPali.from_pretrained`.
        ProviderError: a requested GPU fails to start.
        StoreError: the output cannot be read or written. Writers wait for a server that is away, by default for 60 s
            (`retry_seconds` of `MultiVectorStore.open`); after that the message says how many pages are stored.

    Example:
        >>> import ray
        >>> files = ray.data.read_binary_files("reports/", include_paths=True)
        >>> report = embed_pages(files, output="embedded")
        >>> report.added, report.present, report.failures
        (1, 0, [])
    """
    check_on_error(on_error)
    if dtype not in get_args(Dtype):
        raise ConfigurationError(f"dtype must be one of {', '.join(map(repr, get_args(Dtype)))}, got {dtype!r}")
    pages_per_file = checked_whole(pages_per_file, "pages_per_file")
    batch_size, _ = checked_batching(batch_size, None)
    if pooled and isinstance(output, QdrantServer):
        raise ConfigurationError(
            "pooled is a column of Parquet files; a server's store pools by its first stage: "
            "QdrantServer(url, collection_name, {'first_stage': 'ward'})"
        )
    # Only the small files are read: the driver may have no GPU, and little memory.
    driver_options = {name: value for name, value in options.items() if name not in ("providers", "device_ids")}
    recorded = _recorded(output)
    registered = registered_description(model, ModelOptions(**driver_options))
    refuse_other_model(recorded, registered, where=str(output))  # before a download
    if recorded is not None:
        driver_options = continued_options(recorded, model, driver_options)
        options = {**driver_options, **options}
    with ColPali.from_pretrained(model, lazy_load=True, **driver_options) as encoder:
        description = encoder.description
    made_by = StoredModel.of(description)
    if not ray.is_initialized():
        ray.init()
    # The encoders of a failed run keep their CPUs until the reference cycle that holds them is collected.
    gc.collect()
    plan = plan_workers(cluster_nodes(), count=workers, threads=threads, gpus=gpus)
    storage = {"dtype": dtype, "pooled": pooled}
    worker_options = {"model": _for_workers(model, description, options), **options}
    sink: ParquetFolder | QdrantWriter
    if isinstance(output, QdrantServer):
        sink = QdrantWriter({"url": output.url, "collection_name": output.collection_name, **output.options}, made_by)
    else:
        sink = ParquetFolder(output, made_by, storage)
    stored = sink.keys()
    limits = ImageLimits(max_pixels, image_formats)
    reading: dict[str, Any] = {"dpi": dpi, "password": password, "isolate": isolate, **limits.options}
    encoded = draw_pages(dataset, **reading, known=stored, metadata=metadata).map_batches(
        _Worker,
        batch_size=batch_size or (_BATCH_GPU if gpus else _BATCH_CPU),
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=plan.least, max_size=plan.most),
        num_cpus=plan.cpus,
        num_gpus=plan.gpus or None,
        fn_constructor_kwargs={**storage, "threads": plan.threads, "expected": made_by, **worker_options},
    )
    # Writers wait for disks and servers: they request no CPU, and so can always run.
    writing: dict[str, Any] = {"batch_size": pages_per_file, "batch_format": "pyarrow", "num_cpus": 0}
    report = IngestReport()
    try:
        with closing(_rows(encoded.map_batches(sink.write, **writing))) as rows:
            _report(rows, stored, on_error, report)
        sink.make()  # where there was no page to write
    except GaveUpError as error:
        raise gave_up(error, report.added, _CONTINUES) from error
    return report


def _recorded(output: str | os.PathLike[str] | QdrantServer) -> StoredModel | None:
    """The model that made the pages of an output; None where there are none."""
    if not isinstance(output, QdrantServer):
        return recorded_model(output)
    settings, _ = settings_at(url=output.url, collection_name=output.collection_name, **output.options)
    return None if settings is None else settings.model


def _report(
    rows: Iterator[dict[str, Any]], stored: Mapping[str, str], on_error: OnError, report: IngestReport | None = None
) -> IngestReport:
    """Count the rows of the output, in a report of the caller's, which keeps the numbers when a row raises an error."""
    report, documents = report or IngestReport(), set()
    missing_fonts: dict[str, dict[int, list[str]]] = {}
    for row in rows:
        report.removed += row["removed"]
        if row["missing_fonts"]:
            missing_fonts.setdefault(row["source"], {})[row["page"]] = row["missing_fonts"]
        if row["error"] is None:
            report.added += 1
            report.replaced += row["id"] in stored
            documents.add(row["document_id"])
        else:
            name = row["source"] if row["page"] is None else page_name(row["source"], row["page"])
            kind = InputError if row["id"] is None else EncodingError
            if on_error == "raise":
                raise kind(row["error"] if row["source"] in row["error"] else f"{name}: {row['error']}")
            report.failures.append(skipped(name, kind(row["error"]), on_error))
    report.documents = len(documents)
    report.warnings = [font_warning(name, pages) for name, pages in missing_fonts.items()]
    report.present = len(stored) - report.replaced - report.removed
    return report


class _Worker:
    """A `PageEncoder` whose errors reach the driver with their type.

    Ray passes on only the text of an error in an actor's constructor, or in a function, with a page of traceback; the
    error of a generator reaches the driver as an object.
    """

    def __init__(self, **options: Any) -> None:
        self._encoder: PageEncoder | ColPaliError
        try:
            self._encoder = PageEncoder(**options)
        except ColPaliError as error:
            self._encoder = error

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        if isinstance(self._encoder, ColPaliError):
            raise self._encoder
        yield self._encoder(batch)


def _for_workers(
    model: str | os.PathLike[str], opened: ModelDescription, options: Mapping[str, Any]
) -> str | os.PathLike[str] | ModelDescription:
    """Describe a model for workers: they lack the driver's registered names, and a branch may have moved on."""
    if is_server(model):
        return model
    description, folder = describe(model, ModelOptions(**options))
    if folder is not None and "local_dir" not in options:
        return user_path(folder, ConfigurationError).absolute()
    commits = {
        name: revision
        for name in ("revision", "base_revision")
        if (revision := getattr(opened, name)) and not revision.startswith("sha256:")
    }
    return replace(description, **commits) if description.repository else description


def _rows(written: Any) -> Generator[dict[str, Any], None, None]:
    """Yield the outcome of each page; an error of this package in a worker is raised as itself."""
    batches = written.iter_batches(batch_size=None, batch_format="pyarrow")
    del written
    try:
        for batch in batches:
            yield from batch.to_pylist()
        return
    except Exception as error:
        if (cause := _cause(error)) is None:
            raise
    # Ray ends its encoders once nothing refers to them. A notebook that keeps this error must not keep Ray's errors
    # with it, and with them the frames of Ray's executor.
    del batches
    raise cause.with_traceback(None)


def _cause(error: BaseException | None) -> ColPaliError | None:
    """Find the error of this package inside an error of Ray's."""
    while error is not None:
        # Ray's own errors may be of our class too, with a traceback for a message; the cause is ours alone.
        for inner in (getattr(error, "cause", None), error):
            if isinstance(inner, ColPaliError):
                inner.__cause__ = inner.__context__ = None
                inner.args = tuple(_RAYS_ADVICE.sub("", one) if isinstance(one, str) else one for one in inner.args)
                return inner
        error = error.__cause__
    return None
