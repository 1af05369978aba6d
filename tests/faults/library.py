"""The preloaded library of `calls.c`: its building, and its control from the process that it is loaded into."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

__all__ = ["KILL", "Library", "build", "library"]

KILL = -1
_SOURCE = Path(__file__).with_name("calls.c")
_NEVER = -1


def build(folder: Path) -> Path | str:
    """Build the library; its path, or the reason why it cannot be used here."""
    if sys.platform != "linux":
        return "calls are intercepted by LD_PRELOAD, on Linux only"
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return "there is no C compiler (cc or gcc) to build tests/faults/calls.c"
    target = folder / "calls.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(target), str(_SOURCE), "-ldl", "-lpthread"]
    built = subprocess.run(command, capture_output=True, text=True)
    return target if built.returncode == 0 else f"tests/faults/calls.c cannot be built: {built.stderr.strip()[-300:]}"


class Library:
    """Control of the calls of this process."""

    def __init__(self) -> None:
        self._calls = ctypes.CDLL(None)
        self._calls.faults_counted.restype = ctypes.c_long
        self._calls.faults_fail.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_int]
        self._calls.faults_space.argtypes = [ctypes.c_long]
        self._calls.faults_mark.argtypes = [ctypes.c_uint64]

    def watch(self, folder: Path) -> None:
        """Watch the calls for the files in a folder, and for the folder itself."""
        self._calls.faults_root(os.fsencode(folder))
        self.fail(_NEVER)

    def fail(self, first: int, code: int = 0, *, calls: int = 1) -> None:
        """Let `calls` calls fail, beginning with call number `first` from now (1 is the next), or kill the process."""
        self._calls.faults_fail(first, first + calls - 1, code)

    def counted(self) -> int:
        """The number of calls since `watch` or `fail`."""
        return int(self._calls.faults_counted())

    def space(self, size: int | None) -> None:
        """Let files grow by this number of bytes before the disk is full; None for no limit."""
        self._calls.faults_space(-1 if size is None else size)

    def record(self, descriptor: int) -> None:
        """Record all changes in a file; flushes reach the record only, not the disk of this machine."""
        self._calls.faults_record(descriptor)

    def mark(self, number: int) -> None:
        """Put a mark into the record."""
        self._calls.faults_mark(number)


@cache
def library() -> Library | None:
    """The library, if it is loaded into this process."""
    return Library() if hasattr(ctypes.CDLL(None), "faults_root") else None
