"""Pixels of a drawn page, and their limits."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from colpali_integrations.errors import PdfError

__all__ = ["MAX_BYTES", "MAX_PIXELS", "MAX_SIDE", "Pixels", "check_sides", "drawing_scale"]

# A poster of 5 m at 150 dpi would be a gigapixel; larger pages are drawn at a lower resolution.
MAX_PIXELS = 50_000_000
MAX_SIDE = 20_000
# Sides are rounded up to whole pixels.
MAX_BYTES = 3 * (MAX_PIXELS + 2 * MAX_SIDE + 1)


class Pixels(NamedTuple):
    """A drawn page, 3 bytes per pixel in the order blue, green, red.

    Attributes:
        width: in pixels.
        height: in pixels.
        stride: bytes per row, of which `3 * width` are pixels.
        dpi: the resolution, lower than the requested one for a page beyond `MAX_PIXELS`.
        data: `stride * height` bytes, in an object with the buffer protocol.
    """

    width: int
    height: int
    stride: int
    dpi: float
    data: Any


def check_sides(size: tuple[float, float]) -> None:
    """Refuse a page that cannot be drawn at any resolution.

    Args:
        size: width and height in points.

    Raises:
        PdfError: it has no area, or one side is more than `MAX_SIDE` times as long as the other.

    Example:
        >>> check_sides((612, 792))
    """
    width, height = size
    if not (width > 0 and height > 0):
        raise PdfError(f"it has no area ({width:g} x {height:g} points); its crop box may lie outside of the page")
    if max(size) > MAX_SIDE * min(size):
        raise PdfError(
            f"it has {width:g} x {height:g} points, and at no resolution both sides have 1 to {MAX_SIDE:,} pixels"
        )


def drawing_scale(size: tuple[float, float], dpi: float) -> float:
    """Pixels per point; fewer than `dpi / 72` for a page beyond `MAX_PIXELS`.

    Args:
        size: width and height in points.
        dpi: the requested resolution.

    Raises:
        PdfError: the page has no area, or a side would be shorter than a pixel or longer than `MAX_SIDE`.

    Example:
        >>> drawing_scale((612, 792), dpi=144), drawing_scale((28800, 14400), dpi=144)
        (2.0, 0.3472222222222222)
    """
    check_sides(size)
    width, height = size
    scale = dpi / 72
    pixels = width * height * scale * scale
    if pixels > MAX_PIXELS:
        scale *= (MAX_PIXELS / pixels) ** 0.5
    if not (width * scale >= 1 and height * scale >= 1 and math.ceil(max(size) * scale) <= MAX_SIDE):
        raise PdfError(
            f"a page of {width:g} x {height:g} points has {width * scale:.3g} x {height * scale:.3g} pixels at "
            f"{scale * 72:.3g} dpi, and a side must have 1 to {MAX_SIDE:,}; pass another dpi"
        )
    return scale
