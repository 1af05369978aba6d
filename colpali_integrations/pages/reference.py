"""Drawing a page again from its metadata; `document` lists their keys.

Metadata may come from a store from elsewhere, and name any file. So a file is shown only if its content is that of the
metadata's `content_hash`, which cannot be known without the file, or if the caller names the folders of the files.
"""

from __future__ import annotations

import base64
import io
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from colpali_integrations.errors import InputError
from colpali_integrations.pages.access import DEFAULT_ACCESS, PageAccess, Roots
from colpali_integrations.pages.formats import MAX_PIXELS, ImageLimits
from colpali_integrations.pages.identity import file_digest, page_hash, page_name, pixel_digest
from colpali_integrations.pages.images import ImagePages, load_image
from colpali_integrations.pages.kept import open_or_kept
from colpali_integrations.pages.metadata import PICTURE, has_own_picture, page_number
from colpali_integrations.pages.paged import is_paged, is_pdf

__all__ = [
    "DEFAULT_DPI",
    "draw_page",
    "encode_base64",
    "encode_png",
    "has_content_hash",
    "is_permitted",
    "names_picture",
    "page_file",
    "page_image",
]

DEFAULT_DPI = 150.0

_HASH = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")


def page_image(
    metadata: Mapping[str, Any],
    *,
    dpi: float | None = None,
    password: str | None = None,
    isolate: bool = True,
    max_pixels: int = MAX_PIXELS,
    image_formats: Iterable[str] = (),
    roots: Roots = None,
) -> Image.Image:
    """Draw a page again from its file, or decode the base64 in its metadata.

    Args:
        metadata: with `file_path` or `source`, `page` and `content_hash` (and perhaps `dpi`), or with `image_base64`.
            The file must not have changed. With `page_picture` and no `content_hash`, as of a collection that another
            program has made: the path of a picture in a folder of `roots`.
        dpi: draw a PDF page at this resolution instead of the metadata's. A picture in the metadata is preferred with
            None, and where the file is missing, has changed or cannot be opened. One that a caller put into the
            metadata of a page is always preferred.
        password: for an encrypted PDF.
        isolate: False to draw a PDF that you trust in this process, without limits; see `open_pdf`.
        max_pixels: of an image; see `load_image`.
        image_formats: further formats of images; see `load_image`.
        roots: open only files in these folders, links followed; their metadata need no `content_hash`. None opens a
            file anywhere, if its content is that of the `content_hash`.

    Returns:
        An RGB image.

    Raises:
        InputError: the metadata refers to no page, or its file is missing, has changed or may not be shown.
        PdfError: the PDF or its page cannot be read.
        ImageError: the picture cannot be read.
        ConfigurationError: roots are no folders.

    Example:
        >>> page_image({"source": "report.pdf", "page": 2}, roots=["."], dpi=72).size
        (596, 842)
    """
    access = PageAccess.of(
        password=password, isolate=isolate, max_pixels=max_pixels, image_formats=image_formats, roots=roots
    )
    return draw_page(metadata, access, dpi=dpi)


def draw_page(
    metadata: Mapping[str, Any],
    access: PageAccess = DEFAULT_ACCESS,
    *,
    dpi: float | None = None,
    known: bool = True,
) -> Image.Image:
    """Draw a page again, as `page_image`.

    Args:
        metadata: as for `page_image`.
        access: how its file is opened.
        dpi: as for `page_image`.
        known: require a `content_hash` where `access` names no folders. False for a file that the caller named.

    Raises:
        InputError: as `page_image`.
    """
    encoded = metadata.get("image_base64")
    if not encoded and names_picture(metadata):
        return load_image(_named_picture(metadata, access), **access.limits.options)
    if not encoded:
        return _drawn(metadata, access, dpi, known)
    if dpi is not None and has_own_picture(metadata):
        with suppress(InputError):
            return _drawn(metadata, access, dpi, known)
    uri = f"data:{metadata.get('image_mime_type', 'image/png')};base64,{encoded}"
    return load_image(uri, **access.limits.options)


def _named_picture(metadata: Mapping[str, Any], access: PageAccess) -> str | Path:
    """The path of the picture that metadata name, or the data URL.

    Raises:
        InputError: it is missing, at an address, or in none of the permitted folders.
    """
    named = str(metadata[PICTURE])
    if named[:5].lower() == "data:":
        return named
    if "://" in named:
        raise InputError(f"the page is not shown: its picture is at {named}, and addresses in a store are not fetched")
    if access.folders is None:
        raise InputError(
            f"the page is not shown: its picture is the file {named!r}, of which no content_hash is known; pass "
            "roots=[folder] to show the files of a folder"
        )
    if not (permitted := _permitted_pictures(named, access)):
        raise InputError(
            f"the page is not shown: its picture {named!r} is in none of the folders of roots={list(access.folders)}"
        )
    path = next((path for path in permitted if os.path.isfile(path)), None)  # noqa: PTH113 - it may be any text
    if path is None:
        raise InputError(f"the page is not shown: no file at {named!r}, also not in roots={list(access.folders)}")
    return Path(path)


def _permitted_pictures(named: str, access: PageAccess) -> list[str]:
    """The places of a picture's file that may be opened: a relative path is also one in each of the folders."""
    folders = access.folders or ()
    return [path for path in (named, *(os.path.join(folder, named) for folder in folders)) if access.permits(path)]  # noqa: PTH118


