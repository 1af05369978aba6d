"""The store for `MultiVectorStore` on other machines: the calls of its engine."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.errors import StoreError
from colpali_integrations.server.access import require_change
from colpali_integrations.server.checking import body_of
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import ENGINE
from colpali_integrations.server.service import Service
from colpali_integrations.stores.served.answers import WRITES, answered

__all__ = ["engine"]


async def engine(request: Request, service: Service) -> Response:
    """A call of `MultiVectorStore` on another machine; programs of others have the other addresses."""
    body = await body_of(request, ENGINE)
    writes = body["call"] in WRITES
    if writes:
        require_change(request.scope)
    queue = service.documents if writes else service.questions
    return await queue.run(partial(_called, service, body["call"], body["arguments"]))


def _called(service: Service, call: str, arguments: Mapping[str, Any]) -> Response:
    try:
        result = service.current.use(lambda store: answered(store, call, arguments))
    except StoreError as error:  # the caller's StoreError, at once: a 503 would be asked again
        raise RequestError(409, str(error), "store_error") from error
    return JSONResponse({"result": result})
