"""The ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware

from colpali_integrations.server.access import Access
from colpali_integrations.server.bodies import Limited
from colpali_integrations.server.connections import Attended
from colpali_integrations.server.errors import handlers
from colpali_integrations.server.metrics import Measured
from colpali_integrations.server.routes import routes
from colpali_integrations.server.service import Service

__all__ = ["create_app"]


def create_app(service: Service) -> Starlette:
    """Make the application of a service, which its lifespan starts and closes.

    Args:
        service: of one model and one store; both stay open.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await run_in_threadpool(service.start)
        try:
            yield
        finally:
            await run_in_threadpool(service.close)

    settings = service.settings
    middleware = [
        Middleware(Attended, connections=service.connections),
        Middleware(Measured, metrics=service.metrics),
        Middleware(Access, settings=settings, sessions=service.sessions),
        Middleware(Limited, max_upload_bytes=settings.max_upload_bytes),
    ]
    return Starlette(
        routes=routes(service), middleware=middleware, exception_handlers=dict(handlers), lifespan=lifespan
    )
