"""Group pages of unequal lengths into blocks of a bounded number of vectors."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["blocks"]


def blocks(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Split pages with these numbers of vectors into ranges of at most `most` vectors, or of one longer page."""
    ranges: list[tuple[int, int]] = []
    first = size = 0
    for index, length in enumerate(lengths):
        if size and size + length > most:
            ranges.append((first, index))
            first, size = index, 0
        size += length
    return [*ranges, (first, len(lengths))]
