"""Errors of a Qdrant server as `StoreError`s with advice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from colpali_integrations.errors import MissingExtraError, StoreError

try:
    import grpc
    import httpx
    from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a store on a Qdrant server") from error

__all__ = ["UnexpectedResponse", "grpc", "reaching"]


@contextlib.contextmanager
def reaching(where: str) -> Iterator[None]:
    """Turn the client's errors into a StoreError with the place, the cause and advice."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:  # httpx, gRPC, pydantic and the client each have their own
        raise StoreError(f"{where}: {_explained(error)}") from error


def _explained(error: Exception) -> str:
    if isinstance(error, ResponseHandlingException):
        if isinstance(error.source, httpx.TimeoutException):
            return "the server took too long; allow more time by timeout= (seconds)"
        return f"the server cannot be reached ({error.source}). Does it run, and are address and port right?"
    if isinstance(error, ResourceExhaustedResponse):
        return f"the server has too much to do; it asks to wait {error.retry_after_s} s ({error})"
    if isinstance(error, UnexpectedResponse):
        return _explained_status(error.status_code or 0, _server_message(error))
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return _explained_status(_CODES.get(error.code(), 0), str(error.details()))
    return f"{type(error).__name__}: {error}"


def _explained_status(status: int, message: str) -> str:
    advice = ""
    if "index required" in message.lower():  # a collection in strict mode
        advice = ". Make one by QdrantClient.create_payload_index, or let the collection filter without"
    return _STATUS.get(status, "the server refused: {message}").format(message=message) + advice


_STATUS = {
    400: "the server refused: {message}",
    401: "the server asks for an API key, give it as api_key= ({message})",
    403: "the API key does not allow this ({message})",
    404: "the collection is not there (any more); open the store again to make it anew ({message})",
    408: "the server took too long; allow more time by timeout= (seconds) ({message})",
    413: "a point is larger than the server takes; raise its service.max_request_size_mb ({message})",
    429: "the server has too much to do; try again later ({message})",
    503: "the server cannot be reached ({message}). Does it run, and are address and port right?",
}
_CODES = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def _server_message(error: UnexpectedResponse) -> str:
    """The message of the server, which it wraps in JSON."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return f"{error.status_code} {error.reason_phrase}"
