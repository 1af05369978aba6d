"""Prepare the picture of a page for ColTiny: its ink at the model's size, as dark print on white.

The model reads 16-pixel cells, so the same word has another input a few pixels further to the right. The picture is
therefore laid out from the ink and not from the edges of the page: margins cost no time, and white around a page has
no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.runtime.arrays import Float32

__all__ = ["Headline", "Sight", "even_light", "look"]

_DARK = 115  # grey level of paper below which a page counts as light print on dark
_INK = 40  # grey levels between ink and paper; a scanner's noise stays below
_MARGIN = 16  # pixels around the ink
_HALF = 0.5  # of the range from black to paper: darker is ink
_ROUND = 32  # sides are multiples of it: a multiple of a cell, and large so that pages share shapes
# A small picture is a crop rather than a page: enlarged to a page's size, its letters would be larger than in training.
_MOST_ENLARGEMENT = 2.0
# Letters of large print (a title page, two words on a picture) are larger than the model's field of view. The width of
# strokes measures print: the median is 1 to 3 pixels in print of 12 to 36 pixels, twice that in bold print.
_WIDE_STROKE, _STROKE = 4.0, 2.5
_LEAST_SHARE = 0.25  # wider ink is a shape and no stroke
# Large print on a page of smaller print (the title of a slide): a block of ink between white, as high as letters of at
# least 36 pixels, with strokes that are wide, but narrower for its height than shapes.
_LARGE, _LARGEST = 24, 300
_WIDEST_STROKE = 0.3
_LEAST_INK = 0.01  # of the block's area
_BLOCK = 2**20  # pixels
_GAP = 0.8  # of a block's height, as white beside it: wider than between words


@dataclass(frozen=True)
class Headline:
    """A block of large print, scaled down to the model's size, above the rest of a `Sight`.

    Attributes:
        start: its first row in the sight's pixels.
        stop: the row after its last.
        left: position of its left edge on the page, in pixels of the sight's scale.
        top: position of its upper edge.
        scale: size of one of its pixels in pixels of the sight's scale.
    """

    start: int
    stop: int
    left: float
    top: float
    scale: float


@dataclass(frozen=True)
class Sight:
    """The part of a page that holds ink, at the model's size.

    Attributes:
        pixels: float32 (height, width) in [0, 1], paper at 1; sides are multiples of 32.
        left: position of its left edge on the page, in its pixels; negative beyond the page's edge.
        top: position of its upper edge, headlines included, such that it is right for the rest.
        page: width and height of the whole page in these pixels.
        headlines: blocks in the uppermost rows, which have positions and scales of their own.
    """

    pixels: Float32
    left: float
    top: float
    page: tuple[float, float]
    headlines: tuple[Headline, ...] = ()

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        """The position on the page of a point of the pixels."""
        for part in self.headlines:
            if part.start <= y < part.stop:
                return part.left + x * part.scale, part.top + (y - part.start) * part.scale
        return x + self.left, y + self.top


def look(image: Image.Image, longest_side: int) -> Sight:
    """Find the ink of a page and scale it to the size that the model was trained at.

    A page is scaled to `longest_side`, or smaller if its print is large throughout. On other pages, blocks of large
    print (a slide's title) are moved above the rest and made smaller.

    Args:
        image: of any mode and size.
        longest_side: pixels of the page's longer side; small pictures are enlarged twice at most.
    """
    grey = image if image.mode == "L" else image.convert("L")
    scale = min(longest_side / max(grey.size), _MOST_ENLARGEMENT)
    sight = _with_headlines(_look(grey, scale))
    rest = sight.headlines[-1].stop if sight.headlines else 0
    stroke = _median_stroke(sight.pixels[rest:] < _HALF)
    if stroke < _WIDE_STROKE:
        return sight
    return _with_headlines(_look(grey, scale * max(_STROKE / stroke, _LEAST_SHARE)))


def _with_headlines(sight: Sight) -> Sight:
    """Move the blocks of large print above the rest, scaled down."""
    blocks = _large_blocks(sight.pixels)
    if not blocks:
        return sight
    pixels, height = sight.pixels.copy(), 0
    parts: list[Headline] = []
    strips: list[Float32] = []
    for left, top, right, bottom, stroke, dark in blocks:
        share = max(_STROKE / stroke, _LEAST_SHARE)
        size = round((right - left) * share), round((bottom - top) * share)
        block = Image.fromarray((sight.pixels[top:bottom, left:right] * 255).astype(np.uint8))
        smaller = np.asarray(block.resize(size, Image.Resampling.LANCZOS))
        strip = np.ones((math.ceil(size[1] / _MARGIN + 1) * _MARGIN, pixels.shape[1]), np.float32)
        strip[_MARGIN : _MARGIN + size[1], _MARGIN : _MARGIN + size[0]] = (
            even_light(smaller) if dark else smaller.astype(np.float32) / 255
        )
        beside = _MARGIN / share
        x, y = left + sight.left - beside, top + sight.top - beside
        parts.append(Headline(height, height + len(strip), x, y, 1 / share))
        strips.append(strip)
        height += len(strip)
        pixels[top:bottom, left:right] = 1
    # Re-crop the rest: removing headlines can leave blank rows above and below it.
    inked = np.flatnonzero((pixels < 1 - _INK / 255).any(axis=1))
    first, last = (int(inked[0]), int(inked[-1])) if inked.size else (0, 0)
    first = max(0, first // _MARGIN - 1) * _MARGIN
    rest = pixels[first : (last // _MARGIN + 2) * _MARGIN]
    gap = -(height + len(rest)) % _ROUND
    strips.append(np.ones((gap, pixels.shape[1]), np.float32))
    height += gap
    return Sight(np.concatenate([*strips, rest]), sight.left, sight.top + first - height, sight.page, tuple(parts))


def _large_blocks(pixels: Float32) -> list[tuple[int, int, int, int, float, bool]]:
    """Left, top, right, bottom of blocks of large print, width of their strokes, and whether their paper is dark."""
    blocks = []
    ink = pixels < _HALF
    for top, bottom in _runs(ink, 1, 1):
        if bottom - top < _LARGE:
            continue
        band = ink[top:bottom]
        for left, right in _runs(band, 0, round(_GAP * min(bottom - top, _LARGEST))):
            part = band[:, left:right]
            for above, below in _runs(part, 1, 1):
                height = below - above
                if not _LARGE <= height <= _LARGEST or right - left < height or not left:
                    continue  # ink at the edge is paper that was inverted: a margin belongs there
                block = part[above:below]
                dark = bool(block.mean() > 0.5)  # light print on a bar
                if dark:
                    block = ~block
                stroke = _median_stroke(block)
                if _WIDE_STROKE <= stroke <= _WIDEST_STROKE * height and block.mean() > _LEAST_INK:
                    blocks.append((left, top + above, right, top + below, stroke, dark))
    return blocks


def _runs(ink: NDArray[np.bool_], across: int, gap: int) -> list[tuple[int, int]]:
    """Start and end of each run of lines with ink, gaps of up to `gap` included; `across` is the axis of a line."""
    inked = np.flatnonzero(ink.any(axis=across))
    if not inked.size:
        return []
    breaks = np.flatnonzero(np.diff(inked) > gap + 1)
    starts = inked[np.concatenate([[0], breaks + 1])]
    ends = inked[np.concatenate([breaks, [len(inked) - 1]])] + 1
    return list(zip(starts.tolist(), ends.tolist(), strict=True))


def _look(grey: Image.Image, scale: float) -> Sight:
    page = (grey.width * scale, grey.height * scale)
    values = np.asarray(grey)
    paper = _paper(values)
    box = _ink(values, paper)
    if box is None:
        return Sight(np.ones((_ROUND, _ROUND), np.float32), 0.0, 0.0, page)
    left, top, right, bottom = box
    margin = _MARGIN / scale
    width, height = (
        math.ceil((length * scale + 2 * _MARGIN) / _ROUND) * _ROUND for length in (right - left, bottom - top)
    )
    x0, y0 = left - margin, top - margin
    x1, y1 = x0 + width / scale, y0 + height / scale
    # Pillow resizes only regions inside a picture: extend the page by paper where the margin reaches beyond it.
    beyond_x, beyond_y = max(0, math.ceil(-x0)), max(0, math.ceil(-y0))
    needed = (beyond_x + max(grey.width, math.ceil(x1)), beyond_y + max(grey.height, math.ceil(y1)))
    if needed != grey.size:
        larger = Image.new("L", needed, paper)
        larger.paste(grey, (beyond_x, beyond_y))
        grey = larger
    region = (x0 + beyond_x, y0 + beyond_y, x1 + beyond_x, y1 + beyond_y)
    pixels = np.asarray(grey.resize((width, height), Image.Resampling.LANCZOS, region))
    return Sight(even_light(pixels), x0 * scale, y0 * scale, page)


def even_light(grey: NDArray[np.uint8]) -> Float32:
    """Convert a page of any colours to dark print on white paper.

    The paper is the page's median grey. Dark pages (slides, terminals) are inverted, then the paper is made white.

    Args:
        grey: uint8 (height, width), 0 black to 255 white.

    Returns:
        float32 (height, width) in [0, 1], paper at 1.

    Example:
        >>> slide = np.full((4, 9), 40, np.uint8)
        >>> slide[1, 2] = 255
        >>> light = even_light(slide)
        >>> float(light[0, 0]), float(light[1, 2])
        (1.0, 0.0)
    """
    paper, levels = _paper(grey), np.arange(256, dtype=np.float32)
    if paper < _DARK:
        levels, paper = 255 - levels, 255 - paper
    return np.minimum(levels / paper, 1).astype(np.float32)[grey]


def _median_stroke(ink: NDArray[np.bool_]) -> float:
    """Median length in pixels of the runs of ink in all rows; 0 without ink. Print has far more runs than figures."""
    ink = np.pad(ink, ((0, 0), (1, 1)))
    # Starts and ends of runs alternate; the padding ends each at its row.
    edges = np.flatnonzero(ink[:, 1:] != ink[:, :-1])
    return float(np.median(edges[1::2] - edges[::2])) if edges.size else 0.0


def _paper(grey: NDArray[np.uint8]) -> int:
    """The median grey, from a histogram: a partial sort of a million pixels takes ten times as long."""
    counts = sum(np.bincount(block.reshape(-1), minlength=256) for block in _blocks(grey))
    return int(np.searchsorted(np.cumsum(counts), grey.size / 2))


def _ink(grey: NDArray[np.uint8], paper: int) -> tuple[int, int, int, int] | None:
    """Left, top, right, bottom (exclusive) of the ink; None for a blank page."""
    is_ink = np.abs(np.arange(256) - paper) > _INK
    inked_rows, inked_columns = [], np.zeros(grey.shape[1], np.bool_)
    for block in _blocks(grey):
        inked = is_ink[block]
        inked_rows.append(inked.any(axis=1))
        inked_columns |= inked.any(axis=0)
    rows, columns = np.flatnonzero(np.concatenate(inked_rows)), np.flatnonzero(inked_columns)
    if not rows.size:
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _blocks(grey: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Cut a page into blocks of rows: NumPy makes an index of 8 bytes of each pixel, a gigabyte for a page of A0."""
    rows = max(1, _BLOCK // grey.shape[1])
    return (grey[top : top + rows] for top in range(0, len(grey), rows))
