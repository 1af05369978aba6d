"""Errors of requests, and the answers that they become."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import (
    ColPaliError,
    ConfigurationError,
    FingerprintError,
    InputError,
    ModelError,
    StoreError,
)

__all__ = ["RequestError", "answer", "handlers", "problem", "stopping"]

logger = package_logger(__name__)


class RequestError(InputError):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong, what was expected, and the next step.
        code: a word that programs can compare.
        headers: further headers of the answer, such as Retry-After.
    """

    def __init__(self, status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.code, self.headers = status, code or _code(status), dict(headers or {})


def stopping() -> RequestError:
    """The refusal of a server that stops."""
    return RequestError(503, "the server is stopping; ask again once it runs", headers={"Retry-After": "5"})


def problem(status: int, message: str, code: str = "", headers: Mapping[str, str] | None = None) -> Response:
    """The answer to a request that is refused.

    The body has the fields that the clients of OpenAI (`error.message`) and of Cohere and Jina (`message`, `detail`)
    read.
    """
    error = {"message": message, "type": _type(status), "param": None, "code": code or _code(status)}
    return JSONResponse({"error": error, "message": message, "detail": message}, status, headers=dict(headers or {}))


def answer(error: ColPaliError) -> Response:
    """The answer to a request that raised an error of the package."""
    if isinstance(error, RequestError):
        return problem(error.status, str(error), error.code, error.headers)
    if isinstance(error, InputError | ConfigurationError):
        return problem(400, str(error))
    if isinstance(error, FingerprintError):
        return problem(409, str(error))
    if isinstance(error, StoreError | ModelError):
        logger.warning("a request failed: %s", error)
        return problem(503, str(error), headers={"Retry-After": "5"})
    logger.warning("a request failed: %s", error)
    return problem(500, str(error))


async def _of_package(request: Request, error: Exception) -> Response:
    assert isinstance(error, ColPaliError)
    return answer(error)


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    path, headers = request.url.path, dict(error.headers or {})
    message = f"no such address: {path}; /openapi.json lists them" if status == 404 else str(error.detail)
    if status == 405:
        headers["Allow"] = _allowed(request)
        message = f"{path} does not take {request.method}; it takes {headers['Allow']}"
    return problem(status, message, headers=headers)


def _allowed(request: Request) -> str:
    """The methods of an address, among all of its routes: the exception knows those of the first one only."""
    found: set[str] = set()
    for route in request.app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE:
            found |= route.methods or set()
    return ", ".join(sorted(found))


async def _of_client(request: Request, error: Exception) -> Response:
    return problem(400, "the client has ended the connection before the end of its request")  # which no client reads


async def _of_program(request: Request, error: Exception) -> Response:
    return problem(500, "the server has a fault; its log has the details. Please report it")


handlers: Mapping[Any, Any] = {
    ColPaliError: _of_package,
    HTTPException: _of_http,
    ClientDisconnect: _of_client,
    Exception: _of_program,
}
"""Exception handlers of the application."""


def _code(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_").replace("'", "")


def _type(status: int) -> str:
    if status in (401, 403):
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"
