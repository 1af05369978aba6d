"""The commit point of a page store: one small JSON file, replaced in a single rename."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from colpali_integrations.core.errors import StoreError
from colpali_integrations.stores.records import Fingerprint

__all__ = ["Manifest", "cut", "sync"]

_FORMAT = 1
_NAME = "store.json"


@dataclass(frozen=True)
class Manifest:
    """What of the data files counts.

    Attributes:
        model: by which model the vectors were made.
        generation: number in the data files' names; deleting pages starts a new one.
        pages: how many pages count.
        vectors: how many vectors they have together.
        page_bytes: how long their lines in the page file are together.
    """

    model: Fingerprint
    generation: int = 1
    pages: int = 0
    vectors: int = 0
    page_bytes: int = 0

    @property
    def vector_bytes(self) -> int:
        """How much of the vector file counts; float16 takes two bytes."""
        return self.vectors * self.model.dim * 2

    def vector_path(self, folder: Path) -> Path:
        """The file with the vectors of this generation."""
        return folder / f"vectors-{self.generation}.f16"

    def page_path(self, folder: Path) -> Path:
        """The file with the pages of this generation."""
        return folder / f"pages-{self.generation}.jsonl"

    def save(self, folder: Path) -> None:
        """Make this the state of the store; the data files must be on disk already."""
        temporary = folder / f"{_NAME}.tmp"
        with temporary.open("w", encoding="utf-8") as file:
            json.dump({"format": _FORMAT, **asdict(self)}, file, indent=2)
            sync(file)
        temporary.replace(folder / _NAME)

    @classmethod
    def load(cls, folder: Path) -> Manifest | None:
        """The state of the store in `folder`, None where there is no store.

        Raises:
            StoreError: the file is unreadable, no manifest, or of another version.
        """
        try:
            fields: Any = json.loads((folder / _NAME).read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (OSError, ValueError) as error:
            raise StoreError(f"the store {folder} cannot be read: {error}") from error
        try:
            if (version := fields.pop("format")) != _FORMAT:
                raise StoreError(
                    f"the store {folder} has format {version}; this version of the package reads {_FORMAT}"
                )
            return cls(**{**fields, "model": Fingerprint(**fields["model"])})
        except (AttributeError, KeyError, TypeError) as error:
            raise StoreError(f"{folder / _NAME} is not the description of a page store ({error!r})") from error


def sync(file: IO[Any]) -> None:
    """Force what was written to `file` to disk."""
    file.flush()
    os.fsync(file.fileno())


def cut(path: Path, size: int) -> None:
    """Cut off what a writer that died left behind the first `size` bytes."""
    if path.exists() and path.stat().st_size > size:
        with path.open("r+b") as file:
            file.truncate(size)
