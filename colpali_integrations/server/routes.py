"""The table of addresses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from colpali_integrations._version import __version__
from colpali_integrations.server import (
    answers,
    documents,
    embeddings,
    encoder,
    engine,
    heatmaps,
    ranking,
    search,
    search_page,
)
from colpali_integrations.server.access import require_change
from colpali_integrations.server.agents import AgentAddress
from colpali_integrations.server.bodies import AGENTS, CALLS, ENCODINGS, SEARCHES, UPLOADS
from colpali_integrations.server.errors import problem
from colpali_integrations.server.openapi import described
from colpali_integrations.server.service import Service

__all__ = ["PAGE", "TABLE", "Address", "routes"]

Handler = Callable[[Request, Service], Awaitable[Response]]


class Address(NamedTuple):
    """An address and the function that answers it.

    Attributes:
        method: of HTTP.
        path: as Starlette writes it.
        handler: answers a request.
        changes: whether it changes the index, so that a key for reading is refused. The handler of `CALLS` refuses by
            itself, for only some calls change it.
    """

    method: str
    path: str
    handler: Handler
    changes: bool = False


async def health(request: Request, service: Service) -> Response:
    """Whether the server runs and can use its index."""
    if not await run_in_threadpool(service.current.is_usable):
        return problem(
            503, "the index cannot be opened; the server's log has the reason", "no_index", {"Retry-After": "5"}
        )
    return JSONResponse({"status": "ok", "version": __version__})


async def metrics(request: Request, service: Service) -> Response:
    """Metrics in Prometheus' format."""
    text = await run_in_threadpool(service.metrics.text)  # it reads the jobs from the disk
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


async def openapi(request: Request, service: Service) -> Response:
    """This description."""
    return JSONResponse(described(TABLE, needs_key=service.settings.needs_key))


TABLE = (
    Address("GET", "/healthz", health),
    Address("GET", "/metrics", metrics),
    Address("GET", "/openapi.json", openapi),
    Address("POST", SEARCHES, search.search),
    Address("GET", "/v1/pages/{id:path}/image", search.picture),
    Address("GET", "/v1/pages/{id:path}/heatmap", heatmaps.heatmap),
    Address("GET", "/v1/pages/{id:path}", search.page),
    Address("POST", "/v1/answers", answers.answer),
    Address("GET", "/v1/documents", documents.listed),
    Address("POST", UPLOADS, documents.upload, changes=True),
    Address("DELETE", "/v1/documents/{id:path}", documents.delete, changes=True),
    Address("GET", "/v1/jobs", documents.jobs),
    Address("GET", "/v1/jobs/{id}", documents.job),
    Address("GET", "/v1/models", embeddings.models),
    Address("POST", "/v1/embeddings", embeddings.embeddings),
    Address("POST", "/v1/multi-vector", embeddings.multi_vector),
    Address("POST", "/pooling", embeddings.pooling),
    Address("GET", "/v1/encoder", encoder.described),
    Address("POST", ENCODINGS, encoder.encode),
    Address("POST", "/v1/tokens", encoder.tokens),
    Address("POST", CALLS, engine.engine),
    Address("POST", "/v1/rerank", ranking.rerank),
    Address("POST", "/v2/rerank", ranking.rerank),
    Address("POST", "/score", ranking.score),
)
PAGE = (
    Address("GET", "/", search_page.index),
    Address("GET", "/page/{name}", search_page.file),
    Address("GET", "/session", search_page.session),
    Address("POST", "/session", search_page.sign_in),
    Address("DELETE", "/session", search_page.sign_out),
)
"""For the search page alone, so the description leaves them out."""


def routes(service: Service) -> list[Route]:
    """The routes of an application."""
    table = [Route(one.path, _endpoint(one, service), methods=[one.method]) for one in (*TABLE, *PAGE)]
    # Not in the table: messages of MCP have a description of their own.
    return [*table, Route(AGENTS, AgentAddress(service), methods=["POST"])]


def _endpoint(address: Address, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["colpali_route"] = address.path  # for the metrics
        if address.changes:
            require_change(request.scope)
            await run_in_threadpool(service.require_writable)  # which may ask the server of the store
        return await address.handler(request, service)

    return endpoint
