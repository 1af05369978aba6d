"""Bodies of http and https URLs, within limits of time and size, from public addresses.

urllib is enough: the limits below would have to be added to any other client too, and none is a dependency that every
installation has.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import suppress
from typing import IO, Any

from colpali_integrations.errors import ImageError
from colpali_integrations.pages._addresses import PrivateAddressError, connect, public_addresses
from colpali_integrations.pages._urls import is_web_url, shown_url

__all__ = ["fetch_url"]

_CHUNK = 64 * 1024
_HEADERS = {"User-Agent": "colpali-integrations"}


def fetch_url(url: str, *, timeout: float, max_bytes: int, allow_private: bool = False) -> bytes:
    """Fetch the body of an http or https URL.

    Redirects are followed, to http and https only. Proxies are taken from the environment; an address is checked on the
    URL's host, and not on the proxy's.

    Args:
        url: http or https, without a user and password.
        timeout: seconds for everything: names, connections, redirects and the whole body.
        max_bytes: the largest body accepted.
        allow_private: fetch from addresses of this machine and of private networks too.

    Raises:
        ImageError: no complete answer in time, an error status, a body that is too large or shorter than announced,
            an address that is not public, or another scheme. The message names the URL without its query.
    """
    shown = shown_url(url)
    if not is_web_url(url):
        raise ImageError(f"cannot fetch {shown}: unknown url type, expected http or https")
    if "@" in re.split("[/?#]", url.partition("://")[2], maxsplit=1)[0]:
        raise ImageError(
            f"cannot fetch {shown}: the URL has a user and password, which are not sent; fetch it yourself and pass "
            "the bytes"
        )
    return _Fetch(url, timeout, max_bytes, allow_private).run()


class _Fetch:
    """One URL, fetched in a thread of its own: only so does a time limit hold for names and headers too."""

    def __init__(self, url: str, timeout: float, max_bytes: int, allow_private: bool) -> None:
        self.url, self.timeout, self.max_bytes, self.allow_private = url, timeout, max_bytes, allow_private
        self.deadline = time.monotonic() + timeout
        self._body: bytes | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._handles: list[socket.socket] = []

    def run(self) -> bytes:
        thread = threading.Thread(target=self._fetch, name="colpali-fetch", daemon=True)
        thread.start()
        try:
            thread.join(self.timeout)
            late = thread.is_alive()
        finally:  # Ctrl-C, too, ends the thread
            self._end()
        shown = shown_url(self.url)
        if late:
            raise ImageError(f"cannot fetch {shown}: not finished after {self.timeout:g} s")
        if self._body is None:
            raise self._translated(self._error or RuntimeError("nothing was read"), shown)
        return self._body

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to a permitted address of a host."""
        return self.watch(connect(host, port, deadline=self.deadline, allow_private=self.allow_private))

    def check(self, url: str) -> None:
        """Refuse a URL of a host that is not public, before a proxy fetches it."""
        parts = urllib.parse.urlsplit(url)
        with suppress(OSError):  # a name that only the proxy can resolve
            public_addresses(parts.hostname or "", parts.port or 80, allow_private=self.allow_private)

    def watch(self, connection: socket.socket) -> socket.socket:
        """Shut a connection down at the end of the time."""
        with self._lock:
            if self._ended:
                connection.close()
                raise TimeoutError("the time is over")
            # TLS takes the socket over; a copy still reaches the connection.
            self._handles.append(connection.dup())
        return connection

    def _end(self) -> None:
        with self._lock:
            self._ended = True
            for handle in self._handles:
                with suppress(OSError):
                    handle.shutdown(socket.SHUT_RDWR)
                handle.close()
            self._handles = []

    def _fetch(self) -> None:
        try:
            request = _Request(self.url, headers=_HEADERS)
            with _opener(self).open(request, timeout=self.timeout) as response:
                self._body = self._read(response)
        except BaseException as error:
            self._error = error

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        body = bytearray()
        # read1 returns the bytes received so far.
        while not self._ended and (chunk := response.read1(_CHUNK)):
            body += chunk
            if len(body) > self.max_bytes:
                raise ImageError(
                    f"{shown_url(self.url)} is larger than {self.max_bytes} bytes; fetch it yourself or raise "
                    "max_bytes (url_max_bytes of a model)"
                )
        if response.length:  # of the announced bytes; read1 does not complain
            raise http.client.IncompleteRead(bytes(body), response.length)
        return bytes(body)

    def _translated(self, error: BaseException, shown: str) -> BaseException:
        """The error for the caller. No cause is kept: the message of some names the whole URL."""
        if isinstance(error, ImageError):
            return error
        if isinstance(error, urllib.error.HTTPError):
            error.close()
            if "redirection to url" in str(error).lower():
                reason = "a redirect to another scheme than http and https is not allowed"
            elif "redirect" in str(error):
                reason = "too many redirects"
            else:
                reason = f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()
        elif isinstance(error, PrivateAddressError):
            reason = f"{error}; pass allow_private_urls=True to fetch from this machine and your own network"
        elif isinstance(error, http.client.InvalidURL | UnicodeError):
            reason = "it is not a valid URL; percent-encode blanks and other characters than ASCII"
        elif isinstance(error, http.client.IncompleteRead):
            reason = "the body was cut off"
        elif isinstance(error, OSError | http.client.HTTPException):
            reason = str(getattr(error, "reason", error)) or type(error).__name__
        elif isinstance(error, ValueError):
            reason = "it is not a valid URL"
        else:
            return error
        return ImageError(f"cannot fetch {shown}: {reason}")


class _Request(urllib.request.Request):
    """A request that knows whether it goes through a proxy."""

    proxied = False

    def set_proxy(self, host: str, type: str) -> None:
        self.proxied = True
        super().set_proxy(host, type)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        """Follow a redirect without the headers of the request, in which the password of a proxy may stand."""
        followed = super().redirect_request(req, fp, code, msg, headers, newurl)
        return None if followed is None else _Request(followed.full_url, headers=_HEADERS)


class _Http(urllib.request.HTTPHandler):
    def __init__(self, fetch: _Fetch) -> None:
        super().__init__()
        self._fetch = fetch

    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(_HttpConnection, self._fetch, req), req)


class _Https(urllib.request.HTTPSHandler):
    def __init__(self, fetch: _Fetch) -> None:
        super().__init__()
        self._fetch = fetch

    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_connection(_HttpsConnection, self._fetch, req), req)


def _connection(kind: Any, fetch: _Fetch, request: urllib.request.Request) -> Any:
    proxied = isinstance(request, _Request) and request.proxied
    if proxied:
        fetch.check(request.full_url)

    def make(host: str, **options: Any) -> _HttpConnection:
        connection: _HttpConnection = kind(host, **options)
        connection.fetch, connection.proxied = fetch, proxied
        return connection

    return make


class _HttpConnection(http.client.HTTPConnection):
    fetch: _Fetch
    proxied: bool

    def connect(self) -> None:
        """Connect to the proxy, or to an address of the host that was checked."""
        if self.proxied:
            super().connect()
            self.fetch.watch(self.sock)
        else:
            self.sock = self.fetch.connect(self.host, self.port)


class _HttpsConnection(http.client.HTTPSConnection, _HttpConnection):
    """The `connect` of HTTPSConnection calls the one above, and then TLS checks the host's name."""


def _opener(fetch: _Fetch) -> urllib.request.OpenerDirector:
    # Install only the http(s) handlers, so that redirects to file: or ftp: are refused.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        _Http(fetch),
        _Https(fetch),
        _Redirects(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    return opener
