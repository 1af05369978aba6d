"""Our own addresses: searches, pages and their pictures."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.errors import InputError
from colpali_integrations.explain.drawing import draw_regions
from colpali_integrations.pages.reference import draw_page, encode_png, has_content_hash, is_permitted
from colpali_integrations.server.checking import body_of
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import SEARCH
from colpali_integrations.server.service import Service
from colpali_integrations.stores import Entry, Hit

__all__ = ["LARGEST_DPI", "MOST_BOXES", "SMALLEST_DPI", "page", "picture", "search"]

SMALLEST_DPI, LARGEST_DPI, MOST_BOXES = 10, 300, 200
_OPTIONS = ("k", "hybrid", "mode", "oversampling", "min_relevance")


async def search(request: Request, service: Service) -> Response:
    """Find the pages that answer a question."""
    body = await body_of(request, SEARCH)
    return await service.questions.run(partial(_found, service, body))


async def page(request: Request, service: Service) -> Response:
    """The metadata and the text of a page."""
    entry = await service.questions.run(partial(_entry, service, request.path_params["id"]))
    return JSONResponse({**_described(entry), "text": entry.text, "metadata": dict(entry.metadata)})


async def picture(request: Request, service: Service) -> Response:
    """The picture of a page, with boxes."""
    dpi, boxes = _dpi(request.query_params.get("dpi")), _boxes(request.query_params.get("boxes"))
    entry = await service.questions.run(partial(_entry, service, request.path_params["id"]))
    drawn = hashlib.sha256(repr((entry.content_hash, dpi, boxes)).encode()).hexdigest()[:32]
    # A browser may keep the picture, and asks each time whether it still may show it.
    headers = {"ETag": f'"{drawn}"', "Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    _check_shown(service, entry)
    if request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content = await service.pictures.run(partial(_drawn, service, entry, dpi, boxes))
    return Response(content, media_type="image/png", headers=headers)


def _found(service: Service, body: Mapping[str, Any]) -> Response:
    options = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    if body.get("filter") is not None:
        options["where"] = body["filter"]
    hits = service.search(body["query"], options)
    boxes: Mapping[str, Any] = {}
    if body.get("regions") and hits and hits.query is not None:
        ids = [hit.id for hit in hits if hit.entry.is_page]
        query, tokens = hits.query, hits.tokens
        boxes = service.current.use(lambda store: store.regions(query, ids, tokens=tokens))
    found = [_hit(hit, boxes, regions=bool(body.get("regions")), text=bool(body.get("text"))) for hit in hits]
    return JSONResponse({"query": body["query"], "model": service.name, "hits": found})


def _hit(hit: Hit, boxes: Mapping[str, Any], *, regions: bool, text: bool) -> dict[str, Any]:
    bm25 = None if hit.bm25 is None else float(hit.bm25)
    scores = {"score": float(hit.score), "relevance": float(hit.relevance), "max_sim": float(hit.max_sim), "bm25": bm25}
    found = {**_described(hit.entry), **scores, "matches": hit.matches, "metadata": dict(hit.entry.metadata)}
    if text:
        found["text"] = hit.entry.text
    if regions:
        found["regions"] = boxes.get(hit.id, [])
    return found


def _described(entry: Entry) -> dict[str, Any]:
    where = {"document_id": entry.document_id, "source": entry.source, "page": entry.page}
    return {"id": entry.id, "name": entry.name, **where}


def _entry(service: Service, id_: str) -> Entry:
    [entry] = service.current.use(lambda store: store.get([id_]))
    if entry is None:
        raise RequestError(404, f"the index has no page with the id {id_!r}", "no_such_page")
    return entry


def _check_shown(service: Service, entry: Entry) -> None:
    """Refuse a page whose file is in none of the server's folders, or could be exchanged without notice.

    Raises:
        RequestError: it is one.
    """
    metadata = entry.metadata
    if not entry.is_page:
        raise RequestError(404, f"{entry.name} is a text and has no picture", "no_picture")
    if not is_permitted(metadata, service.access):
        raise RequestError(
            403,
            f"{entry.name} is not shown: its file is in none of the server's folders. Start the server with --root and "
            "the folder of the file",
            "not_in_roots",
        )
    if not metadata.get("image_base64") and not has_content_hash(metadata):
        raise RequestError(403, f"{entry.name} is not shown: it has no content_hash; index it again", "no_content_hash")


def _drawn(service: Service, entry: Entry, dpi: float | None, boxes: Sequence[Mapping[str, Any]]) -> bytes:
    try:
        image = draw_page(entry.metadata, service.access, dpi=dpi)
    except InputError as error:
        raise RequestError(410, str(error), "not_drawn") from error
    return encode_png(draw_regions(image, boxes, labels=False) if boxes else image)


def _dpi(text: str | None) -> float | None:
    if text is None:
        return None
    number = _number(text)
    if number is None or not SMALLEST_DPI <= number <= LARGEST_DPI:
        raise RequestError(400, f"dpi must be a number from {SMALLEST_DPI} to {LARGEST_DPI}, got {text[:40]!r}")
    return number


def _boxes(text: str | None) -> list[dict[str, Any]]:
    """Boxes as "left,top,right,bottom;...", in fractions of the page."""
    if not text:
        return []
    parts = text.split(";")
    if len(parts) > MOST_BOXES:
        raise RequestError(400, f"boxes: at most {MOST_BOXES} boxes, got {len(parts)}")
    boxes = [[_number(edge) for edge in part.split(",")] for part in parts]
    for box, part in zip(boxes, parts, strict=True):
        edges = [edge for edge in box if edge is not None and 0 <= edge <= 1]
        if len(box) != 4 or len(edges) != 4 or edges[0] > edges[2] or edges[1] > edges[3]:
            raise RequestError(
                400,
                "boxes must be left,top,right,bottom as fractions of the page, with ; between boxes, such as "
                f"0.1,0.2,0.5,0.25; got {part[:60]!r}",
            )
    return [{"box": box} for box in boxes]


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
