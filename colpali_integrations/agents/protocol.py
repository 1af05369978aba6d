"""The tools over MCP, on the official SDK, whose two major versions name their parts differently.

Handlers take and return messages as the protocol writes them, which the types of both versions read.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, unquote, urlsplit

from mcp import types
from mcp.server.lowlevel import Server
from mcp.shared import exceptions

from colpali_integrations._failures import item_error
from colpali_integrations._logs import package_logger
from colpali_integrations._version import __version__
from colpali_integrations.agents.descriptions import INSTRUCTIONS, TOOLS
from colpali_integrations.agents.tools import Answer, PageTools
from colpali_integrations.errors import ColPaliError, InputError

__all__ = ["document_uri", "mcp_server", "page_uri"]

logger = package_logger(__name__)

Result = TypeVar("Result")
Message = Mapping[str, Any]

_NAME = "colpali-integrations"
_NO_RESOURCE, _INTERNAL = -32002, -32603  # of the protocol
_HINTS = {"readOnlyHint": True, "destructiveHint": False, "idempotentHint": True, "openWorldHint": False}


class Run(Protocol):
    """Runs a function outside of the event loop's thread."""

    def __call__(self, work: Callable[[], Result], /) -> Awaitable[Result]:
        """Run it, and return its result."""
        ...


def mcp_server(tools: PageTools, *, ask: Run, draw: Run) -> Any:
    """Make the SDK's low-level server of the tools.

    Args:
        tools: over a store.
        ask: runs what reads the store or the model.
        draw: runs what draws pages.

    Returns:
        The `Server` of the installed version.
    """
    handlers = _Handlers(tools, ask, draw)
    table: dict[str, tuple[Callable[[Message], Awaitable[Message]], str]] = {
        "list_tools": (handlers.list_tools, "ListTools"),
        "call_tool": (handlers.call_tool, "CallTool"),
        "list_resources": (handlers.list_resources, "ListResources"),
        "list_resource_templates": (handlers.list_resource_templates, "ListResourceTemplates"),
        "read_resource": (handlers.read_resource, "ReadResource"),
    }
    make: Any = Server
    options = {"version": __version__, "instructions": INSTRUCTIONS}
    if not hasattr(Server, "list_tools"):  # version 2
        return make(_NAME, **options, **{f"on_{name}": _handler(*entry) for name, entry in table.items()})
    server = make(_NAME, **options)
    for handler, kind in table.values():
        server.request_handlers[getattr(types, f"{kind}Request")] = _request_handler(handler, kind)
    return server


def document_uri(document: str) -> str:
    """The address of a document as a resource.

    >>> document_uri("/data/report.pdf")
    'document://index/%2Fdata%2Freport.pdf'
    """
    return f"document://index/{quote(document, safe='')}"


def page_uri(document: str, page: int) -> str:
    """The address of a page as a resource.

    >>> page_uri("/data/report.pdf", 3)
    'page://index/%2Fdata%2Freport.pdf/3'
    """
    return f"page://index/{quote(document, safe='')}/{page}"


