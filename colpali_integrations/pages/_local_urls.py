"""Content of `data:` and `file:` URLs."""

from __future__ import annotations

import base64
import binascii
import re
import urllib.parse
from pathlib import Path

from colpali_integrations.errors import ImageError

__all__ = ["is_file_url", "read_data_uri", "read_file_url"]

# Messages show no more of a URI: it may hold megabytes of data, or a token in its query.
_SHOWN = 40


def read_data_uri(uri: str) -> bytes:
    """Decode a `data:` URI, base64 or percent-encoded (RFC 2397).

    As in browsers, base64 may contain white space and lack `=` at its end.

    Raises:
        ImageError: the URI is malformed.
    """
    head, comma, body = uri.partition(",")
    if not comma:
        raise ImageError(f"malformed data URI {uri[:_SHOWN]!r}...: no comma")
    try:
        content = urllib.parse.unquote_to_bytes(body)
    except UnicodeEncodeError as error:  # a lone surrogate
        raise ImageError(f"malformed data URI {uri[:_SHOWN]!r}...: {error.reason}") from error
    if not head.lower().replace(" ", "").endswith(";base64"):
        return content
    packed = re.sub(rb"[ \t\r\n\f]", b"", content).rstrip(b"=")
    try:
        return base64.b64decode(packed + b"=" * (-len(packed) % 4), validate=True)
    except binascii.Error as error:
        raise ImageError(f"malformed base64 in data URI {uri[:_SHOWN]!r}...: {error}") from error


def is_file_url(text: str) -> bool:
    """Whether a text is a `file:` URL, as RFC 8089 has them: "file:/page.png" and "file:///page.png"."""
    return text[:6].lower() == "file:/"


def read_file_url(url: str) -> Path:
    """The path of a `file:` URL on this machine.

    Raises:
        ImageError: the URL is malformed, or it names another machine.
    """
    from urllib.request import url2pathname  # handles drive letters; slow to import

    try:
        parts = urllib.parse.urlsplit(url)
    except ValueError as error:  # brackets in the place of a host
        raise ImageError(f"malformed file: URL {url[:120]!r}: {error}; make one with Path.as_uri") from error
    if parts.netloc not in ("", "localhost"):
        raise ImageError(f"{url[:120]} is on another machine ({parts.netloc}); a file: URL must have three slashes")
    return Path(url2pathname(parts.path))
