"""The machine: its cores and instructions, and its memory, to which freed memory is returned.

The run of a page allocates and frees blocks of tens of megabytes whose sizes depend on the page's shape. glibc adapts
to the first blocks and keeps such sizes in its heap, where later blocks do not fit: over pages of mixed shapes the
process grows by freed memory (from 365 to 585 MiB over 300 pages of ColTiny, and further; benchmarks/memory.py).
`malloc_trim` returns the unused parts of the heap within milliseconds. Other C libraries do not need it.
"""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

__all__ = ["available_cores", "byte_instructions", "release_freed_memory"]

_ROOT = Path("/")
# Instructions that multiply bytes and add up the products in 32 bits, by the names that Linux gives them.
_BYTE_PRODUCTS = frozenset({"avx_vnni", "avx512_vnni", "amx_int8", "asimddp", "i8mm"})


def available_cores(root: Path = _ROOT) -> int:
    """Count the cores that this process may use: in a container fewer than the machine has.

    Counted are the cores of the process's affinity, and at most as many as the CPU time that Linux's control groups
    (`docker run --cpus`, a Kubernetes limit) permit, rounded up: two threads use a quota of 1.5 cores, one does not.

    Args:
        root: of the file system whose /proc and /sys describe the control groups.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cpu_quota(root)
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


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


@cache
def _cpu_quota(root: Path) -> float | None:
    """The least CPU seconds per second that a control group of this process permits; None without a limit."""
    with suppress(OSError):
        return min(_all_quotas(root), default=None)
    return None


def _all_quotas(root: Path) -> Iterator[float]:
    mounts = list(_cgroup_mounts(root))
    # Each line of cgroup is "4:cpu,cpuacct:/group", and "0::/group" in version 2.
    for line in (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines():
        if line.count(":") < 2:
            continue
        _, controllers, group = line.split(":", 2)
        for version_2, top, folder in mounts:
            if not controllers if version_2 else "cpu" in controllers.split(","):
                yield from _quotas(root / folder.lstrip("/"), top, group, version_2)


def _cgroup_mounts(root: Path) -> Iterator[tuple[bool, str, str]]:
    """The mounted hierarchies that limit CPU time: whether one is of version 2, the group at its top, and its folder.

    Each line of mountinfo is "36 25 0:32 /group /sys/fs/cgroup/cpu rw,... - cgroup cgroup rw,cpu,cpuacct".
    """
    text = (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace")
    for line in text.splitlines():
        place, _, kind = line.partition(" - ")
        if len(place.split()) < 5 or len(kind.split()) < 3:
            continue
        top, folder = (one.replace("\\040", " ") for one in place.split()[3:5])  # a space in a name
        name, _, options = kind.split()[:3]
        if name == "cgroup2" or (name == "cgroup" and "cpu" in options.split(",")):
            yield name == "cgroup2", top, folder


def _quotas(mount: Path, top: str, group: str, version_2: bool) -> Iterator[float]:
    """The limits of a group and of those above it, which limit it too.

    Args:
        mount: the folder of the hierarchy.
        top: the group that is mounted there; in a container often the container's own.
        group: the path of the process's group.
        version_2: of the hierarchy.
    """
    # In a container the path may be that of the machine, which the mount does not show.
    below = PurePosixPath(group).relative_to(top) if PurePosixPath(group).is_relative_to(top) else PurePosixPath()
    for depth in range(len(below.parts), -1, -1):
        with suppress(OSError, ValueError, ArithmeticError):  # ArithmeticError: a period of 0, a quota of 400 digits
            yield from _quota_of(mount.joinpath(*below.parts[:depth]), version_2)


def _quota_of(place: Path, version_2: bool) -> Iterator[float]:
    if version_2:  # "150000 100000", or "max 100000"
        quota, period = (place / "cpu.max").read_text(encoding="ascii").split()
    else:
        quota, period = ((place / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period"))
    if quota != "max" and int(quota) > 0:  # -1: none
        yield int(quota) / int(period)


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
