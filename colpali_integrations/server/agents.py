"""`/mcp`: the tools of agents over MCP's streamable HTTP, without sessions: nothing is kept between requests."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.types import Message, Receive, Scope, Send

from colpali_integrations.agents.tools import PageTools
from colpali_integrations.errors import MissingExtraError
from colpali_integrations.server.bodies import AGENTS
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.service import Service

__all__ = ["AgentAddress"]


class AgentAddress:
    """The ASGI application of `/mcp`.

    Args:
        service: whose queues do the work.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._server: Any = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a message of a client."""
        scope["colpali_route"] = AGENTS  # for the metrics
        if find_spec("mcp") is None:
            raise RequestError(501, str(MissingExtraError("mcp", "mcp", AGENTS)), "not_installed")
        # Here, where a body that is too long or too slow gets its answer.
        body = await Request(scope, receive).body()
        if self._server is None:
            self._server = await run_in_threadpool(_made, self._service)
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        manager = StreamableHTTPSessionManager(app=self._server, json_response=True, stateless=True)
        # One manager per request: it is no more than a group of tasks, and the application needs none before the first.
        async with manager.run():
            await manager.handle_request(scope, _replayed(body, receive), send)


def _made(service: Service) -> Any:
    from colpali_integrations.agents.protocol import mcp_server  # the SDK takes a while to import

    tools = PageTools(
        service.current,
        search=service.search,
        access=lambda: service.access,
    )
    return mcp_server(tools, ask=service.questions.run, draw=service.pictures.run)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """A stream that begins with a body that has been read."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed
