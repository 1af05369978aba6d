"""The stage that draws the pages of files, one at a time, so that a long document is never in memory as a whole."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import ray
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations._failures import item_error
from colpali_integrations._options import checked_number
from colpali_integrations.errors import ConfigurationError, ImageError, InputError
from colpali_integrations.pages.arguments import checked_password
from colpali_integrations.pages.document import DEFAULT_DPI, DocumentPage, PagedDocument, Source
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import READER_KEYS, document_id, real_path
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.metadata import storage_fault

__all__ = ["PAGE", "draw_pages"]

PAGE = pa.schema(
    [
        *((name, pa.string()) for name in ("id", "key", "document_id", "source", "file_path", "file_name")),
        *(("page", pa.int32()), ("page_label", pa.string()), ("page_count", pa.int32())),
        *((name, pa.float64()) for name in ("width", "height", "dpi")),
        *((name, pa.string()) for name in ("content_hash", "text_hash", "text", "metadata", "error")),
        ("missing_fonts", pa.list_(pa.string())),
    ]
)
"""Columns of a page; see `pages.document`. `key` is its `page_key`; `error` is null for pages that were read.

`missing_fonts` are the names of fonts whose characters the page is drawn without; null where there are none.
"""
_DRAWN = pa.schema([*PAGE, ("pixels", pa.binary()), ("columns", pa.int32()), ("rows", pa.int32())])
_INPUTS = ("bytes", "image", "path")
_BAND = 2**20  # bytes
_IN_MEMORY = 3 * 100_000_000
"""The most bytes of a row's pixels beside the picture, which takes a third more; further ones pass through a file."""


def draw_pages(
    dataset: Any,
    *,
    dpi: float = DEFAULT_DPI,
    password: str | None = None,
    isolate: bool = True,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    known: Mapping[str, str] | None = None,
    metadata: Sequence[str] = (),
) -> Any:
    """Turn a dataset of files into one of pages: PDFs and Office files are drawn, images are read by frame.

    A page is identified as everywhere in this package: by its document and its number. A document is its path, or its
    content where it has no path, together with the values of the `metadata` columns. The real path counts for a file
    that the node can open, and the path as given for any other, such as one in object storage.

    Args:
        dataset: a `ray.data.Dataset` with the columns of `read_binary_files(..., include_paths=True)` ("bytes" and
            "path"), of `read_images(..., include_paths=True)` ("image" and "path"), or "path" alone, for files that
            every node can read. "path" may be missing beside the first two; a hash is then the name.
        dpi: resolution of PDF pages.
        password: for encrypted PDFs.
        isolate: False to read PDFs that you trust in the processes of Ray, without limits; see `pages.open_pdf`.
        max_pixels: of an image; see `pages.load_image`.
        image_formats: further formats of images; see `pages.load_image`.
        known: pages to leave out, as content key by id, such as `MultiVectorStore.hashes()`. A page of another content
            key has changed, and is drawn.
        metadata: other columns of the dataset to store with each page, such as a customer's number; their values must
            be JSON-safe.

    Returns:
        A lazy `ray.data.Dataset`, one row per page: `id`, `key`, `document_id`, `source`, `file_path`, `file_name`,
        `page`, `page_label`, `page_count`, `width`, `height`, `dpi`, `content_hash`, `text_hash`, `text`, `metadata`
        (JSON), `error`, `missing_fonts` and `pixels` (RGB bytes) of `rows` x `columns`. A document or page that cannot
        be read is a row whose `error` gives the reason. `missing_fonts` names the fonts, neither in the file nor on the
        node, whose characters the picture lacks.

    Raises:
        ConfigurationError: the dataset lacks columns (when it is run, if they are unknown before), or dpi,
            max_pixels or image_formats has an invalid value.

    Example:
        >>> import ray
        >>> files = ray.data.read_binary_files("report.pdf", include_paths=True)
        >>> [(row["page"], row["columns"], row["rows"]) for row in draw_pages(files, dpi=72).take_all()]
        [(1, 596, 842), (2, 596, 842)]
    """
    dpi = checked_number(dpi, "dpi", 0, above=True)
    checked_password(password)
    limits = ImageLimits(max_pixels, image_formats)
    if reserved := sorted(set(metadata) & {*READER_KEYS, *PAGE.names, *_INPUTS}):
        raise ConfigurationError(f"metadata: pages have {', '.join(reserved)} already; rename the column")
    # Not fetched: for that Ray would read the first file, a second time before all others.
    if columns := dataset.columns(fetch_if_missing=False):
        _check_columns(columns, metadata)
    hashes = ray.put(np.sort(_hashes(known.items()))) if known else None
    reading = {"dpi": dpi, "password": password, "isolate": isolate, **limits.options}
    options = {"reading": reading, "known": hashes, "metadata": tuple(metadata)}
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


def _hashes(pages: Collection[tuple[str, str]]) -> NDArray[Any]:
    """Hash ids and keys to 16 bytes each: there may be millions, in memory that all tasks of a node share."""
    digests = (hashlib.blake2b(" ".join(page).encode(), digest_size=16).digest() for page in pages)
    return np.fromiter(digests, "S16", len(pages))


