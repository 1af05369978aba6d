"""Collections as other programs make them: by Qdrant's tutorial, by fastembed, and without names."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qdrant_client import QdrantClient, models

from colpali_integrations.stores import Layout

__all__ = ["LAYOUTS", "Made", "direct", "made"]

COUNT = 40

LAYOUTS: dict[str, Layout] = {
    "tutorial": Layout(
        full="original",
        first=["mean_pooling_rows", "mean_pooling_columns"],
        source="document",
        page="page_number",
        page_base=0,
    ),
    "fastembed": Layout(full="colpali", source="filename", page="page_num", text="text"),
    "unnamed": Layout(source="doc_id", page="page"),
}
_DISTANCES = {
    "tutorial": models.Distance.COSINE,
    "fastembed": models.Distance.COSINE,
    "unnamed": models.Distance.DOT,
}


@dataclass(frozen=True)
class Made:
    """A collection.

    Attributes:
        client: of its server.
        name: of the collection.
        layout: of it.
        payloads: by id, as they were stored.
    """

    client: QdrantClient
    name: str
    layout: Layout
    payloads: dict[str | int, dict[str, Any]]


def params(kind: str, dim: int) -> models.VectorParams:
    """Of vectors for late interaction."""
    comparator = models.MultiVectorConfig(comparator=models.MultiVectorComparator.MAX_SIM)
    return models.VectorParams(size=dim, distance=_DISTANCES[kind], multivector_config=comparator)


def vectors(kind: str, full: NDArray[np.float32]) -> Any:
    """Of a point, of all vectors of its page, whose grid has rows of three."""
    if kind == "unnamed":
        return full.tolist()
    if kind == "fastembed":
        return {"colpali": full.tolist()}
    grid = full[: len(full) // 3 * 3].reshape(-1, 3, full.shape[1])
    rows, columns = grid.mean(axis=1).tolist(), grid.mean(axis=0).tolist()
    return {"original": full.tolist(), "mean_pooling_rows": rows, "mean_pooling_columns": columns}


def payload(kind: str, number: int) -> dict[str, Any]:
    """Of a point; some keys are missing from some, and a page may be a text."""
    document, page = f"{number % 3}.pdf", number // 3
    if kind == "tutorial":
        made: dict[str, Any] = {"document": document, "page_number": page, "tags": ["a", "b"][: number % 3]}
    elif kind == "fastembed":
        made = {"filename": document, "page_num": str(page + 1), "text": f"the text of page {number}", "score": 0.5}
    else:
        made = {"doc_id": number % 3, "page": page + 1, "image": {"url": f"https://example.org/{number}"}}
    return {} if number == COUNT - 1 else {key: one for at, (key, one) in enumerate(made.items()) if number != 20 + at}


def made(client: QdrantClient, kind: str, pages: Sequence[NDArray[np.float32]]) -> Iterator[Made]:
    """A new collection of one kind; it is removed in the end."""
    name = f"made-{uuid.uuid4().hex}"
    one = params(kind, pages[0].shape[1])
    names = {"tutorial": ["original", "mean_pooling_rows", "mean_pooling_columns"], "fastembed": ["colpali"]}
    client.create_collection(name, dict.fromkeys(names[kind], one) if kind in names else one)
    points, payloads = [], {}
    for number, full in enumerate(pages):
        id_: str | int = str(uuid.UUID(int=number + 1)) if kind == "fastembed" else 10 * number
        payloads[id_] = payload(kind, number)
        points.append(models.PointStruct(id=id_, vector=vectors(kind, full), payload=payloads[id_]))
    client.upsert(name, points)
    yield Made(client, name, LAYOUTS[kind], payloads)
    client.delete_collection(name)


def direct(
    one: Made, query: NDArray[np.float32], k: int, where: models.Filter | None = None, candidates: int | None = None
) -> list[tuple[str, float]]:
    """The ids and scores that qdrant-client finds by itself; in two stages with a number of candidates."""
    asked: Any = query.tolist()
    first = one.layout.first if candidates else ()
    prefetch = [models.Prefetch(query=asked, using=name, limit=candidates, filter=where) for name in first]
    request = models.QueryRequest(
        query=asked,
        using=one.layout.full or None,
        limit=k,
        filter=where,
        prefetch=prefetch or None,
        with_payload=False,
    )
    [found] = one.client.query_batch_points(one.name, [request])
    return [(str(point.id), point.score) for point in found.points]
