"""The exchange of a store's folder for another one beside it, such as a compressed copy."""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from colpali_integrations.errors import StoreError
from colpali_integrations.stores.embedded.blocks import sync_folder

__all__ = ["FORMER", "beside", "finish", "is_between", "is_former", "refuse_between", "swap"]

_NEW, _OLD = ".compressing", ".uncompressed"
_DATABASE = "store.db"
FORMER = f"{_DATABASE}.former"
"""The file that marks a former store: no other store is taken for one, and removed."""
# Linux: the descriptor that stands for the working directory, and RENAME_EXCHANGE. macOS: RENAME_SWAP.
_HERE, _EXCHANGE, _SWAP = -100, 2, 2
_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP)


def beside(folder: Path) -> tuple[Path, Path]:
    """The folders of a store that is being made, and of the former one.

    Raises:
        StoreError: there is nothing beside the root of a disk.
    """
    if not folder.name:
        raise StoreError(f"{folder} is the root of a disk, and not the folder of a store; pass the folder of one")
    return folder.with_name(folder.name + _NEW), folder.with_name(folder.name + _OLD)


def is_former(folder: Path) -> bool:
    """Whether a folder holds a store that another one has replaced, or was about to."""
    return (folder / FORMER).exists()


def is_between(folder: Path) -> bool:
    """Whether a swap of folders was interrupted between two renames, so that there is none of this name."""
    if folder.exists():
        return False
    new, old = beside(folder)
    return (new / _DATABASE).exists() and (old / _DATABASE).exists() and is_former(old)


def refuse_between(folder: Path) -> None:
    """Refuse to make a store where a swap of folders was interrupted.

    Raises:
        StoreError: it was.
    """
    if is_between(folder):
        new, old = beside(folder)
        raise StoreError(
            f"there is no {folder}, because its compression was interrupted; both stores are whole. Run it again, or "
            f"rename {new} or {old} to {folder}"
        )


def swap(folder: Path) -> None:
    """Put the new store in the place of the former one, which gets the name for former ones.

    Where the system can exchange two folders (Linux, macOS), there is a store under the name at every moment. Elsewhere
    there is none between two renames; see `is_between`.

    Raises:
        OSError: the folders cannot be renamed.
    """
    new, old = beside(folder)
    (folder / FORMER).touch()
    sync_folder(folder)
    if _exchanged(folder, new):
        sync_folder(folder.parent)
        new.rename(old)
    else:
        folder.rename(old)
        sync_folder(folder.parent)
        new.rename(folder)
    sync_folder(folder.parent)


def finish(folder: Path) -> None:
    """Make the last rename of an interrupted swap; the store under the name, if there is one, is the new one."""
    new, old = beside(folder)
    if is_between(folder):
        new.rename(folder)
    elif (new / _DATABASE).exists() and not old.exists():
        new.rename(old)
    sync_folder(folder.parent)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system cannot."""
    if sys.platform == "linux":
        call = _function("renameat2")
        arguments = (_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE)
    elif sys.platform == "darwin":
        call = _function("renamex_np")
        arguments = (os.fsencode(one), os.fsencode(other), _SWAP)
    else:
        return False
    if call is None:
        return False
    if call(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(one))


def _function(name: str) -> Callable[..., int] | None:
    try:
        found: Callable[..., int] = getattr(ctypes.CDLL(None, use_errno=True), name)
    except (OSError, AttributeError):  # an older C library
        return None
    return found
