"""Fetch an image from a URL: http and https alone, with a time limit and a size limit."""

from __future__ import annotations

import urllib.error
import urllib.request

from colpali_integrations.core.errors import ImageError

__all__ = ["fetch_url"]


def fetch_url(url: str, *, timeout: float, max_bytes: int) -> bytes:
    """The body of a URL.

    Args:
        url: http or https. Redirects are followed, to http and https only.
        timeout: seconds, for the connection and for each read.
        max_bytes: the largest body accepted.

    Raises:
        ImageError: no answer in time, an error status, a body that is too large, or another scheme.
    """
    # Only these handlers: a redirect to file: or ftp: finds nobody who would follow it.
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
    request = urllib.request.Request(url, headers={"User-Agent": "colpali-integrations"})
    try:
        with opener.open(request, timeout=timeout) as response:
            body: bytes = response.read(max_bytes + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise ImageError(f"cannot fetch {url}: {error}") from error
    if len(body) > max_bytes:
        raise ImageError(f"{url} is larger than {max_bytes} bytes; fetch it yourself or raise max_bytes")
    return body
