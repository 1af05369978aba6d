"""Embeddings: OpenAI's `/v1/embeddings`, vLLM's `/pooling` and Jina's `/v1/multi-vector`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from secrets import token_hex
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.models.single import SingleVectors
from colpali_integrations.server.checking import body_of
from colpali_integrations.server.content import (
    Content,
    base64_floats,
    content_of,
    contents_of,
    multi_vectors,
    token_count,
)
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import EMBEDDINGS, MULTI_VECTOR, POOLING
from colpali_integrations.server.service import Service
from colpali_integrations.server.writing import NumbersResponse, check_size

__all__ = ["embeddings", "models", "multi_vector", "pooling"]


async def models(request: Request, service: Service) -> Response:
    """The one model that is served."""
    model = {"id": service.name, "object": "model", "created": 0, "owned_by": "colpali-integrations"}
    return JSONResponse({"object": "list", "data": [model]})


async def embeddings(request: Request, service: Service) -> Response:
    """One pooled vector per text."""
    body = await body_of(request, EMBEDDINGS)
    service.require_model(body.get("model"))
    return await service.encoding.run(partial(_single, service, body))


async def pooling(request: Request, service: Service) -> Response:
    """All vectors of questions, or of one page."""
    body = await body_of(request, POOLING)
    service.require_model(body.get("model"))
    return await service.encoding.run(partial(_pooled, service, body))


async def multi_vector(request: Request, service: Service) -> Response:
    """All vectors of texts and pages."""
    body = await body_of(request, MULTI_VECTOR)
    service.require_model(body.get("model"))
    dimensions = body.get("dimensions")
    if dimensions is not None and dimensions != service.model.dim:
        raise RequestError(400, f"dimensions must be {service.model.dim}, the length of the model's vectors")
    return await service.encoding.run(partial(_all_vectors, service, body))


def _single(service: Service, body: Mapping[str, Any]) -> Response:
    contents = contents_of(body["input"])
    dimensions = body.get("dimensions")
    single = SingleVectors(service.model, dimensions=None if dimensions is None else int(dimensions))
    encode = single.queries if body.get("input_type") == "query" else single.texts
    vectors = encode([content.text for content in contents])
    packed = body.get("encoding_format") == "base64"
    data = [
        {"object": "embedding", "index": index, "embedding": base64_floats(vector) if packed else vector}
        for index, vector in enumerate(vectors)
    ]
    return _listed(service, data, contents)


def _pooled(service: Service, body: Mapping[str, Any]) -> Response:
    contents = contents_of(body["input"]) if "input" in body else [_message(body["messages"])]
    packed = body.get("encoding_format") == "base64"
    vectors = multi_vectors(service.model, contents, queries=True)
    check_size(vectors)
    data = [
        {"index": index, "object": "pooling", "data": base64_floats(one) if packed else one}
        for index, one in enumerate(vectors)
    ]
    return _listed(service, data, contents, id=f"pool-{token_hex(16)}", created=int(time.time()))


def _all_vectors(service: Service, body: Mapping[str, Any]) -> Response:
    contents = contents_of(body["input"])
    vectors = multi_vectors(service.model, contents, queries=body.get("input_type") == "query")
    check_size(vectors)
    data = [{"object": "embeddings", "index": index, "embeddings": one} for index, one in enumerate(vectors)]
    return _listed(service, data, contents)


def _message(messages: Any) -> Content:
    """The page of a message, or else its text.

    Raises:
        RequestError: several pages or texts.
    """
    [message] = messages
    if isinstance(message["content"], str):
        return Content(message["content"])
    contents = list(map(content_of, message["content"]))
    pages = [content for content in contents if content.image] or contents
    if len(pages) > 1:
        raise RequestError(400, "messages: a message may have one page or one text; send one request for each")
    return pages[0]


def _listed(service: Service, data: list[Any], contents: list[Content], **more: Any) -> Response:
    tokens = token_count(service.model, contents)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return NumbersResponse({**more, "object": "list", "model": service.name, "data": data, "usage": usage})