def _present(hashes: NDArray[Any], pages: Collection[tuple[str, str]]) -> list[bool]:
    """Tell for each page whether its hash is among the sorted ones."""
    requested = _hashes(pages)
    present = np.searchsorted(hashes, requested) < np.searchsorted(hashes, requested, "right")
    return [bool(each) for each in present]


def _draw(
    batch: dict[str, Any], *, reading: Mapping[str, Any], known: Any, metadata: Sequence[str]
) -> Iterator[pa.Table]:
    _check_columns(list(batch), metadata)
    hashes = _hashes([]) if known is None else ray.get(known)
    for values in zip(*batch.values(), strict=True):
        row = dict(zip(batch, values, strict=True))
        try:
            tags = _tags(row, metadata)
            with _open(row, tags, reading) as document:
                pages = list(document.pages())
                present = _present(hashes, [(page.id, page.key) for page in pages])
                for page in (page for page, is_present in zip(pages, present, strict=True) if not is_present):
                    drawn = {**_drawn(page), "metadata": json.dumps(tags) if tags else None}
                    yield _table(drawn)
        except (ConfigurationError, GeneratorExit):  # the latter where Ray closes this generator
            raise
        except BaseException as error:
            yield pa.Table.from_pylist([{"source": _name(row), "error": str(item_error(error))}], _DRAWN)


def _open(row: dict[str, Any], tags: Mapping[str, Any], reading: Mapping[str, Any]) -> PagedDocument:
    """Open the document of a row."""
    content, path = _content(row), row.get("path")
    if not isinstance(path, str | None):
        raise InputError(f"the column path must hold text, got {type(path).__name__}")
    source, identity = path if content is None else content, None
    if source is None:
        raise InputError("the row has neither bytes nor image nor path")
    if content is not None and path is not None and os.path.isfile(path):  # noqa: PTH113 - a URL may be too long
        tags = {**tags, "file_path": real_path(path)}
        identity = document_id(real_path(path), tags)
    return PagedDocument(source, name=path, document_id=identity, metadata=tags, **reading)


def _content(row: dict[str, Any]) -> Source | None:
    """Return the bytes or pixels of a row; None if there is only a path."""
    if row.get("image") is None:
        content = row.get("bytes")
        if not isinstance(content, bytes | bytearray | memoryview | None):
            raise InputError(f"the column bytes must hold bytes, got {type(content).__name__}")
        return None if content is None else bytes(content)
    pixels = np.ascontiguousarray(row["image"])
    if pixels.dtype != np.uint8:
        raise ImageError(f"the column image must hold uint8 pixels, got {pixels.dtype}")
    return load_image(pixels)


def _name(row: dict[str, Any]) -> str:
    """Name a row that cannot be read."""
    if (path := row.get("path")) is not None:
        name = path if isinstance(path, str) else f"a path of type {type(path).__name__}"
        return name.encode("utf-8", "replace").decode("utf-8")
    content = next((row[name] for name in ("bytes", "image") if row.get(name) is not None), b"")
    if isinstance(content, np.ndarray):
        content = content.tobytes()
    known = content if isinstance(content, bytes | bytearray | memoryview) else type(content).__name__.encode()
    return "sha256:" + hashlib.sha256(known).hexdigest()[:16]


def _tags(row: dict[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return the row's own metadata, after a round trip through JSON: the identity is derived from these values."""
    values = {name: row[name].tolist() if hasattr(row[name], "tolist") else row[name] for name in names}
    if (fault := storage_fault(values)) is not None:
        raise InputError(f"metadata: {fault}")
    return dict(json.loads(json.dumps(values)))


def _drawn(page: DocumentPage) -> dict[str, Any]:
    """Return the row of a page. One that cannot be drawn has an error, and no id."""
    document = page.document
    try:
        image = page.draw()
        picture = {"pixels": _pixels(image), "columns": image.width, "rows": image.height}
        row = {**page.metadata, "id": page.id, "key": page.key, "text": page.content, **picture}
        return {**row, "missing_fonts": document.missing_fonts.get(page.number)}
    except BaseException as error:
        position = {"source": document.name, "page": page.number, "page_count": document.page_count}
        return {"document_id": document.document_id, **position, "error": str(item_error(error))}


def _pixels(image: Image.Image) -> bytearray | mmap.mmap:
    """The bytes of an RGB picture. Made at once, they would need twice their memory."""
    size = 3 * image.width
    rows = max(1, _BAND // size)
    bands = (
        image.crop((0, top, image.width, min(top + rows, image.height))).tobytes()
        for top in range(0, image.height, rows)
    )
    if size * image.height <= _IN_MEMORY:
        pixels = bytearray(size * image.height)
        end = 0
        for band in bands:
            pixels[end : end + len(band)] = band
            end += len(band)
        return pixels
    with tempfile.TemporaryFile() as file:
        file.writelines(bands)
        file.flush()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _table(row: dict[str, Any]) -> pa.Table:
    """The table of one page, whose pixels are not copied."""
    pixels = row.pop("pixels", None)
    table = pa.Table.from_pylist([row], _DRAWN)
    if pixels is None:
        return table
    offsets = pa.py_buffer(np.array([0, len(pixels)], np.int32))
    column = pa.Array.from_buffers(pa.binary(), 1, [None, offsets, pa.py_buffer(pixels)])
    return table.set_column(_DRAWN.get_field_index("pixels"), "pixels", column)
