"""Prepare the picture of a page for ColTiny: its ink at the model's size, as dark print on white.

The model reads 16-pixel cells, so the same word has another input a few pixels further to the right. The picture is
therefore laid out from the ink and not from the edges of the page: margins cost no time, and white around a page has
no effect.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from colpali_integrations.errors import ImageError
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
_BAND = 2**24  # pixels that are converted and resized together: A4 at 300 dpi has 9 million
_MOST_PIXELS = 2**31  # of a picture with its margins, which are wide beside a narrow one
_WHITE = 255
_LANCZOS = 3  # pixels that its filter reaches to either side
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

    Raises:
        ImageError: one side is so much longer than the other that nothing could be read.
    """
    grey = _Grey(image)
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


class _Grey:
    """The grey levels of a picture. Those of a large one are made in bands of rows, and never exist as a whole.

    Args:
        image: of any mode.

    Attributes:
        size: width and height.
    """

    def __init__(self, image: Image.Image) -> None:
        self.size = image.size
        self._image = image
        is_small = image.width * image.height <= _BAND
        self._levels = np.asarray(image if image.mode == "L" else image.convert("L")) if is_small else None

    @cached_property
    def paper(self) -> int:
        """The median grey."""
        size = self.size[0] * self.size[1]
        if self._levels is not None:
            return _median(self._levels)
        counts = np.sum([Image.fromarray(levels).histogram() for _, levels in self._bands()], axis=0)
        return int(np.searchsorted(np.cumsum(counts), size / 2))

    @cached_property
    def ink(self) -> tuple[int, int, int, int] | None:
        """Left, top, right, bottom (exclusive) of the ink; None for a blank page."""
        least, most = self.paper - _INK, self.paper + _INK
        rows, columns = np.zeros(self.size[1], np.bool_), np.zeros(self.size[0], np.bool_)
        for start, levels in self._bands():
            for axis, marked in ((1, rows[start : start + len(levels)]), (0, columns)):
                if least > 0:
                    marked |= levels.min(axis=axis) < least
                if most < _WHITE:
                    marked |= levels.max(axis=axis) > most
        if not rows.any():
            return None
        down, across = np.flatnonzero(rows), np.flatnonzero(columns)
        return int(across[0]), int(down[0]), int(across[-1]) + 1, int(down[-1]) + 1

    def resized(self, size: tuple[int, int], region: tuple[float, float, float, float]) -> NDArray[np.uint8]:
        """A region at another size, uint8 (height, width); beyond the picture there is paper.

        Pillow resizes rows first and then columns, with 8 bits in between, and only regions inside a picture. So rows
        can be resized in bands, with paper around them, and the result is that of the whole picture on paper. Rows that
        no column's filter reaches are left out.
        """
        left, top, right, bottom = region
        before_x, before_y = max(0, math.ceil(-left)), max(0, math.ceil(-top))
        width, height = before_x + max(self.size[0], math.ceil(right)), before_y + max(self.size[1], math.ceil(bottom))
        if width * height > _MOST_PIXELS:
            raise ImageError(
                f"is too narrow to be read: it has {self.size[0]}x{self.size[1]} pixels; cut it into pages"
            )
        reach = _LANCZOS * max(1.0, (bottom - top) / size[1]) + 2
        first, last = max(0, math.floor(top - reach)), min(self.size[1], math.ceil(bottom + reach))
        narrow = np.full((height, size[0]), self.paper, np.uint8)
        for start, levels in self._bands(first, last, width):
            rows = narrow[before_y + start : before_y + start + len(levels)]
            self._across(levels, rows, width, before_x, (left + before_x, right + before_x))
        down = (0, top + before_y, size[0], bottom + before_y)
        return np.asarray(Image.fromarray(narrow).resize(size, Image.Resampling.LANCZOS, down))

    def _across(
        self, levels: NDArray[np.uint8], out: NDArray[np.uint8], width: int, left: int, between: tuple[float, float]
    ) -> None:
        """Resize rows across, on paper of a width, `left` pixels from its edge.

        A row of one level stays one: those between the lines of print, a third of a page, need no filter.
        """
        least, most = levels.min(axis=1), levels.max(axis=1)
        out[:] = least[:, None]
        has_paper = width != levels.shape[1]
        [varied] = np.nonzero((least != most) | (least != self.paper if has_paper else False))
        if not varied.size:
            return
        some = levels[varied]
        if has_paper:
            paper = np.full((len(some), width), self.paper, np.uint8)
            paper[:, left : left + some.shape[1]] = some
            some = paper
        box = (between[0], 0, between[1], len(some))
        size = out.shape[1], len(some)
        out[varied] = np.asarray(Image.fromarray(some).resize(size, Image.Resampling.LANCZOS, box))

    def _bands(
        self, first: int = 0, last: int | None = None, width: int | None = None
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Rows of the picture in bands: the first row of each, and its levels (height, width).

        Args:
            first: row of the picture.
            last: the row after the last one; None for all.
            width: of what is made of the rows, in pixels, where that is more than the picture's.
        """
        last = self.size[1] if last is None else last
        if self._levels is not None:
            yield first, self._levels[first:last]
            return
        step = max(1, _BAND // (width or self.size[0]))
        for start in range(first, last, step):
            rows = self._image.crop((0, start, self.size[0], min(start + step, last)))
            yield start, np.asarray(rows if rows.mode == "L" else rows.convert("L"))


def _look(grey: _Grey, scale: float) -> Sight:
    page = (grey.size[0] * scale, grey.size[1] * scale)
    if grey.ink is None:
        return Sight(np.ones((_ROUND, _ROUND), np.float32), 0.0, 0.0, page)
    left, top, right, bottom = grey.ink
    margin = _MARGIN / scale
    width, height = (
        math.ceil((length * scale + 2 * _MARGIN) / _ROUND) * _ROUND for length in (right - left, bottom - top)
    )
    x0, y0 = left - margin, top - margin
    pixels = grey.resized((width, height), (x0, y0, x0 + width / scale, y0 + height / scale))
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
    paper, levels = _median(grey), grey.astype(np.float32)
    if paper < _DARK:
        np.subtract(255, levels, out=levels)
        paper = 255 - paper
    levels /= paper
    return levels if paper == _WHITE else np.minimum(levels, 1, out=levels)


def _median_stroke(ink: NDArray[np.bool_]) -> float:
    """Median length in pixels of the runs of ink in all rows; 0 without ink. Print has far more runs than figures."""
    # Starts and ends of runs alternate; the paper after each row ends its last run.
    rows = np.zeros((len(ink), ink.shape[1] + 1), np.bool_)
    rows[:, :-1] = ink
    flat = rows.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    if flat[:1].any():
        edges = np.concatenate([[-1], edges])
    return float(np.median(edges[1::2] - edges[::2])) if edges.size else 0.0


def _median(levels: NDArray[np.uint8]) -> int:
    """The median grey: the lowest level that at least half of the pixels do not exceed."""
    # Most pages are white. Counting a level takes a tenth of the time of a histogram, which counts one after the other.
    if 2 * np.count_nonzero(levels == _WHITE) > levels.size:
        return _WHITE
    return int(np.searchsorted(np.cumsum(Image.fromarray(levels).histogram()), levels.size / 2))
