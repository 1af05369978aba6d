"""Errors of a Qdrant server: which of them pass by themselves, and their messages with advice."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

from colpali_integrations.errors import MissingExtraError, StoreError
from colpali_integrations.stores.runs import GaveUpError

try:
    import grpc
    import httpx
    from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
    from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a store on a Qdrant server") from error

__all__ = ["MADE_ELSEWHERE", "Outage", "TriedError", "UnexpectedResponse", "explained", "grpc"]
__all__ += ["is_denied", "is_forbidden", "is_refusal", "outage_of", "reaching"]

MADE_ELSEWHERE = (
    "another program made it, and opening it again makes none. See whether it was removed or renamed there "
    "(QdrantClient.get_collections), and open it by its name"
)
"""What to do where a collection of another program is gone."""

_TIMEOUT = "the server took too long; allow more time by timeout= (seconds)"
_UNREACHABLE = "the server cannot be reached ({message}). Does it run, and are address and port right?"
_OTHER_SERVER = "the answer is not one of a Qdrant server's ({message}). Are address and port right?"


@dataclass(frozen=True)
class Outage:
    """A fault of a server that passes by itself.

    Attributes:
        reason: for messages.
        is_answer: whether the server, or one before it, has answered; else there is no connection.
        is_refused: whether nothing listens at the address, or it is unknown.
        is_lasting: whether only another node can help: the machine itself does not answer.
        ordered: seconds for which the server orders to wait; None where it does not.
    """

    reason: str
    is_answer: bool = False
    is_refused: bool = False
    is_lasting: bool = False
    ordered: float | None = None


class TriedError(Exception):
    """A call was tried again until its time was up; its cause is the last error."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"tried again for {seconds:.0f} s")


@contextlib.contextmanager
def reaching(where: str, *, missing: str | None = None) -> Iterator[None]:
    """Turn the client's errors into a StoreError with the place, the cause and advice.

    Args:
        where: the collection and its server.
        missing: what to do where the collection is gone, in place of opening the store again.
    """
    try:
        yield
    except StoreError:
        raise
    except TriedError as error:
        raise GaveUpError(f"{where}: {explained(error.__cause__ or error)} ({error})") from error
    except Exception as error:  # httpx, gRPC, pydantic and the client each have their own
        if missing is not None and _is_missing(error):
            raise StoreError(f"{where} is not there (any more): {missing}") from error
        raise StoreError(f"{where}: {explained(error)}") from error


def outage_of(error: Exception) -> Outage | None:
    """The outage that an error of the client tells of; None for one that the same call would meet again.

    These are lost and refused connections, 502 of a proxy that meets one, 503, 500 where another node "is currently
    unavailable", and whatever the server orders to wait for. A timeout is none, nor is that of a proxy (504): the call
    has taken all the time that its caller, or the proxy, allows.

    Example:
        >>> outage_of(ResponseHandlingException(httpx.ReadError("Connection reset by peer")))
        Outage(reason='Connection reset by peer', is_answer=False, is_refused=False, is_lasting=False, ordered=None)
        >>> outage_of(ResponseHandlingException(httpx.ReadTimeout("timed out"))) is None
        True
    """
    if isinstance(error, ResponseHandlingException):
        source = error.source
        if isinstance(source, httpx.ConnectTimeout):
            return Outage(str(source) or "no connection in the allowed time", is_lasting=True)
        if isinstance(source, httpx.NetworkError | httpx.RemoteProtocolError):
            return Outage(str(source), is_refused=isinstance(source, httpx.ConnectError))
        return None
    if isinstance(error, ResourceExhaustedResponse):
        return Outage(str(error), is_answer=True, ordered=_seconds(error.retry_after_s))
    if isinstance(error, QdrantException) and _DATED in str(error):  # of the client, which takes no date for an order
        return Outage("the server has too much to do", is_answer=True)
    if isinstance(error, UnexpectedResponse):
        message = _server_message(error)
        if error.status_code in (502, 503) or (error.status_code == 500 and _UNAVAILABLE in message):
            return Outage(message, is_answer=True, ordered=_ordered(error.headers.get("retry-after")))
        return None
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return _grpc_outage(error.code(), str(error.details()))
    return None


def _grpc_outage(code: grpc.StatusCode, details: str) -> Outage | None:
    if _is_timeout(details):
        return None
    if code is grpc.StatusCode.UNAVAILABLE:
        return Outage(details, is_refused=any(part in details for part in _NO_CONNECTION))
    if code is grpc.StatusCode.UNKNOWN and details == "Stream removed":  # a connection that was reset
        return Outage(details)
    if code is grpc.StatusCode.CANCELLED:  # not by this side, which cancels no call: the server stopped during one
        return Outage(details or "the server stopped during the call")
    return Outage(details, is_answer=True) if code is grpc.StatusCode.INTERNAL and _UNAVAILABLE in details else None


def _ordered(value: str | None) -> float | None:
    """The seconds of a Retry-After, which may be a date; None where it is missing or neither."""
    if value is None:
        return None
    with contextlib.suppress(ValueError):
        return _seconds(int(value))
    with contextlib.suppress(ValueError, TypeError, OverflowError):
        return _seconds((parsedate_to_datetime(value) - datetime.now(timezone.utc)).total_seconds())
    return None


def _seconds(ordered: float) -> float:
    """The seconds of an order, which may be any number."""
    return float(max(0, min(ordered, _LONGEST_ORDER)))


