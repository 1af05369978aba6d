"""Limits of processor time, time and memory for one page, and how a worker sets them for itself.

| limit | Linux | macOS | Windows |
|---|---|---|---|
| processor time | the kernel's (`RLIMIT_CPU`) | the kernel's | none |
| time | the caller's | the caller's | the caller's |
| memory | the kernel's (`RLIMIT_AS`) | none | none |
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from dataclasses import dataclass, replace

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Limits", "address_space", "lift_limits", "no_core_dumps", "set_limits"]


@dataclass(frozen=True)
class Limits:
    """What opening a document may take, and reading and drawing each page; a whole document has no limit.

    Attributes:
        cpu_seconds: the worker's processor time. The kernel counts whole seconds, and up to one more.
        seconds: time on the clock.
        memory: bytes of address space beyond the worker's start and the content that it is given.
    """

    cpu_seconds: float = 30
    seconds: float = 120
    memory: int = 1_500_000_000

    @property
    def judging(self) -> Limits:
        """What finding the text that no viewer shows may take, beside the rest of the page: a sixth of the times."""
        return replace(self, cpu_seconds=self.cpu_seconds / 6, seconds=self.seconds / 6)


def address_space() -> int | None:
    """Bytes of address space of this process; None where the system does not tell them."""
    try:
        with open("/proc/self/statm", "rb") as file:  # noqa: PTH123 - pathlib takes longer than the rest
            return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def set_limits(cpu_seconds: float, memory: int | None) -> None:
    """Set the limits of this process, where the system has them.

    Args:
        cpu_seconds: processor time from now on; then the kernel ends this process by SIGXCPU.
        memory: bytes of address space of the whole process; then allocations fail. None for no limit.
    """
    if resource is None:
        return
    _set_soft("RLIMIT_CPU", math.ceil(time.process_time() + cpu_seconds))
    if memory is not None:
        _set_soft("RLIMIT_AS", memory)


def lift_limits() -> None:
    """Take back `set_limits`."""
    if resource is not None:
        for name in ("RLIMIT_CPU", "RLIMIT_AS"):
            _set_soft(name, resource.RLIM_INFINITY)


def no_core_dumps() -> None:
    """Let this process write no file when it crashes: its memory may hold a password."""
    if resource is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _set_soft(name: str, value: int) -> None:
    kind = getattr(resource, name)
    most = resource.getrlimit(kind)[1]
    if most != resource.RLIM_INFINITY and (value == resource.RLIM_INFINITY or value > most):
        value = most
    with contextlib.suppress(OSError, ValueError):  # a system that has no such limit
        resource.setrlimit(kind, (value, most))
