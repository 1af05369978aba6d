"""Who may call the server: the names of the host, the origin of browsers, and the API key or a session of the page.

Without a key the server listens on loopback. Pages of the web in the user's browser can still reach it there, by
requests to 127.0.0.1 and by names that resolve to it (DNS rebinding). So a request must name the host by an address, by
"localhost" or by an allowed name, and a browser's request must come from the server's own pages.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from colpali_integrations.server.errors import RequestError, answer
from colpali_integrations.server.sessions import Sessions, cookie_name
from colpali_integrations.server.settings import ServerSettings

__all__ = ["OPEN", "Access", "may_change", "require_change"]

OPEN = frozenset({"/healthz", "/", "/session"})
"""Addresses that need no key; so do the files of the search page, which hold no data."""
_PAGE_FILES = "/page/"
_READING = ("GET", "HEAD")
_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_MAY_CHANGE = "colpali_may_change"


class Access:
    """Refuses requests before anything of their bodies is read.

    Args:
        app: that gets the other requests.
        settings: with the keys and the allowed names.
        sessions: of browsers that are signed in; a session counts as the key that it was begun with.
    """

    def __init__(self, app: ASGIApp, settings: ServerSettings, sessions: Sessions) -> None:
        self._app, self._settings, self._sessions = app, settings, sessions
        self._hosts = {name.lower() for name in ("localhost", settings.host, *settings.allowed_hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, or answer that it is refused."""
        if scope["type"] == "http":
            try:
                reads = scope["method"] in _READING
                scope[_MAY_CHANGE] = self._checked(scope["path"], HTTPConnection(scope), reads=reads)
            except RequestError as error:
                await answer(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _checked(self, path: str, request: HTTPConnection, *, reads: bool) -> bool:
        """Whether the caller may change the index."""
        headers = request.headers
        check_host(headers.getlist("host"), self._hosts)
        # A link of another page may open the search page: it has no data, and no page may frame it.
        if not (path == "/" and reads and headers.get("sec-fetch-mode") == "navigate"):
            check_origin(headers)
        if path in OPEN or path.startswith(_PAGE_FILES) or not self._settings.needs_key:
            return True
        of_session = self._sessions.may_change(request.cookies.get(cookie_name(request.scope)))
        if "authorization" in headers or of_session is None:
            return checked_key(headers.getlist("authorization"), self._settings)
        if not reads and "origin" not in headers:
            raise RequestError(403, "a session of the search page changes things only from that page", "no_origin")
        return of_session


def may_change(scope: Scope) -> bool:
    """Whether the caller of a request may change the index, as `Access` has found."""
    return bool(scope.get(_MAY_CHANGE))


def require_change(scope: Scope) -> None:
    """Refuse a request that would change the index, of a caller who may only read.

    Raises:
        RequestError: it is one.
    """
    if not may_change(scope):
        raise RequestError(
            403,
            "this API key may search and read, and not add, change or delete; that needs the server's other key, of "
            "--api-key-file or COLPALI_API_KEY",
            "read_only_key",
        )


def check_host(given: Sequence[str], names: set[str]) -> None:
    """Refuse a request that calls the server by a name which is not allowed.

    Raises:
        RequestError: it does.
    """
    name = host_name(given[0]) if len(given) == 1 else None
    if name is None:
        raise RequestError(400, "a request must have one Host header that names a host", "invalid_host")
    if name not in names and not is_address(name):
        raise RequestError(
            421,
            f"the server does not answer to the name {name!r}; start it with --allowed-host {name}",
            "unknown_host",
        )


def check_origin(headers: Headers) -> None:
    """Refuse the request of a page of another origin in a browser.

    Raises:
        RequestError: it is one.
    """
    origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
    same = origin is None or _netloc(origin) == headers["host"].lower()
    if not same or site in ("cross-site", "same-site"):
        raise RequestError(403, "requests from web pages of other origins are refused", "cross_origin")


def checked_key(given: Sequence[str], settings: ServerSettings) -> bool:
    """Whether the callers of the key in a request may change the index.

    Raises:
        RequestError: the request has no key, or another one than those of the server.
    """
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        raise RequestError(401, "send the API key: Authorization: Bearer <key>", "missing_api_key", _CHALLENGE)
    found = settings.may_change(token.strip())
    if found is None:
        raise RequestError(401, "the API key is not that of this server", "invalid_api_key", _CHALLENGE)
    return found


def host_name(header: str) -> str | None:
    """The name or address in a Host header, in lower case and without the port; None for another text.

    >>> host_name("LOCALHOST:8765"), host_name("[::1]:80"), host_name("a b")
    ('localhost', '::1', None)
    """
    try:
        parts = urlsplit(f"//{header}")
        name, _ = parts.hostname, parts.port
    except ValueError:
        return None
    if name is None or parts.netloc != header or parts.username is not None or any(letter <= " " for letter in header):
        return None
    return name.lower()  # `hostname` leaves what follows a % as it is


def is_address(name: str) -> bool:
    """Whether a name is an IP address, which no DNS server can change."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""
