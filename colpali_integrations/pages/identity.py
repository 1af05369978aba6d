"""Identity of documents and pages, and content hashes.

Document and number identify a page, never its content: the same file of another owner, in another folder or with other
metadata is another document. Content hashes only save work: pages of equal content are encoded once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import PurePath
from typing import Any

from PIL import Image

from colpali_integrations._paths import user_path
from colpali_integrations.errors import ConfigurationError, InputError
from colpali_integrations.pages._urls import is_web_url, last_part
from colpali_integrations.pages.files import check_is_file, open_file
from colpali_integrations.pages.images import image_name

__all__ = [
    "PAGE_KEYS",
    "READER_KEYS",
    "check_metadata",
    "document_id",
    "file_digest",
    "page_hash",
    "page_id",
    "page_key",
    "page_name",
    "pixel_digest",
    "real_path",
    "text_key",
]

PAGE_KEYS = frozenset(
    {
        *("source", "file_path", "file_name", "document_id", "page", "page_label", "page_count", "width", "height"),
        *("dpi", "content_hash", "text_hash", "missing_fonts", "image_base64", "image_hash", "image_mime_type"),
    }
)
"""Metadata that every page has of its own; see `pages.document`."""

# Readers of the frameworks add the others; only a caller's own values identify a document.
READER_KEYS = PAGE_KEYS | {
    *("file_size", "creation_date", "last_modified_date", "last_accessed_date", "creationdate", "moddate"),
}


def check_metadata(metadata: Mapping[str, Any] | None, *, source: str | None = None) -> None:
    """Refuse values of the caller in whose place a page has its own.

    Args:
        metadata: the caller's own values for a document.
        source: the name or URL that is stored as the document's source; the same one in `metadata` is no loss.

    Raises:
        ConfigurationError: there is one.

    Example:
        >>> check_metadata({"tenant": "north"})
        >>> check_metadata({"tenant": "north", "page": 9})
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: metadata: each page has its own page, so a value ... is lost...
    """
    values = metadata if isinstance(metadata, Mapping) else {}
    kept = {"source"} if source is not None and values.get("source") == source else set()
    if taken := sorted((PAGE_KEYS & values.keys()) - kept):
        identity = ", and give the document its id by document_id=" if "document_id" in taken else ""
        raise ConfigurationError(
            f"metadata: each page has its own {', '.join(taken)}, so a value of the caller is lost; use another "
            f"name{identity}"
        )


def real_path(path: str | os.PathLike[str]) -> str:
    """The absolute path of a file, with `~` expanded and symbolic links followed."""
    return os.path.realpath(user_path(path))


def document_id(location: str, metadata: Mapping[str, Any] | None = None) -> str:
    """The id of a document: its location, with a hash of the caller's metadata if there are any.

    Args:
        location: real path, URL or name of the document.
        metadata: the caller's own values, such as a tenant. Values that readers add (`file_name`, dates, sizes,
            `page_label`, dpi) do not count.

    Raises:
        InputError: metadata that cannot be written as JSON.

    Example:
        >>> document_id("/data/report.pdf", {"file_name": "report.pdf"})
        '/data/report.pdf'
        >>> document_id("/data/report.pdf", {"tenant": "north"})
        '/data/report.pdf#521ded7f0127735e'
    """
    tags = {key: value for key, value in (metadata or {}).items() if key not in READER_KEYS - {"source", "page"}}
    if not tags:
        return location
    try:
        serialized = json.dumps(tags, sort_keys=True, default=str)
    except (TypeError, ValueError, RecursionError) as error:  # such as keys of several types, or a loop
        raise InputError(f"metadata cannot be written as JSON: {error}") from error
    return f"{location}#{hashlib.sha256(serialized.encode()).hexdigest()[:16]}"


def page_id(document: str, number: int) -> str:
    """The id of a page in a store: 32 hex digits over its document's id and its 1-based number.

    >>> page_id("/data/report.pdf", 1) != page_id("/data/report.pdf", 2)
    True
    """
    return hashlib.sha256(f"{document}\n{number}".encode("utf-8", "surrogatepass")).hexdigest()[:32]


def page_name(source: str, number: int) -> str:
    """The name of a page in messages and reports.

    >>> page_name("reports/2024.pdf", 7)
    '2024.pdf, page 7'
    """
    name = last_part(source) if is_web_url(source) else PurePath(source).name
    return f"{name or source}, page {number}"


def page_hash(digest: str, number: int) -> str:
    """The content hash of a page: SHA-256 over its document's digest and its number, as 64 hex digits.

    It is a hash of the document's bytes, not of pixels: it needs no drawing, and neither a new version of the renderer
    nor another resolution changes it. Copies of a file have equal hashes; editing a document changes the hashes of all
    its pages.

    Args:
        digest: of the document's bytes, see `file_digest`.
        number: 1-based.
    """
    return hashlib.sha256(f"{digest}#page={number}".encode()).hexdigest()


def page_key(content_hash: str, dpi: float | None) -> str:
    """The key of a page, equal for equal vectors: the content hash, with the resolution for a page of a PDF.

    Args:
        content_hash: of the page, hexadecimal.
        dpi: the resolution; None for an image, which has none.

    Example:
        >>> page_key("1f", 150.0), page_key("1f", None)
        ('1f@150', '1f')
    """
    return content_hash if dpi is None else f"{content_hash}@{dpi:g}"


def text_key(text: str) -> str:
    """The key of a text, equal for equal texts and different from every `page_key`.

    >>> text_key("low tide")
    'text:a343315686a9916144c18241a12683f2'
    """
    return f"text:{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


def file_digest(source: str | os.PathLike[str] | bytes) -> str:
    """SHA-256 of a document's bytes, as 64 hex digits.

    A file is read in chunks. The digests of the last 1024 files are cached by path, size, modification time and inode:
    drawing the pages of a search result reads each file once.

    Raises:
        InputError: the file cannot be read.
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    try:
        path = real_path(source)
        status = os.stat(path)  # noqa: PTH116 - a string of os.path.realpath
        check_is_file(status)
        return _digest(path, status.st_size, status.st_mtime_ns, status.st_ino)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {image_name(source)}: {error}") from error


def pixel_digest(image: Image.Image) -> str:
    """SHA-256 over the size and pixels of an RGB picture without a file, as 64 hex digits."""
    return hashlib.sha256(f"{image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


@lru_cache(1024)
def _digest(path: str, size: int, modified: int, inode: int) -> str:
    digest = hashlib.sha256()
    with open_file(path) as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()
