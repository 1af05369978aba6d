"""The grid of a page, with the cell that each vector stands for, and its form in JSON for stores.

Every model divides a page into a grid of cells: PaliGemma's patches, the tokens of Idefics3's tiles, ColTiny's squares
of 16 pixels. A vector stands for one cell, or for none (prompt tokens, Idefics3's small view of the whole page).
"""

from __future__ import annotations

import base64
import binascii
import reprlib
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from colpali_integrations._options import shown
from colpali_integrations.errors import InputError

__all__ = ["Box", "PageEmbedding", "PageGrid"]

Box: TypeAlias = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of the page's width and height; the origin is the top left corner."""

# Units of `margins` per cell: ColTiny's cell is 16 pixels on a page of 1152, so a unit is a third of a letter.
_STEPS = 4
# Limits on the memory that untrusted JSON can allocate; real pages have a few thousand.
_MOST_CELLS = _MOST_VECTORS = 2**20


@dataclass(frozen=True, eq=False)
class PageGrid:
    """The grid of a page, with the cell that each vector stands for.

    Attributes:
        rows: number of rows of the grid.
        columns: number of columns of the grid.
        cells: int32 (n_vectors,), ``row * columns + column`` of each vector's cell, -1 for a vector without a cell.
        filled: the fractions of the grid's width and height that the page's pixels fill; the rest is padding on the
            right and at the bottom. 1, 1 where the page is stretched over the grid.
        margins: int32 (n_vectors, 4) or None: how far the box of each vector extends beyond its cell to the left, the
            top, the right and the bottom, in quarters of a cell; negative where it ends inside. None where the box of
            a vector is its cell.
        groups: int32 (n_vectors,) or None: the number of the mean that stands for each vector, where they are pooled.

    Raises:
        InputError: an attribute has an invalid shape, range or type.
    """

    rows: int
    columns: int
    cells: NDArray[np.integer[Any]]
    filled: tuple[float, float] = (1.0, 1.0)
    margins: NDArray[np.integer[Any]] | None = None
    groups: NDArray[np.integer[Any]] | None = None

    def __post_init__(self) -> None:
        """Keep immutable copies of the arrays, and refuse invalid values."""
        if not (min(self.rows, self.columns) >= 1 and self.rows * self.columns <= _MOST_CELLS):
            raise InputError(
                f"a page's grid has from 1 to {_MOST_CELLS} cells, got {self.rows} rows and {self.columns} columns"
            )
        width, height = self.filled
        if not (0 < width <= 1 and 0 < height <= 1):
            raise InputError(f"filled must hold two fractions above 0 and at most 1, got {self.filled!r}")
        cells = _integers(self.cells, "cells")
        if cells.ndim != 1 or (cells.size and not -1 <= cells.min() <= cells.max() < self.rows * self.columns):
            raise InputError(
                f"cells must be a row of numbers from -1 to {self.rows * self.columns - 1} ({self.rows} x "
                f"{self.columns} cells), got shape {cells.shape}"
                + (f" from {cells.min()} to {cells.max()}" if cells.size else "")
            )
        object.__setattr__(self, "cells", cells)
        if self.margins is not None:
            margins = _integers(self.margins, "margins")
            if margins.shape != (len(cells), 4):
                raise InputError(f"margins must have shape ({len(cells)}, 4), one row per vector, got {margins.shape}")
            object.__setattr__(self, "margins", margins)
        if self.groups is not None:
            groups = _integers(self.groups, "groups")
            used = np.unique(groups)
            if groups.shape != cells.shape or (used != np.arange(len(used))).any():
                raise InputError(
                    f"groups must be {len(cells)} numbers from 0 without gaps, one per vector, got {shown(groups)}"
                )
            object.__setattr__(self, "groups", groups)

    def __len__(self) -> int:
        return len(self.cells)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PageGrid):
            return NotImplemented
        same_shape = (self.rows, self.columns, self.filled) == (other.rows, other.columns, other.filled)
        pairs: list[tuple[Any, Any]] = [
            (self.cells, other.cells),
            (self.margins, other.margins),
            (self.groups, other.groups),
        ]
        return same_shape and all(np.array_equal(ours, theirs) for ours, theirs in pairs)

    __hash__ = None  # type: ignore[assignment]

    @property
    def n_stored(self) -> int:
        """Number of vectors that the page has: those of the model, or the means of `groups`."""
        return len(self) if self.groups is None else int(self.groups.max(initial=-1)) + 1

    def spread(self, vectors: NDArray[Any]) -> NDArray[Any]:
        """The vector of each cell: (n_vectors, dim), in which a mean stands at the place of each vector of its group.

        Args:
            vectors: (n_stored, dim), of the page.

        Raises:
            InputError: they are more or fewer.

        Example:
            >>> grid = PageGrid(1, 3, np.array([0, 1, 2]), groups=np.array([0, 1, 0]))
            >>> grid.spread(np.array([[1.0], [2.0]])).tolist()
            [[1.0], [2.0], [1.0]]
        """
        if len(vectors) != self.n_stored:
            raise InputError(f"{len(vectors)} page vectors but a grid of {self.n_stored}: pooled vectors have no grid")
        return vectors if self.groups is None else vectors[self.groups]

    def select(self, kept: NDArray[np.bool_]) -> PageGrid:
        """The grid of some of the vectors of a page that is not pooled.

        Args:
            kept: (n_vectors,), whether each vector stays.

        Raises:
            InputError: `kept` has another length, or the page is pooled.

        Example:
            >>> PageGrid(1, 3, np.array([0, 1, 2])).select(np.array([True, False, True])).cells.tolist()
            [0, 2]
        """
        if kept.shape != self.cells.shape or self.groups is not None:
            raise InputError(
                f"kept must have one value per vector, {len(self)}, of a page that is not pooled; got {kept.shape}"
            )
        margins = None if self.margins is None else self.margins[kept]
        return replace(self, cells=self.cells[kept], margins=margins)

    def box(self, vector: int) -> Box | None:
        """Get the box of a vector on the page; None if it has no cell.

        Args:
            vector: index of the vector.

        Example:
            >>> PageGrid(rows=1, columns=4, cells=np.array([1]), filled=(0.5, 1.0)).box(0)
            (0.5, 0.0, 1.0, 1.0)
        """
        edges = self._edges(vector)
        return None if edges is None else self._fractions(edges)

    def cells_of(self, vector: int) -> NDArray[np.intp]:
        """List the cells of a vector: its cell, and those whose centres its box contains.

        Args:
            vector: index of the vector.

        Returns:
            (n,) ascending indices as in `cells`; empty for a vector without a cell.

        Example: the box of a word contains the cell to the right of the word's cell, and a quarter of the next.
            >>> PageGrid(1, 4, np.array([1]), margins=np.array([[0, 0, 5, 0]])).cells_of(0).tolist()
            [1, 2]
        """
        edges = self._edges(vector)
        if edges is None:
            return np.empty(0, np.intp)
        cell = int(self.cells[vector])
        left, top, right, bottom = edges
        across, down = np.arange(self.columns) + 0.5, np.arange(self.rows) + 0.5
        columns = np.flatnonzero((left <= across) & (across <= right))
        rows = np.flatnonzero((top <= down) & (down <= bottom))
        # The box of a thin line of print can miss the centres of its row.
        rows = rows if rows.size else np.array([cell // self.columns])
        columns = columns if columns.size else np.array([cell % self.columns])
        return np.union1d(rows[:, None] * self.columns + columns, cell).astype(np.intp)

    def cells_box(self, cells: NDArray[np.integer[Any]]) -> Box:
        """Get the smallest box around cells.

        Args:
            cells: (n,) indices as in `cells`, at least one, none of them -1.
        """
        row, column = np.divmod(cells, self.columns)
        return self._fractions(np.array([column.min(), row.min(), column.max() + 1, row.max() + 1], np.float64))

    def to_json(self) -> dict[str, Any]:
        """Convert to a small JSON-safe dict for `from_json`.

        ColPali's 1030 vectors take about 100 characters, ColTiny's 175 vectors with their margins about 1,000.

        Example:
            >>> PageGrid(rows=1, columns=3, cells=np.array([0, 1, 2])).to_json()["rows"]
            1
        """
        data: dict[str, Any] = {"rows": self.rows, "columns": self.columns, "n": len(self), "cells": _pack(self.cells)}
        if self.filled != (1.0, 1.0):
            data["filled"] = [repr(part) for part in self.filled]  # some stores round a number's last bit
        if self.margins is not None:
            data["margins"] = _pack(self.margins.T.reshape(-1))
        if self.groups is not None:
            data["groups"] = _pack(self.groups)
        return data

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> PageGrid:
        """Restore a grid from the dict of `to_json`.

        Raises:
            InputError: the dict is damaged, or is not of a grid.
        """
        try:
            rows, columns, n = (_whole(data[key], key) for key in ("rows", "columns", "n"))
            if not 0 <= n <= _MOST_VECTORS:
                raise InputError(f"{n} vectors")
            width, height = (float(part) for part in data.get("filled", (1.0, 1.0)))
            packed, grouped = data.get("margins"), data.get("groups")
            margins = None if packed is None else _unpack(packed, 4 * n).reshape(4, n).T
            groups = None if grouped is None else _unpack(grouped, n)
            cells = _unpack(data["cells"], n)
            return cls(rows, columns, cells, filled=(width, height), margins=margins, groups=groups)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, zlib.error, binascii.Error) as error:
            reason = f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else f"{error}"
            raise InputError(f"not a page's grid from PageGrid.to_json: {reason}") from error

    def _edges(self, vector: int) -> NDArray[np.float64] | None:
        """Compute left, top, right, bottom of a vector's box, in cells."""
        cell = int(self.cells[vector])
        if cell < 0:
            return None
        row, column = divmod(cell, self.columns)
        edges = np.array([column, row, column + 1, row + 1], np.float64)
        if self.margins is not None:
            edges += self.margins[vector] * np.array([-1, -1, 1, 1]) / _STEPS
        return edges

    def _fractions(self, edges: NDArray[np.float64]) -> Box:
        """Convert edges in cells (left, top, right, bottom) to fractions of the page, cut at its margins."""
        width, height = self.filled[0] * self.columns, self.filled[1] * self.rows
        left, top, right, bottom = np.clip(edges / [width, height, width, height], 0, 1).tolist()
        return left, top, right, bottom


class PageEmbedding(NamedTuple):
    """A page's multi-vector and its grid.

    Attributes:
        vectors: float32 (n_vectors, dim).
        grid: the grid with the cell of each vector.
    """

    vectors: NDArray[np.float32]
    grid: PageGrid


def _integers(values: Any, name: str) -> NDArray[np.int32]:
    array = np.asarray(values)
    if array.dtype.kind not in "iu" and array.size:
        raise InputError(f"{name} must be integers, got {array.dtype}")
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise InputError(f"{name} must fit into 32 bits")
    copy = array.astype(np.int32)  # the caller may change its own array later
    copy.setflags(write=False)
    return copy


def _pack(values: NDArray[np.integer[Any]]) -> str:
    """Compress differences, with the sign in the last bit and all low bytes before the high ones, which are zeros."""
    steps = np.diff(values.astype(np.int64), prepend=0)
    unsigned = np.where(steps < 0, -2 * steps - 1, 2 * steps).astype("<u8")
    planes = unsigned.view(np.uint8).reshape(-1, 8)[:, :5].T  # a difference of two int32 and its sign take 34 bits
    return base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode("ascii")


def _unpack(packed: str, n: int) -> NDArray[np.int64]:
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(packed, validate=True), 5 * n + 1)
    if len(data) != 5 * n or not inflate.eof or inflate.unused_data:
        raise InputError(f"the data does not have {n} numbers")
    wide = np.zeros((n, 8), np.uint8)
    wide[:, :5] = np.frombuffer(data, np.uint8).reshape(5, n).T
    unsigned = wide.view("<u8").reshape(n).astype(np.int64)
    return np.cumsum(np.where(unsigned % 2, -(unsigned // 2) - 1, unsigned // 2))


def _whole(value: Any, key: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float) or int(value) != value:
        raise InputError(f"{key} is {reprlib.repr(value)}")  # bounded: a value from a file may have any depth
    return int(value)
