"""Requests to a server of this package (`colpali-integrations serve`), from the machines that use it.

A server that is busy answers 429 or 503 and the seconds to wait, and is asked again. One that is started anew, such as
for an update, is waited for shortly. All requests may be sent twice: encoding changes nothing.
"""

from __future__ import annotations

import ipaddress
import json
import os
import threading
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from colpali_integrations._forks import renew_after_forks
from colpali_integrations._keys import KEY_VARIABLE, ApiKey, key_in_file, key_in_variable
from colpali_integrations._text import parse_json
from colpali_integrations.errors import ColPaliError, ConfigurationError, StoreError
from colpali_integrations.pages._urls import is_web_url, shown_url

if TYPE_CHECKING:
    import httpx

__all__ = ["Connection", "is_server", "server_url"]

# A page may wait for others, and take a minute by itself on a CPU.
_CONNECT_SECONDS, _ANSWER_SECONDS = 10.0, 300.0
# Seconds in which a server is asked again that is busy (429), or stops or cannot use its model (503).
_LONGEST_BUSY = {429: 1800.0, 503: 120.0}
_LONGEST_ABSENCE, _PAUSE = 10.0, 0.5  # seconds in which a server that has answered before is reached again
_MOST_CONNECTIONS = 32
# Of an answer: a server that sends without end must not fill the memory, or hold a thread for ever.
_MOST_BYTES, _ALL_SECONDS = 1 << 30, 900.0
_MOST_MESSAGE = 1000  # characters


def is_server(name_or_path: object) -> bool:
    """Whether the name of a model is the URL of a server.

    >>> is_server("http://localhost:8765"), is_server("coltiny")
    (True, False)
    """
    return isinstance(name_or_path, str) and is_web_url(name_or_path)


