"""Forked processes: a child has only the thread that forked, and finds locked what the other threads had locked.

Servers that load their models before they fork (gunicorn with preload_app) and multiprocessing before Python 3.14 make
such children.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from typing import Protocol

__all__ = ["ForkLock", "Renewable", "hold_during_forks", "keep_for_ever", "renew_after_forks"]


class Lockable(Protocol):
    """A lock of `threading`."""

    def acquire(self) -> bool: ...

    def release(self) -> None: ...


class Renewable(Protocol):
    """An object with a state that a forked child cannot use."""

    def _renew(self) -> None: ...


_renewables: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_after_forks(renewable: Renewable) -> None:
    """Call the object's `_renew()` in each forked child, as long as it lives."""
    _renewables.add(renewable)


def hold_during_forks(lock: Lockable) -> None:
    """Let each fork wait until the lock is free, so that no child inherits the half of a change that it protects."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(before=lock.acquire, after_in_parent=lock.release, after_in_child=lock.release)


def keep_for_ever(value: object) -> None:
    """Never destroy an object, not even at the end of the process.

    A session of onnxruntime that a child inherits has lost its threads; its destruction would wait for them.
    """
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(value))


class ForkLock:
    """A lock that is free in a forked child."""

    def __init__(self) -> None:
        self._renew()
        renew_after_forks(self)

    def _renew(self) -> None:
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def _renew_all() -> None:
    for one in list(_renewables):
        one._renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
