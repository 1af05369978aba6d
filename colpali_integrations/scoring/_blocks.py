"""Group pages of unequal lengths into blocks, and limit the sizes of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["LIMITS", "Limits", "blocks"]


class Limits(NamedTuple):
    """Sizes at which the scorers take another path or split their work.

    Attributes:
        large: multiplications from which on `scoring._kernels` pays for its start. The first call costs 0.1 s where
            onnx is not loaded yet, which pays from a hundred of ColPali's pages on for a query of 20 vectors.
        large_after_onnx: the same in a process that has loaded onnx, as encoding does: two such pages suffice.
        matches: best matches in memory at once, 64 MB of floats: 800,000 pages for a query of 20 vectors, 16,000 for 50
            such queries.
        rows: page vectors in a block: four of ColPali's pages, of which 2 MB of floats stay in the cache from copy to
            product. From 3,000 to 6,000 made no difference that could be measured.
        products: products in memory at once per thread, 4 MB of floats.
        packed: bytes of pages per graph of `PackedPages`. They are in memory three times while the graph is made.
    """

    large: int = 2**28
    large_after_onnx: int = 2**22
    matches: int = 2**24
    rows: int = 4200
    products: int = 2**20
    packed: int = 2**24

    def for_dim(self, dim: int) -> Limits:
        """The limits for vectors of `dim` numbers: `rows` is meant for 128."""
        return self._replace(rows=min(self.rows, max(1, self.rows * 128 // dim)))


LIMITS = Limits()


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
