"""What went wrong with a Qdrant server, in words that say what to do about it."""

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

__all__ = ["reaching"]


@contextlib.contextmanager
def reaching(where: str) -> Iterator[None]:
    """Turn the client's errors into a StoreError that says where, what, and what to do about it."""
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
        return _explained_status(error.status_code or 0, _said(error))
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return _explained_status(_CODES.get(error.code(), 0), str(error.details()))
    return f"{type(error).__name__}: {error}"


def _explained_status(status: int, said: str) -> str:
    advice = ""
    if "index required" in said.lower():  # a collection in strict mode
        advice = ". Make one by QdrantClient.create_payload_index, or let the collection filter without"
    return _STATUS.get(status, "the server refused: {said}").format(said=said) + advice


_STATUS = {
    400: "the server refused: {said}",
    401: "the server asks for an API key, give it as api_key= ({said})",
    403: "the API key does not allow this ({said})",
    404: "the collection is not there (any more); open the store again to make it anew ({said})",
    408: "the server took too long; allow more time by timeout= (seconds) ({said})",
    413: "a point is larger than the server takes; raise its service.max_request_size_mb ({said})",
    429: "the server has too much to do; try again later ({said})",
    503: "the server cannot be reached ({said}). Does it run, and are address and port right?",
}
_CODES = {
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.DEADLINE_EXCEEDED: 408,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.UNAVAILABLE: 503,
}


def _said(error: UnexpectedResponse) -> str:
    """The server's own words, which it wraps in JSON."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        return f"{error.status_code} {error.reason_phrase}"
