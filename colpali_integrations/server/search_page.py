"""The search page in the browser: its files, and signing in to it.

The files hold no data and need no key. The page works by the addresses that every program uses, with a cookie in the
place of the key. Its policy lets the browser run and fetch what this server has, and nothing else: a text of a page or
the name of a file that held HTML would stay text.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.server.checking import Schema, body_of
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.service import Service
from colpali_integrations.server.sessions import SECONDS, cookie_name

__all__ = ["POLICY", "file", "index", "session", "sign_in", "sign_out"]

POLICY = "; ".join(
    [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",
        "connect-src 'self'",
        "form-action 'none'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
)
"""The Content-Security-Policy of the page."""
_HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # No referrer at all would make the Origin of some requests null, by which the server knows its own page.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-cache",
}
_KINDS = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_KEY: Schema = {
    "type": "object",
    "properties": {"key": {"type": "string", "minLength": 1, "maxLength": 4096}},
    "required": ["key"],
    "additionalProperties": False,
}


class _File(NamedTuple):
    content: bytes
    kind: str
    tag: str


async def index(request: Request, service: Service) -> Response:
    """The search page."""
    return _sent(request, _files()["index.html"])


async def file(request: Request, service: Service) -> Response:
    """A script, the style or the icon of the search page."""
    found = _files().get(request.path_params["name"])
    if found is None:
        raise RequestError(404, f"the search page has no file {request.path_params['name']!r}", "no_such_file")
    return _sent(request, found)


async def session(request: Request, service: Service) -> Response:
    """Whether the page needs the API key, and whether this browser is signed in."""
    return await _state(service, service.sessions.may_change(_token(request)))


async def sign_in(request: Request, service: Service) -> Response:
    """Trade an API key for a cookie."""
    settings = service.settings
    given = (await body_of(request, _KEY))["key"]
    if not settings.needs_key:
        raise RequestError(400, "this server has no API key, so there is nothing to sign in to", "no_api_key")
    may_change = settings.may_change(given.strip())
    if may_change is None:
        raise RequestError(401, "the API key is not that of this server", "invalid_api_key")
    response = await _state(service, may_change)
    response.set_cookie(
        cookie_name(request.scope),
        service.sessions.begin(may_change=may_change),
        max_age=SECONDS,
        path="/",
        httponly=True,
        samesite="strict",
        # The server itself speaks no TLS; behind a proxy that does, the browser names the scheme.
        secure=request.headers.get("origin", "").startswith("https:"),
    )
    return response


async def sign_out(request: Request, service: Service) -> Response:
    """End the session of this browser."""
    service.sessions.end(_token(request))
    response = await _state(service, None)
    response.delete_cookie(cookie_name(request.scope), path="/", httponly=True, samesite="strict")
    return response


def _token(request: Request) -> str | None:
    return request.cookies.get(cookie_name(request.scope))


async def _state(service: Service, may_change: bool | None) -> JSONResponse:
    """What the page must know.

    Args:
        service: of the server.
        may_change: of the reader's session; None without one.
    """
    needs_key, chat = service.settings.needs_key, service.settings.chat
    signed_in = may_change is not None
    known = chat is not None and (signed_in or not needs_key)
    state = {
        "needs_key": needs_key,
        "signed_in": signed_in,
        "may_change": (bool(may_change) or not needs_key) and await run_in_threadpool(lambda: service.is_writable),
        "chat": chat.name if chat and known else None,
    }
    return JSONResponse(state, headers={"Cache-Control": "no-store"})


def _sent(request: Request, found: _File) -> Response:
    headers = {**_HEADERS, "ETag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.content, media_type=found.kind, headers=headers)


@cache
def _files() -> Mapping[str, _File]:
    """The files by their names: no name of a caller becomes a path."""
    found = {}
    for entry in files("colpali_integrations.server").joinpath("page").iterdir():
        kind = _KINDS.get(entry.name.rpartition(".")[2])
        if kind is not None:
            content = entry.read_bytes()
            found[entry.name] = _File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')
    return found
