"""A model in each actor: drawn pages in, multi-vectors out."""

from __future__ import annotations

import json
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from PIL import Image

from colpali_integrations.core.errors import ColPaliError, ConfigurationError
from colpali_integrations.core.model import ColPali
from colpali_integrations.core.page_grid import PageEmbedding
from colpali_integrations.core.pooling import mean_pool
from colpali_integrations.ray.drawing import PAGE

__all__ = ["PageEncoder", "encoded_schema"]

Dtype = Literal["float16", "float32"]


def encoded_schema(dim: int, dtype: Dtype, *, pooled: bool) -> pa.Schema:
    """Of the rows that `PageEncoder` gives: what is said of a page, its vectors, and where they stand on it."""
    number = pa.float16() if dtype == "float16" else pa.float32()
    vector = pa.list_(number, dim)
    more = [("pooled", vector)] if pooled else []
    return pa.schema([*PAGE, ("vectors", pa.list_(vector)), ("grid", pa.string()), *more])


class PageEncoder:
    """A stateful encoder for `ray.data.Dataset.map_batches`, after `draw_pages`. One model is loaded in each actor.

    Args:
        model: name or folder, as `ColPali.from_pretrained`. A folder must be there on every node.
        dtype: of the vectors.
        pooled: also give the mean vector of each page, in the column `pooled`.
        threads: cores that a run uses. Ray does not limit it: give the actor as many (`num_cpus`).
        **options: for `ColPali.from_pretrained`, such as `providers` or `local_files_only`.

    Rows in are those of `draw_pages`. Rows out are the same without the pixels, with `vectors` (a list of lists of
    `dim` numbers) and `grid` (JSON, `PageGrid.from_json`); both null where `error` is not.

    Example:
        >>> import os, numpy as np, ray
        >>> from colpali_integrations.ray import draw_pages
        >>> files = ray.data.read_binary_files(os.path.abspath("report.pdf"), include_paths=True)
        >>> encoded = draw_pages(files).map_batches(PageEncoder, batch_size=4, batch_format="pyarrow",
        ...                                         num_cpus=0.5, compute=ray.data.ActorPoolStrategy(size=1))
        >>> row = encoded.take(1)[0]
        >>> np.array(row["vectors"]).shape[1], row["error"] is None
        (128, True)
    """

    def __init__(
        self,
        model: str = "coltiny",
        *,
        dtype: Dtype = "float16",
        pooled: bool = False,
        threads: int | None = 1,
        **options: Any,
    ) -> None:
        if dtype not in ("float16", "float32"):
            raise ConfigurationError(f"dtype must be 'float16' or 'float32', got {dtype!r}")
        self.model = ColPali.from_pretrained(model, threads=threads, **options)
        self._dtype = np.dtype(dtype)
        self._pooled = pooled
        self._schema = encoded_schema(self.model.dim, dtype, pooled=pooled)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Encode the pages of a batch; one that the model cannot encode gets an error and the others their vectors."""
        rows = batch.drop_columns(["pixels"]).to_pylist()
        drawn = [index for index, row in enumerate(rows) if row["error"] is None]
        pixels = batch.column("pixels")
        images = (
            Image.frombytes("RGB", (rows[index]["columns"], rows[index]["rows"]), pixels[index].as_buffer())
            for index in drawn
        )
        results: list[PageEmbedding | None] = [None] * len(rows)
        for index, result in zip(drawn, self.model.embed_pages(images, on_error="collect"), strict=True):
            if isinstance(result, ColPaliError):
                rows[index]["error"] = str(result.args[0]) if result.args else str(result)
            else:
                results[index] = result
        columns = [pa.array([row[name] for row in rows], PAGE.field(name).type) for name in PAGE.names]
        columns.append(self._lists([None if result is None else result.vectors for result in results]))
        columns.append(pa.array([None if result is None else json.dumps(result.grid.to_json()) for result in results]))
        if self._pooled:
            columns.append(self._means(results))
        return pa.Table.from_arrays(columns, schema=self._schema)

    def _lists(self, arrays: list[Any]) -> pa.ListArray:
        """Arrays (n, dim) as lists of lists, without a Python object for each number."""
        lengths = [0 if array is None else len(array) for array in arrays]
        offsets = pa.array(np.cumsum([0, *lengths]), pa.int32())
        kept = [array for array in arrays if array is not None]
        flat = np.concatenate(kept) if kept else np.empty((0, self.model.dim))
        values = pa.array(np.ascontiguousarray(flat, self._dtype).reshape(-1))
        vectors = pa.FixedSizeListArray.from_arrays(values, self.model.dim)
        missing = pa.array([array is None for array in arrays], pa.bool_())
        return pa.ListArray.from_arrays(offsets, vectors, mask=missing)

    def _means(self, results: list[PageEmbedding | None]) -> pa.FixedSizeListArray:
        unit = self.model.description.unit_length
        blank = np.zeros(self.model.dim, np.float32)
        rows = [blank if one is None else mean_pool(one.vectors, normalize=unit) for one in results]
        values = pa.array(np.concatenate(rows).astype(self._dtype))
        missing = pa.array([one is None for one in results], pa.bool_())
        return pa.FixedSizeListArray.from_arrays(values, self.model.dim, mask=missing)
