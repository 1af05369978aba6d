"""Where a page shows ink, in a small drawing of it."""

from __future__ import annotations

import math
from typing import NamedTuple

import pypdfium2

from colpali_integrations.pdfium.pixels import MAX_SIDE

__all__ = ["Box", "Ink"]

_DPI = 72
_LEAST_SIDE = 500
_MOST_PIXELS = 4_000_000
# Levels of 255. No reader sees smaller differences.
_CONTRAST = 8


class Box(NamedTuple):
    """A rectangle in the page's coordinates, which go up."""

    left: float
    bottom: float
    right: float
    top: float

    @property
    def center(self) -> tuple[float, float]:
        """The point in its middle."""
        return (self.left + self.right) / 2, (self.bottom + self.top) / 2

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        return self.right - self.left, self.top - self.bottom

    def contains(self, x: float, y: float) -> bool:
        """Whether a point is in it."""
        return self.left <= x <= self.right and self.bottom <= y <= self.top

    def within(self, other: Box, tolerance: float) -> bool:
        """Whether it reaches beyond another box by at most `tolerance` on each side."""
        return (
            self.left >= other.left - tolerance
            and self.bottom >= other.bottom - tolerance
            and self.right <= other.right + tolerance
            and self.top <= other.top + tolerance
        )


class Ink:
    """A drawing of a page, from which boxes are judged.

    Args:
        page: of an open document.
        unit: its user unit, in points.
    """

    def __init__(self, page: pypdfium2.PdfPage, unit: float) -> None:
        width, height = page.get_size()
        scale = max(unit * _DPI / 72, _LEAST_SIDE / max(width, height))
        scale = min(scale, (_MOST_PIXELS / (width * height)) ** 0.5, MAX_SIDE / max(width, height))
        bitmap = page.render(scale=scale)
        self._pixels = memoryview(bitmap.buffer).cast("B")
        self._width, self._height, self._stride = bitmap.width, bitmap.height, bitmap.stride
        self._bitmap = bitmap  # it owns the pixels
        self._x, self._y = _axes(page, bitmap.width / width, bitmap.height / height)

    def same_as(self, other: Ink) -> bool:
        """Whether two drawings of a page are equal."""
        return self._pixels == other._pixels

    def shows(self, box: Box) -> bool:
        """Whether the colours in a box, with a pixel around it, differ."""
        columns = sorted(_place(self._x, *corner) for corner in _corners(box))
        rows = sorted(_place(self._y, *corner) for corner in _corners(box))
        left, right = _pixel_range(columns[0], columns[-1], self._width)
        top, bottom = _pixel_range(rows[0], rows[-1], self._height)
        middle = (top + bottom) // 2
        if left >= right:
            return False
        least, most = [255] * 3, [0] * 3
        # Letters have ink in the middle row: the others are seldom looked at.
        for row in (*range(middle, bottom), *range(top, middle)):
            start = row * self._stride
            pixels = bytes(self._pixels[start + 3 * left : start + 3 * right])
            for color in range(3):
                values = pixels[color::3]
                least[color], most[color] = min(least[color], min(values)), max(most[color], max(values))
                if most[color] - least[color] >= _CONTRAST:
                    return True
        return False


_Axis = tuple[float, float, float]  # factors of x and y, and a constant


def _axes(page: pypdfium2.PdfPage, across: float, down: float) -> tuple[_Axis, _Axis]:
    """How a point of the page becomes a column and a row of its drawing."""
    left, bottom, right, top = page.get_bbox()
    turned: dict[int, tuple[_Axis, _Axis]] = {
        0: ((1, 0, -left), (0, -1, top)),
        90: ((0, 1, -bottom), (1, 0, -left)),
        180: ((-1, 0, right), (0, 1, -bottom)),
        270: ((0, -1, top), (-1, 0, right)),
    }
    columns, rows = turned[page.get_rotation()]
    return _scaled(columns, across), _scaled(rows, down)


def _scaled(axis: _Axis, factor: float) -> _Axis:
    return axis[0] * factor, axis[1] * factor, axis[2] * factor


def _corners(box: Box) -> list[tuple[float, float]]:
    return [(box.left, box.bottom), (box.right, box.top)]


def _place(axis: _Axis, x: float, y: float) -> float:
    return axis[0] * x + axis[1] * y + axis[2]


def _pixel_range(first: float, last: float, size: int) -> tuple[int, int]:
    """The pixels of an interval and one more on each side, as far as the drawing has them."""
    start, end = math.floor(max(first, -1)) - 1, math.ceil(min(last, size)) + 1
    return max(0, min(start, size)), max(0, min(end, size))
