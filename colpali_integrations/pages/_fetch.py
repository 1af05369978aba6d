"""Content of URLs: `data:` and `file:`, and `http(s):` within limits of time and size."""

from __future__ import annotations

import base64
import binascii
import re
import time
import urllib.error
import urllib.parse
from pathlib import Path

from colpali_integrations.errors import ImageError

__all__ = ["fetch_url", "read_data_uri", "read_file_url"]

# Messages show no more of a URI: it may hold megabytes of data, or a token in its query.
_SHOWN = 40
_CHUNK = 64 * 1024


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


def read_file_url(url: str) -> Path:
    """The path of a `file:` URL on this machine.

    Raises:
        ImageError: it names another machine.
    """
    from urllib.request import url2pathname  # handles drive letters; slow to import

    parts = urllib.parse.urlsplit(url)
    if parts.netloc not in ("", "localhost"):
        raise ImageError(f"{url[:120]} is on another machine ({parts.netloc}); a file: URL must have three slashes")
    return Path(url2pathname(parts.path))


def fetch_url(url: str, *, timeout: float, max_bytes: int) -> bytes:
    """Fetch the body of an http or https URL.

    Args:
        url: http or https. Redirects are followed, to http and https only. Proxies are taken from the environment.
        timeout: seconds for the whole body, and for each step before it (connection, answer); a server that sends its
            headers byte by byte can repeat these steps.
        max_bytes: the largest body accepted.

    Raises:
        ImageError: no answer in time, an error status, a body that is too large, or another scheme.
    """
    # Both are slow to import.
    import http.client
    import urllib.request

    # Install only the http(s) handlers, so that redirects to file: or ftp: are refused.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    deadline = time.monotonic() + timeout
    body = bytearray()
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "colpali-integrations"})
        with opener.open(request, timeout=timeout) as response:
            # read1 returns the bytes received so far, so the deadline is checked for slow servers too.
            while chunk := response.read1(_CHUNK):
                body += chunk
                if len(body) > max_bytes:
                    raise ImageError(f"{url} is larger than {max_bytes} bytes; fetch it yourself or raise max_bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"not finished after {timeout:g} s")
    except urllib.error.HTTPError as error:
        error.close()
        raise ImageError(f"cannot fetch {url}: HTTP {error.code} {error.reason}") from error
    # HTTPException: an answer that is not HTTP, or a URL with a space in it; ValueError: an invalid URL.
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"cannot fetch {url}: {error}") from error
    return bytes(body)
