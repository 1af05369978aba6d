"""Storing of records in batches, as they come; entries that the store refuses cost no others."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from numpy.typing import ArrayLike

from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.stores.engine import FULL, Engine, Point
from colpali_integrations.stores.entries import Entry
from colpali_integrations.stores.flights import Flights
from colpali_integrations.stores.points import PointMaker
from colpali_integrations.stores.refused import PointsRefusedError, RefusedError, all_refused
from colpali_integrations.stores.runs import Run, running

__all__ = ["Adding", "OnRefused"]

logger = package_logger(__name__)

OnRefused: TypeAlias = Callable[[Entry, StoreError], None]
"""Called with an entry that the store refuses, and the reason."""

# A batch is stored whole or not at all: a killed process loses at most one. Numbers of vectors: 8 MB as float16.
_BATCH_NUMBERS, _BATCH_ENTRIES, _BATCH_SECONDS = 1 << 22, 64, 2.0
_AGAIN = "{stored}; add the records again, which replaces those"


class Adding:
    """One call of `MultiVectorStore.add`.

    Args:
        engine: of the store.
        points: makes the points of the store.
        learn: called before the first entry.
        on_error: called with refused entries; None to raise one error at the end.
        on_stored: called after each batch with the number of its entries that were stored.
    """

    def __init__(
        self,
        engine: Engine,
        points: PointMaker,
        learn: Callable[[], object],
        on_error: OnRefused | None,
        on_stored: Callable[[int], object] | None = None,
    ) -> None:
        self._engine, self._points, self._learn = engine, points, learn
        self._on_error, self._on_stored = on_error, on_stored
        self._refused: list[tuple[str, StoreError]] = []
        self._batch: dict[str, tuple[Entry, Point]] = {}  # by id: of two entries with one id, the later one counts
        self._flights = Flights(self._send, engine.batches_at_once, self._settle)
        self._size = 0
        self._handed = self._lost = 0  # records to the engine, and those of them that it has refused

    def run(self, records: Iterable[tuple[Entry, ArrayLike]]) -> int:
        """Store records, and return the number of those that were stored.

        Raises:
            RefusedError: the store refuses some; the others are stored.
        """
        with running(_AGAIN, is_single=True) as run:
            try:
                self._add_all(records, run)
            except BaseException:
                for name, error in self._refused:  # which the other error would hide
                    logger.warning("not stored: %s: %s", name, error)
                raise
        if self._refused:
            raise all_refused(self._refused, self._handed - self._lost)
        return self._handed - self._lost

    def _add_all(self, records: Iterable[tuple[Entry, ArrayLike]], run: Run) -> None:
        since = time.monotonic()
        try:
            for entry, vectors in records:
                self._take(entry, vectors)
                full = self._size >= _BATCH_NUMBERS or len(self._batch) >= _BATCH_ENTRIES
                if full or time.monotonic() - since >= _BATCH_SECONDS:
                    run.is_single = False  # records that fit into one batch are a single call
                    self._flush()
                    since = time.monotonic()
            self._finish()
        except (KeyboardInterrupt, SystemExit):
            run.interrupt()  # the threads that wait for a server
            try:
                self._finish()
            except Exception as error:  # which must not take the place of the interruption
                logger.info("interrupted; the last pages are not stored: %s", error)
            raise
        except BaseException:
            self._finish()
            raise

    def _finish(self) -> None:
        try:
            self._flush()
        except Exception:
            self._flights.finish()
            raise
        self._flights.finish()

    def _take(self, entry: Entry, vectors: ArrayLike) -> None:
        try:
            point = self._points.point(entry, vectors)
        except RefusedError as error:
            self._refuse(entry, error)
            return
        if not self._handed:
            self._learn()
        self._batch[point.id] = entry, point
        self._size += point.vectors[FULL].size
        self._handed += 1

    def _flush(self) -> None:
        try:
            if self._batch:
                self._flights.start(self._batch)
        except Exception:
            self._batch, self._size = {}, 0
            raise
        self._batch, self._size = {}, 0  # an interruption leaves them for `_finish`

    def _send(self, batch: Mapping[str, tuple[Entry, Point]]) -> None:
        self._engine.upsert([point for _, point in batch.values()])

    def _settle(self, batch: Mapping[str, tuple[Entry, Point]], error: BaseException | None) -> None:
        stored = len(batch)
        if isinstance(error, PointsRefusedError):
            self._lost += len(error.errors)
            stored -= len(error.errors)
            for id_, reason in error.errors.items():
                self._refuse(batch[id_][0], reason)
        elif error is not None:
            raise error
        if self._on_stored is not None:
            self._on_stored(stored)

    def _refuse(self, entry: Entry, error: StoreError) -> None:
        reason = str(error.args[0]) if error.args else ""
        if not reason.startswith(entry.name):
            named = RefusedError(f"{entry.name}: {reason}")
            named.__cause__ = error
            error = named
        if self._on_error is not None:
            self._on_error(entry, error)
        else:
            self._refused.append((entry.name, error))
