"""Rows of files to rows of drawn pages, one at a time, so that a long document never stands in memory whole."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray

from colpali_integrations.errors import ConfigurationError, ImageError, InputError
from colpali_integrations.pages.document import DEFAULT_DPI, DocumentPage, PagedDocument, Source
from colpali_integrations.pages.identity import READER_KEYS, document_id, real_path
from colpali_integrations.pages.images import load_image

__all__ = ["PAGE", "draw_pages"]

PAGE = pa.schema(
    [
        ("id", pa.string()),
        ("key", pa.string()),
        ("document_id", pa.string()),
        ("source", pa.string()),
        ("file_path", pa.string()),
        ("file_name", pa.string()),
        ("page", pa.int32()),
        ("page_label", pa.string()),
        ("page_count", pa.int32()),
        ("width", pa.float64()),
        ("height", pa.float64()),
        ("dpi", pa.float64()),
        ("content_hash", pa.string()),
        ("text_hash", pa.string()),
        ("text", pa.string()),
        ("metadata", pa.string()),
        ("error", pa.string()),
    ]
)
"""Columns of a page; see `pages.document`. `key` is its `page_key`; `error` is null for pages that were read."""
_DRAWN = pa.schema([*PAGE, ("pixels", pa.binary()), ("columns", pa.int32()), ("rows", pa.int32())])
_INPUTS = ("bytes", "image", "path")


def draw_pages(
    dataset: Any,
    *,
    dpi: float = DEFAULT_DPI,
    password: str | None = None,
    known: Mapping[str, str] | None = None,
    metadata: Sequence[str] = (),
) -> Any:
    """Turn a dataset of files into one of pages: PDFs are drawn, images are read.

    A page is identified as everywhere in this package: by its document and its number. A document is its path, or its
    content where it has no path, together with the values of the `metadata` columns. The real path counts for a file
    that the node can open, and the path as given for any other, such as one in object storage.

    Args:
        dataset: a `ray.data.Dataset` with the columns of `read_binary_files(..., include_paths=True)` ("bytes" and
            "path"), of `read_images(..., include_paths=True)` ("image" and "path"), or "path" alone, for files that
            every node can read. "path" may be missing beside the first two; a hash is then the name.
        dpi: resolution of PDF pages.
        password: for encrypted PDFs.
        known: pages to leave out, as content key by id, such as `MultiVectorStore.hashes()`. A page of another content
            key has changed, and is drawn.
        metadata: other columns of the dataset that go along with each page, such as a customer's number; their values
            must be JSON-safe.

    Returns:
        A lazy `ray.data.Dataset`, one row per page: `id`, `key`, `document_id`, `source`, `file_path`, `file_name`,
        `page`, `page_label`, `page_count`, `width`, `height`, `dpi`, `content_hash`, `text_hash`, `text`, `metadata`
        (JSON), `error`, and `pixels` (RGB bytes) of `rows` x `columns`. A document or page that cannot be read is a row
        whose `error` gives the reason.

    Raises:
        ConfigurationError: the dataset lacks columns (when it is run, if they are unknown before), or dpi is not
            positive.

    Example:
        >>> import ray
        >>> files = ray.data.read_binary_files("report.pdf", include_paths=True)
        >>> [(row["page"], row["columns"], row["rows"]) for row in draw_pages(files, dpi=72).take_all()]
        [(1, 596, 842), (2, 596, 842)]
    """
    if not 0 < dpi < math.inf:
        raise ConfigurationError(f"dpi must be positive, got {dpi}")
    if taken := sorted(set(metadata) & {*READER_KEYS, *PAGE.names, *_INPUTS}):
        raise ConfigurationError(f"metadata: pages have {', '.join(taken)} already; rename the column")
    # Not fetched: for that Ray would read the first file, a second time before all others.
    columns = dataset.columns(fetch_if_missing=False)
    if columns:
        _check_columns(columns, metadata)
    options = {
        "dpi": dpi,
        "password": password,
        "known": ray.put(_digests(known.items())) if known else None,
        "metadata": tuple(metadata),
    }
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


def _digests(pages: Collection[tuple[str, str]]) -> NDArray[Any]:
    """Ids and keys as sorted hashes: 16 bytes each, in memory that all tasks of a node share; there may be millions."""
    return np.sort(np.fromiter(map(_hashed, pages), "S16", len(pages)))


def _hashed(page: tuple[str, str]) -> bytes:
    return hashlib.blake2b(" ".join(page).encode(), digest_size=16).digest()


def _among(digests: NDArray[Any], pages: Iterable[tuple[str, str]]) -> list[bool]:
    asked = np.array([_hashed(page) for page in pages], "S16")
    places = np.minimum(np.searchsorted(digests, asked), len(digests) - 1)
    found: list[bool] = (digests[places] == asked).tolist()
    return found


def _draw(
    batch: dict[str, Any], *, dpi: float, known: Any, metadata: Sequence[str], password: str | None = None
) -> Iterator[pa.Table]:
    _check_columns(list(batch), metadata)
    digests = None if known is None else ray.get(known)
    for index in range(len(next(iter(batch.values())))):
        row = {name: values[index] for name, values in batch.items()}
        try:
            own = _tags(row, metadata)
            with _opened(row, own, dpi, password) as document:
                for page in _new_pages(document, digests):
                    yield _table({**_drawn(page), "metadata": json.dumps(own) if own else None})
        except (InputError, OSError) as error:
            yield _table({"source": _name(row), "error": str(error)})


def _opened(row: dict[str, Any], own: Mapping[str, Any], dpi: float, password: str | None) -> PagedDocument:
    """The document of a row."""
    content, path = _content(row), None if row.get("path") is None else str(row["path"])
    if content is None and path is None:
        raise InputError("the row has neither bytes nor image nor path")
    if content is None or path is None:
        return PagedDocument(path if content is None else content, metadata=own, dpi=dpi, password=password)  # type: ignore[arg-type]
    identity = None
    if os.path.isfile(path):  # noqa: PTH113 - for Path.is_file a URL may be too long
        own = {**own, "file_path": real_path(path)}
        identity = document_id(real_path(path), own)
    return PagedDocument(content, name=path, document_id=identity, metadata=own, dpi=dpi, password=password)


def _content(row: dict[str, Any]) -> Source | None:
    """The bytes or pixels of a row; None where there is only a path."""
    if row.get("image") is None:
        return None if row.get("bytes") is None else bytes(row["bytes"])
    pixels = np.ascontiguousarray(row["image"])
    if pixels.dtype != np.uint8:
        raise ImageError(f"the column image must hold uint8 pixels, got {pixels.dtype}")
    return load_image(pixels)


def _name(row: dict[str, Any]) -> str:
    """The name of a row that cannot be read."""
    if row.get("path") is not None:
        return str(row["path"])
    content = row.get("bytes") if row.get("bytes") is not None else row.get("image")
    return "sha256:" + hashlib.sha256(b"" if content is None else bytes(content)).hexdigest()[:16]


def _tags(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The row's own metadata, as JSON gives them back: identity is derived from these."""
    values = {name: row[name].tolist() if hasattr(row[name], "tolist") else row[name] for name in names}
    try:
        tags: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False))
        return tags
    except (TypeError, ValueError) as error:
        raise InputError(f"its metadata has values that JSON cannot hold ({error})") from error


def _new_pages(document: PagedDocument, known: NDArray[Any] | None) -> Iterator[DocumentPage]:
    pages = list(document.pages())
    there = [False] * len(pages) if known is None else _among(known, [(page.id, page.key) for page in pages])
    yield from (page for page, present in zip(pages, there, strict=True) if not present)


def _drawn(page: DocumentPage) -> dict[str, Any]:
    """The row of a page. One that cannot be drawn has an error, and no id."""
    document = page.document
    try:
        image = page.draw()
        picture = {"pixels": image.tobytes(), "columns": image.width, "rows": image.height}
        return {**page.metadata, "id": page.id, "key": page.key, "text": page.content, **picture}
    except InputError as error:
        place = {"source": document.name, "page": page.number, "page_count": document.page_count}
        return {"document_id": document.document_id, **place, "error": str(error)}


def _table(row: dict[str, Any]) -> pa.Table:
    return pa.table({name: pa.array([row.get(name)], _DRAWN.field(name).type) for name in _DRAWN.names}, schema=_DRAWN)
