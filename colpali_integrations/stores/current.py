"""A store that is open for long, opened again once another process has replaced it, as `compress` and `repair` do."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.store import MultiVectorStore

__all__ = ["CurrentStore"]

logger = package_logger(__name__)

Result = TypeVar("Result")


class CurrentStore:
    """The store that is in the folder now. Threads may share it.

    Args:
        store: open. Its caller closes it.
    """

    def __init__(self, store: MultiVectorStore) -> None:
        self._first = self._store = store
        self._users: Counter[MultiVectorStore] = Counter()
        self._lock = threading.Lock()  # of the store and its users
        self._opening = threading.Lock()  # of one opening at a time

    @property
    def store(self) -> MultiVectorStore:
        """The store that was opened last; use it by `use`, which opens it again where that is needed."""
        return self._store

    def use(self, work: Callable[[MultiVectorStore], Result]) -> Result:
        """Call a function with the store, and once more with the new one if the store has been replaced meanwhile.

        Args:
            work: what the first call has changed, the second one must find in the new store, or do again.

        Raises:
            StoreError: of the function, or the new store cannot be opened.
        """
        store = self._enter()
        try:
            return work(store)
        except StoreError:
            if not self._renew(store):
                raise
        finally:
            self._leave(store)
        store = self._enter()
        try:
            return work(store)
        finally:
            self._leave(store)

    def is_usable(self) -> bool:
        """Whether the store is in its place, or a new one that can be opened; it is opened then."""
        try:
            self._renew(self._store)
        except StoreError:
            return False
        return True

    def close(self) -> None:
        """Close the store, if it was opened here, after the last thread has used it."""
        if self._store is not self._first:
            self._store.close()

    def _renew(self, store: MultiVectorStore) -> bool:
        """Open the store again, if it has been replaced; whether there is a newer one than `store` now."""
        with self._opening:
            if store is not self._store:
                return True  # another thread was faster
            try:
                new = store.reopened()
            except StoreError as error:
                logger.warning("%s cannot be opened again: %s", store.where, error)
                raise StoreError(
                    f"{store.where} has been removed, renamed or replaced, and the server cannot open it again: {error}"
                ) from error
            if new is None:
                return False
            with self._lock:
                self._store = new
                unused = not self._users[store]
        logger.warning("%s has been replaced by another process; the server has opened it again", store.where)
        if unused:
            store.close()
        return True

    def _enter(self) -> MultiVectorStore:
        with self._lock:
            self._users[self._store] += 1
            return self._store

    def _leave(self, store: MultiVectorStore) -> None:
        with self._lock:
            self._users[store] -= 1
            last = not self._users[store]
            if last:
                del self._users[store]
            unused = last and store is not self._store
        if unused:
            store.close()
