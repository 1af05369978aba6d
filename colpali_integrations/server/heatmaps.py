"""The heatmap of a question as a picture of its own, which lies over the picture of the page."""

from __future__ import annotations

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from colpali_integrations.explain.drawing import heat_layer
from colpali_integrations.pages.reference import encode_png
from colpali_integrations.server.pictures import maps_of, question_of, word_of
from colpali_integrations.server.service import Service

__all__ = ["heatmap"]

_SIDE = 240  # pixels of the longest side; the browser interpolates


async def heatmap(request: Request, service: Service) -> Response:
    """Where a page matches a question or one of its words: a small picture with transparency, to lay over the page."""
    query = request.query_params
    question, word = question_of(query, "query"), word_of(query)
    content = await service.pictures.run(partial(_layer, service, request.path_params["id"], question, word))
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="image/png", headers=headers)


def _layer(service: Service, id_: str, question: str, word: str | None) -> bytes:
    maps = maps_of(service, id_, question)
    rows, columns = maps.maps.shape[1:]
    width, height = columns * maps.filled[0], rows * maps.filled[1]
    scale = _SIDE / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return encode_png(heat_layer(maps, word, size=size))
