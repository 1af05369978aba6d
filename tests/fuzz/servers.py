"""A Qdrant server in this process whose answers may be damaged: a transport of httpx before `tests.stores.qdrant`."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx

from tests.fuzz.choices import Choices, json_text
from tests.fuzz.mutators import changed_bytes
from tests.stores.qdrant.stand_in import StandIn

__all__ = ["Damaged", "Faithful"]

_MOST_REQUESTS = 3000
_KEYS = (
    *("result", "status", "points", "id", "payload", "vector", "score", "next_page_offset", "vectors", "config"),
    *("params", "metadata", "colpali_integrations", "full", "first", "words", "size", "distance", "hits", "count"),
    *("payload_schema", "data_type", "strict_mode_config", "enabled", "exists", "version", "document_id", "page"),
)
_NUMBERS = (
    *("0", "-0.0", "-1", "1", "7", "1e999", "-1e999", "NaN", "Infinity", "1e39", "1e-320", "65504", "1e5", "2.5"),
    *("18446744073709551616", "9" * 400, "null", "true", '"1"', "[]", "{}", "[1]"),
)
_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
_BODIES = (
    _PAGE,
    b"",
    b"null",
    b"[]",
    b"{}",
    b'"ok"',
    b"\xff\xfe{",
    b'{"result":null,"status":"ok","time":0}',
    b"[" * 9999,
)
_DONE = {"operation_id": 0, "status": "completed"}
_STATUSES = (200, 500, 502, 503, 504, 404, 403, 401, 400, 408, 413, 422, 429, 409, 204, 202, 301, 307, 101, 599)
_WAITS = (None, "1", "0", "-1", "", "soon", "1.5", "9" * 30, "9" * 400, "1e9", "nan", "Fri, 31 Dec 9999 23:59:59 GMT")
_FAULTS: tuple[Callable[[], Exception], ...] = (
    lambda: httpx.ReadError("Connection reset by peer"),
    lambda: httpx.ConnectError("[Errno 111] Connection refused"),
    lambda: httpx.ReadTimeout("timed out"),
    lambda: httpx.ConnectTimeout("timed out"),
    lambda: httpx.RemoteProtocolError("peer closed connection without sending complete message body"),
    lambda: httpx.DecodingError("Error -3 while decompressing data"),
    lambda: httpx.TooManyRedirects("Exceeded maximum allowed redirects."),
    lambda: OSError("[Errno 24] Too many open files"),
)


Answer: TypeAlias = tuple[int, dict[str, str], bytes]
"""The status, the headers and the body."""


class Faithful(httpx.BaseTransport):
    """Answers as the server does.

    Args:
        server: need not be started.
    """

    def __init__(self, server: StandIn) -> None:
        self.server = server
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        status, headers, content = self.answer(request)
        return httpx.Response(status, headers=headers, content=content, request=request)

    def answer(self, request: httpx.Request) -> Answer:
        """The status, the headers and the body."""
        target, body = request.url.raw_path.decode("ascii"), request.read()
        return self.server.respond(request.method, target, request.headers.get("api-key"), body)

    def check_end(self) -> None:
        """Check that the caller has not asked on and on."""
        assert self.requests < _MOST_REQUESTS, "requests without end"


class Damaged(Faithful):
    """Answers questions as the server does, now and then changed, and takes all changes without making them.

    Args:
        server: need not be started.
        choices: decide what is changed. After their end all answers are whole.
        answers: those of before, by request.

    Attributes:
        damaged: whether any answer was changed.
    """

    def __init__(self, server: StandIn, choices: Choices, answers: dict[Any, Answer]) -> None:
        super().__init__(server)
        self._choices, self._answers = choices, answers
        self._lasting = choices.take(1 + choices.byte() % 60) if choices.byte() % 4 == 3 else None
        self._part = choices.pick(("", "scroll", "query", "count", "facet", "exists", "points", "batch"))
        self._whole = choices.byte() % 40  # answers
        self.damaged = False

    def answer(self, request: httpx.Request) -> Answer:
        if self.requests > _MOST_REQUESTS:
            raise httpx.ReadTimeout("enough")
        target, body = request.url.raw_path.decode("ascii"), request.read()
        path = target.partition("?")[0]
        if path.endswith(("points/batch", "points/delete", "/index")) or request.method in ("PUT", "PATCH", "DELETE"):
            done = [_DONE] if path.endswith("batch") else _DONE if "points" in path or "index" in path else True
            return self._changed(200, {}, json.dumps({"result": done, "status": "ok", "time": 0.0}).encode())
        key = request.method, target, body
        if key not in self._answers:
            self._answers[key] = self.server.respond(request.method, target, None, body)
        status, headers, content = self._answers[key]
        if self._lasting is not None:
            of_part = path.endswith(self._part)
            return self._changed(status, headers, content, Choices(self._lasting) if of_part else Choices(b""))
        return self._changed(status, headers, content)

    def _changed(self, status: int, headers: dict[str, str], content: bytes, choices: Choices | None = None) -> Answer:
        if self.requests <= self._whole:
            return status, headers, content
        once = choices is None
        choices = self._choices if choices is None else choices
        kind = choices.byte() % (48 if once else 16)
        before = status, headers, content
        if kind in (1, 2, 3):
            content = json_text(choices.changed(json.loads(content), _KEYS)).encode("utf-8", "replace")
        elif kind in (4, 5, 6):
            content = _with_numbers(content, choices)
        elif kind == 7:
            content = changed_bytes(choices, content)
        elif kind == 8:
            content = content[: choices.below(len(content) + 1)]
        elif kind == 9:
            content = choices.pick(_BODIES)
        elif kind in (10, 11):
            status, content = choices.pick(_STATUSES), choices.pick((*_BODIES, content, _error(choices.text())))
            if (wait := choices.pick(_WAITS)) is not None and once:  # ordered waits have no end
                headers = {**headers, "retry-after": wait}
        elif kind == 12:
            self.damaged = True
            raise choices.pick(_FAULTS)()
        elif kind == 13:
            headers = {**headers, "content-encoding": choices.pick(("gzip", "br", "zstd", "deflate", "none"))}
            content = choices.pick((content, gzip.compress(content)[: choices.below(60)]))
        self.damaged = self.damaged or before != (status, headers, content)
        return status, headers, content


def _error(message: str) -> bytes:
    return json.dumps({"status": {"error": message}, "time": 0.0}).encode()


def _with_numbers(content: bytes, choices: Choices) -> bytes:
    """Other values in the place of some numbers, which JSON may not be able to write."""
    text = content.decode()
    places = list(re.finditer(r"(?<=[\[:, ])-?\d[\d.e+-]*", text))
    for _ in range(1 + choices.byte() % 4 if places else 0):
        found = places[choices.below(len(places))]
        text = text[: found.start()] + choices.pick(_NUMBERS) + text[found.end() :]
        places = list(re.finditer(r"(?<=[\[:, ])-?\d[\d.e+-]*", text)) or places
    return text.encode()
