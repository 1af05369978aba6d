"""Child processes: functions that run in a fork of this process, which itself never opens a store."""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
import time
import traceback
from collections.abc import Callable
from typing import Any

__all__ = ["Child", "in_child"]

_PATIENCE = 60.0


class Child:
    """A forked process that runs a function.

    Args:
        work: called with a function that sends numbers to the parent; returns a value that can be pickled.
    """

    def __init__(self, work: Callable[[Callable[[int], None]], Any]) -> None:
        self._marks, marks = os.pipe()
        self._results, results = os.pipe()
        self.process = os.fork()
        if self.process == 0:
            _run(work, marks, results)
        os.close(marks)
        os.close(results)
        self.status = 0
        self.sent: list[int] = []

    def ended(self, patience: float) -> list[int]:
        """Wait until the process has died, or kill it; the numbers that it sent."""
        select.select([self._results], [], [], patience)
        return self.kill()

    def kill(self) -> list[int]:
        """Kill the process now; the numbers that it sent."""
        os.kill(self.process, signal.SIGKILL)
        os.close(self._results)
        return self._ended()

    def result(self, patience: float = _PATIENCE) -> Any:
        """The value that the function returned.

        Raises:
            TimeoutError: it did not end.
            RuntimeError: it raised an error, or the process died.
        """
        data, limit = b"", time.monotonic() + patience
        while select.select([self._results], [], [], max(0.0, limit - time.monotonic()))[0]:
            piece = os.read(self._results, 1 << 20)
            if not piece:
                break
            data += piece
        else:
            self.kill()
            raise TimeoutError(f"a process did not end within {patience:.0f} s")
        os.close(self._results)
        self.sent = self._ended()
        if not data:
            raise RuntimeError(f"the process died: status {self.status}")
        good, value = pickle.loads(data)
        if not good:
            raise RuntimeError(value)
        return value

    def _ended(self) -> list[int]:
        self.status = os.waitpid(self.process, 0)[1]
        with os.fdopen(self._marks, "rb") as file:
            data = file.read()
        return [number for (number,) in struct.iter_unpack("<q", data[: len(data) // 8 * 8])]


def in_child(work: Callable[..., Any], *arguments: Any, patience: float = _PATIENCE) -> Any:
    """Run a function in a fork; its result."""
    return Child(lambda _: work(*arguments)).result(patience)


def _run(work: Callable[[Callable[[int], None]], Any], marks: int, results: int) -> None:
    try:
        try:
            outcome = (True, work(lambda number: _send(marks, struct.pack("<q", number))))
        except BaseException:
            outcome = (False, traceback.format_exc())
        _send(results, pickle.dumps(outcome))
    finally:
        os._exit(0)


def _send(descriptor: int, data: bytes) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
