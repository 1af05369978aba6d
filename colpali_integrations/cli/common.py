"""Exit codes, and the opening of stores, for all commands."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path

from colpali_integrations.errors import StoreError
from colpali_integrations.models.colpali import ColPali
from colpali_integrations.stores import MultiVectorStore, stored_settings

__all__ = ["EPILOG", "NAME", "ExitCode", "open_store", "require_store"]

NAME = "colpali-integrations"
EPILOG = (
    "Exit codes: 0 done; 1 error; 2 wrong usage; 3 nothing found, some documents could not be indexed, entries were "
    "lost, or verify or doctor found a problem; 130 interrupted."
)


class ExitCode(IntEnum):
    """Exit codes, for scripts."""

    OK = 0
    ERROR = 1
    USAGE = 2
    INCOMPLETE = 3
    INTERRUPTED = 130


def require_store(store: Path) -> None:
    """Refuse a folder without a store.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    if stored_settings(store) is None:
        raise StoreError(f"there is no store at {store}: make one with {NAME} index PATH --store {store}")


def open_store(store: Path, model: ColPali | None = None, *, read_only: bool = False) -> MultiVectorStore:
    """Open an existing store.

    Raises:
        StoreError: there is none, or it cannot be read.
    """
    require_store(store)
    return MultiVectorStore.open(store, model=model, read_only=read_only)