def is_refusal(error: Exception) -> bool:
    """Whether the server, or the client before it, refuses what a request contains, so that a part of it may pass."""
    if isinstance(error, ValueError | TypeError | OverflowError):  # a request that cannot be written
        return True
    if isinstance(error, UnexpectedResponse):
        return error.status_code in (400, 413, 422) and not _is_timeout(_server_message(error))
    return (
        isinstance(error, grpc.RpcError)
        and isinstance(error, grpc.Call)
        and (
            error.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.OUT_OF_RANGE)
            or _TOO_LARGE_FOR_PROXY in str(error.details())
        )
        and not _is_timeout(str(error.details()))
    )


def is_denied(error: StoreError) -> bool:
    """Whether the server has answered that it does not take or permit the request, so that asking again is no use."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code in (400, 403, 422)
    if isinstance(cause, grpc.RpcError) and isinstance(cause, grpc.Call):
        return cause.code() in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)
    return False


def _is_missing(error: Exception) -> bool:
    """Whether there is no such collection."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return error.code() is grpc.StatusCode.NOT_FOUND
    return isinstance(error, ValueError) and "not found" in str(error)  # of the client's imitation of a server


def is_forbidden(error: StoreError) -> bool:
    """Whether the server has answered that the key of the client does not allow the request."""
    cause = error.__cause__
    if isinstance(cause, UnexpectedResponse):
        return cause.status_code == 403
    return (
        isinstance(cause, grpc.RpcError)
        and isinstance(cause, grpc.Call)
        and cause.code() is grpc.StatusCode.PERMISSION_DENIED
    )


def explained(error: BaseException) -> str:
    """The cause of an error of the client, with advice."""
    if isinstance(error, ResponseHandlingException):
        if isinstance(error.source, httpx.TimeoutException):
            return _TIMEOUT
        if isinstance(error.source, ValueError):  # such as JSON of another kind
            return _OTHER_SERVER.format(message=_first_line(error.source))
        return _UNREACHABLE.format(message=error.source)
    if isinstance(error, ResourceExhaustedResponse):
        return f"the server has too much to do; it asks to wait {error.retry_after_s} s ({error})"
    if isinstance(error, UnexpectedResponse):
        return _explained_status(error.status_code or 0, _server_message(error))
    if isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call):
        return _explained_status(_CODES.get(error.code(), 0), str(error.details()))
    is_empty = isinstance(error, AssertionError) and "returned None" in str(error)  # of the client, of such an answer
    if is_empty or isinstance(error, json.JSONDecodeError):
        return _OTHER_SERVER.format(message=error)
    return f"{type(error).__name__}: {error}"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


def _explained_status(status: int, message: str) -> str:
    if _is_timeout(message):
        status = 408
    elif (status == 400 and "larger than allowed" in message) or _TOO_LARGE_FOR_PROXY in message:
        status = 413
    elif status in (0, 500) and _UNAVAILABLE in message:
        return f"nodes of the cluster cannot be reached ({message})"
    advice = ""
    if any(words in message for words in _STRICT_MODE):
        advice = (
            ". The collection's strict mode has changed since the store was opened: open it again; "
            "indexes={'year': 'number'} makes the indexes of metadata"
        )
    return _STATUS.get(status, "the server refused: {message}").format(message=message) + advice


def _is_timeout(message: str) -> bool:
    """Whether the server itself, or a proxy before it, gave up a call, which they tell under other statuses too."""
    return "timeout expired" in message.lower() or _GATEWAY_TIMEOUT in message


_LONGEST_ORDER = 24 * 3600.0  # seconds; after it the server is asked again
_DATED = "Retry-After header value is not a valid integer"
_LONGEST = 200  # characters of a message that is no JSON
# In the message of a node that cannot reach the others, under 500.
_UNAVAILABLE = "currently unavailable"
# gRPC's own words about the status of a proxy, under UNAVAILABLE and UNKNOWN.
_GATEWAY_TIMEOUT, _TOO_LARGE_FOR_PROXY = "http2 header with status: 504", "http2 header with status: 413"
_NO_CONNECTION = ("failed to connect", "DNS resolution failed", "name resolution")
# In refusals by a strict mode with which a store keeps, once it knows it.
_STRICT_MODE = ("Index required but not found", "Exact search disabled", "global vector indexing is disabled")
_STATUS = {
    400: "the server refused: {message}",
    401: "the server asks for an API key, give it as api_key= ({message})",
    403: "the API key does not allow this ({message})",
    404: "the collection is not there (any more); open the store again to make it anew ({message})",
    408: f"{_TIMEOUT} ({{message}})",
    413: (
        "a point is larger than the server takes; raise its service.max_request_size_mb, or the limit of a proxy "
        "before it ({message})"
    ),
    429: "the server has too much to do; try again later ({message})",
    502: _UNREACHABLE,
    503: _UNREACHABLE,
    504: f"{_TIMEOUT}, and more in a proxy before it ({{message}})",
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
    """The message of the server, which it wraps in JSON, or not where it asks for a key."""
    try:
        return str(error.structured()["status"]["error"])
    except (ValueError, LookupError, TypeError):
        text = error.content.decode("utf-8", "replace").strip()
        # Not the page of a proxy before the server.
        return text if 0 < len(text) <= _LONGEST and "<" not in text else f"{error.status_code} {error.reason_phrase}"
