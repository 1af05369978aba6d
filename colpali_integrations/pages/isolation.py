"""PDFs in worker processes with limits, so that a bad page costs that page and neither its caller nor the next page.

Up to four processes serve all documents of a caller. Each holds one open document; where more are open at a time, the
one that was not used for longest is opened again when its turn comes.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from colpali_integrations._forks import renew_after_forks
from colpali_integrations.errors import PdfError
from colpali_integrations.pages._process import Reply, Worker, WorkerEndedError
from colpali_integrations.pdfium.limits import Limits
from colpali_integrations.pdfium.messages import MAX_FONTS, PageText
from colpali_integrations.pdfium.pixels import MAX_BYTES, MAX_SIDE, Pixels

__all__ = ["IsolatedReader", "WorkerPool", "image_of"]

T = TypeVar("T")

_MOST_WORKERS = 4
# The lists that callers make of a document's pages take memory, and the number comes from the file.
_MOST_PAGES = 1_000_000
# A process whose pages have left more than this behind is replaced, so that each page has nearly the whole limit.
_LEFT_BEHIND = 500_000_000
_CLOSING_SECONDS = 5.0
# Points: 14,400 units of 75,000 / 72 inch (ISO 32000-1, annex C, and 14.11 of 32000-2), and some more.
_LONGEST_SIDE = 1e10
_LONGEST_TEXT = 4096
_MOST_NUMBER = 1e15
# A thread that waits for a process looks by itself too: an interruption may lose the sign that one is free.
_LOOK_SECONDS = 1.0


class IsolatedReader:
    """The pages of a PDF that is open in a worker process, by 1-based numbers.

    Any thread may call it; threads that read at the same time use several processes.

    Args:
        source: path of an existing file, or the bytes, which are kept for another process.
        password: for an encrypted document. It goes to the process through a pipe.
        pool: the processes; None for those that all documents share.

    Attributes:
        page_count: number of pages.
        closed: whether `close` was called.

    Raises:
        PdfError: the document cannot be opened; from every method, for a page that cannot be read, or not within the
            limits.
        ConfigurationError: no process can be started.
    """

    def __init__(self, source: Path | bytes, password: str | None, pool: WorkerPool | None = None) -> None:
        self._pool = _POOL if pool is None else pool
        self._path = None if isinstance(source, bytes) else os.path.abspath(source)  # noqa: PTH100 - keeps links
        self._content = source if isinstance(source, bytes) else b""
        self._password = password
        self._state = self._file_state()
        self.closed = False
        self.page_count = 0
        with self._pool.lease(self) as slot:
            self.page_count = slot.open(self)

    def size(self, number: int) -> tuple[float, float]:
        """Width and height in points."""
        fields = self._read("size", number).fields
        return _number(fields, "width", 0, _LONGEST_SIDE), _number(fields, "height", 0, _LONGEST_SIDE)

    def text(self, number: int) -> PageText:
        """The text layer, and the fonts that are missing to draw it.

        A page that takes too long to draw for finding the text that no viewer shows keeps that text.
        """
        with self._pool.lease(self) as slot:
            reply, judged = slot.text(self, number)
        return PageText(reply.data.decode(errors="replace"), _names(reply.fields.get("missing_fonts")), judged)

    def label(self, number: int) -> str:
        """The printed number; "" where the document names none."""
        return _text(self._read("label", number).fields, "label")

    def draw(self, number: int, dpi: float) -> tuple[Image.Image, float]:
        """The picture, and its resolution."""
        with self._pool.lease(self) as slot:
            return slot.draw(self, {"call": "draw", "page": number, "dpi": dpi})

    def close(self) -> None:
        """Release the document. Calling it twice does nothing."""
        if not self.closed:
            self.closed = True
            self._pool.release(self)

    def opening(self) -> tuple[dict[str, Any], bytes]:
        """The request that opens the document in a process, and its data.

        Raises:
            PdfError: the file was changed, so that its pages may be others.
        """
        if self._file_state() != self._state:
            raise PdfError("the file was changed while it was read; open it again")
        return {"call": "open", "path": self._path, "password": self._password}, self._content

    def _read(self, call: str, number: int) -> Reply:
        with self._pool.lease(self) as slot:
            return slot.read(self, {"call": call, "page": number})

    def _file_state(self) -> tuple[int, ...]:
        if self._path is None:
            return ()
        try:
            status = os.stat(self._path)  # noqa: PTH116 - a string
        except OSError as error:
            raise PdfError(f"the file cannot be read: {error.strerror}") from error
        return status.st_size, status.st_mtime_ns, status.st_ino


class _Budget:
    """The limits of one page. Reading its text and drawing it count together; drawing it again counts anew.

    Judging its text does not count: it has limits of its own, so that a page that can be drawn can also be read.

    Args:
        page: its number; None for opening the document.
        limits: of a page.
    """

    def __init__(self, page: int | None, limits: Limits) -> None:
        self._page = page
        self._calls: set[str] = set()
        self.cpu_seconds, self.seconds = limits.cpu_seconds, limits.seconds

    def covers(self, page: int, call: str) -> bool:
        """Whether a call belongs to the same reading of the page."""
        return page == self._page and call not in self._calls

    def spend(self, call: str, cpu_seconds: float, seconds: float) -> None:
        """Subtract what a call took."""
        self._calls.add(call)
        self.cpu_seconds = max(0.0, self.cpu_seconds - max(0.0, cpu_seconds))
        self.seconds -= seconds


class _Slot:
    """A place in the pool: a process, started at first use and again after its end, and the document open in it.

    Attributes:
        holder: a token of the call that uses it; None while none does.
        used: when it was used last, in seconds of the monotonic clock.
        document: open in the process.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._budget = _Budget(None, limits)
        self._worker: Worker | None = None
        self._is_large = False  # the process holds so much memory that the next page goes to another one
        self.holder: object | None = None
        self.used = 0.0
        self.document: IsolatedReader | None = None

    @property
    def process(self) -> int | None:
        """The process id; None where none was started, or it was ended."""
        return None if self._worker is None else self._worker.id

    def open(self, document: IsolatedReader) -> int:
        """Open a document and return the number of its pages."""
        return self._retried(lambda worker: self._open(worker, document))

    def read(self, document: IsolatedReader, request: dict[str, Any]) -> Reply:
        """Answer a request about a page, and open the document first if another one is open."""
        return self._retried(lambda worker: self._read(worker, document, request))

    def text(self, document: IsolatedReader, page: int) -> tuple[Reply, bool]:
        """Read the text of a page; once more, without judging what of it is shown, if that takes too long.

        Returns:
            The reply, and whether the text was judged.
        """
        request = {"call": "text", "page": page}
        try:
            return self.read(document, {**request, "judged": True}), True
        except PdfError as error:
            if not (isinstance(error.__cause__, WorkerEndedError) and error.__cause__.late):
                raise
        return self.read(document, {**request, "judged": False}), False

    def draw(self, document: IsolatedReader, request: dict[str, Any]) -> tuple[Image.Image, float]:
        """Draw a page; returns the picture and its resolution."""
        return self._retried(lambda worker: _picture(worker, self._read(worker, document, request), request["dpi"]))

    def close(self, document: IsolatedReader) -> None:
        """Close a document that is open here."""
        worker = self._worker
        if worker is not None and self.document is document:
            self.document = None
            try:
                worker.ask({"call": "close", "cpu": _CLOSING_SECONDS}, seconds=_CLOSING_SECONDS)
            except WorkerEndedError:
                self.end()

    def end(self) -> None:
        """End the process."""
        worker, self._worker, self.document = self._worker, None, None
        if worker is not None:
            worker.kill()

    def abandon(self) -> None:
        """Forget the process in a forked child."""
        if self._worker is not None:
            self._worker.abandon()

    def _retried(self, call: Callable[[Worker], T]) -> T:
        """Call once; once more in a new process if the reason may lie in what the old one did before."""
        while True:
            worker, is_new = self._running()
            try:
                return call(worker)
            except WorkerEndedError as error:
                self.end()
                if error.interrupted and not _raises_interrupts():
                    continue  # the caller goes on after Ctrl-C, so the page is read as if there had been none
                if is_new or not error.again:
                    raise PdfError(str(error)) from error
            except PdfError:
                raise
            except BaseException:
                self.end()
                raise

    def _running(self) -> tuple[Worker, bool]:
        if self._worker is not None and self._worker.alive and not self._is_large:
            return self._worker, False
        self.end()
        self._is_large = False
        self._worker = Worker(self._limits)
        return self._worker, True

    def _open(self, worker: Worker, document: IsolatedReader) -> int:
        request, content = document.opening()
        self.document = None
        self._budget = _Budget(None, self._limits)
        count = _whole(self._ask(worker, request, self._budget, content).fields, "page_count", 0, 2**31)
        if count > _MOST_PAGES:
            raise PdfError(f"it has {count:,} pages; {_MOST_PAGES:,} are allowed")
        self.document = document
        return count

    def _read(self, worker: Worker, document: IsolatedReader, request: dict[str, Any]) -> Reply:
        if self.document is not document:
            self._open(worker, document)
        if request.get("judged"):
            budget = _Budget(request["page"], self._limits.judging)
        else:
            if not self._budget.covers(request["page"], request["call"]):
                self._budget = _Budget(request["page"], self._limits)
            budget = self._budget
        reply = self._ask(worker, request, budget)
        self._is_large = _number(reply.fields, "grown") > _LEFT_BEHIND
        return reply

    def _ask(self, worker: Worker, request: dict[str, Any], budget: _Budget, content: bytes = b"") -> Reply:
        reply = worker.ask({**request, "cpu": budget.cpu_seconds}, content, seconds=budget.seconds)
        fields = reply.fields
        if fields.get("memory") is True:
            raise WorkerEndedError(worker.over_memory)
        budget.spend(request["call"], _number(fields, "cpu"), reply.seconds)
        if "error" in fields:
            raise PdfError(_text(fields, "error"))
        return reply


