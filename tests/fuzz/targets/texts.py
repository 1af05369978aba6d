"""Targets that read texts, options, filters and metadata."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

from llama_index.core.vector_stores import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from pydantic import ValidationError
from typer import BadParameter

from colpali_integrations.cli.options import json_filter, page_numbers, tags
from colpali_integrations.errors import StoreError
from colpali_integrations.explain.grid import PageGrid
from colpali_integrations.explain.report import ReportPage, render_report
from colpali_integrations.explain.snippet import mark_words, snippet
from colpali_integrations.llama_index._filters import store_filter
from colpali_integrations.models.coltiny.words import FEATURE_COUNT, query_words, word_features
from colpali_integrations.pages.arguments import page_numbers as whole_numbers
from colpali_integrations.pages.identity import document_id, page_id
from colpali_integrations.pages.images import load_image
from colpali_integrations.pages.metadata import content_key, page_number
from colpali_integrations.scoring.bm25 import Bm25, bm25_scores
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.filters import Operator, matches, parse_filter
from tests.fuzz.choices import Choices, json_text
from tests.fuzz.engine import Target

_FIELDS = ("source", "page", "tenant", "topics", "a.b", "")
_OPERATORS = (*(op.value for op in Operator), "$and", "$or", "$nor", "$not")


def uri(data: bytes) -> None:
    """Data URIs and addresses of files and pages; nothing is fetched."""
    choices = Choices(data)
    scheme = choices.pick(
        ("data:", "data:image/png;base64,", "file://", "file:", "http://", "https://[", "", "DATA:,", "//")
    )
    text = scheme + choices.text() + choices.rest().decode("utf-8", "surrogateescape")
    load_image(text)


def options(data: bytes) -> None:
    """Page ranges, metadata and filters of the command line, and numbers of pages in Python."""
    choices = Choices(data)
    kind, text = choices.byte() % 4, choices.text()
    if kind == 0:
        digits = "".join(choices.pick("0123456789-, ٣²") for _ in range(choices.byte() % 24))
        page_numbers(digits if choices.flag() else text)
    elif kind == 1:
        tags([f"{choices.text()}={json_text(choices.value())}", f"{text}={choices.text()}"])
    elif kind == 2:
        json_filter(text if choices.flag() else json_text(choices.value(keys=_OPERATORS)))
    else:
        whole_numbers([choices.scalar() for _ in range(choices.byte() % 4)])


def filters(data: bytes) -> None:
    """Filters as LangChain's users write them, against an entry's payload; a parsed filter survives its dict."""
    choices = Choices(data)
    where: Any = choices.mapping(4, (*_FIELDS, *_OPERATORS)) if choices.byte() % 8 else choices.value()
    payload = {"metadata": choices.mapping(2, _FIELDS), "id": "a", "text": choices.text()}
    parsed = parse_filter(where)
    if parsed is not None:
        matched = matches(parsed, payload)
        again = parse_filter(parsed.to_dict())
        assert again is None or matches(again, payload) == matched


def llama_filters(data: bytes) -> None:
    """LlamaIndex's MetadataFilters; what pydantic refuses is no filter."""
    choices = Choices(data)

    def part(depth: int) -> MetadataFilter | MetadataFilters:
        if depth and choices.byte() % 3 == 0:
            parts = [part(depth - 1) for _ in range(choices.byte() % 4)]
            return MetadataFilters(filters=parts, condition=choices.pick([*FilterCondition, None]))
        key, operator = choices.pick((*_FIELDS, choices.text())), choices.pick(list(FilterOperator))
        return MetadataFilter(key=key, value=choices.value(2), operator=operator)

    try:
        where = MetadataFilters(filters=[part(3) for _ in range(choices.byte() % 4)])
    except ValidationError:
        return
    entry = Entry(id="a", metadata={"topics": ["a"], "page": 1})
    translated = store_filter(where, scan=lambda _: [entry])
    if translated is not None:
        matches(translated, entry.to_payload())


