"""Data sets in ViDoRe's layout, made of a few small pages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from colpali_integrations import ColPali
from colpali_integrations.explain import PageEmbedding
from tests.stores.documents import draw

PAGES = {
    "10": ("Harvest of apples",),
    "9": ("Prices of bananas", "in the market"),
    "a": ("The railway timetable",),
    "b": ("Prices of bananas", "in the market"),  # equal to "9", so that scores are equal
    "c": ("Opening hours of the museum",),
}
QUERIES = {
    "q1": "prices of bananas",
    "q2": "harvest of apples",
    "q3": "when does the railway leave",
    "q4": "unanswered",
}
GRADES = {("q1", "9"): 1, ("q2", "10"): 2, ("q2", "c"): 1, ("q3", "c"): 1, ("q4", "a"): 0}


def png(*lines: str) -> bytes:
    buffer = BytesIO()
    draw(*lines).save(buffer, "PNG")
    return buffer.getvalue()


def write_vidore(folder: Path, *, ids: Sequence[str] = ("corpus-id", "query-id", "corpus-id"), parts: int = 2) -> Path:
    """The tables as parquet, the corpus in parts; `ids` are the columns of ids, of corpus, queries and qrels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def write(name: str, rows: list[dict[str, Any]]) -> None:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.Table.from_pylist(rows), target)

    corpus = [{ids[0]: id_, "image": {"bytes": png(*lines), "path": None}} for id_, lines in PAGES.items()]
    for part in range(parts):
        write(f"corpus/test-{part:05d}-of-{parts:05d}.parquet", corpus[part::parts])
    write(
        "queries/test-00000.parquet", [{ids[1]: id_, "query": text, "language": "en"} for id_, text in QUERIES.items()]
    )
    keys = ("query_id" if "_" in ids[0] else "query-id", "corpus_id" if "_" in ids[0] else ids[2])
    rows = [{keys[0]: query, keys[1]: page, "score": grade} for (query, page), grade in GRADES.items()]
    write("qrels/test-00000.parquet", rows)
    return folder


def counted(monkeypatch: pytest.MonkeyPatch) -> list[PageEmbedding]:
    """The pages that models encode from now on."""
    encoded: list[PageEmbedding] = []
    original = ColPali.embed_pages

    def embed_pages(*arguments: Any, **options: Any) -> Iterator[PageEmbedding]:
        for page in original(*arguments, **options):
            encoded.append(page)
            yield page

    monkeypatch.setattr(ColPali, "embed_pages", embed_pages)
    return encoded
