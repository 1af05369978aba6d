"""Pages of unequal lengths in blocks of a bounded number of vectors."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["blocks"]


def blocks(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Ranges of pages of so many vectors each, with at most `most` together, or one page that has more."""
    found: list[tuple[int, int]] = []
    first = size = 0
    for index, length in enumerate(lengths):
        if size and size + length > most:
            found.append((first, index))
            first, size = index, 0
        size += length
    return [*found, (first, len(lengths))]
