"""The model for `ColPali` on other machines: its description, vectors with the grids of pages, and tokens."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from colpali_integrations._version import __version__
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.server.bodies import MOST_OF_PAGES
from colpali_integrations.server.checking import body_of
from colpali_integrations.server.content import base64_floats
from colpali_integrations.server.errors import RequestError
from colpali_integrations.server.schemas import ENCODE, MOST_PAGES, MOST_TEXTS, TOKENS
from colpali_integrations.server.service import Service

__all__ = ["described", "encode", "tokens"]

_KINDS = ("queries", "texts", "pages")


async def described(request: Request, service: Service) -> Response:
    """The model with its fingerprint, and the limits of requests to encode."""
    description = service.model.description
    return JSONResponse(
        {
            "description": description.to_dict(),
            "fingerprint": asdict(description.fingerprint),
            "reads_print": service.model.reads_print,
            "limits": {"bytes": MOST_OF_PAGES, "pages": MOST_PAGES, "texts": MOST_TEXTS},
            "version": __version__,
        }
    )


async def encode(request: Request, service: Service) -> Response:
    """All vectors of questions, texts or pages in base64, with grids and tokens: as the model gives them."""
    body = await body_of(request, ENCODE)
    _require_fingerprint(service, body)
    given = [kind for kind in _KINDS if kind in body]
    if len(given) != 1:
        raise RequestError(400, f"send one of {', '.join(_KINDS)}, got {' and '.join(given)}")
    # Texts take milliseconds, and pages seconds: a question of another machine does not wait for pages.
    queue = service.encoding if given == ["pages"] else service.questions
    return await queue.run(partial(_encoded, service.model, given[0], body))


async def tokens(request: Request, service: Service) -> Response:
    """The pieces of questions that their vectors stand for."""
    body = await body_of(request, TOKENS)
    _require_fingerprint(service, body)
    return await service.questions.run(partial(_tokens_of_all, service.model, body["texts"]))


def _require_fingerprint(service: Service, body: Mapping[str, Any]) -> None:
    wanted, description = body.get("fingerprint"), service.model.description
    if wanted is not None and wanted != description.fingerprint.key:
        raise RequestError(409, f"the server has another model now, {description.name!r}; open it again", "other_model")


def _encoded(model: ColPali, kind: str, body: Mapping[str, Any]) -> Response:
    items: list[str] = body[kind]
    if body.get("dense"):
        answers = _dense(model, kind, items)
    elif kind == "pages" and body.get("grid"):
        answers = [
            {**_array(page.vectors), "grid": page.grid.to_json(), "reads_little": model.reads_little(page)}
            for page in model.embed_pages(items)
        ]
    elif kind == "pages":
        answers = [_array(vectors) for vectors in model.embed_images(items)]
    else:
        encode = model.embed_queries if kind == "queries" else model.embed_texts
        answers = [_array(vectors) for vectors in encode(items)]
    if kind == "queries":
        answers = [{**answer, **_tokens(model, text)} for answer, text in zip(answers, items, strict=True)]
    return _listed(answers)


def _dense(model: ColPali, kind: str, items: Sequence[str]) -> list[dict[str, Any]]:
    if kind == "pages":
        return [_array(vector) for vector in model.embed_images_dense(items)]
    encode = model.embed_queries_dense if kind == "queries" else model.embed_texts_dense
    return [_array(vector) for vector in encode(items)]


def _tokens_of_all(model: ColPali, texts: Sequence[str]) -> Response:
    return _listed([_tokens(model, text) for text in texts])


def _tokens(model: ColPali, text: str) -> dict[str, Any]:
    count, of_text = (model.token_count(text, include_special=special) for special in (True, False))
    return {"tokens": model.query_tokens(text), "token_count": count, "text_token_count": of_text}


def _array(vectors: Any) -> dict[str, Any]:
    return {"shape": list(vectors.shape), "vectors": base64_floats(vectors)}


def _listed(answers: list[dict[str, Any]]) -> Response:
    return JSONResponse({"data": answers})
