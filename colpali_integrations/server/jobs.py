"""The thread that stores uploaded documents, one after the other, and goes on with them after a restart."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

from colpali_integrations._failures import item_error
from colpali_integrations._logs import package_logger
from colpali_integrations.errors import StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.server.uploads import Job, Uploads
from colpali_integrations.stores import DocumentSource, IngestReport, Progress, ingest
from colpali_integrations.stores.current import CurrentStore

__all__ = ["Jobs", "source_of"]

logger = package_logger(__name__)

_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds; doubled at each further try


def source_of(path: Any, name: str, document_id: str, metadata: Mapping[str, Any]) -> DocumentSource:
    """An uploaded file as a document of the store.

    Args:
        path: of the file in the folder of uploads.
        name: of the caller's file.
        document_id: made by the server.
        metadata: of the caller.

    Raises:
        ConfigurationError: metadata in whose place a page has its own.
    """
    return DocumentSource(source=path, name=name, document_id=document_id, metadata=metadata)


class Jobs:
    """Stores uploads in a thread of its own.

    The store's write lock is held for each of its batches only, so other processes write between them. A page that was
    stored before the server ended is not encoded again.

    Args:
        model: of the store.
        current: the destination.
        uploads: files and jobs.
    """

    def __init__(self, model: ColPali, current: CurrentStore, uploads: Uploads) -> None:
        self._model, self._destination, self.uploads = model, current, uploads
        self._thread = threading.Thread(target=self._work, name="serve-jobs", daemon=True)
        self._changed = threading.Condition()
        self._closing = False
        self._current: tuple[Job, threading.Event] | None = None
        self._progress: dict[str, Progress] = {}
        self._deletions = threading.Lock()  # one at a time
        self._deleting: str | None = None  # the document of that one
        self._left: dict[str, tuple[float, float]] = {}  # deletions to try again: the time, and the wait after it

    def start(self) -> None:
        """Begin, with the deletions and the jobs that an earlier server has left."""
        self._left = dict.fromkeys(self.uploads.deleting(), (0.0, _FIRST_WAIT))
        self._thread.start()

    def close(self) -> None:
        """End after the page that is being stored; the job goes on at the next start."""
        with self._changed:
            self._closing = True
            if self._current is not None:
                self._current[1].set()
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()

    def add(self, job: Job) -> None:
        """Queue a job, which is on the disk when this returns."""
        self.uploads.add(job)
        with self._changed:
            self._changed.notify_all()

    def done(self, job: Job) -> int:
        """Number of pages of a job that are in the store, or have failed."""
        state = self._progress.get(job.id)
        if job.state == "done":
            return job.pages
        return 0 if state is None else job.pages - state.total + state.stored

    def state(self, job: Job) -> str:
        """The state of a job; "running" for the one whose pages are being stored."""
        current = self._current
        return "running" if current is not None and current[0].id == job.id and job.state == "queued" else job.state

    def delete(self, document_id: str) -> int | None:
        """Remove a document, its uploaded files and its jobs.

        A crash in between does not lose it: the jobs are marked first, and the next start goes on. A store that cannot
        be written is tried again. An upload that comes after the mark stays: it is stored once the deletion has ended.

        Returns:
            The number of removed pages; None if there is no such document.
        """
        with self._alone(document_id):
            self.uploads.mark_deleted(document_id)
            self._end(document_id)
            return self._delete_marked(document_id)

    @contextmanager
    def _alone(self, document_id: str) -> Iterator[None]:
        """Let no other deletion and no further job of a document run."""
        with self._deletions:
            with self._changed:
                self._deleting = document_id
            try:
                yield
            finally:
                with self._changed:
                    self._deleting = None
                    self._changed.notify_all()

    def _delete_marked(self, document_id: str) -> int | None:
        """Remove the pages of a document, and the jobs that are marked."""
        jobs = self.uploads.marked(document_id)
        _, wait = self._left.pop(document_id, (0.0, _FIRST_WAIT))
        try:
            removed = self._destination.use(lambda store: store.delete(document_id=document_id))
            for job in jobs:
                self.uploads.remove(job)
        except Exception:
            if jobs:
                self._left[document_id] = time.monotonic() + wait, min(_LONGEST_WAIT, 2 * wait)
            raise
        return removed if removed or jobs else None

    def _delete_again(self, document_id: str) -> float:
        """Go on with a deletion that has failed, unless another call has ended it meanwhile."""
        with self._alone(document_id):
            if self.uploads.marked(document_id):
                try:
                    self._delete_marked(document_id)
                except StoreError as error:
                    logger.warning("the deletion of %s is tried again: %s", document_id, error)
            else:
                self._left.pop(document_id, None)
        return 0.0

    def _end(self, document_id: str) -> None:
        """Stop the job of a document, if it runs, and wait for its end."""
        with self._changed:
            while self._current is not None and self._current[0].document_id == document_id:
                self._current[1].set()
                self._changed.wait(1.0)

    def _work(self) -> None:
        wait = 0.0
        while True:
            with self._changed:
                if wait:
                    self._changed.wait_for(lambda: self._closing, wait)
                work = self._next()
                while work is None and not self._closing:
                    self._changed.wait(self._until_deletion())
                    work = self._next()
                if self._closing or work is None:
                    return
            try:
                wait = work()
            except Exception:  # of the folder of uploads, or a fault: the other jobs go on
                logger.exception("a job or a deletion has ended by an error")
                wait = _FIRST_WAIT
            finally:
                with self._changed:
                    if self._current is not None:
                        self._progress.pop(self._current[0].id, None)
                    self._current = None
                    self._changed.notify_all()

    def _next(self) -> Callable[[], float] | None:
        """What the thread does next; it returns the seconds to wait afterwards."""
        if self._closing:
            return None
        now = time.monotonic()
        due = next((one for one, (at, _) in list(self._left.items()) if at <= now), None)
        if due is not None:
            return partial(self._delete_again, due)
        job = self.uploads.next(but=self._deleting)
        if job is None:
            return None
        stop = threading.Event()
        self._current = job, stop
        return partial(self._run, job, stop)

    def _until_deletion(self) -> float | None:
        """Seconds until the next deletion is tried again; None where there is none."""
        times = [at for at, _ in list(self._left.values())]
        return max(0.0, min(times) - time.monotonic()) if times else None

    def _run(self, job: Job, stop: threading.Event) -> float:
        """Store a document; the seconds to wait before the next job are returned."""
        try:
            report = self._stored(job, stop)
        except StoreError as error:  # such as a disk that is full, or another process that keeps the store locked
            logger.warning("%s is tried again: %s", job.name, error)
            self.uploads.update(job, tries=job.tries + 1, error=str(error))
            return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**job.tries)
        except Exception as error:
            self._fail(job, str(item_error(error)), {})
        else:
            if not stop.is_set():
                self._finish(job, report)
        return 0.0

    def _stored(self, job: Job, stop: threading.Event) -> IngestReport:
        source = source_of(self.uploads.path(job), job.name, job.document_id, job.metadata)

        def listen(state: Progress) -> None:
            self._progress[job.id] = state

        options: dict[str, Any] = {"on_error": "skip", "progress": listen, "stop": stop}
        return self._destination.use(lambda store: ingest([source], store=store, model=self._model, **options))

    def _finish(self, job: Job, report: IngestReport) -> None:
        if report.failures and not report.ids:
            self._fail(job, report.failures[0].reason, report.to_dict())
        elif self.uploads.update(job, state="done", error="", report=report.to_dict()):
            for other in self.uploads.of_document(job.document_id):
                if other.id != job.id and other.created <= job.created:
                    self.uploads.remove(other)  # an earlier version of the document

    def _fail(self, job: Job, error: str, report: Mapping[str, Any]) -> None:
        # The path on the server is not the caller's business.
        error = error.replace(str(self.uploads.path(job)), job.name)
        if self.uploads.update(job, state="failed", error=error, report=report):
            self.uploads.discard(job.file)
