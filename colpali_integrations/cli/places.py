"""The place of an index, as commands take it: a folder, or the URL of a server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

__all__ = ["StorePlace"]

if TYPE_CHECKING:
    StorePlace: TypeAlias = Path | str
    """The folder of an index, or the URL of a server (`serve`)."""
else:
    StorePlace = str  # Typer takes no unions; of Path it would make a path of what the parser returns, some versions do