class WorkerPool:
    """The processes of a caller. A forked child has a pool without processes.

    Args:
        limits: of each page, and of opening a document.
        most: number of processes that run at a time.
    """

    def __init__(self, limits: Limits | None = None, most: int = _MOST_WORKERS) -> None:
        self._limits = limits or Limits()
        self._most = most
        self._slots: list[_Slot] = []
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        for slot in self._slots:
            slot.abandon()
        self._slots = [_Slot(self._limits) for _ in range(self._most)]
        # A plain lock, whose `with` Ctrl-C cannot interrupt between taking it and the block: that of a Condition is
        # written in Python, and an interruption there would leave it locked for ever.
        self._lock = threading.Lock()
        self._waiting: list[threading.Lock] = []  # each is released once a process may be free

    @contextmanager
    def lease(self, document: IsolatedReader) -> Iterator[_Slot]:
        """Use a process alone: the one that has the document, else a free one, else that of another document."""
        mine, slot = object(), None
        try:
            while slot is None:
                turn = threading.Lock()
                turn.acquire()
                with self._lock:
                    free = [one for one in self._slots if one.holder is None]
                    if free:
                        slot = min(free, key=lambda one: (_effort(one, document), one.used))
                        slot.holder = mine
                    else:
                        self._waiting.append(turn)
                if slot is None:
                    turn.acquire(timeout=_LOOK_SECONDS)
            yield slot
        finally:
            # No call comes before the assignment, and so no interruption.
            if slot is not None and slot.holder is mine:
                slot.holder = None
                self._wake(slot)

    def release(self, document: IsolatedReader) -> None:
        """Close a document wherever it is open and not in use.

        It never waits long: the garbage collector may call it in the middle of any of these methods.
        """
        if self._lock.locked():  # perhaps by this thread
            return
        for slot in list(self._slots):
            if slot.document is document:
                self._close(slot, document)

    def processes(self) -> list[int]:
        """The ids of the processes that were started and not ended."""
        return [slot.process for slot in self._slots if slot.process is not None]

    def end(self) -> None:
        """End all processes."""
        for slot in self._slots:
            slot.end()

    def _close(self, slot: _Slot, document: IsolatedReader) -> None:
        mine = object()
        try:
            with self._lock:
                if slot.holder is None and slot.document is document:
                    slot.holder = mine
            if slot.holder is mine:
                slot.close(document)
        finally:
            if slot.holder is mine:
                slot.holder = None
                self._wake(slot)

    def _wake(self, slot: _Slot) -> None:
        """Make a slot that is free again the last choice, and wake the threads that wait for one."""
        slot.used = time.monotonic()
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for turn in waiting:
            turn.release()


