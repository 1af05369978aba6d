"""What converting one document may take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OfficeLimits"]


@dataclass(frozen=True)
class OfficeLimits:
    """The limits of one conversion; `docs/office.md` has a table of them.

    Attributes:
        cpu_seconds: processor time of LibreOffice, and as much again of the process that cleans the document.
        seconds: time on the clock of LibreOffice.
        memory: bytes of address space of LibreOffice, of which its libraries take about one GB, and as many of the
            process that cleans the document.
        document_bytes: of the document.
        result_bytes: of the PDF.
    """

    cpu_seconds: int = 120
    seconds: float = 240.0
    memory: int = 4_000_000_000
    document_bytes: int = 500_000_000
    result_bytes: int = 500_000_000
