"""Return freed memory to the operating system.

The run of a page allocates and frees blocks of tens of megabytes whose sizes depend on the page's shape. glibc adapts
to the first blocks and keeps such sizes in its heap, where later blocks do not fit: over pages of mixed shapes the
process grows by freed memory (from 365 to 585 MiB over 300 pages of ColTiny, and further; benchmarks/memory.py).
`malloc_trim` returns the unused parts of the heap within milliseconds. Other C libraries do not need it.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

__all__ = ["release_freed_memory"]


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
