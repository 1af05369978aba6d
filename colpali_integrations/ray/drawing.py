"""Rows of files -> rows of drawn pages, one at a time, so that a long document never stands in memory whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from colpali_integrations.core.errors import ColPaliError, ConfigurationError, ImageError, InputError
from colpali_integrations.core.images import load_image
from colpali_integrations.core.page_meta import DEFAULT_DPI, page_hash, page_name
from colpali_integrations.core.pdf import PdfPage
from colpali_integrations.stores.documents import DocumentPlan, plan_document
from colpali_integrations.stores.entries import Entry, page_key

__all__ = ["PAGE", "draw_pages"]

PAGE = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("page", pa.int32()),
        ("page_count", pa.int32()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("dpi", pa.float64()),
        ("content_hash", pa.string()),
        ("text", pa.string()),
        ("error", pa.string()),
    ]
)
"""What is said of every page; see `core.page_meta`. `error` is null for a page that is well."""
_DRAWN = pa.schema([*PAGE, ("pixels", pa.binary()), ("columns", pa.int32()), ("rows", pa.int32())])


def draw_pages(dataset: Any, *, dpi: float = DEFAULT_DPI, known: Set[str] = frozenset()) -> Any:
    """Turn a dataset of files into one of pages: PDFs are drawn, images are read.

    Args:
        dataset: a `ray.data.Dataset` with the columns of `read_binary_files(..., include_paths=True)` ("bytes" and
            "path"), of `read_images(..., include_paths=True)` ("image" and "path"), or "path" alone, for files that
            every node can read. "path" may be missing beside the first two; the name is then a hash.
        dpi: resolution of PDF pages.
        known: ids of pages that are not wanted again.

    Returns:
        A lazy `ray.data.Dataset`, one row a page: `id`, `source`, `page`, `page_count`, `width`, `height`, `dpi`,
        `content_hash`, `text`, `error`, and `pixels` (RGB bytes) of `rows` x `columns`. A document or page that cannot
        be read is a row whose `error` says why.

    Raises:
        ConfigurationError: the dataset has none of these columns, or dpi is not positive.

    Example:
        >>> import os, ray
        >>> files = ray.data.read_binary_files(os.path.abspath("report.pdf"), include_paths=True)
        >>> [row["page"] for row in draw_pages(files, dpi=72).take_all()]
        [1, 2]
    """
    if not dpi > 0:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    columns = list(dataset.columns() or [])
    if columns and not {"bytes", "image", "path"} & set(columns):
        raise ConfigurationError(
            f"the dataset's columns are {', '.join(columns)}; needed are bytes, image or path: "
            "ray.data.read_binary_files(folder, include_paths=True)"
        )
    return dataset.map_batches(_draw, batch_size=1, fn_kwargs={"dpi": dpi, "known": known}, zero_copy_batch=True)


def _draw(batch: dict[str, Any], *, dpi: float, known: Set[str]) -> Iterator[pa.Table]:
    for index in range(len(next(iter(batch.values()), ()))):
        row = {name: values[index] for name, values in batch.items()}
        try:
            yield from _pages_of(row, dpi, known)
        except (ColPaliError, OSError) as error:
            yield _table({"source": _name(row), "error": str(error)})


def _pages_of(row: dict[str, Any], dpi: float, known: Set[str]) -> Iterator[pa.Table]:
    if row.get("image") is not None:
        yield from _picture(row, known)
        return
    content = row.get("bytes")
    document = Path(str(row["path"])) if content is None else bytes(content)
    plan = plan_document(document, dpi, name=_name(row))
    plan.missing = [number for number, key in enumerate(plan.keys, 1) if key not in known]
    if plan.dpi is None:
        if plan.missing:
            image = load_image(plan.path)
            yield _page(plan.entry(1, width=image.width, height=image.height, text=""), image)
        return
    for drawn in plan.drawn():
        if isinstance(drawn, PdfPage):
            entry = plan.entry(drawn.number, width=drawn.width, height=drawn.height, text=drawn.text)
            yield _page(entry, drawn.image)
        else:
            yield _failed(plan, *drawn)


def _picture(row: dict[str, Any], known: Set[str]) -> Iterator[pa.Table]:
    """A page that comes as pixels; it is recognised by them."""
    pixels = np.ascontiguousarray(row["image"])
    if pixels.dtype != np.uint8:
        raise ImageError(f"the column image must hold uint8 pixels, got {pixels.dtype}")
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    key = page_key(page_hash(digest, 1), None)
    if key not in known:
        image = load_image(pixels)
        plan = DocumentPlan(b"", None, digest, [key], [1], _name(row))
        yield _page(plan.entry(1, width=image.width, height=image.height, text=""), image)


def _name(row: dict[str, Any]) -> str:
    """What a row's document is called."""
    if row.get("path") is not None:
        return str(row["path"])
    content = row.get("bytes") if row.get("bytes") is not None else row.get("image")
    return "sha256:" + hashlib.sha256(bytes(content if content is not None else b"")).hexdigest()[:16]


def _page(entry: Entry, image: Image.Image) -> pa.Table:
    said = {"id": entry.id, "content_hash": entry.content_hash, "text": entry.text, **entry.metadata}
    return _table({**said, "pixels": image.tobytes(), "columns": image.width, "rows": image.height})


def _failed(plan: DocumentPlan, number: int, error: InputError) -> pa.Table:
    said = {"source": plan.source, "page": number, "page_count": len(plan.keys)}
    return _table({"id": plan.keys[number - 1], **said, "error": str(error)})


def _table(row: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name)], _DRAWN.field(name).type) for name in _DRAWN.names}, schema=_DRAWN)


def failure_name(row: dict[str, Any]) -> str:
    """What a row without vectors is called in a report."""
    return str(row["source"]) if row["page"] is None else page_name(row["source"], row["page"])
