"""The machine: its cores, and its memory, to which freed memory is returned.

The run of a page allocates and frees blocks of tens of megabytes whose sizes depend on the page's shape. glibc adapts
to the first blocks and keeps such sizes in its heap, where later blocks do not fit: over pages of mixed shapes the
process grows by freed memory (from 365 to 585 MiB over 300 pages of ColTiny, and further; benchmarks/memory.py).
`malloc_trim` returns the unused parts of the heap within milliseconds. Other C libraries do not need it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["available_cores", "release_freed_memory"]


def available_cores() -> int:
    """Count the cores that this process may use: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def release_freed_memory() -> None:
    """Make the C library return freed memory, where it keeps too much (glibc)."""
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
