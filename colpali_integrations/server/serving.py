"""Running the server: the socket, uvicorn, signals and the opening words."""

from __future__ import annotations

import gc
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.server.app import create_app
from colpali_integrations.server.connections import Guarded
from colpali_integrations.server.service import Service
from colpali_integrations.server.settings import ServerSettings
from colpali_integrations.server.uploads import Uploads
from colpali_integrations.stores import MultiVectorStore

__all__ = ["Server", "serve"]

logger = package_logger(__name__)

_SECONDS_TO_END = 10  # after a signal: requests that still run are answered by 503
_SECONDS_AT_MOST = 25.0  # after a signal: an encoding that still runs is given up


class Server(uvicorn.Server):
    """uvicorn on a socket that is bound at once, so that its address is known.

    Args:
        service: what is served.
        ready: called with the server's URL once it answers.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """

    def __init__(self, service: Service, ready: Callable[[str], None] = lambda url: None) -> None:
        self._socket = _bound(service.settings)
        self._ready = ready
        self._connections = service.connections
        self._last: threading.Timer | None = None
        host, port = self._socket.getsockname()[:2]
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        config = uvicorn.Config(
            create_app(service),
            log_config=None,  # entries go to the handlers of the process
            access_log=False,
            lifespan="on",
            proxy_headers=False,
            server_header=False,
            ws="none",
            timeout_keep_alive=30,
            timeout_graceful_shutdown=_SECONDS_TO_END,
        )
        config.load()
        guarded: Any = Guarded.around(config.http_protocol_class, self._connections)
        config.http_protocol_class = guarded
        super().__init__(config)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say that the server answers."""
        await super().startup(sockets=sockets)
        if self.started:
            self._ready(self.url)

    async def on_tick(self, counter: int) -> bool:
        """Close connections that are late, each second; uvicorn calls it ten times as often."""
        if counter % 10 == 0:
            self._connections.close_late_ones()
        return await super().on_tick(counter)

    def serve_until_stopped(self) -> None:
        """Serve until `should_exit` is set, or a signal ends the server."""
        with self._socket:
            self.run(sockets=[self._socket])
        if self._last is not None and not self.force_exit:
            self._last.cancel()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop after a signal; a process that has not ended in time is ended, whatever it does."""
        if self._last is None:
            self._last = threading.Timer(_SECONDS_AT_MOST, _end_process)
            self._last.daemon = True
            self._last.start()
        super().handle_exit(sig, frame)


def serve(
    model: ColPali, store: MultiVectorStore, path: Path, settings: ServerSettings, ready: Callable[[str], None]
) -> None:
    """Serve a store until SIGTERM or Ctrl-C, which let running requests end for some seconds.

    Args:
        model: the model of the store.
        store: open for writing.
        path: its folder, beside which uploads are kept.
        settings: of the server.
        ready: called with the server's URL once it answers.

    Raises:
        ConfigurationError: the address cannot be listened on.
        StoreError: the folder of uploads cannot be used, or another server uses it.
    """

    def answering(url: str) -> None:
        # Looking through all that is loaded takes tens of milliseconds, again and again, while no other thread runs.
        gc.collect()
        gc.freeze()
        ready(url)

    uploads = Uploads(path.with_name(f"{path.name}.uploads"))
    try:
        server = Server(Service(model, store, settings, uploads), answering)
        with _ending_quietly():
            server.serve_until_stopped()
    finally:
        gc.unfreeze()
        uploads.close()


def _end_process() -> None:
    """End the process at once: threads that encode cannot be stopped. Jobs go on at the next start, as after a kill."""
    logger.warning("work still ran %g s after the signal and was given up; uploads go on later", _SECONDS_AT_MOST)
    os._exit(0)


@contextmanager
def _ending_quietly() -> Iterator[None]:
    """Let SIGTERM and Ctrl-C be an ordinary end: uvicorn raises them again once it has stopped."""
    signals = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, _passed_over) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _passed_over(number: int, frame: Any) -> None:
    return None


def _bound(settings: ServerSettings) -> socket.socket:
    try:
        [entry, *_] = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        opened = socket.socket(entry[0], socket.SOCK_STREAM)
        try:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            opened.bind(entry[4])
        except BaseException:
            opened.close()
            raise
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(
            f"cannot listen on {settings.host}, port {settings.port}: {reason}; choose another port"
        ) from error
    return opened
