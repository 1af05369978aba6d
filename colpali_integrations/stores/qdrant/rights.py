"""Whether an API key may write to a collection, found out before pages are encoded for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from uuid import uuid4

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.qdrant.collection import QdrantClient, is_local, models
from colpali_integrations.stores.qdrant.errors import is_forbidden
from colpali_integrations.stores.remembered import REMEMBERED_SECONDS
from colpali_integrations.stores.runs import GaveUpError, current_run

__all__ = ["WriteRight"]


class WriteRight:
    """Whether the key of a client may write points.

    A server does not tell the rights of a key. So it is asked to remove a point that no collection has, by an id drawn
    at random: this changes nothing, is allowed to each key that may write to this one collection, and refused (403) to
    all others. Yes is remembered, and no for a minute.

    Args:
        using: lends the client, and turns its errors into a StoreError.
        collection: its name.
        where: the collection and its server, for messages.
        clock: returns seconds.
    """

    def __init__(
        self,
        using: Callable[[], AbstractContextManager[QdrantClient]],
        collection: str,
        where: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._using, self._collection, self._where, self._clock = using, collection, where, clock
        self._may = False
        self._refused: tuple[str, float] | None = None  # the message, and since when

    def refusal(self) -> str | None:
        """The message about a key that may not write; None where it may, or where an absent server does not tell.

        Raises:
            StoreError: the server has other reasons not to take a change, such as an unknown key.
        """
        if self._may:
            return None
        if (refused := self._refused) is not None and self._clock() - refused[1] < REMEMBERED_SECONDS:
            return refused[0]
        try:
            with self._using() as client:
                if not is_local(client):  # which has no keys
                    client.delete(self._collection, models.PointIdsList(points=[str(uuid4())]), wait=True)
        except GaveUpError:
            if current_run() is not None:
                raise
            return None  # the run that the caller is about to begin waits longer
        except StoreError as error:
            if not is_forbidden(error):
                raise
            self._refused = f"{error}. Open the store with a key that may write, by api_key=", self._clock()
            return self._refused[0]
        self._may = True
        return None
