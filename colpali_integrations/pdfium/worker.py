"""The program that reads PDFs for another process: `python -m colpali_integrations.pdfium.worker`.

Its arguments are the version of its caller, which must be its own, the limit of memory in bytes, and the descriptor of
shared memory where there is any. It answers requests on its standard input, one at a time and in order, and holds one
open document. It ends when its input is closed, and so with its caller, however that ends. `messages` describes the
form of requests and replies.

| request | fields | reply |
|---|---|---|
| open | path or data, password | page_count |
| size, label | page | width and height; label |
| text | page, judged | text as data, missing_fonts |
| draw | page, dpi | width, height, stride and dpi; pixels as data, or in the shared memory |
| close | | |

Each request has `cpu`, the processor time that it may take in seconds. Each reply has `cpu`, the time that it took, and
`grown`, the bytes of address space that the document's pages have taken so far. A failure has `error`, and `memory` if
it is the limit of memory.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from mmap import mmap
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO, NamedTuple

from colpali_integrations._version import __version__
from colpali_integrations.errors import PdfError
from colpali_integrations.pdfium.limits import address_space, lift_limits, no_core_dumps, set_limits
from colpali_integrations.pdfium.messages import HEAD_BYTES, OTHER_VERSION, lengths, pack, unpack
from colpali_integrations.pdfium.pixels import MAX_BYTES
from colpali_integrations.pdfium.reader import PdfiumReader

__all__ = ["main"]


class _Request(NamedTuple):
    fields: dict[str, Any]
    data: bytes


class _Reply(NamedTuple):
    fields: dict[str, Any]
    data: Any = b""


class _Worker:
    def __init__(self, memory: int, pixels: mmap | None) -> None:
        self._memory, self._pixels = memory, pixels
        self._start = address_space()
        self._opened = self._start  # address space once the document was open
        self._content = 0  # bytes of the document, if they came with the request
        self._reader: PdfiumReader | None = None

    def answer(self, request: _Request) -> _Reply:
        before = time.process_time()
        if request.fields["call"] == "open":
            self._content = len(request.data)
        set_limits(request.fields["cpu"], self._start and self._start + self._content + self._memory)
        try:
            fields, data = self._result(request)
        except PdfError as error:
            fields, data = {"error": str(error)}, b""
        except MemoryError:
            fields, data = {"error": "", "memory": True}, b""
        except Exception as error:  # foreign, such as that of a damaged text
            fields, data = {"error": f"{type(error).__name__}: {error}"}, b""
        finally:
            lift_limits()
        grown = (address_space() or 0) - (self._opened or 0)
        return _Reply({**fields, "cpu": time.process_time() - before, "grown": grown}, data)

    def _result(self, request: _Request) -> _Reply:
        fields = request.fields
        if fields["call"] == "open":
            return self._open(request)
        if fields["call"] == "close":
            return self._close()
        if self._reader is None:
            raise PdfError("the document was closed")
        return getattr(self, f"_{fields['call']}")(self._reader, fields["page"], fields)  # type: ignore[no-any-return]

    def _open(self, request: _Request) -> _Reply:
        self._close()
        path = request.fields.get("path")
        source = request.data if path is None else Path(path)
        self._reader = PdfiumReader(source, request.fields["password"])
        self._opened = address_space()
        return _Reply({"page_count": self._reader.page_count})

    def _close(self) -> _Reply:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()
        return _Reply({})

    def _size(self, reader: PdfiumReader, page: int, _: dict[str, Any]) -> _Reply:
        width, height = reader.size(page)
        return _Reply({"width": width, "height": height})

    def _text(self, reader: PdfiumReader, page: int, fields: dict[str, Any]) -> _Reply:
        read = reader.text(page, judged=fields["judged"])
        return _Reply({"missing_fonts": read.missing_fonts}, read.text.encode())

    def _label(self, reader: PdfiumReader, page: int, _: dict[str, Any]) -> _Reply:
        return _Reply({"label": reader.label(page)})

    def _draw(self, reader: PdfiumReader, page: int, fields: dict[str, Any]) -> _Reply:
        drawn = reader.draw(page, fields["dpi"], self._pixels)
        place = {"width": drawn.width, "height": drawn.height, "stride": drawn.stride, "dpi": drawn.dpi}
        return _Reply(place, drawn.data if self._pixels is None else b"")


def main() -> None:
    """Answer requests until the input is closed."""
    version, memory, *shared = sys.argv[1:]
    if version != __version__:
        sys.exit(OTHER_VERSION)
    no_core_dumps()
    # Ctrl-C reaches all processes of a terminal. It ends this one without a traceback, unless the caller ignores it.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    incoming, outgoing = _private_streams()
    requests: SimpleQueue[_Request] = SimpleQueue()
    # A thread of its own notices the end of the input while pdfium works.
    threading.Thread(target=_receive, args=(incoming, requests), daemon=True).start()
    worker = _Worker(int(memory), mmap(int(shared[0]), MAX_BYTES) if shared else None)
    while True:
        fields, data = worker.answer(requests.get())
        view = memoryview(data).cast("B")
        _send(outgoing, pack(fields, len(view)))
        _send(outgoing, view)


def _private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Input and output under other numbers, so that nothing printed by a library gets between the replies."""
    incoming, outgoing = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    return incoming, outgoing


def _receive(incoming: BinaryIO, requests: SimpleQueue[_Request]) -> None:
    with suppress(Exception):
        while head := incoming.read(HEAD_BYTES):
            fields, data = lengths(head)
            requests.put(_Request(unpack(incoming.read(fields)), incoming.read(data)))
    os._exit(0)  # even while the main thread is in pdfium


def _send(outgoing: BinaryIO, content: bytes | memoryview) -> None:
    view = memoryview(content)
    try:
        while view:
            view = view[outgoing.write(view) :]
    except OSError:  # the caller has ended
        os._exit(0)


if __name__ == "__main__":
    main()
