"""Reports of the care for a store: the problems that a check found, and the outcome of a repair."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["LostEntry", "Problem", "RepairReport", "VerifyReport"]


@dataclass(frozen=True)
class Problem:
    """A damage in a store.

    Attributes:
        file: the name of the damaged file.
        message: the kind of the damage.
        ids: the entries that it concerns, as far as they can be read.

    Example:
        >>> print(Problem("full-00000001.block", "it is missing", ("a", "b", "c", "d")))
        full-00000001.block: it is missing ('a', 'b', 'c' and 1 more)
    """

    file: str
    message: str
    ids: tuple[str, ...] = ()

    def __str__(self) -> str:
        shown = ", ".join(map(repr, self.ids[:3])) + (f" and {len(self.ids) - 3} more" if len(self.ids) > 3 else "")
        return f"{self.file}: {self.message}" + (f" ({shown})" if self.ids else "")


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """The outcome of `verify`.

    Attributes:
        problems: all that are damaged; each file and kind of damage once.
        entries: number of entries that were read.
        files: number of files of vectors that the database names.
        leftovers: names of files in the folder that the store does not use: those of a killed process, which the next
            change removes, and foreign ones.

    Example:
        >>> from colpali_integrations.stores import MultiVectorStore
        >>> with MultiVectorStore.open("my-index") as store:
        ...     report = store.verify()
        >>> report.ok, report.entries, report.files
        (True, 2, 1)
    """

    problems: list[Problem] = field(default_factory=list)
    entries: int = 0
    files: int = 0
    leftovers: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there are no problems."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(frozen=True)
class LostEntry:
    """An entry that a repair could not save; its document can be indexed again.

    Attributes:
        id: None if it cannot be read.
        name: "report.pdf, page 7", or the id, or its number in the store.
        document_id: None for an entry without one, or if it cannot be read.
        reason: the damage.

    Example:
        >>> LostEntry("9f", "report.pdf, page 7", "/data/report.pdf", "its vectors are damaged").name
        'report.pdf, page 7'
    """

    id: str | None
    name: str
    document_id: str | None
    reason: str


@dataclass(frozen=True, kw_only=True)
class RepairReport:
    """The outcome of `repair`.

    Attributes:
        problems: those that were found; without any nothing was changed.
        kept: number of entries that the store holds.
        rebuilt: ids of the kept entries whose first stage or words were made again, from their vectors and text.
        lost: entries that were dropped.
        set_aside: names that damaged or unknown files have now; nothing reads them, and they can be deleted.

    Example:
        >>> from colpali_integrations.stores import repair_store
        >>> report = repair_store("my-index")  # a sound store stays unchanged
        >>> report.kept, report.lost, report.set_aside
        (2, [], [])
    """

    problems: list[Problem] = field(default_factory=list)
    kept: int = 0
    rebuilt: list[str] = field(default_factory=list)
    lost: list[LostEntry] = field(default_factory=list)
    set_aside: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe fields."""
        return asdict(self)
