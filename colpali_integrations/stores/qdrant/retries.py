"""Calls of a Qdrant server that go on while it restarts, and on another node of the cluster while one is gone.

A call may be sent again after it was applied: all calls of a store give the same result the second time.
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Event, Lock
from typing import TYPE_CHECKING, Any, TypeVar, cast

from colpali_integrations._logs import package_logger
from colpali_integrations._options import checked_number, shown
from colpali_integrations.errors import ConfigurationError
from colpali_integrations.stores.qdrant.errors import Outage, TriedError, outage_of
from colpali_integrations.stores.qdrant.place import is_local, place_of
from colpali_integrations.stores.runs import Run, current_run

if TYPE_CHECKING:
    from qdrant_client import QdrantClient

__all__ = ["CLOCK", "Clock", "Patience", "RetrySeconds", "calling", "retrying"]

logger = package_logger(__name__)

T = TypeVar("T")
RetrySeconds = float | Sequence[float]

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_JITTER = 0.25  # of a wait, so that the clients of a server do not all come back at once


class Clock:
    """The time and its passing; tests take another one."""

    def now(self) -> float:
        """Seconds since some moment."""
        return time.monotonic()

    def wait(self, seconds: float, stop: Event | None) -> bool:
        """Wait, and return True if `stop` was set meanwhile."""
        if stop is None:
            time.sleep(seconds)
            return False
        return stop.wait(seconds)


CLOCK = Clock()


@dataclass(frozen=True)
class Patience:
    """For how many seconds without an answer calls are tried again.

    Attributes:
        call: of a call by itself.
        run: of a call in a run, see `stores.runs`.
    """

    call: float = 5.0
    run: float = 60.0

    @classmethod
    def of(cls, seconds: RetrySeconds | None) -> Patience:
        """Read the option `retry_seconds`: a number for both, two numbers, or None for the defaults.

        Raises:
            ConfigurationError: something else.

        Example:
            >>> Patience.of(None), Patience.of((0, 300))
            (Patience(call=5.0, run=60.0), Patience(call=0.0, run=300.0))
        """
        if seconds is None:
            return cls()
        both = seconds if isinstance(seconds, list | tuple) else [seconds] * 2
        if len(both) != 2:
            raise ConfigurationError(
                f"retry_seconds must be one number, or two: for a call, and for a run; got {shown(seconds)}"
            )
        return cls(*(checked_number(one, "retry_seconds", 0) for one in both))


def retrying(client: QdrantClient | Sequence[QdrantClient], retry_seconds: RetrySeconds | None = None) -> QdrantClient:
    """A client whose methods try again; the local mode stays as it is, and so does a client that tries again already.

    Args:
        client: of a server, or one for each of several nodes of a cluster.
        retry_seconds: see `Patience.of`.

    Raises:
        ConfigurationError: `retry_seconds` is neither a number nor two.
    """
    patience = Patience.of(retry_seconds)
    clients = list(client) if isinstance(client, Sequence) else [client]
    if len(clients) == 1 and (isinstance(clients[0], _Nodes) or is_local(clients[0])):
        return clients[0]
    return cast("QdrantClient", _Nodes(clients, patience))


def calling(client: QdrantClient, ask: Callable[[QdrantClient], T]) -> T:
    """Make a request that is no method of the client, with its retries.

    Args:
        client: as `retrying` returned it, or any other.
        ask: makes the request with the client of a node; it may be called again.
    """
    return client.call(ask) if isinstance(client, _Nodes) else ask(client)


class _Nodes:
    """The nodes of a cluster, or a single server, as one `QdrantClient`."""

    def __init__(self, clients: Sequence[QdrantClient], patience: Patience) -> None:
        self._clients, self._patience = clients, patience
        self._current = 0
        self._has_answered = False
        self._is_away = False  # as the log has it
        self._lock = Lock()

    @property
    def init_options(self) -> dict[str, Any]:
        """Those of the current client, with the addresses of all nodes."""
        options = dict(self._clients[self._current].init_options)
        if len(self._clients) > 1:
            options["url"] = [place_of(client) for client in self._clients]
        return options

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked by copy and pickle before there are any clients
            raise AttributeError(name)
        attribute = getattr(self._clients[self._current], name)
        if not callable(attribute):
            return attribute
        return lambda *args, **options: self.call(lambda client: getattr(client, name)(*args, **options))

    def close(self) -> None:
        """Close all connections."""
        for client in self._clients:
            client.close()

    def call(self, ask: Callable[[QdrantClient], T]) -> T:
        """Make a call, on the nodes in turn, until one answers or the time is up.

        Raises:
            TriedError: the time is up, or the caller has ended the run; its cause is the last error.
            Exception: of the client, about a call that no waiting would help.
        """
        attempts = _Attempts(self._patience, len(self._clients), current_run())
        while True:
            node = self._current
            try:
                answer = ask(self._clients[node])
            except Exception as error:
                outage = outage_of(error)
                if outage is None or outage.is_answer:
                    self._has_answered = True
                if outage is None:
                    raise
                if outage.ordered is None:
                    self._leave(node)
                if attempts.has_other_node(outage):
                    continue
                if attempts.are_hopeless(known=self._has_answered):
                    raise
                wait = attempts.next_wait(outage)
                if wait is None:
                    raise TriedError(attempts.counted) from error
                attempts.tell(self._told(outage, wait, attempts.seconds))
                if attempts.wait(wait, outage):
                    raise TriedError(attempts.counted) from error
            else:
                self._has_answered = True
                if self._is_away:
                    self._tell_answer()
                attempts.tell(None)
                return answer

    def _leave(self, node: int) -> None:
        """Let all calls take the next node."""
        with self._lock:
            if self._current == node:
                self._current = (node + 1) % len(self._clients)

    def _told(self, outage: Outage, wait: float, seconds: float) -> str:
        """Log a wait, the first of an outage as a warning, and return the message."""
        if outage.ordered is not None:
            message = f"{self._place}: {outage.reason}; waiting {outage.ordered:.0f} s"
            logger.info("%s", message)
            return message
        message = f"{self._place}: {outage.reason}; trying again for {seconds:.0f} s"
        with self._lock:
            was_away, self._is_away = self._is_away, True
        logger.log(logging.INFO if was_away else logging.WARNING, "%s", message)
        return message

    def _tell_answer(self) -> None:
        with self._lock:
            was_away, self._is_away = self._is_away, False
        if was_away:
            logger.warning("%s answers again", self._place)

    @property
    def _place(self) -> str:
        return place_of(self)


class _Attempts:
    """The attempts of one call, in rounds over all nodes."""

    def __init__(self, patience: Patience, nodes: int, run: Run | None) -> None:
        self._run = run
        self.seconds = patience.call if run is None or run.is_single else patience.run
        self._nodes = nodes
        self._round: list[Outage] = []
        self._since: float | None = None  # the first failure
        self._ordered = 0.0
        self._waits = 0
        self._is_told = False

    @property
    def counted(self) -> float:
        """Seconds since the first failure, without those of ordered waits."""
        return 0.0 if self._since is None else CLOCK.now() - self._since - self._ordered

    def has_other_node(self, outage: Outage) -> bool:
        """Count a failure, and tell whether a node is left to be asked at once."""
        if self._since is None:
            self._since = CLOCK.now()
        if len(self._round) == self._nodes:
            self._round = []
        self._round.append(outage)
        return outage.ordered is None and len(self._round) < self._nodes

    def are_hopeless(self, *, known: bool) -> bool:
        """Whether another round would help nothing: no node is there, or calls are not to be tried again."""
        known = known or (self._run is not None and self._run.reached)
        if self.seconds <= 0 and self._round[-1].ordered is None:
            return True
        return all(one.is_lasting or (one.is_refused and not known) for one in self._round)

    def next_wait(self, outage: Outage) -> float | None:
        """Seconds until the next round; None if the time is up. The last round comes when the time is up."""
        if outage.ordered is not None:
            return outage.ordered + min(1.0, outage.ordered * _JITTER) * random.random()
        left = self.seconds - self.counted
        if left <= 0:
            return None
        wait: float = min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**self._waits) * random.uniform(1 - _JITTER, 1 + _JITTER)
        self._waits += 1
        return min(wait, left)

    def wait(self, seconds: float, outage: Outage) -> bool:
        """Wait, and return True if the caller has ended the run meanwhile."""
        began = CLOCK.now()
        stopped = CLOCK.wait(seconds, None if self._run is None else self._run.end)
        if outage.ordered is not None:
            self._ordered += CLOCK.now() - began
        return stopped

    def tell(self, message: str | None) -> None:
        """Show the run a wait, or its end."""
        if self._run is not None and (message is not None or self._is_told):
            self._is_told = message is not None
            self._run.waiting(message)
