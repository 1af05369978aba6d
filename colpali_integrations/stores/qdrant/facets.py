"""The distinct values of an indexed field, counted by the server, in place of a scroll through all points."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from colpali_integrations._logs import package_logger
from colpali_integrations.stores.qdrant.collection import QdrantClient, is_local
from colpali_integrations.stores.qdrant.errors import UnexpectedResponse, grpc

__all__ = ["Facets"]

_logger = package_logger(__name__)

# A facet has a limit and no pages: it is asked again with a larger one, until fewer values come back.
_LIMITS = (1 << 12, 1 << 16, 1 << 20)
_REFUSED = (400, 403, 501)
_REFUSED_BY_GRPC = (
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
)


class Facets:
    """Counts the values of fields with a keyword index.

    A server may refuse facets: in strict mode beyond `max_query_limit`, or to a key that may only search. It is not
    asked for that field again then, and the caller reads the points instead.

    Args:
        collection: its name.
        limit: the most values of a request, in strict mode; None for any number.
        reading: arguments of the client's methods that read.
    """

    def __init__(
        self, collection: str, limit: int | None = None, reading: Mapping[str, Any] = MappingProxyType({})
    ) -> None:
        self._collection, self._limit, self._reading = collection, limit or _LIMITS[-1], reading
        self._refused: set[str] = set()

    def counts(
        self, client: QdrantClient, key: str, conditions: Any = None, most: int | None = None
    ) -> dict[Any, int] | None:
        """Count the points of each value of a field.

        Args:
            client: of the server.
            key: the path of an indexed field in the payload.
            conditions: only points that fit this Qdrant filter.
            most: give up beyond so many values; None for the largest number that is asked for.

        Returns:
            Numbers by value; None where the server does not answer it, or there are too many values.

        Raises:
            Exception: those of the client, but for a refusal.
        """
        if key in self._refused or is_local(client):  # the imitation of a server changes values that look like UUIDs
            return None
        for limit in dict.fromkeys(min(one, self._limit) for one in _LIMITS):
            if most is not None:
                limit = min(limit, most + 1)
            try:
                hits = client.facet(
                    self._collection, key, facet_filter=conditions, limit=limit, exact=True, **self._reading
                ).hits
            except Exception as error:
                if not _is_refusal(error):
                    raise
                _logger.info("%s: no facet of %s (%s); reading the points instead", self._collection, key, error)
                if conditions is None:
                    self._refused.add(key)
                return None
            if len(hits) < limit:
                return {hit.value: hit.count for hit in hits}
            if most is not None and limit > most:
                return None
        return None


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _REFUSED
    return isinstance(error, grpc.RpcError) and isinstance(error, grpc.Call) and error.code() in _REFUSED_BY_GRPC
