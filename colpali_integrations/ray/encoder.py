"""The stage that embeds drawn pages, with one model in each actor."""

from __future__ import annotations

import json
import os
import platform
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import ray
from PIL import Image

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ColPaliError, ConfigurationError, EncodingError, FingerprintError
from colpali_integrations.explain.grid import PageEmbedding
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.models.connection import is_server
from colpali_integrations.models.description import ModelDescription
from colpali_integrations.models.registry import register_model
from colpali_integrations.ray.pages import PAGE
from colpali_integrations.runtime.providers import preferred_provider
from colpali_integrations.scoring.pooling import mean_pool
from colpali_integrations.stores.settings import StoredModel

__all__ = ["Dtype", "PageEncoder"]

logger = package_logger(__name__)

Dtype = Literal["float16", "float32"]


class PageEncoder:
    """A stateful encoder for `ray.data.Dataset.map_batches`, after `draw_pages`. One model is loaded in each actor.

    It runs on the resources of its actor: with `num_gpus` on that GPU, which must start; otherwise on the CPU, also on
    machines with GPUs.

    Args:
        model: name, folder or server, as `ColPali.from_pretrained`, or a description, which is then registered in the
            actor. A folder must exist on every node, and a server be reachable from it.
        dtype: of the vectors.
        pooled: also give the mean vector of each page, in the column `pooled`.
        threads: cores to use, independent of Ray's count. None for the actor's `num_cpus`, at least 1. On a CPU so many
            pages of a call are encoded at once, with one thread each, which is faster than one page with all threads.
        expected: refuse to start with a model that makes other pages; for folders and caches that differ between nodes.
        **options: for `ColPali.from_pretrained`, such as `providers` or `local_files_only`.

    Rows in are those of `draw_pages`. Rows out are the same without the pixels, with `model` (its name and revision),
    `vectors` (a list of lists of `dim` numbers) and `grid` (JSON, `PageGrid.from_json`); vectors and grid are null
    where `error` is not.

    Raises:
        FingerprintError: the model is not the expected one.
        ProviderError: the GPU fails to start.
        ConfigurationError: the dtype is unknown.

    Example:
        >>> import numpy as np, ray
        >>> from colpali_integrations.ray import draw_pages
        >>> files = ray.data.read_binary_files("report.pdf", include_paths=True)
        >>> encoded = draw_pages(files).map_batches(PageEncoder, batch_size=4, batch_format="pyarrow", num_cpus=0.5,
        ...                                         compute=ray.data.ActorPoolStrategy(size=1))
        >>> [row] = encoded.take(1)
        >>> np.array(row["vectors"]).shape[1], row["model"][:8], row["error"]
        (128, 'coltiny@', None)
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | ModelDescription = "coltiny",
        *,
        dtype: Dtype = "float16",
        pooled: bool = False,
        threads: int | None = None,
        expected: StoredModel | None = None,
        **options: Any,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigurationError(f"dtype must be 'float16' or 'float32', got {dtype!r}")
        threads = threads or max(1, int(_assigned("CPU")))
        self.model, self._parallel = _opened(model, threads, options)
        made_by = StoredModel.of(self.model.description)
        if expected is not None and not expected.same_pages(made_by):
            raise FingerprintError(
                f"a worker on {platform.node()} has {made_by}, but {expected} is expected. The model's files must be "
                "the same on every node"
            )
        revision = self.model.description.revision
        self._name = f"{made_by.name}@{revision}" if revision else made_by.name
        self._dtype = np.dtype(dtype)
        self._pooled = pooled
        self._warned = False
        self._vector = pa.list_(pa.from_numpy_dtype(self._dtype), self.model.dim)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode the pages of a batch; a page that the model cannot encode gets an error, the others their vectors."""
        rows = batch.drop_columns(["pixels"]).to_pylist()
        drawn = [index for index, row in enumerate(rows) if row["error"] is None]
        pixels = batch.column("pixels")
        images = (
            Image.frombytes("RGB", (rows[index]["columns"], rows[index]["rows"]), pixels[index].as_buffer())
            for index in drawn
        )
        results: list[PageEmbedding | None] = [None] * len(rows)
        remaining = iter(drawn)

        def fail(error: ColPaliError) -> None:
            rows[next(remaining)]["error"] = str(error.args[0]) if error.args else str(error)

        for result in self.model.embed_pages(images, parallel=self._parallel, on_error=fail):
            highest = float(np.abs(result.vectors).max(initial=0))
            if highest > float(np.finfo(self._dtype).max):
                fail(EncodingError(f"its vectors reach {highest:g}, too much for {self._dtype}; use dtype='float32'"))
            else:
                index = next(remaining)
                results[index] = result
                self._warn_of_little_read(rows[index]["source"], result)
        grids = [None if result is None else json.dumps(result.grid.to_json()) for result in results]
        table = pa.Table.from_pylist(rows, PAGE)
        table = table.append_column("model", pa.array([self._name] * len(rows), pa.string()))
        table = table.append_column("vectors", self._lists(results))
        table = table.append_column("grid", pa.array(grids, pa.string()))
        return table.append_column("pooled", self._means(results)) if self._pooled else table

    def _warn_of_little_read(self, source: str, page: PageEmbedding) -> None:
        if not self._warned and self.model.reads_little(page):
            self._warned = True
            logger.warning(
                "%s recognises few words on a page of %s (reported once per worker): its print may be in another "
                "script than Latin; use a model that reads it, or hybrid search for pages with a text layer",
                self.model.description.name,
                source,
            )

    def _lists(self, results: list[PageEmbedding | None]) -> pa.ListArray:
        """Return arrays (n, dim) as lists of lists, without a Python object for each number."""
        arrays = [np.empty((0, self.model.dim)) if one is None else one.vectors for one in results]
        offsets = pa.array(np.cumsum([0, *map(len, arrays)]), pa.int32())
        missing = pa.array([one is None for one in results], pa.bool_())
        return pa.ListArray.from_arrays(offsets, self._rows(np.concatenate(arrays)), mask=missing)

    def _means(self, results: list[PageEmbedding | None]) -> pa.FixedSizeListArray:
        unit = self.model.description.unit_length
        blank = np.zeros(self.model.dim)
        means = [blank if one is None else mean_pool(one.vectors, normalize=unit) for one in results]
        return self._rows(np.stack(means), mask=pa.array([one is None for one in results], pa.bool_()))

    def _rows(self, vectors: Any, mask: Any = None) -> pa.FixedSizeListArray:
        numbers = pa.array(vectors.astype(self._dtype).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(numbers, type=self._vector, mask=mask)


def _opened(
    model: str | os.PathLike[str] | ModelDescription, threads: int, options: dict[str, Any]
) -> tuple[ColPali, int | None]:
    """The model of an encoder, and how many of its pages are encoded at once."""
    if isinstance(model, ModelDescription):
        model = register_model(model, replace=True).name
    if is_server(model):
        return ColPali.from_pretrained(model, **options), threads
    if "device_ids" not in options:
        options.setdefault("providers", ["CUDAExecutionProvider" if _assigned("GPU") else "CPUExecutionProvider"])
    on_cpu = preferred_provider(options.get("providers")) == "CPUExecutionProvider" and "device_ids" not in options
    return ColPali.from_pretrained(model, threads=1 if on_cpu else threads, **options), threads if on_cpu else None


def _assigned(resource: str) -> float:
    """Return the amount of a resource that the current actor has; 0 outside of an actor."""
    if not ray.is_initialized():
        return 0.0
    context = ray.get_runtime_context()
    return float(context.get_assigned_resources().get(resource, 0)) if context.get_actor_id() else 0.0
