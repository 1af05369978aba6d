"""What a file is by its first bytes, for the message about one whose name says something else."""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["Kind", "kind_of"]

_HTML = (b"<!doctype html", b"<html", b"<meta", b"<table")
_SPACE = b"\xef\xbb\xbf \t\r\n"


class Kind(NamedTuple):
    """A kind of file.

    Attributes:
        name: with its article.
        suffix: of its files; "" for files that hold others.
    """

    name: str
    suffix: str


_MARKS = (
    (b"\x89PNG\r\n\x1a\n", Kind("a PNG image", ".png")),
    (b"\xff\xd8\xff", Kind("a JPEG image", ".jpg")),
    (b"GIF8", Kind("a GIF image", ".gif")),
    (b"II*\0", Kind("a TIFF image", ".tif")),
    (b"MM\0*", Kind("a TIFF image", ".tif")),
    (b"%PDF-", Kind("a PDF", ".pdf")),
    (b"{\\rtf", Kind("an RTF file", ".rtf")),
    (b"PK\x03\x04", Kind("a ZIP archive", "")),
    (b"\x1f\x8b", Kind("a gzip archive", "")),
)


def kind_of(prefix: bytes) -> Kind | None:
    r"""The kind of a file; None for one that is not known.

    Args:
        prefix: its first bytes, 200 or more for HTML behind blanks.

    Example:
        >>> kind_of(b"PK\x03\x04..."), kind_of(b"\n<!DOCTYPE html>"), kind_of(b"low tide")
        (Kind(name='a ZIP archive', suffix=''), Kind(name='an HTML page', suffix='.html'), None)
    """
    if prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        return Kind("a WebP image", ".webp")
    if prefix.lstrip(_SPACE).lower().startswith(_HTML):
        return Kind("an HTML page", ".html")
    return next((kind for mark, kind in _MARKS if prefix.startswith(mark)), None)
