"""Our own addresses: searches, pages and their pictures."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations.pages.metadata import PICTURE, picture_hash
from colpali_integrations.pages.reference import has_content_hash, is_permitted, names_picture
from colpali_integrations.server.checking import body_of
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.pictures import PictureOptions, drawn
from colpali_integrations.server.questions import Question
from colpali_integrations.server.schemas import SEARCH
from colpali_integrations.server.service import Service
from colpali_integrations.stores import Entry, Hit

__all__ = ["page", "picture", "picture_error", "search"]

_OPTIONS = ("k", "hybrid", "mode", "oversampling", "min_relevance")


async def search(request: Request, service: Service) -> Response:
    """Find the pages that answer a question."""
    body = await body_of(request, SEARCH)
    options = {name: body[name] for name in _OPTIONS if body.get(name) is not None}
    if body.get("filter") is not None:
        options["where"] = body["filter"]
    question = service.searches.ask(body["query"], options)
    try:
        return await service.questions.run(partial(_found, service, body, question))
    finally:
        service.searches.withdraw(question)


async def page(request: Request, service: Service) -> Response:
    """The metadata and the text of a page."""
    entry = await service.questions.run(partial(_entry, service, request.path_params["id"]))
    return JSONResponse({**_described(entry), "text": entry.text, "metadata": dict(entry.metadata)})


async def picture(request: Request, service: Service) -> Response:
    """The picture of a page, with boxes or the heatmap of a question."""
    options = PictureOptions.read(request.query_params)
    entry = await service.questions.run(partial(_entry, service, request.path_params["id"]))
    # A browser may keep the picture, and asks each time whether it still may show it.
    headers = {"Cache-Control": "private, no-cache", "X-Content-Type-Options": "nosniff"}
    if (content_hash := _content_hash(entry)) is not None:
        tag = hashlib.sha256(repr((content_hash, options)).encode("utf-8", "surrogatepass")).hexdigest()[:32]
        headers["ETag"] = f'"{tag}"'
    _check_shown(service, entry)
    if "ETag" in headers and request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    content, kind = await service.pictures.run(partial(drawn, service, entry, options))
    return Response(content, media_type=kind, headers=headers)


def _content_hash(entry: Entry) -> str | None:
    """A hash of what is drawn; None for a file of which none is known."""
    encoded = entry.metadata.get("image_base64")
    if not entry.content_hash and isinstance(encoded, str):
        return picture_hash(encoded)
    return entry.content_hash or None


def _found(service: Service, body: Mapping[str, Any], question: Question) -> Response:
    hits = service.searches.answer(question)
    boxes: Mapping[str, Any] = {}
    if body.get("regions") and hits and hits.query is not None:
        ids = [hit.id for hit in hits if hit.entry.is_page]
        query, tokens = hits.query, hits.tokens
        boxes = service.current.use(lambda store: store.regions(query, ids, tokens=tokens))
    found = [_hit(hit, boxes, regions=bool(body.get("regions")), text=bool(body.get("text"))) for hit in hits]
    if body.get("pictures"):
        for one, hit in zip(found, hits, strict=True):
            one["picture_error"] = picture_error(service, hit.entry)
    return JSONResponse(
        {"query": body["query"], "model": service.name, "doubtful": hits.matching().doubtful, "hits": found}
    )


def _hit(hit: Hit, boxes: Mapping[str, Any], *, regions: bool, text: bool) -> dict[str, Any]:
    bm25 = None if hit.bm25 is None else float(hit.bm25)
    scores = {"score": float(hit.score), "relevance": float(hit.relevance), "max_sim": float(hit.max_sim), "bm25": bm25}
    halves = None if hit.halves is None else hit.halves.to_dict()
    found = {
        **_described(hit.entry),
        **scores,
        "halves": halves,
        "matches": hit.matches,
        # A picture of some MB has an address of its own.
        "metadata": {key: value for key, value in hit.entry.metadata.items() if key != "image_base64"},
    }
    if text:
        found["text"] = hit.entry.text
    if regions:
        found["regions"] = boxes.get(hit.id, [])
    return found


def picture_error(service: Service, entry: Entry) -> str | None:
    """Why a page is not shown as a picture; None if it is."""
    try:
        _check_shown(service, entry)
    except RequestError as error:
        return str(error)
    return None


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
    if not entry.has_picture:
        raise RequestError(404, f"{entry.name} is a text and has no picture", "no_picture")
    if names_picture(metadata) and "://" in metadata[PICTURE]:
        raise RequestError(
            403, f"{entry.name} is not shown: its picture is at an address, which is not fetched", "not_fetched"
        )
    if not is_permitted(metadata, service.access):
        raise RequestError(
            403,
            f"{entry.name} is not shown: its file is in none of the server's folders. Start the server with --root and "
            "the folder of the file",
            "not_in_roots",
        )
    if not metadata.get("image_base64") and not names_picture(metadata) and not has_content_hash(metadata):
        raise RequestError(403, f"{entry.name} is not shown: it has no content_hash; index it again", "no_content_hash")
