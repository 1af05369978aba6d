"""Opening files, and nothing else that has a path.

Reading from a pipe, a terminal or a file of /proc may wait for ever, never end, or take what another program needs.
"""

from __future__ import annotations

import os
import stat
from functools import cache
from typing import IO

__all__ = ["check_is_file", "open_file"]

# Neither waits for a pipe's other end, nor makes a terminal the controlling one, where the system has these flags.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


def open_file(path: str | os.PathLike[str]) -> IO[bytes]:
    """Open a file for reading, in binary mode.

    Raises:
        OSError: there is no such file, or it is a folder, a device, a pipe, a socket or in /proc.
        ValueError: the path has a null byte.
    """
    check_is_file(os.stat(path))  # noqa: PTH116 - a path of any kind
    descriptor = os.open(path, _FLAGS)
    try:
        check_is_file(os.fstat(descriptor))  # another one may have taken its place
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_is_file(status: os.stat_result) -> None:
    """Refuse what is neither a file nor a folder, whose opening is an error of its own.

    Raises:
        OSError: a device, a pipe, a socket, or a file in /proc.
    """
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OSError("it is a device or a pipe, and not a file")
    if status.st_dev in _kernel_devices():
        raise OSError("it is a file of the kernel, such as those in /proc, and not a document")


@cache
def _kernel_devices() -> frozenset[int]:
    """The file systems whose files are made up by the kernel when they are read."""
    found = set()
    for folder in ("/proc", "/sys"):
        try:
            found.add(os.stat(folder).st_dev)  # noqa: PTH116 - also on Windows, where it does not exist
        except OSError:
            continue
    return frozenset(found - {os.stat("/").st_dev})  # noqa: PTH116