def _drawn(metadata: Mapping[str, Any], access: PageAccess, dpi: float | None, known: bool) -> Image.Image:
    path, number = page_file(metadata, access, known=known)
    if not is_paged(path):
        if number == 1 and "page_count" not in metadata:
            return load_image(path, **access.limits.options)  # one image, of which further frames are logged
        return ImagePages(path, access.limits, path).draw(number)
    with open_or_kept(path, password=access.password, isolate=access.isolate) as pdf:
        _check_count(path, number, metadata, pdf.page_count)
        return pdf.render(number, dpi or metadata.get("dpi") or DEFAULT_DPI)


def _check_count(path: str, number: int, metadata: Mapping[str, Any], count: int) -> None:
    """Refuse an Office file that another LibreOffice converts to other pages than those that were indexed."""
    indexed = page_number(metadata, "page_count")
    if indexed not in (None, count) and not is_pdf(path):
        raise InputError(
            f"{page_name(path, number)} is not shown: LibreOffice makes {count} pages of it now, and made {indexed} "
            "when it was indexed. Index it again with force=True (--force)"
        )


def page_file(
    metadata: Mapping[str, Any], access: PageAccess = DEFAULT_ACCESS, *, known: bool = True
) -> tuple[str, int]:
    """The file of a page and the page's number, after checking that the file has not changed.

    Args:
        metadata: as for `page_image`; the first 16 digits of a content hash suffice.
        access: with the folders of files, and the limits of an image that may have been indexed as a picture in memory.
        known: as for `draw_page`.

    Raises:
        InputError: the metadata refers to no page, or its file is missing, has changed or may not be shown.
    """
    number, permitted = metadata.get("page"), _permitted(metadata, access)
    if isinstance(number, float) and number.is_integer():
        number = int(number)  # some stores return all numbers as floats
    if not _paths(metadata) or not isinstance(number, int) or isinstance(number, bool):
        raise InputError(
            "the metadata refers to no page: it needs 'source' or 'file_path' and 'page' (1-based), or 'image_base64'; "
            f"its keys are: {', '.join(map(str, metadata)) or 'none'}"
        )
    first = _paths(metadata)[0]
    if not permitted:
        raise InputError(
            f"{page_name(first, number)} is not shown: {first!r} is in none of the folders of "
            f"roots={list(access.folders or ())}"
        )
    content_hash = metadata.get("content_hash")
    if known and access.folders is None and not has_content_hash(metadata):
        raise InputError(
            f"{page_name(first, number)} is not shown: its metadata have no content_hash, by which its file would be "
            "known. Index it again, or pass roots=[folder] to show the files of a folder"
        )
    path = next((path for path in permitted if os.path.isfile(path)), None)  # noqa: PTH113 - it may be any text
    if path is None:
        raise InputError(
            f"cannot draw {page_name(first, number)}: no file at {first!r}. A relative path is valid only in the "
            "folder where the page was loaded; pages without a file include their picture only on request"
        )
    _check_content(path, number, content_hash, access.limits)
    return path, number


def is_permitted(metadata: Mapping[str, Any], access: PageAccess) -> bool:
    """Whether a page has a picture in its metadata, or a file that `access` permits to be opened."""
    if names_picture(metadata):
        named = metadata[PICTURE]
        is_inside = "://" not in named and bool(_permitted_pictures(named, access))
        return is_inside or named[:5].lower() == "data:"
    return bool(metadata.get("image_base64") or _permitted(metadata, access))


def names_picture(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata name a picture by `PICTURE`, and are none of a page that this package has read."""
    named = metadata.get(PICTURE)
    is_named = isinstance(named, str) and bool(named)
    return is_named and not metadata.get("image_base64") and "content_hash" not in metadata


def has_content_hash(metadata: Mapping[str, Any]) -> bool:
    """Whether metadata have a content hash, or the first 16 digits of one, by which the file of a page is known."""
    content_hash = metadata.get("content_hash")
    return isinstance(content_hash, str) and _HASH.fullmatch(content_hash) is not None


def encode_png(image: Image.Image) -> bytes:
    """Encode an image as the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def encode_base64(image: Image.Image) -> str:
    """Encode an image as base64 of a PNG file, without the head of a data URI."""
    return base64.b64encode(encode_png(image)).decode("ascii")


def _paths(metadata: Mapping[str, Any]) -> list[str]:
    names = (metadata.get("file_path"), metadata.get("source"))
    # The name of an unknown user behind "~" is no error here.
    return [str(Path(os.path.expanduser(name))) for name in names if isinstance(name, str) and name]  # noqa: PTH111


def _permitted(metadata: Mapping[str, Any], access: PageAccess) -> list[str]:
    return [path for path in _paths(metadata) if access.permits(path)]


def _check_content(path: str, number: int, content_hash: object, limits: ImageLimits) -> None:
    """Refuse a file that has changed since it was indexed: its page would be the wrong picture."""
    if not isinstance(content_hash, str) or not _HASH.fullmatch(content_hash):
        return
    unchanged = page_hash(file_digest(path), number).startswith(content_hash)
    if not unchanged and number == 1 and not is_paged(path):  # it may have been indexed as a picture in memory
        picture = ImagePages(path, limits, path).draw(1)
        unchanged = page_hash(pixel_digest(picture), 1).startswith(content_hash)
    if not unchanged:
        raise InputError(
            f"{page_name(path, number)} is not shown: {path} has changed since it was indexed. Index it again, or "
            "restore the file"
        )
