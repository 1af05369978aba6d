"""Rows of files -> rows of drawn pages, one at a time, so that a long document never stands in memory whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ConfigurationError, ImageError, InputError
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.pdf import PdfPage
from colpali_integrations.pages.reference import DEFAULT_DPI, page_hash
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
        ("metadata", pa.string()),
        ("error", pa.string()),
    ]
)
"""What is said of every page; see `pages.reference`. `error` is null for a page that is well."""
_DRAWN = pa.schema([*PAGE, ("pixels", pa.binary()), ("columns", pa.int32()), ("rows", pa.int32())])
_INPUTS = ("bytes", "image", "path")


def draw_pages(
    dataset: Any, *, dpi: float = DEFAULT_DPI, known: Collection[str] = (), metadata: Sequence[str] = ()
) -> Any:
    """Turn a dataset of files into one of pages: PDFs are drawn, images are read.

    Args:
        dataset: a `ray.data.Dataset` with the columns of `read_binary_files(..., include_paths=True)` ("bytes" and
            "path"), of `read_images(..., include_paths=True)` ("image" and "path"), or "path" alone, for files that
            every node can read. "path" may be missing beside the first two; a hash is then the name.
        dpi: resolution of PDF pages.
        known: ids of pages that are not wanted again.
        metadata: other columns of the dataset that go along with each page, such as a customer's number; their values
            must be what JSON can hold.

    Returns:
        A lazy `ray.data.Dataset`, one row a page: `id`, `source`, `page`, `page_count`, `width`, `height`, `dpi`,
        `content_hash`, `text`, `metadata` (JSON), `error`, and `pixels` (RGB bytes) of `rows` x `columns`. A document
        or page that cannot be read is a row whose `error` says why.

    Raises:
        ConfigurationError: the dataset lacks columns (when it is run, if it does not know them before), or dpi is not
            positive.

    Example:
        >>> import ray
        >>> files = ray.data.read_binary_files("report.pdf", include_paths=True)
        >>> [(row["page"], row["columns"], row["rows"]) for row in draw_pages(files, dpi=72).take_all()]
        [(1, 596, 842), (2, 596, 842)]
    """
    if not dpi > 0:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    if taken := sorted(set(metadata) & {*PAGE.names, *_INPUTS}):
        raise ConfigurationError(f"metadata: {', '.join(taken)} is what pages have already; rename the column")
    # Not fetched: for that Ray would read the first file, a second time before all others.
    columns = dataset.columns(fetch_if_missing=False)
    if columns:
        _check_columns(columns, metadata)
    options = {"dpi": dpi, "known": ray.put(_digests(known)) if known else None, "metadata": tuple(metadata)}
    return dataset.map_batches(_draw, batch_size=1, fn_kwargs=options, zero_copy_batch=True)


def _check_columns(columns: Collection[str], metadata: Sequence[str]) -> None:
    if not set(_INPUTS) & set(columns):
        raise ConfigurationError(
            f"the dataset's columns are {', '.join(columns)}; needed are bytes, image or path: "
            "ray.data.read_binary_files(folder, include_paths=True)"
        )
    if missing := [name for name in metadata if name not in columns]:
        raise ConfigurationError(
            f"metadata: the dataset has no column {', '.join(missing)}; it has {', '.join(columns)}"
        )


def _digests(ids: Collection[str]) -> NDArray[Any]:
    """Ids as sorted hashes: 16 bytes each, in memory that all tasks of a node share, for there may be millions."""
    hashes = (hashlib.blake2b(one.encode(), digest_size=16).digest() for one in ids)
    return np.sort(np.fromiter(hashes, "S16", len(ids)))


def _among(digests: NDArray[Any], ids: Sequence[str]) -> list[bool]:
    asked = np.array([hashlib.blake2b(one.encode(), digest_size=16).digest() for one in ids], "S16")
    places = np.minimum(np.searchsorted(digests, asked), len(digests) - 1)
    found: list[bool] = (digests[places] == asked).tolist()
    return found


def _draw(batch: dict[str, Any], *, dpi: float, known: Any, metadata: Sequence[str]) -> Iterator[pa.Table]:
    _check_columns(list(batch), metadata)
    digests = None if known is None else ray.get(known)
    for index in range(len(next(iter(batch.values())))):
        row = {name: values[index] for name, values in batch.items()}
        said: dict[str, Any] = {}
        try:
            if metadata:
                said["metadata"] = _json(row, metadata)
            for page in _pages_of(row, dpi, digests):
                yield _table({**page, **said})
        except (InputError, OSError) as error:
            yield _table({"source": _name(row), "error": str(error), **said})


def _pages_of(row: dict[str, Any], dpi: float, known: NDArray[Any] | None) -> Iterator[dict[str, Any]]:
    if row.get("image") is not None:
        plan, pixels = _picture(row)
    else:
        content = row.get("bytes")
        document = Path(str(row["path"])) if content is None else bytes(content)
        plan, pixels = plan_document(document, dpi, name=_name(row)), document
    if known is not None:
        there = _among(known, plan.keys)
        plan.missing = [number for number in plan.missing if not there[number - 1]]
    if plan.dpi is None:
        if plan.missing:
            image = load_image(pixels)
            yield _page(plan.entry(1, width=image.width, height=image.height, text=""), image)
        return
    for drawn in plan.drawn():
        if isinstance(drawn, PdfPage):
            entry = plan.entry(drawn.number, width=drawn.width, height=drawn.height, text=drawn.text)
            yield _page(entry, drawn.image)
        else:
            number, error = drawn
            said = {"source": plan.source, "page": number, "page_count": len(plan.keys)}
            yield {"id": plan.keys[number - 1], **said, "error": str(error)}


def _picture(row: dict[str, Any]) -> tuple[DocumentPlan, Any]:
    """A page that comes as pixels; it is recognised by them."""
    pixels = np.ascontiguousarray(row["image"])
    if pixels.dtype != np.uint8:
        raise ImageError(f"the column image must hold uint8 pixels, got {pixels.dtype}")
    digest = hashlib.sha256(f"{pixels.shape}".encode() + pixels.tobytes()).hexdigest()
    return DocumentPlan(b"", None, digest, [page_key(page_hash(digest, 1), None)], [1], _name(row)), pixels


def _name(row: dict[str, Any]) -> str:
    """What a row's document is called."""
    if row.get("path") is not None:
        return str(row["path"])
    content = row.get("bytes") if row.get("bytes") is not None else row.get("image")
    return "sha256:" + hashlib.sha256(b"" if content is None else bytes(content)).hexdigest()[:16]


def _json(row: dict[str, Any], names: Sequence[str]) -> str:
    values = {name: row[name].tolist() if hasattr(row[name], "tolist") else row[name] for name in names}
    try:
        return json.dumps(values, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InputError(f"its metadata has values that JSON cannot hold ({error})") from error


def _page(entry: Entry, image: Image.Image) -> dict[str, Any]:
    said = {"id": entry.id, "content_hash": entry.content_hash, "text": entry.text, **entry.metadata}
    return {**said, "pixels": image.tobytes(), "columns": image.width, "rows": image.height}


def _table(row: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name)], _DRAWN.field(name).type) for name in _DRAWN.names}, schema=_DRAWN)
