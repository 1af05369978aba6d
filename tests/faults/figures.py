"""The outcome of a scenario."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Figures"]


@dataclass
class Figures:
    """How often a fault was tried, and how often it did harm.

    Attributes:
        name: of the fault.
        rounds: number of tries.
        bad: a description per try that did harm.
        notes: what the tries covered, for the report.
        skipped: the reason why it cannot be tried here.
    """

    name: str
    rounds: int = 0
    bad: list[str] = field(default_factory=list)
    notes: str = ""
    skipped: str = ""

    def add(self, problems: list[str], where: str) -> None:
        """Count a try."""
        self.rounds += 1
        if problems:
            self.bad.append(f"{where}: {'; '.join(problems)[:600]}")