def _effort(slot: _Slot, document: IsolatedReader) -> int:
    """The work before a slot can read a document, for comparison."""
    if slot.process is None:
        return 2
    if slot.document is document:
        return 0
    return 1 if slot.document is None or slot.document.closed else 3


def image_of(drawn: Pixels) -> Image.Image:
    """The picture of pixels, which it copies; RGB."""
    return Image.frombuffer("RGB", (drawn.width, drawn.height), drawn.data, "raw", "BGR", drawn.stride, 1)


def _picture(worker: Worker, reply: Reply, most_dpi: float) -> tuple[Image.Image, float]:
    fields = reply.fields
    width, height = (_whole(fields, name, 1, MAX_SIDE) for name in ("width", "height"))
    stride = _whole(fields, "stride", 3 * width, MAX_BYTES)
    with worker.pixels(reply, stride * height) as data:
        if len(data) != stride * height:
            raise PdfError(_NOT_OURS)
        dpi = _number(fields, "dpi", 0, most_dpi * (1 + 1e-9))  # dpi / 72 * 72 may be more than dpi
        image = image_of(Pixels(width, height, stride, dpi, data))
    worker.free(stride * height)
    return image, dpi


# The fields of a reply, which may come from a process that a damaged file has taken over.


def _number(fields: dict[str, Any], name: str, least: float = -_MOST_NUMBER, most: float = _MOST_NUMBER) -> float:
    value = fields.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most:
        return float(value)
    raise PdfError(_NOT_OURS)


def _whole(fields: dict[str, Any], name: str, least: int, most: int) -> int:
    value = fields.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and least <= value <= most:
        return value
    raise PdfError(_NOT_OURS)


def _text(fields: dict[str, Any], name: str) -> str:
    """A short text; a lone surrogate in it could not be stored."""
    value = fields.get(name)
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT:
        raise PdfError(_NOT_OURS)
    return value.encode("utf-8", "replace").decode("utf-8")


def _raises_interrupts() -> bool:
    """Whether Ctrl-C raises KeyboardInterrupt in this program, as it does where no handler of the program's own is."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler


def _names(value: object) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    return tuple(name for name in names if isinstance(name, str) and name.isprintable())[:MAX_FONTS]


_NOT_OURS = "it breaks the process that reads PDFs"
_POOL = WorkerPool()
atexit.register(_POOL.end)
