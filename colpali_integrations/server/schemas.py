"""Schemas of the bodies of requests, for their check and for the OpenAPI description.

The shapes of other services are written from their public description: OpenAI's API reference (embeddings, as the
package openai 3.57 sends it), Cohere's (rerank v1 and v2, as cohere 7.3 sends it), and vLLM's (`PoolingRequest`,
`ScoreRequest`; its 0.18 documentation). Of Jina's (rerank, multi-vector) only the requests of public clients and the
beginning of its OpenAPI description were seen. Fields of theirs that have no meaning here, such as `user` or
`truncate`, are passed over.
"""

from __future__ import annotations

from typing import Any

from colpali_integrations.server.checking import Schema
from colpali_integrations.stores.served.answers import CALLS

__all__ = [
    *("ANSWER", "EMBEDDINGS", "ENCODE", "ENGINE", "MOST_PAGES", "MOST_TEXTS", "MULTI_VECTOR"),
    *("POOLING", "RERANK", "SCORE", "SEARCH", "TOKENS", "UPLOAD"),
]

LONGEST_TEXT = 32_768
MOST_TEXTS = 2048  # as OpenAI's
MOST_DOCUMENTS = 1000  # as Cohere's
MOST_PAGES = 32  # of /v1/encode


def _object(required: tuple[str, ...], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _described(schema: Schema, description: str, **more: Any) -> dict[str, Any]:
    return {**schema, "description": description, **more}


def _list(items: Schema, most: int) -> dict[str, Any]:
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


def _any(*schemas: Schema) -> dict[str, Any]:
    return {"anyOf": list(schemas)}


def _nullable(schema: Schema, description: str = "") -> dict[str, Any]:
    kinds = schema.get("anyOf", [schema])
    return {"anyOf": [*kinds, {"type": "null"}], **({"description": description} if description else {})}


TEXT = {"type": "string", "minLength": 1, "maxLength": LONGEST_TEXT}  # and more than white space
DATA_URI = {"type": "string", "x-prefix": "data:image/", "pattern": "^[dD][aA][tT][aA]:[iI][mM][aA][gG][eE]/"}
MODEL = _nullable({"type": "string"}, "The name of the model, as /v1/models has it; another one is an error.")
NUMBER = {"type": "number", "minimum": 0, "maximum": 1}

SEARCH: Schema = {
    **_object(
        ("query",),
        query=_described(TEXT, "The question, in your own words."),
        k=_described({"type": "integer", "minimum": 1, "maximum": 1000}, "The largest number of pages.", default=10),
        filter=_nullable({"type": "object"}, 'Only matching pages, such as {"year": {"$gte": 2020}}.'),
        hybrid=_described(
            _any({"type": "boolean"}, {"type": "string", "enum": ["auto", "rrf"]}, NUMBER, {"type": "null"}),
            "Rank by the words of the text layer too: true by a weight that each question decides, a number as the "
            "weight of the text, 'rrf' by reciprocal ranks; false for the pages' looks alone; 'auto' and null do what "
            "pays for the model.",
            default="auto",
            **{"x-named": '"auto", "rrf", true, false, null or a number from 0 to 1'},
        ),
        regions=_described({"type": "boolean"}, "Add the boxes that answer words of the question.", default=False),
        text=_described({"type": "boolean"}, "Add the text of each page.", default=False),
        pictures=_described(
            {"type": "boolean"},
            "Add why a page is not shown as a picture: picture_error, null if it is.",
            default=False,
        ),
        min_relevance=_nullable(NUMBER, "Leave out pages of a lower relevance."),
        mode=_described({"type": "string", "enum": ["auto", "exact", "two_stage"]}, "See stores.", default="auto"),
        oversampling=_nullable({"type": "number", "minimum": 1, "maximum": 1000}, "Of the first stage."),
    ),
    "additionalProperties": False,
}

ANSWER: Schema = {
    **_object(
        ("query", "pages"),
        query=_described(TEXT, "The question."),
        pages=_described(_list({"type": "string", "minLength": 1}, 8), "Ids of pages, as a search returns them."),
    ),
    "additionalProperties": False,
}

_TEXTS = _any(TEXT, _list(TEXT, MOST_TEXTS))

EMBEDDINGS: Schema = _object(
    ("input",),
    input=_described(_TEXTS, "One or several texts; lists of token ids are not taken."),
    model=MODEL,
    input_type=_nullable(
        {"type": "string", "enum": ["query", "document", "passage"]}, "'query' for questions; 'document' by default."
    ),
    encoding_format=_nullable({"type": "string", "enum": ["float", "base64"]}, "'float' by default."),
    dimensions=_nullable({"type": "integer", "minimum": 1}, "For models with a trained dense vector."),
)

_IMAGE_PART = _object(
    ("type", "image_url"),
    type={"type": "string", "enum": ["image_url"]},
    image_url=_object(("url",), url=DATA_URI),
)
_TEXT_PART = _object(("type", "text"), type={"type": "string", "enum": ["text"]}, text=TEXT)
_PART = _any(_IMAGE_PART, _TEXT_PART)

POOLING: Schema = {
    **_object(
        (),
        input=_described(_TEXTS, "Questions, of which all vectors are returned."),
        messages=_described(
            {
                **_list(
                    _object(
                        ("role", "content"),
                        role={"type": "string"},
                        content=_any(TEXT, _list(_PART, 2)),
                    ),
                    1,
                ),
            },
            "One message of a user: a page as image_url, a data URI; or a question as text. The text beside a page is "
            "passed over, because the model's prompt is that of its training.",
        ),
        model=MODEL,
        task=_nullable({"type": "string", "enum": ["token_embed"]}, "The only task of these models."),
        encoding_format=_nullable(
            {"type": "string", "enum": ["float", "base64"]}, "base64: float32, little endian, (n, dim) row by row."
        ),
        embed_dtype=_nullable({"type": "string", "enum": ["float32"]}),
        dimensions={"type": "null"},
    ),
    "x-required-any": [["input"], ["messages"]],
}

_SCORED = _any(
    TEXT,
    _object(("content",), content=_list(_PART, MOST_DOCUMENTS)),
    _list(_any(TEXT, _PART), MOST_DOCUMENTS),
)

SCORE: Schema = {
    **_object(
        (),
        model=MODEL,
        **{
            name: _described(_SCORED, description)
            for name, description in {
                "text_1": "One question, or as many as there are documents.",
                "text_2": "Documents: texts, or content parts with text or image_url (a data URI).",
                "queries": "As text_1.",
                "documents": "As text_2.",
                "data_1": "As text_1.",
                "data_2": "As text_2.",
            }.items()
        },
    ),
    "x-required-any": [["text_1", "text_2"], ["queries", "documents"], ["data_1", "data_2"]],
}

_RANKED = _any(TEXT, _object(("text",), text=TEXT), _object(("image",), image=DATA_URI))

RERANK: Schema = _object(
    ("query", "documents"),
    query=_described(TEXT, "The question."),
    documents=_described(_list(_RANKED, MOST_DOCUMENTS), "Texts, or objects with text or image (a data URI)."),
    model=MODEL,
    top_n=_nullable({"type": "integer", "minimum": 1}, "The best so many; all by default."),
    return_documents=_nullable({"type": "boolean"}, "Add the documents to the results."),
)

MULTI_VECTOR: Schema = _object(
    ("input",),
    input=_list(_RANKED, MOST_TEXTS),
    model=MODEL,
    input_type=_nullable({"type": "string", "enum": ["query", "document"]}, "'document' by default."),
    embedding_type=_nullable({"type": "string", "enum": ["float"]}),
    dimensions=_nullable({"type": "integer", "minimum": 1}, "The length of the model's vectors; another is refused."),
)

_WHOLE_TEXT = {"type": "string", "minLength": 1, "maxLength": 2**20}
_FINGERPRINT = _nullable({"type": "string"}, "The key of the model's fingerprint; that of another model is refused.")

ENCODE: Schema = {
    **_object(
        (),
        queries=_described(_list(_WHOLE_TEXT, MOST_TEXTS), "Questions; with tokens in the answer."),
        texts=_described(_list(_WHOLE_TEXT, MOST_TEXTS), "Texts that are searched beside pages."),
        pages=_described(_list(DATA_URI, MOST_PAGES), "Pages as data URIs of images."),
        dense=_described({"type": "boolean"}, "One vector of the trained dense head per item instead.", default=False),
        grid=_described({"type": "boolean"}, "The grid of each page too, for regions.", default=False),
        fingerprint=_FINGERPRINT,
    ),
    "additionalProperties": False,
    "x-required-any": [["queries"], ["texts"], ["pages"]],
}

TOKENS: Schema = {
    **_object(
        ("texts",),
        texts=_described(_list(_WHOLE_TEXT, MOST_TEXTS), "Questions."),
        fingerprint=_FINGERPRINT,
    ),
    "additionalProperties": False,
}

ENGINE: Schema = {
    **_object(
        ("call", "arguments"),
        call=_described({"type": "string", "enum": sorted(CALLS)}, "The name of the call."),
        arguments=_described({"type": "object"}, "Those of the call, in a form that may change with each version."),
    ),
    "additionalProperties": False,
}

UPLOAD: Schema = {
    **_object(
        ("file",),
        file=_described(
            {"type": "string", "contentMediaType": "application/octet-stream"}, "A PDF, Office file or image."
        ),
        metadata=_described({"type": "string"}, 'A JSON object, for filters: {"year": 2024}.'),
        document_id=_described({"type": "string"}, "Of an uploaded document, which the file replaces."),
    ),
    "additionalProperties": False,
}
