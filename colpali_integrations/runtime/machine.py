"""The machine: its cores and instructions, and its memory, to which freed memory is returned.

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
from pathlib import Path
from typing import Any

__all__ = ["available_cores", "byte_instructions", "release_freed_memory"]

# Instructions that multiply bytes and add up the products in 32 bits, by the names that Linux gives them.
_BYTE_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})


def available_cores() -> int:
    """Count the cores that this process may use: in a container fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def byte_instructions(cpu_info: Path = Path("/proc/cpuinfo")) -> tuple[str, ...] | None:
    """The processor's instructions for products of bytes, with which weights of 8 bits are faster than float32.

    Args:
        cpu_info: Linux's description of the processor.

    Returns:
        Linux's names, such as "avx512_vnni" (x86) and "asimddp" (ARM, the dot product); () for a processor without any;
        None where the system does not list them.
    """
    try:
        text = cpu_info.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = (line.partition(":") for line in text.splitlines())
    flags = next((words for name, _, words in lines if name.strip() in ("flags", "Features")), None)
    return None if flags is None else tuple(sorted(_BYTE_PRODUCTS.intersection(flags.split())))


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
