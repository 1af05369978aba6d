"""Which first stages are scanned, and which are searched by a graph (HNSW).

| first stage | graph | searched by it |
|---|---|---|
| "muvera", one vector per page | once the collection has more than 50,000 pages | from then on |
| any, with `graph=True` | from the beginning | in every two-stage search |
| copies of all vectors ("int8" and so on) | never | |

A scan takes a time that grows with the pages. A graph finds most of the scan's candidates in less: it looks at
`hnsw_ef` pages, eight times the candidates that are asked for, so that `oversampling` sets both. A graph over several
vectors per page ("ward", "rows") costs the server much more to build, misses more, and is hardly faster below 5,000
pages: it is for collections that are too large to be scanned, and for servers that refuse scans.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import ConfigurationError, MissingExtraError
from colpali_integrations.stores.engine import FIRST, VectorSpec

try:
    from qdrant_client import QdrantClient, models
except ModuleNotFoundError as error:
    raise MissingExtraError("qdrant-client", "qdrant", "a store on a Qdrant server") from error

__all__ = ["GRAPH_FROM", "FirstGraph", "check_graph", "graph_links", "graph_params", "hnsw_ef", "set_links"]

_logger = package_logger(__name__)

GRAPH_FROM = 50_000
"""Collections of more entries get a graph by default; below, a scan of "muvera" takes less than 0.15 s on two cores."""

_LINKS, _EF_PER_CANDIDATE, _LEAST_EF = 32, 8, 128


def hnsw_ef(candidates: int) -> int:
    """How many pages a search by graph looks at for a number of candidates.

    >>> hnsw_ef(100), hnsw_ef(10)
    (800, 128)
    """
    return max(_LEAST_EF, _EF_PER_CANDIDATE * candidates)


def graph_params(ef: int, *, filtered: bool) -> models.SearchParams:
    """The parameters of a search by graph.

    Args:
        ef: how many pages it looks at; see `hnsw_ef`.
        filtered: whether only some points are searched. Few of a point's neighbours may be among them; ACORN then looks
            at the neighbours' neighbours too.
    """
    acorn = models.AcornSearchParams(enable=True) if filtered else None
    return models.SearchParams(hnsw_ef=ef, acorn=acorn)


def graph_links(wanted: bool | None) -> models.HnswConfigDiff:
    """The graph of a new collection's first stage; m = 0 stands for none."""
    return models.HnswConfigDiff(m=_LINKS if wanted else 0)


def set_links(client: QdrantClient, collection: str, *, has_graph: bool) -> None:
    """Have the server make the graph of the first stage, or remove it.

    Raises:
        Exception: those of the client.
    """
    changed = models.VectorParamsDiff(hnsw_config=graph_links(has_graph))
    client.update_collection(collection, vectors_config={FIRST: changed})


def check_graph(schema: Mapping[str, VectorSpec], wanted: bool | None, where: str) -> None:
    """Refuse a graph for a store without a first stage of vectors.

    Raises:
        ConfigurationError: there is no such stage.
    """
    if wanted and FIRST not in schema:
        raise ConfigurationError(f"{where}: graph=True is for first_stage='ward', 'rows' or 'muvera'")


class FirstGraph:
    """The graph of an existing collection's first stage.

    Args:
        collection: its name.
        info: of the collection.
        wanted: whether it has a graph; None to leave it as it is, and to make one once the collection is large.
        grows: whether a large collection gets a graph by itself.
    """

    def __init__(self, collection: str, info: models.CollectionInfo, *, wanted: bool | None, grows: bool) -> None:
        vectors = info.config.params.vectors
        first = vectors.get(FIRST) if isinstance(vectors, dict) else None
        own = None if first is None else first.hnsw_config
        links = own.m if own is not None and own.m is not None else info.config.hnsw_config.m
        self._collection, self._wanted, self._grows = collection, wanted, grows and wanted is None
        self._has = first is not None and bool(links)
        self._is_first = first is not None

    def adapt(self, client: QdrantClient) -> None:
        """Make or remove the graph where it is not as wanted.

        Raises:
            Exception: those of the client.
        """
        if self._is_first and self._wanted is not None and self._wanted is not self._has:
            set_links(client, self._collection, has_graph=self._wanted)
            self._has = self._wanted

    def grow(self, client: QdrantClient, holds_more_than: Callable[[int], bool]) -> None:
        """Make the graph of a collection that has become large.

        A key that may write points need not be one that may change collections: then it stays without.
        """
        if self._has or not self._grows or not holds_more_than(GRAPH_FROM):
            return
        try:
            set_links(client, self._collection, has_graph=True)
            self._has = True
        except Exception as error:  # the points are stored all the same
            self._grows = False
            _logger.warning("%s: no graph for the first stage (%s); it is scanned", self._collection, error)

    def is_used(self, holds_more_than: Callable[[int], bool]) -> bool:
        """Whether searches go over the graph."""
        return self._has and (bool(self._wanted) or (self._grows and holds_more_than(GRAPH_FROM)))
