"""The runs of ONNX Runtime that a caller can end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import onnxruntime as ort

__all__ = ["Runs"]


class Runs:
    """The runs under way for one caller, which another thread can end.

    Without this, leaving a loop over pages early (or Ctrl-C) would wait for a run that can take half a minute.

    Attributes:
        ended: whether `end` was called.
    """

    def __init__(self) -> None:
        self.ended = False
        self._lock = threading.Lock()
        self._active: set[ort.RunOptions] = set()

    @contextmanager
    def one(self) -> Iterator[ort.RunOptions]:
        """Make the options of a run, which is under way as long as the context lasts."""
        options = ort.RunOptions()
        with self._lock:
            options.terminate = self.ended
            self._active.add(options)
        try:
            yield options
        finally:
            with self._lock:
                self._active.discard(options)

    def end(self) -> None:
        """End the runs under way at their next operator, and later runs at once; they raise EncodingError."""
        with self._lock:
            self.ended = True
            for options in self._active:
                options.terminate = True
