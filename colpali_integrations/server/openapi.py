"""The OpenAPI description of the server, made from the table of addresses and the schemas of their bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from colpali_integrations._version import __version__
from colpali_integrations.server import schemas
from colpali_integrations.server.access import OPEN
from colpali_integrations.server.checking import Schema
from colpali_integrations.server.documents import JOBS_CURSOR, LARGEST_LIMIT
from colpali_integrations.server.pictures import FORMATS, LARGEST_DPI, LARGEST_WIDTH, SMALLEST_DPI, SMALLEST_WIDTH

__all__ = ["described"]

_BODIES: Mapping[str, tuple[str, Schema]] = {
    "/v1/search": ("application/json", schemas.SEARCH),
    "/v1/answers": ("application/json", schemas.ANSWER),
    "/v1/embeddings": ("application/json", schemas.EMBEDDINGS),
    "/v1/multi-vector": ("application/json", schemas.MULTI_VECTOR),
    "/pooling": ("application/json", schemas.POOLING),
    "/v1/rerank": ("application/json", schemas.RERANK),
    "/v2/rerank": ("application/json", schemas.RERANK),
    "/score": ("application/json", schemas.SCORE),
    "/v1/encode": ("application/json", schemas.ENCODE),
    "/v1/tokens": ("application/json", schemas.TOKENS),
    "/v1/engine": ("application/json", schemas.ENGINE),
    "/v1/documents": ("multipart/form-data", schemas.UPLOAD),
}
_BOX = r"(0(\.[0-9]+)?|1),(0(\.[0-9]+)?|1),(0(\.[0-9]+)?|1),(0(\.[0-9]+)?|1)"
_QUESTION = {"type": "string", "minLength": 1, "maxLength": schemas.LONGEST_TEXT}
_WORD = {
    "name": "word",
    "in": "query",
    "schema": {"type": "string", "minLength": 1},
    "description": "A word of the question, as `regions` of a search name it; all words by default.",
}
_LIMIT = {
    "name": "limit",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT},
    "description": "The most of one answer.",
}
_NEXT = "The next_cursor of the answer before, which is null in the last one."
_QUERIES: Mapping[str, list[dict[str, Any]]] = {
    "/v1/pages/{id:path}/image": [
        {
            "name": "dpi",
            "in": "query",
            "schema": {"type": "number", "minimum": SMALLEST_DPI, "maximum": LARGEST_DPI},
            "description": "Resolution of a PDF's page; that of the index by default.",
        },
        {
            "name": "boxes",
            "in": "query",
            "schema": {"type": "string", "pattern": f"^{_BOX}(;{_BOX})*$"},
            "description": "Boxes to draw, as left,top,right,bottom in fractions of the page, with ; between boxes.",
        },
        {
            "name": "width",
            "in": "query",
            "schema": {"type": "integer", "minimum": SMALLEST_WIDTH, "maximum": LARGEST_WIDTH},
            "description": "The largest width in pixels.",
        },
        {
            "name": "format",
            "in": "query",
            "schema": {"type": "string", "enum": list(FORMATS)},
            "description": "'png' by default.",
        },
        {
            "name": "heatmap",
            "in": "query",
            "schema": _QUESTION,
            "description": "A question, whose matches are drawn as a heatmap.",
        },
        _WORD,
    ],
    "/v1/pages/{id:path}/heatmap": [
        {"name": "query", "in": "query", "required": True, "schema": _QUESTION, "description": "The question."},
        _WORD,
    ],
    "/v1/documents": [_LIMIT, {"name": "cursor", "in": "query", "schema": {"type": "string"}, "description": _NEXT}],
    "/v1/jobs": [
        _LIMIT,
        {
            "name": "cursor",
            "in": "query",
            "schema": {"type": "string", "pattern": f"^{JOBS_CURSOR}$"},
            "description": _NEXT,
        },
    ],
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_PICTURE = {"image/png": _BINARY, "image/jpeg": _BINARY}
_TEXT = {"text/plain": {"schema": {"type": "string"}}}
_OBJECT = {"application/json": {"schema": {"type": "object"}}}
_SUCCESS: Mapping[tuple[str, str], tuple[str, Mapping[str, Any]]] = {
    ("GET", "/metrics"): ("200", _TEXT),
    ("GET", "/v1/pages/{id:path}/image"): ("200", _PICTURE),
    ("GET", "/v1/pages/{id:path}/heatmap"): ("200", {"image/png": _BINARY}),
    ("POST", "/v1/documents"): ("202", _OBJECT),
}
_REFUSALS = {
    "400": "The request is not as described; the message says where.",
    "401": "The API key is missing, or another one.",
    "403": "The page may not be shown, the key may only read, or a web page of another origin asks.",
    "404": "There is no such model, page, document or job, or no chat model.",
    "408": "The body did not come in time.",
    "409": "The index is open for reading, or the server's model makes pages with other settings than its own.",
    "410": "The file of the page is missing or has changed.",
    "413": "The body, the file or its number of pages is too large.",
    "415": "The body has another type.",
    "421": "The server does not answer to this name.",
    "429": "The queue is full; Retry-After has the seconds to wait.",
    "502": "The chat model has failed.",
    "503": "The server stops, or the store cannot be used; Retry-After has the seconds to wait.",
    "507": "The uploaded files take all the room that they may have.",
}
_ERROR = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "message": {"type": "string"},
        "detail": {"type": "string"},
        "error": {
            "type": "object",
            "required": ["message", "type", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "code": {"type": "string"},
                "param": {"type": "null"},
            },
        },
    },
}


def described(addresses: Any, *, needs_key: bool) -> dict[str, Any]:
    """The description, as `/openapi.json` returns it.

    Args:
        addresses: the table of `routes`.
        needs_key: whether the server has an API key.
    """
    paths: dict[str, dict[str, Any]] = {}
    for method, path, handler, *_ in addresses:
        operation = _operation(method, path, (handler.__doc__ or "").strip(), needs_key=needs_key)
        paths.setdefault(path.replace(":path", ""), {})[method.lower()] = operation
    components: dict[str, Any] = {"schemas": {"Error": _ERROR}}
    if needs_key:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    info = {"title": "colpali-integrations", "version": __version__, "license": {"name": "Apache-2.0"}}
    return {"openapi": "3.1.0", "info": info, "paths": paths, "components": components}


def _operation(method: str, path: str, text: str, *, needs_key: bool) -> dict[str, Any]:
    status, content = _SUCCESS.get((method, path), ("200", _OBJECT))
    refusal = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    responses = {status: {"description": "Success.", "content": content}}
    responses |= {one: {"description": why, "content": refusal} for one, why in _REFUSALS.items()}
    operation: dict[str, Any] = {"summary": text.splitlines()[0], "responses": responses}
    if path not in OPEN and needs_key:
        operation["security"] = [{"key": []}]
    parameters = list(_QUERIES.get(path, ())) if method == "GET" else []
    if "{id" in path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if parameters:
        operation["parameters"] = parameters
    if method == "POST":
        kind, schema = _BODIES[path]
        operation["requestBody"] = {"required": True, "content": {kind: {"schema": _plain(schema)}}}
    return operation


def _plain(schema: Any) -> Any:
    """A schema in JSON Schema's words alone."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, Mapping):
        return schema
    plain = {key: _plain(value) for key, value in schema.items() if not key.startswith("x-")}
    if together := schema.get("x-required-any"):
        plain["anyOf"] = [{"required": keys} for keys in together]
    return plain
