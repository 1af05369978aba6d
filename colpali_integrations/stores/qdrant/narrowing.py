"""Batches that a server refuses because of some of their points: the others are stored."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.engine import Point
from colpali_integrations.stores.qdrant.errors import explained, is_refusal
from colpali_integrations.stores.runs import count_stored

__all__ = ["send_narrowing"]


def send_narrowing(
    points: Sequence[Point], send: Callable[[Sequence[Point]], object], where: str
) -> dict[str, StoreError]:
    """Send points, and those of a refused request by halves, until the refused points are alone.

    Args:
        points: of one request.
        send: sends them, which stores all or none.
        where: the collection, for the messages.

    Returns:
        The errors of refused points, by id.

    Raises:
        Exception: of the client, about anything else than the content of the points.
    """
    try:
        send(points)
    except Exception as error:
        if not is_refusal(error):
            raise
        if len(points) > 1:
            half = len(points) // 2
            return {**send_narrowing(points[:half], send, where), **send_narrowing(points[half:], send, where)}
        refused = StoreError(f"{where}: {explained(error)}")
        refused.__cause__ = error
        return {points[0].id: refused}
    count_stored(len(points))
    return {}