def server_url(url: str) -> str:
    """The URL of a server in its shortest form.

    Args:
        url: with or without a path, under which a proxy has the server.

    Raises:
        ConfigurationError: it has a user or password, a query or a fragment, or no valid host and port.

    Example:
        >>> server_url("HTTP://LocalHost:8765/")
        'http://localhost:8765'
        >>> server_url("https://user:secret@example.org")
        Traceback (most recent call last):
        colpali_integrations.errors.ConfigurationError: https://example.org: the URL of a server holds no user and ...
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigurationError(
            f"{shown_url(url)} is not the URL of a server ({error}); write it as http://localhost:8765"
        ) from None
    if parts.username is not None or parts.password is not None:
        raise ConfigurationError(
            f"{shown_url(url)}: the URL of a server holds no user and password; set the environment variable "
            f"{KEY_VARIABLE} to its API key, or pass api_key_file="
        )
    if not host or parts.query or parts.fragment or any(letter <= " " for letter in url):
        raise ConfigurationError(f"{shown_url(url)} is not the URL of a server; write it as http://localhost:8765")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"


class Connection:
    """Sends requests to one server. Threads may share it; a forked process makes its own connections.

    Args:
        url: of the server.
        api_key_file: a file with the server's API key; None for the environment variable COLPALI_API_KEY.

    Attributes:
        url: of the server, without credentials.

    Raises:
        ConfigurationError: the URL or the key is not valid, or the key would be sent over a network in clear text.
    """

    def __init__(self, url: str, api_key_file: str | os.PathLike[str] | None = None) -> None:
        self.url = server_url(url)
        self._key = _key(self.url, api_key_file)
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._has_answered = False
        renew_after_forks(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()
        self._client = None

    def __repr__(self) -> str:
        return f"Connection({self.url!r})"

    def get(self, path: str, kind: type[ColPaliError]) -> dict[str, Any]:
        """The answer of an address, a JSON object.

        Args:
            path: of the address.
            kind: of the error.

        Raises:
            ColPaliError: of this kind: the server cannot be reached, refuses, or is none of this package.
            ConfigurationError: it refuses the API key, or needs one.
        """
        return self._asked("GET", path, None, kind)

    def post(self, path: str, body: Mapping[str, Any], kind: type[ColPaliError]) -> dict[str, Any]:
        """The answer to a JSON object; see `get`.

        Args:
            path: of the address.
            body: JSON-safe.
            kind: of the error.

        Raises:
            ColPaliError: as `get`.
            ConfigurationError: as `get`.
        """
        return self._asked("POST", path, json.dumps(body).encode(), kind)

    def close(self) -> None:
        """Close the connections. The next request opens a new one."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _asked(self, method: str, path: str, body: bytes | None, kind: type[ColPaliError]) -> dict[str, Any]:
        import httpx  # slow to import, and needed for models on servers only

        began = time.monotonic()
        while True:
            try:
                response, content = self._received(method, path, body, kind)
            except httpx.TimeoutException as error:
                raise kind(
                    f"{self.url} has not answered within {_ANSWER_SECONDS:g} s ({type(error).__name__}); see its log, "
                    "and whether a firewall lets requests pass"
                ) from error
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                if self._has_answered and time.monotonic() - began < _LONGEST_ABSENCE:
                    time.sleep(_PAUSE)
                    continue
                raise kind(
                    f"{self.url} cannot be reached ({error}). Start it there by: colpali-integrations serve --store "
                    "FOLDER; and check host and port"
                ) from error
            self._has_answered = True
            wait = _seconds_to_wait(response)
            if wait is not None and time.monotonic() - began + wait <= _LONGEST_BUSY[response.status_code]:
                time.sleep(wait)
                continue
            return self._read(response, content, path, kind)

    def _received(
        self, method: str, path: str, body: bytes | None, kind: type[ColPaliError]
    ) -> tuple[httpx.Response, bytes]:
        pieces: list[bytes] = []
        size, until = 0, time.monotonic() + _ALL_SECONDS
        with self._opened().stream(method, f"{self.url}{path}", content=body) as response:
            for piece in response.iter_raw():
                pieces.append(piece)
                size += len(piece)
                if size > _MOST_BYTES or time.monotonic() > until:
                    raise kind(
                        f"{self.url} has sent {size:,} bytes without an end; an answer may have {_MOST_BYTES:,} bytes "
                        f"and take {_ALL_SECONDS:g} s. It may be no server of this package"
                    )
        return response, b"".join(pieces)

    def _read(self, response: httpx.Response, content: bytes, path: str, kind: type[ColPaliError]) -> dict[str, Any]:
        try:
            answer = parse_json(content)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            answer = {}
        status, message = response.status_code, str(answer.get("message") or response.reason_phrase)[:_MOST_MESSAGE]
        if status in (401, 403):
            raise ConfigurationError(
                f"{self.url} refuses the request: {message}. Set the environment variable {KEY_VARIABLE} to the API "
                "key of the server, or pass api_key_file="
            )
        if status == 404 or (status == 200 and not answer):
            reason = (
                f"{self.url} has no {path}: it is no server of this package, or an older one; start one there by: "
                "colpali-integrations serve"
            )
            if not issubclass(kind, StoreError):
                raise kind(reason)
            file = json.dumps({"url": self.url, "collection_name": "pages"})
            raise kind(
                f"{reason}. A collection on a Qdrant server is opened by url= and collection_name=",
                command=f"{reason}. A collection on a Qdrant server is named by a JSON file, such as {file}",
            )
        if status != 200:
            raise kind(f"{self.url} answers {status}: {message}")
        return answer

    def _opened(self) -> httpx.Client:
        import httpx

        with self._lock:
            if self._client is None:
                # Not compressed: a few bytes could become more than the memory has.
                headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
                if self._key is not None:
                    headers["Authorization"] = self._key.header
                self._client = httpx.Client(
                    headers=headers,
                    timeout=httpx.Timeout(_ANSWER_SECONDS, connect=_CONNECT_SECONDS),
                    limits=httpx.Limits(max_connections=_MOST_CONNECTIONS),
                    follow_redirects=False,  # the key is for this server
                    verify=self.url.startswith("https:"),  # reading the certificates takes 20 ms, also for http://
                    trust_env=not _stays_here(self.url),  # proxies are for other machines
                )
                weakref.finalize(self, self._client.close)
            return self._client


def _key(url: str, file: str | os.PathLike[str] | None) -> ApiKey | None:
    value = os.environ.get(KEY_VARIABLE)
    if file is not None:
        key = key_in_file(Path(file))
    elif value is not None:
        key = key_in_variable(value)
    else:
        return None
    if url.startswith("http:") and not _stays_here(url):
        raise ConfigurationError(
            f"{url}: the API key would be sent in clear text, which other machines can read; use https:// (a proxy "
            "with TLS before the server), or an SSH tunnel to localhost"
        )
    return key


def _stays_here(url: str) -> bool:
    """Whether a URL is of this machine, by an address or name that no DNS server decides."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _seconds_to_wait(response: httpx.Response) -> float | None:
    """How long a busy server asks to wait; None for other answers."""
    if response.status_code not in _LONGEST_BUSY:
        return None
    text = response.headers.get("retry-after", "1")
    return max(float(text), _PAUSE) if text.isdecimal() and len(text) < 6 else 1.0
