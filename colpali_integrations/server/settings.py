"""Settings of a server, and its API key."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from colpali_integrations._keys import KEY_VARIABLE, READ_KEY_VARIABLE, ApiKey, key_in_file, key_in_variable
from colpali_integrations._options import checked_whole
from colpali_integrations._paths import check_roots
from colpali_integrations.errors import ConfigurationError

__all__ = ["KEY_VARIABLE", "READ_KEY_VARIABLE", "ApiKey", "Chat", "ServerSettings", "is_loopback", "key_of"]

_MOST_CONNECTIONS = 1024
_NUMBERS = ("port", "max_upload_bytes", "max_pages", "max_upload_total", "max_waiting", "max_connections")


def key_of(
    file: Path | None, variable: str = KEY_VARIABLE, environment: MutableMapping[str, str] = os.environ
) -> ApiKey | None:
    """The API key of a file, or of the environment; None without either.

    The variable is removed from the environment, which the processes that read PDFs would inherit.

    Args:
        file: with the key on its one line; it counts more than the environment.
        variable: the name of the variable.
        environment: the variables.

    Raises:
        ConfigurationError: the file cannot be read, or its content is no key.
    """
    value = environment.pop(variable, None)
    if file is not None:
        return key_in_file(file)
    return None if value is None else key_in_variable(value, variable)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host: all its addresses are loopback ones.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        pass
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, None)}
    except (OSError, UnicodeError):
        return False
    return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in found)


def _most_connections() -> int:
    try:
        import resource  # not on Windows
    except ModuleNotFoundError:
        return _MOST_CONNECTIONS
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _MOST_CONNECTIONS if files == resource.RLIM_INFINITY else max(1, min(_MOST_CONNECTIONS, files // 2))


@dataclass(frozen=True)
class Chat:
    """A chat model that answers from pages.

    Attributes:
        name: for readers, who learn by it where their pages are sent.
        ask: from a message, texts and pictures as JPEG files, to the answer. Threads may share it.
    """

    name: str
    ask: Callable[[Sequence[str | bytes]], str] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ServerSettings:
    """The settings of a server.

    Attributes:
        host: the address or name that it listens on. Only a loopback one without a key.
        port: 0 for any free one.
        key: that requests must carry; None for no key.
        read_key: another key, whose callers search and read, and cannot add, change or delete. With this key alone
            no caller can.
        roots: folders whose pages may be shown as pictures, beside the folder of uploads.
        recorded_roots: returns further folders, which may grow while the server runs.
        allowed_hosts: further names that clients may call it by, such as those behind a proxy.
        max_upload_bytes: the largest uploaded file.
        max_pages: the most pages of an uploaded document.
        max_upload_total: the most bytes of all uploaded files together.
        max_waiting: the most questions that wait at a time; there may be a quarter as many of other requests.
        chat: answers from found pages; None for no answers.
        max_connections: the most connections; beyond them, a new one gets the place of one that waits for its client.
            By default 1024, or half as many as the process may have files open, if that is less.

    Raises:
        ConfigurationError: an option has an invalid value, or other machines could call it without a key.
    """

    host: str = "127.0.0.1"
    port: int = 8765
    key: ApiKey | None = None
    read_key: ApiKey | None = None
    roots: Sequence[Path] = ()
    recorded_roots: Callable[[], Sequence[Path]] = tuple
    allowed_hosts: Sequence[str] = ()
    max_upload_bytes: int = 256 * 2**20
    max_pages: int = 2000
    max_upload_total: int = 16 * 2**30
    max_waiting: int = 256
    chat: Chat | None = None
    max_connections: int = field(default_factory=_most_connections)

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        for name in _NUMBERS:
            object.__setattr__(self, name, checked_whole(getattr(self, name), name, 0 if name == "port" else 1))
        if self.port > 65535:
            raise ConfigurationError(f"port must be from 0 to 65535, got {self.port}")
        check_roots(self.roots)
        if self.key is not None and self.read_key is not None and self.key.equals(self.read_key):
            raise ConfigurationError(
                "key and read_key are the same API key; the callers of one may change the index, those of the other "
                "may not, so make a second key",
                command=(
                    f"the API key ({KEY_VARIABLE} or --api-key-file) and the key for reading ({READ_KEY_VARIABLE} or "
                    "--read-key-file) are the same; make a second key for those who may only read"
                ),
            )
        if not self.needs_key and not is_loopback(self.host):
            raise ConfigurationError(
                f"host {self.host!r} can be reached by other machines, and the server has no API key: put one into a "
                f"file and pass it as api_key_file, or set {KEY_VARIABLE}; or listen on 127.0.0.1",
                command=(
                    f"--host {self.host} can be reached by other machines, and the server has no API key: put one into "
                    f"a file and pass --api-key-file FILE, or set {KEY_VARIABLE}; or leave --host out"
                ),
            )

    @property
    def needs_key(self) -> bool:
        """Whether requests must carry a key."""
        return self.key is not None or self.read_key is not None

    def may_change(self, given: str) -> bool | None:
        """Whether the callers of a key may change the index; None for a key that is not the server's."""
        if self.key is not None and self.key.matches(given):
            return True
        return False if self.read_key is not None and self.read_key.matches(given) else None
