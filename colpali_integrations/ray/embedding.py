"""`embed_pages`: the whole pipeline, with a slot left for those who read, and a report at the end."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import ray
import ray.data

from colpali_integrations.core import errors
from colpali_integrations.core.errors import ColPaliError, ConfigurationError, EncodingError, InputError
from colpali_integrations.core.model import ColPali
from colpali_integrations.core.page_meta import DEFAULT_DPI
from colpali_integrations.ray.drawing import draw_pages, failure_name
from colpali_integrations.ray.encoder import PageEncoder
from colpali_integrations.ray.sinks import ParquetFolder, QdrantWriter
from colpali_integrations.stores.indexing import Failure, IndexReport

__all__ = ["QdrantServer", "Workers", "embed_pages"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class QdrantServer:
    """A collection on a Qdrant server to write into; every node must reach it.

    Attributes:
        url: of the server.
        collection: made if it is not there.
        options: further arguments of `MultiVectorStore.open`, such as `api_key` or `first_stage`; JSON-safe.

    Example:
        >>> QdrantServer("http://qdrant:6333", "manuals", {"first_stage": "ward"}).collection
        'manuals'
    """

    url: str
    collection: str = "pages"
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Workers:
    """How encoders share a cluster.

    Attributes:
        count: of actors, one model each.
        cpus: of an actor; what Ray keeps free for it.
        threads: that a run of the model uses.
        gpus: of an actor.

    Example: all cores work, and Ray keeps a slot for those who read.
        >>> Workers.planned(2, 0, count=None, threads=None, gpus=0)
        Workers(count=2, cpus=0.5, threads=1, gpus=0)
        >>> Workers.planned(16, 0, count=None, threads=None, gpus=0)
        Workers(count=4, cpus=3.75, threads=4, gpus=0)
        >>> Workers.planned(16, 4, count=None, threads=None, gpus=1)
        Workers(count=4, cpus=1.0, threads=1, gpus=1)
    """

    count: int
    cpus: float
    threads: int
    gpus: float

    @classmethod
    def planned(cls, cores: int, cards: int, *, count: int | None, threads: int | None, gpus: float) -> Workers:
        """As many as fit. Together they take one slot less than there are: otherwise nothing could ever be read.

        Raises:
            ConfigurationError: what was asked for does not fit, or there is no GPU.
        """
        if gpus and cards < gpus:
            raise ConfigurationError(f"gpus={gpus:g} for each worker, but the cluster has {cards}")
        threads = threads or (1 if gpus or cores < 4 else 4)
        most = max(1, cores // threads)
        if gpus:
            most = min(most, int(cards / gpus))
        count = most if count is None else count
        if not 1 <= count <= most or threads > cores:
            raise ConfigurationError(
                f"workers={count} of {threads} threads do not fit: the cluster has {cores} cores"
                + (f" and {cards} GPUs" if gpus else "")
                + (f"; at most workers={most}" if threads <= cores else f"; at most threads={cores}")
            )
        slots = min(1.0, (cores - 1) / count) if gpus else threads * (cores - 1) / cores
        return cls(count, int(slots * 10_000) / 10_000, threads, gpus)  # Ray counts in ten thousandths


def embed_pages(
    dataset: Any,
    *,
    output: str | os.PathLike[str] | QdrantServer,
    model: str = "coltiny",
    dpi: float = DEFAULT_DPI,
    dtype: Literal["float16", "float32"] = "float16",
    pooled: bool = False,
    workers: int | None = None,
    threads: int | None = None,
    gpus: float = 0,
    batch_size: int = 4,
    pages_per_file: int = 256,
    **options: Any,
) -> IndexReport:
    """Embed the pages of a dataset of files and write their multi-vectors, on all of a Ray cluster.

    Run it again after an interruption, or when files were added: what is in the output is not embedded twice, and a
    page that failed is tried again. A page that cannot be read or encoded never ends the run.

    Args:
        dataset: a `ray.data.Dataset` of files, see `draw_pages`.
        output: a folder for Parquet files (a path that all nodes share, or s3://, gs://), or a `QdrantServer`.
        model: name or folder, as `ColPali.from_pretrained`; a folder must be on every node.
        dpi: resolution of PDF pages.
        dtype: of the vectors in Parquet files.
        pooled: also write the mean vector of each page, in the column `pooled` of Parquet files.
        workers: encoders, one model each; by default as many as the cores, or the GPUs, are enough for.
        threads: cores an encoder; by default 4, or 1 beside a GPU and where there are fewer.
        gpus: GPUs an encoder; 1 with `onnxruntime-gpu` on the nodes. A GPU that is asked for and does not come up is
            an error.
        batch_size: pages an encoder gets at once.
        pages_per_file: pages in a Parquet file, or in a write to the server.
        **options: for `ColPali.from_pretrained`.

    Returns:
        How many pages were added and how many were there, and what failed, with reasons. `documents` is 0: what a
        dataset reads is not counted.

    Raises:
        FingerprintError: the output holds vectors of another model.
        ConfigurationError: columns, workers or the output's kind do not fit.
        ModelNotFoundError: as `ColPali.from_pretrained`.

    Example:
        >>> import os, ray
        >>> files = ray.data.read_binary_files(os.path.abspath("reports"), include_paths=True)
        >>> report = embed_pages(files, output="vectors")
        >>> report.added, report.failures
        (1, [])
        >>> embed_pages(files, output="vectors").added
        0
    """
    if gpus:
        options.setdefault("providers", ["CUDAExecutionProvider"])
    if not ray.is_initialized():
        ray.init()
    cluster = ray.cluster_resources()
    plan = Workers.planned(
        int(cluster.get("CPU", 1)), int(cluster.get("GPU", 0)), count=workers, threads=threads, gpus=gpus
    )
    # Files and prompts only: the driver may be a machine without a GPU and with little memory.
    here = {name: value for name, value in options.items() if name not in ("providers", "device_ids")}
    with ColPali.from_pretrained(model, lazy_load=True, **here) as light:
        description = light.description
    sink: ParquetFolder | QdrantWriter
    if isinstance(output, QdrantServer):
        target = {"url": output.url, "collection": output.collection, **output.options}
        sink = QdrantWriter(target, description)
    else:
        place = os.fspath(output)
        place = place if "://" in place else str(Path(place).absolute())
        sink = ParquetFolder(place, description, {"dtype": dtype, "pooled": pooled})
    known = sink.known()
    encoded = draw_pages(dataset, dpi=dpi, known=known).map_batches(
        PageEncoder,
        batch_size=batch_size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=plan.count),  # one file keeps one actor busy
        num_cpus=plan.cpus,
        num_gpus=plan.gpus or None,
        fn_constructor_kwargs={"model": model, "dtype": dtype, "pooled": pooled, "threads": plan.threads, **options},
    )
    # Writers wait for disks and servers: they take no slot, and so can always run.
    written = encoded.map_batches(sink.__call__, batch_size=pages_per_file, batch_format="pyarrow", num_cpus=0)
    report = IndexReport(present=len(known))
    for batch in _run(written):
        for row in batch.to_pylist():
            if row["error"] is None:
                report.added += 1
            else:
                kind = InputError if row["id"] is None else EncodingError
                report.failures.append(Failure(failure_name(row), kind(row["error"])))
                logger.warning("%s: %s", failure_name(row), row["error"])
    return report


def _run(written: Any) -> Iterator[Any]:
    """The batches of a dataset; an error of this package comes out of a worker as itself."""
    try:
        yield from written.iter_batches(batch_size=None, batch_format="pyarrow")
    except Exception as error:
        inner = getattr(error, "cause", None)
        if isinstance(inner, ColPaliError):
            raise inner from error
        # Of an actor that could not be made Ray hands over the traceback's text alone.
        said = re.findall(rf"^{errors.__name__}\.(\w+): (.*)$", str(error), flags=re.MULTILINE)
        if said and said[-1][0] in errors.__all__:
            raise getattr(errors, said[-1][0])(said[-1][1]) from error
        raise
