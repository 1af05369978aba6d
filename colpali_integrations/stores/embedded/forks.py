"""Forks of a process with open stores: they wait for the transactions.

SQLite counts a process's locks in the process's memory. A child forked during a transaction would believe for ever that
it holds that lock: it would read without one, and could not write.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Protocol

__all__ = ["fork_lock", "hold_for_forks"]

fork_lock = threading.RLock()
"""Held by a thread that opens a connection of its own to a store: a fork waits for it."""


class _Holdable(Protocol):
    def hold(self) -> None:
        """Wait until no thread of this process is in a transaction, and let none begin one."""

    def release(self) -> None:
        """Let threads begin transactions."""


_opened: weakref.WeakSet[_Holdable] = weakref.WeakSet()
_waiting: list[_Holdable] = []  # for the end of a fork


def hold_for_forks(database: _Holdable) -> None:
    """Hold a database during each fork of this process, as long as it exists."""
    _opened.add(database)


def _before_fork() -> None:
    fork_lock.acquire()
    _waiting.extend(_opened)
    for database in _waiting:
        database.hold()


def _after_fork() -> None:
    while _waiting:
        _waiting.pop().release()
    fork_lock.release()


def _in_child() -> None:
    _waiting.clear()  # they have new locks
    fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_in_child)
