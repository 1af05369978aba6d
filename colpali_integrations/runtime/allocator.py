"""Give freed memory back to the operating system.

A page run takes and frees blocks of tens of megabytes whose sizes follow the page's shape. glibc learns from the first
ones to keep such blocks in its heap, where blocks of other sizes then do not fit: over pages of mixed shapes a process
grows without holding anything (365 to 585 MiB over 300 pages of ColTiny, and on; benchmarks/memory.py).
`malloc_trim` returns the unused pages of the heap, in milliseconds. Other C libraries do not need it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["release_freed_memory"]


def release_freed_memory() -> None:
    """Return what the C library keeps of freed memory, where it is known to keep too much (glibc)."""
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], Any] | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except (OSError, AttributeError):  # musl
        return None
