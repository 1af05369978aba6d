"""PDFs that stay open while a caller draws several pages from their metadata.

Opening a PDF takes time in proportion to its pages, so opening it for each of its pages takes time in proportion to
their square.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import ContextDecorator, contextmanager
from typing import TypeAlias

from colpali_integrations._forks import hold_during_forks
from colpali_integrations.pages.pdf import Pdf, open_pdf

__all__ = ["keep_pdfs_open", "open_or_kept"]

_KEPT = 4  # documents; as many as processes that read them

_Key: TypeAlias = tuple[str, int, int, int, str | None, bool]

_callers = 0
_idle: OrderedDict[_Key, Pdf] = OrderedDict()
_keeping = threading.Lock()
hold_during_forks(_keeping)


class keep_pdfs_open(ContextDecorator):
    """Keep the latest documents of `open_or_kept` open until no caller is in this context any more.

    No generator with `contextmanager`: before Python 3.11 that leaves the frame of a generator which is closed in the
    context, and so all that it reads, to the garbage collector.
    """

    def __enter__(self) -> None:
        """Count a caller."""
        global _callers
        with _keeping:
            _callers += 1

    def __exit__(self, *_: object) -> None:
        """Close the documents after the last caller."""
        global _callers
        with _keeping:
            _callers -= 1
            done = [] if _callers else _take(0)
        _close(done)


@contextmanager
def open_or_kept(path: str, *, password: str | None, isolate: bool) -> Iterator[Pdf]:
    """A document that is kept open, or opened; no other caller uses it meanwhile.

    Args:
        path: of a file. One that has changed is another document.
        password: as for `open_pdf`.
        isolate: as for `open_pdf`.

    Raises:
        PdfError: as `open_pdf`.
    """
    key = _key(path, password, isolate)
    with _keeping:
        kept = None if key is None else _idle.pop(key, None)
    pdf = kept or open_pdf(path, password=password, isolate=isolate)
    try:
        yield pdf
    finally:
        with _keeping:
            surplus = [pdf]
            if key is not None and _callers and key not in _idle:
                _idle[key] = pdf
                surplus = _take(_KEPT)
        _close(surplus)


def _take(most: int) -> list[Pdf]:
    """Take out all but the `most` latest documents."""
    return [_idle.popitem(last=False)[1] for _ in range(len(_idle) - most)]


def _close(documents: list[Pdf]) -> None:
    for one in documents:
        one.close()


def _key(path: str, password: str | None, isolate: bool) -> _Key | None:
    try:
        status = os.stat(path)  # noqa: PTH116 - a string
    except (OSError, ValueError):
        return None  # opening it raises the error
    return path, status.st_size, status.st_mtime_ns, status.st_ino, password, isolate
