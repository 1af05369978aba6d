"""The lock of a store's writers: one process writes at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.connections import PATIENCE

__all__ = ["LOCK", "locked", "write_lock"]

LOCK = "store.lock"


def write_lock(folder: Path, mode: int) -> FileLock:
    """The lock of a store's writers, whose file gets the permissions `mode`."""
    # filelock refuses a lock that its owner could not write, such as that of a store whose files were made read-only.
    return FileLock(folder / LOCK, timeout=PATIENCE, mode=mode | 0o600, thread_local=False)


@contextlib.contextmanager
def locked(lock: FileLock, folder: Path) -> Iterator[None]:
    """Hold the lock of the writers of the store in a folder.

    Raises:
        StoreError: another process has held it for too long.
        OSError: the folder cannot be written.
    """
    try:
        lock.acquire()
    except Timeout as error:
        raise StoreError(
            f"another process has kept the store {folder} locked for {lock.timeout:.0f} s; nothing was changed. It may "
            "be optimizing or repairing the store, which takes as long as the disk needs for all of its files. Try "
            "again when it has finished, or end it if it hangs"
        ) from error
    try:
        yield
    finally:
        lock.release()
