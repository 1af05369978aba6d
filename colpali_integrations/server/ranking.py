"""Reranking of a request's own documents: Cohere's and Jina's `/v1/rerank`, Cohere's `/v2/rerank`, vLLM's `/score`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from secrets import token_hex
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.server.checking import body_of
from colpali_integrations.server.content import Content, contents_of, most_images, token_count
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import RERANK, SCORE
from colpali_integrations.server.service import Service

__all__ = ["rerank", "score"]

_PAIRS = (("text_1", "text_2"), ("queries", "documents"), ("data_1", "data_2"))


async def rerank(request: Request, service: Service) -> Response:
    """The documents by their relevance for a question, the best first."""
    body = await body_of(request, RERANK)
    service.require_model(body.get("model"))
    version = request.url.path.split("/")[1].removeprefix("v")
    return await service.encoding.run(partial(_reranked, service, body, version))


async def score(request: Request, service: Service) -> Response:
    """MaxSim of pairs of a question and a document."""
    body = await body_of(request, SCORE)
    service.require_model(body.get("model"))
    return await service.encoding.run(partial(_scored, service, body))


def _reranked(service: Service, body: Mapping[str, Any], version: str) -> Response:
    documents = contents_of(body["documents"])
    most_images(documents)
    scores = service.scorer.scores(body["query"], [document.candidate for document in documents])
    order = sorted(range(len(scores)), key=lambda index: -scores[index].max_sim)  # ties in the order of the request
    top = body.get("top_n")
    results: list[dict[str, Any]] = [
        {"index": index, "relevance_score": scores[index].relevance}
        for index in order[: None if top is None else int(top)]
    ]
    if body.get("return_documents"):
        for result in results:
            document = documents[result["index"]]
            result["document"] = {"image": document.image} if document.image else {"text": document.text}
    tokens = token_count(service.model, [Content(body["query"]), *documents])
    return JSONResponse(
        {
            "id": token_hex(16),
            "model": service.name,
            "results": results,
            "meta": {"api_version": {"version": version}},
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }
    )


def _scored(service: Service, body: Mapping[str, Any]) -> Response:
    first, second = next(pair for pair in _PAIRS if all(name in body for name in pair))
    queries, documents = contents_of(body[first]), contents_of(body[second])
    if any(query.image for query in queries):
        raise RequestError(400, f"{first}: a question is a text, got an image; the pages belong into {second}")
    if len(queries) not in (1, len(documents)):
        raise RequestError(
            400, f"{first} must have one question or as many as {second}, got {len(queries)} and {len(documents)}"
        )
    most_images(documents)
    data = [
        {"index": index, "object": "score", "score": score}
        for index, score in enumerate(_scores(service, queries, documents))
    ]
    tokens = token_count(service.model, [*queries, *documents])
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    head = {"id": f"score-{token_hex(16)}", "object": "list", "created": int(time.time()), "model": service.name}
    return JSONResponse({**head, "data": data, "usage": usage})


def _scores(service: Service, queries: Sequence[Content], documents: Sequence[Content]) -> list[float]:
    candidates = [document.candidate for document in documents]
    if len(queries) == 1:
        return [one.max_sim for one in service.scorer.scores(queries[0].text, candidates)]
    scores = []
    for query, candidate in zip(queries, candidates, strict=True):
        [one] = service.scorer.scores(query.text, [candidate])
        scores.append(one.max_sim)
    return scores