def identity(data: bytes) -> None:
    """Metadata of entries: what a store accepts comes back unchanged; and the identity of documents."""
    choices = Choices(data)
    metadata = choices.mapping(4, _FIELDS)
    text = choices.text()
    page_number(metadata)
    content_key({**metadata, **({"image_base64": text} if choices.flag() else {})}, text)
    entry = Entry(id=choices.text(), text=text, metadata=metadata, extra=choices.mapping(1))
    payload = entry.to_payload()
    assert Entry.from_payload(json.loads(json.dumps(payload))) == entry
    location = document_id(choices.text(), metadata)
    assert page_id(location, 1) != page_id(location, 2)


def payload(data: bytes) -> None:
    """Entries of a damaged or foreign store."""
    choices = Choices(data)
    whole = {
        "id": "a",
        "text": "low tide",
        "metadata": {"page": 1, "source": "a.pdf"},
        "document_id": "a.pdf",
        "content_hash": "0" * 64,
        "grid": PageGrid(2, 3, [0, 5, -1]).to_json(),  # type: ignore[arg-type]
        "extra": {},
    }
    entry = Entry.from_payload({key: choices.changed(value) for key, value in whole.items() if choices.byte() % 16})
    _ = entry.name, entry.page, entry.source, entry.has_text, entry.is_page, entry.grid


def grid(data: bytes) -> None:
    """Grids from JSON; one that is accepted survives its JSON."""
    choices = Choices(data)
    cells = [choices.byte() % 12 - 1 for _ in range(choices.byte() % 8)]
    written = PageGrid(3, 4, cells, margins=[[choices.byte()] * 4 for _ in cells] or None).to_json()  # type: ignore[arg-type]
    read = PageGrid.from_json(choices.changed(written, ("margins", "filled", "rows")))
    assert PageGrid.from_json(json.loads(json.dumps(read.to_json()))) == read
    for vector in range(min(len(read), 8)):
        read.box(vector)


def words(data: bytes) -> None:
    """Words of BM25 and of ColTiny, excerpts and marks."""
    choices = Choices(data)
    text, question = (choices.text() + choices.take(60).decode("utf-8", "replace") for _ in range(2))
    text *= 40 if choices.byte() % 16 == 1 else 1
    bm25 = _BM25[choices.byte() % len(_BM25)]
    scores = bm25_scores(bm25.query(question), [bm25.document(text), bm25.document(question)])
    assert (scores >= 0).all()
    assert len(snippet(text, question, width=80)) <= 82
    for start, end in mark_words(text, question):
        assert 0 <= start < end <= len(text)
    for word in query_words(question):
        assert all(0 <= id_ < FEATURE_COUNT for id_ in word_features(word))


_BM25 = [Bm25(), Bm25(language="german"), Bm25(language=None)]


class _Active(HTMLParser):
    """Collects what would run or be fetched by a browser."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "iframe", "object", "embed", "base", "link", "form", "svg", "math"):
            self.found.append(tag)
        for name, value in attrs:
            address = "".join((value or "").split()).lower()
            fetches = name in ("src", "href", "srcdoc", "action", "data", "formaction", "xlink:href")
            if name.startswith("on") or (fetches and not address.startswith(("data:image/", "#"))):
                self.found.append(f"{tag} {name}={value}")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)


def report(data: bytes) -> None:
    """Reports of hostile texts contain nothing that runs or is fetched."""
    choices = Choices(data)
    pages = [
        ReportPage(
            name=choices.text(),
            text=choices.text(),
            note=choices.text(),
            source=choices.pick((None, choices.text())),
            score=choices.pick((None, 0.5, float("nan"), float("-inf"))),
            relevance=choices.pick((None, 0.5, float("nan"), 7.0)),
            regions=[choices.changed(_REGION, ("token",)) for _ in range(choices.byte() % 3)],
        )
        for _ in range(choices.byte() % 3)
    ]
    html = render_report(choices.text(), pages, model=choices.text(), note=choices.text())
    parser = _Active()
    parser.feed(html)
    assert parser.found == []


_REGION: dict[str, Any] = {"token": "tide", "box": [0.1, 0.1, 0.5, 0.5], "score": 0.5, "share": 0.5, "index": 0}

TARGETS = [
    Target("uri", uri),
    Target("options", options, refusals=(BadParameter,)),
    Target("filters", filters),
    Target("llama_filters", llama_filters),
    Target("identity", identity),
    Target("payload", payload, refusals=(StoreError,)),
    Target("grid", grid),
    Target("words", words),
    Target("report", report),
]
