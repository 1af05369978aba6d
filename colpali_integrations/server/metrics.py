"""Metrics in Prometheus' format."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colpali_integrations.server.queues import Queue

__all__ = ["Measured", "Metrics"]

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "PUT", "PATCH", "OPTIONS"})


class Metrics:
    """The metrics of one server, in a registry of its own.

    Args:
        queues: whose load is shown.
        jobs: returns the number of jobs by state.
    """

    def __init__(self, queues: Sequence[Queue], jobs: Callable[[], Mapping[str, int]]) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "colpali_requests",
            "Requests, by address and status.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "colpali_request_seconds", "Seconds per request.", ("route",), buckets=_SECONDS, registry=self.registry
        )
        self.together = Histogram(
            "colpali_questions_together",
            "Questions that were answered in one run.",
            buckets=(1, 2, 4, 8, 16, 32),
            registry=self.registry,
        )
        self.registry.register(_Loads(queues, jobs))
        ProcessCollector(registry=self.registry)

    def text(self) -> bytes:
        """All metrics, as the address `/metrics` shows them."""
        return generate_latest(self.registry)


class _Loads(Collector):
    def __init__(self, queues: Sequence[Queue], jobs: Callable[[], Mapping[str, int]]) -> None:
        self._queues, self._jobs = queues, jobs

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("colpali_queue_load", "Requests that run or wait.", labels=("queue",))
        for queue in self._queues:
            family.add_metric((queue.name,), queue.load)
        yield family
        family = GaugeMetricFamily("colpali_jobs", "Jobs of uploaded documents, by state.", labels=("state",))
        for state, number in self._jobs().items():
            family.add_metric((state,), number)
        yield family


class Measured:
    """Counts requests and their seconds, by the pattern of their address.

    Args:
        app: that gets all requests.
        metrics: of the server.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 500

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            # The pattern and never the path, and no method of a caller's own: callers must not fill the memory.
            route = scope.get("colpali_route", "other")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, str(status)).inc()
            self._metrics.seconds.labels(route).observe(time.perf_counter() - began)