class _Handlers:
    def __init__(self, tools: PageTools, ask: Run, draw: Run) -> None:
        self._tools, self._ask, self._draw = tools, ask, draw

    async def list_tools(self, parameters: Message) -> Message:
        tools = []
        for one in TOOLS:
            described: dict[str, Any] = {
                "name": one.name,
                "title": one.title,
                "description": one.description,
                "inputSchema": one.input_schema,
                "annotations": {"title": one.title, **_HINTS},
            }
            if one.output is not None:
                described["outputSchema"] = dict(one.output)
            tools.append(described)
        return {"tools": tools}

    async def call_tool(self, parameters: Message) -> Message:
        name, arguments = parameters["name"], parameters.get("arguments") or {}
        try:
            answer = await self._answered(partial(self._tools.call, name, arguments))
        except ColPaliError as error:
            return _refused(str(error))
        except Exception as error:
            logger.exception("the tool %s has ended by an error", name)
            return _refused(f"the server has a fault, and its log has the details: {item_error(error)}")
        result: dict[str, Any] = {"content": _content(answer), "isError": False}
        if answer.structured is not None:
            result["structuredContent"] = dict(answer.structured)
        return result

    async def list_resources(self, parameters: Message) -> Message:
        try:
            answer = await self._ask(partial(self._tools.list_documents, cursor=parameters.get("cursor")))
        except ColPaliError as error:
            raise _protocol_error(_INTERNAL, str(error)) from error
        listed = answer.structured or {}
        resources = [
            {
                "uri": document_uri(one["document"]),
                "name": one["name"],
                "description": f"{one['pages']} pages; {one['source'] or one['document']}",
                "mimeType": "text/plain",
            }
            for one in listed["documents"]
        ]
        following = listed["next_cursor"]
        return {"resources": resources, **({} if following is None else {"nextCursor": following})}

    async def list_resource_templates(self, parameters: Message) -> Message:
        document, page = "document://index/{document}", "page://index/{document}/{page}"
        return {
            "resourceTemplates": [
                {
                    "uriTemplate": document,
                    "name": "document",
                    "description": "The map of a document: the first words of each page.",
                    "mimeType": "text/plain",
                },
                {"uriTemplate": page, "name": "page", "description": "A page as text, and as a picture."},
            ]
        }

    async def read_resource(self, parameters: Message) -> Message:
        uri = str(parameters["uri"])
        try:
            kind, parts = _parsed(uri)
            work = self._tools.list_documents if kind == "document" else self._tools.page_of
            answer = await self._answered(partial(work, *parts))
        except ColPaliError as error:
            raise _protocol_error(_NO_RESOURCE, str(error)) from error
        contents: list[dict[str, Any]] = []
        for part in answer.parts:
            contents.append({"uri": uri, "mimeType": "text/plain", "text": part.text})
            if part.picture:
                contents.append({"uri": uri, "mimeType": part.picture.mime_type, "blob": part.picture.base64})
        return {"contents": contents}

    async def _answered(self, work: Callable[[], Answer]) -> Answer:
        answer = await self._ask(work)
        if any(part.entry is not None for part in answer.parts):
            return await self._draw(partial(self._tools.shown, answer))
        return answer


def _content(answer: Answer) -> list[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    for part in answer.parts:
        blocks.append({"type": "text", "text": part.text})
        if part.picture:
            blocks.append({"type": "image", "data": part.picture.base64, "mimeType": part.picture.mime_type})
    return blocks


def _refused(message: str) -> Message:
    return {"content": [{"type": "text", "text": message}], "isError": True}


def _parsed(uri: str) -> tuple[str, tuple[Any, ...]]:
    """The kind of a resource, and its document and page.

    Raises:
        InputError: the address is none of a document or a page.
    """
    address = urlsplit(uri)
    parts = [unquote(part) for part in address.path.split("/")[1:]]
    if address.netloc == "index" and address.scheme == "document" and len(parts) == 1 and parts[0]:
        return "document", (parts[0],)
    if address.netloc == "index" and address.scheme == "page" and len(parts) == 2 and parts[1].isdecimal():
        return "page", (parts[0], int(parts[1][:10]))
    raise InputError(f"no such resource: {uri}; they are document://index/DOCUMENT and page://index/DOCUMENT/PAGE")


def _protocol_error(code: int, message: str) -> Exception:
    if hasattr(exceptions, "McpError"):  # version 1
        old: Any = exceptions.McpError
        error: Exception = old(types.ErrorData(code=code, message=message))
    else:
        new: Any = getattr(exceptions, "MCPError")  # noqa: B009 - version 1 has none
        error = new(code=code, message=message)
    return error


def _handler(handler: Callable[[Message], Awaitable[Message]], kind: str) -> Callable[[Any, Any], Awaitable[Any]]:
    """A handler of version 2."""

    async def handle(context: Any, parameters: Any) -> Any:
        return _result(kind, await handler(_plain(parameters)))

    return handle


def _request_handler(handler: Callable[[Message], Awaitable[Message]], kind: str) -> Callable[[Any], Awaitable[Any]]:
    """A handler of version 1."""

    async def handle(request: Any) -> Any:
        wrapped: Any = getattr(types, "ServerResult")  # noqa: B009 - version 2 has none
        return wrapped(_result(kind, await handler(_plain(request.params))))

    return handle


def _plain(parameters: Any) -> Message:
    return {} if parameters is None else dict(parameters.model_dump(by_alias=True, mode="json"))


def _result(kind: str, message: Message) -> Any:
    return getattr(types, f"{kind}Result").model_validate(message)
